"""Lesson 6.10: what its claims do not ask, and recordings of one's own on the command line."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import execute
from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/10-speech-recognition")


def record(path: Path, samples: np.ndarray, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


TONE = 8000 * np.sin(np.arange(6000) / 3)


def run(*argv: str) -> int:
    return execute(lesson.run, lesson.Config, lesson.__doc__, ["--tiny", *argv])


@pytest.mark.parametrize(
    "samples, rate, words",
    [
        (TONE, 16000, "16000 Hz"),
        (TONE[:0], 8000, "lasts 0.00 s"),
        ((9 * TONE).clip(-32768, 32767), 8000, "is clipped"),
    ],
)
def test_a_recording_that_cannot_be_heard_stops_before_training(
    tmp_path, capsys, samples, rate, words
) -> None:
    path = record(tmp_path / "own.wav", samples, rate)
    kept = tmp_path / "out" / "result.json"
    kept.parent.mkdir()
    kept.write_text("kept")
    assert run("--wav", str(path), "--out", str(kept.parent)) == 1
    shown = capsys.readouterr()
    assert words in shown.err and len(shown.err.strip().splitlines()) == 1
    assert "[1]" not in shown.out and kept.read_text() == "kept"


def test_a_recording_of_ones_own_is_heard(tmp_path, capsys) -> None:
    path = record(tmp_path / "own.wav", TONE)
    assert run("--wav", str(path), "--out", str(tmp_path / "out")) == 0
    assert f"{path}: it hears" in capsys.readouterr().out


def test_padding_changes_no_answer() -> None:
    torch.manual_seed(0)
    model = lesson.Recognizer().double()
    mels = torch.randn(3, 50, lesson.MELS, dtype=torch.float64)
    frames = torch.tensor([50, 23, 9])
    for row, count in zip(mels, frames):
        row[count:] = 0
    together, steps, voices = model(mels, frames)
    for number, count in enumerate(frames):
        alone, one_steps, one_voice = model(mels[number : number + 1, :count], count[None])
        assert steps[number] == one_steps == len(range(0, count, 4))
        assert torch.allclose(together[number, : steps[number]], alone[0])
        assert torch.allclose(voices[number], one_voice[0])


def test_the_guesses_read_no_future() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.GRU(lesson.MELS, 8, batch_first=True), torch.nn.Linear(8, lesson.MELS)
    )
    pieces = torch.randn(2, 64 + lesson.AHEAD, lesson.MELS)
    futures = pieces[:, 7 + lesson.AHEAD :: 8]
    for moment in range(8):
        past = pieces[:, : 8 * moment + 8]
        guess = net[1](net[0](past)[0][:, -1])
        wanted = torch.einsum("bd,bfd->bf", guess, futures) / lesson.MELS**0.5
        found = lesson.choices(net, pieces).view(2, 8, 8)[:, moment]
        assert torch.allclose(found, wanted, atol=1e-5)


def test_a_constant_net_is_caught() -> None:
    """Its loss stays near chance: `overfits` refuses it."""
    from common.checks import overfits
    from common.data.speech import Utterance, pad_utterances
    from common.errors import ClaimFailed

    class Constant(lesson.Recognizer):
        def forward(self, mels, frames):
            return super().forward(0 * mels, frames)

    rng = np.random.default_rng(0)
    utterances = [
        Utterance(rng.normal(size=3000).astype(np.float32), (n,), n % 6) for n in range(4)
    ]
    torch.manual_seed(0)
    model = Constant()
    adam = torch.optim.Adam(model.parameters(), lr=0.015)
    few = pad_utterances(utterances, lesson.log_mel)
    with pytest.raises(ClaimFailed):
        overfits("x", "{}", model, few, lesson.both_losses, adam, steps=60, below=0.5)
