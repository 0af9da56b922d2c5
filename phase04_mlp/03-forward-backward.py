"""4.3 Forward and backward: every line of backpropagation
前向与反向：逐行写出反向传播

You will be able to answer
    1. What does the forward pass compute, and keep?   show_forward   forward, stable
    2. What does the loss send back to the logits?     show_loss      p-minus-y
    3. How does a gradient pass through a layer?       show_backward  by-hand, numeric, parity
    4. Is the whole training that of PyTorch?          show_training  same, overfits
    5. Would you notice a wrong gradient?         show_bugs  depends, unnoticed, found, downhill
Predict   no_mask: what share of digits is read rightly if the backward pass ignores the ReLU?
Run       python phase04_mlp/03-forward-backward.py                        about 10 s
Needs     -
Learns    overfits, depends
Reference torch.autograd, torch.optim, F.cross_entropy
Notation  B batch  D inputs (8x8 pixels = 64)  H hidden units  C classes (10)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.data.images import ImageSet, load_images
from common.figures import BLUE, ORANGE, new_figure, save_figure

Arrays = dict[str, np.ndarray]


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits", "mnist"))
    hidden_dim: int = param(32, "hidden units", tiny=16)
    epochs: int = param(20, "passes over the data", tiny=2)
    batch_size: int = param(64, "samples in a batch")
    lr: float = param(0.5, "learning rate")


def forward(params: Arrays, x: np.ndarray) -> tuple[np.ndarray, Arrays]:
    """Two layers with a ReLU between: x (B, D) -> logits (B, C), and what backward will need.

    params: w1 (D, H), b1 (H,), w2 (H, C), b2 (C,).
    """
    # practice: The forward pass
    z = x @ params["w1"] + params["b1"]  # (B, H)
    hidden = np.maximum(z, 0)
    logits = hidden @ params["w2"] + params["b2"]  # (B, C)
    return logits, {"x": x, "z": z, "hidden": hidden}
    # end practice


def softmax_loss(logits: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean cross-entropy of a batch and its gradient. logits (B, C), y (B,) class numbers.

    Returns the loss and d loss / d logits (B, C).
    """
    # practice: The loss and what it sends back
    rows = np.arange(len(y))

    # Softmax does not change when a number is taken off a whole row, and exp cannot overflow then.
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    log_p = shifted - log_sum  # (B, C)
    loss = -log_p[rows, y].mean()

    # d(-log p_y)/d logits = p - onehot(y); the mean divides by B.
    d_logits = np.exp(log_p)
    d_logits[rows, y] -= 1
    return loss, d_logits / len(y)
    # end practice


def backward(params: Arrays, cache: Arrays, d_logits: np.ndarray) -> Arrays:
    """From d loss / d logits (B, C) to the gradient of each parameter, in its shape."""
    # practice: The backward pass
    # logits = hidden @ w2 + b2: w2[h, c] acts through every sample, so the sum over B.
    d_w2 = cache["hidden"].T @ d_logits  # (H, B) @ (B, C)
    d_b2 = d_logits.sum(axis=0)
    d_hidden = d_logits @ params["w2"].T  # (B, C) @ (C, H)

    # hidden = max(z, 0) has the slope 1 where z > 0, and 0 elsewhere.
    d_z = d_hidden * (cache["z"] > 0)

    d_w1 = cache["x"].T @ d_z
    d_b1 = d_z.sum(axis=0)
    return {"w1": d_w1, "b1": d_b1, "w2": d_w2, "b2": d_b2}
    # end practice


def train(
    params: Arrays, batches: list[tuple], lr: float, backward_fn: Callable = backward
) -> list[float]:
    """One step of gradient descent for each batch (x, y), in place. Returns the loss of each."""
    losses = []
    for x, y in batches:
        logits, cache = forward(params, x)
        loss, d_logits = softmax_loss(logits, y)
        grads = backward_fn(params, cache, d_logits)
        for name in params:
            params[name] -= lr * grads[name]
        losses.append(loss)
    return losses


def show_forward(cfg: Config) -> None:
    print("\n[1] Forward: multiply, add, clip at zero, multiply, add")
    params = small_network()
    logits, cache = forward(params, np.array([[1.0, 2.0]]))
    print(f"  x = (1, 2): z = {cache['z'][0]}, hidden = {cache['hidden'][0]}, logits {logits[0]}")
    text = "the small network of the note gives the logits found on paper"
    check_close("forward", text, logits, [[3.0, 1.0]])

    huge = np.array([[1000.0, 0.0, -1000.0], [-1000.0, -2000.0, -3000.0]])
    loss, _ = softmax_loss(huge, np.array([1, 1]))
    text = "logits of ±1000 give a loss of {}, where exp(1000) would be infinite"
    check("stable", text, loss, at_least=1000, at_most=1000)


def show_loss(cfg: Config) -> None:
    print("\n[2] The gradient of the logits: predicted probability minus the truth")
    logits = np.array([[3.0, 1.0]])
    _, d_logits = softmax_loss(logits, np.array([1]))
    p = np.exp(logits) / np.exp(logits).sum()
    print(f"  p = {p[0].round(3)}, the second class is right, d logits = {d_logits[0].round(3)}")

    rng = cfg.rng()
    logits = rng.normal(size=(7, 5))
    y = rng.integers(5, size=7)
    by_torch = torch.tensor(logits, requires_grad=True)
    loss = F.cross_entropy(by_torch, torch.tensor(y))
    loss.backward()
    ours, d_logits = softmax_loss(logits, y)
    both = np.append(d_logits, ours)
    theirs = np.append(by_torch.grad.numpy(), loss.item())
    check_close("p-minus-y", "loss and gradient are those of F.cross_entropy", both, theirs)


def numeric_slope(
    params: Arrays, x: np.ndarray, y: np.ndarray, directions: Arrays, h: float = 1e-5
) -> float:
    """How fast the loss grows along the directions, by central differences (lesson 2.3).

    directions: for some parameters, an array of their shape.
    """
    losses = []
    for step in [h, -h]:
        moved = {name: params[name] + step * d for name, d in directions.items()}
        logits, _ = forward(params | moved, x)
        losses.append(softmax_loss(logits, y)[0])
    return (losses[0] - losses[1]) / (2 * h)


def show_backward(cfg: Config, data: ImageSet) -> None:
    print("\n[3] Backward: each product sends its gradient to both factors")
    params = small_network()
    _, cache = forward(params, np.array([[1.0, 2.0]]))
    grads = backward(params, cache, np.array([[1.0, -1.0]]))
    by_hand = [1, 0, 2, 0, 1, 0, 3, -3, 0, 0, 1, -1]
    text = "d logits = (1, -1) gives the gradients found on paper"
    check_close("by-hand", text, in_a_row(grads), by_hand)

    x, y = flat_pixels(data, data.x_train[:50], data.y_train[:50])
    params = first_weights(x.shape[1], cfg)
    error = check_error(params, x, y, backward, cfg.rng())
    check("numeric", "on digits, finite differences differ by a relative {}", error, below=1e-6)

    # Where z is 0 there is no derivative, only a convention: torch takes the slope 0.
    params["w1"][:, 0] = 0
    model = as_module(params)
    F.cross_entropy(model(torch.tensor(x)), torch.tensor(y)).backward()
    # nn.Linear keeps its weight as (outputs, inputs)
    theirs = np.concatenate([weight.grad.numpy().T.ravel() for weight in model.parameters()])
    text = f"all {len(theirs):,} gradients are torch's, up to {{}}"
    check_close("parity", text, in_a_row(gradients(params, x, y)), theirs)


def show_training(cfg: Config, data: ImageSet) -> None:
    print("\n[4] The same first weights and the same batches in PyTorch: the same training?")
    x, y = flat_pixels(data, data.x_train, data.y_train)
    batches = shuffled(x, y, cfg)
    params = first_weights(x.shape[1], cfg)
    model = as_module(params)
    ours = train(params, batches, cfg.lr)

    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr)
    theirs = []
    for x_batch, y_batch in batches:
        loss = F.cross_entropy(model(torch.tensor(x_batch)), torch.tensor(y_batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    text = f"the two curves of {len(ours)} losses differ by {{}} at most"
    check_close("same", text, np.array(ours), np.array(theirs), rtol=1e-6)

    ten = first_weights(x.shape[1], cfg)
    losses = train(ten, [(x[:10], y[:10])] * 200, cfg.lr)
    text = "ten digits are learned by heart: the loss falls to {}"
    check("overfits", text, losses[-1], below=0.05)


def show_bugs(cfg: Config, data: ImageSet) -> tuple[dict, dict, dict]:
    print("\n[5] A wrong backward pass, the mask forgotten: does the training give it away?")
    x, y = flat_pixels(data, data.x_train, data.y_train)
    x_test, y_test = flat_pixels(data, *data.test())
    scores = {"majority": float((y_test == np.bincount(y).argmax()).mean())}
    errors = {}
    curves = {}
    for name, backward_fn in {"right": backward, "no_mask": without_mask}.items():
        params = first_weights(x.shape[1], cfg)
        errors[name] = check_error(params, x[:50], y[:50], backward_fn, cfg.rng())
        curves[name] = train(params, shuffled(x, y, cfg), cfg.lr, backward_fn)
        predicted = forward(params, x_test)[0].argmax(axis=1)
        scores[name] = float((predicted == y_test).mean())
        print(f"  {name:<8} test accuracy {scores[name]:.3f}   gradient check {errors[name]:.1e}")
        if name == "right":
            depends_on_input("depends", "the answer depends on the digit", predicted, y_test)

    text = "with the mask forgotten a share of {} is read rightly: nothing seems to be wrong"
    expect("unnoticed", text, scores["no_mask"], at_least=0.92)
    text = "the gradient check finds it: the relative error is {}"
    check("found", text, errors["no_mask"], at_least=0.3)

    right = in_a_row(gradients(params, x, y))
    wrong = in_a_row(gradients(params, x, y, without_mask))
    cosine = right @ wrong / (np.linalg.norm(right) * np.linalg.norm(wrong))
    text = "it leads downhill all the same: its cosine with the right gradient is {}"
    check("downhill", text, cosine, above=0.2)
    return scores, errors, curves


# Pictures and helpers: skip on a first reading


def without_mask(params: Arrays, cache: Arrays, d_logits: np.ndarray) -> Arrays:
    """As if max(z, 0) had the slope 1 everywhere."""
    return backward(params, cache | {"z": np.ones_like(cache["z"])}, d_logits)


def small_network() -> Arrays:
    """The network of the note: two inputs, two hidden units, two classes."""
    return {
        "w1": np.array([[1.0, 1.0], [1.0, -1.0]]),
        "b1": np.zeros(2),
        "w2": np.array([[1.0, 0.0], [2.0, 1.0]]),
        "b2": np.array([0.0, 1.0]),
    }


def first_weights(inputs: int, cfg: Config) -> Arrays:
    """Random weights (lesson 4.9 says how large), small ones for the logits; biases 0."""
    rng = cfg.rng()
    return {
        "w1": rng.normal(size=(inputs, cfg.hidden_dim)) * np.sqrt(2 / inputs),
        "b1": np.zeros(cfg.hidden_dim),
        "w2": rng.normal(size=(cfg.hidden_dim, 10)) * 0.1,
        "b2": np.zeros(10),
    }


def as_module(params: Arrays) -> nn.Sequential:
    """The same network in PyTorch, in float64, with copies of the weights."""
    inputs, hidden = params["w1"].shape
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10)).double()
    with torch.no_grad():
        for weight, name in zip(model.parameters(), ["w1", "b1", "w2", "b2"]):
            weight.copy_(torch.tensor(params[name].T))
    return model


def gradients(params: Arrays, x: np.ndarray, y: np.ndarray, backward_fn=backward) -> Arrays:
    logits, cache = forward(params, x)
    return backward_fn(params, cache, softmax_loss(logits, y)[1])


def in_a_row(grads: Arrays) -> np.ndarray:
    """All gradients in one vector: w1, b1, w2, b2."""
    return np.concatenate([grads[name].ravel() for name in ["w1", "b1", "w2", "b2"]])


def check_error(params, x, y, backward_fn, rng) -> float:
    """|numeric - ours| / |numeric| along 20 random directions of each parameter, the largest."""
    # A step over the kink of a ReLU proves nothing: leave out digits that lie close to one.
    z = x @ params["w1"] + params["b1"]
    far = np.abs(z).min(axis=1) > 1e-3
    grads = gradients(params, x[far], y[far], backward_fn)
    errors = []
    for name, grad in grads.items():
        directions = rng.normal(size=(20, *grad.shape))
        numeric = np.array([numeric_slope(params, x[far], y[far], {name: d}) for d in directions])
        ours = np.array([(grad * d).sum() for d in directions])
        errors.append(np.linalg.norm(numeric - ours) / np.linalg.norm(numeric))
    return float(max(errors))


def shuffled(x: np.ndarray, y: np.ndarray, cfg: Config) -> list[tuple]:
    """All batches of all epochs."""
    rng = np.random.default_rng([cfg.seed, 1])
    batches = []
    for _ in range(cfg.epochs):
        order = rng.permutation(len(y))
        for chosen in np.split(order, range(cfg.batch_size, len(y), cfg.batch_size)):
            batches.append((x[chosen], y[chosen]))
    return batches


def flat_pixels(data: ImageSet, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pictures (n, H, W) -> floats from 0 to 1 (n, H·W); the labels as they are."""
    return x.reshape(len(x), -1) / data.brightest, y


def draw_check(cfg: Config, scores: dict, errors: dict, curves: dict) -> None:
    names = {"right": "right gradient", "no_mask": "mask forgotten"}
    figure, (left, right) = new_figure(1, 2)
    for (name, shown), colour in zip(names.items(), [BLUE, ORANGE]):
        by_epoch = np.reshape(curves[name], (cfg.epochs, -1)).mean(axis=1)
        label = f"{shown}: test accuracy {scores[name]:.3f}"
        left.plot(range(1, cfg.epochs + 1), by_epoch, "o-", color=colour, label=label)
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None), title="Both losses fall …")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend()

    right.bar(names.values(), [errors[name] for name in names], color=[BLUE, ORANGE], width=0.6)
    right.set(yscale="log", ylabel="relative error", title="… the gradient check tells them apart")
    save_figure(figure, cfg.out / "check")


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    show_forward(cfg)
    show_loss(cfg)
    show_backward(cfg, data)
    show_training(cfg, data)
    scores, errors, curves = show_bugs(cfg, data)
    draw_check(cfg, scores, errors, curves)
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
