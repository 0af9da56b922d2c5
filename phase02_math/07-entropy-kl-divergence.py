"""2.7 Entropy and KL divergence: how many bits a message needs, and what a wrong belief costs
熵与 KL 散度：一条消息要用多少比特，信错了又要多付多少

You will be able to answer
    1. How surprising is a source on average?                         show_entropy         most, chain
    2. How short can a message be made?                               show_code            bounds, blocks, prefix
    3. What does it cost to believe q where p is true?                show_kl              positive, price
    4. Why is the loss of every classifier called cross-entropy?      show_cross_entropy   loss, nll
    5. How far apart are two bell curves?                             show_gaussian        gaussian
    6. How much does one thing tell about another?                    show_information     three-ways
    7. Which single bell stands for two humps?                        show_fits            forward, reverse
Run       python phase02_math/07-entropy-kl-divergence.py                  about 5 s
Needs     phase02_math/03-derivatives-gradients, phase02_math/05-optimization-basics,
          phase02_math/06-probability-basics
Reference F.cross_entropy, F.nll_loss
Notation  H entropy  KL(p‖q) Kullback–Leibler divergence  bits with log₂, nats with ln  k symbols
"""

import heapq
from dataclasses import dataclass

import numpy as np

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
    samples: int = param(200_000, "samples for a Monte Carlo estimate", tiny=20_000, low=5_000)


def entropy(p: np.ndarray) -> float:
    """Mean surprise in bits of probabilities of any shape that sum to 1. What never happens adds nothing."""
    # practice: the mean surprise
    # hint: an event of probability ½ is worth one bit, ¼ two bits: the surprise is -log₂ p
    # hint: p log p goes to 0 with p, but log 0 is no number: kept = p[p > 0]
    kept = p[p > 0]
    surprise = -np.log2(kept)
    bits = (kept * surprise).sum()
    # end practice
    return bits


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Bits wasted when p is true and q is believed, of any shape; infinite where q rules out what p allows."""
    # practice: the price of a wrong belief
    # hint: the surprise that q expects, less the one that is due: log₂ (p / q), weighed with what really happens
    # hint: seen = p > 0, and p[seen], q[seen] from there on
    seen = p > 0
    extra = np.log2(p[seen] / q[seen])
    bits = (p[seen] * extra).sum()
    # end practice
    return bits


def huffman(p: np.ndarray) -> list[str]:
    """The shortest code that needs no separator: a word of 0s and 1s for each probability."""
    words = [""] * len(p)
    heap = [
        (share, i, [i]) for i, share in enumerate(p)
    ]  # share, a number to break ties, its symbols
    heapq.heapify(heap)
    while len(heap) > 1:
        # practice: join the two rarest
        # hint: the two rarest groups share all of their words but the last choice between them: a 0 or a 1 in front
        # hint: share_0, tie, rare = heapq.heappop(heap), then the second rarest; put both back as one group
        share_0, tie, rare = heapq.heappop(heap)
        share_1, _, next_rare = heapq.heappop(heap)
        for bit, group in (("0", rare), ("1", next_rare)):
            for symbol in group:
                words[symbol] = bit + words[symbol]
        heapq.heappush(heap, (share_0 + share_1, tie, rare + next_rare))
        # end practice
    return words


def mean_length(p: np.ndarray, words: list[str]) -> float:
    return p @ [len(word) for word in words]


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """A classifier's loss in nats: mean surprise at the true class. scores: (n, k) any numbers, labels: (n,)"""
    # practice: from scores to a loss
    # hint: softmax turns scores into probabilities; its logarithm is score - log(sum of exp(scores))
    # hint: subtract each row's largest score first, or exp overflows: scores - scores.max(axis=1, keepdims=True)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(labels)), labels].mean()
    # end practice
    return loss


def gaussian_kl(m: float, s: float, mean: float, sd: float) -> float:
    """KL in nats from a bell (m, s) to a bell (mean, sd), in closed form."""
    # practice: from one bell to another
    # hint: E[ln p - ln q] under p, where E[(x - m)²] = s² and E[(x - mean)²] = s² + (m - mean)²
    # hint: the logarithms of the heights leave ln(sd / s); the exponents leave the other two terms
    widths = np.log(sd / s)
    miss = (s**2 + (m - mean) ** 2) / (2 * sd**2)
    nats = widths + miss - 1 / 2
    # end practice
    return nats


def mutual_information(joint: np.ndarray) -> float:
    """Bits that two things tell about each other: how far their table (a, b) is from the product of its margins."""
    return kl(joint, joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True))


def write_text(n: int, rng: np.random.Generator) -> np.ndarray:
    """Letters as numbers (n,): each is, half of the time, the successor of the last, else drawn with p ∝ 1 / rank."""
    ranks = 1 / np.arange(1, len(LETTERS) + 1)
    text, follows = probability.discrete(rng.random(n), ranks / ranks.sum()), rng.random(n) < 0.5
    for i in np.flatnonzero(follows[1:]) + 1:
        text[i] = (text[i - 1] + 1) % len(LETTERS)
    return text


def hills(x: np.ndarray) -> np.ndarray:
    return 0.6 * probability.normal_density(x, -2.5, 0.5) + 0.4 * probability.normal_density(
        x, 2.5, 0.7
    )


def divergence(t: np.ndarray, x: np.ndarray, forward: bool) -> float:
    """KL in bits between the hills and the bell with mean t[0] and standard deviation exp(t[1]), on the grid x."""
    p, q = (
        hills(x) + 1e-30,
        probability.normal_density(x, t[0], np.exp(t[1])) + 1e-30,
    )  # 0 to the computer
    return (kl(p, q) if forward else kl(q, p)) * (x[1] - x[0])


def show_entropy(cfg: Config, text: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    p = pairs.sum(axis=1)
    after = sum(
        share * entropy(row / share) for share, row in zip(p, pairs)
    )  # knowing the letter before
    print(
        f"\n[1] {''.join(LETTERS[i] for i in text[:36])}…: {entropy(p):.3f} bits each, {after:.3f} knowing the last"
    )
    check(
        "most",
        "16 equal chances are 4 bits; none of 1,000 other sources has more",
        max(entropy(q) for q in cfg.rng().dirichlet(np.ones(16), 1000)),
        below=entropy(np.full(16, 1 / 16)),
    )
    check_close(
        "chain",
        "a pair = first letter + second, knowing the first",
        entropy(pairs),
        entropy(p) + after,
    )
    return {"entropy": entropy(p), "entropy_knowing": after}


def show_code(cfg: Config, pairs: np.ndarray) -> dict[str, float]:
    print(
        "\n[2] Short words for frequent letters: no code needs less than H bits, Huffman's less than H + 1"
    )
    rng, p = cfg.rng(), pairs.sum(axis=1)
    words = huffman(p)
    begun = [a for a in words for b in words if b.startswith(a)]  # each word begins itself
    check("prefix", f"no word begins another: e is {words[0]}, f is {words[-1]}", begun == words)
    sources = [
        p,
        pairs.ravel(),
        *(rng.dirichlet(np.full(k, 0.5)) for k in rng.integers(2, 30, 200)),
    ]
    waste = [mean_length(q, huffman(q)) - entropy(q) for q in sources]
    check(
        "bounds",
        f"H ≤ mean length < H + 1, {len(waste)} times; above H by {min(waste):.4f} to {max(waste):.4f}",
        -1e-12 < min(waste) and max(waste) < 1,
    )
    alone, both = mean_length(p, words), mean_length(pairs.ravel(), huffman(pairs.ravel())) / 2
    check(
        "blocks",
        f"a word for each pair: {both:.3f} bits a letter, not {alone:.3f}; above H(pair) / 2 by",
        both - entropy(pairs) / 2,
        at_least=0,
        below=0.5,
    )
    return {"code_length": alone, "pair_length": both}


def show_kl(cfg: Config) -> None:
    print("\n[3] Believe q where p is true, and each symbol costs KL(p‖q) more than needed")
    rng = cfg.rng()
    found = [kl(*rng.dirichlet(np.ones(k), 2)) for k in rng.integers(2, 20, 1000)]
    p, q = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8]), np.array([1 / 8, 1 / 2, 1 / 4, 1 / 8])
    check(
        "positive",
        "KL ≥ 0 for 1,000 random pairs, 0 for equal ones; the smallest",
        min(found),
        at_least=kl(p, p),
    )
    check_close(
        "price",
        "p in the words for q: H(p) + KL(p‖q) bits",
        mean_length(p, huffman(q)),
        entropy(p) + kl(p, q),
    )


def show_cross_entropy(cfg: Config) -> None:
    import torch

    print(
        "\n[4] A classifier's loss is its surprise at the truth: cross-entropy = negative log-likelihood"
    )
    rng = cfg.rng()
    scores, labels = (
        rng.normal(size=(64, 10)) * 5 + 1000,
        rng.integers(0, 10, 64),
    )  # exp(1000) would overflow
    ours, tensor = cross_entropy(scores, labels), torch.tensor(scores)
    check_close(
        "loss",
        "ours = F.cross_entropy",
        ours,
        torch.nn.functional.cross_entropy(tensor, torch.tensor(labels)),
    )
    p, one_hot = tensor.softmax(1).numpy(), np.eye(10)[labels]
    check_close(
        "nll",
        "= -log of the likelihood / n = KL from the one-hot truth, whose entropy is 0",
        [-np.log(np.prod(p[range(64), labels])) / 64, kl(one_hot / 64, p / 64) * np.log(2)],
        [ours, ours],
    )


def show_gaussian(cfg: Config) -> dict[str, float]:
    print("\n[5] Two bells: the closed form beside an average over samples")
    rng, misses = cfg.rng(), []
    for m, s, mean, sd in (
        (0, 1, 0, 1.5),
        (0, 1, 1, 1),
        (0, 2, 1, 1),
        (-1, 0.5, 2, 3),
        (3, 1, 2.5, 1.2),
    ):
        x = m + s * probability.box_muller(*rng.random((2, cfg.samples)))[0]
        extra = np.log(
            probability.normal_density(x, m, s) / probability.normal_density(x, mean, sd)
        )
        exact = gaussian_kl(m, s, mean, sd)
        misses.append((extra.mean() - exact) / (extra.std() / np.sqrt(cfg.samples)))
        print(f"  N({m}, {s}²) to N({mean}, {sd}²): {exact:.4f} nats, sampled {extra.mean():.4f}")
    check(
        "gaussian",
        "five pairs of bells; largest miss in standard errors",
        max(map(abs, misses)),
        at_most=4,
    )
    return {"gaussian_miss": max(map(abs, misses))}


def show_information(cfg: Config, pairs: np.ndarray) -> None:
    print("\n[6] Mutual information: what knowing one saves on the other")
    bits = mutual_information(pairs)
    check_close(
        "three-ways",
        f"a letter tells {bits:.3f} bits about the next: H(X) + H(Y) - H(X, Y)",
        bits,
        entropy(pairs.sum(axis=1)) + entropy(pairs.sum(axis=0)) - entropy(pairs),
    )


def show_fits(cfg: Config) -> dict[str, float]:
    print("\n[7] One bell for two humps: KL(p‖q) must cover everything, KL(q‖p) may ignore a hump")
    x, paths = np.linspace(-10, 10, 801), {}
    for name, start in (("forward", (2.0, 0.9)), ("left", (-1.0, -0.8)), ("right", (1.0, -0.8))):
        slope = lambda t: gradient(lambda at: divergence(at, x, name == "forward"), t)
        paths[name] = descend(slope, np.array(start), 0.2, 500)
    ends = {name: (path[-1][0], np.exp(path[-1][1])) for name, path in paths.items()}
    print("  " + "   ".join(f"{name}: mean {m:.3f}, sd {s:.3f}" for name, (m, s) in ends.items()))
    check_close(
        "forward",
        "forward takes over mean and spread of the whole, -0.5 and √6.346",
        ends["forward"],
        (-0.5, np.sqrt(6.346)),
    )
    check_close(
        "reverse",
        "reverse becomes one hump, as if there were no other",
        [ends["left"], ends["right"]],
        [(-2.5, 0.5), (2.5, 0.7)],
        rtol=0,
        atol=2e-3,
    )
    draw_fits(cfg, x, paths)
    return {"forward_sd": ends["forward"][1], "reverse_sd": ends["left"][1]}


def draw_fits(cfg: Config, x: np.ndarray, paths: dict[str, np.ndarray]) -> None:
    figure, axes = new_figure(2, 2, size=(12.6, 8.6))
    means, logs = (np.linspace(-edge, edge, 12 if cfg.tiny else 60) for edge in (3.5, 1.4))
    for (top, below), title, names in (
        (axes[:, 0], "Forward, KL(p‖q): cover everything", ("forward",)),
        (axes[:, 1], "Reverse, KL(q‖p): choose a hump", ("left", "right")),
    ):
        top.fill_between(x, hills(x), color=GREY, alpha=0.4)
        height = np.log([[divergence((m, s), x, len(names) == 1) for m in means] for s in logs])
        below.contourf(means, logs, height, levels=24, cmap="Greys", alpha=0.7)
        below.contour(
            means, logs, height, levels=24, colors=GREY, linestyles="solid", linewidths=0.5
        )
        for name, colour in zip(names, (BLUE, ORANGE)):
            m, s = paths[name][-1]
            top.plot(x, probability.normal_density(x, m, np.exp(s)), color=colour)
            below.plot(*paths[name].T, ".-", color=colour)
            below.plot(m, s, "k*", markersize=15)
        top.set(xlim=(-5, 5), ylim=(0, 0.85), title=title, yticks=())
        below.set(
            xlabel="mean of the bell",
            ylabel="ln of its spread",
            title="Its landscape, darker is worse",
        )
    save_figure(figure, cfg.out / "fits")


def run(cfg: Config) -> dict:
    text = write_text(cfg.letters, cfg.rng())
    pairs = np.histogram2d(text[:-1], text[1:], bins=range(len(LETTERS) + 1))[0] / (len(text) - 1)
    results = show_entropy(cfg, text, pairs) | show_code(cfg, pairs)
    show_kl(cfg)
    show_cross_entropy(cfg)
    results |= show_gaussian(cfg)
    show_information(cfg, pairs)
    return results | show_fits(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
