"""2.7 Entropy and KL divergence: how many bits a message needs, and what a wrong belief costs
熵与 KL 散度：一条消息需要多少比特，模型与事实不符又要多用多少

You will be able to answer
    1. How short can a message be made?             show_code           by-hand, bounds, decoded
    2. What does believing q cost, if p is true?    show_kl             positive, price
    3. Why is a classifier's loss a cross-entropy?  show_cross_entropy  loss, nll, logistic
    4. How much does one thing tell about another?  show_information    information
    5. Which single Gaussian stands for two humps?  show_fits           gaussian, forward, reverse
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
    samples: int = param(200_000, "samples of a Monte Carlo estimate", tiny=20_000, low=5_000)


def entropy(p: np.ndarray) -> float:
    """Mean surprise -log₂ p in bits. p: probabilities of any shape that sum to 1."""
    # What never happens adds nothing: p log p goes to 0 with p.
    kept = p[p > 0]
    return -(kept * np.log2(kept)).sum()


def huffman(p: np.ndarray) -> list[str]:
    """A word of 0s and 1s for each probability, shortest on average; no word begins another."""
    # practice: Join the two rarest
    words = [""] * len(p)
    # Probability, a number of its own to break ties, symbols.
    heap = [(share, symbol, [symbol]) for symbol, share in enumerate(p)]
    heapq.heapify(heap)
    while len(heap) > 1:
        share_0, number, rare = heapq.heappop(heap)
        share_1, _, next_rare = heapq.heappop(heap)
        for symbol in rare:
            words[symbol] = "0" + words[symbol]
        for symbol in next_rare:
            words[symbol] = "1" + words[symbol]
        heapq.heappush(heap, (share_0 + share_1, number, rare + next_rare))
    return words
    # end practice


def decode(bits: str, words: list[str]) -> list[int]:
    """The symbols of a message. Only the first word that fits can be meant."""
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
    return p @ [len(word) for word in words]


def show_code(cfg: Config, message: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    print(
        "\n[1] An event of probability p is worth -log₂ p bits; a good code spends just about them"
    )
    p = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    found = [entropy(np.append(p, 0)), mean_length(p, huffman(p))]
    text = "chances ½, ¼, ⅛, ⅛ and 0 have 1.75 bits, and Huffman's words need as many"
    check_close("by-hand", text, found, [1.75, 1.75])

    rng = cfg.rng()
    letters = pairs.sum(axis=1)
    sources = [letters, pairs.ravel()]
    for size in rng.integers(2, 30, 200):
        sources.append(rng.dirichlet(np.full(size, 0.5)))
    waste = np.array([mean_length(q, huffman(q)) - entropy(q) for q in sources])
    text = "H ≤ mean length < H + 1 for 202 sources: above H "
    text += f"by {waste.min():.4f} to {waste.max():.4f}"
    check("bounds", text, waste.min() > -1e-12 and waste.max() < 1)

    words = huffman(letters)
    bits = "".join(words[letter] for letter in message)
    text = (
        f"{len(bits):,} bits in a row, without separators, give back all {len(message):,} letters"
    )
    check("decoded", text, decode(bits, words) == message.tolist())

    pair_words = huffman(pairs.ravel())
    lengths = {
        "entropy": entropy(letters),
        "code_length": mean_length(letters, words),
        "pair_length": mean_length(pairs.ravel(), pair_words) / 2,
    }
    print(f"  bits a letter: entropy {lengths['entropy']:.3f}, ", end="")
    print(f"coded {lengths['code_length']:.3f}, coded in pairs {lengths['pair_length']:.3f}")
    return lengths


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


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """A classifier's loss in nats: the mean of -ln p(label), with p the softmax of the scores.

    scores: (n, k), any numbers. labels: (n,), the true class of each row.
    """
    # practice: From scores to a loss
    # All scores of a row may move together: softmax stays the same, and exp cannot overflow.
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))  # (n, k)
    rows = np.arange(len(labels))
    return -log_p[rows, labels].mean()
    # end practice


def show_cross_entropy(cfg: Config) -> None:
    print("\n[3] Cross-entropy = negative log-likelihood; for two classes it is the logistic loss")
    rng = cfg.rng()
    scores = rng.normal(size=(64, 10)) * 5 + rng.choice([-1000, 0, 1000], (64, 1))
    labels = rng.integers(0, 9, 64)
    # Class 9, which is never the true one here, is ruled out in some rows.
    scores[::3, 9] -= 2000
    ours = cross_entropy(scores, labels)
    reference = F.cross_entropy(torch.tensor(scores), torch.tensor(labels))
    check_close(
        "loss", "ours is F.cross_entropy, with scores near 1,000 and -1,000", ours, reference
    )

    p = torch.tensor(scores).softmax(dim=1).numpy()
    likelihood = p[np.arange(64), labels].prod()
    truth = np.eye(10)[labels]  # (64, 10), one-hot
    divergence = kl(truth / 64, p / 64) * np.log(2)
    text = "it is -ln(likelihood)/n, and the KL from the one-hot truth, whose entropy is 0"
    check_close("nll", text, [-np.log(likelihood) / 64, divergence], [ours, ours])

    # Two classes: a model gives one score, the difference of the two, as in lesson 2.4.
    score = scores[:, 1] - scores[:, 0]
    y = np.where(labels % 2 == 1, 1, -1)
    logistic = np.log(1 + np.exp(-y * score)).mean()
    text = "for two classes it is the mean of log(1 + exp(-y · score)), the loss of 2.4"
    check_close("logistic", text, cross_entropy(scores[:, :2], labels % 2), logistic)


def mutual_information(joint: np.ndarray) -> float:
    """Bits that two things tell about each other. joint: their probabilities, (a, b)."""
    first = joint.sum(axis=1, keepdims=True)
    second = joint.sum(axis=0, keepdims=True)
    return kl(joint, first * second)


def show_information(cfg: Config, message: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    print("\n[4] Mutual information: how far a table is from that of independent things")
    print(f"  {''.join(LETTERS[letter] for letter in message[:60])}…")
    p = pairs.sum(axis=1)
    knowing = sum(share * entropy(row / share) for share, row in zip(p, pairs))
    bits = mutual_information(pairs)
    saved = entropy(pairs.sum(axis=0)) - knowing
    independent = entropy(p) + entropy(pairs.sum(axis=0)) - entropy(pairs)
    text = f"a letter tells {bits:.3f} bits about the next, H(X) + H(Y) - H(X, Y): what it saves"
    check_close("information", text, [bits, bits], [saved, independent])
    return {"entropy_knowing": knowing, "information": bits}


def gaussian_kl(m: float, s: float, mean: float, sd: float) -> float:
    """KL in nats from a Gaussian (m, s) to a Gaussian (mean, sd), in closed form."""
    spread = np.log(sd / s)
    miss = (s**2 + (m - mean) ** 2) / (2 * sd**2)
    return spread + miss - 1 / 2


def hills(x: np.ndarray) -> np.ndarray:
    left = probability.normal_density(x, -2.5, 0.5)
    right = probability.normal_density(x, 2.5, 0.7)
    return 0.6 * left + 0.4 * right


def divergence(theta: np.ndarray, x: np.ndarray, forward: bool) -> float:
    """KL in bits between the hills p and the Gaussian q with theta = (mean, ln sd).

    x: a grid of equal steps, so that sums stand for integrals. forward: KL(p‖q), else KL(q‖p).
    """
    p = hills(x)
    # Far out a narrow Gaussian is 0 to the computer, and kl would call that infinite.
    q = probability.normal_density(x, theta[0], np.exp(theta[1])) + 1e-30
    width = x[1] - x[0]
    return (kl(p, q) if forward else kl(q, p)) * width


def show_fits(cfg: Config) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    print("\n[5] One Gaussian for two humps: KL(p‖q) covers both, KL(q‖p) chooses one")
    rng = cfg.rng()
    misses = []
    for m, s, mean, sd in [(0, 1, 0, 1.5), (0, 1, 1, 1), (0, 2, 1, 1), (-1, 0.5, 2, 3)]:
        x = m + s * probability.box_muller(*rng.random((2, cfg.samples)))[0]
        p = probability.normal_density(x, m, s)
        q = probability.normal_density(x, mean, sd)
        extra = np.log(p / q)
        error = extra.std() / np.sqrt(cfg.samples)
        misses.append((extra.mean() - gaussian_kl(m, s, mean, sd)) / error)
    text = "two Gaussians: the closed form is {} standard errors from sampled values at most"
    check("gaussian", text, np.abs(misses).max(), at_most=4)

    x = np.linspace(-10, 10, 801)
    paths = {}
    for name, start in {"forward": (2.0, 0.9), "left": (-1.0, -0.8), "right": (1.0, -0.8)}.items():
        loss = partial(divergence, x=x, forward=name == "forward")
        paths[name] = descend(partial(gradient, loss), np.array(start), 0.2, 500)
    ends = {name: (path[-1, 0], np.exp(path[-1, 1])) for name, path in paths.items()}
    for name, (mean, sd) in ends.items():
        print(f"  {name:<8} mean {mean:6.3f}   sd {sd:.3f}")
    text = "forward KL takes over mean and sd of the whole, -0.5 and √6.346"
    check_close("forward", text, ends["forward"], [-0.5, np.sqrt(6.346)], rtol=1e-5)
    text = "reverse KL becomes one hump, as if there were no other"
    reverse = [ends["left"], ends["right"]]
    check_close("reverse", text, reverse, [[-2.5, 0.5], [2.5, 0.7]], rtol=0, atol=2e-3)
    return {"forward_sd": ends["forward"][1], "reverse_sd": ends["left"][1]}, paths


# Pictures: skip on a first reading


def draw_fits(cfg: Config, paths: dict[str, np.ndarray]) -> None:
    x = np.linspace(-10, 10, 801)
    means = np.linspace(-3.5, 3.5, 12 if cfg.tiny else 60)
    logs = np.linspace(-1.4, 1.4, 12 if cfg.tiny else 60)
    figure, axes = new_figure(2, 2, size=(12.6, 8.6))
    titles = ["Forward, KL(p‖q): cover everything", "Reverse, KL(q‖p): choose a hump"]
    for column, names in enumerate([["forward"], ["left", "right"]]):
        top, below = axes[:, column]
        top.fill_between(x, hills(x), color=GREY, alpha=0.4)
        height = np.empty((len(logs), len(means)))
        for row, log in enumerate(logs):
            height[row] = [divergence((mean, log), x, column == 0) for mean in means]
        below.contourf(means, logs, np.log(height), levels=24, cmap="Greys", alpha=0.7)
        for name, colour in zip(names, [BLUE, ORANGE]):
            mean, log = paths[name][-1]
            top.plot(x, probability.normal_density(x, mean, np.exp(log)), color=colour)
            below.plot(*paths[name].T, ".-", color=colour)
            below.plot(mean, log, "k*", markersize=15)
        top.set(xlim=(-5, 5), ylim=(0, 0.85), title=titles[column], yticks=())
        below.set(xlabel="mean of the Gaussian", ylabel="ln of its sd")
        below.set_title("Its landscape: the darker, the worse")
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


def run(cfg: Config) -> dict[str, float]:
    message = write_message(cfg.letters, cfg.rng())
    edges = range(len(LETTERS) + 1)
    counts = np.histogram2d(message[:-1], message[1:], bins=edges)[0]
    pairs = counts / counts.sum()  # row: a letter, column: the next
    lengths = show_code(cfg, message, pairs)
    show_kl(cfg)
    show_cross_entropy(cfg)
    information = show_information(cfg, message, pairs)
    widths, paths = show_fits(cfg)
    draw_fits(cfg, paths)
    return {**lengths, **information, **widths}


if __name__ == "__main__":
    main(run, Config, __doc__)
