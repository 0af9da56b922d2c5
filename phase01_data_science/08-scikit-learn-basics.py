"""1.8 scikit-learn basics: learning with labels, without labels, and with a few
scikit-learn 基础：有标签、没有标签、只有少量标签的学习

You will be able to answer
    1. How do labelled rows become a model?           show_logistic   by-hand, coefficients
    2. How good is it on rows that it has not seen?   show_folds      scores, sorted, dealt
    3. Which groups are there, if nobody names them?  show_groups     rounds, inertia, scaled
    4. Which few directions tell the most?            show_axes       components
    5. What are rows without a label worth?           show_spreading  spreading, beats
Predict   groups: without labels, k-means makes three groups of 178 wines; how many fit the kinds?
Run       python phase01_data_science/08-scikit-learn-basics.py            about 5 s
Needs     phase01_data_science/02-numpy-operations, phase01_data_science/05-pandas-preprocessing
Reference LogisticRegression, KMeans, PCA, LabelSpreading, cross_val_score
Notation  n rows  d columns  K classes  k centres or directions
"""

from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.errors import LessonError
from common.figures import BLUE, COLOURS, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.record import current

operations = load_lesson("phase01_data_science/02-numpy-operations")
Scaler = load_lesson("phase01_data_science/05-pandas-preprocessing").Scaler

# the distance at which a link between two digits has faded to 1/e; the less, the more local
REACH = 4.5
Table = tuple[np.ndarray, np.ndarray]  # rows (n, d) and their labels (n,)


@dataclass
class Config(LessonConfig):
    rows: int = param(1000, "how many digits (at most 1797)", tiny=250, low=200)
    threads = 1


def loss_gradient(x: np.ndarray, wanted: np.ndarray, weights: np.ndarray, c: float) -> np.ndarray:
    """Gradient of the summed log loss and the penalty |weights|² / 2c.

    x: (n, d + 1), its last column 1; wanted: (n, K), 1 for the right class; weights: (d + 1, K).
    The last row of the weights, the intercepts, has no penalty. Called thousands of times: no loop.
    """
    # practice: The gradient of the loss
    probabilities = operations.softmax(x @ weights)  # (n, K)
    gradient = x.T @ (probabilities - wanted)  # (d + 1, K)

    # An intercept reacts to no column, so a large one does no harm.
    penalty = weights / c
    penalty[-1] = 0
    return gradient + penalty
    # end practice


@dataclass
class Logistic:
    """Logistic regression: a linear score for each class, made into probabilities by softmax."""

    c: float = 1.0  # scikit-learn's C: the smaller, the stronger the penalty's pull to 0
    tolerance: float = 0.03

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Logistic":
        """Gradient descent until no entry of the gradient exceeds the tolerance."""
        self.classes = np.unique(y)
        wanted = (y[:, None] == self.classes).astype(float)  # (n, K)
        x = np.c_[x, np.ones(len(x))]  # the weights of the ones are the intercepts
        # A longer step could overshoot: lesson 2.5 says why.
        step = 1 / (np.linalg.norm(x, 2) ** 2 / 2 + 1 / self.c)
        self.weights = np.zeros((x.shape[1], len(self.classes)))
        for _ in range(100_000):
            gradient = loss_gradient(x, wanted, self.weights, self.c)
            if abs(gradient).max() < self.tolerance:
                return self
            self.weights = self.weights - step * gradient
        raise LessonError("100,000 steps downhill, and the gradient is not near 0: is it right?")

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,): the class with the largest score."""
        scores = x @ self.weights[:-1] + self.weights[-1]  # (n, K)
        return self.classes[scores.argmax(axis=1)]


def show_logistic(cfg: Config, wine: Table) -> None:
    print("\n[1] With labels: weights that start at 0 and go against the gradient of the loss")
    from sklearn.linear_model import LogisticRegression

    # Equal scores: all probabilities are 1/2.
    x = np.array([[1.0, 1], [3, 1], [5, 1]])
    wanted = np.array([[1.0, 0], [0, 1], [0, 1]])
    weights = np.array([[2.0, 2], [3, 3]])
    weights.flags.writeable = False
    gradient = loss_gradient(x, wanted, weights, c=0.5)
    text = "rows 1, 3, 5: the gradient is 7.5 and 0.5 for the weights, ±0.5 for the intercepts"
    check_close("by-hand", text, gradient, [[7.5, 0.5], [0.5, -0.5]])

    x, y = wine
    x = Scaler().fit(x).transform(x)
    ours = Logistic(0.2, tolerance=1e-9).fit(x, y)
    sklearns = LogisticRegression(C=0.2, solver="newton-cholesky", tol=1e-10).fit(x, y)
    theirs = np.vstack([sklearns.coef_.T, sklearns.intercept_])
    text = f"{sklearns.coef_.size} coefficients and 3 intercepts are scikit-learn's"
    check_close("coefficients", text, ours.weights, theirs)


def deal_folds(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,): a random fold for each row, with equal shares of each class in each (stratified)."""
    shuffled = rng.permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    fold = np.empty(len(y), dtype=int)
    fold[by_class] = np.arange(len(y)) % folds  # like cards, one class after the other
    return fold


def held_out(make_model: type, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n,): for each row the answer of a model that was fitted without the row's fold."""
    answers = np.empty_like(y)
    for number in np.unique(fold):
        hidden = fold == number
        # The scaler, too, learns from the training rows only (1.5).
        scaler = Scaler().fit(x[~hidden])
        model = make_model().fit(scaler.transform(x[~hidden]), y[~hidden])
        answers[hidden] = model.predict(scaler.transform(x[hidden]))
    return answers


def show_folds(cfg: Config, wine: Table, iris: Table) -> dict[str, float]:
    print("\n[2] Cross-validation: each row is answered once, by a model that has not seen it")
    from sklearn import linear_model, model_selection, pipeline, preprocessing

    x, y = wine
    fold = deal_folds(y, 5, cfg.rng())
    answers = held_out(Logistic, x, y, fold)
    scores = [(answers[fold == number] == y[fold == number]).mean() for number in range(5)]
    steps = [preprocessing.StandardScaler(), linear_model.LogisticRegression()]
    chain = pipeline.make_pipeline(*steps)
    split = model_selection.PredefinedSplit(fold)
    theirs = model_selection.cross_val_score(chain, x, y, cv=split)
    text = f"the accuracies by fold, {np.round(scores, 3)}, are those of cross_val_score"
    check_close("scores", text, scores, theirs)

    x, y = iris
    hits = held_out(Logistic, x, y, fold=np.arange(150) // 50) == y
    text = "iris lies sorted by kind: cut into three as it lies, not one of 150 flowers is right"
    check("sorted", text, not hits.any())
    dealt = held_out(Logistic, x, y, deal_folds(y, 3, cfg.rng()))
    depends_on_input("dealt", "dealt like cards, class by class, {} of them are", dealt, y)
    return {"wine": np.mean(scores), "wine_majority": np.bincount(wine[1]).max() / len(wine[1])}


def one_round(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Both moves of k-means. Returns the new centres (k, d), the group of each row, the inertia.

    First each row (n, d) goes to its nearest centre; the inertia is the sum of its squared
    distances from there. Then each centre goes to the mean of its rows, or stays if it has none.
    """
    # practice: Two moves
    gaps = operations.distances(x, centres)  # (n, k)
    group = gaps.argmin(axis=1)
    inertia = (gaps.min(axis=1) ** 2).sum()

    moved = centres.copy()
    for number in range(len(centres)):
        if (group == number).any():
            moved[number] = x[group == number].mean(axis=0)
    return moved, group, inertia
    # end practice


def k_means(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Lloyd's algorithm, from centres (k, d): the last centres, the groups, the inertia."""
    for _ in range(300):
        moved, group, inertia = one_round(x, centres)
        if np.array_equal(moved, centres):
            return centres, group, inertia
        centres = moved
    raise LessonError(f"300 rounds, and a centre still moves: {centres.tolist()}.")


def show_groups(cfg: Config, wine: Table) -> dict[str, float]:
    print("\n[3] Without labels: k centres, each the mean of the rows that are nearest to it")
    from sklearn.cluster import KMeans

    start = np.array([[0.0], [1], [100]])
    start.flags.writeable = False
    centres, group, inertia = one_round(np.array([[0.0], [1], [8], [9]]), start)
    text = "0, 1, 8, 9: the centres 0, 1, 100 go to 0, 6, and 100, which has no rows; inertia 113"
    ours = [*centres.ravel(), *group, inertia]
    check_close("rounds", text, ours, [0, 6, 100, 0, 1, 1, 1, 113])

    x, y = wine
    named = {}
    shares = {}
    ours = []
    theirs = []
    for name, table in [("raw", x), ("scaled", Scaler().fit(x).transform(x))]:
        # Where it ends depends on the start, three random rows: keep the lowest inertia of ten.
        rng = cfg.rng()
        starts = [table[rng.choice(len(table), 3, replace=False)] for _ in range(10)]
        tries = [k_means(table, start) for start in starts]
        _, group, _ = min(tries, key=lambda one: one[2])

        # Each group is named by its commonest kind.
        kinds = np.array([np.bincount(y[group == number]).argmax() for number in range(3)])
        named[name] = kinds[group]
        shares[name] = (named[name] == y).mean()
        ours += [inertia for _, _, inertia in tries]
        theirs += [KMeans(3, init=start, n_init=1, tol=0).fit(table).inertia_ for start in starts]
    check_close("inertia", "from 20 starts the inertias are scikit-learn's", ours, theirs)
    text = f"wines whose group has their kind's name: raw {shares['raw']:.3f}, scaled {{}}"
    expect("scaled", text, shares["scaled"], at_least=0.93)
    draw_groups(cfg, wine, named)
    return {"groups_raw": shares["raw"], "groups": shares["scaled"]}


def main_axes(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """PCA: the k directions of largest variance (k, d), and the variances along them (k,)."""
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / (len(x) - 1)  # (d, d)
    variances, vectors = np.linalg.eigh(covariance)  # the smallest first; a direction is a column
    return vectors.T[::-1][:k], variances[::-1][:k]


def show_axes(cfg: Config, digits: Table) -> dict[str, float]:
    print("\n[4] Fewer numbers: keep the directions in which the rows differ most")
    from sklearn.decomposition import PCA

    x, _ = digits
    axes, variances = main_axes(x, 16)
    sklearns = PCA(16, svd_solver="full").fit(x)
    cosines = axes @ sklearns.components_.T  # (16, 16); -1 for the same direction backwards
    ours = np.c_[abs(cosines), variances]
    theirs = np.c_[np.eye(16), sklearns.explained_variance_]
    text = "16 directions, forwards or backwards, and variances are scikit-learn's"
    check_close("components", text, ours, theirs)
    return {"kept_by_16": variances.sum() / x.var(axis=0, ddof=1).sum()}


def spread_labels(x: np.ndarray, labels: np.ndarray, rounds: int = 15) -> np.ndarray:
    """(n, K): each row's shares of the classes 0 … K-1, spread from the rows that have a label.

    x: (n, d); labels: (n,), -1 where unknown.
    """
    # practice: Labels that spread from row to row
    links = np.exp(-((operations.distances(x, x) / REACH) ** 2))  # (n, n), 1 for equal rows
    np.fill_diagonal(links, 0)  # a row is no evidence for itself

    # Rows in a crowd have many links; divided by both roots, a link counts less in a crowd.
    roots = np.sqrt(links.sum(axis=1))
    weights = links / roots / roots[:, None]

    # (n, K): 1 for the label of a row, zeros where nothing is known
    given = (labels[:, None] == np.arange(labels.max() + 1)).astype(float)
    spread = given
    for _ in range(rounds):
        spread = 0.2 * weights @ spread + 0.8 * given
    return spread / spread.sum(axis=1, keepdims=True)
    # end practice


def show_spreading(cfg: Config, digits: Table) -> dict[str, float]:
    print("\n[5] A few labels: the rows without one still say where the crowds are")
    from sklearn import linear_model, semi_supervised

    x, y = digits
    counts = [len(y) // part for part in (50, 20, 10, 4)]
    logistic = linear_model.LogisticRegression(C=0.05, tol=0.01)
    accuracies = []
    for rng in cfg.rng().spawn(5):
        # In this order the first rows hold every class in equal shares, however few they are.
        order = np.argsort(deal_folds(y, len(y) // 10, rng), kind="stable")
        for count in counts:
            known, hidden = np.split(order, [count])
            labels = np.full(len(y), -1)
            labels[known] = y[known]
            shares = spread_labels(x, labels)
            direct = spread_labels(x, labels, rounds=1)  # no label passes through another row
            logistic.fit(x[known], y[known])
            answers = [shares.argmax(axis=1), direct.argmax(axis=1), logistic.predict(x)]
            accuracies.append((np.array(answers) == y)[:, hidden].mean(axis=1))

    by_draw = np.reshape(accuracies, (5, 4, 3))  # draw, count, method
    names = ["spreading", "one round", "logistic"]
    for name, means in zip(names, by_draw.mean(axis=0).T):
        print(f"  {name:<10}from {counts} labels: {means.round(3)}")
    library = semi_supervised.LabelSpreading(gamma=1 / REACH**2, alpha=0.2, tol=1e-8)
    theirs = library.fit(x, labels).label_distributions_
    text = f"from {count} labels our shares are scikit-learn's, and after 0 rounds what was given"
    ours = [shares, spread_labels(x, y, rounds=0)]
    check_close("spreading", text, ours, [theirs, np.eye(10)[y]], atol=1e-8)
    tenth = by_draw[:, 2]  # (draw, method)
    lead = (tenth[:, 0] - tenth[:, 1:].max(axis=1)).mean()
    text = "a tenth labelled: over the better of both others spreading leads by {}, mean of 5 draws"
    expect("beats", text, lead, at_least=0.005)
    draw_labels(cfg, counts, dict(zip(names, by_draw.T)), len(y))
    return dict(zip(["spreading", "one_round", "logistic"], tenth.mean(axis=0)))


# Pictures: skip on a first reading


def draw_groups(cfg: Config, wine: Table, named: dict[str, np.ndarray]) -> None:
    """13 columns seen by two directions. The sign is the kind, the colour the kind of the group."""
    x, y = wine
    x = Scaler().fit(x).transform(x)
    directions, _ = main_axes(x, 2)
    across, up = directions @ x.T
    figure, axes = new_figure(1, 2, size=(13, 5.4), sharey=True)
    for axis, (name, group) in zip(axes, named.items()):
        for kind, sign in enumerate("o^s"):
            own = y == kind
            colours = np.array([BLUE, ORANGE, GREY])[group[own]]
            axis.scatter(across[own], up[own], marker=sign, color=colours)
        wrong = (group != y).sum()
        axis.set(title=f"k-means, {name}: {wrong} wines in a wrong group", xlabel="1st direction")
    axes[0].set_ylabel("2nd direction")
    save_figure(figure, cfg.out / "groups")


def draw_labels(cfg: Config, counts: list[int], curves: dict[str, np.ndarray], rows: int) -> None:
    figure, axis = new_figure(size=(7.6, 5))
    for (name, accuracies), colour in zip(curves.items(), COLOURS):  # each (count, draw)
        axis.plot(counts, accuracies, "o", color=colour, markersize=4)
        axis.plot(counts, accuracies.mean(axis=1), color=colour, label=name)
    axis.legend(loc="lower right")
    axis.set(xlabel=f"labelled digits, of {rows:,}", ylabel="accuracy on the others")
    axis.set(xticks=counts, title="Few labels: five draws and their mean")
    save_figure(figure, cfg.out / "labels")


def run(cfg: Config) -> dict:
    from sklearn.datasets import load_digits, load_iris, load_wine

    current().use_data("iris, wine, digits", "from the package scikit-learn")
    wine = load_wine(return_X_y=True)
    x, y = load_digits(return_X_y=True)
    digits = (x[: cfg.rows], y[: cfg.rows])
    show_logistic(cfg, wine)
    results = show_folds(cfg, wine, load_iris(return_X_y=True))
    results |= show_groups(cfg, wine)
    results |= show_axes(cfg, digits)
    results |= show_spreading(cfg, digits)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
