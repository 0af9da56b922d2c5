"""Text generation as its user meets it: in the terminal, with texts and model files of any kind."""

import builtins
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import run_project

from common import checkpoint
from common.data.text import Corpus, Vocabulary
from common.errors import LessonError
from common.lessons import ROOT, load_lesson

project = load_lesson("phase06_rnn/project-text-generation")
SCRIPT = ROOT / "phase06_rnn" / "project-text-generation.py"
ABC = Vocabulary("\ufffdabc")


def run(out: Path, *argv: str) -> int:
    return run_project(project, out, *argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("text")
    assert run(out, "--tiny") == 0
    return out


def test_it_goes_on_from_a_prompt(trained: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    for seed in ("1", "1", "2"):
        sampling = ("--length", "50", "--pause", "0", "--seed", seed)
        assert run(trained, "--prompt", "The list", *sampling) == 0
    texts = [part.split("\n", 2)[-1] for part in capsys.readouterr().out.split("Project 6")[1:]]
    assert texts[0] == texts[1] != texts[2] and "The list" in texts[0]
    assert "unknown" not in texts[0]
    after = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert after == before


def test_characters_never_seen_are_named_and_do_no_harm(trained: Path, capsys) -> None:
    assert run(trained, "--prompt", "字 ñéüß", "--length", "20", "--pause", "0") == 0
    assert "read as unknown: ß é ñ ü 字" in capsys.readouterr().out
    assert run(trained, "--prompt", "", "--length", "20", "--pause", "0") == 0


def test_interactive_types_until_the_end_of_input(trained: Path, monkeypatch, capsys) -> None:
    lines = iter(["The ", "A "])

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", read)
    assert run(trained, "--interactive", "--length", "30", "--pause", "0") == 0
    said = capsys.readouterr()
    assert "\nThe " in said.out and "\nA " in said.out and "rror" not in said.err


def test_the_first_ctrl_c_stops_the_text_and_the_second_the_program(
    trained: Path, monkeypatch, capsys
) -> None:
    asked = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return "The "

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "input", read)
    monkeypatch.setattr(project.time, "sleep", interrupt)
    assert run(trained, "--interactive") == 0
    assert len(asked) == 2 and "…\n" in capsys.readouterr().out


# A job in the background is started with Ctrl-C switched off.
IN_FRONT = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_from_outside_leaves_no_trace(trained: Path) -> None:
    words = [str(SCRIPT), "--interactive", "--device", "cpu", "--out", str(trained)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", IN_FRONT, *words],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=ROOT,
        bufsize=0,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    shown = b""
    while b"> " not in shown:
        piece = process.stdout.read(1)
        assert piece, process.stderr.read().decode()
        shown += piece
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


def test_without_a_model_or_with_another_one(trained: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path / "fresh", "--prompt", "a") == 1
    assert "holds no model yet" in capsys.readouterr().err
    whole = (trained / "model.pt").read_bytes()
    for content, words in [(whole[:1000], "is damaged"), (b"", "is damaged")]:
        (tmp_path / "model.pt").write_bytes(content)
        assert run(tmp_path, "--interactive") == 1
        assert words in capsys.readouterr().err and (tmp_path / "model.pt").read_bytes() == content

    state = checkpoint.load(trained / "model.pt")
    others = [{"model": {}}, state | {"hidden": 33}, state | {"characters": "ab"}, [1, 2]]
    for other in [*others, state | {"characters": 3}, state | {"hidden": "wide"}]:
        checkpoint.save(tmp_path / "model.pt", other)
        assert run(tmp_path, "--prompt", "a") == 1
        said = capsys.readouterr().err
        assert "holds another model" in said and said.count("\n") <= 2


def test_a_text_of_ones_own(tmp_path: Path, capsys) -> None:
    text = "".join(f"line {n} says {n * n}, no more and no less\n\n" for n in range(400))
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    assert run(tmp_path / "out", "--tiny", "--text", str(tmp_path / "own.txt")) == 0
    said = capsys.readouterr().out
    assert "data: own.txt" in said and "best n-gram" not in said


@pytest.mark.parametrize("content", ["", "one line", "one line\n" * 3])
def test_a_text_too_short_overwrites_nothing(trained, tmp_path, content, capsys) -> None:
    (tmp_path / "own.txt").write_text(content, encoding="utf-8")
    before = (trained / "model.pt").read_bytes(), (trained / "result.json").read_bytes()
    assert run(trained, "--tiny", "--text", str(tmp_path / "own.txt")) == 1
    said = capsys.readouterr().err
    assert "5,000 characters or more" in said and said.count("\n") <= 2
    assert before == ((trained / "model.pt").read_bytes(), (trained / "result.json").read_bytes())


def test_a_checkpoint_of_other_settings_is_refused(trained: Path, capsys) -> None:
    before = (trained / "training-0.pt").read_bytes()
    assert run(trained, "--tiny", "--resume", "--hidden", "16") == 1
    assert "made with another --hidden" in capsys.readouterr().err
    assert (trained / "training-0.pt").read_bytes() == before


def test_what_no_claim_asks() -> None:
    """Counts without a 1, a sum of exactly top-p, gradients that go on after writing."""
    assert project.discount({"": {"a": 2, "b": 2}}) == 1 / 5
    logits = torch.tensor([3, 10, 1, 6], dtype=torch.float64).log()
    for sampling, wanted in [
        ((1, 1, 1.0), [0, 1, 0, 0]),
        ((1, 0, 1.0), [3 / 20, 10 / 20, 1 / 20, 6 / 20]),
    ]:
        assert np.allclose(project.narrowed(logits.clone(), *sampling), wanted)
    halves = project.narrowed(torch.zeros(2), 1, 0, 0.5)
    assert sorted(halves.tolist()) == [0, 1]
    assert [len(each) for each in project.fit_n_grams("abab", 3, 3).values()] == [3, 3]
    text = project.generate(small_model(), ABC, "ab", torch.Generator(), 1, 0, 1.0)
    assert next(text) in "abc" and torch.is_grad_enabled()


def test_continuations_count_contexts() -> None:
    """b comes after 1a and 2a: after a it counts 2 contexts, not 3 times."""
    found = project.continuations(project.count_followers("1ab2ab2ab", 2))
    assert found == {"a": {"b": 2}, "b": {"2": 1}, "2": {"a": 1}}


def test_only_what_came_before_is_asked() -> None:
    asked = []

    def model(character: str, context: str) -> float:
        asked.append((character, context))
        return 0.5

    found = project.probabilities_by_counts("abc", model, 1, range(3))
    assert asked == [("a", ""), ("b", "a"), ("c", "b")] and found.tolist() == [0.5, 0.5, 0.5]
    project.probabilities_by_counts("abcde", model, 2, range(3, 5))
    assert asked[3:] == [("d", "bc"), ("e", "cd")]


def test_n_grams_and_network_are_asked_at_the_same_places() -> None:
    text = "".join(chr(97 + i % 26) for i in range(80))
    assert list(project.places(text)) == [64, 68, 72, 76]
    assert project.share_seen(text, text[:60], 3) == 1
    assert project.share_seen(text, "xyz" * 20, 3) == 0


def test_an_untrained_network_guesses() -> None:
    torch.manual_seed(0)
    model = project.CharacterLSTM(50, 64)
    vocabulary = Vocabulary("\ufffd" + "".join(chr(n) for n in range(65, 114)))
    text = "".join(vocabulary.characters[1 + 7 * i % 49] for i in range(500))
    found = -np.log2(project.probabilities_of(text, model, vocabulary)).mean()
    assert 0.95 < found / np.log2(50) < 1.05


def test_the_file_holds_the_model_of_the_run(trained: Path, monkeypatch, capsys) -> None:
    """Its probabilities, and the text that it writes: the same seed the same one."""
    model, vocabulary, name = project.load(trained / "model.pt")
    again, _, _ = project.load(trained / "model.pt")
    text = "The list is changed in place.\n"
    found = project.probabilities_of(text, model, vocabulary)
    assert np.array_equal(found, project.probabilities_of(text, again, vocabulary))
    assert name == "python"
    cfg = project.Config(device="cpu", out=trained, pause=0.0, length=80)
    written = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        project.go_on(cfg, model, vocabulary, "The ", generator)
        written.append(capsys.readouterr().out)
    assert written[0] == written[1] != written[2] and len(written[0]) == len("The ") + 80 + 1


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return project.CharacterLSTM(4, 8)


def test_the_network_is_asked_without_dropout_from_the_start_on() -> None:
    model = small_model().train()
    numbers = torch.from_numpy(ABC.encode(project.START + "abca"))
    assert not torch.equal(model(numbers[None])[0], model(numbers[None])[0])
    found = project.probabilities_of("abca", model, ABC)
    logits = model.eval()(numbers[None, :-1])[0][0].double()
    wanted = logits.softmax(dim=1)[torch.arange(4), numbers[1:]].detach().numpy()
    assert isinstance(found, np.ndarray) and found.dtype == np.float64
    assert np.allclose(found, wanted, rtol=1e-6, atol=0)


def test_the_network_is_the_one_of_the_note() -> None:
    model = project.CharacterLSTM(101, 256)
    assert sum(parameter.numel() for parameter in model.parameters()) == 362_149
    assert model.dropout.p == 0.1


CORPUS = Corpus("small", "abcabcaab" * 200, "abcab" * 40, "cab" * 20)


def small_config(out: Path, **changes) -> project.Config:
    settings = {"epochs": 2, "hidden": 8, "window": 10, "batch_size": 4, "lr": 0.01, "out": out}
    return project.Config(device="cpu", **settings | changes)


def test_windows_overlap_by_one_character_and_come_in_another_order(tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(project, "fit", lambda model, batches, *_, **__: seen.append(batches))
    project.train_one(small_config(tmp_path), CORPUS, seed=0)
    (windows,) = seen[0].tensors
    numbers = torch.from_numpy(CORPUS.vocabulary.encode(CORPUS.train))
    assert windows.shape == (179, 11)
    assert torch.equal(windows[1], numbers[10:21]) and torch.equal(windows[-1], numbers[1780:1791])
    assert seen[0].shuffle and seen[0].drop_last and len(seen[0]) == 44


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, monkeypatch, capsys) -> None:
    whole = project.train_one(small_config(tmp_path / "whole"), CORPUS, seed=0)
    other = project.train_one(small_config(tmp_path / "other"), CORPUS, seed=1)
    fit = project.fit
    first = {"epochs": 1}
    monkeypatch.setattr(project, "fit", lambda *words, **named: fit(*words, **named | first))
    project.train_one(small_config(tmp_path / "halves"), CORPUS, seed=0)
    monkeypatch.setattr(project, "fit", fit)
    cfg = small_config(tmp_path / "halves", resume=True)
    halves = project.train_one(cfg, CORPUS, seed=0)
    assert "resumed after epoch 1" in capsys.readouterr().out
    pairs = zip(whole.parameters(), halves.parameters(), other.parameters())
    for one, two, three in pairs:
        assert torch.equal(one, two) and not torch.equal(one, three)
    with pytest.raises(LessonError, match="made with another --lr"):
        project.train_one(small_config(tmp_path / "halves", resume=True, lr=0.1), CORPUS, seed=0)


def test_an_unknown_character_is_named_among_those_not_in_the_vocabulary(monkeypatch) -> None:
    """Of 11 characters three are known; number 0 is no character of its own."""
    monkeypatch.setattr(project, "UNICODE", 11)
    bits = project.bits_per_character(np.array([1 / 2, 1 / 4]), "ax", Vocabulary("\ufffdabc"))
    assert bits == pytest.approx((1 + 2 + 3) / 2)
