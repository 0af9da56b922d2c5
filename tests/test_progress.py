"""`course done`, `status`, `note`, `sync`, `list`, `help`, `next` on a course of stub scripts.

It lies in a temporary folder; the READMEs there are this repository's. The oracles for "no byte of
other text is lost" share no code with the course.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from common import lessons
from common.course import cli, mirror, overview, progress, sync
from common.course import curriculum as plan
from common.course.readme import Readme
from common.errors import LessonError
from common.files import write_json, write_text
from common.lessons import ROOT, all_lessons, load_lesson

NAMES = ("README.md", "README.zh.md")
Patch, Capture = pytest.MonkeyPatch, pytest.CaptureFixture
UNWRITTEN = ("phase12_llm", "phase05_cnn/02-pooling-layers")


def make_course(root: Path) -> None:
    """Every script of the plan but UNWRITTEN as a stub; this repository's READMEs, unticked."""
    for entry in plan.load(root).entries:
        if not entry.lesson.key.startswith(UNWRITTEN):
            write_text(
                entry.lesson.path,
                f'"""1.1 About {entry.lesson.path.stem}\n关于 {entry.number}\n"""\n',
            )
    for name in NAMES:
        text = (ROOT / name).read_bytes().decode("utf-8")
        (root / name).write_bytes(re.sub(r"(?m)^- \[[xX]\]", "- [ ]", text).encode("utf-8"))
    sync.sync(root=root)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    make_course(folder)
    return folder


@pytest.fixture
def root(pristine: Path, tmp_path: Path, monkeypatch: Patch) -> Path:
    shutil.copytree(pristine, tmp_path / "course")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(mirror, "mirror_path", lambda: tmp_path / "data" / "progress.json")
    monkeypatch.setattr(lessons, "ROOT", tmp_path / "course")
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setenv("COURSE_LANG", "en")
    return tmp_path / "course"


def read(root: Path) -> list[str]:
    return [(root / name).read_bytes().decode("utf-8") for name in NAMES]


def edit(root: Path, name: str, old: str, new: str) -> None:
    """As a learner with an editor would: the first place only."""
    text = (root / name).read_bytes().decode("utf-8")
    assert old in text
    (root / name).write_bytes(text.replace(old, new, 1).encode("utf-8"))


def row(root: Path, phase: int, name: str = "README.md") -> str:
    return re.search(
        rf"^\|[^|]*\| {phase} · .*$", (root / name).read_text(encoding="utf-8"), re.MULTILINE
    )[0]


def course(*words: str) -> int:
    return cli.main(list(words))


# ------------------------------------------------------------------------------------------ ticking


def test_done_ticks_both_and_recomputes(root: Path) -> None:
    before = read(root)
    assert course("done", "05/01", "5/3", "phase05_cnn/04-lenet.py", "project-mnist") == 0
    for old, new in zip(before, read(root)):
        changed = [(a, b) for a, b in zip(old.split("\n"), new.split("\n"), strict=True) if a != b]
        assert len(changed) == 4 + 2  # four lines, the rows of phases 3 and 5
        assert sum(a.replace("[ ]", "[x]", 1) == b for a, b in changed) == 4
    for name in NAMES:
        assert "| 3/12 (+0) |" in row(root, 5, name) and "🔄" in row(root, 5, name)
        assert "| 0/10 (+0) |" in row(root, 3, name) and "🔄" in row(
            root, 3, name
        )  # its project only
        assert "⏳" in row(root, 4, name)


def test_state_goes_to_done_only_with_the_project(root: Path) -> None:
    named = [f"01/{number:02d}" for number in range(1, 8)]
    course("done", *named, "01/08")
    assert "| 7/7 (+1) |" in row(root, 1) and "🔄" in row(root, 1)
    course("done", "01/project")
    assert "✅" in row(root, 1)
    course("done", "--undo", "01/08")
    assert "| 7/7 (+0) |" in row(root, 1) and "✅" in row(root, 1), (
        "an elective is not part of the core path"
    )
    course("done", *[f"02/{number:02d}" for number in range(1, 8)])
    assert "| 7/7 |" in row(root, 2) and "✅" in row(root, 2), (
        "phase 2 has neither electives nor a project"
    )


def test_undo_gives_the_old_bytes_back(root: Path, capsys: Capture) -> None:
    before = read(root)
    course("done", "07/11", "08/project-face-gan")
    assert read(root) != before
    course("done", "--undo", "07/11", "08/project-face-gan")
    assert read(root) == before
    course("done", "--undo", "07/11")
    assert "was not ticked" in capsys.readouterr().out and read(root) == before


def test_done_twice_says_so(root: Path, capsys: Capture) -> None:
    course("done", "01/01")
    after = read(root)
    assert course("done", "01/01", "1/1") == 0
    assert "ticked already" in capsys.readouterr().out and read(root) == after


@pytest.mark.parametrize(
    "names, says",
    [
        (["01/01", "01/99"], "no lesson"),
        (["01/01", "06/project"], "say which"),
        (["01/01", "12/01"], "not yet written"),
        (["05/02"], "not yet written"),
        (["01/01", "09-of-mine"], "no lesson"),
    ],
)
def test_a_wrong_name_changes_nothing(
    root: Path, capsys: Capture, names: list[str], says: str
) -> None:
    (root / "phase01_data_science" / "09-of-mine.py").write_text('"""mine"""')
    before = read(root)
    assert course("done", *names) == 1
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1
    assert read(root) == before


def test_an_unwritten_lesson_ticked_by_hand_can_be_cleared(root: Path) -> None:
    before = read(root)
    edit(root, "README.md", "- [ ] 01-llm-architecture.py", "- [x] 01-llm-architecture.py")
    assert course("done", "--undo", "12/01") == 0
    assert read(root) == before


def test_ticks_by_hand_count(root: Path, capsys: Capture) -> None:
    edit(root, "README.md", "- [ ] [01-numpy-basics.py]", "- [X] [01-numpy-basics.py]")
    edit(root, "README.zh.md", "- [ ] [02-numpy-operations.py]", "- [x] [02-numpy-operations.py]")
    assert course("status") == 0
    out = capsys.readouterr().out
    assert "2/7 (+0)" in out and "core path 2/118" not in out and "core path 2/120" in out
    assert "README.md lacks a tick that the other README has: 01/02" in out
    assert "README.zh.md lacks a tick that the other README has: 01/01" in out
    course("done", "01/01", "01/02")
    assert "- [X] [01-numpy-basics.py]" in read(root)[0], (
        "a tick that is there is left as it was written"
    )
    capsys.readouterr()
    course("status")
    assert "lacks" not in capsys.readouterr().out
    assert "| 2/7 (+0) |" in row(root, 1) and "| 2/7 (+0) |" in row(root, 1, "README.zh.md")


def test_the_table_counts_what_is_ticked_in_either(root: Path) -> None:
    edit(root, "README.md", "- [ ] [01-numpy-basics.py]", "- [x] [01-numpy-basics.py]")
    course("done", "02/01")
    assert all("| 1/7 (+0) |" in row(root, 1, name) for name in NAMES)


def test_every_kind_of_hand_edit_survives(root: Path) -> None:
    """Reordered, indented, remarked, doubled lines; tabs, bullets, CRLF, a BOM, no last newline."""
    text = (root / "README.md").read_text(encoding="utf-8")
    one, two, three, four, five = re.findall(r"^- \[ \] \[0[1-5]-\w.*\n", text, re.MULTILINE)[:5]
    edits = {
        one: "",  # moved to the end
        two: "* [\t] read first, then [02-numpy-operations.py](elsewhere) "
        "a remark: 03-numpy-linear-algebra.py\n",
        three: "\t-\t[X]\t" + three[6:],
        four: four + "  - [ ] 04-pandas-basics.py once more\n" + four,
        five: "> 1. [ ] 05-pandas-preprocessing.py\x0c\u2028 odd spaces\n",
    }
    for line, new in edits.items():
        text = text.replace(line, new, 1)
    text = text.replace("- [ ] [06-mat", "- [ ] see [06-mat") + one.rstrip("\n")
    text = "\ufeff- [ ] 06-matplotlib-basics.py\n" + text
    text = text.replace("\n", "\r\n")
    (root / "README.md").write_bytes(text.encode("utf-8"))
    assert course("done", "01/01", "01/02", "01/03", "01/04", "01/05", "01/06") == 0
    new = read(root)[0]
    expected = (
        text.replace("- [ ] [01-numpy-basics", "- [x] [01-numpy-basics")
        .replace("* [\t] read", "* [x] read")
        .replace("> 1. [ ] 05", "> 1. [x] 05")
        .replace("- [ ] [04-pandas", "- [x] [04-pandas")
        .replace("  - [ ] 04-pandas", "  - [x] 04-pandas")
        .replace("\ufeff- [ ]", "\ufeff- [x]")
        .replace("0/7 (+0) | explor", "6/7 (+0) | explor")
        .replace("(Titanic/Iris) | ⏳", "(Titanic/Iris) | 🔄")
    )
    assert new == expected


def test_a_to_do_that_only_names_a_lesson_is_left_alone(root: Path) -> None:
    edit(
        root,
        "README.md",
        "## Progress",
        "- [x] try 01-numpy-basics.py with another seed\n\n## Progress",
    )
    edit(
        root,
        "README.md",
        "## Progress",
        "- [ ] tell Lin about 02-numpy-operations.py\n\n## Progress",
    )
    assert Readme(root / "README.md", "en").ticked() == set()
    course("done", "01/02")
    assert "- [ ] tell Lin about 02-numpy-operations.py" in read(root)[0]


TYPED = {  # how people tick with an editor, and whether that is a tick
    **dict.fromkeys(["[x]", "[X]", "[✓]", "[√]", "[x ]", "[ x]", "[xx]", "[ｘ]", "[Ｘ]"], True),
    **dict.fromkeys(["✅", "[✅]", "☑", "✔️", "[✔]", "[v]", "［x］", "【✓】"], True),
    **dict.fromkeys(["[ ]", "[]", "[  ]", "[\t]", "[\u3000]", "☐", "⬜", "［］"], False),
    **dict.fromkeys(["[-]", "[~]", "[?]", "[o]", "[50%]", "[完成]"], None),
}


@pytest.mark.parametrize(
    "bullet, box", [*(("- ", box) for box in TYPED), ("-", "[✓]"), ("* ", "[]"), ("> 1. ", "[~]")]
)
def test_boxes_as_people_type_them(root: Path, capsys: Capture, bullet: str, box: str) -> None:
    edit(root, "README.md", "- [ ] [04-lenet.py]", f"{bullet}{box} [04-lenet.py]")
    typed = read(root)
    mine = [line for line in typed[0].splitlines() if "04-lenet.py" in line]
    place = typed[0].splitlines().index(mine[0]) + 1

    code = course("status")
    words = capsys.readouterr()
    assert "lost" not in words.err
    if TYPED[box] is None:
        assert code == 1, "it may be a tick, and would not survive a checkout"
        assert f"error: README.md, line {place}: {box} is neither ticked nor clear." in words.err
        assert "course done 05/04" in words.err
    else:
        assert code == 0 and not words.err
        assert ("04-lenet.py" in Readme(root / "README.md", "en").ticked()) is TYPED[box]
        kept = mirror.read().ticked
        assert ("phase05_cnn/04-lenet" in kept) is TYPED[box]

    assert course("sync") == 0
    assert [line for line in read(root)[0].splitlines() if "04-lenet.py" in line] == mine
    assert course("done", "05/04") == 0
    new = box if TYPED[box] else "[x]"
    assert f"\n{bullet}{new} [04-lenet.py](phase05_cnn/04-lenet.py) · " in read(root)[0]
    assert course("done", "05/04", "--undo") == 0
    assert f"\n{bullet}[ ] [04-lenet.py](phase05_cnn/04-lenet.py) · " in read(root)[0]
    assert course("status") == 0


def test_a_line_without_its_box_gets_one(root: Path, capsys: Capture) -> None:
    course("done", "05/04")
    whole = read(root)
    edit(root, "README.md", "- [x] [04-lenet.py]", "- [04-lenet.py]")
    assert course("status") == 1 and "the box of 05/04" in capsys.readouterr().err
    assert course("sync") == 0 and read(root) == whole
    edit(root, "README.md", "- [x] [04-lenet.py]", "- [04-lenet.py]")
    assert course("done", "05/04") == 0 and read(root) == whole


def test_a_list_of_links_has_no_boxes(root: Path) -> None:
    """Neither a link on a script's name nor a word in brackets beside one is a box."""
    text = "- [04-lenet.py](x) is short\n- [see](y) 04-lenet.py\n- [ok] as in 04-lenet.py\n\n"
    edit(root, "README.md", "## Progress", text + "## Progress")
    before = read(root)
    assert course("done", "05/04") == 0 and text in read(root)[0]
    assert course("done", "05/04", "--undo") == 0 and read(root) == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "pattern, says",
    [
        (
            r"- \[ \] \[01-convolution-basics\.py\].*\n",
            "no line with a box for 01-convolution-basics.py",
        ),
        (r"<!-- course:progress -->\n", "the markers of its progress table"),
        (r"<!-- /course:progress -->\n", "the markers of its progress table"),
        (r"\|[^|\n]*\| 9 · .*\n", "the row of phase 9"),
    ],
)
def test_what_is_missing_is_named_and_mended(
    root: Path, capsys: Capture, name: str, pattern: str, says: str
) -> None:
    course("done", "02/01")
    whole = read(root)
    text, count = re.subn(pattern, "", (root / name).read_text(encoding="utf-8"), count=1)
    assert count == 1
    write_text(root / name, text)
    damaged = read(root)
    capsys.readouterr()
    assert course("done", "05/01") == 1 and read(root) == damaged, "all or nothing"
    error = capsys.readouterr().err
    assert says in error and "course sync" in error and name in error and error.count("\n") == 1
    assert course("status") == 1 and "course sync" in capsys.readouterr().err
    assert course("sync") == 0 and read(root) == whole
    assert course("done", "05/01") == 0 and course("status") == 0


def test_no_utf8_and_no_file(root: Path, capsys: Capture) -> None:
    content = (root / "README.md").read_bytes().decode("utf-8").encode("utf-16")
    (root / "README.md").write_bytes(content)
    for words in (["done", "01/01"], ["status"], ["sync"], ["list"], ["next"]):
        assert course(*words) == 1
        assert "not UTF-8" in capsys.readouterr().err
    assert (root / "README.md").read_bytes() == content
    (root / "README.md").unlink()
    assert course("done", "01/01") == 1 and "git checkout README.md" in capsys.readouterr().err


def test_both_or_none_when_the_disk_is_full(
    root: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    from common.course import readme

    def full(path: Path, text: str) -> None:
        if path.name == "README.zh.md":
            raise LessonError("the disk is full")
        write_text(path, text)

    before = read(root)
    monkeypatch.setattr(readme, "write_text", full)
    assert course("done", "01/01") == 1
    assert read(root) == before and "both READMEs stay as they were" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- mirror


def test_restore_after_a_pull(root: Path, pristine: Path, capsys: Capture) -> None:
    edit(
        root, "README.zh.md", "- [ ] [04-lenet.py]", "- [x] [04-lenet.py]"
    )  # by hand, seen by status
    course("done", "01/01", "07/11")
    course("status")
    course("done", "05/04")
    ticked = read(root)
    for name in NAMES:
        shutil.copy(pristine / name, root / name)
    capsys.readouterr()
    assert course("status") == 0
    out = capsys.readouterr().out
    assert "You once ticked 01/01, 05/04, 07/11" in out and "--restore" in out and "0/120" in out
    assert course("status", "--restore") == 0
    assert "restored 01/01, 05/04, 07/11" in capsys.readouterr().out
    assert read(root) == [text.replace("[X]", "[x]") for text in ticked]
    course("status", "--restore")
    assert "nothing to restore" in capsys.readouterr().out


def test_undo_is_remembered(root: Path, pristine: Path, capsys: Capture) -> None:
    course("done", "01/01", "01/02")
    course("done", "01/01", "--undo")
    for name in NAMES:
        shutil.copy(pristine / name, root / name)
    course("status", "--restore")
    assert "restored 01/02\n" in capsys.readouterr().out


DAMAGES = {
    "half of it": b'{"ticked": ["phase01_data_science/01-numpy-basics", "phase07_tran',
    "empty": b"",
    "no text": b"\xff\xfe\x00{",
    "zeros, as after a power cut": bytes(300),
    "another kind of list": b"[]",
    "a number in place of the list": b'{"ticked": 3}',
    "numbers in the list": b'{"ticked": ["phase01_data_science/01-numpy-basics", 7]}',
    "no keys": b"{}",
    "brackets without an end": b"[" * 100_000,
    "remarks of the wrong kind": b'{"ticked": [], "remarks": {"README.md": ["x"]}}',
    "a remark over two lines": b'{"ticked": [], "remarks": {"a": {"b": ["", "x\\ny"]}}}',
}


def damage(content: bytes | None) -> None:
    """None: a folder stands in the mirror's place."""
    path = mirror.mirror_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("content", [*DAMAGES.values(), None], ids=[*DAMAGES, "a folder"])
def test_the_update_line_keeps_every_tick_whatever_the_mirror_was(
    root: Path, pristine: Path, capsys: Capture, content: bytes | None
) -> None:
    course("done", "01/01", "05/04", "07/11")
    ticked = read(root)
    damage(content)
    # course status && git checkout README.md README.zh.md && git pull && course status --restore
    assert course("status") == 0
    aside = mirror.mirror_path().with_name("progress.json.damaged-1")
    assert aside.is_dir() if content is None else aside.read_bytes() == content
    assert "progress.json.damaged-1" in capsys.readouterr().err
    for name in NAMES:
        shutil.copy(pristine / name, root / name)
    assert course("status", "--restore") == 0
    assert read(root) == ticked


@pytest.mark.parametrize("content", [*DAMAGES.values(), None], ids=[*DAMAGES, "a folder"])
def test_done_with_a_damaged_mirror(root: Path, capsys: Capture, content: bytes | None) -> None:
    damage(content)
    assert course("done", "02/01") == 0
    assert "was damaged" in capsys.readouterr().err
    assert (
        "phase02_math/01-vectors-matrices" in json.loads(mirror.mirror_path().read_text())["ticked"]
    )


def test_a_restore_from_a_damaged_mirror_gives_what_it_can_and_says_so(
    root: Path, capsys: Capture
) -> None:
    """The READMEs have been reset before: nothing but the damaged file knows of the ticks."""
    damage(DAMAGES["half of it"])
    assert course("status", "--restore") == 1
    words = capsys.readouterr()
    assert "restored 01/01" in words.out and "was damaged" in words.err
    assert "- [x] [01-numpy-basics.py]" in read(root)[0]


def unwritable(path: Path, _text: object) -> None:
    raise LessonError(f"{path} cannot be written: no permission.")


def test_status_stops_the_update_line_when_the_ticks_are_not_safe(
    root: Path, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    course("done", "01/01")
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "write_json", unwritable)
        assert course("done", "01/02") == 0, "the tick itself is written"
        capsys.readouterr()
        assert course("status") == 1
        assert "do not reset them" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # a disk that takes everything and keeps nothing
        patch.setattr(mirror, "write_json", lambda path, content: None)
        assert course("status") == 1
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "progress.json", tmp_path / ("n" * 300) / "progress.json"):
        with monkeypatch.context() as patch:
            patch.setattr(mirror, "mirror_path", lambda path=path: path)
            assert course("status") == 1 and course("done", "01/03") == 0
    assert course("status") == 0


def test_a_user_without_a_home_gets_a_warning(
    root: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    import platformdirs

    monkeypatch.undo()
    monkeypatch.setattr(lessons, "ROOT", root)
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: "~/.local/share/course")
    assert course("done", "01/01") == 0
    words = capsys.readouterr()
    assert "ticked 01/01" in words.out
    assert "there is no home folder" in words.err and "XDG_DATA_HOME" in words.err
    assert course("status") == 1


def test_remarks_and_the_last_state_survive_the_update_line(root: Path, pristine: Path) -> None:
    course("done", "05/04")
    for name, minutes in zip(NAMES, ("min", "分钟")):
        text = (root / name).read_bytes().decode("utf-8")
        line = re.search(r"^- \[x\] \[04-lenet\.py\].*$", text, re.MULTILINE)[0]
        assert minutes in line
        text = text.replace(line, line.replace("] [", "] ⭐ [", 1) + " · hard | 3 h")
        text = text.replace("- [ ] [01-numpy-basics.py]", "- [ ] next week: [01-numpy-basics.py]")
        text = re.sub(r"(\| 23–24 .*)⏳", r"\1🔄", text)
        write_text(root / name, text)
    mine = read(root)
    assert "⭐" in mine[0] and "🔄" in re.search(r".*23–24.*", mine[0])[0]
    assert course("status") == 0
    for name in NAMES:
        shutil.copy(pristine / name, root / name)
    # without --restore nothing is brought back, and nothing forgotten
    assert course("status") == 0 and "⭐" not in read(root)[0]
    assert course("status", "--restore") == 0
    assert read(root) == mine
    assert course("status", "--restore") == 0 and read(root) == mine, "once is enough"


def test_a_remark_of_today_wins_over_one_of_yesterday(root: Path) -> None:
    line = "- [ ] [04-lenet.py]"
    edit(root, "README.md", line, "- [ ] yesterday [04-lenet.py]")
    course("status")
    edit(root, "README.md", "- [ ] yesterday [04-lenet.py]", "- [ ] today [04-lenet.py]")
    course("status", "--restore")
    assert "- [ ] today [04-lenet.py]" in read(root)[0]


WRITER = """
import sys
from pathlib import Path
from common import lessons
from common.course import cli, mirror
root = Path(sys.argv[1])
lessons.ROOT = root
mirror.mirror_path = lambda: root.parent / "data" / "progress.json"
for line in sys.stdin:
    print(cli.main(line.split()), flush=True)
"""


def writers(root: Path, count: int) -> list[subprocess.Popen]:
    """Processes that do one command a line, as fast as they can, and answer with its exit code."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-c", WRITER, str(root)]
    return [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(count)]


def answer(writer: subprocess.Popen) -> str:
    """What the command that was sent says last: its exit code."""
    for line in writer.stdout:
        if re.fullmatch(r"-?\d+\n", line):
            return line.strip()
    return "ended"


def rounds_at_once(root: Path, count: int) -> int:
    """Two writers at once tick different lessons, or clear them; returns how often one lost."""
    curriculum = plan.load(root)
    files = {number: curriculum.find(number).file for number in ("05/01", "07/11")}
    lost = 0
    both = writers(root, 2)
    for number in range(count):
        undo = " --undo" if number % 2 else ""
        for writer, lesson in zip(both, files):
            writer.stdin.write(f"done {lesson}{undo}\n")
            writer.stdin.flush()
        assert [answer(writer) for writer in both] == ["0", "0"]
        for name in NAMES:
            ticked = Readme(root / name, "en").ticked() & set(files.values())
            lost += ticked != (set() if undo else set(files.values()))
        kept = json.loads((root.parent / "data" / "progress.json").read_text())["ticked"]
        lost += len(kept) != (0 if undo else 2)
    for writer in both:
        writer.communicate()
    return lost


def test_two_writers_at_once_lose_nothing(root: Path) -> None:
    assert rounds_at_once(root, 10) == 0


@pytest.mark.full
def test_two_writers_at_once_lose_nothing_in_a_hundred_rounds(root: Path) -> None:
    assert rounds_at_once(root, 100) == 0


def test_the_mirror_is_read_and_written_under_one_lock(root: Path, monkeypatch: Patch) -> None:
    """The moment between is too short to be met by chance."""
    steps = []

    @contextlib.contextmanager
    def guard(path: Path):
        steps.append("lock")
        yield
        steps.append("release")

    def written(path: Path, content: object) -> None:
        steps.append("write")
        write_json(path, content)

    read = mirror._read
    monkeypatch.setattr(mirror, "locked", guard)
    monkeypatch.setattr(mirror, "_read", lambda path: steps.append("read") or read(path))
    monkeypatch.setattr(mirror, "write_json", written)
    course("done", "01/01")
    assert steps == ["lock", "read", "write", "release"]


def test_the_readmes_as_they_are_have_no_remarks(root: Path) -> None:
    for name in NAMES:
        assert Readme(root / name, "en").remarks() == {}


def test_mirror_lies_in_the_users_data_directory(monkeypatch: Patch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = Path(platformdirs.user_data_dir("deep-learning-course", appauthor=False))
    assert mirror.mirror_path() == folder / "progress.json"


# ------------------------------------------------------------------------------- status, list, note


def test_status_counts_milestones(root: Path, capsys: Capture) -> None:
    curriculum = plan.load(root)
    course("done", *[e.number for e in curriculum.phases[6].entries if e.is_core], "10/09", "11/06")
    capsys.readouterr()
    course("status")
    out = capsys.readouterr().out
    for week, share in ((4, "0/26"), (8, "0/34"), (12, "12/12"), (18, "1/31"), (24, "13/120")):
        assert re.search(rf"{'✓' if week == 12 else '–'} after week {week} +{share} ", out), week
    assert "electives 1/26" in out and "next: 01/01 About 01-numpy-basics" in out


def test_next_skips_what_is_ticked_or_unwritten(root: Path, capsys: Capture) -> None:
    curriculum = plan.load(root)
    course(
        "done",
        *[
            e.number
            for e in curriculum.entries
            if e.is_core and e.is_written and e.number <= "05/01"
        ],
    )
    capsys.readouterr()
    course("next")
    out = capsys.readouterr().out
    assert out.startswith("05/03 About 03-receptive-field") and "course practice 05/03" in out
    course("done", *[e.number for e in curriculum.entries if e.is_written])
    capsys.readouterr()
    course("next")
    assert "05/02 comes next, and is not yet written" in capsys.readouterr().out


def test_list(root: Path, capsys: Capture, monkeypatch: Patch) -> None:
    course("done", "05/01")
    capsys.readouterr()
    course("list")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 146 + 12 and not any("\t" in line or "\x1b" in line for line in lines)
    for wanted in ("5", "05", "phase05_cnn", "phase5"):
        assert course("list", wanted) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + 15 and "1/12 (+0) 🔄" in lines[0]
        assert re.fullmatch(r"  \[x\] 05/01 +105 min  About 01-convolution-basics", lines[1])
        assert lines[2].startswith("  [ ] 05/02") and lines[2].endswith("· not yet written")
        assert lines[13].endswith("About 13-densenet · elective")
    monkeypatch.setenv("COURSE_LANG", "zh_CN")
    course("list", "5")
    assert "关于 05/01" in capsys.readouterr().out
    for wrong in ("13", "0", "cnn", "05/01"):
        assert course("list", wrong) == 1 and "from 1 to 12" in capsys.readouterr().err


def test_list_on_a_terminal_is_the_same_list(
    root: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    course("done", "05/01")
    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    course("list")
    out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert all(entry.number in out and entry.title() in out for entry in plan.load(root).entries)
    assert re.search(r"✓ .*05/01", out) and out.count("✓") == 1


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"COURSE_LANG": "zh"}, "zh"),
        ({"COURSE_LANG": "en", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "zh_TW.UTF-8"}, "zh"),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
    ],
)
def test_language(monkeypatch: Patch, values: dict[str, str], expected: str) -> None:
    for name in ("COURSE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert plan.language() == expected


def test_note_is_made_once_and_never_overwritten(root: Path, capsys: Capture) -> None:
    assert course("note", "05/01") == 0
    path = root / "docs" / "notes" / "05-01-convolution-basics.md"
    assert capsys.readouterr().out == "docs/notes/05-01-convolution-basics.md\n".replace(
        "/", os.sep
    )
    assert path.read_text(encoding="utf-8").startswith("# 05/01 About 01-convolution-basics\n")
    path.write_text("mine")
    course("note", "5/1")
    course("note", "project-mnist")
    assert path.read_text() == "mine" and (root / "docs" / "notes" / "03-project-mnist.md").exists()
    assert course("sync") == 0 and path.read_text() == "mine"


def test_note_opens_the_editor_on_a_terminal_only(
    root: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    log = root / "opened"
    write_text(
        root / "editor.py", "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    )
    monkeypatch.setenv("EDITOR", f'"{sys.executable}" "{root / "editor.py"}" "{log}"')
    course("note", "05/01")
    assert not log.exists()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert course("note", "05/01") == 0 and log.read_text().endswith("05-01-convolution-basics.md")
    monkeypatch.setenv("EDITOR", "no-such-editor-anywhere")
    assert course("note", "05/01") == 1 and "does not start" in capsys.readouterr().err


def test_help_is_the_lessons_own(capsys: Capture) -> None:
    """For every lesson of this repository: the fields read from its text are its Config's."""
    import dataclasses

    for lesson in all_lessons():
        real = {f.name: f for f in dataclasses.fields(load_lesson(lesson.key).Config)}
        ours = {f.name: f for f in dataclasses.fields(overview.config_of(lesson.path))}
        assert ours.keys() == real.keys(), lesson.key
        for name, field in real.items():
            assert ours[name].default == field.default and ours[name].metadata == field.metadata, (
                lesson.key,
                name,
            )


def test_help_prints_docstring_and_flags(root: Path, capsys: Capture) -> None:
    write_text(
        root / "phase05_cnn" / "01-convolution-basics.py",
        '''"""5.1 Convolution: one filter
卷积
"""
import torch_is_not_needed
SETS = ("shapes", "cifar10")
class Config(LessonConfig):
    """Settings."""
    data: str = param("shapes", "data set", choices=SETS)
    rate: float = param(1 / 3, "step "
                        "size", tiny=2 ** 3)
    kind: str = param("a", "computed", choices=tuple(KINDS))
    flip: bool = param(True, "mirror")
''',
    )
    assert course("help", "05/01") == 0
    out = capsys.readouterr().out
    for part in (
        "usage: 01-convolution-basics.py",
        "5.1 Convolution: one filter\n卷积",
        "--data {shapes,cifar10}",
        "--tiny",
        "step size (default 1 / 3, tiny 2 ** 3)",
        "--kind {tuple(KINDS)}",
        "--no-flip",
    ):
        assert part in out, part
    write_text(root / "phase05_cnn" / "01-convolution-basics.py", "def broken(:\n")
    assert course("help", "05/01") == 1 and "cannot be read as Python" in capsys.readouterr().err
    assert course("help", "12/01") == 1 and "not yet written" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["list"], ["next"], ["help", "03/09"]])
def test_answers_at_once(words: list[str]) -> None:
    """Nothing heavy is imported; rich only for a terminal."""
    code = (
        "import sys; from common.course.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'numpy', 'torch', 'matplotlib', 'rich', 'platformdirs'}; "
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


# --------------------------------------------------------------------------------------------- sync


def test_sync_check_changes_nothing(root: Path, capsys: Capture) -> None:
    assert course("sync", "--check") == 0
    write_text(
        root / "phase05_cnn" / "02-pooling-layers.py", '"""5.2 Pooling: now it is here\n池化\n"""\n'
    )
    before = read(root)
    assert course("sync", "--check") == 1 and read(root) == before
    assert "out of date: README.md" in capsys.readouterr().out
    course("done", "05/01")
    assert course("sync") == 0
    english, chinese = read(root)
    line = "- [ ] [02-pooling-layers.py](phase05_cnn/02-pooling-layers.py) · "
    assert (
        f"{line}Pooling: now it is here · 60 min\n" in english
        and f"{line}池化 · 60 分钟\n" in chinese
    )
    assert "- [x] [01-convolution-basics.py]" in english and "| 1/12 (+0) |" in row(root, 5)
    assert course("sync", "--check") == 0


def test_sync_links_notes_that_exist(root: Path) -> None:
    write_text(root / "docs" / "phase05_cnn" / "01-convolution-basics.md", "# note\n")
    write_text(root / "docs" / "phase05_cnn" / "13-densenet.zh.md", "# 笔记\n")
    course("sync")
    english, chinese = read(root)
    assert "· 105 min · [note](docs/phase05_cnn/01-convolution-basics.md)\n" in english
    assert (
        "· 105 分钟\n" in chinese
        and "· 选修 · [笔记](docs/phase05_cnn/13-densenet.zh.md)\n" in chinese
    )
    (root / "docs" / "phase05_cnn" / "01-convolution-basics.md").unlink()
    course("sync")
    assert "01-convolution-basics.md" not in read(root)[0]


def test_sync_keeps_remarks_lines_and_the_last_state(root: Path) -> None:
    course("done", "05/04")
    whole = (root / "README.md").read_text(encoding="utf-8")
    line = re.search(r"^- \[x\] \[04-lenet\.py\].*$", whole, re.MULTILINE)[0]
    remark = " · hard, 3 h · [note](docs/notes/05-04.md)\n\nmy own line\n"
    edited = whole.replace(line, line.replace("- [x] ", "* [X] ⭐ ") + remark)
    edited = re.sub(r"(\| 23–24 .*)⏳", r"\1🔄", edited)
    write_text(root / "README.md", edited)
    course("sync")
    assert read(root)[0] == edited
    write_text(root / "README.md", edited.replace("About 04-lenet", "an old title"))
    course("sync")
    assert read(root)[0] == edited


def test_a_line_put_back_brings_its_tick(root: Path) -> None:
    course("done", "05/04")
    whole = read(root)
    write_text(root / "README.md", re.sub(r"- \[x\] \[04-lenet.*\n", "", whole[0]))
    course("sync")
    assert read(root) == whole


def test_a_marker_that_wandered_off_swallows_nothing(root: Path) -> None:
    """Were a region to reach over other markers, tables between would pass for that of progress."""
    whole = read(root)[0]
    wandered = whole.replace("<!-- /course:progress -->\n", "") + "<!-- /course:progress -->\n"
    write_text(root / "README.md", wandered)
    assert course("done", "05/01") == 1
    course("sync")
    assert read(root)[0] == whole


def test_sync_fills_quoted_results(root: Path, capsys: Capture) -> None:
    note = root / "docs" / "phase03_pytorch" / "project-mnist.md"
    quote = "<!-- result:phase03_pytorch/project-mnist:{} -->{}<!-- /result -->"
    text = (
        f"of {quote.format('accuracy', 'old')} and {quote.format('parameters', '')},\r\n"
        f"{quote.format('loss', '?')} {quote.format('nothing', 'kept')}."
    )
    write_text(note, text)
    write_text(root / "docs" / "notes" / "mine.md", text)
    assert (
        course("sync") == 0
        and note.read_bytes().decode() == text
        and "no result for" in capsys.readouterr().out
    )
    metrics = {
        "accuracy": {"mean": 0.987654, "min": 0},
        "parameters": {"mean": 61706.0},
        "loss": {"mean": 1.2e-05},
    }
    results = {"lessons": {"phase03_pytorch/project-mnist": {"metrics": metrics}}}
    write_text(root / "docs" / "RESULTS.json", json.dumps(results))
    assert course("sync", "--check") == 1 and note.read_bytes().decode() == text
    assert course("sync") == 0
    assert note.read_bytes().decode() == (
        f"of {quote.format('accuracy', '0.9877')} and {quote.format('parameters', '61706')},\r\n"
        f"{quote.format('loss', '1.2e-05')} {quote.format('nothing', 'kept')}."
    )
    assert (root / "docs" / "notes" / "mine.md").read_bytes().decode() == text, (
        "the learner's notes are not touched"
    )
    assert course("sync", "--check") == 0
    write_text(root / "docs" / "RESULTS.json", "{")
    capsys.readouterr()
    assert course("sync") == 1 and "course verify" in capsys.readouterr().err


# ------------------------------------------------------------------------------- 1,000 random edits

PIECES = [
    "\n",
    "\r",
    "\r\n",
    "\t",
    " ",
    "x",
    "X",
    "[ ]",
    "[x]",
    "[",
    "]",
    "|",
    " · ",
    "- [ ] ",
    "-",
    "0/7",
    "7/7 (+1)",
    "60 min",
    "- [x] 01-numpy-basics.py\n",
    "* [X] [02-bptt.py](phase06_rnn/02-bptt.py) more",
    "project-mnist.py",
    "<!-- course:progress -->",
    "<!-- /course:progress -->\n",
    "<!-- course:phase05 -->\n",
    "<!--",
    "-->",
    "<!-- /course:phase01 -->",
    "| 1 | 1 · mine | 0/7 | – | ⏳ |\n",
    "⏳",
    "✅",
    "我的笔记",
    "😀",
    "\ufeff",
    "\x0c",
    "\x00",
    "\u2028",
    "```\n",
]
KINDS = [
    "insert",
    "insert",
    "delete",
    "replace",
    "swap",
    "double",
    "drop",
    "endings",
    "bom",
    "cut",
    "tick",
]
EDIT = st.tuples(
    st.sampled_from(KINDS),
    st.floats(0, 1, allow_nan=False),
    st.integers(1, 400),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join),
)
LEARNED = ["01/01", "01/08", "02/03", "05/04", "06/02", "09/17", "project-mnist", "11/project"]
EDITS = st.lists(EDIT, min_size=1, max_size=8)
TICKING = {
    "edits": EDITS,
    "names": st.lists(st.sampled_from(LEARNED), min_size=1, max_size=2),
    "command": st.sampled_from(["done", "done", "undo", "status", "restore"]),
}


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def mangle(text: str, edits: list[tuple[str, float, int, str]]) -> str:
    for kind, where, length, piece in edits:
        at = int(where * len(text))
        lines = text.split("\n")
        line = int(where * (len(lines) - 1))
        other = (line + length) % len(lines)
        if kind == "insert":
            text = text[:at] + piece + text[at:]
        elif kind == "delete":
            text = text[:at] + text[at + length :]
        elif kind == "replace":
            text = text[:at] + piece + text[at + length :]
        elif kind == "swap":
            lines[line], lines[other] = lines[other], lines[line]
            text = "\n".join(lines)
        elif kind == "double":
            text = "\n".join([*lines[:other], lines[line], *lines[other:]])
        elif kind == "drop":
            text = "\n".join(lines[:line] + lines[line + 1 :])
        elif kind == "endings":
            text = text.replace("\r\n", "\n").replace("\n", ("\r\n", "\r", "\n")[length % 3])
        elif kind == "bom":
            text = "\ufeff" + text
        elif kind == "cut":
            text = text.rstrip("\r\n")
        elif kind == "tick":
            text = text[:at] + text[at:].replace("[ ]", "[X]" if length % 2 else "[x]", 1)
    return text


LINE_WITH_BOX = re.compile(
    r"(?P<head>\ufeff?[\s>]*(?:[-*+•]|\d+[.)])\s*)"
    r"(?P<box>[\[［【][^\[\]［］【】]{0,4}[\]］】]|[✅☑✔✓√☐⬜]\ufe0f?|)"
    r"(?P<rest>.*)",
    re.DOTALL,
)


def split(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)


def only_ticks_and_cells(old: str, new: str, files: set[str]) -> None:
    """The oracle: lines that differ do so in their box, or are rows that differ in two cells."""
    assert re.findall(r"\r\n|\r|\n", old) == re.findall(r"\r\n|\r|\n", new)
    for before, after in zip(split(old), split(new), strict=True):
        if before == after:
            continue
        if before.lstrip().startswith("|"):
            masked = [
                re.sub(r"\d+/\d+(?: \(\+\d+\))?", "F", re.sub("[⏳🔄✅]", "S", line), count=1)
                for line in (before, after)
            ]
            assert masked[0] == masked[1]
        else:
            old_box, new_box = LINE_WITH_BOX.fullmatch(before), LINE_WITH_BOX.fullmatch(after)
            assert old_box["head"] == new_box["head"] and new_box["box"] in ("[x]", "[ ]")
            assert old_box["rest"].lstrip(" ") == new_box["rest"].lstrip(" ")
            assert any(file in new_box["rest"] for file in files)


@pytest.fixture(scope="module")
def playground(pristine: Path, tmp_path_factory: pytest.TempPathFactory):
    """One folder for all examples; no waiting for the disk."""
    folder = tmp_path_factory.mktemp("random")
    shutil.copytree(pristine, folder / "course")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(mirror, "mirror_path", lambda: folder / "progress.json")
        patch.setattr(
            progress, "_show", lambda *_: None
        )  # rich's table costs more than all the rest
        curriculum = plan.load(folder / "course")
        patch.setattr(plan, "load", lambda root: curriculum)
        patch.setattr(lessons, "ROOT", folder / "course")
        patch.setenv("COURSE_LANG", "en")
        yield folder / "course"


def prepare(playground: Path, pristine: Path, edits: list) -> list[str]:
    texts = [mangle(text, edits[number::2]) for number, text in enumerate(read(pristine))]
    for name, text in zip(NAMES, texts):
        (playground / name).write_bytes(text.encode("utf-8"))
    return texts


@examples(100)
@given(**TICKING)
def test_random_edits_lose_nothing(
    playground: Path, pristine: Path, edits: list, names: list[str], command: str
) -> None:
    loses_nothing(playground, pristine, edits, names, command)


@pytest.mark.full
@examples(1000)
@given(**TICKING)
def test_a_thousand_random_edits_lose_nothing(
    playground: Path, pristine: Path, edits: list, names: list[str], command: str
) -> None:
    loses_nothing(playground, pristine, edits, names, command)


def loses_nothing(
    playground: Path, pristine: Path, edits: list, names: list[str], command: str
) -> None:
    before = prepare(playground, pristine, edits)
    curriculum = plan.load(playground)
    files = {curriculum.find(name).file for name in names}
    if command == "restore":
        keys = [entry.lesson.key for entry in curriculum.entries if entry.file in files]
        write_text(mirror.mirror_path(), json.dumps({"ticked": keys}))
    try:
        if command in ("done", "undo"):
            progress.done(names, command == "undo", playground)
        else:
            progress.status(command == "restore", playground)
    except LessonError as error:
        assert read(playground) == before and "course sync" in str(error)
        return
    after = read(playground)
    if command == "status":
        assert after == before
        return
    for old, new, name in zip(before, after, NAMES):
        only_ticks_and_cells(old, new, files)
        now = Readme(playground / name, "en").ticked()
        assert not files & now if command == "undo" else files <= now


def foreign(text: str, files: set[str]) -> list[str]:
    """What `sync` may not touch: all but checklist lines, markers, tables of its region."""
    region = re.search(
        r"<!--\s*course:progress\s*-->(?:(?!<!--\s*/?course:).)*[\r\n](?:(?!<!--\s*/?course:).)*"
        r"(?=<!--\s*/course:progress\s*-->)",
        text,
        re.DOTALL,
    )
    inside = (
        range(len(split(text[: region.start()])), len(split(text[: region.end()])) - 1)
        if region
        else ()
    )
    kept, table = [], []
    for number, line in enumerate([*split(text), ""]):
        bare = re.sub(r"<!--\s*/?course:\w+\s*-->", "", line)  # sync takes stray markers away
        if bare.lstrip().startswith("|"):
            table.append((number, bare))
            continue
        if not any(re.match(r"\s*\|[^|]*\|\s*\d+ · ", row) for _, row in table):
            kept += [row for place, row in table if place not in inside]
        table = []
        box = re.match(r"\ufeff?[\s>]*(?:[-*+]|\d+[.)])\s+\[[ \txX]\]", line)
        odd = LINE_WITH_BOX.fullmatch(line)
        beside = odd and re.match(r"\s*\[?([\w-]+\.py)", odd["rest"])
        if not (box and any(file in line for file in files)) and not (
            beside and beside[1] in files
        ):
            kept.append(bare)
    return [line for line in kept if line.strip()]


@pytest.mark.full
@examples(50)
@given(edits=EDITS)
@example(
    edits=[  # a row of the table that shares its line with a stray marker
        (
            "insert",
            0.37854261988227134,
            150,
            "<!-- /course:progress -->\n<!-- /course:progress -->\n",
        ),
        ("delete", 0.40436622220179996, 87, "\ufeff · 0/7"),
        (
            "insert",
            0.0,
            8,
            "<!-- course:phase05 -->\n<!-- /course:phase01 -->| 1 | 1 · mine | 0/7 | – | ⏳ |\n",
        ),
        (
            "replace",
            0.5028939461660246,
            194,
            "<!-- course:phase05 -->\n<!-- /course:phase01 -->| 1 | 1 · mine | 0/7 | – | ⏳ |\n",
        ),
    ]
)
def test_sync_mends_random_edits_and_keeps_the_rest(
    playground: Path, pristine: Path, edits: list
) -> None:
    mends_and_keeps(playground, pristine, edits)


@pytest.mark.full
@examples(200)
@given(edits=EDITS)
def test_sync_mends_two_hundred_random_edits(playground: Path, pristine: Path, edits: list) -> None:
    mends_and_keeps(playground, pristine, edits)


def mends_and_keeps(playground: Path, pristine: Path, edits: list) -> None:
    before = prepare(playground, pristine, edits)
    curriculum = plan.load(playground)
    files = {entry.file for entry in curriculum.entries}
    ticked = [Readme(playground / name, "en").ticked() for name in NAMES]
    assert sync.sync(root=playground) == 0
    after = read(playground)
    for old, new, was, name in zip(before, after, ticked, NAMES):
        assert foreign(old, files) == foreign(new, files)
        assert was & files <= Readme(playground / name, "en").ticked(), "no tick is lost"
    assert sync.sync(check=True, root=playground) == 0, "once is enough"
    assert progress.done(LEARNED, root=playground) == 0
    unclear = [Readme(playground / name, "en").unclear() for name in NAMES]
    assert progress.status(root=playground) == (1 if any(unclear) else 0)
