"""What one run writes down: its claims, the data it used, how often it read the test set.

Checks, loaders and figures add to the record of the run that is under way; `common.config.main` opens one and
writes it to `result.json`. Outside a run (in a test, in a notebook) they add to a throw-away record in normal mode.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Claim:
    id: str
    text: str
    kind: str  # exact, learned or timed
    status: str  # passed, failed or "not judged"
    measured: str = ""


@dataclass
class Record:
    tiny: bool = False
    claims: list[Claim] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    test_reads: int = 0  # the most often that any one test set was read; above 1 is a fault
    figures: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        return asdict(self)

    def use_data(self, name: str, where: Path | str) -> None:
        """Name the data on screen and in the result: a lesson never falls back in silence."""
        line = f"{name} ({where})"
        if line not in self.data:
            self.data.append(line)
            print(f"data: {line}")


_current = Record()


def current() -> Record:
    return _current


def start(tiny: bool) -> Record:
    """Open the record of a new run. Tests that call a lesson's functions directly need not."""
    global _current
    _current = Record(tiny=tiny)
    return _current
