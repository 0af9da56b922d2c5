"""3.3 Autograd: the graph behind every gradient
自动求导：每个梯度背后的计算图

You will be able to answer
    1. What is behind .grad_fn, and how does backward() walk it?    show_graph      walk, no-magic
    2. Where do gradients arrive, and why do they add up?           show_leaves     leaves, accumulates, detach, silent
    3. How do you teach torch a derivative, and test it?            show_function   gradcheck, stable, caught
    4. How do you look at, or change, a gradient on its way?        show_hooks      hook-sees, hook-changes, overwritten
    5. How do you differentiate a gradient, without a Hessian?      show_second     derivatives, hvp, hvp-cost
    6. How do you get one gradient per sample?                      show_samples    per-sample
Run       python phase03_pytorch/03-tensor-autograd.py                     about 5 s
Needs     -
Reference F.softplus, functional.hessian
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, new_figure, save_figure

Node = Any  # what .grad_fn holds: a derivative waiting to be asked


@dataclass
class Config(LessonConfig):
    size: int = param(200, "length D of the vector whose Hessian is measured", tiny=8)


def in_order(root: Node) -> list[Node]:
    """All nodes that `root` leads to, each one before those it leads to."""
    order, seen = [], set()

    def visit(node: Node) -> None:
        # practice: depth first, and put a node down when all behind it are down
        # hint: skip what was seen and the None of constants; visit all that it leads to; only then append it
        # hint: node.next_functions holds pairs (node, number)
        if node is None or node in seen:
            return
        seen.add(node)
        for behind, _ in node.next_functions:
            visit(behind)
        order.append(node)
        # end practice

    visit(root)
    return order[::-1]


@torch.no_grad()  # else the gradients would get a graph too: step 5
def backward(loss: Tensor) -> dict[Node, Tensor]:
    """What loss.backward() does, for nodes with one output: a leaf's node adds what arrives to the leaf's .grad.
    Returns the gradient of `loss` that arrived at each node."""
    arrived: dict[Node, Tensor] = {loss.grad_fn: torch.ones_like(loss)}
    for node in in_order(loss.grad_fn):
        # practice: the chain rule, one node at a time
        # hint: a node is a function: node(gradient of its output) gives the gradient of its input, or a tuple of them
        # hint: where paths meet, gradients add up: arrived[behind] = arrived.get(behind, 0) + …
        passed = node(arrived[node])
        passed = passed if isinstance(passed, tuple) else (passed,)
        for (behind, _), gradient in zip(node.next_functions, passed):
            if behind is not None:
                arrived[behind] = arrived.get(behind, 0) + gradient
        # end practice
    return arrived


class Softplus(torch.autograd.Function):
    """log(1 + e^x), a smooth ReLU, without e^x ever becoming infinite. Any shape in, the same out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # practice: the derivative of log(1 + e^x), times what arrives
        # hint: e^x / (1 + e^x), written so that nothing overflows, is the sigmoid
        # hint: x, = ctx.saved_tensors
        (x,) = ctx.saved_tensors
        slope = torch.sigmoid(x)
        result = gradient * slope
        # end practice
        return result


def derivatives(f: Callable[[Tensor], Tensor], x: Tensor, count: int) -> list[Tensor]:
    """f, f', f'' … at all points x (N,) at once, for an f that treats each number alone."""
    # practice: differentiate what the last round gave
    # hint: a sum has gradient 1 for each term, so grad of values.sum() gives every point its own derivative
    # hint: values = [f(x)], then torch.autograd.grad(values[-1].sum(), x, create_graph=True), again and again
    x = x.detach().requires_grad_()
    values = [f(x)]
    for _ in range(count):
        (slope,) = torch.autograd.grad(values[-1].sum(), x, create_graph=True)
        values.append(slope)
    # end practice
    return [value.detach() for value in values]


def hessian_vector(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """H v for the Hessian H of the scalar function f at x, without ever building H. x, v: (D,) -> (D,)"""
    # practice: the gradient of (gradient · v)
    # hint: H v is the derivative of the number g · v, where g is the gradient and v a constant
    # hint: x = x.detach().requires_grad_(), then torch.autograd.grad twice, first with create_graph=True
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, x)
    # end practice
    return product


def show_graph(cfg: Config) -> None:
    print("\n[1] Every result remembers the derivative that made it: .grad_fn is a graph")
    w, x, b = (
        torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (2.0, 0.5, -0.5)
    )
    h = w * x  # used twice, so two paths lead back to it
    loss = torch.tanh(h + b) * h
    nodes = in_order(loss.grad_fn)
    print(
        "  " + " → ".join(node.name().split("::")[-1].removesuffix("Backward0") for node in nodes)
    )
    check(
        "walk",
        f"{len(nodes)} nodes, none before one that leads to it",
        len(nodes) == 7
        and all(
            nodes.index(n) < nodes.index(behind) for n in nodes for behind, _ in n.next_functions
        ),
    )
    wanted = torch.stack(torch.autograd.grad(loss, (w, x, b), retain_graph=True))
    arrived = backward(loss)
    check_close(
        "no-magic",
        "calling the nodes in this order puts torch's gradients into .grad of w, x and b",
        torch.stack([w.grad, x.grad, b.grad]),
        wanted,
    )
    draw_graph(cfg, nodes, arrived, {id(w): "w", id(x): "x", id(b): "b"})


def show_leaves(cfg: Config) -> None:
    print("\n[2] Gradients arrive at leaves, and add to what is there")
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    middle = x * x
    middle.sum().backward()
    check(
        "leaves",
        f"x.grad is {x.grad.tolist()}; what was computed on the way is no leaf and keeps none",
        x.is_leaf and not middle.is_leaf and torch.equal(x.grad, 2 * x),
    )
    (x * x).sum().backward()  # no clearing in between
    check_close(
        "accumulates", "after a second backward() .grad is twice the gradient", x.grad, 2 * (2 * x)
    )
    (one_path,) = torch.autograd.grad((x * x.detach()).sum(), x)
    check_close(
        "detach",
        "detach() makes a constant of the same value: d(x · const) is half of 2x",
        one_path,
        x,
    )
    with torch.no_grad():
        silent = x * x
    check(
        "silent",
        "under no_grad() nothing is recorded: no grad_fn, and backward() is an error",
        silent.grad_fn is None
        and "does not require grad" in error_of(lambda: silent.sum().backward()),
    )


def error_of(function: Callable[[], Any]) -> str:
    try:
        function()
    except RuntimeError as error:
        return str(error)
    return ""


def show_function(cfg: Config) -> None:
    print(
        "\n[3] A function of one's own: forward, backward, and a test that asks small differences"
    )
    x = torch.linspace(-4, 4, 7, dtype=torch.float64, requires_grad=True)
    check(
        "gradcheck",
        "first and second derivative agree with finite differences",
        torch.autograd.gradcheck(Softplus.apply, x)
        and torch.autograd.gradgradcheck(Softplus.apply, x),
    )
    far = torch.tensor([-1000.0, 0.0, 1000.0], requires_grad=True)
    written = (lambda x: torch.log(1 + torch.exp(x)), Softplus.apply, F.softplus)
    naive, ours, reference = (torch.autograd.grad(f(far).sum(), far)[0] for f in written)
    check(
        "stable",
        f"slope at 1000: written naively {naive[2]:.0f}, ours {ours[2]:.0f}, as F.softplus has it",
        naive[2].isnan().item() and torch.allclose(ours, reference),
    )
    forgetful = type(
        "F", (Softplus,), {"backward": staticmethod(lambda ctx, _: ctx.saved_tensors[0].sigmoid())}
    )
    check(
        "caught",
        "gradcheck refuses a backward that forgets to multiply with what arrives",
        not torch.autograd.gradcheck(forgetful.apply, x, raise_exception=False),
    )


def show_hooks(cfg: Config) -> None:
    print("\n[4] A hook stands beside the graph, sees the gradient that passes, and may replace it")
    x = torch.tensor([1.0, -2.0, 30.0], dtype=torch.float64, requires_grad=True)
    y, seen = x * 3, []
    y.register_hook(seen.append)  # append returns None: the gradient passes unchanged
    y.register_hook(lambda gradient: gradient.clamp(-5, 5))
    (y * y).sum().backward()
    check_close(
        "hook-sees",
        f"at y, which keeps no .grad, the first saw 2y = {seen[0].tolist()}",
        seen[0],
        2 * y,
    )
    check_close(
        "hook-changes",
        f"the second clipped it, so x got {x.grad.tolist()}",
        x.grad,
        3 * (2 * y).clamp(-5, 5),
    )
    z = x.exp().add_(1)  # the graph keeps e^x, its own derivative; overwritten
    check(
        "overwritten",
        "a value that backward needs was changed in place: torch notices and refuses",
        "modified by an inplace operation" in error_of(lambda: z.sum().backward()),
    )


def show_second(cfg: Config) -> float:
    print("\n[5] A gradient is a result too: keep its graph and differentiate again")
    points = torch.linspace(-6, 6, 241, dtype=torch.float64)
    ours = derivatives(lambda x: torch.exp(-(x**2) / 8) * torch.sin(2 * x), points, 2)
    bell, s, c = torch.exp(-(points**2) / 8), torch.sin(2 * points), torch.cos(2 * points)
    by_hand = [
        bell * s,
        bell * (2 * c - points / 4 * s),
        bell * (s * (points**2 / 16 - 4.25) - points * c),
    ]
    check_close(
        "derivatives", "f, f' and f'' are the formulas", torch.stack(ours), torch.stack(by_hand)
    )
    a = torch.randn(cfg.size, cfg.size, dtype=torch.float64) / cfg.size**0.5
    x, v = torch.randn(2, cfg.size, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return torch.logsumexp(a @ x, dim=0) + (x**4).sum() / 12

    check_close(
        "hvp",
        f"H v equals the full {cfg.size}x{cfg.size} Hessian times v",
        hessian_vector(f, x, v),
        torch.autograd.functional.hessian(f, x) @ v,
    )
    return timed(
        "hvp-cost",
        "and it is faster, for it costs about two gradients",
        lambda: torch.autograd.functional.hessian(f, x) @ v,
        lambda: hessian_vector(f, x, v),
        at_least=5,
    )


def show_samples(cfg: Config) -> float:
    print(
        "\n[6] torch.func: functions from functions; vmap(grad(loss)) is one gradient for each sample"
    )
    w, x, y = (torch.randn(*shape, dtype=torch.float64) for shape in ((5,), (64, 5), (64,)))

    def loss(
        w: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:  # of one sample: w and x are (D,), y is one number
        return (x @ w - y) ** 2

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(w, x, y)  # (N, D)
    (batch,) = torch.autograd.grad(loss(w.requires_grad_(), x, y).mean(), w)
    largest = (each.norm(dim=1).max() / each.mean(dim=0).norm()).item()
    check_close(
        "per-sample",
        f"each is 2 (x·w - y) x; the longest is {largest:.0f} times as long as the batch's",
        torch.cat([each, each.mean(dim=0)[None]]),
        torch.cat([2 * (x @ w - y)[:, None] * x, batch[None]]),
    )
    return largest


def draw_graph(
    cfg: Config, nodes: list[Node], arrived: dict[Node, Tensor], names: dict[int, str]
) -> None:
    column, place = {nodes[0]: 0}, {}
    for node in nodes:  # as far right as its longest way from the loss
        for behind, _ in node.next_functions:
            column[behind] = max(column.get(behind, 0), column[node] + 1)
        place[node] = column[node], (-1) ** len(place) * hasattr(node, "variable")
    figure, axis = new_figure(size=(11, 5))
    for node, (x, y) in place.items():
        leaf = hasattr(node, "variable")
        text = names[id(node.variable)] + ".grad" if leaf else node.name().removesuffix("Backward0")
        axis.text(
            x,
            y,
            f"{text}\n{arrived[node]:.3f}",
            ha="center",
            va="center",
            color="white",
            fontsize=15,
            bbox={
                "boxstyle": "round,pad=0.5",
                "facecolor": GREEN if leaf else BLUE,
                "edgecolor": "none",
            },
        )
        for behind, _ in node.next_functions:
            bend = f"arc3,rad={-0.35 * (column[behind] - x > 1)}"
            axis.annotate(
                "",
                place[behind],
                (x, y),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": GREY,
                    "linewidth": 2,
                    "shrinkA": 38,
                    "shrinkB": 38,
                    "connectionstyle": bend,
                },
            )
    axis.set(
        xlim=(-0.5, 4.5),
        ylim=(-1.5, 1.4),
        title="The way back from loss = tanh(w·x + b) · w·x, and what arrives",
    )
    axis.axis("off")
    save_figure(figure, cfg.out / "graph")


def run(cfg: Config) -> dict:
    show_graph(cfg)
    show_leaves(cfg)
    show_function(cfg)
    show_hooks(cfg)
    return {"hvp_speedup": show_second(cfg), "largest_gradient": show_samples(cfg)}


if __name__ == "__main__":
    main(run, Config, __doc__)
