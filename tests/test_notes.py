"""Notes: one for every script, in English and Chinese, that say the same, and what is so."""

import ast
import builtins
import functools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from numerals import numerals, spelled
from rendering import FORMULA, paragraphs, rendering_faults

from common.course import curriculum, excerpts
from common.lessons import ROOT, Lesson, all_lessons

DOCS = ROOT / "docs"
LENGTH = {  # English words, Chinese characters; code does not count
    "md": (500, 1300),
    "zh.md": (800, 2200),
}
PRACTICE = {"md": "Practice", "zh.md": "动手写"}
EXERCISES = {"md": "Exercises", "zh.md": "练习"}
INTERVIEW = {"md": "Interview questions", "zh.md": "面试题"}
READING = {"md": "Read further", "zh.md": "延伸阅读"}  # a Chinese note may name a book more
SUMMARY = {"md": "Hints", "zh.md": "提示"}
SHARED = {"md": 12, "zh.md": 24}  # words, characters that no two notes may have in a row
QUOTE = re.compile(r"<!-- result:([\w/.@-]+):([\w.-]+) -->(.*?)<!-- /result -->", re.DOTALL)
MAY_DIFFER = re.compile(r"<!-- numbers may differ: (.+?) -->")


def path_of(lesson: Lesson, ending: str) -> Path:
    return DOCS / f"{lesson.key}.{ending}"


@functools.cache
def read(lesson: Lesson, ending: str) -> str:
    return path_of(lesson, ending).read_text(encoding="utf-8")


LESSONS = {lesson.number: lesson for lesson in all_lessons()}
NAMED = {e.lesson.key for e in curriculum.load().entries if e.kind == "named"}
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
each_pair = pytest.mark.parametrize("lesson", PAIRS.values(), ids=PAIRS)


def without_code(text: str) -> str:
    """Without fences, formulas and code in a line."""
    text = FORMULA.sub("", text)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def sections(text: str) -> list[str]:
    return re.findall(r"^## +(.+?)\s*$", without_code(text), re.MULTILINE)


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level; empty if there is none."""
    part = re.search(rf"^## +{heading}\s*$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return part[1] if part else ""


def formulas(text: str) -> list[str]:
    r"""Sorted, for the two languages may need another order; words in \text{} may be translated."""
    found = ["".join(pair).strip() for pair in FORMULA.findall(text)]
    return sorted(re.sub(r"\\(text|mathrm)\{[^}]*\}", r"\\text{}", formula) for formula in found)


def links(text: str, pictures: bool) -> list[str]:
    """Targets of pictures or of other links; x.zh.md and x.md count as the same."""
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", without_code(text))
    return sorted(
        target.replace(".zh.md", ".md") for mark, target in found if (mark == "!") == pictures
    )


def exercises(text: str, heading: str) -> tuple[int, int]:
    """How many numbered exercises stand under a heading, and how many folded answers."""
    part = section(text, heading)
    asked = re.findall(
        r"^\d+\. ", re.sub("<details>.*?</details>", "", part, flags=re.DOTALL), re.M
    )
    return len(asked), len(re.findall("<details>.*?</details>", part, re.DOTALL))


def hints(text: str, ending: str) -> list[tuple[str, int]]:
    """(number and title of the region, how many hints it has) of the practice section."""
    blocks = re.split(r"^### +", section(text, PRACTICE[ending]), flags=re.MULTILINE)[1:]
    found = []
    for block in blocks:
        title, _, rest = block.partition("\n")
        opening = rf"<summary>{SUMMARY[ending]}</summary>"
        folded = re.search(rf"<details>\s*{opening}(.*?)</details>", rest, re.DOTALL)
        count = len(re.findall(r"^\d+\. ", folded[1], re.MULTILINE)) if folded else 0
        found.append((title.strip(), count))
    return found


def regions(lesson: Lesson) -> list[str]:
    """The titles of the script's practice regions."""
    text = lesson.path.read_text(encoding="utf-8")
    return re.findall(r"^ *# practice: (.+?) *$", text, re.MULTILINE)


def excerpt_names(text: str) -> list[str]:
    return re.findall(r"<!-- code:(\S+) -->", text)


def prose(text: str) -> str:
    """Without code, formulas, comments, tags and the targets of links."""
    text = re.sub(r"<!--.*?-->|</?\w[^>]*>", " ", without_code(text), flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def units(text: str, ending: str) -> list[str]:
    """Words of an English note, characters of a Chinese one."""
    if ending == "md":
        return re.findall(r"[a-z0-9'’-]*[a-z][a-z0-9'’-]*", prose(text).lower())
    return re.findall(r"[\u4e00-\u9fff]", prose(text))


def identifiers(lesson: Lesson) -> set[str]:
    """Every name that the script defines, imports or uses."""
    found = set(dir(builtins))
    for node in ast.walk(ast.parse(lesson.path.read_text(encoding="utf-8"))):
        found |= {getattr(node, field, None) for field in ("id", "attr", "name", "asname", "arg")}
    return found


def unmatched_numbers(english: str, chinese: str) -> list[str]:
    """Numbers that one language has in digits and the other has in no form.

    A language may spell a number out, so it counts there too: twelve is 12 is 十二. Quoted results
    are compared apart; a book that only the Chinese note names stands in the last section.
    """
    texts = []
    for text, ending in ((english, "md"), (chinese, "zh.md")):
        read_on = section(text, READING[ending])
        texts.append(prose(QUOTE.sub(" ", text.replace(read_on, "") if read_on else text)))
    allowed = Counter()
    for listed in MAY_DIFFER.findall(english + chinese):
        allowed.update(dict.fromkeys(numerals(listed), 99))

    found = []
    for here, there, name in ((*texts, "English"), (*reversed(texts), "Chinese")):
        others = Counter(numerals(there) + spelled(there)) + allowed
        # A small number may be said again in one language where the other says "it".
        others.update(dict.fromkeys([number for number in others if len(number) == 1], 99))
        missing = Counter(numerals(here)) - others
        found += [f"{number} stands in the {name} note only" for number in sorted(missing)]
    return found


def paragraphs_by_section(text: str, ending: str) -> list[int]:
    """How many paragraphs each section has, the last one (what to read) apart."""
    text = re.sub(r"<!-- /?(?:code|numbers).*?-->\n", "", text)
    parts = re.split(r"^## +", text, flags=re.MULTILINE)
    return [paragraphs(part) for part in parts if not part.startswith(READING[ending])]


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


@each_pair
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
    for parts in (EXERCISES, INTERVIEW):
        assert exercises(english, parts["md"]) == exercises(chinese, parts["zh.md"])
    assert [count for _, count in hints(english, "md")] == [
        count for _, count in hints(chinese, "zh.md")
    ], "another number of hints"
    assert excerpt_names(english) == excerpt_names(chinese)


@each_pair
def test_no_paragraph_and_no_number_is_lost(lesson: Lesson) -> None:
    english, chinese = read(lesson, "md"), read(lesson, "zh.md")
    unmatched = unmatched_numbers(english, chinese)
    assert not unmatched, (
        f"{unmatched}; where that is meant: <!-- numbers may differ: 12, 1991 --> in either note"
    )
    counts = [
        paragraphs_by_section(text, ending)
        for text, ending in ((english, "md"), (chinese, "zh.md"))
    ]
    assert counts[0] == counts[1], (
        f"paragraphs by section: {counts[0]} in English, {counts[1]} in Chinese"
    )


@each_note
def test_title_is_that_of_the_script(lesson: Lesson, ending: str) -> None:
    number = lesson.doc.split(lesson.title)[0].strip()
    if ending == "md":
        wanted = f"# {number} {lesson.title}"
    else:
        wanted = f"# {number.replace('Project', '项目')} {lesson.title_zh}"
    assert read(lesson, ending).split("\n")[0] == wanted


@each_note
def test_note_is_shown_as_it_is_meant(lesson: Lesson, ending: str) -> None:
    found = rendering_faults(read(lesson, ending))
    assert not found, "\n".join(found[:12])


@each_note
def test_every_region_has_its_hints(lesson: Lesson, ending: str) -> None:
    titles = regions(lesson)
    found = hints(read(lesson, ending), ending)
    wanted = [f"{number}. {title}" for number, title in enumerate(titles, 1)]
    if ending == "md":
        assert [title for title, _ in found] == wanted, f"under “## {PRACTICE[ending]}”"
    else:
        assert [title.split(" ")[0] for title, _ in found] == [
            each.split(" ")[0] for each in wanted
        ]
        assert all(re.search(r"[\u4e00-\u9fff]", title) for title, _ in found)
    for title, count in found:
        assert 1 <= count <= 3, (
            f"“{title}” has {count} hints in <details> with <summary>{SUMMARY[ending]}</summary>, "
            "wanted one to three"
        )
    if titles:
        names = sections(read(lesson, ending))
        assert names.index(PRACTICE[ending]) == names.index(EXERCISES[ending]) - 1, (
            "the practice section belongs in front of the exercises"
        )


@each_note
def test_excerpts_are_the_code(lesson: Lesson, ending: str) -> None:
    text = read(lesson, ending)
    script = lesson.path.read_text(encoding="utf-8")
    filled, faults = excerpts.fill(text, script)
    assert not faults, f"{path_of(lesson, ending).name}: {faults}"
    names = excerpt_names(text)
    assert 2 <= len(names) <= 3, f"excerpts: {names or 'none'}, wanted two or three"
    assert filled == text, "`course sync` brings the excerpts up to date"


@each_note
def test_pictures_are_those_of_the_lesson(lesson: Lesson, ending: str) -> None:
    pictures = links(read(lesson, ending), pictures=True)
    assert pictures, "a note without a picture"
    other = [target for target in pictures if not target.startswith(f"figures/{lesson.path.stem}-")]
    assert not other, f"pictures of another lesson: {other}"


@each_note
def test_exercises_have_folded_answers(lesson: Lesson, ending: str) -> None:
    asked, answered = exercises(read(lesson, ending), EXERCISES[ending])
    assert asked >= 3, (
        f"{asked} numbered exercises under “## {EXERCISES[ending]}”, three or more are wanted"
    )
    assert answered == asked, (
        f"{asked} exercises and {answered} folded answers (<details> … </details>)"
    )


@each_note
def test_core_lessons_have_interview_questions(lesson: Lesson, ending: str) -> None:
    asked, answered = exercises(read(lesson, ending), INTERVIEW[ending])
    assert answered == asked
    assert asked >= 2 or lesson.key not in NAMED, (
        f"{asked} questions under “## {INTERVIEW[ending]}”, two are wanted"
    )


@each_note
def test_length(lesson: Lesson, ending: str) -> None:
    low, high = LENGTH[ending]
    length = len(units(read(lesson, ending), ending))
    assert low <= length <= high, f"{length}, wanted {low} to {high}"


@each_note
def test_functions_exist(lesson: Lesson, ending: str) -> None:
    named = set(re.findall(r"`([\w.]+)\(\)`", read(lesson, ending)))
    unknown = {name for name in named if name.split(".")[-1] not in identifiers(lesson)}
    assert not unknown, f"not to be found in {lesson.path.name}: {unknown}"


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
        close = re.fullmatch(r"-?[\d.e+-]+", shown) and float(shown) == pytest.approx(
            mean, rel=5.1e-4
        )
        assert close, (
            f"{key}:{metric} is {mean:.4g}, the note says {shown}: `course sync` puts it right"
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


SCRIPT = '''"""1.1 A title
中文标题
"""


def windows(x):
    """Left out."""
    # practice: How far is the next row?
    step = 1
    return x + step
    # end practice


class Kept:
    def get(self):
        # practice: The value
        value = 1
        # end practice
        return value


def long(x):
'''
SCRIPT += "    x += 1\n" * 15
ANSWER = """
<details>
<summary>Answer</summary>

It is `x`.

</details>
"""
ENGLISH = f"""# 1.1 A title

Script: [01-numpy-basics.py](../../phase01_data_science/01-numpy-basics.py)

## Why

![a picture](figures/01-numpy-basics-a.png)

Since $`x^2`$ is `windows()`, see [Nature](https://doi.org/1). WORDS

A paragraph with **12** numbers of 10,000.

```math
y = \\text{{start}} + 1 \\\\
```

| a | b |
|---|---|
| 1 | 2 |

## The code

<!-- code:windows -->
```python
def windows(x):
    step = 1
    return x + step
```
<!-- /code -->

And then:

<!-- code:Kept.get/region -->
```python
value = 1
```
<!-- /code -->

## Practice

### 1. How far is the next row?

<details>
<summary>Hints</summary>

1. The idea.
2. The formula.

</details>

### 2. The value

<details>
<summary>Hints</summary>

1. It is kept.

</details>

## Exercises

1. One?
{ANSWER}
2. Two?
{ANSWER}
3. Three? <!-- result:phase01_data_science/01-numpy-basics:speedup -->50.12<!-- /result --> times
and <!-- result:phase01_data_science/01-numpy-basics:speedup -->50.1234<!-- /result -->.
{ANSWER}
## Interview questions

1. Four?
{ANSWER}
2. Five?
{ANSWER}
## Read further

- Nature.
"""
TRANSLATED = {
    "# 1.1 A title": "# 1.1 中文标题",
    "Practice": "动手写",
    "How far is the next row?": "下一行有多远？",
    "2. The value": "2. 取值",
    "<summary>Hints": "<summary>提示",
    "Exercises": "练习",
    "Interview questions": "面试题",
    "Read further": "延伸阅读",
    "numbers of 10,000": "个数，共一万个，",
    "WORDS": "字" * 900,
    "start}": "起点}",
    "Why": "为什么",
    "Answer": "答案",
    "- Nature.": "- Nature。\n- 《动手学深度学习》第 2.1 节。",
}
CHINESE = ENGLISH
for old_words, new_words in TRANSLATED.items():
    CHINESE = CHINESE.replace(old_words, new_words)

SAME = "test_both_languages_say_the_same"
LOST = "test_no_paragraph_and_no_number_is_lost"
SHOWN = "test_note_is_shown_as_it_is_meant"
HINTS = "test_every_region_has_its_hints"
EXCERPTS = "test_excerpts_are_the_code"
ANSWERS = "test_exercises_have_folded_answers"
RESULTS = "test_quoted_results_are_those_measured"
BROKEN = {  # what stands there instead, which note, which test notices
    "a section more": ("## 练习", "## 更多\n\n## 练习", "zh.md", SAME),
    "another formula": ("x^2", "x^3", "zh.md", SAME),
    "another display": ("+ 1 ", "+ 2 ", "zh.md", SAME),
    "a picture less": ("![a picture](figures/01-numpy-basics-a.png)", "", "zh.md", SAME),
    "another source": ("https://doi.org/1", "https://doi.org/2", "zh.md", SAME),
    "an exercise less": ("3. Three?", "Three?", "md", SAME),
    "a question less": ("2. Five?", "Five?", "zh.md", SAME),
    "a hint less": ("2. The formula.\n", "", "zh.md", SAME),
    "another excerpt": ("code:windows", "code:Kept", "zh.md", SAME),
    "another number": ("**12** 个数", "**13** 个数", "zh.md", LOST),
    "another number in English": ("10,000", "20,000", "md", LOST),
    "another number in words": ("共一万个", "共两万个", "zh.md", LOST),
    "a paragraph less": ("And then:\n\n", "", "zh.md", LOST),
    "a row less": ("| 1 | 2 |\n", "", "zh.md", LOST),
    "another title": ("# 1.1 A title", "# 1.1 The title", "md", "test_title_is_that_of_the_script"),
    "another Chinese title": ("中文标题", "别的标题", "zh.md", "test_title_is_that_of_the_script"),
    "another lesson's number": ("# 1.1 A", "# 1.2 A", "md", "test_title_is_that_of_the_script"),
    "a formula in dollars": ("$`x^2`$", "$x^2$", "md", SHOWN),
    "a display in dollars": ("```python\nvalue = 1\n```", "$$value = 1$$", "md", SHOWN),
    "a backslash GitHub eats": ("x^2", "x\\,2", "md", SHOWN),
    "a letter beside a formula": ("Since $`", "Since$`", "md", SHOWN),
    "no blank line after the summary": ("Answer</summary>\n\n", "Answer</summary>\n", "md", SHOWN),
    "no blank line before the end": ("x`.\n\n</details>", "x`.\n</details>", "md", SHOWN),
    "a summary on the tag's line": (
        "<details>\n<summary>Answer</summary>\n\n",
        "<details><summary>Answer</summary>\n",
        "md",
        SHOWN,
    ),
    "a line that begins with a comment": ("times\nand <!--", "times and\n<!--", "md", SHOWN),
    "asterisks that do not close": ("**12** 个数", "**12（个）**数", "zh.md", SHOWN),
    "a backtick alone": ("`windows()`", "`windows()", "md", SHOWN),
    "a fence that stays open": ("value = 1\n```\n", "value = 1\n", "md", SHOWN),
    "a bar in a cell": ("| 1 | 2 |", "| `1 | 1` | 2 |", "md", SHOWN),
    "a backslash in prose": ("Since ", "Since \\alpha ", "md", SHOWN),
    "a region without hints": ("### 2. The value", "### The value", "md", HINTS),
    "another region's title": ("### 2. The value", "### 2. The key", "md", HINTS),
    "an empty fold": ("1. It is kept.\n", "", "md", HINTS),
    "four hints": ("2. The formula.", "2. A.\n3. B.\n4. C.", "md", HINTS),
    "an English heading in Chinese": ("2. 取值", "2. value", "zh.md", HINTS),
    "no practice section": ("## 动手写", "## 动手", "zh.md", HINTS),
    "practice behind the exercises": ("## Exercises", "## More\n\n## Exercises", "md", HINTS),
    "old code": ("step = 1", "step = 2", "md", EXCERPTS),
    "an excerpt of what is gone": ("code:windows", "code:window", "md", EXCERPTS),
    "an excerpt too long": ("code:windows", "code:long", "md", EXCERPTS),
    "an excerpt of no region": ("Kept.get/region", "Kept.get/region2", "md", EXCERPTS),
    "an excerpt without an end": ("<!-- /code -->\n\nAnd", "And", "md", EXCERPTS),
    "one excerpt": ("<!-- code:windows -->\n", "", "md", EXCERPTS),
    "another lesson's picture": (
        "01-numpy-basics-a.png",
        "02-numpy-operations-a.png",
        "md",
        "test_pictures_are_those_of_the_lesson",
    ),
    "two exercises": ("3. Three?", "Three?", "md", ANSWERS),
    "no answer": (f"2. Two?\n{ANSWER}", "2. Two?\n", "md", ANSWERS),
    "one interview question": (
        f"2. Five?\n{ANSWER}",
        "",
        "md",
        "test_core_lessons_have_interview_questions",
    ),
    "too short": ("word " * 700, "word " * 400, "md", "test_length"),
    "too long": ("word " * 700, "word " * 1400, "md", "test_length"),
    "too short in Chinese": ("字" * 900, "字" * 700, "zh.md", "test_length"),
    "a function that is not there": ("`windows()`", "`window()`", "md", "test_functions_exist"),
    "a picture that is not there": (
        "basics-a.png",
        "basics-b.png",
        "md",
        "test_links_lead_somewhere",
    ),
    "an old result": ("50.1234", "50.23", "md", RESULTS),
    "a result never filled in": ("50.1234", "–", "md", RESULTS),
    "an unknown result": (":speedup -->50.1234", ":speed -->50.1234", "md", RESULTS),
}


@pytest.mark.parametrize("old, new, ending, name", BROKEN.values(), ids=BROKEN)
def test_a_broken_note_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, ending: str, name: str
) -> None:
    key, test = LESSONS["01/01"].key, globals()[name]
    notes = {"md": ENGLISH.replace("WORDS", "word " * 700), "zh.md": CHINESE}
    lesson = Lesson(tmp_path / f"{key}.py")
    folder = tmp_path / "docs" / lesson.phase
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "01-numpy-basics-a.png").touch()
    lesson.path.parent.mkdir()
    lesson.path.write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "docs" / "RESULTS.json").write_text(
        json.dumps({"lessons": {key: {"metrics": {"speedup": {"mean": 50.1234}}}}})
    )
    monkeypatch.setattr(f"{__name__}.DOCS", tmp_path / "docs")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)

    def judge() -> None:
        read.cache_clear()
        test(lesson, *([] if name in (SAME, LOST) else [ending]))

    for each, text in notes.items():
        path_of(lesson, each).write_text(text, encoding="utf-8")
    judge()
    assert old in notes[ending]
    path_of(lesson, ending).write_text(notes[ending].replace(old, new), encoding="utf-8")
    with pytest.raises(AssertionError):
        judge()
    read.cache_clear()


def test_numbers_that_may_differ() -> None:
    english, chinese = "## A\n\nIn 1991 twelve.", "## A\n\n1991 年有 12 个，第 20 阶段。"
    assert unmatched_numbers(english, chinese) == ["20 stands in the Chinese note only"]
    assert not unmatched_numbers(english, chinese + "\n<!-- numbers may differ: 20 -->")


# Notes are judged above, with a test for each.
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *DOCS.glob("*.md"))
)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_shown_as_it_is_meant(name: str) -> None:
    found = rendering_faults((ROOT / name).read_text(encoding="utf-8"))
    assert not found, "\n".join(found[:12])
