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


def triangles() -> np.ndarray:
    """The filters, found in another way: np.interp between edges spaced evenly in ln(1 + f/700)."""
    edges = 700 * (np.geomspace(1, 1 + 4000 / 700, lesson.MELS + 2) - 1)
    hertz = np.linspace(0, 4000, 129)
    rows = [np.interp(hertz, edges[m : m + 3], [0, 1, 0]) for m in range(lesson.MELS)]
    return np.array(rows).T


def test_the_filters_are_triangles_in_mel() -> None:
    assert np.allclose(lesson.mel_filters(), triangles(), atol=1e-4)


def test_log_mel_is_that_of_torchs_spectrum() -> None:
    torch.manual_seed(0)
    sound = torch.randn(2000)
    sound[:500] = 0  # silence, of which the logarithm has to stay finite
    hann = torch.hann_window(256)
    spectrum = torch.stft(sound, 256, 80, window=hann, center=False, return_complex=True)
    wanted = np.log(spectrum.abs().square().T.numpy() @ triangles() + 1e-4)
    wanted = (wanted - wanted.mean()) / wanted.std(ddof=1)
    assert np.allclose(lesson.log_mel(sound), wanted, atol=1e-4)


def test_the_loss_of_each_utterance_is_torchs() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(4, 12, 6, dtype=torch.float64).log_softmax(dim=2)
    steps, lengths = torch.tensor([12, 9, 3, 7]), torch.tensor([3, 2, 1, 3])
    targets = torch.tensor([[1, 2, 1], [2, 3, 0], [4, 0, 0], [5, 5, 5]])
    reference = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), targets, steps, lengths, reduction="none"
    )
    torch.testing.assert_close(lesson.ctc_loss(log_probs, steps, targets, lengths), reference)


def test_numbers_of_the_note() -> None:
    mel = 2595 * np.log10(1 + np.array([200, 300, 3200, 3300]) / 700)
    assert [round(step) for step in np.diff(mel)[::2]] == [119, 29]

    # all paths of 40 steps that say three given words, no two neighbours equal
    one = torch.zeros(1, 40, 5, dtype=torch.float64)  # each path counts 1
    found = lesson.ctc_loss(one, torch.tensor([40]), torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    assert round((-found).exp().item()) == 6_096_454


def test_an_untrained_net_is_near_chance() -> None:
    torch.manual_seed(0)
    mels, frames = torch.randn(8, 60, lesson.MELS), torch.full((8,), 60)
    targets, lengths = torch.randint(1, 11, (8, 2)), torch.full((8,), 2)
    speakers = torch.arange(8) % 6
    model = lesson.Recognizer()
    uniform = torch.full((8, 15, 11), -np.log(11))
    chance = lesson.ctc_loss(uniform, torch.full((8,), 15), targets, lengths).mean() + np.log(6)
    first = lesson.both_losses(model, (mels, frames, targets, lengths, speakers))
    assert 0.85 * chance < first < 1.15 * chance


def test_the_contrast_starts_at_chance_and_is_learned() -> None:
    torch.manual_seed(0)
    pieces = torch.randn(1, 64 + lesson.AHEAD, lesson.MELS)
    gru = torch.nn.GRU(lesson.MELS, 64, batch_first=True)
    model = torch.nn.Sequential(gru, torch.nn.Linear(64, lesson.MELS))
    adam = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        loss = lesson.contrastive_loss(model, (pieces,))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert 1.85 < losses[0] < 2.3 and losses[-1] < 0.5
    assert lesson.choices(model, pieces).argmax(dim=1).tolist() == list(range(8))


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


def test_the_net_is_what_its_docstring_says() -> None:
    torch.manual_seed(0)
    model = lesson.Recognizer()
    mels = torch.randn(1, 30, lesson.MELS)
    filters = model.conv.weight
    padded = torch.nn.functional.pad(mels[0].T, (5, 5))
    windows = padded.unfold(1, 11, 4)  # (MELS, steps, 11)
    x = torch.einsum("mtk,hmk->th", windows, filters) + model.conv.bias
    hidden = model.gru(x.relu()[:, None])[0][:, 0]
    log_probs, steps, voices = model(mels, torch.tensor([30]))
    assert steps.tolist() == [8] and hidden.shape == (8, 128)
    assert torch.allclose(log_probs[0], model.word(hidden).log_softmax(dim=1), atol=1e-5)
    assert torch.allclose(voices[0], model.speaker(hidden.mean(dim=0)), atol=1e-5)
    assert log_probs.shape == (1, 8, 11) and voices.shape == (1, 6)


def test_sentences_are_plain_numbers() -> None:
    probs = torch.eye(3)[[1, 1, 0, 1, 2, 2]]
    assert repr(lesson.greedy(probs)) == "(1, 1, 2)"
    assert repr(lesson.beam_search(probs, width=2)).startswith("{(1, 1, 2): 1.0")


def test_both_answers_count() -> None:
    torch.manual_seed(0)
    model = lesson.Recognizer()
    mels, frames = torch.randn(2, 60, lesson.MELS), torch.tensor([60, 40])
    targets, lengths = torch.tensor([[3, 4], [5, 0]]), torch.tensor([2, 1])
    voices = torch.tensor([1, 5])
    log_probs, steps, logits = model(mels, frames)
    functional = torch.nn.functional
    words = functional.ctc_loss(
        log_probs.transpose(0, 1), targets, steps, lengths, reduction="none"
    ).mean()
    wanted = words + functional.cross_entropy(logits, voices)
    found = lesson.both_losses(model, (mels, frames, targets, lengths, voices))
    assert torch.allclose(found, wanted, atol=1e-4)


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


def test_a_beam_of_one_keeps_what_is_most_probable_so_far() -> None:
    """Paths that end in a blank count as much as those that end in a word."""
    probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]], dtype=torch.float64)
    assert lesson.beam_search(probs, width=1) == {(): pytest.approx(0.36)}
