"""3.5 Loss functions: what exactly is being minimised
损失函数：到底在最小化什么

You will be able to answer
    1. What may an error cost, and who decides?   show_regression  regression, cheapest, dragged
    2. What does a yes-or-no answer cost?         show_binary      binary, focal, heard
    3. How are classes, weights, gaps counted?    show_classes     by-hand, classes, soft, residual
    4. Why do losses take logits?                 show_stable      overflow, finite, clamped
    5. How does a loss stop at “good enough”?     show_margins     margins, satisfied
Predict   mean_answer: 19 requests take 60 ms, one hangs for 1000 ms: which answer suits MSE best?
Run       python phase03_pytorch/05-loss-functions.py                  about 5 s
Needs     phase03_pytorch/03-tensor-autograd
Reference F, sigmoid_focal_loss, logsumexp, log_softmax
Notation  B batch  C classes  D features  z logits  p probabilities  y labels  q soft labels
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

# log(1 + e^x), for which no e^x becomes infinite.
softplus = load_lesson("phase03_pytorch/03-tensor-autograd").Softplus.apply


@dataclass
class Config(LessonConfig):
    requests: int = param(401, "response times that one answer stands for", tiny=101, low=21)
    threads: ClassVar[int] = 1


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
    text = "MSE, L1 and Huber: values and gradients are torch's"
    check_close("regression", text, *compare(pairs, guess, y))

    times = 60 + 15 * torch.randn(cfg.requests, dtype=torch.float64)
    candidates = torch.linspace(0, 140, 2801, dtype=torch.float64)[:, None]  # (2801, 1)
    answers = {"MSE": [], "L1": [], "Huber": []}
    for late in range(200, 1001, 100):
        # One request in twenty hangs, longer and longer.
        times[: cfg.requests // 20] = late
        for name, price in [("MSE", mse), ("L1", l1), ("Huber", partial(huber, delta=100.0))]:
            losses = price(candidates, times).mean(dim=1)  # (2801, B) -> (2801,)
            answers[name].append(candidates[losses.argmin()].item())

    mean, median = answers["MSE"][-1], answers["L1"][-1]
    text = (
        f"of 2,801 answers MSE is smallest at the mean, {mean:.1f}, L1 at the median, {median:.1f}"
    )
    middle = [times.mean(), times.median()]
    check_close("cheapest", text, [mean, median], middle, rtol=0, atol=0.05)
    moves = {name: best[-1] - best[0] for name, best in answers.items()}
    print("  moved by " + ", ".join(f"{name} {move:.1f} ms" for name, move in moves.items()))
    text = "when the slowest go from 200 to 1000 ms, MSE's answer moves by {} ms more than L1's"
    check("dragged", text, moves["MSE"] - moves["L1"], above=37, below=41)
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


def focal(z: Tensor, y: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p being the probability given to the truth, y 0 or 1.

    Samples with y = 1 count alpha times, the others 1 - alpha times.
    """
    plain = bce_with_logits(z, y)
    p = torch.exp(-plain)
    share = alpha * y + (1 - alpha) * (1 - y)
    return share * (1 - p) ** gamma * plain


def show_binary(cfg: Config) -> dict[str, float]:
    print("\n[2] Yes or no: minus the logarithm of the probability that the truth was given")
    from torchvision.ops import sigmoid_focal_loss

    z = 3 * torch.randn(60, dtype=torch.float64)
    y = torch.rand(60, dtype=torch.float64)
    weight = torch.tensor(3.0)
    ours = partial(bce_with_logits, y=y, pos_weight=3.0)
    theirs = partial(F.binary_cross_entropy_with_logits, target=y, pos_weight=weight)
    text = "BCE with soft labels, yes counting three times: values and gradients are torch's"
    check_close("binary", text, *compare([(ours, theirs)], z))

    pairs = []
    for options in [{}, {"alpha": 0.6, "gamma": 1.5}]:
        ours = partial(focal, y=y.round(), **options)
        pairs.append((ours, partial(sigmoid_focal_loss, targets=y.round(), **options)))
    check_close("focal", "focal loss: as torchvision's, with gradients", *compare(pairs, z))

    # 10,000 samples of background, and 20 objects that are to be found in it.
    background = torch.randn(10_000) / 2 - 4
    objects = torch.randn(20) - 1
    shares = []
    for price in [bce_with_logits, focal]:
        missed = price(objects, torch.ones(20)).sum()
        everything = missed + price(background, torch.zeros(10_000)).sum()
        shares.append((missed / everything).item())
    print(f"  20 hard samples among 10,000 easy ones: {shares[0]:.0%} of the cross-entropy,")
    text = f"but {shares[1]:.0%} of the focal loss, {{}} times as much"
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


def kl(z: Tensor, q: Tensor) -> Tensor:
    """KL(q ‖ p) = Σ q (log q - log p), where 0 log 0 is 0. Two (B, C) -> (B,)"""
    return (torch.xlogy(q, q) - q * log_probabilities(z)).sum(dim=1)


def show_classes(cfg: Config) -> None:
    print("\n[3] Many classes: the same logarithm, from a softmax")
    z = torch.tensor([[2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = nll(log_probabilities(z), torch.tensor([1]), torch.ones(2))
    (gradient,) = torch.autograd.grad(loss, z)
    text = (
        f"logits (2, 0), the second class is true: loss {loss:.3f}, gradient ±{gradient[0, 0]:.3f}"
    )
    wanted = [2.126928, 0.880797, -0.880797]
    check_close("by-hand", text, torch.cat([loss[None], gradient[0]]), wanted, atol=1e-6)

    z = torch.randn(6, 5, 4, dtype=torch.float64)
    weight = torch.rand(5, dtype=torch.float64) + 0.5
    pairs = []
    for options in [{}, {"ignore_index": 255}]:
        y = torch.randint(5, (6, 4))
        y[::2, ::2] = options.get("ignore_index", -100)
        ours = partial(weighted_loss, y=y, weight=weight, **options)
        pairs.append((ours, partial(F.cross_entropy, target=y, weight=weight, **options)))
    text = "cross-entropy with weights, and gaps of -100 or 255: values and gradients are torch's"
    check_close("classes", text, *compare(pairs, z))

    z = torch.randn(6, 5, dtype=torch.float64)
    y = torch.randint(5, (6,))
    soft = smooth(y, 5, 0.1)
    q = torch.randn(6, 5, dtype=torch.float64).softmax(dim=1)
    q[0] = torch.eye(5)[0]  # a hard label: four probabilities of 0

    def torch_kl(z: Tensor) -> Tensor:
        return F.kl_div(z.log_softmax(dim=1), q, reduction="batchmean")

    pairs = [
        (partial(cross_entropy, q=soft), partial(F.cross_entropy, target=y, label_smoothing=0.1)),
        (partial(kl, q=q), torch_kl),
    ]
    text = "label smoothing and KL: values and gradients are torch's"
    check_close("soft", text, *compare(pairs, z))

    z.requires_grad_()
    gradients = [torch.autograd.grad(price(z, q).sum(), z)[0] for price in [cross_entropy, kl]]
    text = "cross-entropy and KL have one gradient, p - q: the prediction less the label"
    wanted = z.softmax(dim=1) - q
    check_close("residual", text, torch.stack(gradients), torch.stack([wanted, wanted]))


def show_stable(cfg: Config) -> None:
    print("\n[4] In float32 a probability is 0 or 1 long before its logit is out of range")
    z = torch.tensor([-200.0, -1e4], requires_grad=True)  # sure of no, and the truth is yes
    yes = torch.ones(2)
    two = torch.stack([z, -z], dim=1)  # (2,) -> (2, 2): the same as two classes, the first true
    powers = two.exp()
    chances = powers / powers.sum(dim=1, keepdim=True)
    naive = torch.cat([-z.sigmoid().log(), -chances[:, 0].log()])
    check("overflow", f"written out, the losses are {naive.tolist()}", not naive.isfinite().any())

    binary = bce_with_logits(z, yes)
    classes = -log_probabilities(two)[:, 0]
    (slope,) = torch.autograd.grad(binary.sum(), z)
    text = f"from logits they are {[*binary.tolist(), *classes.tolist()]}, and the gradient is -1"
    wanted = torch.tensor([200.0, 1e4, 400.0, 2e4, -1.0, -1.0])
    check_close("finite", text, torch.cat([binary, classes, slope]), wanted)

    clamped = F.binary_cross_entropy(z.sigmoid(), yes, reduction="none")
    (slope,) = torch.autograd.grad(clamped.sum(), z)
    text = f"torch's BCE of probabilities stops at {clamped[0]:g}; the logit's gradient is {{}}"
    check("clamped", text, slope.abs().max(), at_least=0, at_most=0)


def hinge(z: Tensor, y: Tensor, margin: float = 1.0) -> Tensor:
    """By how much other classes come nearer than `margin` to the true one. (B, C), (B,) -> (B,)"""
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
    pairs = []
    for options in [{}, {"margin": 0.7}]:
        ours = partial(hinge, y=y, **options)
        pairs.append((ours, partial(F.multi_margin_loss, target=y, **options)))
    hinges = compare(pairs, z)
    triplets = compare([(triplet, F.triplet_margin_loss)], *torch.randn(3, 9, 4).double())
    text = "hinge and triplet: values and gradients are torch's"
    check_close("margins", text, *[torch.cat(pair) for pair in zip(hinges, triplets)])

    # Five samples, each sure of its class and right.
    z = (10 * torch.eye(5)).requires_grad_()
    y = torch.arange(5)
    (pull,) = torch.autograd.grad(hinge(z, y).sum(), z)
    (rest,) = torch.autograd.grad(cross_entropy(z, smooth(y, 5, 0.0)).sum(), z)
    pull, rest = pull.abs().max().item(), rest.abs().max().item()
    text = f"10 above all others: hinge has the gradient {pull:g}, cross-entropy still {rest:.0e}"
    check("satisfied", text, pull == 0 < rest)


# Pictures and helpers: skip on a first reading


def draw_regression(cfg: Config, answers: dict[str, list[float]]) -> None:
    figure, axes = new_figure(1, 3, size=(16, 4.6))
    errors = torch.linspace(-4, 4, 161, requires_grad=True)
    colours = [BLUE, ORANGE, GREEN]
    for (name, best), price, colour in zip(answers.items(), [mse, l1, huber], colours):
        prices = price(errors, torch.zeros(161))
        (slopes,) = torch.autograd.grad(prices.sum(), errors)
        axes[0].plot(errors.detach(), prices.detach(), color=colour, label=name)
        axes[1].plot(errors.detach(), slopes, color=colour, label=name)
        axes[2].plot(range(200, 1001, 100), best, "o-", color=colour, label=name)
    axes[0].set(ylim=(-0.1, 4), title="What an error costs", xlabel="error", ylabel="loss")
    axes[1].set(ylim=(-3, 3), title="The gradient of that loss", xlabel="error", ylabel="gradient")
    axes[2].set(title="One answer for all requests", ylabel="answer with the smallest loss, ms")
    axes[2].set(xlabel="the slowest 5 %, ms (Huber: δ = 100 ms)")
    for axis in axes:
        axis.legend(loc="upper left" if axis is axes[2] else "best")
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
    show_stable(cfg)
    show_margins(cfg)
    draw_regression(cfg, answers)
    return {"mean_answer": answers["MSE"][-1], "median_answer": answers["L1"][-1], **shares}


if __name__ == "__main__":
    main(run, Config, __doc__)
