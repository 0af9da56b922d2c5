"""The rules of the house that can be read off the files: what stands where, who imports whom, how long a lesson is."""

import ast
import fnmatch
import functools
import io
import os
import re
import subprocess
import sys
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.lessons import ROOT, Lesson, all_lessons

LESSONS = {lesson.number: lesson for lesson in all_lessons()}
KEYS = [lesson.key for lesson in LESSONS.values()]
LENGTH = {False: (80, 350), True: (80, 600)}  # lines of a lesson, of a project
NOTE_RATIO = (0.25, 0.6)  # comment and docstring lines to code lines; aimed at
CONSTANT_CALLS = {"load_lesson", "compile", "Path", "frozenset", "tuple", "range", "log", "sqrt"}
FOLDERS = re.compile(r"phase\d\d_[a-z0-9_]+|common|docs|tests|\.ci")
UNWANTED = ("torchtext", "gym", "ultralytics", "tensorflow", "jax")
# written in halves, or this file would name them
REGISTRIES = tuple(
    name + ending
    for name, ending in (
        ("pypi.", "org"),
        ("files.python", "hosted.org"),
        ("registry.", "npmjs.org"),
        ("conda.", "anaconda.org"),
        ("pypi.tuna.", "tsinghua.edu.cn"),
        ("mirrors.", "aliyun.com"),
        ("proxy.", "golang.org"),
        ("crates", ".io"),
    )
)
LOCKS = ("*.lock", "Pipfile.lock", "package-lock.json", "pylock*.toml", "pnpm-lock.yaml")
each_lesson = pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)


def tracked() -> Iterator[Path]:
    """Every file that git would take: all but what .gitignore names (a copy without .git has tests too)."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split() if line] + [
        ".git"
    ]

    def kept(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)

    for folder, folders, files in os.walk(ROOT):
        folders[:] = filter(kept, folders)
        yield from (Path(folder, name) for name in files if kept(name))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def walk(node: ast.AST, kind: type | tuple[type, ...]) -> list:
    """The nodes of a kind, anywhere below."""
    return [found for found in ast.walk(node) if isinstance(found, kind)]


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, in functions too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def purity_faults(lesson: Lesson) -> list[str]:
    """Importing a lesson runs nothing: docstring, imports, constants, def, class, and the guard as its last lines."""
    body = tree(lesson.path).body
    *rest, guard = body[1:] if ast.get_docstring(tree(lesson.path)) else body
    found = []
    if ast.unparse(guard) != "if __name__ == '__main__':\n    main(run, Config, __doc__)":
        found.append(
            'the last lines are not `if __name__ == "__main__":` and `main(run, Config, __doc__)`'
        )
    for node in rest:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            calls = {ast.unparse(call.func).split(".")[-1] for call in walk(node.value, ast.Call)}
            if calls - CONSTANT_CALLS:
                found.append(
                    f"line {node.lineno} calls {', '.join(calls - CONSTANT_CALLS)} when imported"
                )
        elif not isinstance(
            node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.AnnAssign)
        ):
            found.append(
                f"line {node.lineno} runs when imported: {ast.unparse(node).splitlines()[0]}"
            )
    return found


def header_faults(lesson: Lesson) -> list[str]:
    """The docstring's fields, against the file they head."""
    doc, found = ast.get_docstring(tree(lesson.path), clean=False) or "", []
    lines = doc.splitlines() + ["", ""]
    phase = int(lesson.phase[5:7])
    number = f"Project {phase}" if lesson.is_project else f"{phase}.{int(lesson.path.stem[:2])}"
    if not re.fullmatch(rf"{re.escape(number)} \S.*", lines[0]):
        found.append(f"the title does not begin with the lesson's number: {lines[0]}")
    if not re.search(r"[\u4e00-\u9fff]", lines[1]):
        found.append(f"the second line is not the Chinese title: {lines[1]}")
    functions = {
        node.name: node for node in tree(lesson.path).body if isinstance(node, ast.FunctionDef)
    }
    numbered = re.findall(r"^ {2,}\d+\. .*$", doc, re.MULTILINE)
    if not lesson.questions or "\nYou will be able to answer\n" not in doc:
        found.append("no list of questions under “You will be able to answer”")
    if [q.number for q in lesson.questions] != list(range(1, len(numbered) + 1)):
        found.append(
            "a question is not of the form “1. text?   function   claim, claim”, or the numbers have a gap"
        )
    claims = [claim for question in lesson.questions for claim in question.claims]
    found += [
        f"“{claim}” is declared twice"
        for claim in sorted({c for c in claims if claims.count(c) > 1})
    ]
    found += [
        f"{q.function}, which answers question {q.number}, is not in the file"
        for q in lesson.questions
        if q.function not in functions
    ]
    if not re.search(rf"^Run +python {re.escape(lesson.key)}\.py( |$)", doc, re.MULTILINE):
        found.append(f"no line “Run       python {lesson.key}.py”")
    if "run" in functions:
        calls = [
            call.func
            for call in walk(functions["run"], ast.Call)
            if isinstance(call.func, ast.Name)
        ]
        called = [
            name.id for name in sorted(calls, key=lambda name: (name.lineno, name.col_offset))
        ]
        order = [called.index(q.function) for q in lesson.questions if q.function in called]
        if order != sorted(order):
            found.append("run() does not answer the questions in their order")
    return found + needs_faults(lesson)


def needs_faults(lesson: Lesson) -> list[str]:
    """What is loaded stands under Needs, at the top of the file, and was taught earlier."""
    if not re.search(r"^Needs +(-$|phase)", lesson.doc, re.MULTILINE):
        return ["no line “Needs     -” or “Needs     phaseNN_name/NN-lesson”"]
    top = [
        call
        for node in tree(lesson.path).body
        if isinstance(node, ast.Assign)
        for call in walk(node, ast.Call)
    ]
    loads = [
        call
        for call in walk(tree(lesson.path), ast.Call)
        if ast.unparse(call.func).endswith("load_lesson")
    ]
    found = [
        f"line {call.lineno} loads a lesson below the top of the file"
        for call in loads
        if call not in top
    ]
    loaded = {
        call.args[0].value
        if call.args and isinstance(call.args[0], ast.Constant)
        else ast.unparse(call)
        for call in loads
    }
    if loaded != set(lesson.needs):
        found.append(
            f"it loads {sorted(loaded) or 'nothing'}, and Needs says {lesson.needs or '-'}"
        )
    earlier = KEYS[: KEYS.index(lesson.key)] if lesson.key in KEYS else KEYS
    return found + [
        f"{key} is not an earlier lesson" for key in sorted(loaded) if key not in earlier
    ]


def hollow_faults(lesson: Lesson) -> list[str]:
    """The names on a line “Reference F.conv2d, nn.Conv2d” are what the lesson builds: only show_* may use them."""
    line = re.search(r"^Reference +(.+)", lesson.doc, re.MULTILINE)
    names = {name.strip() for name in line[1].split(",")} if line else set()
    taught = [
        node
        for node in tree(lesson.path).body
        if not (isinstance(node, ast.FunctionDef) and node.name.startswith("show_"))
    ]
    imports = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in taught
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for node in (node for part in taught for node in walk(part, (ast.Attribute, ast.Name))):
        used = ast.unparse(node)
        origin = imports.get(
            used, used
        )  # Conv2d, by from torch.nn import Conv2d, is torch.nn.Conv2d
        if any(f".{origin}".endswith(f".{name}") for name in names):
            found.append(f"line {node.lineno} uses {used}, which this lesson is to build")
    return found


def note_ratio(text: str) -> float:
    """Lines with comments or docstrings to lines with code."""
    notes, code = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        lines = range(token.start[0], token.end[0] + 1)
        if (
            token.type == tokenize.COMMENT
            or token.type == tokenize.STRING
            and token.line.lstrip().startswith('"""')
        ):
            notes.update(lines)
        elif token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            code.update(lines)
    return len(notes) / max(len(code), 1)


@each_lesson
def test_lesson_keeps_the_rules(lesson: Lesson) -> None:
    found = purity_faults(lesson) + header_faults(lesson) + hollow_faults(lesson)
    assert not found, "\n".join(found)


@each_lesson
def test_lesson_is_a_pleasant_read(lesson: Lesson) -> None:
    text = lesson.path.read_text(encoding="utf-8")
    low, high = LENGTH[lesson.is_project]
    assert low <= len(text.splitlines()) <= high, (
        f"{len(text.splitlines())} lines, wanted {low} to {high}"
    )
    ratio = note_ratio(text)
    assert ratio >= 0.1, f"{ratio:.2f} lines of notes to one of code: the reader is left alone"
    if not NOTE_RATIO[0] <= ratio <= NOTE_RATIO[1]:
        warnings.warn(
            f"{lesson.key}: note ratio {ratio:.2f}, aim at {NOTE_RATIO[0]} to {NOTE_RATIO[1]}",
            stacklevel=1,
        )


@each_lesson
def test_lesson_stands_in_both_readmes(lesson: Lesson) -> None:
    for name in ("README.md", "README.zh.md"):
        readme = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else ""
        assert f"({lesson.key}.py)" in readme, (
            f"{name} has no line for {lesson.key}.py: `course sync` writes it"
        )


@each_lesson
def test_lesson_imports_no_lesson_but_through_the_loader(lesson: Lesson) -> None:
    assert not [
        name for name in imported(lesson.path) if name.startswith(("phase", "practice", "tests"))
    ]


def test_common_imports_no_lesson() -> None:
    for path in (ROOT / "common").rglob("*.py"):
        assert not [
            name for name in imported(path) if name.startswith(("phase", "practice", "tests"))
        ], path


def test_common_is_an_evening_of_reading() -> None:
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "common").glob("*.py")
    }
    assert sum(lines.values()) < 1500, lines


def test_config_imports_no_torch() -> None:
    code = (
        "import sys, common.config; print(*({'torch', 'numpy', 'matplotlib'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.strip()) == (0, ""), answer.stdout + answer.stderr


def test_lines_fit_on_the_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert not long, f"over 100 columns: {long}"


def test_nothing_unmaintained_is_used() -> None:
    for path in tracked():
        if path.suffix == ".py":
            assert not imported(path) & set(UNWANTED), path
    requirements = re.findall(
        r'^\s*"?([\w-]+)\s*[>=<\["]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert not set(requirements) & set(UNWANTED)


def test_no_file_names_a_registry() -> None:
    for path in tracked():
        content = path.read_bytes().lower()
        assert not [host for host in REGISTRIES if host.encode() in content], path


def test_no_lock_files() -> None:
    assert not [
        path for path in tracked() if any(fnmatch.fnmatch(path.name, pattern) for pattern in LOCKS)
    ]


def test_no_other_folder_at_the_top() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if path.parent != ROOT}
    assert not [name for name in folders if not FOLDERS.fullmatch(name)]
    assert {"common", "tests"} <= folders, "nothing was looked at"


GOOD = '''"""1.2 Title: a test of the tests
中文

You will be able to answer
    1. What?       show_it       one, two
    2. And what?   show_more     three
Run       python phase01_data_science/02-good.py    about 1 s
Needs     phase01_data_science/01-numpy-basics
Reference F.relu, nn.Conv2d
"""
import torch.nn.functional as F
from torch.nn import Linear

from common.lessons import load_lesson

windows = load_lesson("phase01_data_science/01-numpy-basics").windows
SIZES: dict[str, int] = {"a": 1}


def taught(x):
    return x.clip(0)


def show_it(cfg):
    return F.relu(cfg)


def show_more(cfg):
    return Linear


def run(cfg):
    show_it(cfg)
    return {"more": show_more(cfg)}


if __name__ == "__main__":
    main(run, Config, __doc__)
'''
BROKEN = {  # what stands there instead, and the word that the fault must hold
    "a statement at the top": (
        'SIZES: dict[str, int] = {"a": 1}',
        "print('hello')",
        "runs when imported",
    ),
    "work at the top": ('{"a": 1}', "dict(a=open('x').read())", "when imported"),
    "code after the guard": ("__doc__)\n", "__doc__)\nx = 1\n", "the last lines"),
    "another last line": ("main(run, Config, __doc__)", "run(Config())", "the last lines"),
    "another number": ("1.2 Title", "1.3 Title", "number"),
    "no Chinese title": ("中文", "Chinese", "Chinese"),
    "a question without claims": ("show_it       one, two", "show_it", "form"),
    "a claim twice": ("three", "one", "declared twice"),
    "a function that is not there": ("show_more     three", "show_less     three", "show_less"),
    "another path to run": ("02-good.py ", "03-good.py ", "Run"),
    "questions in another order": (
        'show_it(cfg)\n    return {"more": show_more(cfg)}',
        "show_more(cfg)\n    show_it(cfg)",
        "order",
    ),
    "no Needs": ("Needs     phase01_data_science/01-numpy-basics\n", "", "Needs"),
    "a lesson loaded in secret": (
        "Needs     phase01_data_science/01-numpy-basics",
        "Needs     -",
        "it loads",
    ),
    "a lesson loaded late": (
        "x.clip(0)",
        "load_lesson('phase01_data_science/01-numpy-basics')",
        "below",
    ),
    "a later lesson": (
        "phase01_data_science/01-numpy-basics",
        "phase03_pytorch/09-training-loop",
        "not an earlier",
    ),
    "hollow, by attribute": ("x.clip(0)", "F.relu(x)", "is to build"),
    "hollow, nested": (
        "return x.clip(0)",
        "def g():\n        return torch.nn.Conv2d\n    return g",
        "is to build",
    ),
    "hollow, by import": ("import Linear\n", "import Conv2d, Linear\nC = Conv2d\n", "is to build"),
}


@pytest.mark.parametrize("old, new, word", BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, word: str
) -> None:
    path = tmp_path / "phase01_data_science" / "02-good.py"
    path.parent.mkdir()

    def found(text: str) -> list[str]:
        path.write_text(text, encoding="utf-8")
        tree.cache_clear()
        lesson = Lesson(path)
        return purity_faults(lesson) + header_faults(lesson) + hollow_faults(lesson)

    monkeypatch.setattr(
        f"{__name__}.KEYS",
        [
            "phase01_data_science/01-numpy-basics",
            "phase01_data_science/02-good",
            "phase03_pytorch/09-training-loop",
        ],
    )
    assert found(GOOD) == []
    assert old in GOOD and any(word in fault for fault in found(GOOD.replace(old, new))), found(
        GOOD.replace(old, new)
    )
