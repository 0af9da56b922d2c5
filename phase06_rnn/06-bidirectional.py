"""6.6 Bidirectional networks: reading from both ends
双向网络：从两端读

You will be able to answer
    1. What can no reader from the left know?  show_task    twins, best
    2. How is a padded sequence reversed?      show_reverse    reversed
    3. What is a bidirectional layer?          show_both    outputs, alone
    4. What does the second direction gain?    show_tags    masked, overfits, depends, left, both
    5. What goes wrong without the lengths?    show_no_lengths    neighbours, changed
Predict   left: always “outside” has accuracy 0.75, both ends together 1; the left end alone?
Run       python phase06_rnn/06-bidirectional.py                           about 30 s
Needs     phase06_rnn/04-lstm
Reference nn.LSTM, pack_padded_sequence, pad_packed_sequence
Notation  B batch  T steps of the longest sequence  D input width  H hidden width
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.errors import LessonError
from common.figures import new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

LSTM = load_lesson("phase06_rnn/04-lstm").LSTM

# inputs (B, T, D), lengths (B,), labels (B, T)
Batch = tuple[Tensor, Tensor, Tensor]

CHARACTERS = "><abc"
FREQUENCIES = (0.2, 0.14, 0.22, 0.22, 0.22)
SHORTEST = 5


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(16, "hidden width H of each direction")
    texts: int = param(2000, "texts to train on, and half as many to test", tiny=128, low=64)
    longest: int = param(30, "characters of the longest text; the shortest has 5", tiny=10, low=6)
    epochs: int = param(12, "passes over them", tiny=25)
    lr: float = param(0.01, "learning rate", tiny=0.03)
    text: str = param("for i<9: <b>stop</b> if a<b", "a text to draw; the models are trained anew")


def tag_labels(text: str) -> Tensor:
    """1 for the characters of every tag, 0 for those outside: (T,)."""
    labels = torch.zeros(len(text), dtype=torch.long)
    for tag in re.finditer("<[^<>]*>", text):
        labels[tag.start() : tag.end()] = 1
    return labels


def to_batch(texts: list[str]) -> Batch:
    """One-hot codes of > < other (B, T, 3), lengths (B,), labels: 1 inside a tag, 0 outside (B, T).

    Short texts are filled up with code 0, which is the code of >: no harm, if nobody reads it.
    """
    codes = []
    for text in texts:
        codes.append(torch.tensor([{">": 0, "<": 1}.get(letter, 2) for letter in text]))
    x = F.one_hot(pad_sequence(codes, batch_first=True), 3).float()
    lengths = torch.tensor([len(text) for text in texts])

    labels = pad_sequence([tag_labels(text) for text in texts], batch_first=True)
    return x, lengths, labels


def show_task(cfg: Config, held_out: list[str]) -> dict[str, float]:
    print("\n[1] The task: which characters stand inside a finished tag, <…>?")
    for text in ["a<b< c", "a<b> c"]:
        print(f"  {text}   {''.join(map(str, tag_labels(text).tolist()))}")
    x, _, labels = to_batch(["a<b<", "a<b>"])
    same = torch.equal(x[0, :3], x[1, :3]) and not torch.equal(labels[0, :3], labels[1, :3])
    check("twins", "two texts begin with a<b, and their labels differ from < on", same)

    letters = torch.cat([tag_labels(text) for text in held_out])
    outside = (letters == 0).float().mean().item()
    print(f"  always saying “outside” is right for {outside:.3f} of {len(letters):,} characters")
    best = best_from_left(held_out, cfg.longest)
    text = "the best rule for a reader from the left, who knows all frequencies, is right for {}"
    check("best", text, best, above=outside, below=0.95)
    return {"outside": outside, "best": best}


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """The mask of a padded batch: True where a sequence is, False in the padding. (B,) -> (B, T)"""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence backwards; its padding stays behind it. (B, T, D) -> (B, T, D)"""
    # practice: Backwards, and the padding stays
    steps = torch.arange(x.shape[1], device=x.device)
    source = lengths[:, None] - 1 - steps  # (B, T): length − 1, …, 1, 0, then negative

    # A step of the padding takes from itself.
    source = torch.where(source >= 0, source, steps)
    return x.gather(1, source[:, :, None].expand_as(x))
    # end practice


def show_reverse(cfg: Config) -> None:
    print("\n[2] Padding stands behind a sequence, and still does when the sequence is reversed")
    x = torch.tensor([[1.0, 2, 3, 0, 0], [4, 5, 6, 7, 8]])[:, :, None]
    found = reverse(x, torch.tensor([3, 5]))[:, :, 0]
    text = "1 2 3 0 0 becomes 3 2 1 0 0, and 4 5 6 7 8 becomes 8 7 6 5 4"
    check_close("reversed", text, found, [[3.0, 2, 1, 0, 0], [8, 7, 6, 5, 4]])


class BiLSTM(nn.Module):
    """Layers of two LSTMs: the forward one reads from the left, the backward one from the right."""

    def __init__(self, input_dim: int, hidden_dim: int, n_layers: int):
        super().__init__()
        # From the second layer on, each LSTM reads what both below have found.
        input_dims = [input_dim] + [2 * hidden_dim] * (n_layers - 1)
        self.layers = nn.ModuleList()
        for dim in input_dims:
            self.layers.append(nn.ModuleList([LSTM(dim, hidden_dim), LSTM(dim, hidden_dim)]))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, D) -> the outputs of both (B, T, 2H), and their last h (2 · layers, B, H).

        The outputs are 0 in the padding. Of the last states two belong to each layer: that of the
        forward LSTM, then that of the backward one.
        """
        # practice: Two directions in each layer
        valid = valid_steps(lengths, x.shape[1])[:, :, None]  # (B, T, 1)
        batch = torch.arange(len(x))
        last = []
        for forward_lstm, backward_lstm in self.layers:
            # Padding comes after the last valid step, too late to disturb it.
            forward_h, _ = forward_lstm(x)
            backward_h, _ = backward_lstm(reverse(x, lengths))
            last.append(forward_h[batch, lengths - 1])
            last.append(backward_h[batch, lengths - 1])

            x = torch.cat([forward_h, reverse(backward_h, lengths)], dim=2)  # (B, T, 2H)
            x = torch.where(valid, x, 0.0)
        return x, torch.stack(last)
        # end practice


def show_both(cfg: Config) -> None:
    print("\n[3] Two LSTMs a layer, and nothing that stands in the padding matters")
    model = BiLSTM(3, 4, n_layers=3).double()
    reference = nn.LSTM(3, 4, num_layers=3, batch_first=True, bidirectional=True).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        theirs.data.copy_(ours)
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    lengths = torch.tensor([3, 7, 1, 5])

    # torch gets the lengths by packing: the padding is left out, and put back afterwards.
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed_outputs, (their_last, _) = reference(packed)
    their_outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True)
    outputs, last = model(x, lengths)
    text = "three layers, lengths 3, 7, 1, 5: the outputs and the last states are torch's"
    ours = torch.cat([outputs.flatten(1), last.transpose(0, 1).flatten(1)], dim=1)
    theirs = torch.cat([their_outputs.flatten(1), their_last.transpose(0, 1).flatten(1)], dim=1)
    check_close("outputs", text, ours, theirs)

    valid = valid_steps(lengths, 7)
    together, _ = model(torch.where(valid[:, :, None], x, 100.0), lengths)
    alone = []
    for row, length in zip(x, lengths):
        output, _ = model(row[None, :length], length[None])
        alone.append(output[0])
    text = "in one batch, padded with 100, each sequence gets the outputs that it gets alone"
    check_close("alone", text, together[valid], torch.cat(alone))


class Tagger(nn.Module):
    """Two scores for each character of a text: outside a tag, inside one."""

    def __init__(self, reads: str, cfg: Config):
        super().__init__()
        self.reads = reads  # from the "left", or from "both" ends
        self.head = nn.Linear(2 * cfg.hidden_dim, 2)
        if reads == "left":
            self.rnn = LSTM(3, 2 * cfg.hidden_dim)  # as wide as two together
        else:
            self.rnn = BiLSTM(3, cfg.hidden_dim, n_layers=1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x: (B, T, 3), lengths: (B,) -> logits (B, T, 2)."""
        if self.reads == "left":
            outputs, _ = self.rnn(x)
        else:
            outputs, _ = self.rnn(x, lengths)
        return self.head(outputs)


def tag_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean cross-entropy of a valid step; padding has no label and no weight."""
    # practice: A mean over valid steps
    x, lengths, labels = batch
    logits = model(x, lengths)  # (B, T, 2)
    valid = valid_steps(lengths, x.shape[1])
    return F.cross_entropy(logits[valid], labels[valid])
    # end practice


def show_tags(cfg: Config, texts: list[str], held_out: list[str], best: float) -> tuple:
    print("\n[4] The same task, read from the left and from both ends")
    model = Tagger("both", cfg)
    x, lengths, labels = to_batch(texts[:20])
    losses = torch.stack([tag_loss(model, to_batch([text])) for text in texts[:20]])
    wanted = (losses * lengths).sum() / lengths.sum()
    wider = (F.pad(x, (0, 0, 0, 50)), lengths, F.pad(labels, (0, 50)))
    text = "20 texts and 50 steps of padding: the loss is a mean over characters"
    check_close("masked", text, tag_loss(model, wider), wanted)
    adam = torch.optim.Adam(model.parameters(), lr=0.03)
    text = "16 texts are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, to_batch(texts[:16]), tag_loss, adam)

    models = {}
    scores = {}
    for reads in ("left", "both"):
        models[reads] = train_tagger(reads, texts, cfg)
        predicted, labels = predict(models[reads], held_out)
        scores[reads] = (predicted == labels).float().mean().item()

    text = "both ends, new texts: not one answer to all, accuracy {}"
    depends_on_input("depends", text, predicted, labels)
    text = f"from the left the accuracy is {{}}; that of the best rule is {best:.3f}"
    expect("left", text, scores["left"], above=best - 0.04, below=best + 0.01)
    expect("both", "from both ends it is {}", scores["both"], at_least=0.99)
    return models, scores


def show_no_lengths(cfg: Config, model: Tagger, held_out: list[str]) -> dict[str, float]:
    print("\n[5] The trained network without lengths: its backward LSTM reads the padding first")
    some = held_out[:200]
    longest = "x" * cfg.longest
    changed = {}
    for use_lengths in (True, False):
        changed[use_lengths] = 0
        for text in some:
            alone, _ = predict(model, [text], use_lengths)
            together, _ = predict(model, [text, longest], use_lengths)
            changed[use_lengths] += not torch.equal(alone, together[: len(text)])

    text = (
        f"with lengths {{}} of {len(some)} texts get other labels beside a longer text than alone"
    )
    check("neighbours", text, changed[True], at_most=0)
    text = f"without lengths {{}} of {len(some)} do, for padding has the code of >"
    expect("changed", text, changed[False], at_least=len(some) // 10)

    alone, _ = predict(model, ["a<b"], use_lengths=False)
    together, _ = predict(model, ["a<b", longest], use_lengths=False)
    print(f"  a<b without lengths: alone {alone.tolist()}, beside a longer one", end=" ")
    print(together[:3].tolist())
    return {"changed": changed[False]}


# Pictures and helpers: skip on a first reading


def make_texts(n: int, cfg: Config, part: int) -> list[str]:
    """Texts of 5 to `longest` characters: letters, and brackets that do not know of each other."""
    rng = np.random.default_rng([cfg.seed, part])
    lengths = rng.integers(SHORTEST, cfg.longest + 1, size=n)
    return ["".join(rng.choice(list(CHARACTERS), size=n, p=FREQUENCIES)) for n in lengths]


def best_from_left(texts: list[str], longest: int) -> float:
    """The accuracy of "inside" after an open <, while it is likelier than not that a > comes next.

    Before another < or the end, that is. All other characters are certain when they are read.
    """
    closes = [0.0] * (longest + 1)  # [t]: the chance, t characters after the beginning
    for t in range(longest - 1, 0, -1):
        goes_on = 1.0 if t < SHORTEST else (longest - t) / (longest - t + 1)
        closes[t] = goes_on * (FREQUENCIES[0] + (1 - sum(FREQUENCIES[:2])) * closes[t + 1])

    right = []
    for text in texts:
        is_open = False
        for t, (letter, label) in enumerate(zip(text, tag_labels(text).tolist()), start=1):
            is_open = letter == "<" or (is_open and letter != ">")
            guess = closes[t] > 0.5
            right.append(guess == label if is_open else True)
    return sum(right) / len(right)


def train_tagger(reads: str, texts: list[str], cfg: Config) -> Tagger:
    model = Tagger(reads, cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    batches = Batches(*to_batch(texts), batch_size=64, shuffle=True, seed=cfg.seed)
    fit(model, batches, optimizer, tag_loss, epochs=cfg.epochs, quiet=True)
    return model


@torch.no_grad()
def predict(model: Tagger, texts: list[str], use_lengths: bool = True) -> tuple[Tensor, Tensor]:
    """The predicted and the true labels of all characters, text after text, as one batch."""
    x, lengths, labels = to_batch(texts)
    valid = valid_steps(lengths, x.shape[1])
    if not use_lengths:
        lengths = torch.full_like(lengths, x.shape[1])  # the whole array is reversed
    return model(x, lengths).argmax(dim=2)[valid], labels[valid]


def draw_tags(cfg: Config, models: dict[str, Tagger]) -> None:
    """What each model says of the characters of one text."""
    x, lengths, labels = to_batch([cfg.text])
    rows = []
    with torch.no_grad():
        for reads in ("left", "both"):
            rows.append(models[reads](x, lengths)[0].softmax(dim=1)[:, 1])
    figure, axis = new_figure(size=(12, 2.8))
    axis.imshow(torch.stack([*rows, labels[0]]), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(cfg.text)), list(cfg.text), family="monospace")
    axis.set_yticks(range(3), ["from the left", "both ends", "truth"])
    axis.grid(False)
    axis.set_title("Inside a tag? At < the reader from the left can only guess; dark is yes")
    save_figure(figure, cfg.out / "tags")


def run(cfg: Config) -> dict:
    if not cfg.text:
        raise LessonError("--text is empty: give a text of at least one character.")
    texts = make_texts(cfg.texts, cfg, part=0)
    held_out = make_texts(cfg.texts // 2, cfg, part=1)
    scores = show_task(cfg, held_out)
    show_reverse(cfg)
    show_both(cfg)
    models, learned = show_tags(cfg, texts, held_out, scores["best"])
    changed = show_no_lengths(cfg, models["both"], held_out)
    draw_tags(cfg, models)
    return {**scores, **learned, **changed}


if __name__ == "__main__":
    main(run, Config, __doc__)
