"""Lesson 6.6 and its note: what a caller may hand in, and what must not matter."""

import collections
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.lessons import ROOT, load_lesson

lesson = load_lesson("phase06_rnn/06-bidirectional")


def test_an_empty_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "phase06_rnn/06-bidirectional.py"),
        "--tiny",
        "--text",
        "",
    ]
    answer = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "--text is empty" in answer.stderr and "Traceback" not in answer.stderr
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    "text, tags",
    [
        ("a<b>c", "01110"),
        ("a<b<c>", "000111"),
        ("<<>>", "0110"),
        ("a>b<c", "00000"),
        ("é中<\n>", "00111"),
    ],
)
def test_tags(text: str, tags: str) -> None:
    x, lengths, labels = lesson.to_batch([text, "abcabc"])
    assert "".join(map(str, labels[0, : lengths[0]].tolist())) == tags
    assert x.shape == (2, 6, 3)


def test_order_of_the_batch_does_not_matter() -> None:
    torch.manual_seed(0)
    model = lesson.BiLSTM(2, 3, n_layers=2).double()
    x = torch.randn(5, 6, 2, dtype=torch.float64)
    lengths = torch.tensor([2, 6, 6, 1, 4])
    order = torch.tensor([3, 1, 4, 0, 2])
    outputs, last = model(x, lengths)
    other_outputs, other_last = model(x[order], lengths[order])
    torch.testing.assert_close(other_outputs, outputs[order])
    torch.testing.assert_close(other_last, last[:, order])


def test_reversing_twice_changes_nothing() -> None:
    x = torch.randn(3, 5, 2)
    lengths = torch.tensor([5, 1, 3])
    torch.testing.assert_close(lesson.reverse(lesson.reverse(x, lengths), lengths), x)


def test_gradients_are_torchs_and_none_reach_the_padding() -> None:
    torch.manual_seed(0)
    model = lesson.BiLSTM(3, 4, n_layers=3).double()
    reference = nn.LSTM(3, 4, num_layers=3, batch_first=True, bidirectional=True).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        theirs.data.copy_(ours)
    x = torch.randn(4, 7, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 7, 1, 5])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed_outputs, (their_last, _) = reference(packed)
    their_outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True)
    outputs, last = model(x, lengths)

    loss = outputs.square().sum() + last.sum()
    ours = torch.autograd.grad(loss, [x, *model.parameters()])
    loss = their_outputs.square().sum() + their_last.sum()
    theirs = torch.autograd.grad(loss, [x, *reference.parameters()])
    torch.testing.assert_close(ours, theirs)
    assert not ours[0][~lesson.valid_steps(lengths, 7)].any()


def test_padding_has_the_code_of_a_closing_bracket() -> None:
    """What the failure section is about."""
    x, lengths, labels = lesson.to_batch(["a", "a<b>"])
    assert torch.equal(x[0, 1], x[1, 3])
    assert labels[0].sum() == 0
    assert lengths.tolist() == [1, 4]


def test_no_rule_from_the_left_beats_the_best_one() -> None:
    """best_from_left against the best answer for each beginning, found by counting."""
    cfg = lesson.Config(longest=6)
    texts = lesson.make_texts(40_000, cfg, part=7)
    votes = collections.defaultdict(lambda: [0, 0])
    for text in texts:
        for end, label in enumerate(lesson.tag_labels(text).tolist(), start=1):
            # all that matters of a beginning: how long it is, since where a < is open, and if a
            # tag ends here
            opened = re.search(r"<[^<>]*$", text[:end])
            closed = re.search(r"<[^<>]*>$", text[:end])
            votes[end, bool(opened), bool(closed)][label] += 1
    counted = sum(map(max, votes.values())) / sum(map(sum, votes.values()))
    assert lesson.best_from_left(texts, 6) == pytest.approx(counted, abs=0.002)


def test_without_lengths_the_whole_array_is_reversed() -> None:
    torch.manual_seed(0)
    model = lesson.Tagger("both", lesson.Config(hidden_dim=4))
    texts = ["a<b", "a<b>cc"]
    x, lengths, labels = lesson.to_batch(texts)
    forward_lstm, backward_lstm = model.rnn.layers[0]
    backward_h = backward_lstm(x.flip(1))[0].flip(1)
    logits = model.head(torch.cat([forward_lstm(x)[0], backward_h], dim=2))
    valid = lesson.valid_steps(lengths, 6)
    predicted, true = lesson.predict(model, texts, use_lengths=False)
    assert torch.equal(predicted, logits.argmax(dim=2)[valid])
    assert torch.equal(true, labels[valid])


def test_a_new_tagger_says_neither() -> None:
    cfg = lesson.Config()
    batch = lesson.to_batch(lesson.make_texts(200, cfg, part=0))
    for reads in ("left", "both"):
        torch.manual_seed(0)
        loss = lesson.tag_loss(lesson.Tagger(reads, cfg), batch).item()
        assert loss == pytest.approx(math.log(2), abs=0.16)


def test_one_way_networks_of_two_layers_are_something_else() -> None:
    """Exercise 3: an early step of the second layer's forward part knows of later inputs."""
    torch.manual_seed(0)
    model = lesson.BiLSTM(2, 3, n_layers=2).double()
    x = torch.randn(1, 6, 2, dtype=torch.float64)
    changed = x.clone()
    changed[0, -1] += 1
    lengths = torch.tensor([6])
    moved = model(changed, lengths)[0] - model(x, lengths)[0]
    assert moved[0, 0, :3].abs().max() > 0


def test_one_reader_has_no_fewer_weights_than_two() -> None:
    """The note says that it is as wide as both together: what it lacks is no size."""
    cfg = lesson.Config()
    one, two = (
        sum(parameter.numel() for parameter in lesson.Tagger(reads, cfg).parameters())
        for reads in ("left", "both")
    )
    assert one >= two
