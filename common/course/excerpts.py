"""Pieces of a lesson that its note quotes: `<!-- code:NAME -->`, filled by `course sync`.

NAME is a function, a class or Class.method of the script; NAME/region is the body of the first
practice region in it, NAME/region2 that of the second. Docstrings and practice markers are left
out: the note explains in prose what they say.
"""

import ast
import re
import textwrap

from common.errors import LessonError

LONGEST = 15  # lines
_PLACE = re.compile(r"<!-- (/?)code(?::([^\s>]+))? -->")
_START = re.compile(r"\s*# practice: .+")
_END = re.compile(r"\s*# end practice\s*")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def fill(note: str, script: str) -> tuple[str, list[tuple[int, str]]]:
    """The note with every excerpt filled anew, and what could not be filled: (line, why).

    note, script: their texts. An excerpt that cannot be filled stays as it is.
    """
    parts, faults = [], []
    open_mark = None
    written = 0  # how much of the note has been taken over

    def fault(mark: re.Match, why: str) -> None:
        faults.append((note.count("\n", 0, mark.start()) + 1, why))

    for mark in _PLACE.finditer(note):
        is_end = bool(mark[1])
        if not is_end:
            if open_mark is not None:
                fault(open_mark, f"`{open_mark[0]}` has no `<!-- /code -->`")
            open_mark = mark
        elif open_mark is None:
            fault(mark, "`<!-- /code -->` without a `<!-- code:NAME -->` above it")
        else:
            try:
                block = f"\n```python\n{excerpt(script, open_mark[2] or '')}\n```\n"
            except LessonError as error:
                fault(open_mark, str(error))
            else:
                parts += [note[written : open_mark.end()], block]
                written = mark.start()
            open_mark = None

    if open_mark is not None:
        fault(open_mark, f"`{open_mark[0]}` has no `<!-- /code -->`")
    parts.append(note[written:])
    return "".join(parts), faults


def excerpt(script: str, name: str) -> str:
    """The code that `name` means, dedented. Raises LessonError if it is not there or too long."""
    path, _, region = name.partition("/")
    try:
        node = _definition(ast.parse(script), path.split("."))
    except SyntaxError as error:
        raise LessonError(f"the script cannot be parsed (its line {error.lineno})") from None
    if node is None:
        raise LessonError(f"`{path}` is not a function, class or method of the script")

    if region:
        found = _region(script, node, region, name)
    else:
        found = _whole(script, node)
    lines = _without_gaps(found)
    if not lines:
        raise LessonError(f"`{name}` holds no code")
    if len(lines) > LONGEST:
        raise LessonError(f"`{name}` has {len(lines)} lines, an excerpt at most {LONGEST}")
    return textwrap.dedent("\n".join(lines))


def _definition(tree: ast.AST, names: list[str]) -> _Definition | None:
    for name in names:
        inside = (each for each in tree.body if isinstance(each, _Definition) and each.name == name)
        tree = next(inside, None)
        if tree is None:
            return None
    return tree


def _whole(script: str, node: _Definition) -> list[str]:
    """All lines of a definition with its decorators, without docstrings and practice markers."""
    lines = script.splitlines()
    left_out = set()
    for each in ast.walk(node):
        if isinstance(each, _Definition) and ast.get_docstring(each) is not None:
            docstring = each.body[0]
            left_out.update(range(docstring.lineno, docstring.end_lineno + 1))
            if lines[docstring.end_lineno : docstring.end_lineno + 1] == [""]:
                left_out.add(docstring.end_lineno + 1)  # the line that sets it off

    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return [
        line
        for number, line in enumerate(lines[first - 1 : node.end_lineno], first)
        if number not in left_out and not _START.fullmatch(line) and not _END.fullmatch(line)
    ]


def _region(script: str, node: _Definition, region: str, name: str) -> list[str]:
    """The lines between the markers of a practice region, docstrings and all."""
    which = re.fullmatch(r"region(\d*)", region)
    lines = script.splitlines()
    starts = [
        number
        for number in range(node.lineno, node.end_lineno)
        if _START.fullmatch(lines[number - 1])
    ]
    index = int(which[1] or 1) - 1 if which else -1
    if not 0 <= index < len(starts):
        raise LessonError(f"`{name}`: practice regions in it: {len(starts)}")

    begin = starts[index]
    end = next((n for n in range(begin, len(lines)) if _END.fullmatch(lines[n])), None)
    if end is None:
        raise LessonError(f"`{name}`: the region has no “# end practice” (script line {begin})")
    return lines[begin:end]


def _without_gaps(lines: list[str]) -> list[str]:
    """No blank lines at the ends, and never two in a row."""
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines))
    return text.strip("\n").splitlines()
