"""What one run writes down: its claims, the data it used, how often it read the test set.

Checks, loaders and figures add to the record of the run that is under way; `common.config.main`
opens one and writes it to `result.json`. Outside a run (in a test, in a notebook) they add to a
throw-away record in normal mode.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.errors import ClaimFailed


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
    # opened by `start` for a script that is under way, not the throw-away one of a test
    running: bool = False
    claims: list[Claim] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    test_reads: int = 0  # the most often that any one test set was read; above 1 is a fault
    figures: list[str] = field(default_factory=list)
    # fingerprint of a test set -> how often it was read
    reads: dict[str, int] = field(default_factory=dict)

    def judge(self) -> None:
        """The run has ended: raise ClaimFailed if a learned or timed claim did not hold."""
        failed = [claim for claim in self.claims if claim.status == "failed"]
        if failed:
            names = " and ".join(f"“{claim.id}”" for claim in failed)
            verb = "does" if len(failed) == 1 else "do"
            raise ClaimFailed(f"the claim {names} {verb} not hold: {failed[0].text}.")

    def as_dict(self) -> dict:
        return asdict(self)

    def read_test(self, *arrays) -> None:
        """Count a reading of a test set, known by its bytes: to load it again is no way out."""
        content = hashlib.sha256()
        for array in arrays:
            content.update(array.tobytes())
        name = content.hexdigest()
        self.reads[name] = self.reads.get(name, 0) + 1
        self.test_reads = max(self.test_reads, self.reads[name])

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
    global _current  # noqa: PLW0603  (one run at a time is what a process does)
    _current = Record(tiny=tiny, running=True)
    return _current
