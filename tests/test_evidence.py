"""Rules on evidence that can be read off a script: claims that can fail, a test set that is kept.

What a run shows (a claim judged twice, a mark without a judge, a test set read twice) is found by
test_lessons_run.py. What no rule here finds: a bound that is merely generous (mutate.py does), a
claim that goes through a helper of the lesson's own, a part of the test set read under another cut.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.config import LessonConfig
from common.data.images import load_images
from common.lessons import ROOT, Lesson, all_lessons
from common.record import Record

LESSONS = {lesson.number: lesson for lesson in all_lessons()}
RESULTS = ROOT / "docs" / "RESULTS.json"
LOWER, UPPER = ("above", "at_least"), ("below", "at_most")
HUGE = 1e9
# calls that leave a value as it is, for a comparison
HARMLESS = {
    *("copy", "clone", "detach", "numpy", "item", "tolist", "double", "float", "cpu"),
    *("array", "asarray", "tensor", "as_tensor", "list", "tuple", "deepcopy"),
}
NEVER_NEGATIVE = {"abs", "len", "norm", "std", "var", "square", "count_nonzero"}
DETOURS = {"vars", "eval", "exec", "globals", "__import__"}
each_lesson = pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)


def parsed(lesson: Lesson) -> ast.Module:
    return ast.parse(lesson.path.read_text(encoding="utf-8"))


def walk(node: ast.AST, *kinds: type) -> list:
    """The nodes of these kinds, anywhere below."""
    return [found for found in ast.walk(node) if isinstance(found, kinds)]


# Claims that cannot fail


def idle_faults(tree: ast.Module) -> list[str]:
    """Claims that hold whatever the lesson computes."""
    found = []
    for call in walk(tree, ast.Call):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in IDLE:
            named = {word.arg: word.value for word in call.keywords if word.arg}
            for fault in IDLE[name](call.args, named):
                found.append(f"line {call.lineno}: {name} cannot fail: {fault}")
    return found


def idle_check(arguments: list, named: dict) -> Iterator[str]:
    value = argument(arguments, named, 2, "value")
    if value is None:
        return
    said = ast.unparse(value)
    if is_constant(value):
        yield f"{said} is a constant"
    if compares_with_itself(value):
        yield f"{said} compares a thing with itself"
    if is_true_anyway(value):
        yield f"{said} is true in any case"

    bounds = {name: named[name] for name in (*LOWER, *UPPER) if name in named}
    for name, bound in bounds.items():
        number = literal(bound)
        if number is not None and abs(number) >= HUGE:
            yield f"{name}={ast.unparse(bound)} is beyond any value"
        if not is_constant(value) and said in [ast.unparse(part) for part in ast.walk(bound)]:
            yield f"{said} is bounded by itself"
    if is_never_negative(value) and not any(name in named for name in UPPER):
        low = [name for name, bound in bounds.items() if allows_all(name, literal(bound))]
        if low:
            yield f"{said} is never negative"


def idle_close(arguments: list, named: dict) -> Iterator[str]:
    ours = argument(arguments, named, 2, "ours")
    reference = argument(arguments, named, 3, "reference")
    if ours is None or reference is None:
        return
    if bare(ours) == bare(reference):
        yield f"{ast.unparse(ours)} is compared with itself"
    if is_constant(ours) and is_constant(reference):
        yield "two constants are compared"
    for name, least in (("rtol", 1), ("atol", HUGE)):
        number = literal(named[name]) if name in named else None
        if number is not None and number >= least:
            yield f"{name}={number:g} lets everything pass"


def idle_depends(arguments: list, named: dict) -> Iterator[str]:
    predicted = argument(arguments, named, 2, "predicted")
    labels = argument(arguments, named, 3, "labels")
    if predicted is not None and labels is not None and bare(predicted) == bare(labels):
        yield f"{ast.unparse(predicted)} is compared with itself"


def idle_timed(arguments: list, named: dict) -> Iterator[str]:
    slow = argument(arguments, named, 2, "slow")
    fast = argument(arguments, named, 3, "fast")
    if slow is not None and fast is not None and ast.unparse(slow) == ast.unparse(fast):
        yield f"{ast.unparse(slow)} is timed against itself"
    least = literal(named["at_least"]) if "at_least" in named else None
    if least is not None and least < 0.5:
        yield f"at_least={least:g} allows twice as slow"


def idle_overfits(arguments: list, named: dict) -> Iterator[str]:
    below = literal(named["below"]) if "below" in named else None
    if below is not None and below > 0.5:
        yield f"a loss under {below:g} is not learnt by heart"


def idle_leak(arguments: list, named: dict) -> Iterator[str]:
    parts = arguments[2:]
    if len(parts) < 2 and not any(isinstance(part, ast.Starred) for part in parts):
        yield "one part alone shares nothing"


IDLE = {
    "check": idle_check,
    "expect": idle_check,
    "check_close": idle_close,
    "depends_on_input": idle_depends,
    "timed": idle_timed,
    "overfits": idle_overfits,
    "no_leak": idle_leak,
}


def argument(arguments: list, named: dict, position: int, name: str) -> ast.expr | None:
    """An argument given by position or by name; None behind a *list, where nobody knows."""
    if any(isinstance(each, ast.Starred) for each in arguments[: position + 1]):
        return None
    return arguments[position] if len(arguments) > position else named.get(name)


def is_constant(node: ast.expr) -> bool:
    return not walk(node, ast.Name, ast.Call, ast.Attribute)


def is_true_anyway(node: ast.expr) -> bool:
    """… or True"""
    if not isinstance(node, ast.BoolOp) or isinstance(node.op, ast.And):
        return False
    return any(isinstance(part, ast.Constant) and part.value for part in node.values)


def compares_with_itself(node: ast.expr) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    allows_equal = isinstance(node.ops[0], (ast.Eq, ast.LtE, ast.GtE, ast.Is))
    return allows_equal and bare(node.left) == bare(node.comparators[0])


def bare(node: ast.expr) -> str:
    """The expression without copies and conversions around it."""
    while isinstance(node, ast.Call):
        is_method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if is_method else getattr(node.func, "id", "")
        if name not in HARMLESS:
            break
        if len(node.args) == 1:
            node = node.args[0]
        elif is_method and not node.args:
            node = node.func.value
        else:
            break
    return ast.unparse(node)


def literal(node: ast.expr) -> float | None:
    """The number that stands there, also -1 and math.inf; None for an expression."""
    if ast.unparse(node).lstrip("-") in ("math.inf", "np.inf", "torch.inf", "float('inf')"):
        return float("inf")
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, (int, float)) else None


def is_never_negative(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return literal(node.right) == 2
    while isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in NEVER_NEGATIVE:
            return True
        # x.abs().max().item()
        if not isinstance(node.func, ast.Attribute) or name not in {"max", "min", "mean", "item"}:
            return False
        node = node.func.value
    return False


def allows_all(name: str, bound: float | None) -> bool:
    return bound is not None and (bound < 0 or (bound == 0 and name == "at_least"))


# The test set


def reading_faults(tree: ast.Module) -> list[str]:
    """It is read by `test()`, and what is read is neither trained nor chosen on."""
    found = []
    for node in walk(tree, ast.Attribute):
        if node.attr in ("_test", "_reads", "test_reads"):
            found.append(f"line {node.lineno}: {ast.unparse(node)} goes round the count of reads")
    for node in walk(tree, ast.Assign):
        if reads_test(node.value):
            names = [name.id for name in walk(node.targets[0], ast.Name)]
            found += [
                f"line {node.lineno}: {name} is the test set"
                for name in names
                if re.search("val|train", name)
            ]
    for node in walk(tree, ast.keyword):
        if reads_test(node.value) and re.search("val|train", node.arg or ""):
            found.append(f"line {node.lineno}: {node.arg} is the test set")
    return found


def reads_test(node: ast.expr) -> bool:
    """Calls something.test(); a loop over all three parts is none of our business."""
    if walk(node, ast.ListComp, ast.GeneratorExp):
        return False
    calls = walk(node, ast.Call)
    return any(isinstance(call.func, ast.Attribute) and call.func.attr == "test" for call in calls)


# Hollow lessons


def hollow_faults(tree: ast.Module, doc: str) -> list[str]:
    """What the line “Reference” names is built in taught code, not called there in disguise."""
    line = re.search(r"^Reference +(.+)", doc, re.MULTILINE)
    names = [] if line is None else [name.strip() for name in line[1].split(",")]
    aliases = imported_names(tree)
    references = {
        full_name(ast.parse(name).body[0].value, aliases) for name in names if name != "-"
    }
    found = []
    for part in tree.body:
        if isinstance(part, (ast.Import, ast.ImportFrom)) or is_evidence(part):
            continue
        for node in walk(part, ast.Attribute, ast.Name, ast.Call):
            used = full_name(node, aliases)
            if used is not None and any(is_part_of(used, each) for each in references):
                found.append(f"line {node.lineno} uses {used}, which this lesson is to build")
            found += detour_faults(node, aliases, bool(references))
        if getattr(part, "name", "") != "run":
            found += [
                f"line {node.lineno}: taught code uses {node.id}, which is evidence"
                for node in walk(part, ast.Name)
                if node.id.startswith(("show_", "draw_"))
            ]
    return found


def is_evidence(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith(("show_", "draw_"))


def imported_names(tree: ast.Module) -> dict[str, str]:
    """{name in the file: full name}, of the imports inside functions too."""
    found = {}
    for node in walk(tree, ast.Import):
        for alias in node.names:
            # import torch.nn.functional binds torch
            name = alias.asname or alias.name.split(".")[0]
            found[name] = alias.name if alias.asname else name
    for node in walk(tree, ast.ImportFrom):
        for alias in node.names:
            found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def full_name(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """F.relu, torch.nn.functional.relu and getattr(F, "relu") are one name; None: no name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = full_name(node.value, aliases)
        return f"{owner or '?'}.{node.attr}"
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) > 1:
        owner = full_name(node.args[0], aliases)
        if owner and isinstance(node.args[1], ast.Constant):
            return f"{owner}.{node.args[1].value}"
    return None


def is_part_of(used: str, reference: str) -> bool:
    """torch.optim covers torch.optim.SGD; a name without a dot is meant wherever it comes from."""
    if "." not in reference:
        return used.split(".")[-1] == reference
    return f"{used}.".startswith(f"{reference}.")


def detour_faults(node: ast.expr, aliases: dict[str, str], has_reference: bool) -> list[str]:
    """Ways to a name that no reader of names follows."""
    if not has_reference or not isinstance(node, ast.Call):
        return []
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    is_builtin = isinstance(node.func, ast.Name) and name in DETOURS
    if is_builtin or name == "import_module":
        return [f"line {node.lineno}: {name}() hides what is used"]
    if name == "getattr" and len(node.args) > 1 and not isinstance(node.args[1], ast.Constant):
        owner = ast.unparse(node.args[0]).split(".")[0]
        if owner in aliases:
            return [f"line {node.lineno}: {ast.unparse(node)} hides what is used"]
    return []


# Claims that were there


def lost_claims(lesson: Lesson, results: dict) -> list[str]:
    """Claims that `course verify` judged last time and the docstring no longer declares."""
    declared = {claim for question in lesson.questions for claim in question.claims}
    entry = results["lessons"].get(lesson.key, {})
    return sorted(set(entry.get("claims", {})) - declared)


def faults(lesson: Lesson) -> list[str]:
    tree = parsed(lesson)
    return idle_faults(tree) + reading_faults(tree) + hollow_faults(tree, lesson.doc)


@each_lesson
def test_evidence_can_fail(lesson: Lesson) -> None:
    found = faults(lesson)
    assert not found, "\n".join(found)


@each_lesson
def test_no_claim_is_lost(lesson: Lesson) -> None:
    """A claim deleted from docstring and code alike shows here, and in the diff of RESULTS.json."""
    lost = lost_claims(lesson, json.loads(RESULTS.read_text(encoding="utf-8")))
    assert not lost, f"if that is meant: course verify {lesson.number}"


GOOD = '''"""1.2 Title

You will be able to answer
    1. What?       show_it       one, two
Run       python phase01_data_science/02-good.py    about 1 s
Needs     -
Reference F.relu, nn.Conv2d, torch.optim, logsumexp
"""
import torch
import torch.nn.functional as F
from torch import nn


def taught(x):
    return x.clip(0)


def show_it(cfg):
    x, y = data.test()
    check("one", "one is {}", taught(x), above=-1, below=1)
    check("two", "two", bool(x == y))
    check_close("three", "three", taught(x), F.relu(x))
    depends_on_input("four", "four", model(x), y)
    timed("five", "five", lambda: f(x), lambda: g(x), at_least=1)
    overfits("six", "six", model, (x, y), loss, optimizer, below=0.1)
    no_leak("seven", "seven", x_train, x)


def run(cfg):
    show_it(cfg)
'''
BROKEN = {  # what stands there instead, and a word of the fault
    "True": ("bool(x == y)", "True", "a constant"),
    "one is one": ("bool(x == y)", "1 == 1", "a constant"),
    "x is x": ("bool(x == y)", "x == x", "with itself"),
    "x is its copy": ("bool(x == y)", "x == x.copy()", "with itself"),
    "or True": ("bool(x == y)", "x == y or True", "in any case"),
    "a constant within bounds": ("taught(x), above", "0.5, above", "a constant"),
    "no bound at all": ("above=-1, below=1", "above=-1e9", "beyond any value"),
    "infinity": ("above=-1, below=1", "below=math.inf", "beyond any value"),
    "minus infinity": ("above=-1, below=1", "above=-float('inf')", "beyond any value"),
    "bounded by itself": ("below=1", "below=taught(x) + 1", "bounded by itself"),
    "a size of 0 or more": ("taught(x), above=-1, below=1", "len(x), at_least=0", "negative"),
    "a square over -1": ("taught(x), above=-1, below=1", "x**2, above=-1", "negative"),
    "a largest abs": ("taught(x), above=-1, below=1", "x.abs().max(), at_least=0", "negative"),
    "close to itself": ("taught(x), F.relu(x)", "x, x", "with itself"),
    "close to its copy": ("taught(x), F.relu(x)", "x, np.array(x.clone())", "with itself"),
    "constants": ("taught(x), F.relu(x)", "[1], [2]", "constants"),
    "any relative error": ("F.relu(x))", "F.relu(x), rtol=1.0)", "everything pass"),
    "any error": ("F.relu(x))", "F.relu(x), atol=np.inf)", "everything pass"),
    "labels for answers": ("model(x), y", "y, y", "with itself"),
    "labels' copy for answers": ("model(x), y", "y.clone(), labels=y", "with itself"),
    "timed against itself": ("lambda: g(x)", "lambda: f(x)", "against itself"),
    "a slow one is fine": ("at_least=1", "at_least=0.1", "twice as slow"),
    "hardly learnt": ("below=0.1", "below=5", "by heart"),
    "one part": ("x_train, x)", "x_train)", "one part"),
    "the hidden test set": ("data.test()", "data._test", "round the count"),
    "the count put back": ("x, y = ", "data._reads = 0\n    x, y = ", "round the count"),
    "the record put back": ("x, y = ", "current().test_reads = 0\n    x, y = ", "round the count"),
    "validation is the test": ("x, y = data", "x_val, y_val = data", "x_val is the test set"),
    "trained on the test": ("x, y = data", "x_train, y = data", "x_train is the test set"),
    "validated on the test": ("model(x), y", "fit(val=data.test()), y", "val is the test set"),
    "hollow": ("x.clip(0)", "F.relu(x)", "is to build"),
    "hollow, the long way": ("x.clip(0)", "torch.nn.functional.relu(x)", "is to build"),
    "hollow, by nn": ("x.clip(0)", "nn.functional.relu(x)", "is to build"),
    "hollow, another alias": (
        "return x.clip(0)",
        "import torch.nn.functional as G\n    return G.relu(x)",
        "is to build",
    ),
    "hollow, a name alone": (
        "return x.clip(0)",
        "from torch.nn.functional import relu as r\n    return r(x)",
        "is to build",
    ),
    "hollow, by getattr": ("x.clip(0)", "getattr(F, 'relu')(x)", "is to build"),
    "hollow, by a built name": ("x.clip(0)", "getattr(F, 're' + 'lu')(x)", "hides what is used"),
    "hollow, by vars": ("x.clip(0)", "vars(F)['relu'](x)", "hides what is used"),
    "hollow, by import": (
        "x.clip(0)",
        "importlib.import_module('torch.nn').Conv2d",
        "hides what is used",
    ),
    "hollow, a module's": ("x.clip(0)", "torch.optim.SGD(x)", "is to build"),
    "hollow, a method": ("x.clip(0)", "x.logsumexp(0)", "is to build"),
    "hollow, by evidence": ("x.clip(0)", "show_relu(x)", "is evidence"),
}


@pytest.mark.parametrize("old, new, word", BROKEN.values(), ids=BROKEN)
def test_a_hole_is_noticed(tmp_path: Path, old: str, new: str, word: str) -> None:
    path = tmp_path / "phase01_data_science" / "02-good.py"
    path.parent.mkdir()
    path.write_text(GOOD, encoding="utf-8")
    assert faults(Lesson(path)) == []
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    found = faults(Lesson(path))
    assert any(word in fault for fault in found), found


def test_a_lost_claim_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "phase01_data_science" / "02-good.py"
    path.parent.mkdir()
    path.write_text(GOOD, encoding="utf-8")
    claims = {"one": {}, "two": {}, "three": {}}
    results = {"lessons": {"phase01_data_science/02-good": {"claims": claims}}}
    assert lost_claims(Lesson(path), results) == ["three"]
    assert lost_claims(Lesson(path), {"lessons": {}}) == []


@dataclass
class Config(LessonConfig):
    data: str = "digits"


def test_a_test_set_that_is_loaded_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known by its bytes, so a second load is a second read; another split is another set."""
    cfg = Config(tiny=True)
    log = Record(tiny=True)
    monkeypatch.setattr("common.record._current", log)
    load_images(cfg).test()
    load_images(cfg, split_seed=1).test()
    assert log.test_reads == 1
    load_images(cfg).test()
    assert log.test_reads == 2
