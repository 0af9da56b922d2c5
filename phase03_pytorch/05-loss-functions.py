"""3.5 Loss functions: what a model is punished for is what it learns
损失函数：惩罚什么，模型就学会什么

You will be able to answer
    1. What may an error cost, and how hard does it then pull?     show_regression  regression
    2. Why does one outlier move the mean, but not the median?     show_outliers    cheapest, dragged
    3. What does a yes-or-no answer cost, and an easy one?         show_binary      binary, focal, heard
    4. How are classes, weights, gaps and soft labels priced?      show_classes     classes, kl, gap, residual
    5. Why do losses take logits, and not probabilities?           show_stable      overflow, finite, clamped
    6. How does a loss stop when an answer is good enough?         show_margins     hinge, triplet, satisfied
Run       python phase03_pytorch/05-loss-functions.py                  about 4 s
Needs     phase03_pytorch/03-tensor-autograd
Reference F, sigmoid_focal_loss, logsumexp, log_softmax
Notation  B batch  C classes  D features  z logits: any numbers  p probabilities  y what is true
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import new_figure, save_figure
from common.lessons import load_lesson

softplus = load_lesson(
    "phase03_pytorch/03-tensor-autograd"
).Softplus.apply  # log(1 + e^x), never infinite


@dataclass
class Config(LessonConfig):
    requests: int = param(400, "response times that one number shall stand for", tiny=100, low=20)


def reduce(priced: Tensor | tuple[Tensor, Tensor], reduction: str = "mean") -> Tensor:
    """The second half of every loss: from the prices, perhaps with how much each of them counts, to one number."""
    prices, counts = priced if isinstance(priced, tuple) else (priced, torch.ones_like(priced))
    return (
        prices
        if reduction == "none"
        else prices.sum() / (counts.sum() if reduction == "mean" else 1)
    )


def mse(guess: Tensor, y: Tensor) -> Tensor:
    return (guess - y) ** 2


def l1(guess: Tensor, y: Tensor) -> Tensor:
    return (guess - y).abs()


def huber(guess: Tensor, y: Tensor, delta: float = 1.0) -> Tensor:
    """A parabola up to an error of delta, from there on its tangent. Any shape."""
    error = l1(guess, y)
    return torch.where(error <= delta, error**2 / 2, delta * (error - delta / 2))


def bce_with_logits(z: Tensor, y: Tensor, pos_weight: float = 1.0) -> Tensor:
    """-y log p - (1 - y) log(1 - p) with p = σ(z), exact for any z. A sample with y = 1 counts pos_weight times."""
    # practice: two softplus instead of a sigmoid and its logarithm
    # hint: -log σ(z) = -log 1/(1 + e^-z) = log(1 + e^-z) = softplus(-z); and 1 - σ(z) = σ(-z)
    # hint: what it costs if the answer is yes, what if it is no; y chooses between the two
    if_yes = softplus(-z)
    if_no = softplus(z)
    return pos_weight * y * if_yes + (1 - y) * if_no
    # end practice


def focal(z: Tensor, y: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, where p is the chance that the truth was given. alpha weighs y = 1."""
    plain = bce_with_logits(z, y)  # -log p
    return (alpha * y + (1 - alpha) * (1 - y)) * (1 - torch.exp(-plain)) ** gamma * plain


def log_probabilities(z: Tensor) -> Tensor:
    """The logarithm of softmax over axis 1. (B, C, …) -> (B, C, …)"""
    # practice: log-sum-exp without an overflow
    # hint: log p = z - log Σ e^z, and for any m: log Σ e^z = m + log Σ e^(z - m)
    # hint: m = z.amax(dim=1, keepdim=True): then no exponent is above 0
    largest = z.amax(dim=1, keepdim=True)
    total = (z - largest).exp().sum(dim=1, keepdim=True)
    return z - (largest + total.log())
    # end practice


def nll(
    log_p: Tensor, y: Tensor, weight: Tensor, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Minus log-probability of the truth, weighted; and the weights, 0 in gaps. (B, C, …), (B, …), (C,) -> 2 (B, …)"""
    # practice: pick the true class, weigh it, leave the gaps out
    # hint: ignore_index is no place to pick from: put a 0 there, pick by gather, and let the sample count nothing
    # hint: known = y != ignore_index; times y it is 0 in the gaps
    known = y != ignore_index
    y = y * known
    counts = weight[y] * known
    picked = log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    return -picked * counts, counts
    # end practice


def cross_entropy(
    z: Tensor, y: Tensor, weight: Tensor, ignore_index: int = -100, smoothing: float = 0
) -> tuple:
    """As nll, from logits; and the share `smoothing` of every label is spread evenly over all classes."""
    log_p = log_probabilities(z)
    truth, counts = nll(log_p, y, weight, ignore_index)
    everybody = -(log_p.movedim(1, -1) * weight).mean(dim=-1) * (y != ignore_index)
    return (1 - smoothing) * truth + smoothing * everybody, counts


def kl(log_p: Tensor, q: Tensor) -> Tensor:
    """The terms of KL(q ‖ p) = Σ q (log q - log p), where 0 log 0 is 0."""
    return torch.xlogy(q, q) - q * log_p


def hinge(z: Tensor, y: Tensor, margin: float = 1.0) -> Tensor:
    """How far the other classes come closer to the true one than the margin allows. (B, C), (B,) -> (B,)"""
    too_close = (margin - z.gather(1, y[:, None]) + z).clamp(min=0)
    return too_close.scatter(1, y[:, None], 0.0).mean(dim=1)  # the true class is no rival of itself


def triplet(anchor: Tensor, like: Tensor, other: Tensor, margin: float = 1.0) -> Tensor:
    """The anchor must lie nearer to its like than to the other, by the margin. Three (B, D) -> (B,)"""
    near, far = (
        (anchor - x + 1e-6).norm(dim=1) for x in (like, other)
    )  # as torch: a root has no slope at 0
    return (margin + near - far).clamp(min=0)


def check_same(
    id: str,
    text: str,
    inputs: Iterable[Tensor],
    pairs: list[tuple[Callable, Callable]],
    reductions: tuple[str, ...] = ("none", "sum", "mean"),
) -> None:
    """Claim that ours and torch's agree, in value and in the gradients by every input, for all reductions."""
    sides: tuple[list, list] = ([], [])
    for (ours, theirs), how in product(pairs, reductions):
        for side, loss in zip(
            sides, (lambda *x: reduce(ours(*x), how), partial(theirs, reduction=how))
        ):
            leaves = [x.detach().requires_grad_() for x in inputs]
            value = loss(*leaves).flatten()  # unreduced ones each with its own factor
            side += [
                value,
                *torch.autograd.grad(value @ torch.arange(1.0, len(value) + 1).to(value), leaves),
            ]
    check_close(
        id,
        f"{text}: values and gradients are torch's",
        *(torch.cat([part.detach().flatten() for part in side]) for side in sides),
    )


def show_regression(cfg: Config) -> None:
    print("\n[1] An error can cost its square, its size, or first the one and then the other")
    check_same(
        "regression",
        "MSE, L1, Huber, and smooth L1, which is Huber divided by its delta",
        torch.randn(2, 20, 3).double(),
        [
            (mse, F.mse_loss),
            (l1, F.l1_loss),
            (partial(huber, delta=0.4), partial(F.huber_loss, delta=0.4)),
            (lambda *x: huber(*x, 0.4) / 0.4, partial(F.smooth_l1_loss, beta=0.4)),
        ],
    )


def show_outliers(cfg: Config) -> dict[str, float]:
    print(
        "\n[2] One number for many response times: the cheapest one depends on what an error costs"
    )
    times, answers, best = (
        60 + 15 * torch.randn(cfg.requests | 1).double(),
        torch.linspace(0, 140, 2801)[:, None],
        [],
    )
    for late in range(200, 1001, 100):  # one request in twenty hangs, longer and longer
        times[: len(times) // 20] = late
        costs = [
            price(answers, times).mean(dim=1) for price in (mse, l1, partial(huber, delta=100.0))
        ]
        best.append([answers[cost.argmin()].item() for cost in costs])  # tried out, not computed
    mean, median, _ = best[-1]
    check_close(
        "cheapest",
        f"MSE is lowest at the mean, {mean:.1f} ms, L1 at the median, {median:.1f} ms",
        [mean, median],
        [times.mean(), times.median()],
        rtol=0,
        atol=0.03,
    )
    check_close(
        "dragged",
        "from 200 to 1000 ms the mean is dragged along by a twentieth, the median stays",
        [mean - best[0][0], median - best[0][1]],
        [800 * (len(times) // 20) / len(times), 0],
        atol=0.06,
    )
    (figure, axes), errors = (
        new_figure(1, 3, size=(16, 4.8)),
        torch.linspace(-3, 3, 601, requires_grad=True),
    )
    prices = [price(errors, 0 * errors) for price in (mse, l1, huber)]
    slopes = [torch.autograd.grad(price.sum(), errors)[0] for price in prices]
    for axis, curves in zip(
        axes, (torch.stack(prices, dim=1), torch.stack(slopes, dim=1), torch.tensor(best))
    ):
        x = errors.detach() if len(curves) == len(errors) else range(200, 1001, 100)
        axis.legend(axis.plot(x, curves.detach()), ("MSE", "L1", "Huber"))
    axes[0].set(ylim=(-0.1, 4), title="What an error costs", xlabel="error", ylabel="loss")
    axes[1].set(
        ylim=(-3, 3), title="How hard it pulls", xlabel="error", ylabel="gradient of the loss"
    )
    axes[2].set(
        title="One answer, Huber δ = 100 ms",
        xlabel="the slowest 5 %, ms",
        ylabel="cheapest answer, ms",
    )
    save_figure(figure, cfg.out / "regression")
    return {"mean_answer": mean, "median_answer": median}


def show_binary(cfg: Config) -> dict[str, float]:
    from torchvision.ops import sigmoid_focal_loss

    print("\n[3] Yes or no: minus the logarithm of the chance that was given to the truth")
    z, soft, options = (
        3 * torch.randn(60).double(),
        torch.rand(60).double(),
        {"alpha": 0.6, "gamma": 1.5},
    )
    check_same(
        "binary",
        "BCE of chances and of logits",
        [z],
        [
            (
                lambda z: bce_with_logits(z, soft),
                lambda z, **how: F.binary_cross_entropy(z.sigmoid(), soft, **how),
            ),
            (
                partial(bce_with_logits, y=soft, pos_weight=3),
                partial(
                    F.binary_cross_entropy_with_logits, target=soft, pos_weight=torch.tensor(3.0)
                ),
            ),
        ],
    )
    check_same(
        "focal",
        "focal loss",
        [z],
        [
            (
                partial(focal, y=soft.round(), **options),
                partial(sigmoid_focal_loss, targets=soft.round(), **options),
            )
        ],
    )
    easy, hard = (
        torch.randn(10_000) / 2 - 4,
        torch.randn(20) - 1,
    )  # background, and what is to be found
    shares = [
        price(hard, 0 * hard + 1).sum() / price(easy, 0 * easy).sum()
        for price in (bce_with_logits, focal)
    ]
    plain, focused = (share.item() / (1 + share.item()) for share in shares)
    check(
        "heard",
        f"20 hard samples beside 10,000 easy ones: {plain:.0%} of the cross-entropy, with focal loss "
        f"{focused:.0%}; times",
        focused / plain,
        at_least=3,
    )
    (figure, axis), p, gammas = (
        new_figure(size=(8, 4.8)),
        torch.linspace(0.01, 0.99, 99)[:, None],
        (0, 1, 2, 5),
    )
    axis.legend(
        axis.plot(p, focal(p.logit(), 0 * p + 1, 1.0, torch.tensor(gammas))),
        [f"γ = {g}" for g in gammas],
    )
    axis.set(
        ylim=(0, 3),
        title="Focal loss (γ = 0: cross-entropy)",
        xlabel="chance given to the truth",
        ylabel="loss",
    )
    save_figure(figure, cfg.out / "focal")
    return {"hard_share": plain, "hard_share_focal": focused}


def show_classes(cfg: Config) -> None:
    print("\n[4] Many classes: the same logarithm, from a softmax")
    z, y, weight = (
        torch.randn(6, 5, 4).double(),
        torch.randint(5, (6, 4)),
        torch.rand(5).double() + 0.5,
    )
    y[::2, ::2] = 255  # not labelled, as the rim of a mask often is
    options = {"weight": weight, "ignore_index": 255}
    check_same(
        "classes",
        "NLL, cross-entropy and label smoothing, with weights and gaps",
        [log_probabilities(z)],
        [
            (partial(nll, y=y, **options), partial(F.nll_loss, target=y, **options)),
            *(
                (
                    partial(cross_entropy, y=y, smoothing=s, **options),
                    partial(F.cross_entropy, target=y, label_smoothing=s, **options),
                )
                for s in (0.0, 0.1)
            ),
        ],
    )
    z, q = z[:, :, 0].requires_grad_(), z[:, :, 1].softmax(dim=1)
    q[0] = torch.eye(5)[0]  # a sharp label: four chances of 0
    check_same(
        "kl",
        "KL",
        [log_probabilities(z)],
        [(partial(kl, q=q), partial(F.kl_div, target=q))],
        ("none", "sum"),
    )
    price = F.cross_entropy(z, q, reduction="none")  # takes soft labels too
    check_close(
        "gap",
        "cross-entropy less KL is the entropy of the labels, which no model can change",
        price - kl(log_probabilities(z), q).sum(dim=1),
        -torch.xlogy(q, q).sum(dim=1),
    )
    check_close(
        "residual",
        "so the gradient of both is p - q: what was said, less what is true",
        torch.autograd.grad(price.sum(), z)[0],
        log_probabilities(z).exp() - q,
    )


def show_stable(cfg: Config) -> None:
    print("\n[5] In float32 a probability is 0 or 1 long before its logit is out of range")
    z, one = (
        torch.tensor([-200.0, -1e4], requires_grad=True),
        torch.ones(2),
    )  # sure of no; the truth is yes
    two, first = torch.stack([z, -z], dim=1), torch.tensor([0, 0])  # the same for two classes
    naive = torch.cat(
        [-z.sigmoid().log(), -(two.exp() / two.exp().sum(dim=1, keepdim=True)).log()[:, 0]]
    )
    ours = torch.cat([bce_with_logits(z, one), cross_entropy(two, first, one)[0]])
    blind = F.binary_cross_entropy(z.sigmoid(), one, reduction="none")
    slope, no_slope = (
        torch.autograd.grad(loss.sum(), z, retain_graph=True)[0] for loss in (ours, blind)
    )
    check("overflow", f"written out, the losses are {naive.tolist()}", not naive.isfinite().any())
    check_close(
        "finite",
        f"from logits they are {ours.tolist()}, and pull by {slope.tolist()}",
        torch.cat([ours, slope]),
        torch.tensor([200.0, 1e4, 400.0, 2e4, -3.0, -3.0]),
    )
    check(
        "clamped",
        f"torch's BCE of chances stops at {blind[0]:g} and pulls no more: it teaches nothing",
        ((blind == 100) & (no_slope == 0)).all().item(),
    )


def show_margins(cfg: Config) -> None:
    print("\n[6] A margin: beyond it nothing costs, and nothing pulls")
    z, y, weight = torch.randn(9, 5).double(), torch.randint(5, (9,)), torch.rand(5).double()
    check_same(
        "hinge",
        "hinge",
        [z],
        [
            (
                lambda z: hinge(z, y, 0.7) * weight[y],
                partial(F.multi_margin_loss, target=y, margin=0.7, weight=weight),
            )
        ],
    )
    check_same(
        "triplet", "triplet", torch.randn(3, 9, 4).double(), [(triplet, F.triplet_margin_loss)]
    )
    z, y = (10.0 * torch.eye(5)).requires_grad_(), torch.arange(5)  # all sure, and all right
    costs = hinge(z, y), cross_entropy(z, y, torch.ones(5))
    pulls = [torch.autograd.grad(reduce(cost), z)[0].abs().max() for cost in costs]
    check(
        "satisfied",
        f"10 above all others: hinge pulls {pulls[0]:g}, cross-entropy still {pulls[1]:.0e}",
        pulls[0].item() == 0 < pulls[1].item(),
    )


def run(cfg: Config) -> dict:
    show_regression(cfg)
    results = show_outliers(cfg) | show_binary(cfg)
    show_classes(cfg)
    show_stable(cfg)
    show_margins(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
