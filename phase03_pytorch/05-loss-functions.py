"""3.5 Loss functions: what exactly is being minimised
损失函数：到底在最小化什么

You will be able to answer
    1. What is best for MSE, and what for L1?     show_regression  regression, best, dragged, steady
    2. What does a yes-or-no answer cost?         show_binary      binary, focal, heard
    3. How do weights and missing labels count?   show_classes     classes, soft, residual
    4. Why do losses take logits?                 show_stable      overflow, finite, clamped, twice
    5. How does a loss stop at “good enough”?     show_margins     margins, satisfied
Predict   mean_answer: 19 requests take 60 ms, one hangs for 1000 ms: which answer is best for MSE?
Run       python phase03_pytorch/05-loss-functions.py                  about 5 s
Needs     phase03_pytorch/03-tensor-autograd
Reference F, sigmoid_focal_loss, logsumexp, log_softmax
Notation  B batch  C classes  D features  z logits  p probabilities  y labels  q soft labels
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close
from common.config import LessonConfig, main
from common.figures import BLUE, GREEN, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

# log(1 + e^x), for which no e^x becomes infinite.
softplus = load_lesson("phase03_pytorch/03-tensor-autograd").Softplus.apply


@dataclass
class Config(LessonConfig):
    threads = 1


def mse(guess: Tensor, y: Tensor) -> Tensor:
    """The square of each error. Any shape; the mean is the loss of a batch."""
    return (guess - y) ** 2


def l1(guess: Tensor, y: Tensor) -> Tensor:
    """The size of each error. Any shape."""
    return (guess - y).abs()


def huber(guess: Tensor, y: Tensor, delta: float = 1.0) -> Tensor:
    """A parabola up to an error of delta, from there on its tangent. Any shape."""
    error = l1(guess, y)
    near = error**2 / 2
    far = delta * (error - delta / 2)
    return torch.where(error <= delta, near, far)


def show_regression(cfg: Config) -> dict[str, list[float]]:
    print("\n[1] One answer for many response times: it depends on what an error costs")
    guess, y = torch.randn(2, 20, 3, dtype=torch.float64)
    pairs = [
        (mse, F.mse_loss),
        (l1, F.l1_loss),
        (huber, F.huber_loss),
        (partial(huber, delta=0.4), partial(F.huber_loss, delta=0.4)),
    ]
    check_close(
        "regression", "MSE, L1, Huber: as torch's, with gradients", *compare(pairs, guess, y)
    )

    times = 60 + 15 * torch.randn(401, dtype=torch.float64)
    candidates = torch.linspace(0, 140, 2801, dtype=torch.float64)[:, None]  # (2801, 1)
    answers = {"MSE": [], "L1": [], "Huber": []}
    for late in range(200, 1001, 100):
        # One request in twenty hangs, longer and longer.
        times[:20] = late
        for name, loss in [("MSE", mse), ("L1", l1), ("Huber", partial(huber, delta=100.0))]:
            means = loss(candidates, times).mean(dim=1)  # (2801, 401) -> (2801,)
            answers[name].append(candidates[means.argmin()].item())

    mean, median = answers["MSE"][-1], answers["L1"][-1]
    text = f"of 2,801 answers the mean, {mean:.1f}, has the least MSE, the median, {median:.1f}, L1"
    wanted = [times.mean(), times.median()]
    check_close("best", text, [mean, median], wanted, rtol=0, atol=0.05)

    moves = {name: abs(best[-1] - best[0]) for name, best in answers.items()}
    text = "20 of 401 requests go from 200 to 1000 ms: that moves MSE's best answer by {} ms"
    check("dragged", text, moves["MSE"], above=39, below=41)
    text = "and those of L1 and Huber (δ = 100 ms) by {} ms"
    check("steady", text, max(moves["L1"], moves["Huber"]), below=0.1)
    return answers


def bce_with_logits(z: Tensor, y: Tensor, pos_weight: float = 1.0) -> Tensor:
    """-y log p - (1 - y) log(1 - p) with p = σ(z), finite for every z. Any shape.

    y is a probability, often 0 or 1. The first term counts `pos_weight` times.
    """
    # practice: Two softplus instead of a sigmoid and its logarithm
    if_yes = softplus(-z)
    if_no = softplus(z)
    return pos_weight * y * if_yes + (1 - y) * if_no
    # end practice


def focal(z: Tensor, y: Tensor, gamma: float = 2.0) -> Tensor:
    """BCE times (1 - p)^gamma, p being the probability given to the truth. Any shape; y 0 or 1."""
    plain = bce_with_logits(z, y)
    p = torch.exp(-plain)
    return (1 - p) ** gamma * plain


def show_binary(cfg: Config) -> dict[str, float]:
    print("\n[2] Yes or no: minus the logarithm of the probability that the truth was given")
    from torchvision.ops import sigmoid_focal_loss

    z = 3 * torch.randn(60, dtype=torch.float64)
    y = torch.rand(60, dtype=torch.float64)
    ours = partial(bce_with_logits, y=y, pos_weight=3.0)
    theirs = partial(F.binary_cross_entropy_with_logits, target=y, pos_weight=torch.tensor(3.0))
    text = "BCE with soft labels, yes counting three times: as torch's, with gradients"
    check_close("binary", text, *compare([(ours, theirs)], z))

    ours = partial(focal, y=y.round())
    theirs = partial(sigmoid_focal_loss, targets=y.round(), alpha=-1)
    check_close("focal", "focal loss: as torchvision's", *compare([(ours, theirs)], z))

    # 10,000 samples of background, and 20 objects that are to be found in it.
    background = torch.randn(10_000) / 2 - 4
    objects = torch.randn(20) - 1
    shares = []
    for loss in [bce_with_logits, focal]:
        missed = loss(objects, torch.ones(20)).sum()
        everything = missed + loss(background, torch.zeros(10_000)).sum()
        shares.append((missed / everything).item())
    text = f"20 hard samples of 10,020: {shares[0]:.0%} of BCE, of focal loss {{}} times that share"
    check("heard", text, shares[1] / shares[0], at_least=4)
    return {"hard_share": shares[0], "hard_share_focal": shares[1]}


def log_probabilities(z: Tensor) -> Tensor:
    """The logarithm of softmax over axis 1. (B, C, …) -> (B, C, …)

    z.log_softmax(dim=1) is this function, and passes every claim; here we see what it does.
    """
    # practice: Log-sum-exp without an overflow
    largest = z.amax(dim=1, keepdim=True)
    total = (z - largest).exp().sum(dim=1, keepdim=True)
    return z - (largest + total.log())
    # end practice


def nll(log_p: Tensor, y: Tensor, weight: Tensor, ignore_index: int = -100) -> Tensor:
    """Minus the log-probability of the true class, as a weighted mean over all labels but gaps.

    log_p (B, C, …), y (B, …), weight of each class (C,) -> a number. y is ignore_index in gaps.
    """
    # practice: The true class, weighted, without the gaps
    known = y != ignore_index
    y = y * known

    counts = weight[y] * known
    picked = log_p.gather(1, y.unsqueeze(1)).squeeze(1)  # (B, C, …) -> (B, …)
    return -(picked * counts).sum() / counts.sum()
    # end practice


def smooth(y: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels of which the share `smoothing` is spread evenly over all classes. (B,) -> (B, C)"""
    one_hot = torch.eye(classes, dtype=torch.float64)[y]
    return (1 - smoothing) * one_hot + smoothing / classes


def cross_entropy(z: Tensor, q: Tensor) -> Tensor:
    """-Σ q log p, for soft labels. Two (B, C) -> (B,)"""
    return -(q * log_probabilities(z)).sum(dim=1)


def show_classes(cfg: Config) -> None:
    print("\n[3] Many classes: the same logarithm, from a softmax")
    z = torch.randn(6, 5, 4, dtype=torch.float64)
    weight = torch.rand(5, dtype=torch.float64) + 0.5
    pairs = []
    for options in [{}, {"ignore_index": 255}]:
        y = torch.randint(5, (6, 4))
        y[::2, ::2] = options.get("ignore_index", -100)
        ours = partial(weighted_loss, y=y, weight=weight, **options)
        pairs.append((ours, partial(F.cross_entropy, target=y, weight=weight, **options)))
    text = "cross-entropy with weights, and gaps of -100 or 255: as torch's, with gradients"
    check_close("classes", text, *compare(pairs, z))

    z = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randint(5, (6,))
    ours = partial(cross_entropy, q=smooth(y, 5, 0.1))
    theirs = partial(F.cross_entropy, target=y, label_smoothing=0.1)
    check_close(
        "soft", "label smoothing: as torch's, with gradients", *compare([(ours, theirs)], z)
    )

    q = torch.randn(6, 5, dtype=torch.float64).softmax(dim=1)
    (gradient,) = torch.autograd.grad(cross_entropy(z, q).sum(), z)
    text = "the gradient of cross-entropy is p - q, the prediction less the label"
    check_close("residual", text, gradient, z.softmax(dim=1) - q)


def show_stable(cfg: Config) -> dict[str, float]:
    print("\n[4] In float32 a small probability is 0, and e^z is infinite from z = 89 on")
    # The truth is yes. The first sample is sure of no, the second of yes.
    z = torch.tensor([-200.0, 2000.0], requires_grad=True)
    yes = torch.ones(2)
    two = torch.stack([z, -z], dim=1)  # (2,) -> (2, 2): the same as two classes, the first true
    powers = two.exp()
    chances = powers / powers.sum(dim=1, keepdim=True)
    naive = -chances[:, 0].log()
    text = f"softmax, then log: being sure and wrong costs {naive[0]}, sure and right {naive[1]}"
    check("overflow", text, not naive.isfinite().any())

    binary = bce_with_logits(z, yes)
    classes = -log_probabilities(two)[:, 0]
    (slope,) = torch.autograd.grad(binary.sum(), z)
    text = f"from logits {binary[0]:g} or {classes[0]:g} and 0; BCE's gradients are -1 and 0"
    wanted = torch.tensor([200.0, 0.0, 400.0, 0.0, -1.0, 0.0])
    check_close("finite", text, torch.cat([binary, classes, slope]), wanted)

    clamped = F.binary_cross_entropy(z.sigmoid(), yes, reduction="none")
    (slope,) = torch.autograd.grad(clamped[0], z)
    text = f"torch's BCE of probabilities stops at {clamped[0]:g}; the gradient of that is {{}}"
    check("clamped", text, slope[0].abs(), at_least=0, at_most=0)

    # A softmax too many: a perfect model's ten probabilities, given as logits.
    perfect = torch.eye(10)
    floor = nll(log_probabilities(perfect), torch.arange(10), torch.ones(10))
    text = f"after a softmax of the model's own, even a perfect answer costs {floor:.3f}"
    check_close("twice", text, floor, math.log(math.e + 9) - 1)
    return {"softmax_twice": floor.item()}


def hinge(z: Tensor, y: Tensor, margin: float = 1.0) -> Tensor:
    """By how much each other class comes nearer than `margin` to the true one: the mean over all C.

    Logits (B, C), labels (B,) -> (B,)
    """
    true = z.gather(1, y[:, None])  # (B, C) -> (B, 1)
    too_near = (margin - true + z).clamp(min=0)

    # The true class is no rival of itself.
    return too_near.scatter(1, y[:, None], 0.0).mean(dim=1)


def triplet(anchor: Tensor, like: Tensor, other: Tensor, margin: float = 1.0) -> Tensor:
    """The anchor must lie `margin` nearer to its like than to the other. Three (B, D) -> (B,)"""
    # 1e-6 as in torch: at a distance of 0 the root would have no slope.
    near = (anchor - like + 1e-6).norm(dim=1)
    far = (anchor - other + 1e-6).norm(dim=1)
    return (margin + near - far).clamp(min=0)


def show_margins(cfg: Config) -> None:
    print("\n[5] A margin: beyond it nothing costs, and nothing is changed")
    z = torch.randn(9, 5, dtype=torch.float64)
    y = torch.randint(5, (9,))
    pairs = [
        (partial(hinge, y=y), partial(F.multi_margin_loss, target=y)),
        (partial(hinge, y=y, margin=0.7), partial(F.multi_margin_loss, target=y, margin=0.7)),
    ]
    hinges = compare(pairs, z)
    triplets = compare([(triplet, F.triplet_margin_loss)], *torch.randn(3, 9, 4).double())
    both = [torch.cat(pair) for pair in zip(hinges, triplets)]
    check_close("margins", "hinge and triplet: as torch's, with gradients", *both)

    # Five samples, each sure of its class and right.
    z = (10 * torch.eye(5)).requires_grad_()
    y = torch.arange(5)
    (pull,) = torch.autograd.grad(hinge(z, y).sum(), z)
    (rest,) = torch.autograd.grad(cross_entropy(z, smooth(y, 5, 0.0)).sum(), z)
    pull, rest = pull.abs().max().item(), rest.abs().max().item()
    text = f"true class 10 ahead: hinge's gradient is {pull:g}, that of cross-entropy {rest:.0e}"
    check("satisfied", text, pull == 0 < rest)


# Pictures and helpers: skip on a first reading


def draw_regression(cfg: Config, answers: dict[str, list[float]]) -> None:
    figure, axes = new_figure(1, 3, size=(16, 4.6))
    errors = torch.linspace(-4, 4, 161, requires_grad=True)
    styles = zip(answers.items(), [mse, l1, huber], [BLUE, ORANGE, GREEN])
    for (name, best), loss, colour in styles:
        losses = loss(errors, torch.zeros(161))
        (slopes,) = torch.autograd.grad(losses.sum(), errors)
        axes[0].plot(errors.detach(), losses.detach(), color=colour, label=name)
        axes[1].plot(errors.detach(), slopes, color=colour, label=name)
        axes[2].plot(range(200, 1001, 100), best, "o-", color=colour, label=name)
    axes[0].set(title="Loss (Huber: δ = 1)", xlabel="error", ylabel="loss", ylim=(-0.1, 4))
    axes[1].set(title="Gradient of that loss", xlabel="error", ylabel="gradient", ylim=(-3, 3))
    axes[2].set(title="Best answer, ms (Huber: δ = 100 ms)", xlabel="time of the slowest 5%, ms")
    axes[0].legend(loc="lower left")
    axes[2].legend(loc="upper left")
    save_figure(figure, cfg.out / "regression")


def weighted_loss(z: Tensor, y: Tensor, weight: Tensor, **options: int) -> Tensor:
    return nll(log_probabilities(z), y, weight, **options)


def compare(pairs: list[tuple[Callable, Callable]], *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean losses of ours and of theirs, with their gradients for every input, in two vectors."""
    ours = []
    theirs = []
    for pair in pairs:
        for loss, results in zip(pair, [ours, theirs]):
            leaves = [x.detach().requires_grad_() for x in inputs]
            mean = loss(*leaves).mean()
            gradients = torch.autograd.grad(mean, leaves)
            results += [mean.detach()[None], *[gradient.flatten() for gradient in gradients]]
    return torch.cat(ours), torch.cat(theirs)


def run(cfg: Config) -> dict[str, float]:
    answers = show_regression(cfg)
    shares = show_binary(cfg)
    show_classes(cfg)
    floor = show_stable(cfg)
    show_margins(cfg)
    draw_regression(cfg, answers)
    best = {"mean_answer": answers["MSE"][-1], "median_answer": answers["L1"][-1]}
    return best | shares | floor


if __name__ == "__main__":
    main(run, Config, __doc__)
