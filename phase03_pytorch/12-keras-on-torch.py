"""3.12 Keras on torch: the same two models in two languages
Keras 与 torch：同样两个模型，两种写法

You will be able to answer
    1. Do both libraries count the same parameters?  show_counts         cnn-count, lstm-extra
    2. How does a CNN move from one to the other?    show_cnn_layouts    cnn-to-torch, cnn-to-keras, flatten-order
    3. Where are the LSTM's 256 extra parameters?    show_lstm_layouts   lstm-to-torch, lstm-to-keras, twins
    4. What do compile() and fit() do?               show_same_training  same-losses, same-weights
    5. Do both learn, from what they are shown?      show_learning       cnn-fits, cnn-input, lstm-fits, lstm-input
    6. The library or the start: what matters?       show_learning       scores, starts
Run       python phase03_pytorch/12-keras-on-torch.py                     about 35 s, 6 of them to import Keras
Needs     phase03_pytorch/09-training-loop
Notation  B batch  T words of a review  H, W height, width  I, O inputs, outputs of a layer
"""

import os
import random
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREEN, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import evaluate, fit

loop = load_lesson("phase03_pytorch/09-training-loop")
NOUNS = ["food", "service", "room", "view", "music", "staff", "wine", "bread", "soup", "garden"]
GOOD = ["good", "lovely", "great", "warm", "fresh", "kind", "quick", "fine"]
BAD = ["bad", "awful", "poor", "cold", "stale", "rude", "slow", "dull"]
WORDS, LENGTH = ["<pad>", "the", "was", "not", "but", "although", *NOUNS, *GOOD, *BAD], 11
LOOKS = (
    ("Keras", ORANGE, 8, "-"),
    ("torch, from Keras's start", BLUE, 2.5, "--"),
    ("torch", GREEN, 2.5, "-"),
)


@dataclass
class Config(LessonConfig):
    data: str = param("mnist-5k", "pictures of digits", choices=("mnist-5k", "mnist"))
    digits: int = param(2000, "pictures to train on", tiny=32)
    epochs: int = param(3, "passes over the digits", tiny=2)
    reviews: int = param(3000, "generated reviews to train on", tiny=48)
    review_epochs: int = param(6, "passes over the reviews", tiny=2)
    batch_size: int = param(64, "samples in one step", tiny=32)
    lr: float = param(0.003, "learning rate of Adam, five times as much for the reviews")


def load_keras(cfg: Config) -> Any:
    os.environ.update(
        KERAS_BACKEND="torch", KERAS_HOME=str(cfg.out / "keras")
    )  # afterwards it is too late
    import keras

    keras.utils.set_random_seed(cfg.seed)
    return keras


def keras_cnn(keras: Any) -> Any:
    """(B, H, W, 1) -> (B, 10). Keras learns what comes in from the first shape; torch is told at each layer."""
    L = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Conv2D(32, 3, activation="relu"),
            L.MaxPooling2D(2),
            L.Conv2D(64, 3, activation="relu"),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(10),
        ]
    )


def torch_cnn() -> nn.Sequential:
    """(B, 1, H, W) -> (B, 10)"""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1600, 10),
    )


def keras_lstm(keras: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            keras.layers.Embedding(len(WORDS), 16),
            keras.layers.LSTM(64),
            keras.layers.Dense(2),
        ]
    )


class TorchLSTM(nn.Module):
    """keras_lstm's twin: words (B, T) -> bad or good (B, 2). Phase 6 says what goes on inside."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm = nn.Embedding(len(WORDS), 16), nn.LSTM(16, 64, batch_first=True)
        self.head = nn.Linear(64, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(
            self.lstm(self.words(tokens))[0][:, -1]
        )  # Keras's layer gives only the last output


def cnn_to_torch(weights: list) -> dict[str, Tensor]:
    """model.get_weights() of keras_cnn, as a state_dict for torch_cnn."""
    # practice: Keras's numbers in torch's order
    # hint: kernels H, W, I, O become O, I, H, W; a dense kernel I, O is transposed
    # hint: Keras flattens 5 x 5 x 64 with the channels last, torch with the channels first: the 1600 rows move
    # hint: dense.reshape(5, 5, 64, 10).permute(2, 0, 1, 3), then flatten it again and transpose
    first, bias_1, second, bias_2, dense, bias_3 = map(torch.from_numpy, weights)
    dense = dense.reshape(5, 5, 64, 10).permute(2, 0, 1, 3).reshape(1600, 10)
    return {
        "0.weight": first.permute(3, 2, 0, 1),
        "0.bias": bias_1,
        "3.weight": second.permute(3, 2, 0, 1),
        "3.bias": bias_2,
        "7.weight": dense.T,
        "7.bias": bias_3,
    }
    # end practice


def cnn_to_keras(state: dict[str, Tensor]) -> list[Tensor]:
    """The way back, for model.set_weights."""
    first, bias_1, second, bias_2, dense, bias_3 = state.values()
    dense = dense.T.reshape(64, 5, 5, 10).permute(1, 2, 0, 3).reshape(1600, 10)
    return [first.permute(2, 3, 1, 0), bias_1, second.permute(2, 3, 1, 0), bias_2, dense, bias_3]


def lstm_to_torch(weights: list) -> dict[str, Tensor]:
    # practice: one bias becomes two
    # hint: both keep the gates in the order i, f, g, o (Keras calls the third one c), so a transpose is enough
    # hint: torch adds two biases, one beside the input's kernel and one beside the state's: one of them gets zeros
    # hint: the keys are words.weight, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0, head.…
    words, kernel, recurrent, bias, head, head_bias = map(torch.from_numpy, weights)
    lstm = {
        "weight_ih": kernel.T,
        "weight_hh": recurrent.T,
        "bias_ih": bias,
        "bias_hh": torch.zeros_like(bias),
    }
    return {
        "words.weight": words,
        **{f"lstm.{name}_l0": values for name, values in lstm.items()},
        "head.weight": head.T,
        "head.bias": head_bias,
    }
    # end practice


def lstm_to_keras(state: dict[str, Tensor]) -> list[Tensor]:
    words, kernel, recurrent, bias, second_bias, head, head_bias = state.values()
    return [words, kernel.T, recurrent.T, bias + second_bias, head.T, head_bias]


def make_reviews(count: int, seed: int, nouns: list[str]) -> list[Tensor]:
    """Word numbers (count, T) with zeros in front, and 1 where the review is good (count,). Each praises one thing and
    blames another; “but” and “although” say which counts. So no list of good words decides: the order does."""
    rng, tokens, labels = random.Random(seed), torch.zeros(count, LENGTH, dtype=torch.long), []
    for row in tokens:
        labels.append(rng.randrange(2))
        told, conceded = (
            [
                "the",
                rng.choice(nouns),
                "was",
                *["not"] * negated,
                rng.choice([BAD, GOOD][good ^ negated]),
            ]
            for good, negated in (
                (labels[-1], rng.randrange(2)),
                (1 - labels[-1], rng.randrange(2)),
            )
        )
        words = rng.choice(
            [
                [*conceded, "but", *told],
                ["although", *conceded, *told],
                [*told, "although", *conceded],
            ]
        )
        row[-len(words) :] = torch.tensor([WORDS.index(word) for word in words])
    return [tokens, torch.tensor(labels)]


def race(
    cfg: Config, keras: Any, models: list, train: list, val: list, epochs: int, lr: float
) -> list[list[float]]:
    """Train a Keras model and two of torch, which see the same batches; for each the accuracy on `val` by epoch."""
    models[0].compile(
        optimizer=keras.optimizers.Adam(lr),
        metrics=["accuracy"],
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = (
        models[0]
        .fit(*train, cfg.batch_size, epochs, verbose=0, shuffle=False, validation_data=val)
        .history
    )
    (x, y), (x_val, y_val) = ((channels_first(x), y) for x, y in (train, val))
    rows = [
        fit(
            model,
            Batches(x, y, batch_size=cfg.batch_size),
            torch.optim.Adam(model.parameters(), lr, eps=1e-7),
            loop.cross_entropy,
            epochs=epochs,
            quiet=True,  # 1e-7 is Keras's eps, torch's is 1e-8
            evaluate_fn=lambda m: evaluate(m, [(x_val, y_val)], loop.accuracy),
        )
        for model in models[1:]
    ]
    return [history["val_accuracy"], *([row["accuracy"] for row in history] for history in rows)]


def channels_first(x: Tensor) -> Tensor:
    return x.movedim(3, 1) if x.ndim == 4 else x


def show_counts(keras: Any) -> dict[str, int]:
    print("\n[1] Two ways to write a model, one number of parameters; but for the LSTM")
    models = {"cnn": (keras_cnn(keras), torch_cnn()), "lstm": (keras_lstm(keras), TorchLSTM())}
    cnn, lstm = (
        (ours.count_params(), sum(p.numel() for p in twin.parameters()))
        for ours, twin in models.values()
    )
    formula = (3 * 3 * 1 + 1) * 32 + (3 * 3 * 32 + 1) * 64 + (5 * 5 * 64 + 1) * 10
    check(
        "cnn-count",
        f"the CNN has {formula:,} in both",
        cnn == (formula, formula) == (34_826, 34_826),
    )
    check(
        "lstm-extra",
        f"the LSTM has {lstm[0]:,} in Keras, 4 · 64 = 256 more in torch",
        lstm[1] - lstm[0] == 4 * 64,
    )
    return {"cnn_parameters": cnn[0], "lstm_parameters": lstm[0]}


def show_cnn_layouts(cfg: Config, keras: Any) -> None:
    print("\n[2] The same numbers in another order: H, W, I, O against O, I, H, W")
    rng, ours, twin, fresh, x = (
        cfg.rng(),
        keras_cnn(keras),
        torch_cnn(),
        torch_cnn(),
        torch.rand(32, 28, 28, 1),
    )
    ours.set_weights(
        [rng.normal(0, 0.1, w.shape) for w in ours.get_weights()]
    )  # fresh biases are all 0
    twin.load_state_dict(cnn_to_torch(ours.get_weights()))
    check_close(
        "cnn-to-torch",
        "Keras's numbers in torch: the same outputs",
        twin(channels_first(x)),
        ours(x),
    )
    twin[7].weight.data.copy_(torch.from_numpy(ours.get_weights()[4]).T)
    check(
        "flatten-order",
        "with the dense kernel only transposed: right shape, no error, and an output off by",
        (twin(channels_first(x)) - ours(x)).abs().max().item(),
        above=0.1,
    )
    ours.set_weights(cnn_to_keras(fresh.state_dict()))
    check_close(
        "cnn-to-keras",
        "torch's numbers in Keras: the same outputs",
        ours(x),
        fresh(channels_first(x)),
    )


def show_lstm_layouts(cfg: Config, keras: Any) -> None:
    print("\n[3] One bias against two")
    (x, _), rng, ours, twin, fresh = (
        make_reviews(16, 0, NOUNS),
        cfg.rng(),
        keras_lstm(keras),
        TorchLSTM(),
        TorchLSTM(),
    )
    ours.set_weights([rng.normal(0, 0.3, w.shape) for w in ours.get_weights()])
    twin.load_state_dict(lstm_to_torch(ours.get_weights()))
    check_close(
        "lstm-to-torch", "transposed, the second bias zero: the same outputs", twin(x), ours(x)
    )
    ours.set_weights(lstm_to_keras(fresh.state_dict()))
    check_close(
        "lstm-to-keras",
        "on the way back the two biases are added: the same outputs",
        ours(x),
        fresh(x),
    )
    fresh(x).square().mean().backward()
    first, second = fresh.lstm.bias_ih_l0.grad, fresh.lstm.bias_hh_l0.grad
    check(
        "twins",
        "both biases always get one and the same gradient",
        torch.equal(first, second) and bool(first.any()),
    )


def show_same_training(keras: Any) -> None:
    print("\n[4] compile() and fit() are the loop of lesson 9: same start, same batches, same end")
    ours, twin, x, y = (
        keras_cnn(keras),
        torch_cnn(),
        torch.rand(24, 28, 28, 1),
        torch.randint(10, (24,)),
    )
    twin.load_state_dict(cnn_to_torch(ours.get_weights()))
    ours.compile(
        optimizer=keras.optimizers.SGD(0.02, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = ours.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.02, momentum=0.9)
    rows = fit(
        twin,
        Batches(channels_first(x), y, batch_size=16),
        optimizer,
        loop.cross_entropy,
        epochs=2,
        quiet=True,
    )
    check_close(
        "same-losses",
        "the same losses, so Keras too weights a short batch by its samples",
        history["loss"],
        [row["train_loss"] for row in rows],
        atol=1e-5,
    )
    ends = [
        torch.cat([w.flatten() for w in s.values()])
        for s in (cnn_to_torch(ours.get_weights()), twin.state_dict())
    ]
    check_close("same-weights", "four steps with momentum end at the same weights", *ends)


def show_learning(cfg: Config, keras: Any) -> dict[str, Any]:
    print("\n[5] A digit or a review does not know who trains; where training starts does matter")
    data, device, found = load_images(cfg), cfg.torch_device(), {}
    digits = [
        [torch.from_numpy(x)[..., None] / 255, torch.from_numpy(y)]
        for x, y in (
            (data.x_train[: cfg.digits], data.y_train[: cfg.digits]),
            (data.x_val, data.y_val),
            data.test(),
        )
    ]
    reviews = [
        make_reviews(count, 10 * cfg.seed + count, nouns)
        for count, nouns in (  # the test has nouns of its own
            (cfg.reviews, NOUNS[:7]),
            (cfg.reviews // 6, NOUNS[:7]),
            (cfg.reviews // 3, NOUNS[7:]),
        )
    ]
    figure, axes = new_figure(1, 2, size=(13, 4.8))
    for axis, task, make, make_twin, convert, parts, epochs, lr in (
        (axes[0], "cnn", keras_cnn, torch_cnn, cnn_to_torch, digits, cfg.epochs, cfg.lr),
        (
            axes[1],
            "lstm",
            keras_lstm,
            TorchLSTM,
            lstm_to_torch,
            reviews,
            cfg.review_epochs,
            5 * cfg.lr,
        ),
    ):
        train, val, (x, y) = [[t.to(device) for t in part] for part in parts]
        models, probe = [make(keras), make_twin().to(device), make_twin().to(device)], make(keras)
        few, rate, steps = [t[:16] for t in train], *((0.01, 16) if task == "cnn" else (0.02, 40))
        overfits(
            f"{task}-fits",
            f"torch's Adam trains Keras's {task}: 16 by heart",
            probe,
            few,
            loop.cross_entropy,
            torch.optim.Adam(probe.parameters(), rate),
            steps=steps,
        )
        depends_on_input(
            f"{task}-input",
            "its answer depends on which of the 16 it is shown",
            probe(few[0]).argmax(dim=1),
            few[1],
        )
        models[1].load_state_dict(convert(models[0].get_weights()))  # where Keras starts
        curves = race(cfg, keras, models, train, val, epochs, lr)
        for curve, (label, colour, width, dashes) in zip(curves, LOOKS):
            axis.plot(
                range(1, epochs + 1), curve, dashes, color=colour, linewidth=width, label=label
            )
        axis.set(
            title=task.upper(),
            xlabel="epoch",
            ylabel="accuracy",
            ylim=(0.4, 1.03),
            xticks=range(1, epochs + 1),
        )
        scores = [
            (z.argmax(dim=1) == y).float().mean().item()
            for z in (models[0](x), models[2](channels_first(x)))
        ]
        found |= {f"keras_{task}": scores[0], f"torch_{task}": scores[1], f"curves_{task}": curves}
        print(
            "  held-out: Keras {:.3f}   torch {:.3f}   majority {:.3f}".format(
                *scores, y.bincount().max() / len(y)
            )
        )
    axes[0].legend(loc="lower right")
    save_figure(figure, cfg.out / "twins")
    expect(
        "scores",
        "the worst of four, unseen",
        min(v for k, v in found.items() if "curves" not in k),
        at_least=0.88,
    )
    means = [sum(curve) / len(curve) for curve in found["curves_lstm"]]
    expect(
        "starts",
        "mean accuracy torch's LSTM loses if it starts as Keras's",
        means[2] - means[1],
        at_least=0.03,
    )
    return found


def run(cfg: Config) -> dict:
    keras = load_keras(cfg)
    with keras.device("cpu"):  # equalities are shown on the CPU
        counts = show_counts(keras)
        show_cnn_layouts(cfg, keras)
        show_lstm_layouts(cfg, keras)
        show_same_training(keras)
    with keras.device(str(cfg.torch_device())):  # or Keras takes the first GPU it finds
        return counts | show_learning(cfg, keras)


if __name__ == "__main__":
    main(run, Config, __doc__)
