"""3.9 The training loop: the few lines that train every model in this course
训练循环：本课程的所有模型都由这几行代码训练

You will be able to answer
    1. What do the four lines of a step do?   show_step      four-lines, detached, no-zero-grad
    2. What is the loss of an epoch?          show_epoch     weighted, train-mode, same-as-fit
    3. What does evaluation do differently?   show_evaluate  mean, no-dropout, same, no-graph, modes
    4. Which epoch's weights do you keep?     show_choice    best-epoch
    5. What do you look at before and after?  show_run       first-loss, overfits, depends, score
Predict   network: what share of unseen digits does a network with one hidden layer read rightly?
Run       python phase03_pytorch/09-training-loop.py                       about 10 s
Needs     -
Reference common.training.fit, common.training.evaluate
Notation  B batch size  D input width (8x8 pixels = 64)  C classes (10)
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import ImageSet, load_images
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.training import evaluate, fit

Batch = tuple[Tensor, Tensor]


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits", "mnist"))
    epochs: int = param(20, "passes over the data", tiny=4)
    hidden_dim: int = param(128, "width of the hidden layer", tiny=64)
    lr: float = param(0.1, "learning rate")


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """From a batch to a loss: the only part of the loop that knows the task."""
    x, y = batch  # (B, D), (B,)
    return F.cross_entropy(model(x), y)  # logits (B, C)


def step(
    model: nn.Module, batch: Batch, loss_fn: Callable, optimizer: torch.optim.Optimizer
) -> Tensor:
    """One update of the weights. Returns the loss before it: a tensor without a graph."""
    # practice: One training step
    loss = loss_fn(model, batch)

    # backward() adds to .grad, so what the last step left there has to go first.
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
    # end practice


def show_step(cfg: Config, data: ImageSet) -> dict[str, list[float]]:
    print("\n[1] Forward, clear, backward, step; and what happens when nothing is cleared")
    batch = to_tensors(data, data.x_train[:32], data.y_train[:32])
    model = make_model(batch[0].shape[1], cfg)
    by_hand = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr)
    for _ in range(3):
        loss = step(model, batch, cross_entropy, optimizer)

        gradients = torch.autograd.grad(cross_entropy(by_hand, batch), list(by_hand.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(by_hand.parameters(), gradients):
                weight -= cfg.lr * gradient
    text = "three steps equal three updates w ← w − lr · gradient"
    check_close("four-lines", text, flat(model), flat(by_hand))
    check("detached", "the loss is handed back without its graph", not loss.requires_grad)

    # One weight w, samples (1, 2) and (3, 4): the loss is 5w² − 14w + 10, smallest at 1.4.
    paths = {"with zero_grad()": weight_path(clear=True), "without": weight_path(clear=False)}
    for name, path in paths.items():
        print(f"  {name:<17} w = " + "  ".join(f"{w:.3f}" for w in path[:5]))
    wanted = [[0, 0.7, 1.05, 1.225, 1.3125], [0, 0.7, 1.75, 2.625, 2.8875]]
    text = "the paths found on paper: by each gradient, and uncleared by their running sum"
    check_close("no-zero-grad", text, [path[:5] for path in paths.values()], wanted, atol=1e-5)
    return paths


def weight_path(clear: bool, steps: int = 30) -> list[float]:
    """The weight of y = w·x, from 0, at each step of gradient descent with rate 0.05."""
    x, y = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    w = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.05)
    path = [0.0]
    for _ in range(steps):
        if clear:
            optimizer.zero_grad()
        (w * x - y).square().mean().backward()
        optimizer.step()
        path.append(w.item())
    return path


def train_epoch(
    model: nn.Module, loader: DataLoader, loss_fn: Callable, optimizer: torch.optim.Optimizer
) -> float:
    """One pass over the data. Returns the mean loss of a sample."""
    # practice: One epoch
    model.train()
    total = 0.0
    seen = 0
    for batch in loader:
        loss = step(model, batch, loss_fn, optimizer)

        # The loss is a mean over its batch, and the last batch may be shorter than the others.
        samples = len(batch[0])
        total += loss.item() * samples
        seen += samples
    return total / seen
    # end practice


def show_epoch(cfg: Config, data: ImageSet) -> None:
    print("\n[2] An epoch's loss is a mean over samples; the shared `fit` is this loop")
    x, y = to_tensors(data, data.x_train[:70], data.y_train[:70])
    loader = DataLoader(TensorDataset(x, y), batch_size=32)  # 32 + 32 + 6
    model = make_model(x.shape[1], cfg)
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    batch_losses = [cross_entropy(model, batch).item() for batch in loader]
    all_at_once = cross_entropy(model, (x, y)).item()
    mean = sum(batch_losses) / 3
    print(f"  70 samples at once {all_at_once:.5f}, mean of the batches' losses {mean:.5f}")
    ours = train_epoch(model, loader, lambda *both: 2 * cross_entropy(*both), frozen)
    text = "an epoch's loss, here twice the cross-entropy, is that of all 70 samples at once"
    check_close("weighted", text, ours, 2 * all_at_once, atol=1e-5)  # sums in another order

    # Dropout sets a random half of its inputs to 0, in training only.
    noisy = nn.Sequential(nn.Dropout(0.5), model)
    first = train_epoch(noisy.eval(), loader, cross_entropy, frozen)
    second = train_epoch(noisy.eval(), loader, cross_entropy, frozen)
    text = "dropout is on in training: two epochs without learning differ by {}"
    check("train-mode", text, abs(first - second), above=1e-4)

    model = make_model(x.shape[1], cfg)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9)
    losses = [train_epoch(model, loader, cross_entropy, optimizer)]
    after = cross_entropy(model, (x, y)).item()
    print(f"  epoch 1 reports {losses[0]:.3f}; the weights at its end give {after:.3f}")
    losses += [train_epoch(model, loader, cross_entropy, optimizer) for _ in range(2)]
    optimizer = torch.optim.SGD(twin.parameters(), lr=cfg.lr, momentum=0.9)
    rows = fit(twin, loader, optimizer, cross_entropy, epochs=3, quiet=True)
    ours = torch.cat([torch.tensor(losses), flat(model)])
    theirs = torch.cat([torch.tensor([row["train_loss"] for row in rows]), flat(twin)])
    check_close("same-as-fit", "fit() gives the same three losses and weights", ours, theirs)


def accuracy(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The share of a batch whose largest logit is that of the right class."""
    x, y = batch
    return {"accuracy": (model(x).argmax(dim=1) == y).float().mean()}  # (B, C) -> (B,) -> ()


def evaluate_accuracy(model: nn.Module, loader: DataLoader) -> float:
    """The accuracy over all samples, measured without learning from them."""
    # practice: The evaluation loop
    model.eval()
    correct = 0.0
    seen = 0
    with torch.no_grad():
        for batch in loader:
            samples = len(batch[0])
            correct += accuracy(model, batch)["accuracy"].item() * samples
            seen += samples
    return correct / seen
    # end practice


def show_evaluate(cfg: Config, data: ImageSet) -> None:
    print("\n[3] To evaluate: layers in evaluation mode, no graph, and no step")
    # Softmin gives the smallest input the largest output: the classes are 0, 1, 0.
    small = torch.tensor([[1.0, 3.0], [2.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 1, 1])
    found = accuracy(nn.Softmin(dim=1), small)["accuracy"]
    check_close("mean", "of three samples made by hand, two are right", found, 2 / 3)

    x, y = to_tensors(data, data.x_train[:70], data.y_train[:70])
    loader = DataLoader(TensorDataset(x, y), batch_size=32)
    model = nn.Sequential(nn.Dropout(0.5), make_model(x.shape[1], cfg))
    first = evaluate_accuracy(model.train(), loader)
    second = evaluate_accuracy(model.train(), loader)
    check("no-dropout", "dropout is off: two evaluations give the same", first == second)
    shared = evaluate(model, loader, accuracy)["accuracy"]
    check_close("same", "the shared evaluate() gives the same accuracy", first, shared)

    graphs = []
    model.register_forward_hook(lambda layer, inputs, out: graphs.append(out.requires_grad))
    evaluate_accuracy(model, loader)
    check("no-graph", f"none of the {len(graphs)} batches built a graph", not any(graphs))

    # Batch norm subtracts the batch's mean and divides by its standard deviation. In evaluation it
    # takes running averages of them, kept from training.
    inputs = x.shape[1]
    layers = [nn.LayerNorm(inputs), nn.GELU(), nn.Dropout(0.5), nn.BatchNorm1d(inputs)]
    differs = [not torch.equal(layer.train()(x), layer.eval()(x)) for layer in layers]
    changed = [type(layer).__name__ for layer, does in zip(layers, differs) if does]
    text = f"of {len(layers)} kinds of layer, eval() changes {' and '.join(changed)}"
    check("modes", text, changed == ["Dropout", "BatchNorm1d"])


def train(
    model: nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    epochs: int,
) -> list[float]:
    """Train, and keep the epoch that is best on the validation data. Returns their accuracies."""
    # practice: Keep the best epoch
    accuracies = []
    for _ in range(epochs):
        train_epoch(model, train_loader, cross_entropy, optimizer)
        accuracies.append(evaluate_accuracy(model, val_loader))
        if accuracies[-1] == max(accuracies):
            # state_dict() refers to the weights themselves, which the next step will change.
            best_state = copy.deepcopy(model.state_dict())

    model.load_state_dict(best_state)
    return accuracies
    # end practice


class InTurn(list):
    """Several loaders, of which each epoch takes the next."""

    def __iter__(self) -> Iterator[Batch]:
        assert self, "an epoch is to read the training data once"
        return iter(self.pop(0))


def show_choice(cfg: Config, data: ImageSet) -> None:
    print("\n[4] Validation data chooses the epoch; from the third on, the labels are made wrong")
    x, y = to_tensors(data, data.x_train, data.y_train)
    good = make_loader(cfg, x, y, shuffle=True)
    wrong = make_loader(cfg, x, (y + 1) % 10, shuffle=True)
    val = make_loader(cfg, *to_tensors(data, data.x_val, data.y_val))
    model = make_model(x.shape[1], cfg).to(cfg.torch_device())
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9)
    loaders = InTurn([good, good, wrong, wrong, wrong])
    loaders.dataset = good.dataset  # for a loop that asks it how many samples there are
    accuracies = train(model, loaders, val, optimizer, epochs=5)

    kept = evaluate_accuracy(model, val)
    print("  validation accuracy by epoch: " + "  ".join(f"{a:.3f}" for a in accuracies))
    text = "of five epochs, the weights of the best are kept"
    check_close("best-epoch", text, [kept, len(accuracies)], [max(accuracies), 5])


def show_run(cfg: Config, data: ImageSet) -> tuple[dict[str, list[float]], dict[str, float]]:
    print("\n[5] A whole run: does it start at chance, can it learn, what comes out?")
    train_loader = make_loader(cfg, *to_tensors(data, data.x_train, data.y_train), shuffle=True)
    val_loader = make_loader(cfg, *to_tensors(data, data.x_val, data.y_val))
    x, y = train_loader.dataset.tensors
    batch = (x[:32], y[:32])

    fresh = make_model(x.shape[1], cfg).to(x.device)
    first = cross_entropy(fresh, batch).item()
    text = "the first loss is {}, near ln 10 = 2.30: all classes equally likely"
    check("first-loss", text, first, above=2.05, below=2.55)
    sgd = torch.optim.SGD(fresh.parameters(), lr=0.5, momentum=0.9)
    overfits("overfits", "32 samples are learned by heart: {}", fresh, batch, cross_entropy, sgd)

    test_loader = make_loader(cfg, *to_tensors(data, *data.test()))
    most_frequent = y.bincount().argmax()  # in the training data: test labels decide nothing
    x, y = test_loader.dataset.tensors
    scores = {"majority": (y == most_frequent).float().mean().item()}
    curves = {}
    for name in ["linear", "network"]:
        model = make_model(x.shape[1], cfg) if name == "network" else nn.Linear(x.shape[1], 10)
        model.to(x.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9)
        curves[name] = train(model, train_loader, val_loader, optimizer, cfg.epochs)
        scores[name] = evaluate_accuracy(model, test_loader)
    print("  test accuracy:  " + "   ".join(f"{k} {score:.3f}" for k, score in scores.items()))
    depends_on_input("depends", "the answer depends on the picture", model(x).argmax(dim=1), y)
    text = "the share of test digits that the network reads rightly is {}"
    expect("score", text, scores["network"], at_least=0.95)
    return curves, scores


def make_model(inputs: int, cfg: Config) -> nn.Sequential:
    """(B, D) -> (B, C). The same seed gives the same first weights."""
    torch.manual_seed(cfg.seed)
    hidden = cfg.hidden_dim
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


# Pictures and helpers: skip on a first reading


def draw_loop(cfg: Config, paths: dict, curves: dict, scores: dict) -> None:
    figure, (left, right) = new_figure(1, 2)
    for (name, path), colour in zip(paths.items(), [BLUE, ORANGE]):
        left.plot(path, "o-", color=colour, markersize=4, label=name)
    left.axhline(1.4, color=GREY, linestyle="--", label="smallest loss")
    left.set(xlabel="step", ylabel="weight", ylim=(-0.4, 4.4), title="One weight, cleared or not")
    left.legend(loc="upper right")

    for (name, curve), colour in zip(curves.items(), [ORANGE, BLUE]):
        right.plot(range(1, len(curve) + 1), curve, "o-", color=colour, markersize=4, label=name)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="epoch", ylabel="validation accuracy")
    right.set_title(f"Network and linear model; one class always: {scores['majority']:.2f}")
    right.legend(loc="lower right")
    save_figure(figure, cfg.out / "loop")


def make_loader(cfg: Config, x: Tensor, y: Tensor, shuffle: bool = False) -> DataLoader:
    """The data lies on the device from the start: it is small, and no batch has to be moved."""
    device = cfg.torch_device()
    dataset = TensorDataset(x.to(device), y.to(device))
    order = torch.Generator().manual_seed(cfg.seed)
    return DataLoader(dataset, 64, shuffle=shuffle, generator=order)


def to_tensors(data: ImageSet, x, y) -> Batch:
    """uint8 pictures (n, H, W) -> numbers from 0 to 1 (n, H·W), and their labels (n,)."""
    return torch.from_numpy(x).flatten(1).float() / data.brightest, torch.from_numpy(y)


def flat(model: nn.Module) -> Tensor:
    """All weights in one vector, to compare models."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    paths = show_step(cfg, data)
    show_epoch(cfg, data)
    show_evaluate(cfg, data)
    show_choice(cfg, data)
    curves, scores = show_run(cfg, data)
    draw_loop(cfg, paths, curves, scores)
    return {**scores, "val_accuracy": curves}


if __name__ == "__main__":
    main(run, Config, __doc__)
