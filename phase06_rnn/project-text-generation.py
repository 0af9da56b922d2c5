"""Project 6 Text generation: a character model against n-grams
文本生成：字符级模型与 n-gram 对照

You will be able to answer
    1. How are models of text compared?   show_text      apart, bits, unseen
    2. What can counting alone do?        show_counting  continued, by-hand, past, sums, longer
    3. What does an LSTM add?             show_results   chance, overfits, goal, memory, reads
    4. How do probabilities make a text?  show_sampling  narrowed, carried, words, loops
    5. Can it type along?                 show_typing    saved, typed
Predict   lstm: with how few bits a character does the LSTM tell unseen text? ASCII takes 7.
Run       python phase06_rnn/project-text-generation.py       about five minutes
          … --interactive             write beginnings, it types on; --prompt "The " does it once
          … --data shakespeare        another text; --text FILE takes your own
Needs     -
Reference -
Notation  B batch  T characters in a window  H hidden width  V characters in the vocabulary
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import checkpoint
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.text import Corpus, Vocabulary, load_text, share_of_known_words
from common.errors import LessonError
from common.figures import BLUE, GREEN, ORANGE, new_figure, save_figure
from common.training import fit

Followers = dict[str, dict[str, int]]  # {context: {next character: count}}

UNICODE = 0x110000  # how many characters there could be
START = "\n"  # what the network reads before the first character
CONTEXTS = (1, 2, 4, 8, 16, 32, 64)  # how many characters the LSTM is shown


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("python", "text to learn", choices=("python", "shakespeare"))
    text: Path | None = param(None, "learn this text file instead")
    orders: int = param(10, "longest n-grams tried, in characters", tiny=6, low=5)
    runs: int = param(3, "LSTMs to train, with seeds one apart; the mean counts", tiny=1)
    epochs: int = param(0, "passes over the training part; 0: 6, of Shakespeare 3", tiny=2, low=0)
    hidden: int = param(256, "width H of the LSTM", tiny=32)
    window: int = param(64, "characters T through which gradients flow back", tiny=32, low=8)
    batch_size: int = param(16, "windows in one step", tiny=8)
    lr: float = param(8e-3, "highest learning rate of the one-cycle schedule", tiny=2e-2)
    samples: int = param(3000, "characters written in each way of sampling", tiny=60, low=30)
    prompt: str | None = param(None, "the trained model goes on from this, once")
    interactive: bool = param(False, "write beginnings that the trained model goes on from")
    length: int = param(400, "characters that it writes")
    temperature: float = param(0.7, "0: the most probable character; 1: as learned")
    top_k: int = param(0, "draw among so many characters; 0: among all", low=0)
    top_p: float = param(0.95, "draw among the fewest characters with this probability together")
    pause: float = param(0.01, "seconds between two characters that it types")


# 1. One measure for all models


def bits_per_character(chances: np.ndarray, text: str, vocabulary: Vocabulary) -> float:
    """What each character of a text costs on average.

    chances (n,): what a model gave the characters that came. One of probability p costs log2(1 / p)
    bits. vocabulary.encode makes 0 of a character that it lacks, and p is that of any such. To name
    it costs log2 of their number on top: UNICODE - (V - 1), as if all were equally probable.
    """
    # practice: what a text costs
    told = -np.log2(chances).sum()
    unknown = (vocabulary.encode(text) == 0).sum()
    named = unknown * math.log2(UNICODE - (len(vocabulary) - 1))
    return (told + named) / len(text)
    # end practice


def show_text(cfg: Config) -> Corpus:
    print("\n[1] A model of text says how probable each next character is")
    corpus = load_text(cfg, cfg.text)
    no_leak("apart", "no long paragraph stands in two parts", *corpus.fingerprints())

    chances = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    small = Vocabulary("\ufffdabc")
    text = "probabilities 1/2, 1/4, 1/8, 1/8 cost (1 + 2 + 3 + 3) / 4 = 2.25 bits a character"
    check_close("bits", text, bits_per_character(chances, "abac", small), 2.25)
    text = "two of them unknown, to be named among 1,114,109, cost twice 20.09 / 4 more"
    wanted = 2.25 + 2 * math.log2(1_114_109) / 4
    check_close("unseen", text, bits_per_character(chances, "ab字é", small), wanted, rtol=1e-9)
    return corpus


# 2. Counting


def count_followers(text: str, length: int) -> Followers:
    """What followed each context of `length` characters, and how often."""
    grams = Counter(text[i : i + length + 1] for i in range(len(text) - length))
    followers: Followers = defaultdict(dict)
    for gram, count in grams.items():
        followers[gram[:-1]][gram[-1]] = count
    return followers


def continuations(longer: Followers) -> Followers:
    """Continuation counts: after how many different characters did this n-gram come?

    longer: what followed contexts of n characters. Returns the same for contexts of n - 1, the
    first character left out; but each count says in how many of the longer contexts the follower
    was seen, no matter how often in each.
    """
    # practice: in how many contexts, instead of how often
    shorter: Followers = defaultdict(dict)
    for context, counts in longer.items():
        contexts = shorter[context[1:]]
        for character in counts:
            contexts[character] = contexts.get(character, 0) + 1
    return shorter
    # end practice


def discount(followers: Followers) -> float:
    """What Kneser and Ney take off each count: n1 / (n1 + 2 n2), for n1 counts of 1, n2 of 2."""
    sizes = Counter()
    for counts in followers.values():
        sizes.update(counts.values())
    once = max(sizes[1], 1)  # a discount of 0 would leave nothing for what is new
    return once / (once + 2 * sizes[2])


def seen_endings(context: str, followers: list[Followers]) -> Iterator[dict[str, int]]:
    """The counts after no character, after the last one, the last two, … while there are any."""
    for length in range(min(len(context) + 1, len(followers))):
        counts = followers[length].get(context[len(context) - length :])
        if counts is None:
            return
        yield counts


def witten_bell(character: str, context: str, followers: list[Followers], V: int) -> float:
    """P(character | context): counts, mixed with what the shorter context says.

    followers[n] has the counts for contexts of n characters. Begin with 1 / V. Then, for each of
    seen_endings: (count + kinds * P so far) / (total + kinds), where kinds is the number of
    different characters that followed.
    """
    # practice: Witten and Bell
    probability = 1 / V
    for counts in seen_endings(context, followers):
        total = sum(counts.values())
        # Each kind was new once: so often out of total + kinds something new is expected.
        kinds = len(counts)
        probability = (counts.get(character, 0) + kinds * probability) / (total + kinds)
    return probability
    # end practice


def kneser_ney(
    character: str, context: str, followers: list[Followers], V: int, discounts: list[float]
) -> float:
    """P(character | context): counts less a discount, mixed with what the shorter context says.

    As witten_bell, with the discount d of each length:
    (max(count - d, 0) + d * kinds * P so far) / total.
    """
    # practice: Kneser and Ney
    probability = 1 / V
    for counts, d in zip(seen_endings(context, followers), discounts):
        total = sum(counts.values())
        kept = max(counts.get(character, 0) - d, 0)
        # All that was taken off goes to the shorter context, so that the sum stays 1.
        probability = (kept + d * len(counts) * probability) / total
    return probability
    # end practice


def fit_n_grams(train: str, orders: int, V: int) -> dict[str, list[Callable]]:
    """Both kinds for each order from 1 on. Everything is counted in the training part."""
    counted = [count_followers(train, length) for length in range(orders)]
    continued = [continuations(longer) for longer in counted[1:]]
    models = {"witten_bell": [], "kneser_ney": []}
    for order in range(1, orders + 1):
        models["witten_bell"].append(partial(witten_bell, followers=counted[:order], V=V))
        # How often for the longest contexts, in how many contexts for the shorter ones.
        followers = [*continued[: order - 1], counted[order - 1]]
        learned = {"followers": followers, "discounts": [discount(each) for each in followers]}
        models["kneser_ney"].append(partial(kneser_ney, V=V, **learned))
    return models


def chances_by_counts(text: str, model: Callable, back: int) -> np.ndarray:
    """What each character of a text was given by up to `back` characters before it. (n,)"""
    return np.array([model(c, text[max(0, i - back) : i]) for i, c in enumerate(text)])


def show_counting(cfg: Config, corpus: Corpus) -> tuple[dict, dict]:
    print("\n[2] n-grams: what came after the same few characters in the training part")
    found = continuations(count_followers("1ab2ab2ab", 2))
    text = "in “1ab2ab2ab” b comes after 1a and 2a: after a it counts 2 contexts, not 3 times"
    check("continued", text, found == {"a": {"b": 2}, "b": {"2": 1}, "2": {"a": 1}})
    small = fit_n_grams("abracadabra", 4, 6)
    found = [small["witten_bell"][1]("b", "ra"), small["kneser_ney"][1]("b", "a")]
    by_hand = [(2 + 3 * (2 + 5 / 6) / 16) / 7, (2 - 0.4 + 0.4 * 3 * (0 + 5 / 6) / 7) / 4]
    check_close(
        "by-hand", "in “abracadabra” P(b | a) is 0.362 and 0.436, as found on paper", found, by_hand
    )

    asked = []
    chances_by_counts("abc", lambda *question: asked.append(question) or 1.0, back=1)
    check("past", "only what came before is asked", asked == [("a", ""), ("b", "a"), ("c", "b")])

    vocabulary = corpus.vocabulary
    val = vocabulary.seen(corpus.val)
    n_grams = fit_n_grams(vocabulary.seen(corpus.train), cfg.orders, len(vocabulary))
    contexts = ["", "\0\0", *(val[i : i + cfg.orders] for i in range(0, 500, 100))]
    sums = []
    for model in n_grams["witten_bell"] + n_grams["kneser_ney"]:
        for context in contexts:
            sums.append(sum(model(c, context) for c in vocabulary.characters))
    text = "whatever came before, the probabilities of all characters sum to 1"
    check_close("sums", text, sums, np.ones(len(sums)))

    print("  bits a character on validation, by order")
    bits = {}
    for name, models in n_grams.items():
        chances = [chances_by_counts(val, model, cfg.orders) for model in models]
        bits[name] = [bits_per_character(each, corpus.val, vocabulary) for each in chances]
        print(f"  {name:<12}" + "".join(f"{each:8.3f}" for each in bits[name]))
    if cfg.text is None:
        text = f"Witten–Bell with all {cfg.orders} characters needs {{}} bits more than at its best"
        expect("longer", text, bits["witten_bell"][-1] - min(bits["witten_bell"]), at_least=0.1)
    return n_grams, bits


# 3. An LSTM


class CharacterLSTM(nn.Module):
    """The next character from all before it. (B, T) numbers -> (B, T, V) logits, and the state."""

    def __init__(self, V: int, hidden: int):
        super().__init__()
        self.embedding = nn.Embedding(V, 64)
        # Lesson 6.4 builds it and shows the two equal; torch's own code is faster.
        self.lstm = nn.LSTM(64, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(hidden, V)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        h, state = self.lstm(self.embedding(x), state)
        return self.head(self.dropout(h)), state


def next_character(model: nn.Module, batch: tuple) -> Tensor:
    """Cross-entropy of every character of the windows but the first. ((B, T + 1),) -> scalar"""
    (windows,) = batch
    logits, _ = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def chances_of(text: str, model: nn.Module, vocabulary: Vocabulary) -> np.ndarray:
    """What each character of a text was given by all those before it. (n,)"""
    model.eval()
    numbers = torch.from_numpy(vocabulary.encode(START + text)).to(model.head.weight.device)
    logits, _ = model(numbers[None, :-1])
    chances = logits[0].double().softmax(dim=1)
    return chances.gather(1, numbers[1:, None])[:, 0].cpu().numpy()


def train_one(cfg: Config, corpus: Corpus, seed: int) -> CharacterLSTM:
    """Train on windows of the training part, in a new order each epoch."""
    torch.manual_seed(seed)
    model = CharacterLSTM(len(corpus.vocabulary), cfg.hidden).to(cfg.torch_device())
    numbers = torch.from_numpy(corpus.vocabulary.encode(corpus.train))
    windows = numbers.unfold(0, cfg.window + 1, cfg.window)  # the last one begins the next window
    batches = Batches(windows, batch_size=cfg.batch_size, shuffle=True, seed=seed, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, betas=(0.9, 0.99))
    epochs = cfg.epochs or (6 if cfg.data == "python" else 3)
    steps = epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, cfg.lr, steps, pct_start=0.1)

    # After a kill, --resume goes on from here, if these settings are the same.
    names = ("tiny", "hidden", "window", "batch_size", "lr", "data", "text")
    settings = {name: str(getattr(cfg, name)) for name in names} | {"epochs": epochs, "seed": seed}
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    path = cfg.out / f"training-{seed}.pt"
    saved = checkpoint.Checkpoint(path, resume=cfg.resume, settings=settings, **parts)

    def validate(model: nn.Module) -> dict[str, float]:
        chances = chances_of(corpus.val, model, corpus.vocabulary)
        return {"val_bits": bits_per_character(chances, corpus.val, corpus.vocabulary)}

    others = {"scheduler": schedule, "checkpoint": saved, "evaluate_fn": validate}
    fit(model, batches, optimizer, next_character, epochs=epochs, grad_clip=1.0, **others)
    return model


def show_results(cfg: Config, corpus: Corpus, n_grams: dict, bits: dict) -> tuple[nn.Module, dict]:
    print(f"\n[3] {cfg.runs} LSTM(s) of width {cfg.hidden}; then one look at the test part")
    show_one_batch(corpus)
    networks = [train_one(cfg, corpus, cfg.seed + run) for run in range(cfg.runs)]
    # Before anything is judged: a run that misses its target keeps its model.
    state = {"characters": corpus.vocabulary.characters, "hidden": cfg.hidden, "text": corpus.name}
    checkpoint.save(cfg.out / "model.pt", state | {"model": networks[0].state_dict()})

    # The orders were chosen on validation; the 5-gram stands for a usual choice.
    best = {name: int(np.argmin(each)) + 1 for name, each in bits.items()}
    test = corpus.test()
    found = {}
    for name, order in (best | {"kneser_ney_5": 5}).items():
        model = n_grams[name.removesuffix("_5")][order - 1]
        chances = chances_by_counts(corpus.vocabulary.seen(test), model, cfg.orders)
        found[name] = bits_per_character(chances, test, corpus.vocabulary)
    chances = [chances_of(test, network, corpus.vocabulary) for network in networks]
    every = [bits_per_character(each, test, corpus.vocabulary) for each in chances]
    found["lstm"] = float(np.mean(every))
    print(f"  bits a character on the {len(test):,} characters of the test part")
    for name, each in found.items():
        print(f"    {name.replace('_', ' '):<14}{each:7.3f}")
    print(f"  orders chosen on validation: {best}; the LSTM, seed by seed: {np.round(every, 3)}")
    if cfg.text is None:
        text = "the worst of the LSTMs needs {} bits a character fewer than the Kneser–Ney 5-gram"
        expect("goal", text, found["kneser_ney_5"] - max(every), at_least=0.05)
    return networks[0].cpu(), found | {"spread": float(np.std(every))}


def show_one_batch(corpus: Corpus) -> None:
    V = len(corpus.vocabulary)
    model = CharacterLSTM(V, 64)
    chances = chances_of(corpus.train[:2000], model, corpus.vocabulary)
    share = -np.log2(chances).mean() / math.log2(V)
    text = f"untrained, it needs {{}} times the log2 {V} = {math.log2(V):.2f} bits of guessing"
    check("chance", text, share, above=0.95, below=1.05)

    # Windows that begin with the same character could not be told apart at first.
    numbers = torch.from_numpy(corpus.vocabulary.encode(corpus.train))
    starts = [corpus.train.index(character) for character in list(dict.fromkeys(corpus.train))[:8]]
    windows = torch.stack([numbers[start : start + 21] for start in starts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    text = "8 windows of 20 characters are learned by heart, down to a loss of {}"
    overfits("overfits", text, model, (windows,), next_character, optimizer, steps=60, below=0.1)


@torch.no_grad()
def show_memory(cfg: Config, corpus: Corpus, model: nn.Module) -> list[float]:
    """Bits of every fourth validation character, told only the last few characters before it."""
    numbers = torch.from_numpy(corpus.vocabulary.encode(corpus.val))
    places = torch.arange(CONTEXTS[-1], len(numbers), 4)
    bits = []
    for length in CONTEXTS:
        before = numbers.unfold(0, length, 1)[places - length]
        logits = torch.cat([model(part)[0][:, -1] for part in before.split(512)])
        bits.append(F.cross_entropy(logits, numbers[places]).item() / math.log(2))
    shown = dict(zip(CONTEXTS, np.round(bits, 3).tolist()))
    print(f"  bits on validation, by the number of characters it is shown: {shown}")
    if cfg.text is None:
        text = f"with {CONTEXTS[-1]} characters before it, it needs {{}} bits fewer than with 4"
        expect("memory", text, bits[CONTEXTS.index(4)] - bits[-1], at_least=0.2)

    choices = numbers.bincount().topk(8).indices  # the most frequent characters
    rows = torch.isin(numbers[places], choices)
    predicted = choices[logits[:, choices].argmax(dim=1)]
    text = f"it tells the {len(choices)} most frequent characters apart: {{}} are right"
    depends_on_input("reads", text, predicted[rows], numbers[places][rows])
    return bits


# 4. From probabilities to a text


def narrowed(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The probabilities to draw the next character with. (V,) -> (V,), sum 1

    Temperature 0: all on the greatest logit. Else softmax of logits / temperature. Then top_k: all
    but the so many most probable become 0, and the rest is scaled to sum 1 (0: no limit). Then
    top_p: of the most probable ones as few stay as have top_p together, at least one; scaled again.
    """
    # practice: what may be drawn
    if temperature == 0:
        return F.one_hot(logits.argmax(), len(logits)).to(logits.dtype)

    chances = (logits / temperature).softmax(dim=0)
    chances, order = chances.sort(descending=True)
    if top_k > 0:
        chances[top_k:] = 0
        chances = chances / chances.sum()

    # Whoever comes after enough probability goes; the first never does.
    before = chances.cumsum(dim=0) - chances
    chances[1:][before[1:] >= top_p] = 0
    return chances[order.argsort()] / chances.sum()
    # end practice


@torch.no_grad()
def generate(
    model: nn.Module,
    vocabulary: Vocabulary,
    prompt: str,
    generator: torch.Generator,
    *sampling: float,
) -> Iterator[str]:
    """Characters that go on from the prompt, one by one, without an end.

    The model reads START and the prompt, then each character it has drawn, and carries its state:
    nothing is read twice. sampling: what `narrowed` takes. Number 0 (unknown) is never drawn.
    """
    # practice: write one character after the other
    model.eval()
    read = torch.from_numpy(vocabulary.encode(START + prompt))
    state = None
    while True:
        logits, state = model(read[None], state)
        last = logits[0, -1]
        last[0] = -math.inf
        read = narrowed(last, *sampling).multinomial(1, generator=generator)
        yield vocabulary.decode(read)
    # end practice


def show_sampling(cfg: Config, corpus: Corpus, model: nn.Module) -> dict[str, float]:
    print("\n[4] Drawing the next character, and leaving out what is improbable")
    show_narrowed()
    show_generate(cfg, corpus.vocabulary)
    ways = {
        "greedy": (0, 0, 1.0),
        "temperature 0.5": (0.5, 0, 1.0),
        "temperature 1": (1, 0, 1.0),
        "temperature 1.5": (1.5, 0, 1.0),
        "top-p 0.8": (1, 0, 0.8),
    }
    print("                    words that training has   pieces of 20 that differ")
    shares, varied = {}, {}
    for name, sampling in ways.items():
        generator = torch.Generator().manual_seed(cfg.seed)
        characters = generate(model, corpus.vocabulary, "", generator, *sampling)
        text = "".join(islice(characters, cfg.samples))
        shares[name] = share_of_known_words(text, corpus.train)
        pieces = {text[i : i + 20] for i in range(len(text) - 19)}
        varied[name] = len(pieces) / (len(text) - 19)
        print(f"  {name:<18}{shares[name]:18.3f}{varied[name]:26.3f}   {text[-40:]!r}")
    if cfg.text is None:
        gain = shares["temperature 0.5"] - shares["temperature 1"]
        text = "at temperature 0.5 the share of words that training has is {} above that at 1"
        expect("words", text, gain, at_least=0.15)
        expect("loops", "greedy, the share of new pieces is {}", varied["greedy"], at_most=0.2)
    return {"words_half": shares["temperature 0.5"], "words_one": shares["temperature 1"]}


def show_narrowed() -> None:
    # In no order, as they come from a model: 0.15, 0.5, 0.05, 0.3.
    logits = torch.tensor([3, 10, 1, 6], dtype=torch.float64).log()
    by_hand = {
        (0, 0, 1.0): [0, 1, 0, 0],
        (0.5, 0, 1.0): [9 / 146, 100 / 146, 1 / 146, 36 / 146],
        (1, 1, 1.0): [0, 1, 0, 0],
        (1, 2, 1.0): [0, 10 / 16, 0, 6 / 16],
        (1, 0, 0.6): [0, 10 / 16, 0, 6 / 16],
        (1, 3, 0.51): [0, 1, 0, 0],  # of three, the first has 10 / 19
        (1, 9, 0.0): [0, 1, 0, 0],
        (1, 0, 1.0): [3 / 20, 10 / 20, 1 / 20, 6 / 20],
    }
    found = torch.stack([narrowed(logits.clone(), *settings) for settings in by_hand])
    text = "eight settings of temperature, top-k and top-p leave what is found on paper"
    check_close("narrowed", text, found, list(by_hand.values()))


def show_generate(cfg: Config, vocabulary: Vocabulary) -> None:
    torch.manual_seed(cfg.seed)
    model = CharacterLSTM(len(vocabulary), 32)
    model.head.weight.data *= 20  # an untrained model with opinions, above all on number 0
    model.head.bias.data[0] = 30
    generator = torch.Generator().manual_seed(cfg.seed)
    written = "".join(islice(generate(model, vocabulary, "The ", generator, 0, 0, 1.0), 30))
    numbers = torch.from_numpy(vocabulary.encode(START + "The " + written))
    logits = model(numbers[None])[0][0].detach()
    anew = vocabulary.decode(logits[4:-1, 1:].argmax(dim=1) + 1)
    text = "greedy, it writes what reading all of it anew says, and never �"
    check("carried", text, written == anew)


# 5. In the terminal


def load(path: Path) -> tuple[CharacterLSTM, Vocabulary, str]:
    """The saved model, its vocabulary, its text's name. Raises LessonError for another file."""
    train_it = "Train it: leave --prompt and --interactive out."
    if not path.exists():
        raise LessonError(f"{path.parent} holds no model yet. {train_it}")
    state = checkpoint.load(path)
    try:
        vocabulary = Vocabulary(state["characters"])
        model = CharacterLSTM(len(vocabulary), state["hidden"])
        model.load_state_dict(state["model"])
        return model.eval(), vocabulary, state["text"]
    except (KeyError, TypeError, RuntimeError):
        raise LessonError(f"{path} holds another model. {train_it}") from None


def type_on(
    cfg: Config, model: nn.Module, vocabulary: Vocabulary, prompt: str, generator: torch.Generator
) -> str:
    """Print the prompt and cfg.length characters more, each as soon as it is drawn."""
    strange = sorted(set(prompt) - set(vocabulary.characters))
    if strange:
        print(f"  note: rare or new to it, so read as unknown: {' '.join(strange)}")
    sampling = (cfg.temperature, cfg.top_k, cfg.top_p)
    characters = generate(model, vocabulary, prompt, generator, *sampling)
    print(prompt, end="")
    written = ""
    for character in islice(characters, cfg.length):
        print(character, end="", flush=True)
        written += character
        time.sleep(cfg.pause)
    print()
    return written


def answer(cfg: Config) -> None:
    """--prompt: one text. --interactive: one for each line, until Ctrl-C or Ctrl-D."""
    model, vocabulary, name = load(cfg.out / "model.pt")
    generator = torch.Generator().manual_seed(cfg.seed)
    if cfg.prompt is not None:
        type_on(cfg, model, vocabulary, cfg.prompt, generator)
        return

    print(f"  It has read {name}. Write a beginning, press Enter. Ctrl-C stops the text, then it.")
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        try:
            type_on(cfg, model, vocabulary, prompt, generator)
        except KeyboardInterrupt:
            print(" …")


def show_typing(cfg: Config, corpus: Corpus, model: nn.Module) -> None:
    print("\n[5] The model from its file types in the terminal")
    loaded, vocabulary, _ = load(cfg.out / "model.pt")
    text = "from its file the model gives 500 characters the probabilities it gives in memory"
    in_memory = chances_of(corpus.val[:500], model, corpus.vocabulary)
    from_file = chances_of(corpus.val[:500], loaded, vocabulary)
    check_close("saved", text, from_file, in_memory, rtol=1e-4)

    fast = replace(cfg, pause=0.0, length=80 if cfg.tiny else 300)
    written = []
    for seed in (cfg.seed, cfg.seed, cfg.seed + 1):
        generator = torch.Generator().manual_seed(seed)
        written.append(type_on(fast, loaded, vocabulary, "The ", generator))
    right = written[0] == written[1] != written[2] and len(written[0]) == fast.length
    check("typed", "the same seed types the same text again, another seed another", right)


# Pictures and helpers: skip on a first reading


def draw_contexts(cfg: Config, bits: dict[str, list[float]], by_context: list[float]) -> None:
    figure, axis = new_figure(size=(8, 4.8))
    for each, label, colour in zip(bits.values(), ("Witten–Bell", "Kneser–Ney"), (ORANGE, GREEN)):
        axis.plot(range(4, cfg.orders), each[4:], "o-", color=colour, label=label)
    axis.plot(CONTEXTS[2:], by_context[2:], "o-", color=BLUE, label="LSTM")
    axis.set_xscale("log", base=2)
    axis.set_xticks(CONTEXTS[2:], CONTEXTS[2:])
    axis.set(xlabel="characters that the model is shown", ylabel="bits a character, validation")
    axis.set_title("Shown little, counts are better; shown more, the LSTM is")
    axis.legend()
    save_figure(figure, cfg.out / "contexts")


def run(cfg: Config) -> dict | None:
    if cfg.interactive or cfg.prompt is not None:
        return answer(cfg)

    corpus = show_text(cfg)
    n_grams, bits = show_counting(cfg, corpus)
    model, numbers = show_results(cfg, corpus, n_grams, bits)
    by_context = show_memory(cfg, corpus, model)
    draw_contexts(cfg, bits, by_context)
    numbers |= show_sampling(cfg, corpus, model)
    show_typing(cfg, corpus, model)
    return numbers | {"by_order": bits, "by_context": by_context}


if __name__ == "__main__":
    main(run, Config, __doc__)
