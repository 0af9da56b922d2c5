"""3.12 Keras on torch: the same two models in two languages
Keras 与 torch：同样两个模型，两种写法

You will be able to answer
    1. How does a CNN move to torch?    show_cnn       cnn-count, cnn-outputs, unmoved-rows
    2. How does an LSTM move to torch?  show_lstm      lstm-count, lstm-outputs, one-gradient
    3. What do compile() and fit() do?  show_fit       losses, weights
    4. Can torch train a Keras model?   show_training  cnn-fits, cnn-input, lstm-fits, lstm-input
    5. Which differs, library or start?  show_learning  recurrent, bound, scores, unmapped, starts
Predict   unmapped: a trained CNN is moved to torch, its dense kernel transposed and no more; what
          share of the test digits does it still read?
Run       python phase03_pytorch/12-keras-on-torch.py                     about 40 s
Needs     phase03_pytorch/09-training-loop
Reference -
Notation  B batch  T words of a review  H, W height, width  I, O inputs, outputs of a layer
"""

import os
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREEN, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

loop = load_lesson("phase03_pytorch/09-training-loop")
NOUNS = ["food", "service", "room", "view", "music", "staff", "wine", "bread", "soup", "garden"]
GOOD = ["good", "lovely", "great", "warm", "fresh", "kind", "quick", "fine"]
BAD = ["bad", "awful", "poor", "cold", "stale", "rude", "slow", "dull"]
WORDS = ["<pad>", "the", "was", "not", "but", "although", *NOUNS, *GOOD, *BAD]
LENGTH = 11  # words of the longest review


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
    """Words (B, T) -> bad or good (B, 2)"""
    layers = keras.layers
    inputs = keras.Input((LENGTH,), dtype="int32")
    words = layers.Embedding(len(WORDS), 16)
    return keras.Sequential([inputs, words, layers.LSTM(64), layers.Dense(2)])


class TorchLSTM(nn.Module):
    """The same. An LSTM reads a review word by word; phase 6 says what goes on inside."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), 16)
        self.lstm = nn.LSTM(16, 64, batch_first=True)
        self.head = nn.Linear(64, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        # practice: What Keras's LSTM layer hands on
        vectors = self.words(tokens)  # (B, T, 16)
        outputs, _ = self.lstm(vectors)  # (B, T, 64)

        # Keras's layer gives the output after the last word only, torch's after every word.
        last = outputs[:, -1]  # (B, 64)
        return self.head(last)
        # end practice


def cnn_to_torch(weights: list) -> dict[str, Tensor]:
    """model.get_weights() of keras_cnn, as a state_dict for torch_cnn."""
    # practice: A CNN in torch's order
    kernel_1, bias_1, kernel_2, bias_2, dense, bias_3 = [torch.from_numpy(w) for w in weights]

    # Before the dense layer Keras flattens H, W, channels; torch flattens channels, H, W.
    dense = dense.reshape(5, 5, 64, 10)
    dense = dense.permute(2, 0, 1, 3)  # (64, 5, 5, 10)
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
    text = "Keras's numbers in torch: the same outputs"
    check_close("cnn-outputs", text, twin(channels_first(x)), ours(x))
    twin.load_state_dict(state | {"7.weight": torch.from_numpy(ours.get_weights()[4]).T})
    difference = (twin(channels_first(x)) - ours(x)).abs().max().item()
    text = "the dense kernel only transposed: no error, and the outputs are off by up to {}"
    check("unmoved-rows", text, difference, above=0.1)


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
    count = ours.count_params()
    more = sum(p.numel() for p in twin.parameters()) - count
    text = f"Keras's has {count:,} parameters, torch's {{}} more: 4 gates of width 64"
    check("lstm-count", text, more, at_least=4 * 64, at_most=4 * 64)

    rng = cfg.rng()
    ours.set_weights([rng.normal(0, 0.3, w.shape) for w in ours.get_weights()])
    twin.load_state_dict(lstm_to_torch(ours.get_weights()))
    text = "transposed, the second bias zero: the same outputs"
    check_close("lstm-outputs", text, twin(x), ours(x))

    twin(x).square().mean().backward()
    first = twin.lstm.bias_ih_l0.grad
    second = twin.lstm.bias_hh_l0.grad
    text = "both biases get one and the same gradient, which is not 0"
    check("one-gradient", text, torch.equal(first, second) and bool(first.any()))


def show_fit(keras: Any) -> None:
    print("\n[3] compile() and fit() are the loop of lesson 9: same start, same batches, same end")
    ours = keras_cnn(keras)
    twin = torch_cnn()
    twin.load_state_dict(cnn_to_torch(ours.get_weights()))
    x = torch.rand(24, 28, 28, 1)
    y = torch.randint(10, (24,))

    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9), loss=cross_entropy)
    history = ours.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history

    loader = DataLoader(TensorDataset(channels_first(x), y), batch_size=16)  # 16 + 8
    sgd = torch.optim.SGD(twin.parameters(), lr=0.02, momentum=0.9)
    losses = [loop.train_epoch(twin, loader, loop.cross_entropy, sgd) for _ in range(2)]
    text = "the same two losses, so Keras too weights a short batch by its samples"
    check_close("losses", text, history["loss"], losses, atol=1e-5)
    moved = cnn_to_torch(ours.get_weights())
    ours = torch.cat([values.flatten() for values in moved.values()])
    text = "four steps with momentum end at the same weights"
    check_close("weights", text, ours, loop.flat(twin))


def show_training(cfg: Config, keras: Any, digits: list, reviews: list) -> None:
    print("\n[4] On the torch backend a Keras model is an nn.Module, and our loop trains it")
    settings = {
        "cnn": (keras_cnn(keras), digits[0], 0.01, 16),
        "lstm": (keras_lstm(keras), reviews[0], 0.02, 40),
    }
    for name, (model, (x, y), lr, steps) in settings.items():
        few = (x[:16], y[:16])
        adam = torch.optim.Adam(model.parameters(), lr)
        text = f"torch's Adam and Keras's {name}: 16 samples learned by heart, loss {{}}"
        overfits(f"{name}-fits", text, model, few, loop.cross_entropy, adam, steps=steps)
        text = "its answer depends on which of the 16 it is shown: {} right"
        depends_on_input(f"{name}-input", text, model(few[0]).argmax(dim=1), few[1])


def show_learning(cfg: Config, keras: Any, digits: list, reviews: list) -> dict[str, Any]:
    print("\n[5] The same data, the same optimizer: what still differs is the start")
    recurrent = torch.from_numpy(keras_lstm(keras).get_weights()[2])  # (64, 256)
    text = "in Keras the rows of a new recurrent kernel are orthogonal, of length 1"
    check_close("recurrent", text, recurrent @ recurrent.T, torch.eye(64))
    largest = TorchLSTM().lstm.weight_ih_l0.abs().max().item()
    text = "in torch all of a new LSTM lies within 1/√64 = 0.125, the largest at {}"
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
    wrong = {"7.weight": torch.from_numpy(cnn.get_weights()[4]).T}
    moved.load_state_dict(cnn_to_torch(cnn.get_weights()) | wrong)
    found["unmapped"] = share_right(moved(channels_first(x)), y)
    text = "moved with its dense kernel only transposed, the trained CNN reads a share of {}"
    expect("unmapped", text, found["unmapped"], at_most=0.6)

    means = [sum(curve) / len(curve) for curve in more[1]]
    text = "from Keras's start torch's LSTM has {} less accuracy, as a mean over the epochs"
    expect("starts", text, means[2] - means[1], at_least=0.03)
    return found | {"curves_cnn": curves, "curves_lstm": more[1]}


# Pictures and helpers: skip on a first reading


def draw_twins(cfg: Config, found: dict[str, Any]) -> None:
    figure, axes = new_figure(1, 2, size=(13, 4.8))
    looks = [("Keras", ORANGE, 8, "-"), ("torch, from Keras's start", BLUE, 2.5, "--")]
    looks.append(("torch", GREEN, 2.5, "-"))
    for axis, task in zip(axes, ["cnn", "lstm"]):
        for curve, (name, colour, width, dashes) in zip(found[f"curves_{task}"], looks):
            epochs = range(1, len(curve) + 1)
            axis.plot(epochs, curve, dashes, color=colour, linewidth=width, label=name)
        axis.set(title=task.upper(), xlabel="epoch", ylabel="accuracy", ylim=(0.4, 1.03))
        axis.set_xticks(epochs)
    axes[0].legend(loc="lower right")
    save_figure(figure, cfg.out / "twins")


def race(cfg: Config, keras: Any, ours: Any, twins: list, parts: list, epochs: int, lr: float):
    """Train a Keras model and two of torch on the same batches.

    Returns for each the accuracy on the test part, and that on the validation part by epoch.
    """
    train, val, (x, y) = parts
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours.compile(keras.optimizers.Adam(lr), loss=cross_entropy, metrics=["accuracy"])
    size = cfg.batch_size
    log = ours.fit(*train, size, epochs, verbose=0, shuffle=False, validation_data=val)
    scores = [share_right(ours(x), y)]
    curves = [log.history["val_accuracy"]]

    batches = Batches(channels_first(train[0]), train[1], batch_size=size)
    val = [(channels_first(val[0]), val[1])]
    for twin in twins:
        twin.to(x.device)
        # 1e-7 is Keras's eps; torch's is 1e-8.
        adam = torch.optim.Adam(twin.parameters(), lr, eps=1e-7)
        curve = []
        for _ in range(epochs):
            loop.train_epoch(twin, batches, loop.cross_entropy, adam)
            curve.append(loop.evaluate_accuracy(twin, val))
        curves.append(curve)
        scores.append(share_right(twin(channels_first(x)), y))
    return scores, curves


def share_right(logits: Tensor, y: Tensor) -> float:
    return (logits.argmax(dim=1) == y).float().mean().item()


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, 1) -> (B, 1, H, W), as torch wants pictures; words stay as they are."""
    return x.movedim(3, 1) if x.ndim == 4 else x


def make_reviews(count: int, seed: int, nouns: list[str]) -> tuple[Tensor, Tensor]:
    """Word numbers (count, T) with zeros in front, and 1 where the review is good (count,).

    Each praises one thing and blames another; “but” and “although” say which of them counts. So
    no list of good words decides: the order does.
    """
    rng = random.Random(seed)
    tokens = torch.zeros(count, LENGTH, dtype=torch.long)
    labels = torch.zeros(count, dtype=torch.long)
    for row in range(count):
        good = rng.randrange(2)
        told = clause(rng, good, nouns)
        conceded = clause(rng, 1 - good, nouns)
        words = rng.choice([[*conceded, "but", *told], [*told, "although", *conceded]])
        tokens[row, -len(words) :] = torch.tensor([WORDS.index(word) for word in words])
        labels[row] = good
    return tokens, labels


def clause(rng: random.Random, good: int, nouns: list[str]) -> list[str]:
    """Such as “the soup was not cold”, which is good."""
    negated = rng.randrange(2)
    word = rng.choice([BAD, GOOD][good ^ negated])
    return ["the", rng.choice(nouns), "was", *["not"] * negated, word]


def make_data(cfg: Config) -> tuple[list, list]:
    """Digits (B, H, W, 1) and reviews (B, T) with their labels: for training, validation, test."""
    data = load_images(cfg)
    pictures = [(data.x_train[: cfg.digits], data.y_train[: cfg.digits])]
    pictures += [(data.x_val, data.y_val), data.test()]
    digits = [(torch.from_numpy(x)[..., None] / 255, torch.from_numpy(y)) for x, y in pictures]

    # The test has nouns of its own.
    size = cfg.reviews
    reviews = [
        make_reviews(size, 10 * cfg.seed + 1, NOUNS[:7]),
        make_reviews(size // 6, 10 * cfg.seed + 2, NOUNS[:7]),
        make_reviews(size // 3, 10 * cfg.seed + 3, NOUNS[7:]),
    ]
    device = cfg.torch_device()
    return [[(x.to(device), y.to(device)) for x, y in part] for part in (digits, reviews)]


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
