"""Project 7 Machine translation: a Transformer that you can talk to
机器翻译：可以与之交互的 Transformer

You will be able to answer
    1. Into which pieces is a text cut?       show_tokens   merged, pieces, again
    2. Which sentences share a batch?         show_batches  by-length, padding
    3. What does BLEU count?                  show_bleu     by-hand, as-sacrebleu
    4. Which translation does a beam choose?  show_beam     penalty, greedy, best
    5. How good is it?        show_results  apart, new, overfits, depends, exact, recurrent, beside
Predict   word_by_word_bleu: each word by its likeliest translation: what BLEU, of 100?
Run       python phase07_transformer/project-translation.py       about six minutes
          … --interactive        translates what you write; --prompt "The old dog." does it once
          … --data multi30k      captions to German; --data enzh: to Chinese; --reverse: back
Needs     phase06_rnn/07-seq2seq, phase06_rnn/08-attention-basic,
          phase07_transformer/06-transformer-full
Reference sacrebleu.corpus_bleu
Notation  B batch  S, T tokens of source and target  K width of the beam  V symbols
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from common import checkpoint
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data import sentences
from common.data.sequences import END, PAD, START
from common.data.translation import Pair, PairSet, load_pairs, share_with_new, word_by_word
from common.errors import LessonError
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

seq2seq = load_lesson("phase06_rnn/07-seq2seq")
looking_back = load_lesson("phase06_rnn/08-attention-basic")
transformer = load_lesson("phase07_transformer/06-transformer-full")
teacher_inputs = seq2seq.teacher_inputs
Tokenizer = sentences.Subwords
Row = tuple[Tensor, Tensor]  # a sentence's tokens, its translation's with END; or a batch of them

# What flags that are not given stand for; what may differ when a run is resumed.
SETTINGS = ("merges", "dim", "layers", "dropout", "epochs", "warmup")
RECIPES = {
    "generated": (450, 64, 2, 0.0, 7, 300),
    "multi30k": (4000, 128, 3, 0.1, 6, 600),
    "enzh": (4000, 128, 3, 0.1, 8, 600),
}
FREE = ("preset", "device", "data_dir", "out", "resume", "debug", "beam", "alpha", "recurrent")


@dataclass
class Config(LessonConfig):
    data: str = param("generated", "sentences", choices=tuple(RECIPES), long="multi30k")
    reverse: bool = param(False, "translate into English")
    merges: int | None = param(None, "merges of the byte-pair encoding", low=0)
    dim: int | None = param(None, "width of the vectors, a multiple of 16", tiny=32, long=256)
    layers: int | None = param(None, "layers of encoder and decoder", tiny=1)
    dropout: float | None = param(None, "share of numbers that become 0", long=0.2)
    epochs: int | None = param(None, "passes over the training pairs", tiny=1, long=10)
    warmup: int | None = param(None, "steps in which the rate rises", tiny=10)
    lr: float = param(0.6, "what the paper's rates are multiplied by")
    smoothing: float = param(0.1, "share of a label that is spread over all symbols")
    tokens: int = param(1000, "positions of a batch at most, on either side", tiny=300, low=100)
    longest: int = param(60, "tokens at most; longer pairs are left out", tiny=24)
    recurrent: bool = param(True, "train phase 6's model with attention beside it")
    beam: int = param(4, "width K of the beam", tiny=2)
    alpha: float = param(0.6, "exponent of the length penalty", low=0)
    prompt: str | None = param(None, "the trained model translates this, once")
    interactive: bool = param(False, "write sentences that the trained model translates")


# 1. Pieces


def merge(symbols: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Join the pair wherever it stands, from left to right: a b a b a, (a, b) -> ab ab a"""
    joined = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def learn_merges(words: Counter, most: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016): which neighbours become one symbol, in order.

    words: how often each word stands in the text. A word begins as its characters. The pair of
    neighbours with the most occurrences is joined in all words, and so on; of equally frequent
    ones, the first in the alphabet. It ends after `most` merges, or when no pair is left twice.
    """
    # practice: What belongs together
    pieces = {word: list(word) for word in words}
    counts = Counter()
    places = defaultdict(set)  # in which words a pair may stand
    for word, symbols in pieces.items():
        for pair in pairwise(symbols):
            counts[pair] += words[word]
            places[pair].add(word)

    merges = []
    while len(merges) < most and counts:
        highest = max(counts.values())
        if highest < 2:
            break
        best = min(pair for pair, count in counts.items() if count == highest)
        merges.append(best)

        # Only words with the pair change: take out their pairs, then count the new ones.
        for word in places.pop(best):
            for pair in pairwise(pieces[word]):
                counts[pair] -= words[word]
            pieces[word] = merge(pieces[word], best)
            for pair in pairwise(pieces[word]):
                counts[pair] += words[word]
                places[pair].add(word)
        counts = +counts  # without what has become 0
    return merges
    # end practice


def cut(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """A word as symbols: of the merges that fit, the one learned first is made, and so on."""
    # practice: Cut a word
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = list(word)
    while True:
        fitting = [pair for pair in pairwise(symbols) if pair in ranks]
        if not fitting:
            return symbols
        symbols = merge(symbols, min(fitting, key=ranks.get))
    # end practice


def show_tokens(cfg: Config, pairs: PairSet) -> Tokenizer:
    print("\n[1] Frequent neighbours become one symbol")
    words = Counter({"low": 5, "lower": 2, "newest": 6, "widest": 3})
    joined = "e+s es+t l+o lo+w e+w ew+est n+ewest"
    wanted = [tuple(pair.split("+")) for pair in joined.split()]
    found = [learn_merges(words, 7), learn_merges(words, 2), learn_merges(Counter({"ab": 1}), 9)]
    text = f"low 5, lower 2, newest 6, widest 3: {joined}"
    check("merged", text, found == [wanted, wanted[:2], []])
    merges = [("b", "c"), ("a", "b"), ("bc", "d")]
    found = [cut(word, merges) for word in ("abcd", "abab", "dacb")]
    text = "b+c learned before a+b: abcd is a bcd, abab is ab ab"
    check("pieces", text, found == [["a", "bcd"], ["ab", "ab"], ["d", "a", "c", "b"]])

    # One for both languages, from the training part alone.
    words, characters = sentences.count_words(pairs.train)
    tokenizer = Tokenizer(characters, learn_merges(words, cfg.merges), cut)
    texts = [text for pair in pairs.val[:100] for text in pair if not tokenizer.strange(text)]
    numbers = [tokenizer.encode(text) for text in texts]
    again = [tokenizer.decode(each) for each in numbers]
    check("again", f"{len(texts)} texts come back from their numbers", again == texts)
    print(f"  {len(tokenizer):,} symbols, as in {' '.join(tokenizer.names_of(numbers[1]))}")
    return tokenizer


# 2. Batches


def batches_by_length(lengths: Tensor, generator: torch.Generator, most: int) -> list[Tensor]:
    """Which sentences share a batch: of similar length, and each time others.

    lengths (n,): the tokens of each. From a random order, sorted by length, a batch takes sentences
    while its size times its longest is at most `most`. Returns their numbers, batches shuffled.
    """
    # practice: Batches by length
    order = torch.randperm(len(lengths), generator=generator)
    order = order[lengths[order].argsort(stable=True)]

    batches = []
    start = 0
    for stop, length in enumerate(lengths[order].tolist()):
        # Sorted upward, so that the newest one is the longest.
        if stop > start and (stop + 1 - start) * length > most:
            batches.append(order[start:stop])
            start = stop
    batches.append(order[start:])

    chosen = torch.randperm(len(batches), generator=generator)
    return [batches[number] for number in chosen]
    # end practice


def show_batches(cfg: Config, rows: list[Row]) -> dict[str, float]:
    print("\n[2] Sentences of similar length share a batch, which has little padding then")
    lengths = torch.tensor([5, 2, 9, 2, 5, 3, 30])
    found = batches_by_length(lengths, torch.Generator().manual_seed(0), 12)
    found = sorted(sorted(lengths[batch].tolist()) for batch in found)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(20)]
    orders = {str(batches_by_length(torch.tensor([2, 2, 2, 9]), seed, 4)) for seed in seeds}
    text = "5, 2, 9, 2, 5, 3, 30 tokens, 12 to a batch: 2 2 3, 5 5, 9, 30, in many orders"
    check("by-length", text, found == [[2, 2, 3], [5, 5], [9], [30]] and len(orders) > 10)

    batches = sentences.PairBatches(rows, batches_by_length, cfg.tokens, cfg.seed)
    by_length = sentences.share_of_padding(batches)
    mixed = []
    for chosen in torch.randperm(len(rows)).split(len(rows) // len(batches)):
        mixed.append(sentences.pad([rows[number] for number in chosen]))
    at_random = sentences.share_of_padding(mixed)
    text = f"at random {at_random:.3f} of all positions are padding, by length {{}}"
    check("padding", text, by_length, at_most=0.6 * at_random)
    return {"padding": by_length, "padding_random": at_random}


# 3. BLEU


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """BLEU (Papineni et al. 2002), from 0 to 100, of all translations together.

    For n from 1 to 4: which share of the n-grams (n words in a row) stands in the references, each
    at most as often as there? BLEU is 100 times their geometric mean, times exp(1 - r / c)
    if the references have more words, r, than the translations, c. Of orders without a match the
    first counts 1/2, the next 1/4, and so on; without any match, or any 4-gram, BLEU is 0.
    """
    # practice: BLEU
    matches = [0] * 4
    totals = [0] * 4
    words = 0
    wanted = 0
    for translation, reference in zip(translations, references):
        ours = sentences.bleu_words(translation)
        theirs = sentences.bleu_words(reference)
        words += len(ours)
        wanted += len(theirs)
        for n in range(1, 5):
            grams = Counter(zip(*(ours[i:] for i in range(n))))
            in_reference = Counter(zip(*(theirs[i:] for i in range(n))))
            # The smaller of the two counts: “the the the” is not three times right.
            matches[n - 1] += (grams & in_reference).total()
            totals[n - 1] += grams.total()

    if totals[3] == 0 or sum(matches) == 0:
        return 0.0
    logs = 0.0
    smallest = 1.0
    for match, total in zip(matches, totals):
        if match == 0:
            smallest = smallest / 2
            match = smallest
        logs += math.log(match / total)
    brevity = min(0.0, 1 - wanted / words)
    return 100 * math.exp(logs / 4 + brevity)
    # end practice


def show_bleu(cfg: Config, pairs: PairSet) -> None:
    print("\n[3] BLEU: the words, pairs, threes and fours that a translation shares with another")
    found = bleu(["the old dog sees the the cat"], ["the old dog sees the small cat today"])
    by_hand = 100 * (6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** (1 / 4) * math.exp(1 - 8 / 7)
    text = "6 of 7 words, 4 of 6 pairs, 3 of 5 threes, 2 of 4 fours, one word short: BLEU 55.8"
    check_close("by-hand", text, found, by_hand)

    from sacrebleu import corpus_bleu

    cases = sentences.good_and_bad(pairs.val[:40])
    ours = [bleu(*case) for case in cases]
    theirs = [corpus_bleu(case, [wanted], tokenize="zh").score for case, wanted in cases]
    text = f"{len(cases)} sets of translations, {min(ours):.0f} to {max(ours):.0f}: as sacrebleu"
    check_close("as-sacrebleu", text, ours, theirs)


# 4. Beam search


def length_penalty(length: Tensor | int, alpha: float) -> Tensor | float:
    """What log p is divided by, so that length costs less (Wu et al. 2016, section 7)."""
    return ((5 + length) / 6) ** alpha


def is_over(score: Tensor, most: Tensor, ended: Tensor) -> bool:
    """No unfinished candidate can overtake: `most` (B, K) is what it could score at the limit."""
    best = score.masked_fill(~ended, -math.inf).amax(dim=1)
    hope = most.masked_fill(ended, -math.inf).amax(dim=1)
    return bool((best >= hope).all())


@torch.no_grad()
def beam_search(
    model: nn.Module, source: Tensor, width: int, alpha: float, length: int
) -> tuple[Tensor, Tensor]:
    """The best translation of each sentence (B, S): tokens (B, at most `length`), scores (B,).

    A score is log p divided by the length penalty, END counted. A candidate that has ended stays,
    unless K others are better.
    """
    # practice: Beam search for a whole batch
    memory, mask = model.encode(source)
    memory = memory.repeat_interleave(width, dim=0)
    mask = mask.repeat_interleave(width, dim=0)
    rows = torch.arange(len(source), device=source.device)[:, None] * width  # the first of each
    written = source.new_full((len(memory), 1), START)
    lengths = torch.zeros(len(source), width, device=source.device)

    # One candidate at first: K alike would stay alike.
    log_p = torch.full_like(lengths, -math.inf)
    log_p[:, 0] = 0.0
    for _ in range(length):
        ended = (written[:, -1] == END).unflatten(0, (-1, width))  # (B, K)
        logits = model.decode(written, memory, mask)[:, -1]
        following = seq2seq.after_end(logits.log_softmax(dim=1), written[:, -1])
        total = log_p[:, :, None] + following.unflatten(0, (-1, width))  # (B, K, V)
        lengths = lengths + ~ended
        scores = total / length_penalty(lengths, alpha)[:, :, None]
        score, place = scores.flatten(1).topk(width)

        parent = place // total.shape[2]
        token = place % total.shape[2]
        log_p = total.flatten(1).gather(1, place)
        lengths = lengths.gather(1, parent)
        written = torch.cat([written[(rows + parent).flatten()], token.view(-1, 1)], dim=1)

        if is_over(score, log_p / length_penalty(length, alpha), token == END):
            break
    tokens = written[:, 1:].unflatten(0, (-1, width))
    return tokens[:, 0], score[:, 0]
    # end practice


def show_beam(cfg: Config) -> None:
    print("\n[4] Beam search: K candidates for each sentence; long ones are not punished twice")
    found = [-4 / length_penalty(7, 1.0), -5 / length_penalty(13, 1.0)]
    text = "7 tokens of log p -4 score -4 / 2, 13 of log p -5 score -5 / 3: the longer one wins"
    check_close("penalty", text, found, [-2, -5 / 3])

    # Greater weights, so that an untrained model prefers some symbols clearly.
    torch.manual_seed(cfg.seed)
    model = transformer.Transformer(9, 9, 16, 2, 32, 1, shared=True).double().eval()
    model.target_embedding.weight.data *= 3
    source = torch.randint(4, 9, (6, 5))
    source[::2, 3:] = PAD
    found = [sentences.until_end(row) for row in beam_search(model, source, 1, 0.6, 8)[0]]
    wanted = [sentences.until_end(row) for row in transformer.greedy(model, source, 8)]
    check("greedy", "a beam of 1 writes what lesson 7.6's greedy decoding writes", found == wanted)

    texts, counted = sentences.every_text(symbols=9, length=3)  # (729, 3), True up to END
    best = []
    for row in source:
        log_p = model(row.expand(len(texts), -1), teacher_inputs(texts)).log_softmax(dim=2)
        sums = (log_p.gather(2, texts[:, :, None])[:, :, 0] * counted).sum(dim=1)
        best.append((sums / length_penalty(counted.sum(dim=1), 0.6)).max())
    _, found = beam_search(model, source, len(texts), 0.6, 3)
    text = "a beam of 729 finds the best of all texts of up to 3 of 9 symbols"
    check_close("best", text, found, torch.stack(best), rtol=1e-6)


# 5. Training, and results


class Recurrent(looking_back.Attention):
    """Lesson 6.8's model, as the Transformer is used: encode once, decode what was written."""

    pad = PAD

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The states of the text, in front of them the decoder's first one; the mask (B, S)."""
        states, last = self.encoder(source)
        return torch.cat([last[:, None], states], dim=1), source != PAD

    def decode(self, inputs: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        return self.decoder(inputs, memory[:, 0], memory[:, 1:], mask)[0]

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        return self.decode(inputs, *self.encode(source))


def make_model(cfg: Config, symbols: int, kind: str) -> nn.Module:
    """The same seed gives the same first weights."""
    torch.manual_seed(cfg.seed)
    if kind == "recurrent":
        sizes = (symbols, cfg.dim, 2 * cfg.dim)
        model = Recurrent(looking_back.BiEncoder(*sizes), looking_back.LuongDecoder(*sizes))
    else:
        sizes = (cfg.dim, cfg.dim // 16, 4 * cfg.dim, cfg.layers, cfg.dropout)
        model = transformer.Transformer(symbols, symbols, *sizes, shared=True)
    return model.to(cfg.torch_device())


def loss_of(model: nn.Module, batch: Row, smoothing: float = 0.0) -> Tensor:
    source, target = batch
    return transformer.smoothed_loss(model(source, teacher_inputs(target)), target, smoothing)


def train(
    cfg: Config, model: nn.Module, rows: list[Row], val: list[Pair], tokenizer: Tokenizer
) -> list[dict[str, float]]:
    """Returns loss, BLEU and seconds of each pass. After a kill, --resume goes on with the next."""
    batches = sentences.PairBatches(rows, batches_by_length, cfg.tokens, cfg.seed)
    steps = cfg.epochs * len(batches)

    def rate(step: int) -> float:  # torch counts from 0
        # Against the noise of the last steps, as in lesson 7.6.
        share_left = 1 - step / steps
        return transformer.warmup_rate(step + 1, cfg.dim, cfg.warmup) * min(1.0, 2 * share_left)

    adam = torch.optim.Adam(model.parameters(), lr=cfg.lr, betas=(0.9, 0.98), eps=1e-9)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, rate)
    begun = time.perf_counter()

    def measure(model: nn.Module) -> dict[str, float]:
        nonlocal begun
        seconds = time.perf_counter() - begun
        sources, targets = zip(*val[:200])
        score = bleu(translate(cfg, model, tokenizer, sources, width=1), targets)
        begun = time.perf_counter()  # what was measured is no training
        return {"val_bleu": score, "seconds": seconds}

    kept = {name: value for name, value in asdict(cfg).items() if name not in FREE}
    parts = {"model": model, "optimizer": adam, "schedule": schedule, "batches": batches}
    path = cfg.out / f"training-{type(model).__name__.lower()}.pt"
    saved = checkpoint.Checkpoint(path, resume=cfg.resume, settings=kept, **parts)
    options = {"scheduler": schedule, "grad_clip": 1.0, "evaluate_fn": measure, "checkpoint": saved}
    loss_fn = partial(loss_of, smoothing=cfg.smoothing)
    return fit(model, batches, adam, loss_fn, epochs=cfg.epochs, **options)


def translate(
    cfg: Config, model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], width: int
) -> list[str]:
    """In batches by length, with a beam of this width; in the order of the texts."""
    model.eval()
    numbers = [torch.tensor(tokenizer.encode(text)[: cfg.longest]) for text in texts]
    lengths = torch.tensor([len(each) for each in numbers])
    found = [""] * len(texts)
    for chosen in batches_by_length(lengths, torch.Generator(), 4 * cfg.tokens // width):
        source = sentences.fill_up([numbers[each] for each in chosen]).to(cfg.torch_device())
        tokens, _ = beam_search(model, source, width, cfg.alpha, source.shape[1] + 10)
        for place, row in zip(chosen.tolist(), tokens.tolist()):
            found[place] = tokenizer.decode(row)
    return found


def show_results(cfg: Config, pairs: PairSet, rows: list[Row], tokenizer: Tokenizer) -> tuple:
    print("\n[5] Training; then the test part, once")
    no_leak("apart", "no sentence stands in two parts", *pairs.fingerprints())
    if pairs.name == "generated":
        check("new", "{} of the test sentences have a new pair", share_with_new(pairs), at_least=1)

    model = transformer.Transformer(len(tokenizer), len(tokenizer), 32, 2, 64, 1, 0.0, True)
    batch = sentences.pad(sentences.one_of_each(rows)[:8])
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    overfits("overfits", "8 pairs: the loss falls to {}", model, batch, loss_of, adam, steps=70)
    written, _ = beam_search(model.eval(), batch[0], 2, cfg.alpha, batch[1].shape[1])
    text = "what it writes depends on the sentence: {} of the second tokens are right"
    depends_on_input("depends", text, written[:, 1], batch[1][:, 1])

    kinds = ("transformer", "recurrent") if cfg.recurrent else ("transformer",)
    models = {kind: make_model(cfg, len(tokenizer), kind) for kind in kinds}
    curves = {}
    for kind, model in models.items():
        print(f"  {kind}: {sum(weight.numel() for weight in model.parameters()):,} weights")
        curves[kind] = train(cfg, model, rows, pairs.val, tokenizer)
    save(cfg, pairs, models["transformer"], rows, tokenizer)

    sources, references = zip(*pairs.test())
    by_words = word_by_word(pairs.train)
    found = {"copy": sources, "word_by_word": [by_words(source) for source in sources]}
    for kind, model in models.items():
        found[kind] = translate(cfg, model, tokenizer, sources, cfg.beam)
    found["greedy"] = translate(cfg, models["transformer"], tokenizer, sources, width=1)
    metrics = report(found, references, curves)
    for source, ours in zip(sources[:3], found["transformer"]):
        print(f"    {source} -> {ours[:100]}")

    if pairs.name == "generated":
        text = "the Transformer translates {} of the test sentences without an error"
        expect("exact", text, metrics["transformer_exact"], at_least=0.95)
    ours = metrics["transformer_bleu"]
    if cfg.recurrent:
        text = "phase 6's model with attention has {} BLEU, at most 1.05 times as much"
        expect("recurrent", text, metrics["recurrent_bleu"], at_most=1.05 * ours)
    share = 0.95 if cfg.reverse else 0.6  # English words have fewer endings
    expect("beside", "word by word has {} BLEU", metrics["word_by_word_bleu"], below=share * ours)
    draw_training(cfg, curves, metrics)
    return metrics, models["transformer"]


# Pictures and helpers: skip on a first reading


def save(cfg: Config, pairs: PairSet, model: nn.Module, rows: list, tokenizer: Tokenizer) -> None:
    """Before anything is judged: a run that misses its target keeps its model."""
    state = {"about": f"{' to '.join(pairs.languages)}, learned from {pairs.name}"}
    state |= {"longest": max(len(source) for source, _ in rows), "model": model.state_dict()}
    state |= {"dim": cfg.dim, "layers": cfg.layers, "dropout": cfg.dropout}
    state |= {"characters": tokenizer.characters, "merges": tokenizer.merges}
    checkpoint.save(cfg.out / "model.pt", state)


def answer(cfg: Config) -> None:
    """--prompt: one sentence; --interactive: one after the other. By the last run's model."""
    path = cfg.out / "model.pt"
    train_it = "Train it: leave --prompt and --interactive out."
    if not path.exists():
        raise LessonError(f"{path.parent} holds no model yet. {train_it}")
    state = checkpoint.load(path)
    try:
        tokenizer = Tokenizer(state["characters"], state["merges"], cut)
        for name in ("dim", "layers", "dropout", "longest"):
            setattr(cfg, name, state[name])
        model = make_model(cfg, len(tokenizer), "transformer")
        model.load_state_dict(state["model"])
        print(f"  {state['about']}")
    except (LookupError, TypeError, ValueError, RuntimeError):
        raise LessonError(f"{path} holds another model. {train_it}") from None

    def one(text: str) -> str:
        tokenizer.encode_one(text, cfg.longest)
        return translate(cfg, model, tokenizer, [text], cfg.beam)[0]

    if cfg.prompt is None:
        sentences.talk(one)
    else:
        print(one(cfg.prompt))


def settle(cfg: Config) -> None:
    """Fill in what no flag says."""
    for name, usual in zip(SETTINGS, RECIPES[cfg.data]):
        if getattr(cfg, name) is None:
            setattr(cfg, name, usual)
    if cfg.dim % 16:
        raise LessonError(f"--dim {cfg.dim} is no multiple of 16, the width of a head.")


def report(found: dict, references: Sequence[str], curves: dict) -> dict[str, float]:
    """Print and return BLEU and the share translated without an error, of each system."""
    metrics = {}
    for name, texts in found.items():
        right = map(sentences.same_words, texts, references)
        numbers = {"exact": sum(right) / len(texts), "bleu": bleu(texts, references)}
        if name in curves:
            numbers["seconds"] = sum(row["seconds"] for row in curves[name])
        print(f"    {name:<19}" + "".join(f"{key} {n:<9.4g}" for key, n in numbers.items()))
        metrics |= {f"{name}_{key}": number for key, number in numbers.items()}
    return metrics


def draw_training(cfg: Config, curves: dict[str, list[dict]], metrics: dict[str, float]) -> None:
    figure, axis = new_figure(size=(8, 4.8))
    labels = ("Transformer", "GRU with attention (6.8)")
    for (kind, history), colour, label in zip(curves.items(), (BLUE, ORANGE), labels):
        seconds = torch.tensor([row["seconds"] for row in history]).cumsum(dim=0).tolist()
        scores = [row["val_bleu"] for row in history]
        axis.plot(seconds, scores, "o-", color=colour, label=label)
        metrics |= {f"{kind}_curve": scores, f"{kind}_curve_seconds": seconds}
    axis.axhline(metrics["word_by_word_bleu"], color=GREY, label="word by word (test)")
    axis.set(xlabel="seconds of training", ylabel="BLEU, validation, greedy", ylim=0, xlim=0)
    axis.set(title="BLEU after each pass over the training sentences")
    axis.legend()
    save_figure(figure, cfg.out / "bleu")


@torch.no_grad()
def draw_attention(cfg: Config, model: nn.Module, tokenizer: Tokenizer, texts: list[str]) -> None:
    figure, axes = new_figure(1, len(texts), size=(6.5 * len(texts), 6.2))
    for axis, text in zip(axes, texts):
        source = torch.tensor([tokenizer.encode(text)], device=cfg.torch_device())
        tokens, _ = beam_search(model, source, cfg.beam, cfg.alpha, 2 * source.shape[1] + 10)
        tokens = torch.tensor([sentences.until_end(tokens[0])], device=source.device)
        model(source, teacher_inputs(tokens))
        weights = model.decoder.layers[-1].cross_attention.weights[0].mean(dim=0).cpu()
        axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(source.shape[1]), tokenizer.names_of(source[0]), rotation=90)
        axis.set_yticks(range(tokens.shape[1]), tokenizer.names_of(tokens[0]))
        axis.grid(False)
        axis.set(xlabel="source", ylabel="translation", title=text)
    figure.suptitle("Where the last layer looks while it writes (mean over heads; 1 is darkest)")
    save_figure(figure, cfg.out / "attention")


def run(cfg: Config) -> dict | None:
    if cfg.interactive or cfg.prompt is not None:
        return answer(cfg)

    settle(cfg)
    pairs = load_pairs(cfg, cfg.reverse)
    tokenizer = show_tokens(cfg, pairs)
    rows = sentences.encode_pairs(tokenizer, pairs.train, cfg.longest)
    metrics = show_batches(cfg, rows)
    show_bleu(cfg, pairs)
    show_beam(cfg)
    scores, model = show_results(cfg, pairs, rows, tokenizer)
    draw_attention(cfg, model, tokenizer, sorted(dict(pairs.val[:20]), key=len)[8:10])
    return metrics | scores


if __name__ == "__main__":
    main(run, Config, __doc__)
