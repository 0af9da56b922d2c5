"""The Chinese pages: terms as in CONTRIBUTING's glossary, spaces as typesetting wants them."""

import re
import tomllib
from pathlib import Path

import pytest
from rendering import FORMULA

from common.lessons import ROOT, all_lessons

GLOSSARY = ROOT / "CONTRIBUTING.md"
WIDE = "，。；：、？！（）《》【】“”"
HAN = r"\u4e00-\u9fff"


def rejected() -> dict[str, str]:
    """{pattern: what to write instead} from the glossary's table."""
    table = GLOSSARY.read_text(encoding="utf-8").partition("<!-- glossary -->")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*)\|$", table, re.MULTILINE)
    return {
        pattern.replace("\\|", "|"): instead
        for _, instead, never in rows
        for pattern in re.findall(r"`([^`]+)`", never)
    }


def chinese_texts() -> dict[str, str]:
    """{where: text} of every Chinese page and title."""
    pages = [ROOT / "README.zh.md", *(ROOT / "docs").rglob("*.zh.md")]
    found = {
        page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
        for page in sorted(pages)
        if ROOT / "docs" / "notes" not in page.parents
    }
    found |= {f"{lesson.key}.py": lesson.title_zh for lesson in all_lessons()}
    path = ROOT / "common" / "course" / "curriculum.toml"
    plan = tomllib.loads(path.read_text(encoding="utf-8"))
    groups = ("named", "electives", "projects")
    rows = [row for phase in plan["phase"] for group in groups for row in phase.get(group, ())]
    return found | {"curriculum.toml": "\n".join(row[3] for row in rows)}


def prose(text: str) -> str:
    """Code and formulas become a letter, links their text; comments, tags and emphasis vanish."""
    text = FORMULA.sub(lambda formula: "\n" if formula[1] else "x", text)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "x", text)
    # Bold that ends in a full stop needs the space behind it, or it does not close.
    text = re.sub(rf"(?<=[{WIDE}])\*+ ", "", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"<!--.*?-->|</?\w[^>]*>|\*+", "", text, flags=re.DOTALL)


def term_faults(text: str) -> list[str]:
    return [
        f"“{found[0]}” in “{around(text, found)}”: write {instead}"
        for pattern, instead in rejected().items()
        for found in re.finditer(pattern, text)
    ]


def space_faults(text: str) -> list[str]:
    """What is wrong, with the words around it; cells of a table and lists begin with a space."""
    patterns = {
        rf"(?<=[{WIDE}]) +(?=[^\s|])": "a space after full-width punctuation",
        rf"(?<=[^\s|>.*-]) +(?=[{WIDE}])": "a space before full-width punctuation",
        rf"(?<=[{HAN}])(?=[A-Za-z0-9])": "no space between the scripts",
        rf"(?<=[A-Za-z0-9%])(?=[{HAN}])": "no space between the scripts",
        r"(?<=\d) +(?=%)": "a space before the percent sign",
    }
    return [
        f"{what}: “{around(text, found)}”"
        for pattern, what in patterns.items()
        for found in re.finditer(pattern, text)
    ]


def around(text: str, found: re.Match) -> str:
    return text[max(found.start() - 10, 0) : found.end() + 10].replace("\n", " ")


TEXTS = chinese_texts()


@pytest.mark.parametrize("name", TEXTS)
def test_terms_are_those_of_the_glossary(name: str) -> None:
    found = term_faults(prose(TEXTS[name]))
    assert not found, "\n".join(found[:12])


@pytest.mark.parametrize("name", TEXTS)
def test_spaces(name: str) -> None:
    found = space_faults(prose(TEXTS[name]))
    assert not found, "\n".join(found[:12])


def test_the_glossary_is_read_whole() -> None:
    patterns = rejected()
    assert len(patterns) >= 25 and patterns["正确率"] == "准确率"
    assert all(re.compile(pattern) for pattern in patterns)


GOOD = """# 1.1 NumPy 基础：一块内存

**步长**（stride）是 $`s_1`$ 字节，准确率为 99%，见 [第 2 阶段](x.md)：
`x` 除以 `y`。用曲率修正步长。

| 表 | “引号” |
|---|---|
| 高斯分布。 | 每次三分钟，共 3 次 |

- 去除停用词；第 1 阶段。
"""


def test_a_good_page_passes() -> None:
    assert term_faults(prose(GOOD)) == [] and space_faults(prose(GOOD)) == []


@pytest.mark.parametrize(
    "text, says",
    [
        ("正确率", "准确率"),
        ("四组数的均值", "Anscombe"),
        ("像一口钟", "高斯分布"),
        ("两个高斯的散度", "高斯分布"),
        ("下三角形", "三角矩阵"),
        ("阶段 2", "第 2 阶段"),
        ("第二阶段", "第 2 阶段"),
        ("用曲率去除梯度", "A 除以 B"),
        ("温度先去除分数", "A 除以 B"),
        ("微批", "批次"),
    ],
)
def test_a_rejected_term_is_noticed(text: str, says: str) -> None:
    assert any(says in fault for fault in term_faults(prose(text)))


@pytest.mark.parametrize(
    "text",
    [
        "先读， 再写",
        "先读 ，再写",
        "NumPy基础",
        "共3个",
        "99%的",
        "99 %",
        "设$`x`$ 为",
        "调用`x` 时",
    ],
)
def test_a_wrong_space_is_noticed(text: str) -> None:
    assert space_faults(prose(text))


def test_pages_are_found() -> None:
    notes = [name for name in TEXTS if name.startswith("docs/phase")]
    assert len(notes) == len(all_lessons()) and Path(ROOT / notes[0]).exists()
