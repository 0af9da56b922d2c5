"""The rules of the house that can be read off the files: what stands where, who imports whom."""

import ast
import fnmatch
import functools
import io
import os
import re
import subprocess
import sys
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.lessons import ROOT, Lesson, all_lessons

LESSONS = {lesson.number: lesson for lesson in all_lessons()}
KEYS = [lesson.key for lesson in LESSONS.values()]
LENGTH = {False: (80, 350), True: (80, 600)}  # lines of a lesson, of a project
NOTE_RATIO = 0.02  # comments to lines of code: fewer, and the reader is left alone
AIMED_AT = 0.04
QUESTIONS = 5
REGIONS = {False: (2, 6), True: (3, 6)}  # practice regions of a lesson, of a project
CODE = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
PICTURES = re.compile(r"# Pictures( and helpers)?: skip on a first reading")
BOUNDS = {"above", "at_least", "below", "at_most"}
CONSTANT_CALLS = {"load_lesson", "compile", "Path", "frozenset", "tuple", "range", "log", "sqrt"}
FOLDERS = re.compile(r"phase\d\d_[a-z0-9_]+|common|docs|tests|\.ci|\.github")
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
    """Every file that git would take: all but what .gitignore names (a copy may have no .git)."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split() if line]
    ignored += [".git", ".ruff_cache"]  # the cache brings a .gitignore of its own

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
    """Importing a lesson runs nothing: imports, constants, def, class, and the guard at the end."""
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


def plainness_faults(lesson: Lesson) -> list[str]:
    """One thing a statement: what packs several into one, as far as a syntax tree can tell."""
    found = []
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    in_tests = {
        id(named)
        for node in walk(tree(lesson.path), (ast.If, ast.While))
        for named in walk(node.test, ast.NamedExpr)
    }
    for node in ast.walk(tree(lesson.path)):
        inside = [each for child in ast.iter_child_nodes(node) for each in ast.walk(child)]
        fault = None
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Lambda):
            fault = "a lambda with a name: write a def"
        elif isinstance(node, comprehensions) and any(
            isinstance(x, comprehensions) for x in inside
        ):
            fault = "a comprehension in a comprehension"
        elif isinstance(node, ast.IfExp) and any(isinstance(x, ast.IfExp) for x in inside):
            fault = "a chain of ternaries"
        elif isinstance(node, ast.NamedExpr) and id(node) not in in_tests:
            fault = ":= outside the test of an if or while"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
            fault = "two statements with a comma between them"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "type" and len(node.args) > 1:
            fault = "a class made by type(…)"
        elif isinstance(node, ast.Attribute) and node.attr == "__dict__":
            fault = "names set through __dict__"
        elif isinstance(node, ast.Assign) and packs_unrelated(node):
            fault = "unrelated things assigned in one statement"
        if fault:
            found.append(f"line {node.lineno}: {fault}")
    return found


def packs_unrelated(node: ast.Assign) -> bool:
    """a, b = …, … is plain for an exchange, and for two or three values of one kind."""
    target, value = node.targets[0], node.value
    if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
        return False
    written = {ast.unparse(each) for each in target.elts}
    read = {ast.unparse(each) for each in walk(value, (ast.Name, ast.Attribute, ast.Subscript))}
    if written & read:
        return False
    places = (ast.Name, ast.Attribute, ast.Subscript)
    kinds = {
        ast.unparse(each.func)
        if isinstance(each, ast.Call)
        else "place"
        if isinstance(each, places)
        else type(each).__name__
        for each in value.elts
    }
    return len(kinds) > 1 or len(value.elts) > 3


def region_faults(lesson: Lesson) -> list[str]:
    """Enough practice regions; one of them at least a whole function body, none an expression."""
    text = lesson.path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = [
        f"line {number}: hints stand in the note, not in the script"
        for number, line in enumerate(lines, 1)
        if re.match(r"\s*# hint\b", line)
    ]
    marks = [
        (number, line.strip())
        for number, line in enumerate(lines, 1)
        if re.match(r"\s*# (practice: \S|end practice$)", line)
    ]
    starts, ends = marks[::2], marks[1::2]
    turns = all(mark.startswith("# practice") for _, mark in starts)
    turns = turns and all(mark == "# end practice" for _, mark in ends)
    if not turns or len(starts) != len(ends):
        return [*found, "“# practice: …” and “# end practice” do not take turns"]

    low, high = REGIONS[lesson.is_project]
    if not low <= len(starts) <= high:
        found.append(f"{len(starts)} practice regions, wanted {low} to {high}")
    bodies = function_bodies(lesson.path)
    whole = 0
    for (start, title), (end, _) in zip(starts, ends):
        inside = lines[start : end - 1]
        try:
            statements = ast.parse(textwrap.dedent("\n".join(inside))).body
        except SyntaxError:
            found.append(f"line {start}: the region is not a run of whole statements")
            continue
        compound = any(hasattr(each, "body") for each in statements)
        if len(statements) < 2 and not compound:
            found.append(f"line {start}: the region is a single expression: {title}")
        is_whole = any(
            start < first and last < end and outside_of(first, last, start, end, lines)
            for first, last in bodies
        )
        whole += is_whole
        if lesson.is_project and not is_whole:
            found.append(f"line {start}: a project's region is a whole function body: {title}")
    if starts and not whole:
        found.append("no practice region is a whole function body")
    return found


def function_bodies(path: Path) -> list[tuple[int, int]]:
    """First and last line of every function's body, the docstring left out."""
    found = []
    for node in walk(tree(path), ast.FunctionDef):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if body:
            found.append((body[0].lineno, body[-1].end_lineno))
    return found


def outside_of(first: int, last: int, start: int, end: int, lines: list[str]) -> bool:
    """Whether between the marks and the body there is nothing but comments and blank lines."""
    around = lines[start : first - 1] + lines[last : end - 1]
    return all(not line.strip() or line.lstrip().startswith("#") for line in around)


def picture_faults(lesson: Lesson) -> list[str]:
    """draw_ functions stand behind the comment that lets a reader skip them, below what teaches."""
    lines = lesson.path.read_text(encoding="utf-8").splitlines()
    functions = [
        n for n in tree(lesson.path).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))
    ]
    drawing = [node for node in functions if node.name.startswith("draw_")]
    places = [number for number, line in enumerate(lines, 1) if PICTURES.fullmatch(line)]
    if len(places) != bool(drawing):
        return [f"“# Pictures: …” stands {len(places)} times, wanted {int(bool(drawing))}"]
    if not drawing:
        return []
    place = places[0]
    found = [f"{n.name} stands above “# Pictures: …”" for n in drawing if n.lineno < place]
    return found + [
        f"{n.name} stands below “# Pictures: …”"
        for n in functions
        if n.lineno > place and (n.name.startswith("show_") or isinstance(n, ast.ClassDef))
    ]


def claim_faults(lesson: Lesson) -> list[str]:
    """A claim about a number says the number: its text has {} for the measured value."""
    found = []
    for call in walk(tree(lesson.path), ast.Call):
        name = ast.unparse(call.func)
        named = {word.arg: word.value for word in call.keywords}
        numeric = name == "timed" or (name in ("check", "expect") and BOUNDS & named.keys())
        text = call.args[1] if len(call.args) > 1 else named.get("text")
        parts = text.values if isinstance(text, ast.JoinedStr) else [text]
        words = [part.value for part in parts if isinstance(part, ast.Constant)]
        if (
            numeric
            and isinstance(text, (ast.Constant, ast.JoinedStr))
            and "{}" not in "".join(words)
        ):
            found.append(f"line {call.lineno}: a claim about a number without {{}} in its text")
    return found


def header_faults(lesson: Lesson) -> list[str]:
    """The docstring's fields, against the file they head."""
    doc, found = ast.get_docstring(tree(lesson.path), clean=False) or "", []
    lines = [*doc.splitlines(), "", ""]
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
            "a question is not of the form “1. text?   function   claim, claim”, "
            "or the numbers have a gap"
        )
    if len(numbered) > QUESTIONS:
        found.append(f"{len(numbered)} questions, at most {QUESTIONS}")
    if not re.search(
        r"^ {2,}\d+\. [^\n]+\nPredict +[\w.-]+: [^\n]+\?(\n {6,}[^\n]+)*[^\n]*\nRun ", doc, re.M
    ):
        found.append("no line “Predict   key: question?” between the questions and Run")
    if not re.search(r"^Reference +\S", doc, re.MULTILINE):
        found.append("no line “Reference F.conv2d” or “Reference -”")
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
    """What a line “Reference F.conv2d, nn.Conv2d” names is built here: only show_* may use it."""
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
    """Comments, on their own line or behind code, to lines with code; docstrings are neither."""
    comments, code = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        lines = range(token.start[0], token.end[0] + 1)
        is_docstring = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
        if token.type == tokenize.COMMENT:
            if not re.match(r"# (practice:|end practice|Pictures\b)", token.string):
                comments.update(lines)
        elif token.type in CODE and not is_docstring:
            code.update(lines)
    return len(comments) / max(len(code), 1)


def faults(lesson: Lesson) -> list[str]:
    rules = (
        purity_faults,
        header_faults,
        hollow_faults,
        plainness_faults,
        region_faults,
        picture_faults,
        claim_faults,
    )
    return [fault for rule in rules for fault in rule(lesson)]


@each_lesson
def test_lesson_keeps_the_rules(lesson: Lesson) -> None:
    found = faults(lesson)
    assert not found, "\n".join(found)


@each_lesson
def test_lesson_is_a_pleasant_read(lesson: Lesson) -> None:
    text = lesson.path.read_text(encoding="utf-8")
    low, high = LENGTH[lesson.is_project]
    assert low <= len(text.splitlines()) <= high, (
        f"{len(text.splitlines())} lines, wanted {low} to {high}"
    )
    ratio = note_ratio(text)
    assert ratio >= NOTE_RATIO, f"{ratio:.3f} comments to a line of code: the reader is left alone"
    if ratio < AIMED_AT:
        warnings.warn(f"{lesson.key}: {ratio:.3f} comments to a line of code", stacklevel=1)


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
    assert sum(lines.values()) < 2050, lines


def test_config_imports_no_torch() -> None:
    code = (
        "import sys, common.config; print(*({'torch', 'numpy', 'matplotlib'} & sys.modules.keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
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
Predict   more: how many?
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
    """A whole body is cut out."""
    # practice: clip
    # why it is clipped
    low = 0
    return x.clip(low)
    # end practice


def summed(x, y):
    # practice: two statements
    total = x + y
    total = total * 2
    # end practice
    return total


def show_it(cfg):
    check("one", "the value is {}", 1, above=0)
    return F.relu(cfg)


def show_more(cfg):
    first, second = cfg.first, cfg.second
    first, second = second, first + second
    return Linear


# Pictures: skip on a first reading


def draw_it(cfg):
    pass


def run(cfg):
    show_it(cfg)
    return {"more": show_more(cfg)}


if __name__ == "__main__":
    main(run, Config, __doc__)
'''
RUN_LINE = "Run       python phase01_data_science/02-good.py    about 1 s\n"
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
        "x.clip(low)",
        "load_lesson('phase01_data_science/01-numpy-basics')",
        "below",
    ),
    "a later lesson": (
        "phase01_data_science/01-numpy-basics",
        "phase03_pytorch/09-training-loop",
        "not an earlier",
    ),
    "hollow, by attribute": ("x.clip(low)", "F.relu(x)", "is to build"),
    "hollow, nested": (
        "return x.clip(low)",
        "def g():\n        return torch.nn.Conv2d\n    return g(low)",
        "is to build",
    ),
    "no Predict": ("Predict   more: how many?\n", "", "Predict"),
    "Predict without a key": ("Predict   more: how", "Predict   how", "Predict"),
    "Predict below Run": (
        f"Predict   more: how many?\n{RUN_LINE}",
        f"{RUN_LINE}Predict   more: how many?\n",
        "Predict",
    ),
    "no Reference": ("Reference F.relu, nn.Conv2d\n", "", "Reference"),
    "six questions": (
        "    2. And what?   show_more     three\n",
        "".join(f"    {n}. And what?   show_more     three{n}\n" for n in range(2, 7)),
        "at most 5",
    ),
    "a hint": (
        "    low = 0",
        "    # hint: nothing below 0\n    low = 0",
        "hints stand in the note",
    ),
    "one region": (
        "    # practice: two statements\n    total = x + y\n    total = total * 2\n"
        "    # end practice\n",
        "    total = x + y\n",
        "1 practice regions",
    ),
    "no whole body": (
        "    low = 0\n    return x.clip(low)\n    # end practice",
        "    low = 0\n    x = x.clip(low)\n    # end practice\n    return x",
        "whole function body",
    ),
    "a single expression": ("    total = total * 2\n", "", "single expression"),
    "a region without an end": (
        "    # end practice\n    return total",
        "    return total",
        "turns",
    ),
    "half a statement": (
        "    total = x + y\n    total = total * 2\n",
        "    total = (x +\n    # end practice\n    y)\n    # practice: more\n"
        "    total = total * 2\n    x = 1\n",
        "whole statements",
    ),
    "a lambda with a name": ("x.clip(low)", "x\n\n\ng = lambda x: x", "lambda"),
    "comprehensions nested": (
        "return Linear",
        "return [[a for a in b] for b in cfg]",
        "comprehension",
    ),
    "ternaries in a chain": ("return Linear", "return 1 if cfg else 2 if run else 3", "ternaries"),
    "a walrus": ("return Linear", "return (x := 1) + x", ":="),
    "two statements in one": ("return Linear", "run(cfg), taught(cfg)", "comma"),
    "a class by type": ("return Linear", "return type('A', (), {})", "type("),
    "names by __dict__": ("return Linear", "cfg.__dict__.update(a=1)", "__dict__"),
    "unrelated things": ("return Linear", "first, second = cfg + 1, run(cfg)", "unrelated"),
    "four things": ("return Linear", "a, b, c, d = 1, 2, 3, 4", "unrelated"),
    "a number that is not said": ("the value is {}", "the value is good", "without {}"),
    "no word above the pictures": ("# Pictures: skip on a first reading\n", "", "Pictures"),
    "a picture among what teaches": (
        "def show_it(cfg):",
        "def draw_more():\n    pass\n\n\ndef show_it(cfg):",
        "draw_more",
    ),
    "teaching below the pictures": (
        "def draw_it(cfg):",
        "def show_last():\n    pass\n\n\ndef draw_it(cfg):",
        "show_last",
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
        return faults(Lesson(path))

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


def test_a_project_cuts_out_whole_functions(tmp_path: Path) -> None:
    path = tmp_path / "project-good.py"
    whole = "def f{0}(x):\n    # practice: {0}\n    y = x\n    return y\n    # end practice\n\n\n"
    path.write_text("".join(whole.format(number) for number in range(3)))
    assert region_faults(Lesson(path)) == []

    path.write_text(
        path.read_text().replace(
            "    return y\n    # end practice", "    y += 1\n    # end practice\n    return y", 1
        )
    )
    tree.cache_clear()
    assert any(
        "line 2" in fault and "whole function body" in fault
        for fault in region_faults(Lesson(path))
    )


def test_comments_are_counted_and_nothing_else() -> None:
    text = '"""A docstring\nof two lines."""\n\n# why\nx = 1  # (B, T)\ny = 2\n# practice: a\n'
    assert note_ratio(text) == 1.0
    assert note_ratio("x = 1\n" * 10) == 0
