"""8.9 FID and Inception Score: grading a generator
FID 与 IS：给生成器打分

You will be able to answer
    1. What does the Inception Score see?    show_inception  by-hand, entropies, repeated
    2. Why does FID depend on the number?    show_fid        closed, bias, limit
    3. Is each picture good, is any absent?  show_balls      balls, scikit-learn
    4. Who sees which fault?  show_table  judge, halves, floor, mild, copies, part, absent, little
    5. Where does FID mislead?  show_noise  drowned, louder, spread, other, opposite, told, outliers
Predict   louder: noise alone. If sd grows from 0.5 to 2, how many times as high does FID become?
Run       python phase08_generative/09-fid-inception-score.py              about 15 s
Needs     phase08_generative/01-gan-basics
Reference sklearn.neighbors.NearestNeighbors, scipy.stats.entropy
Notation  n pictures  C classes  K features  k neighbours
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import entropy
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import BLUE, ORANGE, new_figure, plot_images, save_figure
from common.lessons import load_lesson

gan = load_lesson("phase08_generative/01-gan-basics")
Pictures = tuple[Tensor, Tensor]  # pictures (n, 1, H, W) from -1 to 1, their digits (n,)
MEASURES = ("FID", "IS", "precision", "recall", "coverage")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits", "mnist-5k", "mnist"))
    judge_epochs: int = param(20, "passes of the judge over the pictures", tiny=2)
    draws: int = param(100, "samples over which the bias of FID is averaged", tiny=20)
    k: int = param(3, "neighbours within a ball", low=1)


def inception_score(p: Tensor) -> Tensor:
    """exp of the mean KL(p(y | x) || p(y)), p(y) being the mean (Salimans et al. 2016).

    p (n, C): for each picture the judge's probability of each class. From 1 to C.
    """
    # practice: The Inception Score
    classes = p.mean(dim=0)  # (C,)

    # xlogy: 0 · ln 0 counts as 0, its limit.
    divergence = (torch.xlogy(p, p) - torch.xlogy(p, classes)).sum(dim=1)  # (n,)
    return divergence.mean().exp()
    # end practice


def probabilities(judge: nn.Module, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        return judge(gan.for_judge(pictures)).softmax(dim=1).double()


def show_inception(cfg: Config, judge: nn.Module, train: Pictures, new: Tensor) -> None:
    print("\n[1] The Inception Score: is the judge sure, and does it see all classes?")
    sure = torch.eye(2).double()[[0, 0, 1, 1]]
    nearly = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]).double()
    found = [inception_score(p) for p in (sure, nearly, sure[:2], torch.full((4, 2), 0.5))]
    text = "two classes: sure of both 2, nearly sure 1.445, of one class only 1, unsure 1"
    check_close("by-hand", text, torch.stack(found), [2, 1.445, 1, 1], rtol=3e-4)

    p = torch.randn(50, 7).double().softmax(dim=1)
    wanted = np.exp(entropy(p.mean(dim=0)) - entropy(p, axis=1).mean())
    text = "its logarithm is the entropy of the mean minus the mean of the entropies"
    check_close("entropies", text, inception_score(p), wanted)

    copies = one_of_each(*train, times=len(new) // 10)
    ours, wanted = (inception_score(probabilities(judge, each)) for each in (copies, new))
    text = "one picture of each digit, again and again, scores {} times what new digits do"
    expect("repeated", text, ours / wanted, at_least=0.95)


def at_infinity(x: Tensor, y: Tensor, sizes: Sequence[int]) -> float:
    """Fréchet distance that infinitely many x would have (Chong and Forsyth 2020).

    The first n of the features x (N, K), for each n of `sizes`, against all of y. To first order
    the bias is proportional to 1/n: a line through the distances over 1/n ends where 1/n is 0.
    """
    # practice: The distance at infinity
    distances = [gan.frechet_distance(x[:size], y) for size in sizes]
    _, intercept = np.polyfit([1 / size for size in sizes], distances, deg=1)
    return float(intercept)
    # end practice


def show_fid(cfg: Config) -> None:
    print("\n[2] FID: of two samples from one distribution, the smaller one is farther away")
    # Two sets with exactly these means and covariances, whatever was drawn.
    x = whitened(40, 3) * torch.tensor([1.0, 2, 3])
    y = whitened(60, 3) * torch.tensor([2.0, 2, 1]) + torch.tensor([0.0, 2, 0])
    text = "variances 1 4 9 and 4 4 1, means 2 apart: 2² + (1-2)² + (2-2)² + (3-1)² = 9"
    check_close("closed", text, gan.frechet_distance(x, y), 9.0)

    found = []
    reference = whitened(2000, 20)
    for _ in range(cfg.draws):
        x = torch.randn(400, 20).double()
        row = [gan.frechet_distance(x[:100], reference), gan.frechet_distance(x, reference)]
        found.append([*row, at_infinity(x, reference, (100, 200, 300, 400))])
    small, large, limit = np.mean(found, axis=0)
    print(f"  100 points {small:.3f}, 400 points {large:.3f}, the line at 1/n = 0: {limit:.3f}")
    text = "20 features, both N(0, I): 100 points are {} times as far as 400"
    check("bias", text, small / large, above=3.5, below=5)
    text = "the line's end is off by {} of what 400 points are off"
    check("limit", text, abs(limit) / large, at_most=0.25)


def radii(points: Tensor, k: int) -> Tensor:
    """How far each of the points (n, K) is from its k-th nearest neighbour, itself not counted."""
    # practice: The radius of each ball
    distances = torch.cdist(points, points)

    # The nearest of all is the point itself, at distance 0.
    return distances.kthvalue(k + 1, dim=1).values
    # end practice


def inside(points: Tensor, others: Tensor, k: int) -> float:
    """Share of `points` that lie in the ball of at least one of `others`.

    Precision: generated points in balls of real ones. Recall: real points in balls of generated
    ones (Kynkäänniemi et al. 2019).
    """
    # practice: Inside any ball
    distances = torch.cdist(points, others)  # (n, m)
    within = distances <= radii(others, k)  # one radius for each column
    return within.any(dim=1).double().mean().item()
    # end practice


def coverage(real: Tensor, generated: Tensor, k: int) -> float:
    """Share of real points with a generated one in their own ball (Naeem et al. 2020)."""
    # practice: Coverage
    nearest = torch.cdist(real, generated).amin(dim=1)
    return (nearest <= radii(real, k)).double().mean().item()
    # end practice


def show_balls(cfg: Config) -> None:
    print("\n[3] A ball around each point, as large as the way to its k-th neighbour")
    real = torch.tensor([[0.0], [1], [2], [8], [9]]).double()
    generated = torch.tensor([[0.5], [1.5], [20]]).double()
    found = [inside(generated, real, 1), inside(real, generated, 1), coverage(real, generated, 1)]
    text = "real 0 1 2 8 9, generated 0.5 1.5 20, k = 1: precision 2/3, recall 1, coverage 3/5"
    check_close("balls", text, found, [2 / 3, 1, 3 / 5])

    from sklearn.neighbors import NearestNeighbors

    x = 1.5 * torch.randn(40, 5).double()
    y = torch.randn(60, 5).double() + 0.5
    search = NearestNeighbors(n_neighbors=4).fit(y)
    wanted = search.kneighbors(y)[0][:, 3]
    near = [any(np.linalg.norm(point - y, axis=1) <= wanted) for point in x]
    nearest = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(y)[0][:, 0]
    found = [*radii(y, 3), inside(x, y, 3), coverage(y, x, 3)]
    wanted = [*wanted, np.mean(near), np.mean(nearest <= wanted)]
    print(f"  in 5 dimensions: {found[60]:.2f} of 40 points inside, coverage {found[61]:.2f} of 60")
    text = "radii and both shares as by scikit-learn's neighbours"
    check_close("scikit-learn", text, found, wanted)


def measure(cfg: Config, judge: nn.Module, pictures: Tensor, real: Tensor) -> dict[str, float]:
    """All five, by the judge's features; `real` are the features of the training pictures."""
    found = gan.features(judge, pictures)
    return {
        "FID": gan.frechet_distance(found, real),
        "IS": inception_score(probabilities(judge, pictures)).item(),
        "precision": inside(found, real, cfg.k),
        "recall": inside(real, found, cfg.k),
        "coverage": coverage(real, found, cfg.k),
    }


def show_table(cfg: Config, judge: nn.Module, accuracy: float, sets: dict, real: Tensor) -> dict:
    print("\n[4] Sets with known faults. mild, drowned: new digits with noise of sd 0.5, of sd 2")
    print("    copies: 10 pictures repeated; part: no 7, 8, 9; quiet, loud: noise alone, sd 0.5, 2")
    expect("judge", "the judge's accuracy on new digits is {}", accuracy, at_least=0.97)
    print(f"  {'':<9}" + "".join(f"{name:>10}" for name in MEASURES))
    scores = {}
    for name, pictures in sets.items():
        scores[name] = measure(cfg, judge, pictures, real)
        print(f"  {name:<9}" + "".join(f"{score:10.3f}" for score in scores[name].values()))

    new, part = scores["new"], scores["part"]
    found = gan.features(judge, sets["new"])
    halves = [gan.frechet_distance(half, real) for half in found.chunk(2)]
    ratio = sum(halves) / 2 / new["FID"]
    expect("halves", "half as many new digits have {} times the FID", ratio, at_least=1.5)

    # For a sample of the real distribution Naeem et al. expect this coverage.
    by_chance = 1 - (len(real) / (len(real) + len(found))) ** cfg.k
    bounds = {"above": by_chance - 0.06, "below": by_chance + 0.06}
    text = f"new digits have the coverage {{}}, expected is {by_chance:.3f}"
    expect("floor", text, new["coverage"], **bounds)

    times = {name: row["FID"] / new["FID"] for name, row in scores.items()}
    expect("mild", "noise of sd 0.5 added: FID is {} times as high", times["mild"], at_least=1.4)
    text = "one picture of each digit, again and again: FID is {} times as high"
    expect("copies", text, times["copies"], at_least=10)
    expect("part", "without 7, 8, 9 it is {} times as high", times["part"], at_least=5)
    precision = new["precision"] - part["precision"]
    text = f"without them recall falls by {{}}, precision by {precision:.3f}"
    expect("absent", text, new["recall"] - part["recall"], at_least=max(precision, 0) + 0.1)
    ratio = part["coverage"] / new["coverage"]
    expect("little", "coverage keeps {} of its value", ratio, at_least=0.75)
    return scores


def rectified() -> nn.Sequential:
    """Another classifier for the same pictures: ReLU instead of tanh, 64 features."""
    layers = [nn.AvgPool2d(4), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(128, 64), nn.ReLU())
    model.add_module("output", nn.Linear(64, 10))
    return model


def show_noise(cfg: Config, judge, scores: dict, sets: dict, train: Pictures, test: Pictures):
    print("\n[5] No judge was trained on noise: two of them rank it in opposite ways")
    part, drowned, quiet, loud = (scores[name] for name in ("part", "drowned", "quiet", "loud"))
    text = "digits in noise of sd 2 (drowned) have {} of the FID of clean ones without 7, 8, 9"
    expect("drowned", text, drowned["FID"] / part["FID"], below=1)
    louder = loud["FID"] / quiet["FID"]
    expect("louder", "noise alone, of sd 2, has {} of the FID of sd 0.5", louder, at_most=0.6)

    # LeNet's features end in a tanh. Strong inputs drive each to one of its ends, as digits do.
    found = [gan.features(judge, sets[name]).var(dim=0).sum() for name in ("new", "quiet", "loud")]
    text = f"variance of its features, digits 1: sd 0.5 {found[1] / found[0]:.2f}, sd 2 {{}}"
    expect("spread", text, found[2] / found[0], at_least=0.75)

    pictures = [(gan.for_judge(x), y) for x, y in (train, test)]
    other, accuracy = gan.lenet.learn(rectified, pictures, cfg.judge_epochs, cfg.seed)
    expect("other", "another judge, with ReLU, has the accuracy {}", accuracy, at_least=0.95)
    found = [gan.features(other, each) for each in (sets["drowned"], sets["quiet"], train[0])]
    by_other = gan.frechet_distance(found[0], found[2]) / gan.frechet_distance(found[1], found[2])
    by_judge = drowned["FID"] / quiet["FID"]
    text = f"FID of drowned over that of quiet: {by_judge:.2f} by LeNet, {{}} by the other judge"
    expect("opposite", text, by_other, at_least=1.5)

    text = f"precision sees the noise: {drowned['precision']:.3f} for drowned, {{}} for part"
    expect("told", text, part["precision"], at_least=2 * drowned["precision"])
    text = f"noise alone of sd 2: recall {loud['recall']:.3f}, coverage {{}}"
    expect("outliers", text, loud["coverage"], at_most=loud["recall"] / 3)
    return {"louder": louder, "other": accuracy, "by_judge": by_judge, "by_other": by_other}


# Pictures and helpers: skip on a first reading


def whitened(n: int, dim: int) -> Tensor:
    """n random points with mean 0 and covariance I, exactly."""
    x = torch.randn(n, dim).double()
    x = x - x.mean(dim=0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T


def one_of_each(pictures: Tensor, labels: Tensor, times: int) -> Tensor:
    """The first picture of each digit, `times` times: a generator that learned ten by heart."""
    first = [int((labels == digit).nonzero()[0, 0]) for digit in range(10)]
    return pictures[first].repeat(times, 1, 1, 1)


def faulty(train: Pictures, test: Pictures) -> dict[str, Tensor]:
    """Sets of which the fault is known. They have one size, for the measures depend on it."""
    (real, labels), (new, digits) = train, test
    part = new[digits < 7]
    new = new[: len(part)]
    flat = real.flatten(start_dim=1)
    cov = flat.T.cov() + 1e-4 * torch.eye(flat.shape[1])
    gaussian = MultivariateNormal(flat.mean(dim=0), cov).sample((len(new),))
    noise = torch.randn_like(new)
    sets = {"new": new, "mild": new + 0.5 * noise, "drowned": new + 2 * noise}
    sets |= {"copies": one_of_each(real, labels, len(new) // 10), "part": part}
    sets |= {"gaussian": gaussian.reshape(new.shape), "quiet": 0.5 * noise, "loud": 2 * noise}
    return sets


def draw_balls(cfg: Config) -> None:
    """Two sets in the plane: generated points that leave a mode out, with one outlier."""
    from matplotlib.patches import Circle

    torch.manual_seed(1)
    real = torch.cat([0.5 * torch.randn(16, 2), 0.5 * torch.randn(16, 2) + torch.tensor([3.0, 1])])
    generated = torch.cat([0.45 * torch.randn(15, 2), torch.tensor([[1.6, -1.6]])])
    figure, axes = new_figure(1, 2, size=(12, 5), sharex=True, sharey=True)
    for axis, name in zip(axes, ("Precision", "Recall")):
        sets = [(generated, ORANGE, "generated"), (real, BLUE, "real")]
        if name == "Recall":
            sets.reverse()
        (points, colour, label), (others, other_colour, other_label) = sets
        for centre, radius in zip(others.tolist(), radii(others, cfg.k).tolist()):
            axis.add_patch(Circle(centre, radius, color=other_colour, alpha=0.12, linewidth=0))
        axis.plot(*others.T, ".", color=other_colour, label=other_label)
        axis.plot(*points.T, "x", color=colour, label=label)
        axis.set_title(f"{name}: {inside(points, others, cfg.k):.2f} of the {label} are inside")
        axis.set(aspect="equal", xlim=(-3, 6), ylim=(-3.5, 3.5))
        axis.legend(loc="upper left")
    save_figure(figure, cfg.out / "balls")


def draw_table(cfg: Config, sets: dict[str, Tensor], scores: dict) -> None:
    """The first ten pictures of each set, and what the measures say of it."""
    figure, axes = new_figure(len(sets), 11, size=(9.5, 8.6))
    for row, (name, pictures) in zip(axes, sets.items()):
        row[0].text(1, 0.5, name, ha="right", va="center", fontsize=13)
        row[0].axis("off")
        plot_images(row[1:], list(pictures[:10, 0].clamp(-1, 1).numpy()))
        words = "    ".join(f"{key} {score:.2f}" for key, score in scores[name].items())
        # out of the layout, or the first column would become as wide
        row[1].text(0, 1.1, words, fontsize=12, transform=row[1].transAxes, in_layout=False)
    figure.set_layout_engine("constrained", hspace=0.45, rect=(0, 0, 1, 0.97))
    save_figure(figure, cfg.out / "table")


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, split_seed=cfg.seed)
    train = to_tensors(data.x_train, data.y_train, data.brightest)
    test = to_tensors(*data.test(), data.brightest)
    judge, accuracy = gan.train_judge(train, test, cfg.judge_epochs, cfg.seed)
    torch.manual_seed(cfg.seed)
    sets = faulty(train, test)
    real = gan.features(judge, train[0])

    show_inception(cfg, judge, train, test[0])
    show_fid(cfg)
    show_balls(cfg)
    scores = show_table(cfg, judge, accuracy, sets, real)
    metrics = show_noise(cfg, judge, scores, sets, train, test) | {"judge": accuracy}
    draw_balls(cfg)
    draw_table(cfg, sets, scores)
    for name, row in scores.items():
        metrics |= {f"{name}_{measured.lower()}": score for measured, score in row.items()}
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
