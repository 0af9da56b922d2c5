"""`course run`, `runs`, `verify`, `doctor`, `data`: on a hand-made course in a temporary folder."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import lessons
from common.course import cli, doctor, fetching, running, verify
from common.data import images, sources
from common.data.sources import Part, Source
from common.errors import LessonError
from common.lessons import Lesson, Predict, fingerprint

SMALL = '''"""{number} {title}
{title} 的中文

You will be able to answer
    1. Does it run?          show_it        runs, good
Predict   accuracy: how often is it right?
Run       python it                         at once
Needs     phase01_demo/01-first
"""
import os
from dataclasses import dataclass
from pathlib import Path

from common.checks import check, expect
from common.config import LessonConfig, main, param


@dataclass
class Config(LessonConfig):
    data: str = param("made", "data set", choices=("made", "other"))
    epochs: int = param(2, "passes", tiny=1)
    fail_at: int = param({fail_at}, "the seed that fails", low=-1)
    code: int = param(0, "leave with this exit code", low=0)


def show_it(cfg: Config) -> None:
    print("\\n[1] It runs")
    print("mine" if os.environ.get("COURSE_MINE") == "1" else "theirs")
    check("runs", "it runs", True)
    value = 0.0 if cfg.seed == cfg.fail_at else 0.9 + cfg.seed / 100
    expect("good", "good enough: {{}}", value, at_least=0.8)


def run(cfg: Config) -> dict:
    show_it(cfg)
    if cfg.code:
        raise SystemExit(cfg.code)
    from PIL import Image
    Image.effect_noise((1600, 400), 90).save(cfg.out / "noise.png")
    with open(Path(__file__).parent.parent / "count.txt", "a") as file:
        file.write(f"{{Path(__file__).stem}} {{cfg.seed}}\\n")
    return {{"accuracy": 0.9 + cfg.seed / 100, "majority": 0.1, "best": "adam", "ready": True,
            "loss": [1 / (e + 1) for e in range(cfg.epochs)]}}


if __name__ == "__main__":
    main(run, Config, __doc__)
'''


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    """Nothing of the person's own, nothing left behind."""
    for name in ("COURSE_DATA", "COURSE_MIRROR", "COURSE_LANG", "COURSE_MINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A course of two lessons and a project, the second lesson failing with seed 1."""
    root = tmp_path / "course"
    monkeypatch.setattr(lessons, "ROOT", root)
    monkeypatch.setattr(lessons, "PRACTICE", root / "practice")
    for path, number, fail_at in (
        ("phase01_demo/01-first", "1.1", -1),
        ("phase01_demo/02-second", "1.2", 1),
        ("phase02_more/project-last", "Project 2", -1),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        text = SMALL.format(number=number, title=path[-5:], fail_at=fail_at)
        (root / f"{path}.py").write_text(text, encoding="utf-8")
    (root / "common").mkdir()
    (root / "common" / "config.py").write_text("# stands for the code that all lessons share\n")
    return root


def said(capfd, *command: str) -> tuple[int, str]:
    """Exit code and all words of a command and of the lessons that it ran."""
    capfd.readouterr()
    code = cli.main(list(command))
    captured = capfd.readouterr()
    return code, captured.out + captured.err


# ---- run


def test_run_passes_flags_and_exit_code(root, tmp_path, capfd):
    out = str(tmp_path / "out")
    code, words = said(capfd, "run", "01/01", "--tiny", "--seed", "7", "--out", out)
    assert code == 0 and "tiny run · seed 7" in words and "theirs" in words
    assert (
        json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["settings"][
            "epochs"
        ]
        == 1
    )
    assert said(capfd, "run", "01/01", "--code", "3", "--out", out)[0] == 3
    code, words = said(capfd, "run", "01/01", "--epocs", "3")
    assert code == 2 and "Did you mean --epochs?" in words
    code, words = said(capfd, "run", "01/01", "--help")
    assert code == 0 and "--fail-at" in words


@pytest.mark.parametrize(
    "words", [("--mine", "01/02"), ("01/02", "--mine"), ("01/02", "--seed", "2", "--mine")]
)
def test_mine_reaches_the_lesson_but_not_its_flags(root, tmp_path, capfd, words):
    code, printed = said(capfd, "run", *words, "--out", str(tmp_path / "out"))
    assert (
        code == 0
        and "\nmine\n" in printed
        and "none of the lessons behind 01/02 is yours yet" in printed
    )


def test_mine_names_and_runs_what_has_passed(root, tmp_path, capfd):
    for name in ("01-first", "02-second"):
        copy = lessons.PRACTICE / "phase01_demo" / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = (root / "phase01_demo" / f"{name}.py").read_text(encoding="utf-8")
        copy.write_text(text.replace("[1] It runs", "my own words"), encoding="utf-8")
    passed = {
        "phase01_demo/01-first": fingerprint(lessons.PRACTICE / "phase01_demo" / "01-first.py")
    }
    (lessons.PRACTICE / "passed.json").write_text(json.dumps(passed))
    out = ("--out", str(tmp_path / "out"))
    printed = said(capfd, "run", "01/02", "--mine", *out)[1]
    assert (
        "yours: phase01_demo/01-first\n" in printed and "[1] It runs" in printed
    )  # 01/02 itself has not passed
    assert "my own words" in said(capfd, "run", "01/01", "--mine", *out)[1]
    assert "my own words" not in said(capfd, "run", "01/01", *out)[1]


@pytest.mark.parametrize(
    "text, value",
    [
        ("20", 20),
        (" 1e3 ", 1000),
        ("95%", 0.95),
        ("12.5 %", 0.125),
        ("1,200", 1200),
        ("-1,234,567.5", -1234567.5),
        ("3/4", 0.75),
        ("−2", -2),
        (".5", 0.5),
    ],
)
def test_numbers_as_people_write_them(text, value):
    assert running.read_number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "many", "1,5", "1,20,0", "3/0", "1/", "nan", "inf", "1e999"])
def test_what_is_not_a_number(text):
    with pytest.raises(ValueError):
        running.read_number(text)


def test_a_guess_is_asked_for_until_it_is_a_number(capsys, monkeypatch):
    answers = iter(["many", "1,5", "95%"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert running.ask_for_a_guess(Predict("accuracy", "how often?", 5)) == 0.95
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Predict: how often?" and len(printed) == 3
    assert printed[1].startswith("“many” is not a number") and "“1,5”" in printed[2]


def test_a_guess_may_be_skipped(monkeypatch):
    def end_of_input(prompt):
        raise EOFError

    for answer in (lambda prompt: "  ", end_of_input):
        monkeypatch.setattr("builtins.input", answer)
        assert running.ask_for_a_guess(Predict("accuracy", "how often?", 5)) is None


def on_a_terminal(root: Path, typed: str, *command: str) -> str:
    """What `course` shows on a terminal where someone types."""
    import pty

    program = (
        "import sys; from pathlib import Path; from common import lessons; "
        "from common.course import cli; "
        f"lessons.ROOT = Path({str(root)!r}); lessons.PRACTICE = lessons.ROOT / 'practice'; "
        f"sys.exit(cli.main({list(command)!r}))"
    )
    ours, theirs = pty.openpty()
    words = b""
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        # a terminal whose other side has gone gives an error, or nothing
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                words += part
    os.close(ours)
    assert process.returncode == 0, words.decode()
    return words.decode().replace("\r\n", "\n")


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
def test_a_guess_from_the_terminal_to_the_table_of_runs(root, tmp_path, capfd):
    lesson = Lesson(root / "phase01_demo" / "01-first.py")
    out = ("--out", str(lesson.out()))
    words = on_a_terminal(root, "often\n80%\n", "run", "01/01", *out)
    assert "Predict: how often is it right?" in words and "“often” is not a number" in words
    assert "how often is it right?\nyou guessed 0.8, it is 0.9\n" in words
    for typed, flags in (("\n", ()), ("", ("--no-predict",)), ("", ("--tiny",))):
        words = on_a_terminal(root, typed, "run", "01/01", *flags, *out)
        assert "you guessed" not in words and ("your guess" in words) == (typed == "\n")
    assert "your guess" not in on_a_terminal(root, "", "run", "--no-predict", "01/01", *out)
    # piped, nobody is asked
    assert "Predict" not in said(capfd, "run", "01/01", *out)[1]

    table = said(capfd, "runs", "01/01")[1].splitlines()
    assert "guess" in table[0].split() and " 0.8 " in table[2]
    found, _ = running.read_runs(lesson)
    assert [one["guess"] for one in found] == [0.8] + [None] * 5


def test_a_lesson_that_does_not_exist(root, capfd):
    for command in ("run", "runs", "verify"):
        code, words = said(capfd, command, "09/99")
        assert (
            code == 1
            and words.startswith("error: there is no lesson “09/99”")
            and words.count("\n") == 1
        )


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_run_reports_a_kill_as_a_shell_does_and_lets_a_lesson_finish_at_ctrl_c(root):
    lesson = Lesson(root / "phase01_demo" / "01-first.py")
    lesson.path.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert running.run_lesson(lesson, []) == 137
    lesson.path.write_text(
        "import time\ntry:\n    print('up', flush=True)\n    time.sleep(20)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    print('saved', flush=True)\n"
        "    raise SystemExit(130)"
    )
    program = (
        "import pathlib, sys; from common.course import running; "
        "from common.lessons import Lesson; "
        f"sys.exit(running.run_lesson(Lesson(pathlib.Path({str(lesson.path)!r})), []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=15)[0] == "saved\n" and process.returncode == 130


# ---- runs


def note_run(folder: Path, second: int, **settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = {
        "date": f"2026-01-02T03:04:{second:02}+00:00",
        "status": "passed",
        "settings": {"tiny": False, "lr": 0.1, "seed": 0, "out": str(folder)} | settings,
        "metrics": {"accuracy": 0.5 + second / 100},
        "seconds": 1.5,
        "curves": {
            "loss": [1.0, 0.5 - second / 100],
            "names": ["a"],
            "nested": {"x": [1]},
            "empty": [],
        },
    }
    with open(folder / "runs.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def test_runs_shows_all_folders_in_order_and_what_differs(root, capfd, monkeypatch):
    lesson = Lesson(root / "phase01_demo" / "01-first.py")
    note_run(lesson.out(), 5, lr=0.3)
    note_run(lesson.out(), 1)
    note_run(lesson.out(tiny=True), 2, tiny=True)
    note_run(lessons.PRACTICE / "outputs" / lesson.key / "tiny", 3, tiny=True)
    with open(lesson.out() / "runs.jsonl", "a", encoding="utf-8") as file:
        file.write('{"date": "2026-01\n\n[1]\n{"date": "yesterday"}\n')
    drawn = {}
    monkeypatch.setattr(running, "draw_runs", lambda lesson, runs: drawn.update(runs))
    code, words = said(capfd, "runs", "01/01")
    rows = [
        line.split() for line in words.splitlines() if line.strip()[:1].isdigit() and "2026" in line
    ]
    assert code == 0 and [row[0] for row in rows] == ["1", "2", "3", "4"]
    header = words.splitlines()[0].split()
    assert header == ["run", "date", "where", "lr", "accuracy", "seconds", "status"]
    assert [row[-3] for row in rows] == ["0.51", "0.52", "0.53", "0.55"]
    assert [row[-4] for row in rows] == ["0.1", "0.1", "0.1", "0.3"]
    assert [row[3] for row in rows] == ["normal", "tiny", "practice,", "normal"]
    assert "3 damaged lines skipped" in words and list(drawn) == [1, 2, 3, 4]
    code, words = said(capfd, "runs", "01/01", "--last", "1")
    assert (
        code == 0 and "3 earlier runs are not shown" in words and "lr" not in words.splitlines()[0]
    )


def test_runs_draws_numeric_lists_only(root, capfd, monkeypatch):
    from common import figures

    lesson = Lesson(root / "phase01_demo" / "01-first.py")
    for second in range(3):
        note_run(lesson.out(tiny=second == 2), second)
    kept = {}
    monkeypatch.setattr(
        figures, "save_figure", lambda figure, path: kept.update(figure=figure, path=path)
    )
    assert said(capfd, "runs", "01/01")[0] == 0
    assert kept["path"] == root / "outputs" / "phase01_demo" / "01-first" / "runs.png"
    axes = [axis for axis in kept["figure"].axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in axes] == ["loss"]
    assert [list(line.get_ydata()) for line in axes[0].lines] == [[1, 0.5], [1, 0.49], [1, 0.48]]
    assert [line.get_linestyle() for line in axes[0].lines] == ["-", "-", ":"]


@pytest.mark.parametrize(
    "arguments, expected",
    [(("01/01",), "course run 01/01 makes one"), (("01/01", "--last", "0"), "--last")],
)
def test_runs_mistakes_get_a_sentence(root, capfd, arguments, expected):
    code, words = said(capfd, "runs", *arguments)
    assert code == 1 and expected in words and words.count("\n") == 1


def test_runs_of_a_real_run_are_found(root, capfd):
    lesson = Lesson(root / "phase01_demo" / "01-first.py")
    for out in (lesson.out(), lesson.out()):
        said(capfd, "run", "01/01", "--out", str(out))
    found, damaged = running.read_runs(lesson)
    assert len(found) == 2 and damaged == 0 and found[0]["curves"]["loss"] == [1.0, 0.5]


# ---- verify


def counted(root: Path) -> list[str]:
    file = root / "count.txt"
    return file.read_text().splitlines() if file.exists() else []


def results(root: Path) -> dict:
    return json.loads((root / "docs" / "RESULTS.json").read_text(encoding="utf-8"))


def test_verify_collects_seeds_and_names_what_failed(root, capfd):
    code, words = said(capfd, "verify", "01", "--seeds", "2")
    assert (
        code == 1
        and "✓ phase01_demo/01-first  seed 1" in words
        and "✗ phase01_demo/02-second  seed 1" in words
    )
    assert "1 of 2 lessons passed" in words
    found = results(root)
    assert set(found["machine"]) == {"cpu", "cores", "python", "torch"}
    first = found["lessons"]["phase01_demo/01-first"]
    assert first["status"] == "passed" and first["seeds"] == [0, 1] and first["test_reads"] == 0
    assert first["metrics"]["accuracy"] == {
        "mean": pytest.approx(0.905),
        "min": 0.9,
        "max": 0.91,
        "values": [0.9, 0.91],
    }
    assert first["claims"]["good"]["kind"] == "learned" and first["claims"]["good"]["status"] == [
        "passed",
        "passed",
    ]
    assert first["claims"]["good"]["measured"] == ["0.9", "0.91"]
    assert (
        len(first["seconds"]["values"]) == 2
        and first["peak_memory_mib"] > 0
        and "python" in first["versions"]
    )
    assert list(first["metrics"]) == ["accuracy", "majority"]
    second = found["lessons"]["phase01_demo/02-second"]
    assert second["status"] == "failed" and second["claims"]["good"]["status"] == [
        "passed",
        "failed",
    ]
    # what the run that missed its target has measured is kept
    assert second["metrics"]["accuracy"]["values"] == [0.9, 0.91]
    assert "does not hold" in second["errors"]["1"]
    assert str(root) not in json.dumps(found)


def test_verify_runs_in_the_normal_mode_in_folders_of_its_own(root, capfd):
    said(capfd, "verify", "01/01", "--seeds", "1")
    result = json.loads(
        (root / "outputs/verify/phase01_demo/01-first/seed0/result.json").read_text(
            encoding="utf-8"
        )
    )
    assert result["settings"]["tiny"] is False and result["settings"]["epochs"] == 2
    assert "[1] It runs" in (root / "outputs/verify/phase01_demo/01-first/seed0/log.txt").read_text(
        encoding="utf-8"
    )
    assert not (root / "outputs" / "phase01_demo").exists()


def test_verify_tables_in_both_languages(root, capfd):
    (root / "docs" / "phase01_demo").mkdir(parents=True)
    (root / "docs" / "phase01_demo" / "01-first.md").write_text("note")
    said(capfd, "verify", "phase01_demo", "--seeds", "2")
    english, chinese = (
        (root / "docs" / name).read_text(encoding="utf-8")
        for name in ("RESULTS.md", "RESULTS.zh.md")
    )
    row = next(line for line in english.splitlines() if "01/01" in line).split(" | ")
    assert (
        row[0] == "| [01/01 first](phase01_demo/01-first.md)"
        and row[1] == "accuracy 0.905 (0.9–0.91)"
    )
    assert row[2] == "majority 0.1" and row[3] == "2/2" and row[4] == "2"
    assert (
        "| 02/project-last -last | not run |" in english
        and "**failed**" in english
        and "1/2" in english
    )
    assert (
        "| 02/project-last -last 的中文 | 尚未运行 |" in chinese
        and "01/01 first 的中文" in chinese
        and "# 结果" in chinese
    )
    assert english.count("\n| ") == chinese.count("\n| ")
    for text in (english, chinese):
        assert {line.count(" | ") for line in text.splitlines() if line.startswith("|")} == {7}


def test_resume_skips_what_this_very_code_has_passed(root, capfd):
    said(capfd, "verify", "01", "--seeds", "2")
    assert sorted(counted(root)) == [
        "01-first 0",
        "01-first 1",
        "02-second 0",
        "02-second 1",
    ]
    before = results(root)["lessons"]["phase01_demo/01-first"]
    words = said(capfd, "verify", "01", "--seeds", "2", "--resume")[1]
    # seed 1 of 02-second failed, so it runs again
    assert "3 of 4 runs are left out" in words and counted(root)[4:] == ["02-second 1"]
    assert results(root)["lessons"]["phase01_demo/01-first"] == before
    assert said(capfd, "verify", "01/01", "--seeds", "3", "--resume")[0] == 0
    assert counted(root)[5:] == ["01-first 2"]
    assert results(root)["lessons"]["phase01_demo/01-first"]["seeds"] == [0, 1, 2]
    (root / "common" / "config.py").write_text("# changed\n")
    said(capfd, "verify", "01/01", "--seeds", "1", "--resume")
    assert counted(root)[6:] == ["01-first 0"]
    # the others were of older code
    assert results(root)["lessons"]["phase01_demo/01-first"]["seeds"] == [0]


def test_the_fingerprint_follows_loaded_lessons(root):
    first, second = (
        Lesson(root / "phase01_demo" / name) for name in ("01-first.py", "02-second.py")
    )
    before = verify.code_fingerprint(first, root), verify.code_fingerprint(second, root)
    second.path.write_text(SMALL + 'X = load_lesson("phase01_demo/01-first")\n', encoding="utf-8")
    middle = verify.code_fingerprint(second, root)
    first.path.write_text(SMALL + "# changed\n", encoding="utf-8")
    assert before[0] != verify.code_fingerprint(first, root)
    assert before[1] != middle != verify.code_fingerprint(second, root)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_kill_loses_no_finished_run(root):
    (root / "phase01_demo" / "02-second.py").write_text("import time; time.sleep(30)")
    program = (
        "import sys; from pathlib import Path; from common import lessons; "
        "from common.course import cli; "
        f"lessons.ROOT = Path({str(root)!r}); sys.exit(cli.main(['verify', '01', '--seeds', '1']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.time() + 25
        while not (root / "docs" / "RESULTS.zh.md").exists() and time.time() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert list(results(root)["lessons"]) == ["phase01_demo/01-first"]
    assert (
        verify.verify([Lesson(root / "phase01_demo" / "01-first.py")], range(1), root, resume=True)
        == 0
    )
    assert counted(root) == ["01-first 0"]


def test_verify_with_data_is_kept_beside(root, capfd):
    said(capfd, "verify", "01/01", "--seeds", "1")
    assert said(capfd, "verify", "01/01", "--seeds", "1", "--data", "other")[0] == 0
    assert list(results(root)["lessons"]) == [
        "phase01_demo/01-first",
        "phase01_demo/01-first@other",
    ]
    assert "01/01 first `--data other`" in (root / "docs" / "RESULTS.md").read_text(
        encoding="utf-8"
    )
    for resume in ((), ("--resume",)):
        code, words = said(capfd, "verify", "01/01", "--seeds", "1", "--data", "mnist", *resume)
        assert code == 1 and "do not take --data mnist: phase01_demo/01-first" in words
    assert list(results(root)["lessons"]) == [
        "phase01_demo/01-first",
        "phase01_demo/01-first@other",
    ]


def test_results_name_no_path_of_this_machine(root, capfd):
    path = root / "phase01_demo" / "01-first.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            "def run(cfg: Config) -> dict:",
            "def run(cfg: Config) -> dict:\n    from common.record import current\n"
            "    current().use_data('mnist', cfg.out / 'mnist.npz')\n"
            "    current().use_data('digits', 'from the package scikit-learn')",
        )
    )
    (root / "phase01_demo" / "02-second.py").write_text("open(__file__ + '.gone')")
    said(capfd, "verify", "01", "--seeds", "1")
    found = results(root)["lessons"]
    assert found["phase01_demo/01-first"]["data"] == [
        "mnist",
        "digits (from the package scikit-learn)",
    ]
    assert "./phase01_demo/02-second.py.gone" in found["phase01_demo/02-second"]["errors"]["0"]
    assert str(root.parent) not in (root / "docs" / "RESULTS.json").read_text(encoding="utf-8")


def test_verify_runs_several_at_once(root, capfd, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    (root / "phase01_demo" / "01-first.py").write_text(
        "import os; print(os.environ['OMP_NUM_THREADS'])"
    )
    assert (
        said(capfd, "verify", "--seeds", "1", "--jobs", "2")[0] == 1
    )  # 01-first now writes no result
    assert (root / "outputs/verify/phase01_demo/01-first/seed0/log.txt").read_text() == "2\n"
    assert results(root)["lessons"]["phase02_more/project-last"]["status"] == "passed"
    assert results(root)["lessons"]["phase01_demo/01-first"]["status"] == "failed"


def test_lessons_that_are_gone_leave_the_results(root, capfd):
    said(capfd, "verify", "--seeds", "1")
    assert len(results(root)["lessons"]) == 3
    (root / "phase02_more" / "project-last.py").unlink()
    said(capfd, "verify", "01/01", "--seeds", "1", "--resume")
    assert list(results(root)["lessons"]) == ["phase01_demo/01-first", "phase01_demo/02-second"]


def test_budgets():
    lesson, project = Lesson(Path("phase01_x/01-a.py")), Lesson(Path("phase01_x/project-a.py"))
    assert (
        verify.over_budget(lesson, 60, 2048) == [] and verify.over_budget(project, 900, 9999) == []
    )
    assert verify.over_budget(lesson, 61, 2049) == ["seconds", "memory"]
    assert verify.over_budget(project, 901, 0) == ["seconds"]


def test_an_earlier_result_never_stands_for_a_later_run(root, capfd):
    assert said(capfd, "verify", "01/01", "--seeds", "1")[0] == 0
    (root / "phase01_demo" / "01-first.py").write_text("print('I exit with 0 and write nothing')")
    code, words = said(capfd, "verify", "01/01", "--seeds", "1")
    assert code == 1 and "✗ phase01_demo/01-first: a run wrote no result" in words
    assert results(root)["lessons"]["phase01_demo/01-first"]["status"] == "failed"


def test_a_test_set_read_twice_is_a_fault(root, capfd):
    path = root / "phase01_demo" / "01-first.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            "def run(cfg: Config) -> dict:",
            "def run(cfg: Config) -> dict:\n    from common.record import current\n"
            "    current().test_reads = 2",
        ),
        encoding="utf-8",
    )
    code, words = said(capfd, "verify", "01/01", "--seeds", "1")
    assert code == 1 and "✗ phase01_demo/01-first: the test set was read 2 times" in words
    assert "⚠ the test set was read 2 times" in (root / "docs" / "RESULTS.md").read_text(
        encoding="utf-8"
    )


def test_figures_of_the_note_are_copied_small(root, capfd):
    note = root / "docs" / "phase01_demo" / "01-first.md"
    note.parent.mkdir(parents=True)
    note.write_text(
        "![](figures/01-first-noise.png) ![](figures/01-first-gone.png) "
        "![](figures/02-second-noise.png)"
    )
    words = said(capfd, "verify", "01", "--seeds", "1")[1]
    copied = note.parent / "figures" / "01-first-noise.png"
    with Image.open(copied) as picture:
        assert (
            picture.size == (1100, 275) and picture.mode == "P" and len(picture.getcolors()) <= 64
        )
    assert [path.name for path in copied.parent.iterdir()] == ["01-first-noise.png"]
    assert "the run drew no gone.png" in words


def test_a_small_figure_keeps_the_colours_of_small_parts(tmp_path):
    from common.figures import GREEN, GREY, ORANGE, RED, SKY, new_figure, save_figure

    figure, axes = new_figure(2, 3, size=(11, 8))
    for number, axis in enumerate(axes.flat):  # two arrows among many slanted lines
        for step in np.linspace(-4, 4, 17):
            axis.plot([step, step + number], [-4, 4], color=SKY, lw=1)
            axis.plot([-4, 4], [step, step + number], color=SKY, lw=1)
        axis.fill([0, 1, 2, 1], [0, number / 3, 1, 2], color=ORANGE, alpha=0.9)
        axis.fill([-1, 1, 2, -2], [-1, number / 3, 1, 2], color=GREY, alpha=0.3)
        axis.quiver(
            [0, 0],
            [0, 0],
            [1, -2],
            [2, 1],
            color=[RED, GREEN],
            angles="xy",
            scale_units="xy",
            scale=1,
        )
    small = verify.shrink(save_figure(figure, tmp_path / "large.png"), tmp_path / "small.png")
    assert small.stat().st_size < 80_000
    with Image.open(small) as picture:
        assert picture.width == 1100
        palette = np.array(picture.getpalette()).reshape(-1, 3)
    for colour in (RED, GREEN, SKY, "#FFFFFF", "#000000"):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert abs(palette - wanted).max(axis=1).min() <= 8, f"{colour} was lost"


def test_no_figure_is_taken_from_a_failed_run(root, capfd):
    note = root / "docs" / "phase01_demo" / "02-second.md"
    note.parent.mkdir(parents=True)
    note.write_text("![noise](figures/02-second-noise.png)")
    path = root / "phase01_demo" / "02-second.py"
    text = path.read_text(encoding="utf-8").replace("    show_it(cfg)\n", "")
    text = text.replace("    return {", "    show_it(cfg)\n    return {")
    path.write_text(
        text.replace("param(1, ", "param(0, "), encoding="utf-8"
    )  # draws first, then fails with seed 0
    assert said(capfd, "verify", "01/02", "--seeds", "1")[0] == 1
    assert (root / "outputs/verify/phase01_demo/02-second/seed0/noise.png").exists()
    assert not (note.parent / "figures").exists()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("--seeds", "0"), "--seeds and --jobs"),
        (("--data", "../../x"), "no name of a data"),
        (("77",), "lesson “77”"),
    ],
)
def test_verify_mistakes_get_a_sentence(root, capfd, arguments, expected):
    code, words = said(capfd, "verify", *arguments)
    assert (
        code == 1 and expected in words and words.count("\n") == 1 and not (root / "docs").exists()
    )


def test_verify_refuses_damaged_results(root, capfd):
    (root / "docs").mkdir()
    (root / "docs" / "RESULTS.json").write_text("<<<<<<< HEAD")
    code, words = said(capfd, "verify", "01/01", "--seeds", "1")
    assert (
        code == 1
        and "not valid JSON" in words
        and (root / "docs" / "RESULTS.json").read_text() == "<<<<<<< HEAD"
    )


# ---- doctor

PYPROJECT = """[project]
name = "some-course"
dependencies = ["numpy>=1.0"]
[project.optional-dependencies]
test = ["pytest>=1"]
all = ["some-course[test]", "not-a-real-package-at-all>=3"]
"""


def test_doctor_on_this_machine(root, capfd, monkeypatch):
    (root / "pyproject.toml").write_text(PYPROJECT)
    monkeypatch.setattr(doctor, "device_row", lambda: doctor.Row(True, "device", "cpu"))
    code, words = said(capfd, "doctor")
    assert code == 0 and "ready" in words
    for expected in (
        "✓ Python",
        "✓ packages   numpy",
        "✓ extras     pytest",
        "– extras     not-a-real-package-at-all",
        '.[all]"',
        "✓ threads    OMP_NUM_THREADS=1",
        "✓ cache",
        "✓ outputs",
        "language",
        "mnist",
    ):
        assert expected in words
    assert (
        not (root / "outputs").exists() and not sources.cache_dir().exists()
    )  # looking leaves no trace


def test_doctor_exits_1_when_a_core_package_is_missing_or_too_old(root, capfd, monkeypatch):
    monkeypatch.setattr(doctor, "device_row", lambda: doctor.Row(True, "device", "cpu"))
    for wanted, expected in (
        ("numpy>=99", "wanted numpy>=99"),
        ("no-such-package", "no-such-package is not"),
    ):
        (root / "pyproject.toml").write_text(PYPROJECT.replace("numpy>=1.0", wanted))
        code, words = said(capfd, "doctor")
        assert (
            code == 1
            and expected in words
            and '→ python -m pip install -c constraints.txt -e "."' in words
        )


def test_doctor_asks_torch_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(
        doctor, "ASK_TORCH", 'print(\'{"devices": ["cpu", "cuda:0 (Big)"], "threads": 2}\')'
    )
    assert doctor.device_row() == doctor.Row(
        True, "device", "cpu, cuda:0 (Big) (torch was started to ask)"
    )
    for crash, why in (
        ("raise OSError('no libcudart')", "no libcudart"),
        ("import os; os.abort()", "exit code"),
    ):
        monkeypatch.setattr(doctor, "ASK_TORCH", crash)
        row = doctor.device_row()
        assert row.ok is False and why in row.found and "force-reinstall" in row.mend


@pytest.mark.parametrize(
    "version, good", [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)]
)
def test_doctor_knows_the_python_versions(version, good):
    row = doctor.python_row(version)
    assert row.ok is good and bool(row.mend) is not good


@pytest.mark.parametrize(
    "value, ok", [("", True), ("1", True), ("9999", None), ("0", None), ("many", None)]
)
def test_doctor_reads_the_thread_setting(monkeypatch, value, ok):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert doctor.threads_row().ok is ok


def test_doctor_finds_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    row = doctor.writable_row("outputs", tmp_path / "file" / "outputs", broken=True, mend="do this")
    assert row.ok is False and row.mend == "do this"
    assert doctor.writable_row("cache", tmp_path / "file" / "x", broken=False, mend="").ok is None
    assert (
        doctor.writable_row("outputs", tmp_path / "new" / "deep", broken=True, mend="").ok is True
    )
    assert not (tmp_path / "new").exists()


ODD_PATHS = [("COURSE_DATA", text) for text in ("~nosuchuser", "n" * 300, "/proc/x", "nowhere")]
for setting in ("COURSE_DATA", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
    ODD_PATHS += [(setting, "{here}/" + text) for text in ("file", "file/x", "loop", "n" * 300)]


@pytest.mark.parametrize("setting, text", ODD_PATHS)
def test_doctor_and_data_name_an_odd_path_in_one_sentence(
    tmp_path, monkeypatch, capfd, setting, text
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv(setting, text.format(here=tmp_path))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    rows = {
        "XDG_CACHE_HOME": doctor.cache_row(),
        "XDG_DATA_HOME": doctor.ticks_row(),
        "COURSE_DATA": doctor.data_row(),
    }
    for name, row in rows.items():
        assert "\n" not in row.found
        if name == setting:
            assert row.ok is None and row.mend
            assert "COURSE_DATA “" in row.found or "cannot be written: " in row.found
    code, words = said(capfd, "data")
    assert code == (1 if setting == "COURSE_DATA" else 0)
    assert "Traceback" not in words and (code == 0 or words.count("\n") == 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_doctor_for_a_user_without_a_home(monkeypatch):
    import platformdirs

    for kind in ("cache", "data"):
        monkeypatch.setattr(platformdirs, f"user_{kind}_dir", lambda *_, **__: "~/.x")
    for row in (doctor.cache_row(), doctor.ticks_row(), doctor.data_row()):
        assert row.ok is None and "there is no home folder" in row.found


def test_doctor_minds_the_disk_and_the_language(monkeypatch):
    assert [doctor.disk_row(free).ok for free in (10**7, 10**9, 10**11)] == [False, None, True]
    monkeypatch.setenv("COURSE_LANG", "zh")
    assert "Chinese (COURSE_LANG=zh)" in doctor.language_row().found


# ---- data


@pytest.fixture
def mini(tmp_path, monkeypatch) -> Iterator[Path]:
    """A data set "mini" of 40 pictures, served on the loopback; gives the folder that is served."""
    served = tmp_path / "served"
    served.mkdir()
    rng = np.random.default_rng(0)
    shape = {"x_train": (30, 2, 2), "y_train": (30,), "x_test": (10, 2, 2), "y_test": (10,)}
    np.savez(
        served / "mini.npz",
        **{
            key: rng.integers(0, 255, size).astype(np.uint8)
            if key[0] == "x"
            else np.arange(size[0]) % 10
            for key, size in shape.items()
        },
    )
    content = (served / "mini.npz").read_bytes()
    handler = functools.partial(Quiet, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = Source(
        "mini",
        "mini.npz",
        (
            Part(
                "mini.npz",
                f"sha256:{hashlib.sha256(content).hexdigest()}",
                len(content),
                (f"http://127.0.0.1:{server.server_port}/mini.npz",),
            ),
        ),
        lambda parts, target: target.write_bytes(parts[0].read_bytes()) and None,
        "40 small pictures",
    )
    monkeypatch.setattr(images, "SETS", {"mini": (source, shape, images.DIGITS)})
    yield served
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Nothing: the tests read stderr."""


def test_data_lists_where_things_lie(mini, capfd, monkeypatch):
    words = said(capfd, "data")[1]
    assert (
        "40 small pictures" in words and words.count("not here") == 7
    )  # mini, two tables, two texts of pairs, one of plays, and speech
    monkeypatch.setenv("COURSE_DATA", str(mini))
    assert str(mini / "mini.npz") in said(capfd, "data")[1]
    monkeypatch.delenv("COURSE_DATA")
    assert str(mini / "mini.npz") in said(capfd, "data", "--data-dir", str(mini))[1]


def test_data_downloads_checks_and_downloads_again(mini, capfd):
    code, words = said(capfd, "data", "mini")
    assert code == 0 and "downloading mini" in words and "✓ mini is whole" in words
    code, words = said(capfd, "data", "mini")
    assert code == 0 and "downloading" not in words
    cached = sources.cache_dir() / "mini.npz"
    cached.write_bytes(cached.read_bytes()[:-200])
    code, words = said(capfd, "data", "mini")
    assert code == 1 and "course data mini --again" in words
    assert said(capfd, "data", "mini", "--again")[0] == 0
    assert cached.read_bytes() == (mini / "mini.npz").read_bytes()


def test_a_failed_download_again_keeps_the_old_file(mini, capfd):
    said(capfd, "data", "mini")
    whole = (sources.cache_dir() / "mini.npz").read_bytes()
    (mini / "mini.npz").write_bytes(b"something else")
    code, words = said(capfd, "data", "mini", "--again")
    assert code == 1 and "could not be downloaded" in words
    assert (sources.cache_dir() / "mini.npz").read_bytes() == whole


def test_data_dir_is_checked_and_never_replaced_by_another_place(mini, tmp_path, capfd):
    assert said(capfd, "data", "mini", "--data-dir", str(mini))[0] == 0
    (tmp_path / "empty").mkdir()
    code, words = said(capfd, "data", "mini", "--data-dir", str(tmp_path / "empty"))
    assert code == 1 and "holds no mini.npz" in words and not sources.cache_dir().exists()
    (mini / "mini.npz").write_bytes(b"broken")
    code, words = said(capfd, "data", "mini", "--data-dir", str(mini))
    assert code == 1 and "is not the mini that this course expects" in words


def test_again_says_when_another_copy_comes_first(mini, capfd, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(mini))
    assert "COURSE_DATA comes before the cache" in said(capfd, "data", "mini", "--again")[1]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("mini0",), "did you mean mini? The data sets are california, enzh, fsdd, mini"),
        (("--again",), "say which"),
        (("mini", "--data-dir", "nowhere"), "is not a folder"),
        (("mini", "--again", "--data-dir", "."), "give one of"),
    ],
)
def test_data_mistakes_get_a_sentence(mini, capfd, arguments, expected):
    code, words = said(capfd, "data", *arguments)
    assert code == 1 and expected in words and words.count("\n") == 1


def test_data_does_not_call_whole_what_it_cannot_compare(mini, capfd, monkeypatch):
    assert "✓ mini is whole" in said(capfd, "data", "mini")[1]
    monkeypatch.setattr(images, "UNPUBLISHED", ())
    monkeypatch.setattr(images, "ORIGINALS", {"mini": {"x_train": "0" * 32}})
    code, words = said(capfd, "data", "mini")
    assert code == 1 and "are not those that were published" in words and "✓" not in words


def test_data_says_where_no_hash_is_published(mini, capfd, monkeypatch):
    monkeypatch.setattr(images, "UNPUBLISHED", ("mini",))
    monkeypatch.setattr(images, "_unlike_the_original", lambda name, arrays: "")
    code, words = said(capfd, "data", "mini")
    assert code == 0 and "is whole" not in words and "nobody publishes a hash" in words


def test_the_command_where_course_is_not_on_the_path():
    """`python -m common.course`, with its exit codes and its one sentence."""
    for words, code, says in ((["list", "1"], 0, "01/01"), (["done", "99/99"], 1, "no lesson")):
        answer = subprocess.run(
            [sys.executable, "-m", "common.course", *words],
            cwd=Path(cli.__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == code and says in answer.stdout + answer.stderr


def test_every_set_has_a_loader_and_is_described():
    for name, (files, load) in fetching.sets().items():
        for source in files:
            assert source.name == name and source.about and callable(load)
    with pytest.raises(LessonError, match="no data set"):
        fetching.get("nonsense")
