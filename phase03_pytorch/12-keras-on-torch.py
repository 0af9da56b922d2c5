"""3.12 Keras on torch: the same two models in two languages
Keras 与 torch：同样两个模型，两种写法

You will be able to answer
    1. How does a CNN move to torch?         show_cnn      cnn-outputs
    2. How does an LSTM move to torch?       show_lstm     lstm-count, lstm-outputs, one-gradient
    3. What do compile() and fit() do?       show_fit      losses, weights
    4. Does a trained model read the same?   show_trained  score, moved, unmapped
    5. Why does one start learn sooner?      show_starts   fits, input, learned, embedding
Predict   unmapped: of a trained CNN one kernel is moved wrongly; what share of digits does it read?
Run       python phase03_pytorch/12-keras-on-torch.py                     about half a minute
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
from common.figures import BLUE, ORANGE, new_figure, save_figure
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
    review_epochs: int = param(6, "passes over the reviews, from each start", tiny=2)
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
    # New biases are all 0 and would hide a mistake.
    x = torch.rand(32, 28, 28, 1)
    rng = cfg.rng()
    ours.set_weights([rng.normal(0, 0.1, w.shape) for w in ours.get_weights()])
    twin.load_state_dict(cnn_to_torch(ours.get_weights()))
    outputs = twin(channels_first(x))
    check_close("cnn-outputs", "Keras's numbers in torch: the same outputs", outputs, ours(x))


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
    text = f"torch's has {more} parameters more: a second bias for each of 4 gates of width 64"
    check("lstm-count", text, more == 4 * 64)

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


def show_trained(cfg: Config, keras: Any, train: tuple, test: tuple) -> dict[str, float]:
    print("\n[4] Trained in Keras, moved, and read by torch")
    cnn = keras_cnn(keras)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    cnn.compile(optimizer=keras.optimizers.Adam(cfg.lr), loss=loss_fn)
    cnn.fit(*train, batch_size=cfg.batch_size, epochs=cfg.epochs, verbose=0)

    x, y = test
    found = {"keras": loop.evaluate_accuracy(cnn, [test])}
    twin = torch_cnn().to(x.device)
    state = cnn_to_torch(cnn.get_weights())
    twin.load_state_dict(state)
    found["moved"] = loop.evaluate_accuracy(twin, [(channels_first(x), y)])
    # A likely mistake: the shapes fit, so nothing complains.
    twin.load_state_dict(state | {"7.weight": torch.from_numpy(cnn.get_weights()[4]).T})
    found["unmapped"] = loop.evaluate_accuracy(twin, [(channels_first(x), y)])

    text = "in Keras it reads a share of {} of the test digits rightly"
    expect("score", text, found["keras"], at_least=0.88)
    text = f"moved it reads {found['moved']:.3f}, a difference of {{}}"
    check("moved", text, abs(found["moved"] - found["keras"]), below=0.005)
    text = "moved with its dense kernel only transposed it reads {}, and no error is raised"
    expect("unmapped", text, found["unmapped"], at_most=0.3)
    return found


def show_starts(cfg: Config, keras: Any, train: tuple, val: tuple) -> tuple[dict, float]:
    print("\n[5] One LSTM, one optimizer, four starts: which weights decide when it learns?")
    # On the torch backend a Keras model is an nn.Module, which our loop trains.
    model = keras_lstm(keras)
    few = (train[0][:16], train[1][:16])
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "torch's Adam and Keras's LSTM: 16 reviews learned by heart, loss {}"
    overfits("fits", text, model, few, loop.cross_entropy, adam, steps=40)
    text = "and a share of {} of them is read rightly"
    depends_on_input("input", text, model(few[0]).argmax(dim=1), few[1])

    theirs = lstm_to_torch(keras_lstm(keras).get_weights())
    own = TorchLSTM().state_dict()
    starts = {
        "Keras's": theirs,
        "Keras's, torch's embedding": theirs | {"words.weight": own["words.weight"]},
        "torch's": own,
        "torch's, Keras's embedding": own | {"words.weight": theirs["words.weight"]},
    }
    batches = Batches(*train, batch_size=cfg.batch_size)
    curves = {}
    for name, state in starts.items():
        model = TorchLSTM().to(val[0].device)
        model.load_state_dict(state)
        adam = torch.optim.Adam(model.parameters(), lr=5 * cfg.lr)
        curves[name] = []
        for _ in range(cfg.review_epochs):
            loop.train_epoch(model, batches, loop.cross_entropy, adam)
            curves[name].append(loop.evaluate_accuracy(model, [val]))
        shown = "  ".join(f"{accuracy:.2f}" for accuracy in curves[name])
        print(f"  {name:<27} accuracy by epoch  {shown}")

    learned = curves["torch's"][-1]
    text = "from torch's start a share of {} of the reviews with new nouns is read rightly"
    expect("learned", text, learned, at_least=0.9)
    means = {name: sum(curve) / len(curve) for name, curve in curves.items()}
    sooner = min(means["torch's"], means["Keras's, torch's embedding"])
    later = max(means["Keras's"], means["torch's, Keras's embedding"])
    text = (
        "with torch's embedding the accuracy, a mean over the epochs, is {} higher in either start"
    )
    expect("embedding", text, sooner - later, at_least=0.03)
    return curves, learned


# Pictures and helpers: skip on a first reading


def draw_starts(cfg: Config, curves: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 4.8))
    looks = [(ORANGE, "-"), (BLUE, "--"), (BLUE, "-"), (ORANGE, "--")]
    for (name, curve), (colour, dashes) in zip(curves.items(), looks):
        epochs = range(1, len(curve) + 1)
        axis.plot(epochs, curve, "o" + dashes, color=colour, markersize=5, label=name)
    axis.set(xlabel="epoch", xticks=epochs, ylabel="accuracy", ylim=(0.4, 1.03))
    axis.set_title("LSTM on reviews: orange has Keras's embedding, blue torch's")
    axis.legend(title="start", loc="lower right", handlelength=4)
    save_figure(figure, cfg.out / "starts")


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
    """Digits (B, H, W, 1) and reviews (B, T) with their labels: to train, and unseen ones."""
    data = load_images(cfg)
    pictures = [(data.x_train[: cfg.digits], data.y_train[: cfg.digits]), data.test()]
    digits = [(torch.from_numpy(x)[..., None] / 255, torch.from_numpy(y)) for x, y in pictures]
    # The unseen reviews have nouns of their own.
    reviews = [make_reviews(cfg.reviews, 10 * cfg.seed, NOUNS[:7])]
    reviews.append(make_reviews(1000, 10 * cfg.seed + 1, NOUNS[7:]))
    return to_device((digits, reviews), cfg.torch_device())


def run(cfg: Config) -> dict[str, float]:
    keras = load_keras(cfg)
    with keras.device("cpu"):  # equalities are shown on the CPU
        show_cnn(cfg, keras)
        show_lstm(cfg, keras)
        show_fit(keras)
    digits, reviews = make_data(cfg)
    with keras.device(str(cfg.torch_device())):  # or Keras takes the first GPU it finds
        found = show_trained(cfg, keras, *digits)
        curves, found["learned"] = show_starts(cfg, keras, *reviews)
    draw_starts(cfg, curves)
    return found


if __name__ == "__main__":
    main(run, Config, __doc__)
