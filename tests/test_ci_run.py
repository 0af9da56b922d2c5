""".ci/run runs the command of README.md in a fresh environment; tried on small repositories."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common.lessons import ROOT

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("git")), reason="needs bash and git"
)
OTHER = "```bash\nfalse\n```\n"
README = f"# Course\n<!-- command:try -->\n{OTHER}<!-- command:test -->\n```bash\n%s\n```\n{OTHER}"


def ci(folder: Path, command: str | None) -> subprocess.CompletedProcess:
    """Run .ci/run in a small repository whose README gives this command."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    (folder / "README.md").write_text("# Course\n" if command is None else README % command)
    (folder / ".gitignore").write_text(".venv/\n")
    (folder / "new file.txt").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for arguments in (["init", "-q"], ["add", ".gitignore", ".ci", "README.md"]):
        subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True)
    return subprocess.run(
        ["bash", folder / ".ci" / "run"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_readmes_command_with_all(tmp_path: Path) -> None:
    run = ci(tmp_path, 'touch made && echo "$PWD" "$CI"')
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"{tmp_path.resolve()} true --all"


def test_an_environment_that_is_there_is_not_used(tmp_path: Path) -> None:
    """Nor is it touched; files that git does not know yet come along."""
    (tmp_path / ".venv").mkdir()
    run = ci(
        tmp_path,
        'test -e "new file.txt" && test ! -e .venv && mkdir .venv && touch .venv/x && echo',
    )
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob(".venv/*")) == []


@pytest.mark.parametrize(
    "command, code, message",
    [
        pytest.param(None, 2, "command:test", id="no command"),
        pytest.param("exit 7 #", 7, "", id="a command that fails"),
        pytest.param("false; echo", 1, "", id="a command that fails early"),
    ],
)
def test_failures_are_passed_on(
    tmp_path: Path, command: str | None, code: int, message: str
) -> None:
    run = ci(tmp_path, command)
    assert run.returncode == code and message in run.stderr


def test_the_readme_has_the_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- command:test -->")[2]
    assert text.lstrip().startswith("```bash\n") and "pytest" in text.split("```")[1]
