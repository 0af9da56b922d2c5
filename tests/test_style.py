"""Everything is formatted and linted by ruff, with the settings in pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_layout import tracked

from common.lessons import ROOT

# a rule in brackets or behind a colon, then the reason
REASONED = re.compile(r"# noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)* +[^\s#].{9,}")
NOQA = re.compile(r"#\s*(?:ruff:\s*|flake8:\s*)?noqa\b", re.IGNORECASE)


def ruff(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize(
    "arguments", [["check", "--output-format=concise", "."], ["format", "--check", "."]]
)
def test_ruff_has_nothing_to_say(arguments: list[str]) -> None:
    answer = ruff(*arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    "text, arguments",
    [
        pytest.param("import os\n", ["check", "."], id="an import that nothing uses"),
        pytest.param("double = lambda x: 2 * x\n", ["check", "."], id="a lambda with a name"),
        pytest.param("x = 1; y = 2\n", ["check", "."], id="two statements on a line"),
        pytest.param("x=1\n", ["format", "--check", "."], id="not formatted"),
    ],
)
def test_the_settings_catch_it(tmp_path: Path, text: str, arguments: list[str]) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "a.py").write_text(text)
    answer = ruff(*arguments, folder=tmp_path)
    assert answer.returncode == 1 and "a.py" in answer.stdout, answer.stdout + answer.stderr


def without_reason(text: str) -> list[str]:
    """The lines that switch a rule off and do not say why."""
    return [
        line.strip()
        for line in text.splitlines()
        if NOQA.search(line) and not REASONED.search(line)
    ]


def test_no_rule_is_switched_off_without_a_reason() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in tracked()
        if path.suffix == ".py"
        and path != Path(__file__)
        and (lines := without_reason(path.read_text(encoding="utf-8")))
    }
    assert not found, f"after the rule, say why it may be broken here: {found}"


def test_a_missing_reason_is_noticed() -> None:
    assert without_reason("import a  # noqa: F401 registers the names it defines") == []
    assert without_reason("import a  # noqa: F401, E402 registers the names it defines") == []
    for line in ("import a  # noqa", "import a  # noqa: F401", "# ruff: noqa", "a  # NOQA: F401"):
        assert without_reason(line) == [line]
