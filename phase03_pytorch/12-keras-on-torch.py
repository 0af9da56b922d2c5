"""3.12 Keras on torch: the same two models in two languages
Keras 与 torch：同样两个模型，两种写法

You will be able to answer
    1. How does a CNN move to torch?    show_cnn       cnn-count, cnn-outputs, unmoved-rows
    2. How does an LSTM move to torch?  show_lstm      lstm-count, lstm-outputs, one-gradient
    3. What do compile() and fit() do?  show_fit       losses, weights
    4. Can torch train a Keras model?   show_training  cnn-fits, cnn-input, lstm-fits, lstm-input
    5. Which differs, library or start?  show_learning  recurrent, bound, scores, unmapped, starts
Predict   unmapped: of a trained CNN one kernel is moved wrongly; what share of digits does it read?
Run       python phase03_pytorch/12-keras-on-torch.py                     about 40 s
Needs     phase03_pytorch/09-training-loop
Reference -
"""

import os
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREEN, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import to_device

loop = load_lesson("phase03_pytorch/09-training-loop")
NOUNS = ["food", "service", "room", "view", "music", "staff", "wine", "bread", "soup", "garden"]
GOOD = ["good", "lovely", "great", "warm", "fresh", "kind", "quick", "fine"]
BAD = ["bad", "awful", "poor", "cold", "stale", "rude", "slow", "dull"]
WORDS = ["<pad>", "the", "was", "not", "but", "although", *NOUNS, *GOOD, *BAD]
LENGTH = 11  # of the longest review


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
    # Keras reads both when it is imported; afterwards it is too late.
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["KERAS_HOME"] = str(cfg.out / "keras")
    import keras

    keras.utils.set_random_seed(cfg.seed)
    return keras


def keras_cnn(keras: Any) -> Any:
    """(B, H, W, 1) -> (B, 10). A layer of Keras learns its inputs' width from the layer before."""
    layers = keras.layers
    first = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2)]
    second = [layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2)]
    head = [layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *first, *second, *head])


def torch_cnn() -> nn.Sequential:
    """(B, 1, H, W) -> (B, 10)"""
    first = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(5 * 5 * 64, 10)]
    return nn.Sequential(*first, *second, *head)


def keras_lstm(keras: Any) -> Any:
    layers = keras.layers
    words = [keras.Input((LENGTH,), dtype="int32"), layers.Embedding(len(WORDS), 16)]
    return keras.Sequential([*words, layers.LSTM(64), layers.Dense(2)])


class TorchLSTM(nn.Module):
    """Words (B, T) -> bad or good (B, 2). Phase 6 says what goes on inside of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), 16)
        self.lstm = nn.LSTM(16, 64, batch_first=True)
        self.head = nn.Linear(64, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        # practice: What Keras's LSTM layer hands on
        outputs, _ = self.lstm(self.words(tokens))  # (B, T) -> (B, T, 16) -> (B, T, 64)
        # Keras's layer gives the output after the last word only, torch's after every word.
        return self.head(outputs[:, -1])
        # end practice


def cnn_to_torch(weights: list) -> dict[str, Tensor]:
    """model.get_weights() of keras_cnn, as a state_dict for torch_cnn."""
    # practice: A CNN in torch's order
    kernel_1, bias_1, kernel_2, bias_2, dense, bias_3 = [torch.from_numpy(w) for w in weights]

    # Before the dense layer Keras flattens H, W, channels; torch flattens channels, H, W.
    dense = dense.reshape(5, 5, 64, 10).permute(2, 0, 1, 3)  # (64, 5, 5, 10)
    dense = dense.reshape(1600, 10)
    return {
        "0.weight": kernel_1.permute(3, 2, 0, 1),  # (H, W, I, O) -> (O, I, H, W)
        "0.bias": bias_1,
        "3.weight": kernel_2.permute(3, 2, 0, 1),
        "3.bias": bias_2,
        "7.weight": dense.T,  # (I, O) -> (O, I)
        "7.bias": bias_3,
    }
    # end practice


def show_cnn(cfg: Config, keras: Any) -> None:
    print("\n[1] A CNN: as many numbers in another order, H, W, I, O against O, I, H, W")
    ours = keras_cnn(keras)
    twin = torch_cnn()
    counts = [ours.count_params(), sum(p.numel() for p in twin.parameters())]
    formula = (3 * 3 * 1 + 1) * 32 + (3 * 3 * 32 + 1) * 64 + (5 * 5 * 64 + 1) * 10
    text = f"both have 320 + 18,496 + 16,010 = {formula:,} parameters"
    check_close("cnn-count", text, counts, [34_826, formula])

    # New biases are all 0 and would hide a mistake.
    x = torch.rand(32, 28, 28, 1)
    rng = cfg.rng()
    ours.set_weights([rng.normal(0, 0.1, w.shape) for w in ours.get_weights()])
    state = cnn_to_torch(ours.get_weights())
    twin.load_state_dict(state)
    outputs = twin(channels_first(x))
    check_close("cnn-outputs", "Keras's numbers in torch: the same outputs", outputs, ours(x))
    twin.load_state_dict(state | {"7.weight": torch.from_numpy(ours.get_weights()[4]).T})
    off = (twin(channels_first(x)) - ours(x)).abs().max().item()
    text = "the dense kernel only transposed: no error, and the outputs are off by up to {}"
    check("unmoved-rows", text, off, above=0.1)


def lstm_to_torch(weights: list) -> dict[str, Tensor]:
    """model.get_weights() of keras_lstm, as a state_dict for TorchLSTM."""
    # practice: One bias becomes two
    words, kernel, recurrent, bias, head, head_bias = [torch.from_numpy(w) for w in weights]
    return {
        "words.weight": words,
        "lstm.weight_ih_l0": kernel.T,
        "lstm.weight_hh_l0": recurrent.T,
        "lstm.bias_ih_l0": bias,
        # torch adds a second bias, beside the recurrent kernel; only the sum of both matters.
        "lstm.bias_hh_l0": torch.zeros_like(bias),
        "head.weight": head.T,
        "head.bias": head_bias,
    }
    # end practice


def show_lstm(cfg: Config, keras: Any) -> None:
    print("\n[2] An LSTM: one bias against two")
    x, _ = make_reviews(16, 0, NOUNS)
    ours = keras_lstm(keras)
    twin = TorchLSTM()
    more = sum(p.numel() for p in twin.parameters()) - ours.count_params()
    text = f"Keras's has {ours.count_params():,} parameters, torch's {{}} more: 4 gates of width 64"
    check("lstm-count", text, more, at_least=4 * 64, at_most=4 * 64)

    rng = cfg.rng()
    ours.set_weights([rng.normal(0, 0.3, w.shape) for w in ours.get_weights()])
    twin.load_state_dict(lstm_to_torch(ours.get_weights()))
    check_close("lstm-outputs", "with one bias zero: the same outputs", twin(x), ours(x))

    twin(x).square().mean().backward()
    grad = twin.lstm.bias_ih_l0.grad
    same = torch.equal(grad, twin.lstm.bias_hh_l0.grad) and bool(grad.any())
    check("one-gradient", "both biases get one and the same gradient, which is not 0", same)


def show_fit(keras: Any) -> None:
    print("\n[3] compile() and fit() are the loop of lesson 9: same start, same batches, same end")
    ours = keras_cnn(keras)
    twin = torch_cnn()
    twin.load_state_dict(cnn_to_torch(ours.get_weights()))
    x = torch.randn(24, 28, 28, 1)
    y = torch.randint(10, (24,))
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours.compile(optimizer=keras.optimizers.SGD(0.005, momentum=0.9), loss=loss_fn)
    history = ours.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    loader = Batches(channels_first(x), y, batch_size=16)  # 16 + 8
    sgd = torch.optim.SGD(twin.parameters(), lr=0.005, momentum=0.9)
    losses = [loop.train_epoch(twin, loader, loop.cross_entropy, sgd) for _ in range(2)]
    # Where two values nearly tie in a max-pooling, rounding decides; hence the tolerances.
    text = "the same two losses, so Keras too weights a short batch by its samples"
    check_close("losses", text, history["loss"], losses, atol=1e-4)
    ours = torch.cat([w.flatten() for w in cnn_to_torch(ours.get_weights()).values()])
    check_close("weights", "four steps end at the same weights", ours, loop.flat(twin), atol=1e-4)


def show_training(cfg: Config, keras: Any, digits: list, reviews: list) -> None:
    print("\n[4] On the torch backend a Keras model is an nn.Module, and our loop trains it")
    few_digits = (keras_cnn(keras), digits[0], 0.01, 16)
    few_reviews = (keras_lstm(keras), reviews[0], 0.02, 40)
    for name, (model, (x, y), lr, steps) in {"cnn": few_digits, "lstm": few_reviews}.items():
        few = (x[:16], y[:16])
        adam = torch.optim.Adam(model.parameters(), lr)
        text = f"torch's Adam and Keras's {name}: 16 samples learned by heart, loss {{}}"
        overfits(f"{name}-fits", text, model, few, loop.cross_entropy, adam, steps=steps)
        predicted = model(few[0]).argmax(dim=1)
        depends_on_input(f"{name}-input", "a share of {} of them is right", predicted, few[1])


def show_learning(cfg: Config, keras: Any, digits: list, reviews: list) -> dict[str, Any]:
    print("\n[5] The same data, the same optimizer: what still differs is the start")
    kernel = torch.from_numpy(keras_lstm(keras).get_weights()[2])  # (64, 256)
    text = "in Keras the rows of a new recurrent kernel are orthogonal, of length 1"
    check_close("recurrent", text, kernel @ kernel.T, torch.eye(64))
    largest = TorchLSTM().lstm.weight_ih_l0.abs().max().item()
    text = "torch's LSTM starts within 1/√64 = 0.125 of 0, here up to {}"
    check("bound", text, largest, above=0.12, at_most=0.125)

    cnn = keras_cnn(keras)
    twins = [torch_cnn(), torch_cnn()]
    twins[0].load_state_dict(cnn_to_torch(cnn.get_weights()))
    scores, curves = race(cfg, keras, cnn, twins, digits, cfg.epochs, cfg.lr)
    lstm = keras_lstm(keras)
    twins = [TorchLSTM(), TorchLSTM()]
    twins[0].load_state_dict(lstm_to_torch(lstm.get_weights()))
    more = race(cfg, keras, lstm, twins, reviews, cfg.review_epochs, 5 * cfg.lr)

    found = {"keras_cnn": scores[0], "torch_cnn": scores[2]}
    found |= {"keras_lstm": more[0][0], "torch_lstm": more[0][2]}
    print("  on test data: " + "   ".join(f"{name} {score:.3f}" for name, score in found.items()))
    text = "the worst of the four reads a share of {} of its test data rightly"
    expect("scores", text, min(found.values()), at_least=0.88)

    # The mistake of step 1, in a model that has learned something.
    x, y = digits[2]
    moved = torch_cnn().to(x.device)
    state = cnn_to_torch(cnn.get_weights())
    moved.load_state_dict(state | {"7.weight": torch.from_numpy(cnn.get_weights()[4]).T})
    found["unmapped"] = loop.evaluate_accuracy(moved, [(channels_first(x), y)])
    text = "moved with its dense kernel only transposed, the trained CNN reads a share of {}"
    expect("unmapped", text, found["unmapped"], at_most=0.6)

    means = [sum(curve) / len(curve) for curve in more[1]]
    text = "from Keras's start torch's LSTM has {} less accuracy, as a mean over the epochs"
    expect("starts", text, means[2] - means[1], at_least=0.03)
    return found | {"curves_cnn": curves, "curves_lstm": more[1]}


# Pictures and helpers: skip on a first reading


def draw_twins(cfg: Config, found: dict[str, Any]) -> None:
    figure, axes = new_figure(1, 2, size=(13, 4.8))
    looks = [(ORANGE, 8, "-"), (BLUE, 2.5, "--"), (GREEN, 2.5, "-")]
    names = ["Keras", "torch, from Keras's start", "torch"]
    for axis, task in zip(axes, ["cnn", "lstm"]):
        for name, curve, (colour, width, dashes) in zip(names, found[f"curves_{task}"], looks):
            epochs = range(1, len(curve) + 1)
            axis.plot(epochs, curve, dashes, color=colour, linewidth=width, label=name)
        axis.set(title=task.upper(), xlabel="epoch", xticks=epochs, ylim=(0.4, 1.03))
    axes[0].set_ylabel("accuracy")
    axes[0].legend(loc="lower right")
    save_figure(figure, cfg.out / "twins")


def race(cfg: Config, keras: Any, ours: Any, twins: list, parts: list, epochs: int, lr: float):
    """Train one model of Keras, two of torch. Returns their accuracies: on test data, by epoch."""
    train, val, test = parts
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours.compile(keras.optimizers.Adam(lr), loss=cross_entropy, metrics=["accuracy"])
    batch = {"batch_size": cfg.batch_size}
    log = ours.fit(*train, **batch, epochs=epochs, verbose=0, shuffle=False, validation_data=val)
    scores = [loop.evaluate_accuracy(ours, [test])]
    curves = [log.history["val_accuracy"]]

    train, val, test = [(channels_first(x), y) for x, y in parts]
    batches = Batches(*train, **batch)
    for twin in twins:
        twin.to(test[0].device)
        # 1e-7 is Keras's eps; torch's is 1e-8.
        adam = torch.optim.Adam(twin.parameters(), lr, eps=1e-7)
        curve = []
        for _ in range(epochs):
            loop.train_epoch(twin, batches, loop.cross_entropy, adam)
            curve.append(loop.evaluate_accuracy(twin, [val]))
        curves.append(curve)
        scores.append(loop.evaluate_accuracy(twin, [test]))
    return scores, curves


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, 1) -> (B, 1, H, W), as torch wants pictures; words stay as they are."""
    return x.movedim(3, 1) if x.ndim == 4 else x


def make_reviews(count: int, seed: int, nouns: list[str]) -> tuple[Tensor, Tensor]:
    """Words (count, T), zeros in front, and 1 where the review is good (count,).

    “But” and “although” say which half counts: no list of good words decides, the order does.
    """
    rng = random.Random(seed)
    tokens = torch.zeros(count, LENGTH, dtype=torch.long)
    labels = torch.zeros(count, dtype=torch.long)
    for row in range(count):
        good = rng.randrange(2)
        halves = []
        for is_good in (good, 1 - good):
            negated = rng.randrange(2)
            word = rng.choice([BAD, GOOD][is_good ^ negated])
            halves.append(["the", rng.choice(nouns), "was", *["not"] * negated, word])
        told, conceded = halves
        orders = [[*conceded, "but", *told], [*told, "although", *conceded]]
        words = rng.choice([*orders, ["although", *conceded, *told]])
        tokens[row, -len(words) :] = torch.tensor([WORDS.index(word) for word in words])
        labels[row] = good
    return tokens, labels


def make_data(cfg: Config) -> tuple[list, list]:
    """Digits (B, H, W, 1) and reviews (B, T) with their labels: for training, validation, test."""
    data = load_images(cfg)
    pictures = [(data.x_train[: cfg.digits], data.y_train[: cfg.digits])]
    pictures += [(data.x_val, data.y_val), data.test()]
    digits = [(torch.from_numpy(x)[..., None] / 255, torch.from_numpy(y)) for x, y in pictures]
    # The last part, the test, has nouns of its own.
    reviews = []
    for count, nouns in [(cfg.reviews, NOUNS[:7]), (500, NOUNS[:7]), (1000, NOUNS[7:])]:
        reviews.append(make_reviews(count, 10 * cfg.seed + len(reviews), nouns))
    return to_device((digits, reviews), cfg.torch_device())


def run(cfg: Config) -> dict[str, Any]:
    keras = load_keras(cfg)
    with keras.device("cpu"):  # equalities are shown on the CPU
        show_cnn(cfg, keras)
        show_lstm(cfg, keras)
        show_fit(keras)
    digits, reviews = make_data(cfg)
    with keras.device(str(cfg.torch_device())):  # or Keras takes the first GPU it finds
        show_training(cfg, keras, digits, reviews)
        found = show_learning(cfg, keras, digits, reviews)
    draw_twins(cfg, found)
    return found


if __name__ == "__main__":
    main(run, Config, __doc__)
