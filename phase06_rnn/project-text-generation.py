"""Project 6 Text generation: a character model against n-grams
文本生成：字符级模型与 n-gram 对照

You will be able to answer
    1. How are models of text compared?        show_text      apart, bits
    2. What can counting alone do?             show_counting  by-hand, sums, longer
    3. How is the next character drawn?        show_drawing   narrowed, carried
    4. What does an LSTM add, and what not?    show_results   overfits, reads, goal, memory, no-more
    5. How does the temperature change texts?  show_sampling  words, loops
Predict   lstm: how many bits a character does the LSTM need for unseen text? ASCII takes 7.
Run       python phase06_rnn/project-text-generation.py       about three minutes
          … --interactive             write beginnings, it goes on; --prompt "The " does it once
          … --data shakespeare        another text; --text FILE takes your own
Needs     -
Reference -
Notation  B batch  T characters in a window  H hidden width  V characters in the vocabulary
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
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
    runs: int = param(2, "LSTMs to train, with seeds one apart; the mean counts", tiny=1)
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
    pause: float = param(0.01, "seconds between two characters on the screen")


# 1. One measure for all models


def bits_per_character(probabilities: np.ndarray, text: str, vocabulary: Vocabulary) -> float:
    """Bits per character (BPC): what an ideal code needs for a text, on average.

    probabilities (n,): what a model gave the characters that came; p takes log2(1 / p) bits. An
    unknown character is encoded as 0, and p is then the probability of some unknown one. To name it
    takes log2 of their number on top: UNICODE - (V - 1), as if all were equally probable.
    """
    # practice: bits per character
    encoded = -np.log2(probabilities).sum()
    unknown = (vocabulary.encode(text) == 0).sum()
    named = unknown * math.log2(UNICODE - (len(vocabulary) - 1))
    return (encoded + named) / len(text)
    # end practice


def show_text(cfg: Config) -> Corpus:
    print("\n[1] A model of text says how probable each next character is")
    corpus = load_text(cfg, cfg.text)
    no_leak("apart", "no long paragraph stands in two parts", *corpus.fingerprints())

    probabilities = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    small = Vocabulary("\ufffdabc")
    found = [bits_per_character(probabilities, text, small) for text in ("abac", "ab字é")]
    text = "1/2, 1/4, 1/8, 1/8 take (1 + 2 + 3 + 3) / 4 bits; two unknown ones 2 · 20.09 / 4 more"
    wanted = [2.25, 2.25 + 2 * math.log2(1_114_109) / 4]
    check_close("bits", text, found, wanted)
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
    seen_endings: (count + types * P so far) / (total + types), where types is the number of
    different characters that followed.
    """
    # practice: Witten and Bell
    probability = 1 / V
    for counts in seen_endings(context, followers):
        total = sum(counts.values())
        # Each type was new once: so often out of total + types something new is expected.
        types = len(counts)
        probability = (counts.get(character, 0) + types * probability) / (total + types)
    return probability
    # end practice


def kneser_ney(
    character: str, context: str, followers: list[Followers], V: int, discounts: list[float]
) -> float:
    """P(character | context): counts less a discount, mixed with what the shorter context says.

    As witten_bell, with the discount d of each length:
    (max(count - d, 0) + d * types * P so far) / total.
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
        # Order 3: after 0 and 1 characters in how many contexts, after 2 characters how often.
        followers = [*continued[: order - 1], counted[order - 1]]
        learned = {"followers": followers, "discounts": [discount(each) for each in followers]}
        models["kneser_ney"].append(partial(kneser_ney, V=V, **learned))
    return models


def probabilities_by_counts(
    text: str, model: Callable, back: int, places: Iterable[int]
) -> np.ndarray:
    """What the characters at these places were given by up to `back` before each. (places,)"""
    return np.array([model(text[i], text[max(0, i - back) : i]) for i in places])


def show_counting(cfg: Config, corpus: Corpus) -> tuple[dict, dict, dict]:
    print("\n[2] n-grams: what came after the same few characters in the training part")
    small = fit_n_grams("abracadabra", 4, 6)
    found = [small["witten_bell"][1]("b", "ra"), small["kneser_ney"][1]("b", "a")]
    by_hand = [(2 + 3 * (2 + 5 / 6) / 16) / 7, (2 - 0.4 + 0.4 * 3 * (0 + 5 / 6) / 7) / 4]
    text = "in “abracadabra” P(b | a) is 0.362 and 0.436, as found on paper"
    check_close("by-hand", text, found, by_hand)

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

    seen = {}
    for length in (4, 8, 16):
        seen[f"seen_{length}"] = share_seen(corpus.val, corpus.train, length)
    shares = ", ".join(f"of {name[5:]} characters {share:.2f}" for name, share in seen.items())
    print(f"  contexts of validation that training has: {shares}")
    print("  bits a character on validation, by order")
    bits = {}
    asked = "".join(corpus.val[i] for i in places(corpus.val))
    for name, models in n_grams.items():
        bits[name] = []
        for model in models:
            found = probabilities_by_counts(val, model, cfg.orders, places(val))
            bits[name].append(bits_per_character(found, asked, vocabulary))
        print(f"  {name:<12}" + "".join(f"{each:8.3f}" for each in bits[name]))
    if cfg.text is None:
        text = f"Witten–Bell with all {cfg.orders} characters needs {{}} bits more than at its best"
        expect("longer", text, bits["witten_bell"][-1] - min(bits["witten_bell"]), at_least=0.1)
    return n_grams, bits, seen


# 3. Drawing the next character


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
def probabilities_of(text: str, model: nn.Module, vocabulary: Vocabulary) -> np.ndarray:
    """What each character of a text was given by all those before it. (n,)"""
    model.eval()
    numbers = torch.from_numpy(vocabulary.encode(START + text)).to(model.head.weight.device)
    logits, _ = model(numbers[None, :-1])
    probabilities = logits[0].double().softmax(dim=1)
    return probabilities.gather(1, numbers[1:, None])[:, 0].cpu().numpy()


def narrowed(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The probabilities to draw the next character with. (V,) -> (V,), sum 1

    Temperature 0: all on the greatest logit. Else softmax of logits / temperature. Then top_k: all
    but the so many most probable become 0, and the rest is scaled to sum 1 (0: no limit). Then
    top_p: of the most probable ones as few stay as have top_p together, at least one; scaled again.
    """
    # practice: what may be drawn
    if temperature == 0:
        return F.one_hot(logits.argmax(), len(logits)).to(logits.dtype)

    kept, order = (logits / temperature).softmax(dim=0).sort(descending=True)
    if top_k > 0:
        kept[top_k:] = 0
        kept = kept / kept.sum()

    # Drop a character if those before it already have top_p; the first one always stays.
    before = kept.cumsum(dim=0) - kept
    gone = before >= top_p
    gone[0] = False
    kept[gone] = 0
    return kept[order.argsort()] / kept.sum()
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
        last[0] = -math.inf  # number 0 is “unknown”: there is nothing to write
        read = narrowed(last, *sampling).multinomial(1, generator=generator)
        yield vocabulary.decode(read)
    # end practice


def show_drawing(cfg: Config, vocabulary: Vocabulary) -> None:
    print("\n[3] Drawing the next character, and leaving out what is improbable")
    # In no order, as they come from a model: 0.15, 0.5, 0.05, 0.3.
    logits = torch.tensor([3, 10, 1, 6], dtype=torch.float64).log()
    by_hand = {
        (1, 0, 0.6): [0, 10 / 16, 0, 6 / 16],  # 0.5 is not yet 0.6, so both stay
        (1, 2, 1.0): [0, 10 / 16, 0, 6 / 16],
        (0, 0, 1.0): [0, 1, 0, 0],
        (0.5, 0, 1.0): [9 / 146, 100 / 146, 1 / 146, 36 / 146],
        (1, 3, 0.51): [0, 1, 0, 0],  # of three, the first has 10 / 19
        (1, 9, 0.0): [0, 1, 0, 0],
    }
    found = [narrowed(logits.clone(), *sampling).tolist() for sampling in by_hand]
    text = "top-p 0.6 of 0.15, 0.5, 0.05, 0.3 keeps 0.5 and 0.3; so on paper, with five more"
    check_close("narrowed", text, found, list(by_hand.values()))

    # Greater weights, or an untrained model would name one character for ever.
    torch.manual_seed(cfg.seed)
    model = CharacterLSTM(len(vocabulary), 32)
    model.head.weight.data *= 20
    model.head.bias.data[0] = 30  # unknown would be its first choice
    written = "".join(islice(generate(model, vocabulary, "The ", torch.Generator(), 0, 0, 1.0), 30))
    numbers = torch.from_numpy(vocabulary.encode(START + "The " + written))
    logits = model(numbers[None])[0][0].detach()
    anew = vocabulary.decode(logits[4:-1, 1:].argmax(dim=1) + 1)
    text = "greedy, it writes what reading all of it anew says, and never �"
    check("carried", text, written == anew)


# 4. An LSTM


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

    def validate(model: nn.Module) -> dict[str, float]:
        found = probabilities_of(corpus.val, model, corpus.vocabulary)
        return {"val_bits": bits_per_character(found, corpus.val, corpus.vocabulary)}

    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    saved = resumable(cfg, epochs, seed, parts)
    others = {"scheduler": schedule, "checkpoint": saved, "evaluate_fn": validate}
    fit(model, batches, optimizer, next_character, epochs=epochs, grad_clip=1.0, **others)
    return model


def show_results(cfg: Config, corpus: Corpus, n_grams: dict, bits: dict) -> tuple[nn.Module, dict]:
    print(f"\n[4] {cfg.runs} LSTM(s) of width {cfg.hidden}; then one look at the test part")
    numbers = torch.from_numpy(corpus.vocabulary.encode(corpus.train))
    model = CharacterLSTM(len(corpus.vocabulary), 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = (numbers[None, :101],)
    text = "100 characters are learned by heart, down to a loss of {}"
    overfits("overfits", text, model, batch, next_character, optimizer, steps=100, below=0.1)
    predicted = model(batch[0][:, :-1])[0].argmax(dim=2)
    text = "what it predicts depends on what it has read"
    depends_on_input("reads", text, predicted[0], batch[0][0, 1:])

    networks = [train_one(cfg, corpus, cfg.seed + run) for run in range(cfg.runs)]
    # Before anything is judged: a run that misses its target keeps its model.
    state = {"characters": corpus.vocabulary.characters, "hidden": cfg.hidden, "text": corpus.name}
    checkpoint.save(cfg.out / "model.pt", state | {"model": networks[0].state_dict()})

    # The orders were chosen on validation.
    best = {name: int(np.argmin(each)) + 1 for name, each in bits.items()}
    test = corpus.test()
    seen = corpus.vocabulary.seen(test)
    found = {}
    for name, order in best.items():
        model = n_grams[name][order - 1]
        given = probabilities_by_counts(seen, model, cfg.orders, range(len(seen)))
        found[name] = bits_per_character(given, test, corpus.vocabulary)

    every = []
    for network in networks:
        given = probabilities_of(test, network, corpus.vocabulary)
        every.append(bits_per_character(given, test, corpus.vocabulary))
    found["lstm"] = float(np.mean(every))

    print(f"  bits a character on the {len(test):,} characters of the test part")
    for name, each in found.items():
        print(f"    {name.replace('_', ' '):<14}{each:7.3f}")
    print(f"  orders chosen on validation: {best}; the LSTM, seed by seed: {np.round(every, 3)}")
    if cfg.text is None:
        text = "the worst of the LSTMs needs {} bits a character fewer than the best n-gram"
        expect("goal", text, found["kneser_ney"] - max(every), at_least=0.02)
    return networks[0].cpu(), found | {"spread": max(every) - min(every)}


@torch.no_grad()
def show_memory(cfg: Config, corpus: Corpus, model: nn.Module) -> dict[int, float]:
    """Bits of the characters at `places`, if the LSTM reads only the last few before each."""
    numbers = torch.from_numpy(corpus.vocabulary.encode(corpus.val))
    asked = torch.tensor(places(corpus.val))
    text = "".join(corpus.val[i] for i in asked)
    bits = {}
    for length in CONTEXTS:
        before = numbers.unfold(0, length, 1)[asked - length]  # (places, length)
        logits = torch.cat([model(part)[0][:, -1] for part in before.split(512)])
        given = logits.double().softmax(dim=1).gather(1, numbers[asked, None])[:, 0]
        bits[length] = float(bits_per_character(given.numpy(), text, corpus.vocabulary))

    shown = {length: round(each, 3) for length, each in bits.items()}
    print(f"  bits on validation, by the number of characters it is shown: {shown}")
    if cfg.text is None:
        text = "shown 16 characters instead of 4, the LSTM needs {} bits fewer"
        expect("memory", text, bits[4] - bits[16], at_least=0.15)
        text = "64 instead of 16 save it only {}"
        expect("no-more", text, bits[16] - bits[64], at_most=0.02)
    return bits


# 5. Whole texts


def show_sampling(cfg: Config, corpus: Corpus, model: nn.Module) -> dict[str, float]:
    print("\n[5] Cold, it repeats itself; hot, it invents words")
    ways = {
        "greedy": (0, 0, 1.0),
        "cool": (0.5, 0, 1.0),
        "one": (1, 0, 1.0),
        "hot": (1.5, 0, 1.0),
        "top_p": (1, 0, 0.8),
    }
    print("  temperature, top-k, top-p   long words that training has   pieces of 20 that differ")
    words, varied = {}, {}
    for name, sampling in ways.items():
        generator = torch.Generator().manual_seed(cfg.seed)
        characters = generate(model, corpus.vocabulary, "", generator, *sampling)
        text = "".join(islice(characters, cfg.samples))
        words[name] = share_of_known_words(text, corpus.train)
        pieces = {text[i : i + 20] for i in range(len(text) - 19)}
        varied[name] = len(pieces) / (len(text) - 19)
        print(f"  {sampling!s:<25}{words[name]:18.3f}{varied[name]:26.3f}   {text[-30:]!r}")

    if cfg.text is None:
        gain = words["one"] - words["hot"]
        text = "at temperature 1 the share of words that training has is {} above that at 1.5"
        expect("words", text, gain, at_least=0.2)
        expect("loops", "greedy, the share of new pieces is {}", varied["greedy"], at_most=0.2)

    print(f"  at temperature {cfg.temperature} and top-p {cfg.top_p} it goes on from “The ”:")
    generator = torch.Generator().manual_seed(cfg.seed)
    go_on(replace(cfg, pause=0.0), model, corpus.vocabulary, "The ", generator)
    found = {f"words_{name}": share for name, share in words.items()}
    return found | {f"pieces_{name}": share for name, share in varied.items()}


# 6. In the terminal


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
        return model, vocabulary, state["text"]
    except (KeyError, TypeError, RuntimeError):
        raise LessonError(f"{path} holds another model. {train_it}") from None


def go_on(
    cfg: Config, model: nn.Module, vocabulary: Vocabulary, prompt: str, generator: torch.Generator
) -> None:
    """Print the prompt and cfg.length characters more, each as soon as it is drawn."""
    strange = sorted(set(prompt) - set(vocabulary.characters))
    if strange:
        print(f"  note: rare or new to it, so read as unknown: {' '.join(strange)}")
    sampling = (cfg.temperature, cfg.top_k, cfg.top_p)
    characters = generate(model, vocabulary, prompt, generator, *sampling)
    print(prompt, end="")
    for character in islice(characters, cfg.length):
        print(character, end="", flush=True)
        time.sleep(cfg.pause)
    print()


def answer(cfg: Config) -> None:
    """--prompt: one text. --interactive: one for each line, until Ctrl-C or Ctrl-D."""
    model, vocabulary, name = load(cfg.out / "model.pt")
    generator = torch.Generator().manual_seed(cfg.seed)
    if cfg.prompt is not None:
        go_on(cfg, model, vocabulary, cfg.prompt, generator)
        return

    print(f"  It has read {name}. Write a beginning, press Enter. Ctrl-C stops the text, then it.")
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        try:
            go_on(cfg, model, vocabulary, prompt, generator)
        except KeyboardInterrupt:
            print(" …")


# Pictures and helpers: skip on a first reading


def places(text: str) -> range:
    """Where n-grams and LSTM are asked in the validation part: all have seen enough before."""
    return range(CONTEXTS[-1], len(text), 4)


def share_seen(text: str, train: str, length: int) -> float:
    """How many of the contexts before `places` stand in the training part, as a share."""
    known = {train[i : i + length] for i in range(len(train) - length)}
    return round(float(np.mean([text[i - length : i] in known for i in places(text)])), 3)


def resumable(cfg: Config, epochs: int, seed: int, parts: dict) -> checkpoint.Checkpoint:
    """After a kill, --resume goes on from here, if these settings are the same."""
    names = ("tiny", "hidden", "window", "batch_size", "lr", "data", "text")
    settings = {name: str(getattr(cfg, name)) for name in names} | {"epochs": epochs, "seed": seed}
    path = cfg.out / f"training-{seed}.pt"
    return checkpoint.Checkpoint(path, resume=cfg.resume, settings=settings, **parts)


def draw_contexts(cfg: Config, bits: dict[str, list[float]], by_context: dict[int, float]) -> None:
    figure, axis = new_figure(size=(8, 4.8))
    for each, label, colour in zip(bits.values(), ("Witten–Bell", "Kneser–Ney"), (ORANGE, GREEN)):
        axis.plot(range(4, cfg.orders), each[4:], "o-", color=colour, label=label)
    shown = CONTEXTS[2:]
    axis.plot(shown, [by_context[length] for length in shown], "o-", color=BLUE, label="LSTM")
    axis.set_xscale("log", base=2)
    axis.set_xticks(shown, shown)
    axis.set(xlabel="characters that the model is shown", ylabel="bits a character, validation")
    axis.set_title("Shown four characters, counting is better; shown 16, the LSTM")
    axis.legend()
    save_figure(figure, cfg.out / "contexts")


def run(cfg: Config) -> dict | None:
    if cfg.interactive or cfg.prompt is not None:
        return answer(cfg)

    corpus = show_text(cfg)
    n_grams, bits, seen = show_counting(cfg, corpus)
    show_drawing(cfg, corpus.vocabulary)
    model, numbers = show_results(cfg, corpus, n_grams, bits)
    by_context = show_memory(cfg, corpus, model)
    draw_contexts(cfg, bits, by_context)
    numbers |= show_sampling(cfg, corpus, model)
    return numbers | seen | {"by_order": bits, "by_context": list(by_context.values())}


if __name__ == "__main__":
    main(run, Config, __doc__)
