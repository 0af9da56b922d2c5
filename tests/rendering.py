"""Markdown as GitHub shows it: parsed as CommonMark with tables, and searched for what breaks."""

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

# a display in a fence, or a formula inside a line between dollar and backtick
FORMULA = re.compile(r"^```math\n(.+?)^```$|\$`([^`\n]+)`\$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"\$`([^`\n]+)`\$")
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def rendering_faults(text: str) -> list[str]:
    """Every place where GitHub would not show what is meant, one sentence each."""
    # GitHub takes these formulas out before it reads Markdown; here a letter takes their place.
    tokens = PARSER.parse(INLINE.sub("x", text))
    found = formula_faults(text) + table_faults(text)
    lines = text.splitlines()
    for token in tokens:
        if token.type == "inline":
            found += inline_faults(token)
        elif token.type == "html_block":
            found += html_faults(token)
        elif token.type == "fence" and not re.match(r" *(```|~~~)", lines[token.map[1] - 1]):
            found.append(f"line {token.map[0] + 1}: a fence that nothing closes")
    bare = re.sub(r"`[^`\n]*`", "x", without_fences(text))
    for tag in re.finditer(r"</summary>(?!\n[ \t]*\n)|(?<!\n\n)</details>", bare):
        line = bare.count("\n", 0, tag.start()) + 1
        found.append(f"line {line}: a blank line belongs after </summary> and before </details>")
    return found


def inline_faults(token: Token) -> list[str]:
    shown = "".join(child.content for child in token.children if child.type == "text")
    marks = {
        "`": "a raw backtick",
        "**": "raw asterisks (beside a full-width mark they do not close)",
        "~~": "raw tildes",
        "$": "a formula that is neither ```math nor $`…`$",
        "\\": "a backslash in prose",
    }
    place = f"line {token.map[0] + 1}"
    return [f"{place}: {what}: {shown[:60]}" for mark, what in marks.items() if mark in shown]


def html_faults(token: Token) -> list[str]:
    """Text in an HTML block is shown as it stands: a blank line was forgotten, or a line begins
    with a comment."""
    bare = re.sub(r"<summary>.*?</summary>|<!--.*?-->|<[^>]+>", "", token.content, flags=re.DOTALL)
    if not bare.strip():
        return []
    return [f"line {token.map[0] + 1}: text that is not read as Markdown: {bare.strip()[:60]}"]


def formula_faults(text: str) -> list[str]:
    found = []
    for match in INLINE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if re.search(r"\\[^A-Za-z]", match[1]):
            found.append(f"line {line}: a backslash before punctuation: {match[1]}")
        around = text[match.start() - 1 : match.start()] + text[match.end() : match.end() + 1]
        if re.search(r"\w", around):
            found.append(f"line {line}: a letter beside the formula {match[1]}")
    return found


def table_faults(text: str) -> list[str]:
    """A | in a cell, be it in code or in a formula, cuts the cell in two."""
    found, columns = [], 0
    for number, line in enumerate(without_fences(text).splitlines(), 1):
        if not line.startswith("|"):
            columns = 0
            continue
        bars = len(re.findall(r"(?<!\\)\|", line))
        columns = columns or bars
        if bars != columns:
            found.append(f"line {number}: {bars} bars in a table of {columns}")
    return found


def without_fences(text: str) -> str:
    """Fences become blank lines, so that the others keep their numbers."""
    return re.sub(
        r"^(```|~~~).*?^\1`*$",
        lambda fence: "\n" * fence[0].count("\n"),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def paragraphs(text: str) -> int:
    """Blocks of prose: paragraphs, points of a list, rows of a table; headings and code apart."""
    kinds = ("paragraph_open", "tr_open")
    return sum(token.type in kinds for token in PARSER.parse(text))
