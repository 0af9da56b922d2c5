"""3.3 Autograd: the graph behind every gradient
自动求导：每个梯度背后的计算图

You will be able to answer
    1. What is .grad_fn, how is it walked?     show_graph     order, gradients, past-constant
    2. Where do gradients arrive and add up?   show_leaves    leaves, accumulates, detach, silent
    3. How do you teach torch a derivative?    show_function  gradcheck, stable, caught
    4. How do you see or change a gradient?    show_hooks     hooks, overwritten
    5. What lies beyond a loss's gradient?     show_beyond    hvp, unchanged, cost, samples, cancel
Predict   accumulated: x is 3; after the line (x * x).backward() has run twice, what is x.grad?
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

Node = Any  # what .grad_fn holds: a derivative that waits to be called


@dataclass
class Config(LessonConfig):
    size: int = param(200, "length D of the vector whose Hessian is measured", tiny=8)


def in_order(root: Node) -> list[Node]:
    """All nodes that `root` leads to, each one before those it leads to."""
    finished = []
    seen = set()

    def visit(node: Node) -> None:
        seen.add(node)
        for behind, _ in node.next_functions:
            # A constant has no node.
            if behind is not None and behind not in seen:
                visit(behind)

        # By now everything behind this node is in the list.
        finished.append(node)

    visit(root)
    return finished[::-1]


@torch.no_grad()  # or the gradients would get a graph too, as step 5 wants it
def backward(loss: Tensor) -> dict[Node, Tensor]:
    """What loss.backward() does, for nodes with one output. Returns what arrived at each node.

    A node is called with the gradient of its output and returns that of its input, or a tuple of
    several. The node of a leaf returns nothing and adds what arrives to the leaf's .grad.
    """
    # practice: The chain rule, one node at a time
    arrived = {loss.grad_fn: torch.ones_like(loss)}
    for node in in_order(loss.grad_fn):
        passed = node(arrived[node])
        if not isinstance(passed, tuple):
            passed = (passed,)

        for (behind, _), gradient in zip(node.next_functions, passed):
            if behind is not None:
                # Where paths meet, gradients add up.
                arrived[behind] = arrived.get(behind, 0) + gradient
    return arrived
    # end practice


def show_graph(cfg: Config) -> tuple[dict[Node, Tensor], dict[Node, str]]:
    print("\n[1] Every result remembers the derivative that made it: .grad_fn leads into a graph")
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    h = w * x  # used twice below, so that two paths lead back to it
    loss = torch.tanh(h + b) * h

    nodes = in_order(loss.grad_fn)
    names = {}
    for node in nodes:
        names[node] = node.name().removesuffix("Backward0").split("::")[-1]
        for letter, leaf in [("w", w), ("x", x), ("b", b)]:
            if getattr(node, "variable", None) is leaf:
                names[node] = f"{letter}.grad"
    print("  " + " → ".join(names.values()))
    edges = [(node, behind) for node in nodes for behind, _ in node.next_functions]
    forward = sum(nodes.index(node) < nodes.index(behind) for node, behind in edges)
    text = f"{len(nodes)} nodes and {{}} edges, all leading from an earlier node to a later one"
    check("order", text, forward, at_least=len(edges))

    reference = torch.autograd.grad(loss, [w, x, b], retain_graph=True)
    arrived = backward(loss)
    print(f"  w.grad {w.grad:.3f}, x.grad {x.grad:.3f}, b.grad {b.grad:.3f}")
    text = "calling the nodes one by one gives w, x and b torch's gradients"
    check_close("gradients", text, [w.grad, x.grad, b.grad], torch.stack(reference))

    before = w.grad.clone()
    backward(torch.tensor(3.0, dtype=torch.float64) * w * w)
    text = "a walk from 3w² adds 6w = 12 to w.grad and passes by the constant 3"
    check_close("past-constant", text, w.grad - before, 12)
    return arrived, names


def show_leaves(cfg: Config) -> float:
    print("\n[2] Gradients arrive at leaves, and are added to what is there")
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    square = x * x
    square.retain_grad()  # without this line only x, the leaf, would keep its gradient
    square.sum().backward()
    print(f"  leaf: x {x.is_leaf}, x·x {square.is_leaf}; .grad of x {x.grad.tolist()}")
    text = "the leaf x holds 2x, and x·x, which was computed, holds 1: it was told to keep it"
    wanted = torch.stack([2 * x, torch.ones_like(x)])
    check_close("leaves", text, torch.stack([x.grad, square.grad]), wanted)

    # A second time, and nothing is cleared in between.
    (x * x).sum().backward()
    text = "after a second backward() .grad is twice the gradient 2x"
    check_close("accumulates", text, x.grad, 2 * (2 * x))

    (one_path,) = torch.autograd.grad((x * x.detach()).sum(), x)
    text = "x · x.detach() has the derivative x, half of 2x: the detached factor is a constant"
    check_close("detach", text, one_path, x)

    with torch.no_grad():
        unrecorded = x * x
    error = error_of(lambda: unrecorded.sum().backward())
    print(f"  {error}")
    text = "under no_grad() nothing is recorded, so backward() is an error"
    check("silent", text, unrecorded.grad_fn is None and "does not require grad" in error)
    return x.grad[2].item()


class Softplus(torch.autograd.Function):
    """log(1 + e^x), a smooth ReLU, without e^x becoming infinite. Any shape in, the same out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)

        # The larger of 0 and x taken out: log(1 + e^x) = max(x, 0) + log(1 + e^-|x|).
        return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # practice: The derivative, times what arrives
        (x,) = ctx.saved_tensors
        slope = torch.sigmoid(x)  # e^x / (1 + e^x)
        return gradient * slope
        # end practice


class Forgetful(Softplus):
    """The same with a common mistake: what arrives is not multiplied in."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.sigmoid(x)


def show_function(cfg: Config) -> None:
    print("\n[3] A function of your own: forward, backward, and a test by finite differences")
    x = torch.linspace(-4, 4, 7, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.gradcheck(Softplus.apply, x, raise_exception=False)
    second = torch.autograd.gradgradcheck(Softplus.apply, x, raise_exception=False)
    check("gradcheck", "its first and second derivative pass torch's gradcheck", first and second)

    def naive_softplus(x: Tensor) -> Tensor:
        return torch.log(1 + torch.exp(x))

    far = torch.tensor([-1000.0, 0.0, 1000.0], requires_grad=True)
    slopes = {}
    outputs = {}
    for function in [naive_softplus, Softplus.apply, F.softplus]:
        values = function(far)
        (slope,) = torch.autograd.grad(values.sum(), far)
        slopes[function] = slope
        outputs[function] = values
    print(f"  slopes at -1000, 0, 1000: as one writes it {slopes[naive_softplus].tolist()}")
    text = "our values and slopes are those of F.softplus, also where e^x is infinite"
    ours = torch.stack([outputs[Softplus.apply], slopes[Softplus.apply]])
    check_close("stable", text, ours, torch.stack([outputs[F.softplus], slopes[F.softplus]]))

    passed = torch.autograd.gradcheck(Forgetful.apply, x, raise_exception=False)
    check("caught", "gradcheck refuses a backward that forgets what arrives", not passed)


def show_hooks(cfg: Config) -> None:
    print("\n[4] A hook is called with the gradient that passes; what it returns goes on instead")
    x = torch.tensor([1.0, -2.0, 30.0], dtype=torch.float64, requires_grad=True)
    y = x * 3
    seen = []

    def note(gradient: Tensor) -> None:
        seen.append(gradient)

    def clip(gradient: Tensor) -> Tensor:
        return gradient.clamp(-5, 5)

    y.register_hook(note)
    y.register_hook(clip)
    (y * y).sum().backward()
    print(
        f"  the first hook saw {seen[0].tolist()} at y = 3x, which is no leaf; then came the clip"
    )
    text = f"it saw 2y, and x received 3 times the gradient clipped to ±5: {x.grad.tolist()}"
    wanted = torch.stack([2 * y, 3 * (2 * y).clamp(-5, 5)])
    check_close("hooks", text, torch.stack([seen[0], x.grad]), wanted)

    # The derivative of e^x is e^x, so the graph keeps this result; add_ overwrites it.
    z = x.exp().add_(1)
    error = error_of(lambda: z.sum().backward())
    print(f"  {error.split(':')[0]}")
    text = "a value that backward() needs was overwritten: torch notices and refuses"
    check("overwritten", text, "modified by an inplace operation" in error)


def error_of(function: Callable[[], Any]) -> str:
    try:
        function()
    except RuntimeError as error:
        return str(error)
    return ""


def hessian_vector(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """H v for the Hessian H of f at x, without building H. x, v: (D,) -> (D,)

    f: (D,) -> scalar, twice continuously differentiable, so that H is symmetric.
    """
    # practice: The gradient of gradient · v
    x = x.detach().requires_grad_()

    # create_graph: the gradient is a result like any other, with a graph behind it.
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, x)
    return product
    # end practice


def show_beyond(cfg: Config) -> dict[str, float]:
    print("\n[5] The derivative of a gradient, and one gradient for each sample")
    matrix = torch.randn(cfg.size, cfg.size, dtype=torch.float64) / cfg.size**0.5
    point, v = torch.randn(2, cfg.size, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return torch.logsumexp(matrix @ x, dim=0) + (x**4).sum() / 12

    def by_hessian() -> Tensor:
        return torch.autograd.functional.hessian(f, point) @ v

    def directly() -> Tensor:
        return hessian_vector(f, point, v)

    text = f"H v is the full {cfg.size} × {cfg.size} Hessian times v"
    check_close("hvp", text, directly(), by_hessian())
    text = "and the point is left as it was: it asks for no gradient"
    check("unchanged", text, not point.requires_grad)
    text = "and {} times faster than building that Hessian row by row"
    speedup = timed("cost", text, by_hessian, directly, at_least=5)

    w = torch.randn(5, dtype=torch.float64)
    x = torch.randn(64, 5, dtype=torch.float64)
    y = torch.randn(64, dtype=torch.float64)

    def loss(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Squared error of one sample. w, x: (D,), y: a number."""
        return (x @ w - y) ** 2

    # grad makes the gradient function of w; vmap runs it along axis 0 of x and y, not of w.
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(w, x, y)  # (64, 5)
    by_formula = 2 * (x @ w - y)[:, None] * x
    check_close("samples", "the 64 gradients are 2 (x·w − y) x", gradients, by_formula)

    # If all pointed in one direction, the mean would have the mean length: a ratio of 1.
    ratio = gradients.norm(dim=1).mean() / gradients.mean(dim=0).norm()
    text = "on average they are {} times as long as their mean, so they partly cancel"
    check("cancel", text, ratio.item(), at_least=1.2)
    return {"hvp_speedup": speedup, "length_ratio": ratio.item()}


# Pictures: skip on a first reading


def draw_graph(cfg: Config, arrived: dict[Node, Tensor], names: dict[Node, str]) -> None:
    column = dict.fromkeys(names, 0)
    for node in names:
        for behind, _ in node.next_functions:
            column[behind] = max(column[behind], column[node] + 1)
    heights = {"w.grad": 1, "x.grad": -1, "b.grad": -1}
    places = {node: (column[node], heights.get(name, 0)) for node, name in names.items()}

    figure, axis = new_figure(size=(11, 5))
    for node, (x, y) in places.items():
        colour = GREEN if names[node] in heights else BLUE
        box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "none"}
        style = {"ha": "center", "va": "center", "color": "white", "fontsize": 15}
        axis.text(x, y, f"{names[node]}\n{arrived[node]:.3f}", bbox=box, **style)
        for behind, _ in node.next_functions:
            # An arrow that passes over other nodes is bent around them.
            bend = -0.35 if column[behind] > column[node] + 1 else 0
            arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 2, "shrinkA": 38}
            arrow |= {"shrinkB": 38, "connectionstyle": f"arc3,rad={bend}"}
            axis.annotate("", places[behind], (x, y), arrowprops=arrow)
    axis.set(xlim=(-0.5, 4.5), ylim=(-1.5, 1.4))
    axis.set_title("The way back from loss = tanh(w·x + b) · w·x, and what arrives")
    axis.axis("off")
    save_figure(figure, cfg.out / "graph")


def run(cfg: Config) -> dict[str, float]:
    arrived, names = show_graph(cfg)
    accumulated = show_leaves(cfg)
    show_function(cfg)
    show_hooks(cfg)
    results = show_beyond(cfg)
    draw_graph(cfg, arrived, names)
    return {"accumulated": accumulated, **results}


if __name__ == "__main__":
    main(run, Config, __doc__)
