"""A lesson's settings and its `main`: a mistake gets one sentence, and every result is whole."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from common import config, record
from common.checks import check, expect
from common.config import LessonConfig, execute, param, parse
from common.errors import LessonError
from common.lessons import ROOT

DOC = """9.9 A lesson of the tests: nothing but its settings
测试
"""


@dataclass
class Config(LessonConfig):
    data: str = param("digits", "data set", choices=("digits", "mnist"))
    epochs: int = param(10, "passes over the data", tiny=1, long=40)
    lr: float = param(0.1, "learning rate, 100% of it", quick=0.3)
    dropout: float = param(0.0, "share of zeroed values")
    augment: bool = param(True, "change the pictures", tiny=False)
    limit: int | None = param(None, "take only so many", low=0)


def settings(*argv: str) -> Config:
    return parse(Config, DOC, list(argv), prog="lesson.py")


def refused(capsys, *argv: str) -> str:
    """The sentence for a wrong command line."""
    with pytest.raises(SystemExit) as caught:
        settings(*argv)
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert (
        text.startswith("lesson.py: ") and text.endswith("See --help.\n") and text.count("\n") == 1
    )
    return text


def start(run, out: Path, *argv: str) -> int:
    return execute(run, Config, DOC, ["--out", str(out), *argv])


def only_sentence(capsys) -> str:
    """What stderr says: one line, and no trace."""
    text = capsys.readouterr().err.strip()
    assert text.startswith("error: ") and "\n" not in text
    return text


def result_in(out: Path) -> dict:
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


# ---- flags


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--epoch", "3"], "unrecognized arguments: --epoch 3. Did you mean --epochs?"),
        (["-epochs", "3"], "Did you mean --epochs?"),
        (
            ["--learning-rate-of-the-model", "1"],
            "unrecognized arguments: --learning-rate-of-the-model 1. See",
        ),
        (["--epochs", "-1"], "argument --epochs: must be 1 or more, got -1"),
        (["--epochs", "0"], "must be 1 or more"),
        (["--epochs", "abc"], "'abc' is not a whole number"),
        (["--epochs", "1.5"], "'1.5' is not a whole number"),
        (["--epochs"], "expected one argument"),
        (["--lr", "nan"], "argument --lr: must be 0 or more, got nan"),
        (["--lr", "-0.1"], "must be 0 or more"),
        (["--lr", "inf"], "inf is too large"),
        (["--lr", "fast"], "'fast' is not a number"),
        (["--seed", "9" * 30], "is too large"),
        (["--limit", "-1"], "must be 0 or more"),
        (["--data", "imagenet"], "invalid choice: 'imagenet' (choose from"),
        (["--preset", "longer"], "invalid choice: 'longer'"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_a_wrong_flag_gets_one_sentence(capsys, argv, words):
    assert words in refused(capsys, *argv)


def test_explicit_flag_then_tiny_then_preset_then_default():
    assert (settings().epochs, settings("--tiny").epochs, settings("--preset", "long").epochs) == (
        10,
        1,
        40,
    )
    assert (
        settings("--tiny", "--epochs", "3").epochs,
        settings("--epochs", "3", "--tiny").epochs,
    ) == (3, 3)
    assert (
        settings("--preset", "long", "--epochs", "10").epochs == 10
    )  # said, though it equals the default
    assert settings("--tiny", "--preset", "long").epochs == 1
    assert settings("--preset", "quick").lr == 0.3 and settings("--preset", "quick").epochs == 10
    assert settings("--tiny").augment is False and settings("--tiny", "--augment").augment is True
    assert settings("--no-augment").augment is False
    assert settings().limit is None and settings("--limit", "0").limit == 0
    assert settings("--data-dir", "x").data_dir == Path("x")


def test_help_holds_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        settings("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0 and "测试" in text and "100% of it" in text
    names = [field.name for field in dataclasses.fields(Config)]
    for name in (*names, "no-augment"):
        assert "--" + name.replace("_", "-") in text, name
    assert (
        "(default 10, tiny 1, long 40)" in text
        and "(default 0)" in text
        and "{default,long,quick}" in text
    )


def test_one_seed_gives_one_stream():
    assert settings("--seed", "5").rng().random() == np.random.default_rng(5).random()


def test_importing_config_does_not_import_torch():
    code = "import sys, common.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], cwd=ROOT) == 0


# ---- results


def good_run(cfg: Config) -> dict:
    check("sum", "one and one are two", 1 + 1 == 2)
    expect("high", "accuracy is high", 0.9, at_least=0.5)
    record.current().use_data("digits", "from a test")
    return {
        "accuracy": np.float32(0.5),
        "best": torch.tensor(3),
        "loss": [torch.tensor(1.0), 0.5],
        "curve": np.arange(2.0),
        "per_class": {"cat": np.int64(1)},
    }


def test_result_json_and_runs_jsonl(tmp_path, capsys):
    assert start(good_run, tmp_path, "--tiny", "--epochs", "2", "--data-dir", "somewhere") == 0
    result = result_in(tmp_path)
    assert result["status"] == "passed" and result["lesson"] == "tests/test_config"
    assert result["metrics"] == {"accuracy": 0.5, "best": 3}
    assert result["curves"] == {"loss": [1.0, 0.5], "curve": [0.0, 1.0], "per_class": {"cat": 1}}
    assert [(c["id"], c["status"]) for c in result["claims"]] == [
        ("sum", "passed"),
        ("high", "not judged"),
    ]
    assert (
        result["data"] == ["digits (from a test)"]
        and result["test_reads"] == 0
        and result["figures"] == []
    )
    assert result["settings"] | {"out": 0} == {
        "tiny": True,
        "preset": "default",
        "device": "auto",
        "seed": 0,
        "data": "digits",
        "data_dir": "somewhere",
        "out": 0,
        "resume": False,
        "debug": False,
        "epochs": 2,
        "lr": 0.1,
        "dropout": 0.0,
        "augment": False,
        "limit": None,
    }
    assert (
        result["seconds"] >= 0
        and result["threads"] >= 1
        and result["versions"]["torch"] == torch.__version__
    )
    printed = capsys.readouterr().out
    assert (
        "tiny run · seed 0 · device " in printed
        and "1 claims hold, 1 not judged in a tiny run" in printed
    )

    assert start(good_run, tmp_path) == 0
    first, second = map(
        json.loads, (tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert (
        first["settings"]["tiny"]
        and not second["settings"]["tiny"]
        and second["metrics"] == first["metrics"]
    )


def test_seeds_are_set_before_the_run(tmp_path):
    drawn = []

    def run(cfg):
        drawn.append((torch.rand(3).tolist(), np.random.rand()))  # noqa: NPY002 the old one too

    assert [
        start(run, tmp_path, "--seed", "4"),
        start(run, tmp_path, "--seed", "4"),
        start(run, tmp_path),
    ] == [0, 0, 0]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_failed_claim_exits_1_and_is_written_down(tmp_path, capsys):
    def run(cfg):
        check("wrong", "one and one are three", 1 + 1 == 3)

    assert start(run, tmp_path) == 1
    assert "the claim “wrong” does not hold" in only_sentence(capsys)
    assert (
        result_in(tmp_path)["status"] == "failed"
        and result_in(tmp_path)["claims"][0]["status"] == "failed"
    )


def test_a_run_that_misses_its_target_keeps_what_it_measured(tmp_path, capsys):
    def run(cfg):
        expect("accuracy", "accuracy {}", 0.3, at_least=0.9)
        (cfg.out / "model.pt").write_text("the model")
        check("sum", "one and one are two", 1 + 1 == 2)
        return {"accuracy": 0.3, "loss": [1.0, 0.5]}

    assert start(run, tmp_path) == 1
    result = result_in(tmp_path)
    assert result["status"] == "failed" and result["metrics"] == {"accuracy": 0.3}
    assert result["curves"] == {"loss": [1.0, 0.5]} and (tmp_path / "model.pt").exists()
    assert [claim["status"] for claim in result["claims"]] == ["failed", "passed"]
    line = json.loads((tmp_path / "runs.jsonl").read_text(encoding="utf-8"))
    assert line["status"] == "failed" and line["metrics"] == {"accuracy": 0.3}
    assert "“accuracy” does not hold: accuracy 0.3 (wanted at least 0.9)" in only_sentence(capsys)
    # a tiny run only reports it
    assert start(run, tmp_path / "tiny", "--tiny") == 0


def test_an_exact_claim_ends_the_run_at_once(tmp_path):
    def run(cfg):
        expect("accuracy", "accuracy {}", 0.3, at_least=0.9)
        check("sum", "one and one are three", 1 + 1 == 3)
        raise AssertionError("not reached")

    assert start(run, tmp_path) == 1
    assert [claim["status"] for claim in result_in(tmp_path)["claims"]] == ["failed", "failed"]
    assert result_in(tmp_path)["metrics"] == {}


def test_runs_at_the_same_time_lose_no_line(tmp_path):
    path = tmp_path / "01-script.py"
    path.write_text(SCRIPT.replace("    if cfg.debug", "    if False"), encoding="utf-8")
    command = [sys.executable, str(path), "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(6)]
    assert [one.wait() for one in runs] == [0] * 6
    lines = (tmp_path / "out" / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6 and all(json.loads(line)["status"] == "passed" for line in lines)


# ---- a guess before the run

PREDICTS = '''"""9.9 A script
脚本

Predict   speedup: how many times faster?
"""
from common.config import LessonConfig, main, param
from dataclasses import dataclass

@dataclass
class Config(LessonConfig):
    csv: str | None = param(None, "a table of your own")

def run(cfg):
    return {result}

if __name__ == "__main__":
    main(run, Config, __doc__)
'''


@pytest.fixture
def predicting(tmp_path):
    """Run a script with a Predict line; returns its exit code, its output and its result."""

    def go(result: str, guess: str | None = None, *flags: str, after: tuple[str, ...] = ()):
        path = tmp_path / "01-script.py"
        path.write_text(PREDICTS.replace("{result}", result), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        environment.pop("COURSE_GUESS", None)
        if guess is not None:
            environment["COURSE_GUESS"] = guess
        out = tmp_path / "out"
        command = [sys.executable, *flags, str(path), "--out", str(out), *after]
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        found = result_in(out) if (out / "result.json").exists() else None
        return done.returncode, done.stdout + done.stderr, found

    return go


def test_a_guess_is_kept_and_shown_beside_the_result(predicting, tmp_path):
    code, words, result = predicting("{'speedup': 35.21}", "20.0")
    assert code == 0 and "how many times faster?\nyou guessed 20, it is 35.21\n" in words
    assert result["guess"] == 20.0
    assert json.loads((tmp_path / "out" / "runs.jsonl").read_text())["guess"] == 20.0
    code, words, result = predicting("{'speedup': 1234567.8}")
    assert code == 0 and "you guessed" not in words and result["guess"] is None
    assert "you guessed 20,000, it is 1,234,568" in predicting("{'speedup': 1234567.8}", "2e4")[1]


def test_a_guess_that_is_not_a_number(predicting):
    for guess in ("many", "nan", "1e999"):
        code, words, result = predicting("{'speedup': 35.2}", guess)
        assert code == 1 and result is None
        assert words.startswith("\nerror: COURSE_GUESS: ") and words.count("\n") == 2


@pytest.mark.parametrize(
    "result", ["{'speed': 3, 'loss': [1, 2]}", "{'speedup': 'high'}", "{'speedup': [1.0]}", "{}"]
)
def test_a_predict_key_that_the_result_lacks(predicting, result):
    code, words, _ = predicting(result, "20")
    lines = [line for line in words.splitlines() if line.startswith("warning: ")]
    assert code == 0 and len(lines) == 1 and "you guessed" not in words
    assert "01-script.py, line 4: “speedup” is no number of the result, which has: " in lines[0]


def test_the_question_is_about_the_default_data(predicting):
    code, words, _ = predicting("{'rows': 3}", after=("--csv", "own.csv"))
    assert code == 0 and "warning" not in words
    assert "warning" in predicting("{'rows': 3}", None, after=("--device", "cpu"))[1]


def test_a_script_whose_docstring_was_stripped(predicting):
    code, words, _ = predicting("{'speedup': 35.2}", "20", "-OO")
    assert code == 0 and words.startswith("9.9 A script\n") and "you guessed 20" in words


# ---- mistakes, accidents and faults


def stops(error):
    def run(cfg):
        raise error

    return run


@pytest.mark.parametrize(
    "error, code, words",
    [
        (
            LessonError("the file is no PNG. Save it as PNG."),
            1,
            "the file is no PNG. Save it as PNG.",
        ),
        (KeyboardInterrupt(), 130, "stopped by you. What was saved is in"),
        (NotImplementedError("how far is the next row?"), 1, "how far is the next row?"),
        (NotImplementedError(), 1, "still to be written"),
        (
            ModuleNotFoundError("No module named 'gym.x'", name="gym.x"),
            1,
            "needs the package gym, which is not installed. Install what all lessons need: python",
        ),
        (
            ModuleNotFoundError("No module named 'commonmark'", name="commonmark"),
            1,
            "needs the package commonmark",
        ),
        (MemoryError(), 1, "Try a smaller --batch-size"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "Try a smaller --batch-size"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full"),
        (
            OSError(errno.EROFS, "Read-only file system", "/mnt/x"),
            1,
            "/mnt/x cannot be written: no permission",
        ),
    ],
)
def test_what_may_happen_gets_one_sentence_and_leaves_the_last_result(
    tmp_path, capsys, error, code, words
):
    start(good_run, tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    capsys.readouterr()
    assert start(stops(error), tmp_path) == code
    assert words in only_sentence(capsys) and (tmp_path / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes do not match"),
        FileNotFoundError(errno.ENOENT, "No such file", "x.txt"),
        ModuleNotFoundError("No module named 'common.vision'", name="common.vision"),
        ModuleNotFoundError("No module named 'phase05_cnn'", name="phase05_cnn"),
    ],
)
def test_a_fault_of_ours_keeps_its_trace(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        start(stops(error), tmp_path)
    assert caught.value is error


def test_debug_shows_the_trace_once(tmp_path, capsys):
    assert start(stops(LessonError("no PNG.")), tmp_path, "--debug") == 1
    text = capsys.readouterr().err
    assert text.count("Traceback") == 1 and "in run" in text and text.endswith("error: no PNG.\n")


@pytest.mark.parametrize(
    "device, words",
    [("tpu", "--device tpu is no device. Use auto, cpu"), ("cuda", "finds no cuda here")],
)
def test_a_device_that_is_not_here(tmp_path, capsys, monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start(good_run, tmp_path, "--device", device) == 1
    assert words in only_sentence(capsys)


def test_an_output_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert start(good_run, out) == 1
        assert f"--out “{out}” is not a folder that can be used" in only_sentence(capsys)
    assert (tmp_path / "file").read_text() == "mine"


def append_to(ran: list):
    def run(cfg):
        ran.append(cfg)

    return run


def test_an_output_folder_that_is_read_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(config.os, "access", lambda *_: False)
    ran = []
    assert start(append_to(ran), tmp_path) == 1
    # before the training
    assert "no permission to write there" in only_sentence(capsys) and not ran


@pytest.mark.parametrize("out", ["~nosuchuser", "x" * 300, "/proc/x"])
def test_an_output_folder_that_cannot_be(capsys, monkeypatch, tmp_path, out):
    monkeypatch.chdir(tmp_path)
    assert start(good_run, Path(out)) == 1
    assert "--out “" in only_sentence(capsys)


def test_an_output_folder_without_a_name(capsys):
    assert "argument --out: an empty name is no folder" in refused(capsys, "--out", "")


@pytest.mark.parametrize(
    "number, words", [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "no permission")]
)
def test_a_disk_that_fills_up_during_the_run(tmp_path, capsys, monkeypatch, number, words):
    start(good_run, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()

    def half(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", half)
    assert start(good_run, tmp_path) == 1
    assert words in only_sentence(capsys)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_only_answers_a_question_writes_no_result(tmp_path):
    assert start(lambda cfg: None, tmp_path) == 0 and not list(tmp_path.iterdir())


# ---- as a script

SCRIPT = '''"""9.9 A script
脚本
"""
import time
from common.config import LessonConfig, main
from common.errors import LessonError

def run(cfg):
    print("ready ✓ 好", flush=True)
    if cfg.debug:
        time.sleep(60)
    return {}

if __name__ == "__main__":
    main(run, LessonConfig, __doc__)
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "01-script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return [sys.executable, str(path), "--out", str(tmp_path / "out")]


def test_a_console_that_knows_no_check_mark(script, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "cp1252",
        "PYTHONUTF8": "0",
    }
    done = subprocess.run(script, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0 and "ready ✓ 好" in done.stdout.decode("utf-8") and not done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_ctrl_c(script, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*script, "--debug"],
        env=environment,
        cwd=tmp_path,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert any("ready" in line for line in child.stdout)
        child.send_signal(signal.SIGINT)
        output = child.stderr.read()
    assert child.returncode == 130 and "error: stopped by you" in output
