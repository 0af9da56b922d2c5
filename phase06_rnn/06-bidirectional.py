"""6.6 Bidirectional networks: reading from both ends
双向网络：从两端读

You will be able to answer
    1. How do sequences of several lengths share a batch?  show_turn     turned
    2. What is a bidirectional layer, step by step?  show_both  outputs, last, gradients, alone
    3. What goes wrong without the lengths?                show_naive    naive, real
    4. What does packing save?                             show_packing  packed, states, rows
    5. What is hidden from one side?  show_tags  first-loss, overfits, depends, twins, left, both
Predict   left: what share of characters does an LSTM tag rightly that reads from the left only?
Run       python phase06_rnn/06-bidirectional.py                           about 20 s
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
LSTMCell = load_lesson("phase06_rnn/04-lstm").LSTMCell

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(16, "hidden width H of each direction")
    texts: int = param(2000, "texts to train on, and half as many to test", tiny=128, low=64)
    longest: int = param(30, "characters of the longest text; the shortest has 5", tiny=10, low=5)
    epochs: int = param(12, "passes over them", tiny=15)
    lr: float = param(0.01, "learning rate", tiny=0.03)
    text: str = param("for i<9: <b>stop</b> if a>b or a<b", "a text to tag in the end")


def is_real(lengths: Tensor, steps: int) -> Tensor:
    """Where a block of so many steps holds a sequence, not padding. (B,) -> (B, T), bool."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def turn(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence backwards; its padding stays behind it. (B, T, D) -> (B, T, D)"""
    # practice: Backwards, and the padding stays
    steps = torch.arange(x.shape[1], device=x.device)
    source = lengths[:, None] - 1 - steps  # (B, T): length − 1, …, 1, 0, then negative

    # A place in the padding takes from itself.
    source = torch.where(source >= 0, source, steps)
    return x.gather(1, source[:, :, None].expand_as(x))
    # end practice


def show_turn(cfg: Config) -> None:
    print("\n[1] Padding stands behind a sequence, and still does when the sequence is turned")
    block = torch.tensor([[1.0, 2, 3, 0, 0], [4, 5, 6, 7, 8]])[:, :, None]
    turned = turn(block, torch.tensor([3, 5]))[:, :, 0]
    text = "1 2 3 0 0 becomes 3 2 1 0 0, and 4 5 6 7 8 becomes 8 7 6 5 4"
    check_close("turned", text, turned, [[3.0, 2, 1, 0, 0], [8, 7, 6, 5, 4]])


class BiLSTM(nn.Module):
    """Layers of two LSTMs each: one reads from the left, one from the right."""

    def __init__(self, input_dim: int, hidden_dim: int, n_layers: int):
        super().__init__()
        # From the second layer on, each reader sees what both below have found.
        input_dims = [input_dim] + [2 * hidden_dim] * (n_layers - 1)
        self.layers = nn.ModuleList()
        for dim in input_dims:
            self.layers.append(nn.ModuleList([LSTM(dim, hidden_dim), LSTM(dim, hidden_dim)]))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, D) -> what both have seen (B, T, 2H), and their last h (2 · layers, B, H).

        The outputs are 0 in the padding. Of the last states two belong to each layer: that of the
        reader from the left, then that of the reader from the right.
        """
        # practice: Two readers in each layer
        real = is_real(lengths, x.shape[1])[:, :, None]  # (B, T, 1)
        rows = torch.arange(len(x))
        last = []
        for left, right in self.layers:
            # Padding comes after the last real step, too late to disturb it.
            from_left, _ = left(x)
            from_right, _ = right(turn(x, lengths))
            last.append(from_left[rows, lengths - 1])
            last.append(from_right[rows, lengths - 1])

            x = torch.cat([from_left, turn(from_right, lengths)], dim=2)  # (B, T, 2H)
            x = torch.where(real, x, 0.0)
        return x, torch.stack(last)
        # end practice


def show_both(cfg: Config) -> None:
    print("\n[2] Two LSTMs a layer, and nothing that stands in the padding matters")
    model = BiLSTM(3, 4, n_layers=3).double()
    reference = nn.LSTM(3, 4, num_layers=3, batch_first=True, bidirectional=True).double()
    copy_weights(model, reference)
    x, lengths = four_sequences()
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed_outputs, (their_last, _) = reference(packed)
    their_outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True)

    outputs, last = model(x, lengths)
    text = "three layers, lengths 3, 7, 1, 5: the outputs are torch's"
    check_close("outputs", text, outputs, their_outputs)
    check_close("last", "so are the last states, two for each layer", last, their_last)
    loss = outputs.square().sum() + last.sum()
    ours = flat(torch.autograd.grad(loss, [x, *model.parameters()]))
    loss = their_outputs.square().sum() + their_last.sum()
    theirs = flat(torch.autograd.grad(loss, [x, *reference.parameters()]))
    check_close("gradients", "so are the gradients of inputs and parameters", ours, theirs)

    real = is_real(lengths, 7)
    together, _ = model(torch.where(real[:, :, None], x, 100.0), lengths)
    alone = [model(x[i : i + 1, :n], lengths[i : i + 1])[0][0] for i, n in enumerate(lengths)]
    text = "in one block, padded with 100, each sequence gets the outputs that it gets alone"
    check_close("alone", text, together[real], torch.cat(alone))


class Tagger(nn.Module):
    """Two scores for each character of a text: outside a tag, inside one."""

    def __init__(self, reads: str, cfg: Config):
        super().__init__()
        self.reads = reads  # from the "left", or from "both" sides
        self.head = nn.Linear(2 * cfg.hidden_dim, 2)

        # One reader alone is made as wide as two.
        both = reads == "both"
        self.rnn = BiLSTM(3, cfg.hidden_dim, n_layers=1) if both else LSTM(3, 2 * cfg.hidden_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x: (B, T, 3), lengths: (B,) -> logits (B, T, 2)."""
        outputs, _ = self.rnn(x, lengths) if self.reads == "both" else self.rnn(x)
        return self.head(outputs)


def tag_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean cross-entropy of a real step; padding has no label and no weight."""
    # practice: A mean over real steps
    x, lengths, labels = batch  # (B, T, D), (B,), (B, T)
    logits = model(x, lengths)  # (B, T, 2)
    real = is_real(lengths, x.shape[1])
    return F.cross_entropy(logits[real], labels[real])
    # end practice


def show_naive(cfg: Config, texts: list[str]) -> None:
    print("\n[3] Without lengths the padding is read first, and counts in the loss")
    x, lengths = four_sequences()
    reader = LSTM(3, 4).double()
    wrong = reader(x.flip(1))[0].flip(1)
    right = turn(reader(turn(x, lengths))[0], lengths)
    moved = (wrong - right)[0, :3].abs().max().item()
    text = "turn the whole block instead, and outputs of a short one move by {}"
    check("naive", text, moved, above=0.01)

    model = Tagger("both", cfg)
    x, lengths, labels = to_batch(texts[:20])
    apart = torch.stack([tag_loss(model, to_batch([text])) for text in texts[:20]])
    wanted = (apart * lengths).sum() / lengths.sum()
    wider = (F.pad(x, (0, 0, 0, 50)), lengths, F.pad(labels, (0, 50)))
    text = "20 texts and 50 steps of padding: the loss is a mean over characters"
    check_close("real", text, tag_loss(model, wider), wanted)


def pack(x: Tensor, lengths: Tensor) -> tuple[Tensor, list[int], Tensor]:
    """All first steps, then all second steps, and so on, the longest sequence first; no padding.

    (B, T, D) -> steps (sum of lengths, D), how many sequences have each step, the order (B,).
    """
    # practice: Steps without padding
    order = lengths.argsort(descending=True)
    x = x[order]
    sizes = is_real(lengths, x.shape[1]).sum(dim=0).tolist()

    # Sorted, the sequences that still run at step t are the first ones.
    steps = torch.cat([x[:size, t] for t, size in enumerate(sizes)])
    return steps, sizes, order
    # end practice


def read_packed(cell: nn.Module, steps: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """An LSTM cell reads packed steps: its outputs, packed alike, and each sequence's last h."""
    # practice: Only those that still run
    h = steps.new_zeros(sizes[0], cell.weight_hh.shape[1])
    c = h
    outputs = []
    for x, size in zip(steps.split(sizes), sizes):
        running_h, c = cell(x, (h[:size], c[:size]))
        outputs.append(running_h)

        # The states of those that have ended stay as they are.
        h = torch.cat([running_h, h[size:]])
    return torch.cat(outputs), h
    # end practice


def show_packing(cfg: Config, texts: list[str]) -> float:
    print("\n[4] Packed: no step is computed that nobody wants")
    x, lengths = four_sequences()
    steps, sizes, order = pack(x, lengths)
    print(f"  lengths 3, 7, 1, 5: so many sequences have a step 1, 2, …: {sizes}")
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    ours = flat([steps, torch.tensor(sizes), order])
    theirs = flat([packed.data, packed.batch_sizes, packed.sorted_indices])
    check_close("packed", "steps, counts and order are torch's", ours, theirs)

    cell = LSTMCell(3, 5).double()
    reference = nn.LSTM(3, 5).double()
    copy_weights(cell, reference)
    outputs, h = read_packed(cell, steps, sizes)
    their_outputs, (their_h, _) = reference(packed)
    text = "so are the outputs, and the last states in the order of the batch"
    ours = torch.cat([outputs, h[order.argsort()]])
    check_close("states", text, ours, torch.cat([their_outputs.data, their_h[0]]))

    x, lengths, _ = to_batch(texts[:64])
    share = len(pack(x, lengths)[0]) / (x.shape[0] * x.shape[1])
    text = f"of the {x.shape[0] * x.shape[1]:,} steps of 64 padded texts a share of {{}} is left"
    check("rows", text, share, above=0.4, below=0.9)
    return share


def show_tags(cfg: Config, texts: list[str], held_out: list[str]) -> tuple[dict, dict]:
    print("\n[5] Which characters stand in a tag <…>? From the left nobody knows if it will close")
    train = to_batch(texts)
    fresh = Tagger("both", cfg)
    first = tag_loss(fresh, train).item()
    text = "the first loss is {}, near ln 2 = 0.69: inside or outside, equally likely"
    check("first-loss", text, first, above=0.55, below=0.85)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.03)
    text = "16 texts are learned by heart: the loss falls to {}"
    overfits("overfits", text, fresh, to_batch(texts[:16]), tag_loss, adam)

    x, lengths, labels = to_batch(held_out)
    real = is_real(lengths, x.shape[1])
    scores = {"outside": (labels[real] == 0).float().mean().item()}
    models = {}
    for reads in ("left", "both"):
        model = Tagger(reads, cfg)
        optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
        batches = Batches(*train, batch_size=64, shuffle=True, seed=cfg.seed)
        fit(model, batches, optimizer, tag_loss, epochs=cfg.epochs, quiet=True)
        with torch.no_grad():
            predicted = model(x, lengths).argmax(dim=2)[real]
        models[reads] = model
        scores[reads] = (predicted == labels[real]).float().mean().item()
    print("  accuracy:  " + "   ".join(f"{name} {score:.3f}" for name, score in scores.items()))

    twins, lengths, _ = to_batch(["a<b<", "a<b>"])
    from_left = models["left"](twins, lengths)[:, :3]
    text = "a<b< and a<b>: the tags of < and b differ, but not what the left tells of them"
    check_close("twins", text, from_left[0], from_left[1])
    text = "new texts, read from both sides: not one answer to all, {}"
    depends_on_input("depends", text, predicted, labels[real])
    text = "of their characters the reader from the left tags a share of {} rightly"
    expect("left", text, scores["left"], at_most=0.9)
    expect("both", "both directions together {}", scores["both"], at_least=0.99)
    return models, scores


# Pictures and helpers: skip on a first reading


def four_sequences() -> tuple[Tensor, Tensor]:
    x = torch.randn(4, 7, 3, dtype=torch.float64, requires_grad=True)
    return x, torch.tensor([3, 7, 1, 5])


def flat(tensors) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
        theirs.copy_(ours)


def make_texts(n: int, cfg: Config, part: int) -> list[str]:
    """Texts of 5 to `longest` characters: letters, and brackets that do not know of each other."""
    rng = np.random.default_rng([cfg.seed, part])
    lengths = rng.integers(5, cfg.longest + 1, size=n)
    shares = [0.14, 0.2, 0.22, 0.22, 0.22]
    return ["".join(rng.choice(list("<>abc"), size=length, p=shares)) for length in lengths]


def to_batch(texts: list[str]) -> Batch:
    """One-hot: other, <, or > (B, T, 3); lengths (B,); 1 inside a tag, 0 outside (B, T)."""
    # Neither stands in the padding as well, which does not matter.
    codes = [torch.tensor(list(map("<>".find, text))) + 1 for text in texts]
    x = F.one_hot(pad_sequence(codes, batch_first=True), 3).float()
    lengths = torch.tensor([len(text) for text in texts])
    labels = torch.zeros(x.shape[:2], dtype=torch.long)
    for row, text in zip(labels, texts):
        for found in re.finditer("<[^<>]*>", text):
            row[found.start() : found.end()] = 1
    return x, lengths, labels


def draw_tags(cfg: Config, models: dict[str, Tagger]) -> None:
    """What each model says of the characters of one text."""
    x, lengths, labels = to_batch([cfg.text])
    with torch.no_grad():
        rows = [model(x, lengths)[0].softmax(dim=1)[:, 1] for model in models.values()]
    figure, axis = new_figure(size=(12, 2.8))
    axis.imshow(torch.stack([*rows, labels[0]]), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(cfg.text)), list(cfg.text), family="monospace")
    axis.set_yticks(range(3), ["from the left", "both sides", "truth"])
    axis.grid(False)
    axis.set_title("Inside a tag? At < the reader from the left can only guess; dark is yes")
    save_figure(figure, cfg.out / "tags")


def run(cfg: Config) -> dict:
    if not cfg.text:
        raise LessonError("--text is empty: give a text of at least one character.")
    texts = make_texts(cfg.texts, cfg, part=0)
    show_turn(cfg)
    show_both(cfg)
    show_naive(cfg, texts)
    share = show_packing(cfg, texts)
    models, scores = show_tags(cfg, texts, make_texts(cfg.texts // 2, cfg, part=1))
    draw_tags(cfg, models)
    return {"rows": share, **scores}


if __name__ == "__main__":
    main(run, Config, __doc__)
