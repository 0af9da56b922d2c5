"""4.6 Dropout: training an ensemble in one network
Dropout：在一个网络里训练许多子网络

You will be able to answer
    1. What does dropout change, and when?    show_dropout   factors, eval
    2. What is kept, and what becomes noisy?  show_noise     by-hand
    3. What does one pass stand for?          show_ensemble  sampled, geometric
    4. Does it help against wrong labels?     show_labels    overfits, depends, gap, gain
    5. What does disagreement find, or miss?  show_doubt     disagree, finds, turned
Predict   sure: how sure is a network, on average, of digits that are turned by 90 degrees?
Run       python phase04_mlp/06-dropout.py                                 about 20 s
Needs     phase03_pytorch/09-training-loop
Learns    overfits, depends
Reference nn.Dropout, F.dropout
Notation  B batch  D inputs  C classes  p probability of being dropped
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images
from common.figures import BLUE, GREEN, ORANGE, RED, new_figure, plot_curves, save_figure
from common.lessons import load_lesson
from common.training import evaluate, fit

cross_entropy = load_lesson("phase03_pytorch/09-training-loop").cross_entropy
Batch = tuple[Tensor, Tensor]


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    hidden_dim: int = param(256, "width of the two hidden layers", tiny=64)
    seeds: int = param(5, "training sets with wrong labels", tiny=1)
    epochs: int = param(150, "passes over 200 samples with wrong labels", tiny=60)
    epochs_all: int = param(50, "passes over all samples", tiny=5)
    passes: int = param(50, "passes with dropout on for one prediction", tiny=10, low=2)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Inverted dropout (Hinton et al. 2012). 0 <= p < 1.

    In training each number is set to 0 with the probability p, and divided by 1 - p otherwise.
    """
    # practice: Inverted dropout
    if not training:
        return x
    kept = torch.rand_like(x) >= p

    # The mean over all masks is then x itself: p · 0 + (1 - p) · x / (1 - p).
    return x * kept / (1 - p)
    # end practice


class Dropout(nn.Module):
    """The layer: model.train() and model.eval() set self.training."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


def show_dropout(cfg: Config) -> None:
    print("\n[1] In training 30 % of the numbers become 0; in evaluation nothing happens")
    x = torch.rand(200, 500, dtype=torch.float64) + 1
    x.requires_grad_()
    out = Dropout(0.3)(x)
    print(f"  numbers from 1 to 2 became {out[0, :6].detach().numpy().round(2)}")
    out.sum().backward()
    theirs = nn.Dropout(0.3)(x) / x
    factors = torch.cat([out / x, x.grad]).round(decimals=12).unique()
    text = "numbers and gradients are multiplied by 0 or 1 / 0.7, as by nn.Dropout"
    check_close("factors", text, factors, theirs.round(decimals=12).unique())

    text = "in evaluation the numbers come out as they went in"
    check("eval", text, torch.equal(Dropout(0.3).eval()(x), x))


def show_noise(cfg: Config) -> None:
    print("\n[2] A weighted sum keeps its mean, and gets a variance")
    x, w = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    sums = dropout(x.expand(20_000, 2), 0.2, training=True) @ w
    values, counts = sums.round(decimals=6).unique(return_counts=True)
    print(f"  x = (2, 1), w = (1, 2), p = 0.2: sums {values.tolist()}, {counts.tolist()} times")
    text = "20,000 masks: mean 4, the sum without dropout, and variance 2, as on paper, up to {}"
    mean_and_variance = torch.stack([sums.mean(), sums.var()])
    # Five standard errors of the variance; those of the mean are half as large.
    check_close("by-hand", text, mean_and_variance, torch.tensor([4.0, 2.0]), rtol=0, atol=0.1)


def mc_predict(model: nn.Module, x: Tensor, passes: int) -> Tensor:
    """Class probabilities of several passes with dropout on: x (B, D) -> (passes, B, C).

    MC dropout (Gal and Ghahramani 2016). Only dropout layers are in training mode for it, and none
    of them afterwards.
    """
    # practice: Ask the ensemble
    model.eval()
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.train()

    with torch.no_grad():
        answers = [model(x).softmax(dim=-1) for _ in range(passes)]
    model.eval()
    return torch.stack(answers)
    # end practice


def show_ensemble(cfg: Config) -> None:
    print("\n[3] Eight hidden units: 256 sub-networks, with the same weights in all of them")
    hidden = torch.rand(5, 8, dtype=torch.float64)
    layer = nn.Linear(8, 3).double().requires_grad_(False)
    layer.weight *= 5  # so that the sub-networks differ clearly
    # In evaluation this batch norm (next lesson) changes nothing; in training it would.
    norm = nn.BatchNorm1d(8, eps=1e-12, dtype=torch.float64)
    model = nn.Sequential(nn.Sequential(norm, Dropout(0.5)), layer)
    masks, chances = all_masks(8, p=0.5)
    log_p = layer(masks[:, None] * hidden / 0.5).log_softmax(dim=-1)  # (256, B, C)
    chances = chances[:, None, None]
    arithmetic = (chances * log_p.exp()).sum(dim=0)
    sampled = mc_predict(model, hidden, passes=4000).mean(dim=0)
    # A probability's standard error is 0.5 / √4000 = 0.008 at most.
    text = "the mean of 4,000 passes with dropout on is that of all 256, up to {}"
    check("sampled", text, (sampled - arithmetic).abs().max(), below=0.036)

    one_pass = model(hidden).softmax(dim=-1)
    geometric = (chances * log_p).sum(dim=0).softmax(dim=-1)
    text = "then, in evaluation again, one pass is their geometric mean, made to sum to 1"
    check_close("geometric", text, one_pass, geometric)
    print(f"  the two means differ by up to {(arithmetic - geometric).abs().max():.3f}")


def show_labels(cfg: Config, data: ImageSet, test: Batch) -> dict[str, float]:
    print("\n[4] 200 digits, 40 of them with a random label: learn the rule, or the exceptions?")
    batch = with_wrong_labels(data, cfg.seed)
    plain = make_network(cfg, cfg.seed, drop=False)
    adam = torch.optim.Adam(plain.parameters(), lr=0.01)
    text = "all 200, wrong labels too, are learned by heart: {}"
    overfits("overfits", text, plain, batch, cross_entropy, adam)

    val = to_tensors(data.x_val, data.y_val)
    curves = {"plain": [], "dropout": []}
    scores = {"plain": [], "dropout": []}
    for seed in range(cfg.seeds * cfg.seed, cfg.seeds * (cfg.seed + 1)):
        samples = with_wrong_labels(data, seed)
        for name in scores:
            model = make_network(cfg, seed, drop=name == "dropout")
            curves[name].append(train(model, samples, cfg.epochs, seed, val))
            on_test = evaluate(model, [test], measure)
            gap = on_test["loss"] - evaluate(model, [samples], measure)["loss"]
            scores[name].append([on_test["accuracy"], on_test["loss"], gap])
    # The last network that was trained has dropout.
    predicted = model(test[0]).argmax(dim=1)
    depends_on_input("depends", "with dropout, a share of {} is right", predicted, test[1])

    metrics = {}
    for name, rows in scores.items():
        accuracy, loss, gap = np.mean(rows, axis=0)
        metrics |= {f"{name}_accuracy": accuracy, f"{name}_gap": gap}
        print(f"  {name:<8} loss: train {loss - gap:.3f}, test {loss:.3f}; accuracy {accuracy:.3f}")
    share = metrics["dropout_gap"] / metrics["plain_gap"]
    text = f"mean of {cfg.seeds}: test minus training loss falls to a share of {{}}"
    expect("gap", text, share, below=0.5)
    gain = metrics["dropout_accuracy"] - metrics["plain_accuracy"]
    expect("gain", "and a share of {} more of the test digits is right", gain, at_least=0.05)

    curves = {name: np.mean(rows, axis=0) for name, rows in curves.items()}
    draw_labels(cfg, curves)
    # Would it be enough to stop the plain network at the right moment?
    metrics["plain_lowest"] = curves["plain"].min()
    metrics["dropout_last"] = curves["dropout"][-1]
    return metrics


def mutual_information(answers: Tensor) -> Tensor:
    """How much the passes disagree, in bits: answers (passes, B, C) -> (B,).

    The entropy of the mean answer minus the mean entropy of the answers (Houlsby et al. 2011).
    """
    # practice: Disagreement in bits
    mean = answers.mean(dim=0)  # (B, C)
    return entropy(mean) - entropy(answers).mean(dim=0)
    # end practice


def entropy(p: Tensor) -> Tensor:
    """In bits, of the last axis (lesson 2.7). entr(p) is -p ln p, and 0 at p = 0."""
    return torch.special.entr(p).sum(dim=-1) / np.log(2)


def show_doubt(cfg: Config, data: ImageSet, test: Batch) -> dict[str, float]:
    print("\n[5] Trained on right digits, asked about noise and about inverted digits")
    answers = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    text = "two passes: (1, 0) and (0, 1) disagree by 1 bit, (½, ½) twice by 0"
    check_close("disagree", text, mutual_information(answers), torch.tensor([1.0, 0.0]))

    model = make_network(cfg, cfg.seed, drop=True)
    train(model, to_tensors(data.x_train, data.y_train), cfg.epochs_all, cfg.seed)
    x = test[0]
    turned = x.view(-1, 8, 8).rot90(dims=(1, 2)).flatten(1)
    inputs = {"digits": x, "noise": torch.rand(x.shape), "inverted": 1 - x, "turned": turned}
    disagreement = {}
    single = {}
    rows = {}
    print("            one pass: highest   in what share of pairs more than on a digit:")
    print("                  probability   disagreement   entropy of one pass")
    for name, pictures in inputs.items():
        disagreement[name] = mutual_information(mc_predict(model, pictures, cfg.passes))
        one_pass = model(pictures).detach().softmax(dim=-1)
        single[name] = entropy(one_pass)
        sure = one_pass.amax(dim=-1).mean().item()
        # Of all pairs of such a picture and a digit; guessing would give 0.5.
        more = share_above(disagreement[name], disagreement["digits"])
        rows[name] = (sure, more, share_above(single[name], single["digits"]))
        print(f"  {name:<10}{sure:17.3f}{more:15.3f}{rows[name][2]:22.3f}")

    found = min(rows["noise"][1], rows["inverted"][1])
    text = "noise, inverted digits: more disagreement than on a digit in {} of all pairs or more"
    expect("finds", text, found, at_least=0.9)
    text = "turned digits: in {} only; the network has never seen one, and is sure"
    expect("turned", text, rows["turned"][1], below=0.4)
    draw_doubt(cfg, [disagreement, single])
    numbers = {"sure": rows["turned"][0], "sure_inverted": rows["inverted"][0]}
    for name in ["noise", "inverted", "turned"]:
        numbers |= {name: rows[name][1], f"{name}_single": rows[name][2]}
    return numbers


# Pictures and helpers: skip on a first reading


def make_network(cfg: Config, seed: int, drop: bool) -> nn.Sequential:
    """(B, 64) -> (B, 10): dropout on the inputs and on both hidden layers, or none at all.

    The same seed gives the same first weights. The probabilities are those of the paper.
    """
    torch.manual_seed(seed)
    width = cfg.hidden_dim
    p_input, p_hidden = (0.2, 0.5) if drop else (0.0, 0.0)
    return nn.Sequential(
        Dropout(p_input),
        nn.Linear(64, width),
        nn.ReLU(),
        Dropout(p_hidden),
        nn.Linear(width, width),
        nn.ReLU(),
        Dropout(p_hidden),
        nn.Linear(width, 10),
    )


def all_masks(n: int, p: float) -> tuple[Tensor, Tensor]:
    """Every way to keep (1) or drop (0) n units (2**n, n), and its probability (2**n,)."""
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * n)
    chances = torch.where(masks == 1, 1 - p, p).prod(dim=1)
    return masks, chances


def share_above(a: Tensor, b: Tensor) -> float:
    """In which share of all pairs is the value of a larger? 0.5 if the two do not differ."""
    return (a[:, None] > b[None]).double().mean().item()


def to_tensors(x: np.ndarray, y: np.ndarray) -> Batch:
    """uint8 pictures (n, 8, 8) -> numbers from 0 to 1 (n, 64), and their labels (n,)."""
    return torch.from_numpy(x).flatten(1).float() / 16, torch.from_numpy(y)


def with_wrong_labels(data: ImageSet, seed: int) -> Batch:
    """200 training samples; 20 % of them have got a random label."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(data.y_train))[:200]
    y = data.y_train[chosen]
    y[:40] = rng.integers(10, size=40)
    return to_tensors(data.x_train[chosen], y)


def measure(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    logits = model(batch[0])
    right = logits.argmax(dim=1) == batch[1]
    return {"loss": F.cross_entropy(logits, batch[1]), "accuracy": right.float().mean()}


def train(
    model: nn.Module, samples: Batch, epochs: int, seed: int, val: Batch | None = None
) -> list[float]:
    """Adam on batches of 50. Returns the loss on `val` after each epoch."""
    loader = Batches(*samples, batch_size=50, shuffle=True, seed=seed)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def score(model: nn.Module) -> dict[str, float]:
        return evaluate(model, [val], measure)

    scored = score if val else None
    rows = fit(model, loader, adam, cross_entropy, epochs=epochs, evaluate_fn=scored, quiet=True)
    model.eval()
    return [row.get("loss") for row in rows]


def draw_labels(cfg: Config, curves: dict) -> None:
    figure, axis = new_figure(size=(8, 4.4))
    plot_curves(axis, curves, ylabel="loss on new digits")
    axis.set_title("Without dropout the loss on new digits rises again")
    save_figure(figure, cfg.out / "labels")


def draw_doubt(cfg: Config, both: list[dict]) -> None:
    figure, axes = new_figure(1, 2)
    titles = ["MC dropout: turned digits go unnoticed", "One pass: inverted digits do too"]
    for axis, bits, title in zip(axes, both, titles):
        for (name, values), colour in zip(bits.items(), [BLUE, ORANGE, GREEN, RED]):
            edges = np.linspace(0, 2.5, 26)
            axis.hist(values, edges, histtype="step", linewidth=2.5, color=colour, label=name)
        axis.set_title(title)
    axes[0].set(xlabel="disagreement in bits", ylabel="pictures")
    axes[1].set_xlabel("entropy in bits")
    axes[1].legend()
    save_figure(figure, cfg.out / "doubt")


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    test = to_tensors(*data.test())
    show_dropout(cfg)
    show_noise(cfg)
    show_ensemble(cfg)
    metrics = show_labels(cfg, data, test)
    return metrics | show_doubt(cfg, data, test)


if __name__ == "__main__":
    main(run, Config, __doc__)
