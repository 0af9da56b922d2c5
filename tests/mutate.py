"""Mutation testing: is a wrong lesson noticed? Taught code is changed in one place, and run tiny.

    python tests/mutate.py                       every mutant of every lesson
    python tests/mutate.py 03/05 03/06           those of two lessons
    python tests/mutate.py --sample 200 --seed 7
    python tests/mutate.py --regions             only what the learner writes

A mutant is caught when the run exits with an error, a claim fails, or the engine finds a fault; a
run into the time limit counts as caught. Survivors of a script that has tests of its own
(test_project_eda.py) are shown to those as well. A survivor that has the same effect as the
original belongs into equal_mutants.txt, with the reason.

Left alone, because no claim can see it: what is printed or drawn, messages, annotations, and the
refusal of wrong input.
"""

import argparse
import ast
import collections
import contextlib
import copy
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from engine import Engine, Job, Outcome  # noqa: E402  (the line above finds it)
from test_lessons_run import faults  # noqa: E402  (the line above finds it)

from common.lessons import ROOT, Lesson, all_lessons, find_lesson  # noqa: E402  (as above)

EQUAL = HERE / "equal_mutants.txt"
CLAIMS = {"check", "check_close", "expect", "timed", "overfits", "depends_on_input", "no_leak"}
PICTURES = re.compile(r"^# Pictures\b", re.MULTILINE)
LEAST_LIMIT = 10.0  # seconds

OTHER_OPERATOR = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
OTHER_COMPARISONS = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
TWIN_PAIRS = [
    ("min", "max"),
    ("minimum", "maximum"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("cummin", "cummax"),
    ("any", "all"),
    ("sum", "mean"),
    ("floor", "ceil"),
    ("sin", "cos"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("train", "eval"),
    ("append", "extend"),
]
TWINS = dict(TWIN_PAIRS) | {second: first for first, second in TWIN_PAIRS}
# without them it is another program, or one that computes the same
LANGUAGE_DECORATORS = {"staticmethod", "classmethod", "property", "dataclass", "functools.cache"}
# of these the order of the arguments says nothing
SYMMETRIC = {"min", "max", "minimum", "maximum", "add", "multiply", "equal", "logaddexp", "hypot"}
TWIN_WORDS = {"mean": "sum", "sum": "mean", "none": "mean"}  # of an argument such as reduction


@dataclass(frozen=True)
class Change:
    """`by` takes the place of the bytes in `span`; `old` and `new` say how the statement reads."""

    line: int
    old: str  # the statement's first line, as ast.unparse writes it
    new: str
    span: tuple[int, int]
    by: str


@dataclass(frozen=True)
class Mutant:
    lesson: Lesson
    where: str  # the function or Class.method; "name #2" for a second change that reads the same
    change: Change
    source: bytes  # of the whole script

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What it is called in equal_mutants.txt: its line may change."""
        return self.lesson.key, self.where, self.change.old, self.change.new

    def __str__(self) -> str:
        place = f"{self.lesson.key}.py:{self.change.line} {self.where}"
        return f"{place}\n    - {self.change.old}\n    + {self.change.new}"

    def text(self) -> str | None:
        """The whole script with the change in it; None where that is no Python."""
        begin, end = self.change.span
        text = (self.source[:begin] + self.change.by.encode() + self.source[end:]).decode()
        try:
            compile(text, self.lesson.path.name, "exec")
        except SyntaxError:
            return None
        return text


# What is changed: statements of taught code


def mutants_of(lesson: Lesson, regions_only: bool = False) -> list[Mutant]:
    """All of them, in the order of the file."""
    source = lesson.path.read_bytes()
    text = source.decode()
    tree = ast.parse(text)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    taught = taught_nodes(tree, text)
    imported = imported_names(tree)
    names: collections.Counter = collections.Counter()
    found = {}
    for where, statement in statements(taught):
        for change in changes(statement, imported, source, starts):
            # x * x becomes x in two ways
            if (change.span, change.by) in found:
                continue
            names[where, change.old, change.new] += 1
            count = names[where, change.old, change.new]
            place = where if count == 1 else f"{where} #{count}"
            found[change.span, change.by] = Mutant(lesson, place, change, source)
    if regions_only:
        inside = region_lines(text)
        return [mutant for mutant in found.values() if mutant.change.line in inside]
    return list(found.values())


def taught_nodes(tree: ast.Module, text: str) -> list[ast.stmt]:
    """Functions and classes that teach: not those that show, draw, claim, load or start."""
    pictures = PICTURES.search(text)
    last = text[: pictures.start()].count("\n") if pictures else len(text)
    found = []
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.lineno > last:
            continue
        if node.name.startswith(("show_", "draw_")) or node.name in ("run", "main", "Config"):
            continue
        # a helper that makes claims is evidence: weaker evidence is not noticed by itself
        makes_claims = called_names(node) & CLAIMS
        # other data, or more of it, is no mistake
        chooses_data = {"cfg.tiny", "cfg.data"} & attributes(node)
        if not makes_claims and not chooses_data:
            found.append(node)
    return found


def attributes(node: ast.AST) -> set[str]:
    return {ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def called_names(node: ast.AST) -> set[str]:
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def imported_names(tree: ast.Module) -> set[str]:
    """Names that stand for a module, or for something of one."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def region_lines(text: str) -> set[int]:
    """The lines between `# practice: …` and `# end practice`, counted from 1."""
    lines, inside = set(), False
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() == "# end practice":
            inside = False
        if inside:
            lines.add(number)
        if line.strip().startswith("# practice:"):
            inside = True
    return lines


def statements(nodes: Iterable[ast.AST], outer: str = "") -> Iterator[tuple[str, ast.stmt]]:
    """Every statement below, with the name of the function or Class.method around it."""
    for node in nodes:
        if not isinstance(node, ast.stmt):
            # the branch of a try or a match: its statements count, it is none itself
            yield from statements(ast.iter_child_nodes(node), outer)
            continue
        name = outer
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = f"{outer}.{node.name}".strip(".")
        if is_left_alone(node):
            continue
        yield name, node
        blocks = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case))
        ]
        yield from statements(blocks, name)


def is_left_alone(node: ast.stmt) -> bool:
    """A docstring, something printed, or the refusal of wrong input."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
        return not node.orelse
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) or "print" in called_names(node)


# How it is changed


def changes(
    statement: ast.stmt, imported: set[str], source: bytes, starts: list[int]
) -> Iterator[Change]:
    """Every change of one statement, those of the statements inside it left out."""

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + column

    def span(node: ast.AST) -> tuple[int, int]:
        begin = offset(node.lineno, node.col_offset)
        return begin, offset(node.end_lineno, node.end_col_offset)

    old = header(statement)
    for new in other_statements(statement):
        yield Change(statement.lineno, old, new, span(statement), new)

    if isinstance(statement, ast.With) and not any(item.optional_vars for item in statement.items):
        begin, _ = span(statement)
        _, last = span(statement.items[-1].context_expr)
        colon = source.index(b":", last)
        yield Change(statement.lineno, old, "if True:", (begin, colon), "if True")

    for hole in holes(statement):
        begin, end = span(hole.node)
        if hole.field == "decorator_list":
            code = ast.unparse(hole.node)
            # behind the @, which goes with it
            if code not in LANGUAGE_DECORATORS:
                place = (begin - 1, end)
                yield Change(hole.node.lineno, old, f"without @{code}", place, "")
            continue
        for node in other_expressions(hole, imported):
            new = hole.filled_with(node, statement)
            code = ast.unparse(node)
            by = code if isinstance(node, ast.Slice) else f"({code})"
            if new != old:
                yield Change(hole.node.lineno, old, new, (begin, end), by)


def header(statement: ast.stmt) -> str:
    """The statement on one line; of a compound one, the line that opens it."""
    lines = ast.unparse(statement).strip().splitlines()
    if hasattr(statement, "body"):
        return next(line for line in lines if not line.startswith("@"))
    return " ".join(line.strip() for line in lines)


def other_statements(node: ast.stmt) -> Iterator[str]:
    """What may stand instead of a simple statement."""
    if isinstance(node, ast.AugAssign) and type(node.op) in OTHER_OPERATOR:
        yield ast.unparse(altered(node, op=OTHER_OPERATOR[type(node.op)]()))
    if isinstance(node, (ast.Expr, ast.AugAssign, ast.Continue, ast.Break)):
        yield "pass"
    if isinstance(node, ast.Assign) and not binds_a_new_name(node):
        yield "pass"


def binds_a_new_name(node: ast.Assign) -> bool:
    """Then the next use of the name would fail, which says nothing about the claims."""
    target = node.targets[0]
    if not isinstance(target, ast.Name):
        return isinstance(target, (ast.Tuple, ast.List))
    used = [name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)]
    return target.id not in used


@dataclass
class Hole:
    """Where an expression stands: in a field of its parent, perhaps in a list there."""

    parent: ast.AST
    field: str
    position: int | None
    node: ast.expr

    def filled_with(self, other: ast.AST, statement: ast.stmt) -> str:
        """How the statement reads with `other` in this place."""
        self._put(other)
        text = header(statement)
        self._put(self.node)
        return text

    def _put(self, node: ast.AST) -> None:
        if self.position is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.position] = node


def holes(parent: ast.AST) -> Iterator[Hole]:
    """The expressions of a statement: not in its body, its annotations, or in f-strings."""
    for name, value in ast.iter_fields(parent):
        if name in ("annotation", "returns", "type_params"):
            continue
        nodes = value if isinstance(value, list) else [value]
        for position, node in enumerate(nodes):
            # Python 3.11 does not know where the parts of an f-string stand
            is_block = isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case))
            if not isinstance(node, ast.AST) or is_block or isinstance(node, ast.JoinedStr):
                continue
            if isinstance(node, ast.expr):
                yield Hole(parent, name, position if isinstance(value, list) else None, node)
            yield from holes(node)


def other_expressions(hole: Hole, imported: set[str]) -> Iterator[ast.AST]:
    """What may stand there instead."""
    node = hole.node
    if hole.field == "test" and isinstance(hole.parent, (ast.If, ast.While)):
        yield ast.Constant(False)
        if isinstance(hole.parent, ast.If):
            yield ast.Constant(True)
    if isinstance(node, ast.Constant):
        yield from other_constants(node.value)
    elif isinstance(node, ast.Call):
        yield from other_calls(node, hole, imported)
    elif isinstance(node, ast.BinOp):
        yield from other_sums(node, hole)
    elif isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            for kind in OTHER_COMPARISONS[type(operator)]:
                ops = [*node.ops[:position], kind(), *node.ops[position + 1 :]]
                yield altered(node, ops=ops)
    else:
        yield from other_forms(node)


def other_constants(value: object) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        # of a tiny number only whether it is there makes a difference
        tiny = 0 < value < 1e-3
        yield ast.Constant(0.0 if tiny else 2 * value or 1.0)
    elif value in TWIN_WORDS:
        yield ast.Constant(TWIN_WORDS[value])


def other_sums(node: ast.BinOp, hole: Hole) -> Iterator[ast.expr]:
    """Another operator, one of the sides alone, the sides swapped."""
    if type(node.op) in OTHER_OPERATOR:
        yield altered(node, op=OTHER_OPERATOR[type(node.op)]())
    yield node.left
    if isinstance(node.op, (ast.Add, ast.Mult, ast.MatMult)):
        yield node.right
    loses_its_sign = isinstance(node.op, ast.Sub) and is_even(hole.parent)
    if (
        isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult, ast.Pow, ast.Mod))
        and not loses_its_sign
    ):
        yield altered(node, left=node.right, right=node.left)


def is_even(node: ast.AST) -> bool:
    """abs(…), (…).abs(), (…).norm(), (…) ** 2: whatever the sign of what stands inside."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return isinstance(node.right, ast.Constant) and node.right.value == 2
    if isinstance(node, ast.Call):
        node = node.func
    return getattr(node, "attr", getattr(node, "id", "")) in ("abs", "square", "norm")


def other_calls(node: ast.Call, hole: Hole, imported: set[str]) -> Iterator[ast.expr]:
    """Without a keyword, with its first two arguments swapped, its twin, or not called at all."""
    for keyword in node.keywords:
        kept = [other for other in node.keywords if other is not keyword]
        yield altered(node, keywords=kept)
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    is_plain = not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    if len(node.args) >= 2 and is_plain and name not in SYMMETRIC:
        first, second, *rest = node.args
        yield altered(node, args=[second, first, *rest])

    if name in TWINS:
        part = "attr" if isinstance(node.func, ast.Attribute) else "id"
        yield altered(node, func=altered(node.func, **{part: TWINS[name]}))

    # a statement that is only a call is dropped as a whole
    if not isinstance(hole.parent, ast.Expr):
        yield from not_called(node, imported)


def not_called(node: ast.Call, imported: set[str]) -> Iterator[ast.expr]:
    """np.abs(x) and abs(x) become x, and so does x.abs()."""
    root = node.func
    while isinstance(root, ast.Attribute):
        root = root.value
    belongs_to = root.id if isinstance(root, ast.Name) else ""
    is_method = isinstance(node.func, ast.Attribute) and belongs_to not in imported
    if is_method and belongs_to not in ("self", "cls", "super"):
        yield node.func.value
    elif node.args and not isinstance(node.args[0], (ast.Starred, ast.GeneratorExp)):
        yield node.args[0]


def other_forms(node: ast.expr) -> Iterator[ast.AST]:
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield altered(node, op=other)
        yield node.values[0]
        yield node.values[-1]
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                yield altered(node, **{part: None})
    elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT", "H"):
        yield node.value
    for position, loop in enumerate(getattr(node, "generators", [])):
        if loop.ifs:
            loops = list(node.generators)
            loops[position] = altered(loop, ifs=[])
            yield altered(node, generators=loops)


def altered(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of the node that differs in these fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


# Running them


@dataclass
class Tally:
    """What became of the mutants of one lesson."""

    mutants: int = 0
    caught: int = 0
    late: int = 0  # of the caught, those that ran into the time limit
    equal: int = 0
    seconds: float = 0.0
    survivors: list[Mutant] = field(default_factory=list)
    broken: str = ""  # why the lesson cannot be judged: it does not pass as it is

    def row(self, name: str) -> str:
        if self.broken:
            return f"{name:18} {self.broken}"
        counts = [self.mutants, self.caught, self.late, self.equal, len(self.survivors)]
        return f"{name:18}" + "".join(f"{count:9}" for count in counts) + f"{self.seconds:9.0f}"


HEADINGS = ("mutants", "caught", "of time", "equal", "survive", "seconds")
HEAD = f"{'lesson':18}" + "".join(f"{heading:>9}" for heading in HEADINGS)


def judge(
    engine: Engine,
    lesson: Lesson,
    mutants: list[Mutant],
    equal: set[tuple],
    limit: float | None = None,
) -> Tally:
    """Run the mutants of one lesson. `equal`: the names of those that need not be caught.

    limit: seconds for each; by default five times what the lesson itself takes.
    """
    tally = Tally()
    start = time.perf_counter()
    original = engine.result(Job(lesson.path, fake_cuda=True))
    if found := faults(original):
        return Tally(broken=f"does not pass unchanged: {found[0]}")

    limit = limit or max(LEAST_LIMIT, 5 * original.seconds)
    jobs = []
    for mutant in mutants:
        text = mutant.text()
        if text is None:
            continue
        job = Job(lesson.path, text=text, limit=limit, draw=False, fake_cuda=True)
        jobs.append((mutant, job))
        engine.submit(job)

    for mutant, job in jobs:
        outcome = engine.result(job)
        tally.mutants += 1
        if is_caught(outcome):
            tally.caught += 1
            tally.late += any("still running" in line for line in outcome.violations)
        elif mutant.name in equal:
            tally.equal += 1
        else:
            tally.survivors.append(mutant)
        engine.forget(job)

    if tally.survivors and (tests := own_tests(lesson)):
        still = survivors_of(tests, tally.survivors)
        tally.caught += len(tally.survivors) - len(still)
        tally.survivors = still
    tally.seconds = time.perf_counter() - start
    return tally


def is_caught(outcome: Outcome) -> bool:
    return bool(faults(outcome))


def own_tests(lesson: Lesson) -> Path | None:
    path = HERE / f"test_{lesson.path.stem.replace('-', '_')}.py"
    return path if path.exists() else None


def survivors_of(tests: Path, mutants: list[Mutant]) -> list[Mutant]:
    """Those that the lesson's own tests do not notice either, in a copy of the repository."""
    lesson = mutants[0].lesson
    ignore = shutil.ignore_patterns(".*", "outputs", "practice", "__pycache__", "*.egg-info")
    with tempfile.TemporaryDirectory(prefix="course-mutants-") as folder:
        copied = Path(folder) / "course"
        shutil.copytree(ROOT, copied, ignore=ignore)
        script = copied / lesson.path.relative_to(ROOT)
        with runner_of(copied) as tests_pass:
            seconds = time.perf_counter()
            # tests that fail without a change would catch everything
            if not tests_pass([f"tests/{tests.name}"], 600):
                return mutants
            limit = max(LEAST_LIMIT, 5 * (time.perf_counter() - seconds))
            found = []
            for mutant in mutants:
                script.write_text(mutant.text(), encoding="utf-8")
                if tests_pass(likeliest_first(tests, mutant.where), limit):
                    found.append(mutant)
            return found


def likeliest_first(tests: Path, where: str) -> list[str]:
    """The tests of a file as pytest names them; first those that mention where the change is."""
    text = tests.read_text(encoding="utf-8")
    names = [re.escape(name) for name in re.findall(r"\w+", where.split(" #")[0])]
    mentions = re.compile(rf"\b({'|'.join(names)})\b")
    nodes = [node for node in ast.parse(text).body if hasattr(node, "name")]
    nodes = [node for node in nodes if re.match("[Tt]est", node.name)]
    nodes.sort(key=lambda node: not mentions.search(ast.get_source_segment(text, node)))
    return [f"tests/{tests.name}::{node.name}" for node in nodes]


@contextlib.contextmanager
def runner_of(folder: Path) -> Iterator[Callable[[list[str], float], bool]]:
    """A function of tests and a limit in seconds: do they pass in the copied repository, in time?

    Tests that failed lately come first. On Linux one process imports torch and the others, and
    forks for each run (warm_pytest.py).
    """
    options = ["-x", "-q", "--ff"]
    # Under CI a test that is skipped here would fail, and so seem to catch everything.
    environment = {
        name: value for name, value in os.environ.items() if "PYTEST" not in name and name != "CI"
    }
    environment |= {"PYTHONPATH": str(folder)}
    if sys.platform == "linux":
        with subprocess.Popen(
            [sys.executable, folder / "tests/warm_pytest.py"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server:
            assert server.stdout.readline() == "ready\n", "warm_pytest.py did not start"

            def ask(tests: list[str], limit: float) -> bool:
                request = {"arguments": [*options, *tests], "limit": math.ceil(limit)}
                server.stdin.write(json.dumps(request) + "\n")
                server.stdin.flush()
                return int(server.stdout.readline()) == 0

            yield ask
            server.stdin.close()
        return

    def run(tests: list[str], limit: float) -> bool:
        command = [sys.executable, "-m", "pytest", *options, *tests]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    yield run


def read_equal(path: Path = EQUAL) -> dict[tuple[str, str, str, str], str]:
    """{name of a mutant: why it has the same effect}. ValueError names a line that is wrong."""
    found = {}
    for number, block in blocks(path.read_text(encoding="utf-8")):
        marks = [line[:2] for line in block]
        if len(block) != 4 or marks[1:] != ["- ", "+ ", "= "] or " " not in block[0]:
            raise ValueError(f"{path.name}:{number}: not “lesson function”, “- ”, “+ ”, “= why”")
        lesson, where = block[0].split(" ", 1)
        old, new, reason = (line[2:].strip() for line in block[1:])
        if len(reason.split()) < 3:
            raise ValueError(f"{path.name}:{number}: “{reason}” is no reason")
        found[lesson, where, old, new] = reason
    return found


def blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines between empty ones, without comments, and the number of the first."""
    block, first = [], 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if line.strip():
            first = first if block else number
            block.append(line.rstrip())
        elif block:
            yield first, block
            block = []


def chosen(
    lessons: list[Lesson], sample: int | None, seed: int, regions: bool
) -> dict[Lesson, list[Mutant]]:
    """The mutants of each lesson; with `sample`, so many of them all, drawn with the seed.

    Each mutant has a lot of its own, made from its name: a lesson that changes leaves the others'
    mutants in the sample, or out of it.
    """
    everything = [mutant for lesson in lessons for mutant in mutants_of(lesson, regions)]
    if sample is not None:
        everything = sorted(everything, key=lambda mutant: _lot(mutant, seed))[:sample]
    grouped: dict[Lesson, list[Mutant]] = {}
    for lesson in lessons:
        mine = [mutant for mutant in everything if mutant.lesson == lesson]
        if mine:
            grouped[lesson] = mine
    return grouped


def _lot(mutant: Mutant, seed: int) -> bytes:
    return hashlib.sha256(repr((seed, mutant.name)).encode()).digest()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lessons", nargs="*", help="such as 03/05 (default: all)")
    parser.add_argument("--sample", type=int, help="draw so many mutants (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (default 2)")
    parser.add_argument("--regions", action="store_true", help="only inside practice regions")
    options = parser.parse_args(argv)

    lessons = [find_lesson(name) for name in options.lessons] or all_lessons()
    equal = read_equal()
    mutants = chosen(lessons, options.sample, options.seed, options.regions)
    total = Tally()
    rows = []
    with tempfile.TemporaryDirectory(prefix="course-mutants-") as folder:
        base = Path(folder).resolve()
        runner = "fork" if sys.platform == "linux" else "spawn"
        engine = Engine(base, runner, draw=False, workers=options.jobs)
        try:
            for lesson, mine in mutants.items():
                tally = judge(engine, lesson, mine, set(equal))
                for mutant in tally.survivors:
                    print(f"survives: {mutant}", flush=True)
                print(tally.row(lesson.number), flush=True)
                rows.append(tally.row(lesson.number))
                add(total, tally)
        finally:
            engine.close()
    print("\n" + "\n".join([HEAD, *rows, total.row("all")]))
    if options.sample is None and not options.regions:
        for name in sorted(stale(equal, mutants)):
            print(f"equal_mutants.txt names what is no mutant any more: {' | '.join(name)}")
    return int(bool(total.survivors) or any("does not pass" in row for row in rows))


def add(total: Tally, tally: Tally) -> None:
    for name in ("mutants", "caught", "late", "equal", "seconds", "survivors"):
        setattr(total, name, getattr(total, name) + getattr(tally, name))


def stale(equal: Iterable[tuple], mutants: dict[Lesson, list[Mutant]]) -> set[tuple]:
    """Entries of equal_mutants.txt, for the lessons at hand, that name no mutant."""
    keys = {lesson.key for lesson in mutants}
    names = {mutant.name for mine in mutants.values() for mutant in mine}
    return {name for name in equal if name[0] in keys} - names


if __name__ == "__main__":
    sys.exit(main())
