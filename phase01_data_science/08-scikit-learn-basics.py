"""1.8 scikit-learn basics: learning with labels, without labels, and with a few
scikit-learn 基础：有标签、没有标签、只有少量标签的学习

You will be able to answer
    1. How do labelled rows become a model that answers?    show_logistic    by-heart, coefficients
    2. How good is it on rows that it has not seen?         show_folds       dealt, scores, sorted, inputs, accuracy
    3. Which groups are there, if nobody names them?        show_groups      starts, inertia, empty, scaled
    4. Which few directions keep most of 64 numbers?        show_axes        components, lost
    5. What are rows without a label worth?                 show_few_labels  spreading, beats
Run       python phase01_data_science/08-scikit-learn-basics.py          about 5 s
Needs     phase01_data_science/02-numpy-operations, phase01_data_science/05-pandas-preprocessing
Reference LogisticRegression, KMeans, PCA, LabelSpreading, cross_val_score
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.figures import COLOURS, new_figure, save_figure
from common.lessons import load_lesson
from common.record import current

operations = load_lesson("phase01_data_science/02-numpy-operations")
Scaler = load_lesson("phase01_data_science/05-pandas-preprocessing").Scaler


@dataclass
class Config(LessonConfig):
    rows: int = param(1000, "how many digits (at most 1797)", tiny=250, low=200)


@dataclass
class Logistic:
    """One straight score per class; softmax turns the scores into shares. `fit` learns, `predict` answers."""

    strength: float = 1.0  # the smaller, the smaller the weights are kept
    tolerance: float = 0.03

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Logistic":
        """x: (n, d), y: (n,). Walks downhill until the ground is no steeper than `tolerance` in any direction."""
        self.classes = np.unique(y)
        wanted = (y[:, None] == self.classes).astype(float)  # (n, C): 1 for the right class
        x = np.c_[x, np.ones(len(x))]  # a last column of 1 carries the intercept
        pay = np.append(np.full(x.shape[1] - 1, 1 / self.strength), 0)[
            :, None
        ]  # the intercept grows for free
        step = 1 / (
            np.linalg.norm(x, 2) ** 2 / 2 + pay.max()
        )  # the longest that is always safe: lesson 2.5
        self.weights = np.zeros((x.shape[1], len(self.classes)))  # (d + 1, C)
        for _ in range(100_000):
            # practice: one step downhill
            # hint: a weight is to blame as far as its column was large where the answer was wrong: x.T @ wrong
            # hint: wrong = operations.softmax(x @ self.weights) - wanted; and large weights pay: + pay * self.weights
            wrong = operations.softmax(x @ self.weights) - wanted
            slope = x.T @ wrong + pay * self.weights
            self.weights = self.weights - step * slope
            # end practice
            if abs(slope).max() < self.tolerance:
                break
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes[(x @ self.weights[:-1] + self.weights[-1]).argmax(axis=1)]


def deal_folds(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,): the fold of each row, at random, every class in equal shares (stratified)."""
    # practice: deal the rows out like cards
    # hint: shuffle, sort the shuffled rows by class, and give them to fold 0, 1, 2, 0, 1, 2 … in turn
    # hint: order = rng.permutation(len(y)), sorted by class; np.argsort(order) is the place of each row in it
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.argsort(order) % folds
    # end practice
    return fold


def held_out(make_model, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n,): for every row the answer of a model that has not seen its fold. `make_model()` knows fit and predict."""
    answers = np.empty_like(y)
    for number in np.unique(fold):
        hidden = fold == number
        scaler = Scaler().fit(x[~hidden])
        model = make_model().fit(scaler.transform(x[~hidden]), y[~hidden])
        answers[hidden] = model.predict(
            scaler.transform(x[hidden])
        )  # the scaler has not seen them either
    return answers


def draw_starts(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k rows of x, far apart as a rule (k-means++). (n, d) -> (k, d)"""
    centres = x[rng.integers(len(x))][None]
    while len(centres) < k:
        gap = operations.distances(x, centres).min(axis=1) ** 2  # who is still badly served?
        centres = np.vstack([centres, x[rng.choice(len(x), p=gap / gap.sum())]])
    return centres


def k_means(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Lloyd's rounds: centres (k, d), the group of each row (n,), the inertia (sum of squared distances)."""
    before, inertia = np.inf, np.finfo(float).max
    while inertia < before:  # it cannot rise, and must stop: groups are finite
        # practice: two moves in turn
        # hint: every row goes to its nearest centre; then every centre goes to the mean of its rows
        # hint: gap = operations.distances(x, centres); a centre without rows stays where it is
        gap = operations.distances(x, centres)
        group = gap.argmin(axis=1)
        before, inertia = inertia, (gap.min(axis=1) ** 2).sum()
        centres = np.array(
            [
                x[group == j].mean(axis=0) if (group == j).any() else old
                for j, old in enumerate(centres)
            ]
        )
        # end practice
    return centres, group, inertia


def main_axes(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PCA: the mean (d,), the k directions along which the rows differ most (k, d), the variance along each (k,)."""
    # practice: the directions in which the cloud of rows is long
    # hint: with rows counted from their mean, x.T @ x / (n - 1) holds how every two columns vary together (covariance)
    # hint: np.linalg.eigh(covariance) gives variances and, as columns, directions: both smallest first
    mean = x.mean(axis=0)
    away = x - mean
    variance, axes = np.linalg.eigh(away.T @ away / (len(x) - 1))
    variance, axes = variance[::-1][:k], axes.T[::-1][:k]
    # end practice
    largest = axes[
        np.arange(k), abs(axes).argmax(axis=1)
    ]  # an axis has no forward: let its largest part be +
    return mean, axes * np.sign(largest)[:, None], variance


def spread_labels(x: np.ndarray, y: np.ndarray, reach: float = 4.5, rounds: int = 15) -> np.ndarray:
    """(n, C): shares of the classes 0 … C-1 for each row, spread from those with a label; y is -1 for the others."""
    given = (y[:, None] == np.arange(y.max() + 1)).astype(
        float
    )  # a row of zeros where nothing is known
    links = np.exp(-((operations.distances(x, x) / reach) ** 2))
    np.fill_diagonal(links, 0)  # nobody is his own witness
    shares = given
    # practice: ask the neighbours, again and again, and do not forget what was given
    # hint: rows in a crowd shout together: divide each link by the root of the two rows' sums of links
    # hint: new shares are a fifth of what the neighbours hold, links @ shares, and four fifths of what was given
    crowd = np.sqrt(links.sum(axis=1))
    links = links / crowd / crowd[:, None]
    for _ in range(rounds):
        shares = 0.2 * links @ shares + 0.8 * given
    # end practice
    return shares / shares.sum(axis=1, keepdims=True)


def show_logistic(cfg: Config, sets: dict) -> None:
    print("\n[1] With labels: begin with weights of 0, and walk downhill until the ground is flat")
    from sklearn.linear_model import LogisticRegression

    x, y = Scaler().fit(sets["wine"][0]).transform(sets["wine"][0]), sets["wine"][1]
    check(
        "by-heart",
        "it can learn twelve wines by heart: accuracy",
        (Logistic().fit(x[::15], y[::15]).predict(x[::15]) == y[::15]).mean(),
        at_least=1,
    )
    reference = LogisticRegression(C=0.2, solver="newton-cholesky", tol=1e-10).fit(x, y)
    check_close(
        "coefficients",
        f"{reference.coef_.size} coefficients and 3 intercepts equal scikit-learn's",
        Logistic(0.2, tolerance=1e-9).fit(x, y).weights,
        np.vstack([reference.coef_.T, reference.intercept_]),
    )


def show_folds(cfg: Config, sets: dict) -> dict[str, float]:
    print("\n[2] Cross-validation: every row is asked once, by a model that has not seen it")
    from sklearn import linear_model, model_selection, pipeline, preprocessing

    x, y = sets["wine"]
    fold = deal_folds(y, 5, cfg.rng())
    dealt = np.bincount(fold * 3 + y).reshape(5, 3)  # (fold, class)
    check(
        "dealt",
        f"each fold has {dealt[0]} wines or one more or less",
        np.ptp(dealt, axis=0).max() <= 1,
    )
    answers = held_out(Logistic, x, y, fold)
    scores = np.array([(answers == y)[fold == number].mean() for number in range(5)])
    chain = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression()
    )
    check_close(
        "scores",
        f"{scores.round(3)} by fold, as scikit-learn's cross_val_score has it",
        scores,
        model_selection.cross_val_score(chain, x, y, cv=model_selection.PredefinedSplit(fold)),
    )
    wrong = held_out(Logistic, *sets["iris"], np.arange(150) // 50) == sets["iris"][1]
    check(
        "sorted",
        "iris is sorted by kind; cut into three as it lies, accuracy",
        wrong.mean(),
        at_most=0,
    )
    depends_on_input("inputs", "the answers depend on the wine", answers, y)
    expect("accuracy", "cross-validated accuracy on wine", scores.mean(), at_least=0.95)
    return {"wine": scores.mean(), "wine_majority": np.bincount(y).max() / len(y)}


def show_groups(cfg: Config, sets: dict) -> dict[str, float]:
    print("\n[3] Without labels: k centres, each the mean of the rows that are nearest to it")
    from sklearn.cluster import KMeans

    rng, found = cfg.rng(), {}
    drawn = np.mean(
        [draw_starts(np.array([[0.0], [1.0], [3.0]]), 2, rng).sum() == 1 for _ in range(400)]
    )
    check(
        "starts",
        "of 0, 1, 3 the start takes 0 and 1 in a tenth of 400 draws (by hand), give or take 4 sd of 0.015",
        drawn,
        at_least=0.04,
        at_most=0.16,
    )
    x, start = sets["digits"][0], draw_starts(sets["digits"][0], 10, rng)
    (centres, _, inertia), reference = (
        k_means(x, start),
        KMeans(10, init=start, n_init=1, tol=0).fit(x),
    )
    check_close(
        "inertia",
        f"inertia {inertia:,.0f} and ten centres of digits equal those of scikit-learn's KMeans",
        np.append(centres, inertia),
        np.append(reference.cluster_centers_, reference.inertia_),
    )
    check(
        "empty",
        "a centre without rows stays",
        k_means(np.array([[0.0], [1]]), np.array([[0.0], [9]]))[0][1, 0] == 9,
    )
    x, y = sets["wine"]
    for name, table in (("raw", x), ("scaled", Scaler().fit(x).transform(x))):
        group = min(
            (k_means(table, draw_starts(table, 3, rng)) for _ in range(10)), key=lambda one: one[2]
        )[1]
        found[name] = sum(np.bincount(y[group == j]).max() for j in range(3)) / len(
            y
        )  # named by their majority
    expect(
        "scaled",
        f"right about the wine: {found['raw']:.3f} unscaled, scaled",
        found["scaled"],
        at_least=0.93,
    )
    return {"groups": found["scaled"], "groups_raw": found["raw"]}


def show_axes(cfg: Config, sets: dict) -> dict[str, float]:
    print("\n[4] Fewer numbers: look along the directions in which the rows differ most")
    from sklearn.decomposition import PCA

    x, y = sets["digits"]
    mean, axes, variance = main_axes(x, 16)
    reference = PCA(16, svd_solver="full").fit(x)
    check_close(
        "components",
        "16 directions and variances equal those of scikit-learn's PCA",
        np.c_[axes, variance],
        np.c_[reference.components_, reference.explained_variance_],
    )
    lost, total = (
        (x - mean - (x - mean) @ axes.T @ axes).var(axis=0, ddof=1).sum(),
        x.var(axis=0, ddof=1).sum(),
    )
    check_close(
        "lost",
        f"16 numbers lose {lost / total:.0%}, the variance left out",
        lost,
        total - sum(variance),
    )
    return {"kept_by_two": variance[:2].sum() / total, "kept_by_16": variance.sum() / total}


def show_few_labels(cfg: Config, sets: dict) -> dict[str, float]:
    print("\n[5] A few labels: the rows without one still say where the crowds are")
    from sklearn import linear_model, neighbors, semi_supervised

    (x, y), counts = sets["digits"], [cfg.rows // part for part in (50, 20, 10, 4)]
    names, scores = ("label spreading", "nearest labelled", "logistic"), np.empty((3, 4, 5))
    models = neighbors.KNeighborsClassifier(1), linear_model.LogisticRegression(C=0.05, tol=1e-2)
    for (row, count), (draw, rng) in product(
        enumerate(counts), enumerate(np.random.default_rng(cfg.seed).spawn(5))
    ):
        known, hidden = np.split(
            np.argsort(deal_folds(y, cfg.rows // 10, rng), kind="stable"), [count]
        )
        seen = np.where(np.isin(np.arange(len(y)), known), y, -1)
        shares = spread_labels(x, seen)
        answers = [
            shares.argmax(axis=1),
            *(model.fit(x[known], y[known]).predict(x) for model in models),
        ]
        scores[:, row, draw] = [
            (answer == y)[hidden].mean() for answer in answers
        ]  # method, count, draw
    for name, values in zip(names, scores.mean(axis=2)):
        print(
            f"  {name:<18}"
            + "   ".join(f"{value:.3f} from {count}" for value, count in zip(values, counts))
        )
    reference = semi_supervised.LabelSpreading(
        gamma=1 / 4.5**2, alpha=0.2, max_iter=100, tol=1e-8
    ).fit(x, seen)
    check_close(
        "spreading",
        "all shares equal scikit-learn's",
        shares,
        reference.label_distributions_,
        atol=1e-8,
    )
    expect(
        "beats",
        "10 % labelled: lead over logistic, worst draw",
        (scores[0, 2] - scores[2, 2]).min(),
        at_least=0.01,
    )
    draw_digits(cfg, (x, y), counts, dict(zip(names, scores)))
    return dict(zip(("spreading", "nearest", "logistic"), scores[:, 2].mean(axis=1)))


def draw_digits(
    cfg: Config, digits: tuple, counts: list[int], scores: dict[str, np.ndarray]
) -> None:
    (x, y), (mean, axes, _) = digits, main_axes(digits[0], 2)
    figure, (left, right) = new_figure(1, 2, size=(14, 6))
    for label, colour in enumerate((*COLOURS[:6], "grey", "black", "brown", "olive")):
        left.scatter(
            *((x[y == label] - mean) @ axes.T).T,
            marker=f"${label}$",
            color=colour,
            s=45,
            linewidth=0.3,
        )
    left.set(
        title="PCA: 64 numbers a picture, laid out by two",
        xticks=[],
        yticks=[],
        xlabel="first",
        ylabel="second",
    )
    for (name, values), colour in zip(scores.items(), COLOURS):
        right.plot(
            counts, values, "o", counts, values.mean(axis=1), "-", color=colour, markersize=4
        )
        right.annotate(
            f" {name}",
            (counts[-1], values[-1].mean()),
            va="center",
            color=colour,
            fontweight="bold",
        )
    right.set(
        title="What few labels are worth: five draws, and their mean",
        xlim=(0, counts[-1] * 1.5),
        xticks=counts,
        xlabel=f"labelled digits, of {cfg.rows:,}",
        ylabel="accuracy on the other digits",
    )
    save_figure(figure, cfg.out / "digits")


def run(cfg: Config) -> dict:
    from sklearn.datasets import load_digits, load_iris, load_wine

    current().use_data("iris, wine, digits", "from the package scikit-learn")
    sets = {
        "iris": load_iris(return_X_y=True),
        "wine": load_wine(return_X_y=True),
        "digits": tuple(part[: cfg.rows] for part in load_digits(return_X_y=True)),
    }
    show_logistic(cfg, sets)
    results = show_folds(cfg, sets) | show_groups(cfg, sets) | show_axes(cfg, sets)
    return results | show_few_labels(cfg, sets)


if __name__ == "__main__":
    main(run, Config, __doc__)
