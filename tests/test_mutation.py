"""The mutation tool is tested on planted lessons; with --all, a sample of all lessons is judged."""

from collections.abc import Callable
from pathlib import Path

import pytest
from engine import Engine
from mutate import Mutant, chosen, judge, likeliest_first, mutants_of, read_equal, stale

from common.lessons import Lesson, all_lessons, find_lesson

SAMPLE, SEED = 60, 8
LESSON = '''"""1.99 Planted: a lesson for testing the mutation tool
变异测试用的课

You will be able to answer
    1. Does it hold?        show_it       middle, bounds
Run       python phase01_data_science/99-planted.py
Needs     -
"""

import numpy as np

from dataclasses import dataclass

from common.checks import check, check_close
from common.config import LessonConfig, main


@dataclass
class Config(LessonConfig):
    pass


{taught}


def show_it(cfg):
    check("middle", "the mean of 1, 2, 6 is {{}}", mean([1, 2, 6]), above=2.9, below=3.1)
    check_close("bounds", "clipped", [clip(x, 1, 3) for x in (0, 2, 9)], [1, 2, 3])


def run(cfg):
    show_it(cfg)
    return {{"one": 1}}


if __name__ == "__main__":
    main(run, Config, __doc__)
'''
TAUGHT = """def mean(numbers):
    # practice: the mean
    total = 0.0
    for number in numbers:
        total += number
    return total / len(numbers)
    # end practice


def clip(x, low, high):
    return min(max(x, low), high)


def nobody_looks(x):
    return x * 2"""


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[str], Lesson]:
    def write(taught: str) -> Lesson:
        path = tmp_path / "phase01_data_science" / "99-planted.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(LESSON.format(taught=taught), encoding="utf-8")
        return Lesson(path)

    return write


ENDLESS = """def mean(numbers):
    while len(numbers) > 1:
        numbers = sorted(numbers)
        numbers.pop()
    return 3


def clip(x, low, high):
    return min(max(x, low), high)"""


def function(body: str) -> str:
    lines = [f"    {line}" for line in body.splitlines()]
    return "\n".join(["def taught(a, b, model):", *lines])


# what is written, and how one of its mutants reads
CHANGED = {
    "an operator": ("return a + b", "return a - b"),
    "a term": ("return a + b", "return a"),
    "a factor": ("return a * b", "return b"),
    "the sides of a difference": ("return a - b", "return b - a"),
    "a comparison": ("return a < b", "return a <= b"),
    "a comparison in a chain": ("return 0 < a < b", "return 0 < a <= b"),
    "membership": ("return a in b", "return a not in b"),
    "a whole number": ("return a[1]", "return a[2]"),
    "a fraction": ("return 0.5 * a", "return 1.0 * a"),
    "a guard against 0": ("return a / (b + 1e-08)", "return a / (b + 0.0)"),
    "a truth value": ("return a.sum(keepdim=True)", "return a.sum(keepdim=False)"),
    "a word": ("return a(reduction='mean')", "return a(reduction='sum')"),
    "a keyword": ("return a.sum(dim=1)", "return a.sum()"),
    "swapped arguments": ("return np.dot(a, b)", "return np.dot(b, a)"),
    "max for min": ("return max(a, b)", "return min(a, b)"),
    "argmin for argmax": ("return a.argmax()", "return a.argmin()"),
    "a dropped abs": ("return abs(a)", "return a"),
    "a dropped np.abs": ("return np.abs(a)", "return a"),
    "a dropped copy": ("return a.copy()", "return a"),
    "a dropped detach": ("return a.detach().clone()", "return a.clone()"),
    "a dropped transpose": ("return a.T @ b", "return a @ b"),
    "a dropped minus": ("return -a", "return a"),
    "a dropped not": ("return not a", "return a"),
    "or for and": ("return a and b", "return a or b"),
    "half a condition": ("return a and b", "return b"),
    "train for eval": ("model.eval()\nreturn a", "model.train()"),
    "a dropped train": ("model.train()\nreturn a", "pass"),
    "a dropped zero_grad": ("model.zero_grad()\nreturn a", "pass"),
    "a dropped assignment": ("a[0] = b\nreturn a", "pass"),
    "a dropped update": ("a = a - b\nreturn a", "pass"),
    "minus for plus in place": ("a += b\nreturn a", "a -= b"),
    "a dropped break": ("for x in a:\n    break\nreturn x", "pass"),
    "a branch that is always taken": ("if a:\n    b = 1\nreturn b", "if True:"),
    "a branch that is not taken": ("if a:\n    b = 1\nreturn b", "if False:"),
    "one side of a ternary": ("return a if b else model", "return model"),
    "the start of a slice": ("return a[1:b]", "return a[:b]"),
    "the step of a slice": ("return a[::2]", "return a[:]"),
    "a filter": ("return [x for x in a if x]", "return [x for x in a]"),
    "a dropped with": ("with model.no_grad():\n    b = 1\nreturn b", "if True:"),
    "a dropped decorator": (
        "@model.no_grad()\ndef inner():\n    return a\nreturn inner",
        "without @model.no_grad()",
    ),
    "a default": ("def inner(x=1):\n    return x\nreturn inner", "def inner(x=2):"),
    "a sum over two lines": ("return (a\n        + b)", "return a - b"),
    "behind an umlaut": ("return 'ä', a + b", "return ('ä', a - b)"),
    "inside a try": ("try:\n    a += b\nfinally:\n    b = a\nreturn b", "a -= b"),
}
LEFT_ALONE = {
    "a docstring": '"""Add 1."""',
    "a message": "print(1 + 1)",
    "an f-string": "return f'{1 + 1}'",
    "a refusal": "raise ValueError(1 + 1)",
    "the test of a refusal": "if a < 1:\n    raise ValueError(a)",
    "an assertion": "assert a < 1",
    "an annotation": "x: tuple[1 + 1]",
    "a name that is bound": "x = a",
    "a decorator of the language": "@property\ndef inner(): return a",
}


@pytest.mark.parametrize("body, new", CHANGED.values(), ids=CHANGED)
def test_a_change_is_made(plant, body: str, new: str) -> None:
    mutants = mutants_of(plant(function(body)))
    texts = [mutant.text() for mutant in mutants if mutant.change.new == new]
    assert texts, [mutant.change.new for mutant in mutants]
    original = LESSON.format(taught=function(body))
    assert texts[0] is not None and texts[0] != original
    # nothing outside the function is touched
    assert texts[0].startswith(original.split("def taught")[0])
    assert texts[0].endswith(original.split("def show_it")[1])


@pytest.mark.parametrize("body", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_no_claim_can_see_is_left_alone(plant, body: str) -> None:
    assert mutants_of(plant(function(body))) == []


@pytest.mark.parametrize(
    "taught",
    [
        "def show_more(cfg):\n    return 1 + 1",
        "def draw_it(cfg):\n    return 1 + 1",
        "def claim_more(a):\n    check('more', 'more', a + 1 == 2)",
        "def load(cfg):\n    return 100 if cfg.tiny else 1000",
        "# Pictures: skip on a first reading\n\n\ndef helper(a):\n    return a + 1",
    ],
)
def test_code_that_does_not_teach_is_left_alone(plant, taught: str) -> None:
    assert mutants_of(plant(taught)) == []


@pytest.mark.parametrize("body", ["return abs(a - b)", "return (a - b) ** 2", "return max(a, b)"])
def test_what_is_the_same_either_way_is_not_swapped(plant, body: str) -> None:
    swapped = body.replace("a - b", "b - a").replace("a, b", "b, a")
    assert swapped not in [mutant.change.new for mutant in mutants_of(plant(function(body)))]


def test_regions_only(plant) -> None:
    mutants = mutants_of(plant(TAUGHT), regions_only=True)
    assert {mutant.where for mutant in mutants} == {"mean"}


def test_names_are_unique_and_steady(plant) -> None:
    """They stand in a file: lines above a function do not change them."""
    taught = "def taught(a):\n    a = a + 1\n    a = a + 1\n    return a"
    names = [mutant.name for mutant in mutants_of(plant(taught))]
    assert len(set(names)) == len(names)
    below = [mutant.name for mutant in mutants_of(plant(f"# a comment\n\n\n{taught}"))]
    assert below == names


def test_planted_lesson(plant, engine: Engine) -> None:
    """Every mutant is caught, but those of the function that no claim looks at."""
    lesson = plant(TAUGHT)
    mutants = mutants_of(lesson)
    tally = judge(engine, lesson, mutants, set())
    survivors = [mutant.name for mutant in tally.survivors]
    unseen = [mutant.name for mutant in mutants if mutant.where == "nobody_looks"]
    assert survivors == unseen, "\n".join(map(str, tally.survivors))
    assert tally.mutants == len(mutants) == tally.caught + len(survivors)

    tally = judge(engine, lesson, mutants[-2:], set(survivors))
    assert (tally.equal, tally.survivors) == (2, [])


def test_an_endless_mutant_is_caught(plant, engine: Engine) -> None:
    """Here the loop without its step."""
    lesson = plant(ENDLESS)
    endless = [mutant for mutant in mutants_of(lesson) if mutant.change.old == "numbers.pop()"]
    tally = judge(engine, lesson, endless[:1], set(), limit=1.0)
    assert (tally.mutants, tally.caught, tally.late) == (1, 1, 1)


def test_a_lesson_that_does_not_pass_is_not_judged(plant, engine: Engine) -> None:
    lesson = plant(TAUGHT.replace("total / len(numbers)", "total"))
    tally = judge(engine, lesson, mutants_of(lesson), set())
    assert tally.mutants == 0 and "does not pass unchanged" in tally.row("01/99")


def test_tests_that_mention_the_changed_function_come_first(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text(
        "def test_b():\n    load()\n\n\ndef helper():\n    pass\n\n\n"
        "@mark\ndef test_a():\n    fit()\n\n\nclass TestC:\n    pass\n",
        encoding="utf-8",
    )
    assert likeliest_first(tests, "Model.fit #2") == [
        "tests/test_some.py::test_a",
        "tests/test_some.py::test_b",
        "tests/test_some.py::TestC",
    ]


def test_a_sample_is_drawn_by_its_seed() -> None:
    lessons = all_lessons()[:4]

    def names(seed: int) -> list[tuple]:
        drawn = chosen(lessons, 10, seed, False)
        return [mutant.name for mutants in drawn.values() for mutant in mutants]

    assert len(names(0)) == 10
    assert names(0) == names(0) != names(1)


ENTRY = "phase01_data_science/99-planted clip\n- return a\n+ return b\n= both are the same here\n"


def test_equal_mutants_are_read(tmp_path: Path) -> None:
    path = tmp_path / "equal.txt"
    path.write_text(f"# a comment\n\n{ENTRY}\n{ENTRY.replace('clip', 'clip #2')}", "utf-8")
    key = "phase01_data_science/99-planted"
    assert set(read_equal(path)) == {
        (key, "clip", "return a", "return b"),
        (key, "clip #2", "return a", "return b"),
    }


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.replace("= both are the same here\n", ""),
        ENTRY.replace("both are the same here", "equal"),
        ENTRY.replace("+ ", "- "),
        ENTRY.replace(" clip", ""),
        ENTRY + ENTRY,
    ],
    ids=["no reason", "a word for a reason", "no new text", "no function", "no empty line"],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "equal.txt"
    path.write_text(f"# a comment\n\n{text}", "utf-8")
    with pytest.raises(ValueError, match=r"equal\.txt:3"):
        read_equal(path)


def test_equal_mutants_are_mutants() -> None:
    """An entry whose lesson has changed is dropped, or judged anew."""
    equal = read_equal()
    lessons = [find_lesson(key) for key in sorted({name[0] for name in equal})]
    assert not stale(equal, {lesson: mutants_of(lesson) for lesson in lessons})


def sample() -> dict[Lesson, list[Mutant]]:
    return chosen(all_lessons(), SAMPLE, SEED, False)


@pytest.mark.full
def test_a_sample_of_mutants_is_caught(engine: Engine) -> None:
    """A survivor shows a claim that is missing; one of the same effect goes to equal_mutants.txt.

    A lesson that fails unchanged is named by the tests of the lessons.
    """
    equal = set(read_equal())
    survivors = []
    for lesson, mutants in sample().items():
        survivors += judge(engine, lesson, mutants, equal).survivors
    assert not survivors, "\n".join(map(str, survivors))
