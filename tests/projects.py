"""How the tests of the projects run them: as the command line does, in this process."""

from pathlib import Path
from types import ModuleType

from common.config import execute


def run_project(project: ModuleType, out: Path, *argv: str) -> int:
    """The exit code of a run with these flags, on the processor, that writes into `out`."""
    argv = ["--device", "cpu", "--out", str(out), *argv]
    return execute(project.run, project.Config, project.__doc__, argv)
