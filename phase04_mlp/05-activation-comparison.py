"""4.5 Activations compared: one network, nine functions
激活函数对比：同一个网络，九种激活函数

You will be able to answer
    1. What reaches the first of ten layers?    show_depth   gain, factor, vanishes
    2. How do you train many networks at once?  show_stack   alone, overfits
    3. Which activation is best on digits?      show_table   depends, inside, linear, behind, noise
    4. How would you get another winner?        show_unfair  unfair, adam
Predict   reaches: ten layers of sigmoids: what share of a gradient's size is left at the first?
Run       python phase04_mlp/05-activation-comparison.py                   about 30 s
Needs     phase04_mlp/04-activation-functions
Learns    overfits, depends
Reference torch.optim.SGD
Notation  N networks  B batch  D inputs (8x8 pixels = 64)  H hidden units  C classes (10)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.data.images import ImageSet, load_images
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson

functions = load_lesson("phase04_mlp/04-activation-functions")
ActivationFunction = functions.ActivationFunction
NINE = {function.__name__: function for function in functions.TEN[:9]}  # not gelu_tanh
SEVEN = [name for name in NINE if name not in ("sigmoid", "softplus")]
RATES = [0.03, 0.1, 0.3, 1.0, 3.0]
Split = tuple[Tensor, Tensor]


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    hidden_dim: int = param(64, "units in each hidden layer", tiny=32)
    depth: int = param(4, "hidden layers of the networks that are trained", tiny=2)
    epochs: int = param(10, "passes over the data", tiny=4)
    seeds: int = param(5, "first weights that each rate is tried with", tiny=2, low=2)


def gain(function: Callable) -> float:
    """How large to make first weights, so that z keeps its mean square of 1 through the layers.

    The weights of a layer with n inputs get the standard deviation gain / √n.
    """
    # practice: The gain of an activation
    value, _ = function(normal_quantiles())

    # The next z is a sum of n terms w · f(z): its mean square is n · gain²/n · mean f(z)².
    return 1 / value.square().mean().sqrt().item()
    # end practice


def forward(weights: list[Tensor], x: Tensor, function: Callable) -> Tensor:
    """N networks on the same samples: x (B, D) -> logits (N, B, C)."""
    # practice: Forward through N networks
    hidden = x
    for w, b in zip(weights[:-2:2], weights[1:-2:2]):
        # (B, D), later (N, B, H), times (N, D, H): one product for each network
        hidden = ActivationFunction.apply(hidden @ w + b, function)
    return hidden @ weights[-2] + weights[-1]
    # end practice


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy of each network: logits (N, B, C), y (B,) -> (N,)."""
    each = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none")
    return each.view(len(logits), -1).mean(dim=1)


def show_depth(cfg: Config, data: ImageSet) -> dict[str, Tensor]:
    print("\n[1] Ten hidden layers before training: the gradient's size by layer")
    ours = [gain(NINE["relu"]), gain(NINE["leaky_relu"])]
    text = "ReLU has the gain √2, leaky ReLU √(2 / 1.0001), as on paper"
    check_close("gain", text, ours, [2**0.5, (2 / 1.0001) ** 0.5], rtol=1e-3)

    x, y = split(data.x_train[:100], data.y_train[:100], data)
    norms = {}
    errors = []
    print("               gain   layer 1       4       7      10   a layer: times   predicted")
    for name, function in NINE.items():
        seeds = range(10 * cfg.seed, 10 * cfg.seed + 10)
        weights = first_weights([64] * 11 + [10], function, seeds)
        norms[name] = gradient_norms(weights, x, y, function)[:10]

        # From one layer to the one below: W (gain) and the slope, both in the mean square.
        _, slope = function(normal_quantiles())
        predicted = gain(function) * slope.square().mean().sqrt().item()
        measured = (norms[name][1] / norms[name][9]).item() ** (1 / 8)
        errors.append(abs(measured / predicted - 1))
        sizes = "".join(f"{norm:8.0e}" for norm in norms[name][::3])
        print(f"  {name:<11} {gain(function):6.3f}  {sizes}   {measured:14.3f} {predicted:11.3f}")
    text = "the factor from layer to layer is off the predicted one by a share of {} at most"
    check("factor", text, max(errors), below=0.1)
    reaches = norms["sigmoid"][0] / norms["sigmoid"][9]
    check("vanishes", "sigmoid: a share of {} reaches the first layer", reaches, below=0.003)
    return norms


def train(weights: list[Tensor], rates: Tensor, batches: list[Split], function: Callable) -> None:
    """Gradient descent, in place: every network at its own rate (N,), all on the same batches."""
    # practice: Train N networks at once
    for x, y in batches:
        # No network acts on another's loss: the gradient of the sum is that of each alone.
        total = losses(forward(weights, x, function), y).sum()
        gradients = torch.autograd.grad(total, weights)
        with torch.no_grad():
            for w, gradient in zip(weights, gradients):
                w -= rates[:, None, None] * gradient
    # end practice


def show_stack(cfg: Config, data: ImageSet) -> None:
    print("\n[2] Two networks in one stack: is each trained as if it were alone?")
    x, y = split(data.x_train, data.y_train, data)
    x = x.double()
    function = NINE["gelu"]
    weights = first_weights(sizes_of(cfg), function, [cfg.seed, cfg.seed + 1])
    # Moved off 0: biases of 0 would hide a wrong sign.
    weights = [(w.detach().double() + 0.01).requires_grad_() for w in weights]
    model = as_module([w[1].detach() for w in weights])
    batches = shuffled(x, y, cfg)[:20]
    train(weights, torch.tensor([0.3, 0.1], dtype=torch.float64), batches, function)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch_x, batch_y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(batch_x), batch_y).backward()
        optimizer.step()
    ours = forward(weights, x, function)[1]
    text = "after 20 steps the second gives the logits of one trained alone, up to {}"
    check_close("alone", text, ours, model(x))

    weights = first_weights(sizes_of(cfg), function, [cfg.seed])
    ten = (x[:10].float(), y[:10])
    train(weights, torch.tensor([0.1]), [ten] * 200, function)
    loss = losses(forward(weights, ten[0], function), ten[1]).item()
    check("overfits", "ten digits are learned by heart: the loss falls to {}", loss, below=0.05)


def show_table(cfg: Config, data: ImageSet, seeds: list[int]) -> tuple[dict, dict]:
    print(f"\n[3] {cfg.seeds} first weights, the same for all; each activation at its best rate")
    x, y = split(data.x_train, data.y_train, data)
    x_val, y_val = split(data.x_val, data.y_val, data)
    x_test, y_test = split(*data.test(), data)
    rates = torch.tensor(RATES).repeat_interleave(cfg.seeds)
    by_rate = {}
    scores = {}
    chosen = []
    for name, function in ({"linear": identity} | NINE).items():
        weights = first_weights(sizes_of(cfg), function, seeds * len(RATES))
        train(weights, rates, shuffled(x, y, cfg), function)
        with torch.no_grad():
            logits = forward(weights, x_val, function)
            predicted = forward(weights, x_test, function).argmax(dim=2)
        right = (logits.argmax(dim=2) == y_val).float().mean(dim=1)
        by_rate[name] = right.view(len(RATES), cfg.seeds)

        # Chosen by the validation loss, which is finer than the accuracy of 180 digits.
        val_losses = losses(logits, y_val).nan_to_num(torch.inf).view(len(RATES), -1).mean(dim=1)
        chosen.append(int(val_losses.argmin()))
        predicted = predicted.view(len(RATES), cfg.seeds, -1)[chosen[-1]]
        scores[name] = (predicted == y_test).float().mean(dim=1)  # (seeds,)
        shown = f"{scores[name].mean():.3f} ± {scores[name].std():.3f}"
        print(f"  {name:<11} rate {RATES[chosen[-1]]:<5g} test accuracy {shown}")
    depends_on_input("depends", "GELU's answer depends on the digit", predicted[0], y_test)

    inside = all(0 < number < len(RATES) - 1 for number in chosen)
    expect("inside", "no best rate is the lowest or highest tried: the grid is wide enough", inside)
    seven = torch.stack([scores[name] for name in SEVEN])
    text = "all but sigmoid and softplus get {} more right than the linear model, in the mean"
    expect("linear", text, seven.mean() - scores["linear"].mean(), at_least=0.005)
    behind = max(scores["sigmoid"].mean(), scores["softplus"].mean())
    text = "sigmoid and softplus both get at least {} less right than these seven"
    expect("behind", text, seven.mean() - behind, at_least=0.03)

    gaps = seven[seven.mean(dim=1).argmax()] - seven  # (7, seeds), paired
    errors = gaps.std(dim=1) / cfg.seeds**0.5
    near = int((gaps.mean(dim=1) <= 2 * errors).sum()) - 1
    text = "of the other six {} lie within two standard errors of the first: no clear winner"
    expect("noise", text, near, at_least=1)
    return scores, by_rate


def show_unfair(cfg: Config, data: ImageSet, seeds: list[int], by_rate: dict) -> dict[str, float]:
    print("\n[4] One rate for all, validation accuracy: who wins depends on the rate")
    means = {name: table.mean(dim=1) for name, table in by_rate.items()}
    for number, rate in enumerate(RATES):
        first = max(means, key=lambda name: means[name][number])
        print(f"  rate {rate:<5g} first {first} {means[first][number]:.3f}", end="")
        print(f"   relu {means['relu'][number]:.3f}   linear {means['linear'][number]:.3f}")
    gap = means["sigmoid"][-1] - max(means[name][-1] for name in means if name != "sigmoid")
    text = f"at rate {RATES[-1]:g} sigmoid beats all others by {{}}: they only guess"
    expect("unfair", text, gap, at_least=0.05)

    print("  Adam divides each step by the gradient's size; one rate, 0.003, for all:")
    x, y = split(data.x_train, data.y_train, data)
    x_val, y_val = split(data.x_val, data.y_val, data)
    rows = {}
    for name in ["sigmoid", "softplus", "relu"]:
        weights = train_adam(cfg, NINE[name], x, y, seeds)
        right = forward(weights, x_val, NINE[name]).argmax(dim=2) == y_val
        rows[f"{name}_best"] = means[name].max().item()
        rows[f"{name}_adam"] = right.float().mean().item()
        print(f"    {name:<9} {rows[f'{name}_adam']:.3f}, before {rows[f'{name}_best']:.3f}")
    text = "sigmoid gains {} by it: small gradients were what held it back"
    expect("adam", text, rows["sigmoid_adam"] - rows["sigmoid_best"], at_least=0.15)
    return rows


# Pictures and helpers: skip on a first reading


def first_weights(sizes: list[int], function: Callable, seeds: list[int]) -> list[Tensor]:
    """For each seed a network: w1 (N, D, H), b1 (N, 1, H), w2, b2 and so on, in stacks of N.

    All activations get the same random numbers, times their gain; small ones in the last layer.
    """
    scales = [1.0] + [gain(function)] * (len(sizes) - 3) + [0.1]
    weights = []
    for layer, scale in enumerate(scales):
        shape = sizes[layer : layer + 2]
        numbers = torch.stack([normal_numbers(seed, layer, shape) for seed in seeds])
        weights.append(numbers * scale / math.sqrt(shape[0]))
        weights.append(torch.zeros(len(seeds), 1, shape[1]))
    return [w.requires_grad_() for w in weights]


def train_adam(cfg: Config, function: Callable, x: Tensor, y: Tensor, seeds: list) -> list[Tensor]:
    """Adam works on each number alone, so here too every network is trained as if alone."""
    weights = first_weights(sizes_of(cfg), function, seeds)
    optimizer = torch.optim.Adam(weights, lr=0.003)
    for batch_x, batch_y in shuffled(x, y, cfg):
        optimizer.zero_grad()
        losses(forward(weights, batch_x, function), batch_y).sum().backward()
        optimizer.step()
    return weights


def gradient_norms(weights: list[Tensor], x: Tensor, y: Tensor, function: Callable) -> Tensor:
    """The size of the gradient of w1, w2, …: (layers,), the geometric mean of the N networks."""
    total = losses(forward(weights, x, function), y).sum()
    gradients = torch.autograd.grad(total, weights[::2])
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients])
    return norms.log().mean(dim=1).exp()


def normal_quantiles() -> Tensor:
    """10,000 numbers that stand for the normal distribution, without the luck of a draw."""
    return torch.special.ndtri((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)


def normal_numbers(seed: int, layer: int, shape: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + layer)
    return torch.randn(*shape, generator=generator)


def identity(z: Tensor) -> tuple[Tensor, Tensor]:
    """No activation: the whole network is then one linear layer, the baseline."""
    return z, torch.ones_like(z)


def sizes_of(cfg: Config) -> list[int]:
    return [64] + [cfg.hidden_dim] * cfg.depth + [10]


def as_module(weights: list[Tensor]) -> nn.Sequential:
    """One network of the stack, with GELU, as torch builds it."""
    layers = []
    for w, b in zip(weights[::2], weights[1::2]):
        linear = nn.Linear(*w.shape).double()
        linear.load_state_dict({"weight": w.T, "bias": b[0]})
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


def shuffled(x: Tensor, y: Tensor, cfg: Config) -> list[Split]:
    """All batches of all epochs."""
    generator = torch.Generator().manual_seed(cfg.seed)
    batches = []
    for _ in range(cfg.epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(64):
            batches.append((x[chosen], y[chosen]))
    return batches


def split(x, y, data: ImageSet) -> Split:
    """uint8 pictures (n, 8, 8) -> floats (n, 64), standardised with the training mean and sd."""
    mean, sd = float(data.x_train.mean()), float(data.x_train.std())
    return (torch.from_numpy(x).flatten(1).float() - mean) / sd, torch.from_numpy(y)


def draw_depth(cfg: Config, norms: dict[str, Tensor]) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    for name, values in norms.items():
        colour = {"sigmoid": RED, "softplus": ORANGE}.get(name, BLUE)
        axis.semilogy(range(1, 11), values, "o-", color=colour, markersize=4)
    for name, colour in [("sigmoid", RED), ("softplus", ORANGE), ("relu", BLUE)]:
        label = "the other seven" if name == "relu" else name
        axis.text(5.5, norms[name][5] / 2, label, color=colour, fontweight="bold", va="top")
    axis.set(
        xlabel="layer (1: at the input)",
        ylabel="gradient norm",
        title="Before training two lose the gradient",
    )
    save_figure(figure, cfg.out / "depth")


def draw_table(cfg: Config, scores: dict[str, Tensor], by_rate: dict[str, Tensor]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.6))
    names = [name for name in scores if name != "sigmoid"]
    for place, name in enumerate(names):
        left.plot(scores[name], [place] * cfg.seeds, "o", color=GREY, alpha=0.6)
        left.plot(scores[name].mean(), place, "|", color=BLUE, markersize=22, markeredgewidth=3)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel="test accuracy", title="Each at its best rate (sigmoid lies far left)")

    chosen = [("sigmoid", RED), ("softplus", ORANGE), ("relu", BLUE), ("linear", GREY)]
    for name, colour in chosen:
        right.semilogx(RATES, by_rate[name].mean(dim=1), "o-", color=colour, label=name)
    right.set(xlabel="learning rate", ylim=(0, 1.05), title="Validation accuracy by rate")
    right.legend(loc="upper right")
    save_figure(figure, cfg.out / "table")


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    norms = show_depth(cfg, data)
    show_stack(cfg, data)
    seeds = list(range(10 * cfg.seed, 10 * cfg.seed + cfg.seeds))
    scores, by_rate = show_table(cfg, data, seeds)
    rows = show_unfair(cfg, data, seeds, by_rate)
    draw_depth(cfg, norms)
    draw_table(cfg, scores, by_rate)
    means = {name: values.mean().item() for name, values in scores.items()}
    seven = [means[name] for name in SEVEN]
    rows |= {"range": max(seven) - min(seven), "relu_sd": scores["relu"].std().item()}
    return {"reaches": (norms["sigmoid"][0] / norms["sigmoid"][9]).item(), **means, **rows}


if __name__ == "__main__":
    main(run, Config, __doc__)
