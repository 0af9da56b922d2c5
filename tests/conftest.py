"""Options, and the engine: it starts all scripts when the collection is done, tests only wait.

pytest                  what a learner runs: every script, tiny; one practice region of each,
                        another one every day
pytest --all            everything, with every figure rendered; what .ci/run runs
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from engine import Engine, Job

from common import record

AGEING = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
ENGINE = pytest.StashKey[Engine]()
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory]()


# What judges the workshop and not the lessons: a learner changes none of it. These files run with
# --all, and where the command line names them.
WORKSHOP = (
    "test_course_command",
    "test_device",
    "test_engine",
    "test_practice_command",
    "test_progress",
    "test_project_eda",
    "test_project_mnist",
    "test_shapes",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="everything, not the short selection")
    parser.addoption(
        "--runner",
        choices=("fork", "spawn"),
        default="fork" if sys.platform == "linux" else "spawn",
        help="scripts are forked from a server that has imported, or get an interpreter each",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs only with --all")
    for kind in AGEING:
        config.addinivalue_line("filterwarnings", rf"error::{kind}:(common|phase\d\d_\w+)(\..*)?$")


@pytest.fixture(autouse=True)
def _no_record_of_the_test_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run within a test leaves its record behind: a tiny one would make later figures tiny."""
    monkeypatch.setattr(record, "_current", record.Record())


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data anywhere, and a cache in the test's folder."""
    from common.data import sources

    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "cache")
    for name in ("COURSE_DATA", "COURSE_MIRROR"):
        monkeypatch.delenv(name, raising=False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --all, drop what is marked `full`. Scripts first: they keep both cores busy, and
    tests that measure time have the machine alone afterwards.
    """
    named = {Path(argument.split("::")[0]).stem for argument in config.args}
    dropped = []
    if not config.getoption("all"):
        for item in items:
            of_workshop = item.path.stem in WORKSHOP and item.path.stem not in named
            if of_workshop or item.get_closest_marker("full"):
                dropped.append(item)
    config.hook.pytest_deselected(items=dropped)
    kept = [item for item in items if item not in dropped]
    items[:] = sorted(kept, key=lambda item: not jobs_of(item))


def pytest_collection_finish(session: pytest.Session) -> None:
    jobs = [job for item in session.items for job in jobs_of(item)]
    if jobs and not session.config.option.collectonly:
        for job in jobs:
            start_engine(session.config).submit(job)


def jobs_of(item: pytest.Item) -> list[Job]:
    """The jobs among a test's parameters, alone or in tuples and lists."""
    found = []
    if hasattr(item, "callspec"):
        for value in item.callspec.params.values():
            values = value if isinstance(value, (tuple, list)) else [value]
            found += [job for job in values if isinstance(job, Job)]
    return found


def start_engine(config: pytest.Config) -> Engine:
    if ENGINE not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="course-tests-", ignore_cleanup_errors=True)
        base = Path(folder.name).resolve()
        engine = Engine(base, config.getoption("runner"), draw=config.getoption("all"))
        config.stash[FOLDER] = folder
        config.stash[ENGINE] = engine
    return config.stash[ENGINE]


def pytest_unconfigure(config: pytest.Config) -> None:
    if ENGINE in config.stash:
        config.stash[ENGINE].close()
        config.stash[FOLDER].cleanup()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    return start_engine(request.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    return no_silent_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector):
    return no_silent_skip((yield))


def no_silent_skip(report: pytest.TestReport | pytest.CollectReport):
    """An xfail fails. So does a skip under CI=true that allowed_skips.txt does not allow."""
    if hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = "xfail: a known fault is mended, or its test says what is right today"
        # pytest would print it as expected
        del report.wasxfail
    elif report.skipped and os.environ.get("CI") == "true" and not is_allowed(report.nodeid):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and tests/allowed_skips.txt does not say why: {why}"
    return report


def is_allowed(test: str) -> bool:
    """Whether allowed_skips.txt holds the beginning of the test's id."""
    path = Path(__file__).parent / "allowed_skips.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line.strip() and not line.startswith("#")]
    return test.startswith(tuple(rule.split()[0] for rule in rules))
