"""2.7 Entropy and KL divergence: how many bits a message needs, and what a wrong belief costs
熵与 KL 散度：一条消息需要多少比特，模型与事实不符又要多用多少

You will be able to answer
    1. How short can a message be?                show_code           shortest, bounds, decoded
    2. What does believing q cost, if p is true?  show_kl             positive, price, one-way
    3. Why is cross-entropy a classifier's loss?  show_cross_entropy  loss, nll
    4. How much does a letter tell of the next?   show_information    information, shuffled, context
    5. Which Gaussian stands for two humps?       show_fits           forward, reverse, near
Predict   forward_sd: humps at -2.5 and 2.5, sd 0.5 and 0.7; which sd has one Gaussian for both?
Run       python phase02_math/07-entropy-kl-divergence.py                  about 5 s
Needs     phase02_math/03-derivatives-gradients, phase02_math/05-optimization-basics,
          phase02_math/06-probability-basics
Reference F.cross_entropy
Notation  H entropy  KL(p‖q) Kullback-Leibler divergence  bits with log₂, nats with ln
"""

import heapq
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

gradient = load_lesson("phase02_math/03-derivatives-gradients").gradient
descend = load_lesson("phase02_math/05-optimization-basics").descend
probability = load_lesson("phase02_math/06-probability-basics")

LETTERS = "etaoinshrdlucmwf"


@dataclass
class Config(LessonConfig):
    letters: int = param(20_000, "length of the generated text", tiny=5_000, low=2_000)


def entropy(p: np.ndarray) -> float:
    """The mean of -log₂ p, the surprise at what happens. p: any shape, sums to 1; in bits."""
    # What never happens adds nothing: p log p goes to 0 with p.
    kept = p[p > 0]
    return -(kept * np.log2(kept)).sum()


def huffman(p: np.ndarray) -> list[str]:
    """A word of 0s and 1s for each probability, shortest on average; no word begins another."""
    # practice: Join the two rarest
    words = [""] * len(p)
    # A group: its probability, a number that no other group has (it decides ties), its symbols.
    heap = [(share, symbol, [symbol]) for symbol, share in enumerate(p)]
    heapq.heapify(heap)
    while len(heap) > 1:
        share_0, number, rare = heapq.heappop(heap)
        share_1, _, next_rare = heapq.heappop(heap)
        # A new bit goes in front: the joins made last are read first.
        for symbol in rare:
            words[symbol] = "0" + words[symbol]
        for symbol in next_rare:
            words[symbol] = "1" + words[symbol]
        heapq.heappush(heap, (share_0 + share_1, number, rare + next_rare))
    return words
    # end practice


def decode(bits: str, words: list[str]) -> list[int]:
    """The symbols of a message. No word begins another, so the first that fits is meant."""
    symbol_of = {word: symbol for symbol, word in enumerate(words)}
    message = []
    word = ""
    for bit in bits:
        word += bit
        if word in symbol_of:
            message.append(symbol_of[word])
            word = ""
    return message


def mean_length(p: np.ndarray, words: list[str]) -> float:
    """Bits a symbol, for symbols that come with the probabilities p."""
    return p @ [len(word) for word in words]


def show_code(cfg: Config, message: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    print("\n[1] An event of probability p carries -log₂ p bits, and a code needs hardly more")
    # All choices of five lengths that Kraft's inequality allows; in the best none is over 4.
    lengths = np.array(list(product(range(1, 5), repeat=5)))
    lengths = lengths[(0.5**lengths).sum(axis=1) <= 1]
    rng = cfg.rng()
    sources = rng.dirichlet(np.ones(5), 100)
    found = [mean_length(p, huffman(p)) for p in sources]
    text = "for 100 sources of five symbols no other code has a smaller mean length"
    check_close("shortest", text, found, (sources @ lengths.T).min(axis=1))

    letters = pairs.sum(axis=1)
    sources = [letters, pairs.ravel()]
    for size in rng.integers(2, 30, 200):
        sources.append(rng.dirichlet(np.full(size, 0.5)))
    waste = np.array([mean_length(p, huffman(p)) - entropy(p) for p in sources])
    text = f"H ≤ mean length < H + 1 for 202 sources, over H by at most {waste.max():.3f}"
    check("bounds", text, waste.min() > -1e-12 and waste.max() < 1)

    words = huffman(letters)
    bits = "".join(words[letter] for letter in message)
    text = f"no word begins another: {len(bits):,} bits give back all {len(message):,} letters"
    check("decoded", text, decode(bits, words) == message.tolist())

    coded = mean_length(letters, words)
    print(f"  bits a letter: entropy {entropy(letters):.3f}, coded {coded:.3f}")
    return {"entropy": entropy(letters), "code_length": coded}


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Bits wasted when p is true and q is believed. p, q: probabilities of the same shape.

    Infinite where q rules out what p allows.
    """
    # practice: The price of a wrong belief
    seen = p > 0
    extra = np.log2(p[seen] / q[seen])
    return (p[seen] * extra).sum()
    # end practice


def show_kl(cfg: Config) -> None:
    print("\n[2] Believe q where p is true: each symbol costs H(p) + KL(p‖q) bits")
    rng = cfg.rng()
    found = []
    for size in rng.integers(2, 20, 1000):
        p, q = rng.dirichlet(np.ones(size), 2)
        found.append(kl(p, q))
    text = "for 1,000 random pairs KL is never negative; the smallest is {}"
    check("positive", text, min(found), at_least=0)

    # Where all probabilities of q are powers of ½, its words have the length -log₂ q exactly.
    p = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8, 0])
    q = np.array([1 / 8, 1 / 2, 1 / 4, 1 / 16, 1 / 16])
    text = "p in the words for q needs 2.5 bits, which is 1.75 + 0.75"
    check_close("price", text, [mean_length(p, huffman(q)), entropy(p) + kl(p, q)], [2.5, 2.5])

    even = np.array([1 / 2, 1 / 2])
    sure = np.array([1.0, 0.0])
    # log₂ of ½ / 0 is meant to be infinite here, and no warning is wanted.
    with np.errstate(divide="ignore"):
        found = [kl(even, sure), kl(sure, even)]
    text = "KL from (½, ½) to (1, 0) is infinite, back it is 1 bit: it matters which one is true"
    check_close("one-way", text, found, [np.inf, 1])


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> float:
    """A classifier's loss in nats: the mean of -ln p(y), with p the softmax of the logits.

    logits: (n, k), the scores of k classes, any numbers. y: (n,), the true class of each row.
    """
    # practice: From scores to a loss
    # All scores of a row may move together: softmax stays the same, and exp cannot overflow.
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))  # (n, k)
    rows = np.arange(len(y))
    return -log_p[rows, y].mean()
    # end practice


def show_cross_entropy(cfg: Config) -> None:
    print("\n[3] Cross-entropy = negative log-likelihood")
    rng = cfg.rng()
    # Hard cases: some rows lie near 1,000, some near -1,000.
    logits = rng.normal(size=(64, 10)) * 5 + rng.choice([-1000, 0, 1000], (64, 1))
    y = rng.integers(0, 9, 64)
    # Class 9, which is never the true one here, is ruled out in some rows.
    logits[::3, 9] -= 2000
    ours = cross_entropy(logits, y)
    text = "ours is F.cross_entropy, with scores near 1,000 and -1,000"
    check_close("loss", text, ours, F.cross_entropy(torch.tensor(logits), torch.tensor(y)))

    p = torch.tensor(logits).softmax(dim=1).numpy()
    likelihood = p[np.arange(64), y].prod()
    truth = np.eye(10)[y]  # (64, 10), one-hot
    # Each of the 64 rows sums to 1; a table of probabilities sums to 1 as a whole.
    from_truth = kl(truth / 64, p / 64) * np.log(2)
    text = "it is -ln(likelihood)/n, and the KL from the one-hot truth, whose entropy is 0"
    check_close("nll", text, [-np.log(likelihood) / 64, from_truth], [ours, ours])


def mutual_information(joint: np.ndarray) -> float:
    """Bits that two things tell about each other. joint: their probabilities, (a, b)."""
    first = joint.sum(axis=1, keepdims=True)
    second = joint.sum(axis=0, keepdims=True)
    return kl(joint, first * second)


def show_information(cfg: Config, message: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    print("\n[4] Mutual information: the KL from a table of pairs to that of independent letters")
    print(f"  {''.join(LETTERS[letter] for letter in message[:60])}…")
    first = pairs.sum(axis=1)
    second = pairs.sum(axis=0)
    # One row for each letter: what comes next, if this one is known.
    given = pairs / first[:, None]
    knowing = first @ [entropy(row) for row in given]
    bits = mutual_information(pairs)
    saved = entropy(second) - knowing
    text = f"it is {bits:.3f} bits, as many as knowing a letter saves on the next"
    check_close("information", text, bits, saved)

    shuffled = mutual_information(count_pairs(cfg.rng().permutation(message)))
    text = "in the same letters, shuffled, a letter tells {} bits about the next"
    check("shuffled", text, shuffled, below=bits / 10)

    in_pairs = mean_length(pairs.ravel(), huffman(pairs.ravel())) / 2
    coded = first @ [mean_length(row, huffman(row)) for row in given]
    print(f"  bits a letter, if the one before is known: entropy {knowing:.3f}, coded {coded:.3f}")
    text = f"a word for each pair needs {in_pairs:.3f} bits a letter, {{}} times as many"
    check("context", text, in_pairs / coded, above=1.1)
    return {"pair_length": in_pairs, "entropy_knowing": knowing, "context_length": coded}


def humps(x: np.ndarray, centre: float) -> np.ndarray:
    """A density with 0.6 of its probability around -centre and 0.4 around centre."""
    left = probability.normal_density(x, -centre, 0.5)
    right = probability.normal_density(x, centre, 0.7)
    return 0.6 * left + 0.4 * right


def divergence(theta: np.ndarray, x: np.ndarray, p: np.ndarray, forward: bool) -> float:
    """KL in bits between the density p and the Gaussian q with theta = (mean, ln sd).

    x: a grid of equal steps, so that sums stand for integrals. forward: KL(p‖q), else KL(q‖p).
    """
    q = probability.normal_density(x, theta[0], np.exp(theta[1]))
    width = x[1] - x[0]
    return (kl(p, q) if forward else kl(q, p)) * width


def fit(x: np.ndarray, p: np.ndarray, start: tuple, forward: bool) -> tuple[float, float, float]:
    """Mean and sd of the Gaussian found downhill from `start`, and its KL in bits."""
    # The logarithm of the sd may be any number, so no step can make the sd negative.
    loss = partial(divergence, x=x, p=p, forward=forward)
    end = descend(partial(gradient, loss), start, 0.2, 500)[-1]
    return end[0], np.exp(end[1]), loss(end)


def show_fits(cfg: Config) -> dict[str, list]:
    print("\n[5] One Gaussian q for two humps p: KL(p‖q) covers both, KL(q‖p) may choose one")
    x = np.linspace(-10, 10, 801)
    far = humps(x, 2.5)
    near = humps(x, 1.0)
    starts = [(-1.0, -0.8), (1.0, -0.8)]
    fits = {
        "forward": [fit(x, far, start, forward=True) for start in starts],
        "reverse": [fit(x, far, start, forward=False) for start in starts],
        "near": [fit(x, near, start, forward=False) for start in starts],
    }
    for name, ends in fits.items():
        for side, (mean, sd, bits) in zip(["left", "right"], ends):
            print(f"  {name:<8}from the {side:<7}mean {mean:6.3f}   sd {sd:.3f}   {bits:.3f} bits")

    # mean 0.6·(-2.5) + 0.4·2.5, variance 0.6·(0.5² + 2.5²) + 0.4·(0.7² + 2.5²) - mean²
    text = "forward KL takes over mean and sd of the whole, -0.5 and √6.346, from either start"
    found = [end[:2] for end in fits["forward"]]
    check_close("forward", text, found, [[-0.5, np.sqrt(6.346)]] * 2, rtol=1e-5)
    text = "reverse KL takes the hump on its side, for -log₂ 0.6 or -log₂ 0.4 bits"
    wanted = [[-2.5, 0.5, -np.log2(0.6)], [2.5, 0.7, -np.log2(0.4)]]
    check_close("reverse", text, fits["reverse"], wanted, rtol=0, atol=2e-3)
    text = "with humps at -1 and 1 reverse KL covers both, from either start: the smaller sd is {}"
    check("near", text, min(sd for _, sd, _ in fits["near"]), above=1)
    return fits


# Pictures: skip on a first reading


def draw_fits(cfg: Config, fits: dict[str, list]) -> None:
    titles = {
        "forward": "KL(p‖q): cover everything",
        "reverse": "KL(q‖p): choose a hump",
        "near": "KL(q‖p), humps near: cover both",
    }
    figure, axes = new_figure(1, 3, size=(14, 4.2))
    x = np.linspace(-5, 5, 401)
    for axis, (name, title) in zip(axes, titles.items()):
        p = humps(x, 1.0 if name == "near" else 2.5)
        axis.fill_between(x, p, color=GREY, alpha=0.4, label="p")
        for (mean, sd, _), side, colour in zip(fits[name], ["left", "right"], [BLUE, ORANGE]):
            # Two curves may lie on each other: the second is dashed.
            style = "-" if side == "left" else "--"
            q = probability.normal_density(x, mean, sd)
            axis.plot(x, q, style, color=colour, label=f"q, started {side}")
        axis.set(xlim=(-5, 5), ylim=(0, 0.85), title=title)
    axes[0].legend(loc="upper right")
    save_figure(figure, cfg.out / "fits")


def write_message(n: int, rng: np.random.Generator) -> np.ndarray:
    """Letters as numbers, (n,). Each is, half of the time, the one after the last in LETTERS."""
    ranks = 1 / np.arange(1, len(LETTERS) + 1)
    message = rng.choice(len(LETTERS), size=n, p=ranks / ranks.sum())
    follows = rng.random(n) < 0.5
    for i in range(1, n):
        if follows[i]:
            message[i] = (message[i - 1] + 1) % len(LETTERS)
    return message


def count_pairs(message: np.ndarray) -> np.ndarray:
    """The share of each pair of neighbours, (16, 16). Row: a letter, column: the next."""
    edges = range(len(LETTERS) + 1)
    counts = np.histogram2d(message[:-1], message[1:], bins=edges)[0]
    return counts / counts.sum()


def run(cfg: Config) -> dict[str, float]:
    message = write_message(cfg.letters, cfg.rng())
    pairs = count_pairs(message)
    lengths = show_code(cfg, message, pairs)
    show_kl(cfg)
    show_cross_entropy(cfg)
    information = show_information(cfg, message, pairs)
    fits = show_fits(cfg)
    draw_fits(cfg, fits)
    return {**lengths, **information, "forward_sd": fits["forward"][0][1]}


if __name__ == "__main__":
    main(run, Config, __doc__)
