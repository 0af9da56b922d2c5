"""Notes: one for every script, in English and Chinese, that say the same, and nothing that is not so."""

import ast
import builtins
import functools
import json
import re
from pathlib import Path

import pytest

from common.lessons import ROOT, Lesson, all_lessons

DOCS = ROOT / "docs"
LENGTH = {
    "md": (500, 1200),
    "zh.md": (800, 2000),
}  # English words, Chinese characters; code does not count
EXERCISES = {"md": "Exercises", "zh.md": "练习"}
SHARED = {"md": 12, "zh.md": 24}  # words, characters that no two notes may have in a row
QUOTE = re.compile(r"<!-- result:([\w/.@-]+):([\w.-]+) -->(.*?)<!-- /result -->", re.DOTALL)


def path_of(lesson: Lesson, ending: str) -> Path:
    return DOCS / f"{lesson.key}.{ending}"


@functools.cache
def read(lesson: Lesson, ending: str) -> str:
    return path_of(lesson, ending).read_text(encoding="utf-8")


LESSONS = {lesson.number: lesson for lesson in all_lessons()}
NOTES = {
    f"{number}.{ending}": (lesson, ending)
    for number, lesson in LESSONS.items()
    for ending in LENGTH
    if path_of(lesson, ending).exists()
}
PAIRS = {
    number: lesson
    for number, lesson in LESSONS.items()
    if all(f"{number}.{ending}" in NOTES for ending in LENGTH)
}
each_note = pytest.mark.parametrize("lesson, ending", NOTES.values(), ids=NOTES)


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def sections(text: str) -> list[str]:
    return re.findall(r"^## +(.+?)\s*$", without_code(text), re.MULTILINE)


def formulas(text: str) -> list[str]:
    """Sorted, for the two languages may need another order; words inside \\text{} may be translated."""
    found = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", without_code(text), re.DOTALL)
    return sorted(
        re.sub(r"\\(text|mathrm)\{[^}]*\}", r"\\text{}", "".join(pair)).strip() for pair in found
    )


def links(text: str, pictures: bool) -> list[str]:
    """Targets of pictures or of other links; x.zh.md and x.md count as the same."""
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", without_code(text))
    return sorted(
        target.replace(".zh.md", ".md") for mark, target in found if (mark == "!") == pictures
    )


def exercises(text: str, heading: str) -> tuple[int, int]:
    """How many numbered exercises there are, and how many folded answers."""
    part = re.search(rf"^## +{heading}\s*$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    asked = re.findall(r"^\d+\. ", part[1], re.MULTILINE) if part else []
    return len(asked), len(re.findall("<details>.*?</details>", part[1], re.DOTALL)) if part else 0


def prose(text: str) -> str:
    """Without code, formulas, comments, tags and the targets of links."""
    text = re.sub(
        r"<!--.*?-->|\$\$.*?\$\$|\$[^$\n]+\$|</?\w[^>]*>", " ", without_code(text), flags=re.DOTALL
    )
    return re.sub(r"\]\([^)]*\)", "]", text)


def units(text: str, ending: str) -> list[str]:
    """Words of an English note, characters of a Chinese one."""
    return (
        re.findall(r"[a-z0-9'’-]*[a-z][a-z0-9'’-]*", prose(text).lower())
        if ending == "md"
        else re.findall(r"[\u4e00-\u9fff]", prose(text))
    )


def identifiers(lesson: Lesson) -> set[str]:
    """Every name that the script defines, imports or uses."""
    found = set(dir(builtins))
    for node in ast.walk(ast.parse(lesson.path.read_text(encoding="utf-8"))):
        found |= {getattr(node, field, None) for field in ("id", "attr", "name", "asname", "arg")}
    return found


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_every_script_has_a_note_in_both_languages(lesson: Lesson) -> None:
    missing = [
        path_of(lesson, ending).name
        for ending in LENGTH
        if f"{lesson.number}.{ending}" not in NOTES
    ]
    assert not missing, f"docs/{lesson.phase} has no {missing}"


def test_every_note_has_a_script() -> None:
    named = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("phase*/*.md")}
    assert named == {
        path_of(lesson, ending).relative_to(DOCS).as_posix() for lesson, ending in NOTES.values()
    }


@pytest.mark.parametrize("lesson", PAIRS.values(), ids=PAIRS)
def test_both_languages_say_the_same(lesson: Lesson) -> None:
    english, chinese = read(lesson, "md"), read(lesson, "zh.md")
    assert len(sections(english)) == len(sections(chinese)), (
        f"{sections(english)} and {sections(chinese)}"
    )
    assert formulas(english) == formulas(chinese)
    assert links(english, pictures=True) == links(chinese, pictures=True)
    assert links(english, pictures=False) == links(chinese, pictures=False)
    assert [quote[:2] for quote in QUOTE.findall(english)] == [
        quote[:2] for quote in QUOTE.findall(chinese)
    ]
    assert exercises(english, EXERCISES["md"]) == exercises(chinese, EXERCISES["zh.md"])


@each_note
def test_exercises_have_folded_answers(lesson: Lesson, ending: str) -> None:
    asked, answered = exercises(read(lesson, ending), EXERCISES[ending])
    assert asked >= 3, (
        f"{asked} numbered exercises under “## {EXERCISES[ending]}”, three or more are wanted"
    )
    assert answered >= asked, (
        f"{asked} exercises and {answered} folded answers (<details> … </details>)"
    )


@each_note
def test_length(lesson: Lesson, ending: str) -> None:
    low, high = LENGTH[ending]
    assert low <= len(units(read(lesson, ending), ending)) <= high


@each_note
def test_functions_exist(lesson: Lesson, ending: str) -> None:
    named = set(re.findall(r"`([\w.]+)\(\)`", read(lesson, ending)))
    unknown = {name for name in named if name.split(".")[-1] not in identifiers(lesson)}
    assert not unknown, f"not to be found in {lesson.path.name}: {unknown}"
    assert named, "the note names no function of the script"


@each_note
def test_links_lead_somewhere(lesson: Lesson, ending: str) -> None:
    text, folder = read(lesson, ending), path_of(lesson, ending).parent
    targets = re.findall(r"\[[^\]]*\]\(([^)\s#]+)", without_code(text))
    missing = [
        target for target in targets if "://" not in target and not (folder / target).exists()
    ]
    assert not missing, f"links to files that are not there: {missing}"


@each_note
def test_quoted_results_are_those_measured(lesson: Lesson, ending: str) -> None:
    quotes = QUOTE.findall(read(lesson, ending))
    assert len(quotes) >= 2, f"{len(quotes)} results are quoted by key, two or more are wanted"
    assert (DOCS / "RESULTS.json").exists(), (
        "docs/RESULTS.json is missing: `course verify` writes it"
    )
    results = json.loads((DOCS / "RESULTS.json").read_text(encoding="utf-8"))["lessons"]
    for key, metric, shown in quotes:
        assert metric in results.get(key, {}).get("metrics", {}), (
            f"docs/RESULTS.json has no {key}:{metric}"
        )
        mean = results[key]["metrics"][metric]["mean"]
        assert re.fullmatch(r"-?[\d.e+-]+", shown) and float(shown) == pytest.approx(
            mean, rel=5.1e-4
        ), (
            f"{key}:{metric} is {mean:.4g}, the note says {shown}: `course sync` brings it up to date"
        )


@pytest.mark.parametrize("ending", LENGTH)
def test_no_two_notes_share_a_sentence(ending: str) -> None:
    """Line by line, below the head: the line that names the script is the same everywhere."""
    size, owner = SHARED[ending], {}
    for lesson in (lesson for lesson, language in NOTES.values() if language == ending):
        for line in without_code(read(lesson, ending)).partition("\n## ")[2].splitlines():
            words = units(line, ending)
            for start in range(len(words) - size + 1):
                run = tuple(words[start : start + size])
                first = owner.setdefault(run, lesson.number)
                assert first == lesson.number, (
                    f"{first} and {lesson.number} both say “{' '.join(run)}”"
                )


ENGLISH = """# 1.1 Title

Script: [01-numpy-basics.py](../../phase01_data_science/01-numpy-basics.py)

## Why

![a picture](figures/a.png) Since $x^2$ is `windows()`, see [Nature](https://doi.org/1). WORDS

$$y = \\text{start} + 1$$

## Exercises

1. One?

<details><summary>Answer</summary>1</details>

2. Two?

<details><summary>Answer</summary>2</details>

3. Three? It is <!-- result:phase01_data_science/01-numpy-basics:speedup -->50.12<!-- /result --> times, and
<!-- result:phase01_data_science/01-numpy-basics:speedup -->50.1234<!-- /result -->.

<details><summary>Answer</summary>3</details>
"""
CHINESE = (
    ENGLISH.replace("Exercises", "练习")
    .replace("WORDS", "字" * 900)
    .replace("start", "起点")
    .replace("Why", "为什么")
    .replace("Answer", "答案")
)
BROKEN = {  # what stands there instead, which note, which test notices
    "a section more": (
        "## 练习",
        "## 更多\n\n## 练习",
        "zh.md",
        "test_both_languages_say_the_same",
    ),
    "another formula": ("x^2", "x^3", "zh.md", "test_both_languages_say_the_same"),
    "a picture less": (
        "![a picture](figures/a.png)",
        "",
        "zh.md",
        "test_both_languages_say_the_same",
    ),
    "another source": (
        "https://doi.org/1",
        "https://doi.org/2",
        "zh.md",
        "test_both_languages_say_the_same",
    ),
    "an exercise less": ("3. Three?", "Three?", "md", "test_both_languages_say_the_same"),
    "two exercises": ("3. Three?", "Three?", "md", "test_exercises_have_folded_answers"),
    "no answer": (
        "<details><summary>Answer</summary>2</details>",
        "2",
        "md",
        "test_exercises_have_folded_answers",
    ),
    "too short": ("word " * 700, "word " * 400, "md", "test_length"),
    "too short in Chinese": ("字" * 900, "字" * 700, "zh.md", "test_length"),
    "a function that is not there": ("`windows()`", "`window()`", "md", "test_functions_exist"),
    "a picture that is not there": (
        "figures/a.png",
        "figures/b.png",
        "md",
        "test_links_lead_somewhere",
    ),
    "an old result": ("50.1234", "50.23", "md", "test_quoted_results_are_those_measured"),
    "a result never filled in": ("50.1234", "–", "md", "test_quoted_results_are_those_measured"),
    "an unknown result": (
        ":speedup -->50.1234",
        ":speed -->50.1234",
        "md",
        "test_quoted_results_are_those_measured",
    ),
}


@pytest.mark.parametrize("old, new, ending, name", BROKEN.values(), ids=BROKEN)
def test_a_broken_note_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, ending: str, name: str
) -> None:
    lesson, test = LESSONS["01/01"], globals()[name]
    notes = {"md": ENGLISH.replace("WORDS", "word " * 700), "zh.md": CHINESE}
    folder = tmp_path / "docs" / lesson.phase
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "a.png").touch()
    (tmp_path / lesson.phase).mkdir()
    (tmp_path / lesson.phase / lesson.path.name).touch()
    (tmp_path / "docs" / "RESULTS.json").write_text(
        json.dumps({"lessons": {lesson.key: {"metrics": {"speedup": {"mean": 50.1234}}}}})
    )
    monkeypatch.setattr(f"{__name__}.DOCS", tmp_path / "docs")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)

    def judge() -> None:
        read.cache_clear()
        test(lesson, *([] if name == "test_both_languages_say_the_same" else [ending]))

    for each, text in notes.items():
        path_of(lesson, each).write_text(text, encoding="utf-8")
    judge()
    assert old in notes[ending]
    path_of(lesson, ending).write_text(notes[ending].replace(old, new), encoding="utf-8")
    with pytest.raises(AssertionError):
        judge()
    read.cache_clear()
