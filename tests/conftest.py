"""Options, and the engine that starts all scripts when the collection is done, so that tests only wait for results.

pytest                  what a learner runs: every script, tiny; one practice region of each, another one every day
pytest --all            everything, with every figure rendered; what .ci/run runs
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from engine import Engine, Job

AGEING = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
ENGINE = pytest.StashKey[Engine]()
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="everything, not the short selection")
    parser.addoption(
        "--runner",
        choices=("fork", "spawn"),
        default="fork" if sys.platform == "linux" else "spawn",
        help="how scripts start: forked from a server that has imported, or a fresh interpreter each",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs only with --all")
    for kind in AGEING:
        config.addinivalue_line("filterwarnings", rf"error::{kind}:(common|phase\d\d_\w+)(\..*)?$")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --all, drop what is marked `full`. Scripts first: tests that measure time then have the machine alone."""
    dropped = [
        item for item in items if item.get_closest_marker("full") and not config.getoption("all")
    ]
    config.hook.pytest_deselected(items=dropped)
    items[:] = sorted(
        (item for item in items if item not in dropped), key=lambda item: not jobs_of(item)
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    jobs = [job for item in session.items for job in jobs_of(item)]
    if jobs and not session.config.option.collectonly:
        for job in jobs:
            start_engine(session.config).submit(job)


def jobs_of(item: pytest.Item) -> list[Job]:
    """The jobs among a test's parameters, alone or in tuples and lists."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return [
        job
        for value in values
        for job in (value if isinstance(value, (tuple, list)) else [value])
        if isinstance(job, Job)
    ]


def start_engine(config: pytest.Config) -> Engine:
    if ENGINE not in config.stash:
        config.stash[FOLDER] = tempfile.TemporaryDirectory(
            prefix="course-tests-", ignore_cleanup_errors=True
        )
        base = Path(config.stash[FOLDER].name).resolve()
        config.stash[ENGINE] = Engine(
            base, config.getoption("runner"), draw=config.getoption("all")
        )
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
    """Under CI=true a skip is a failure, unless tests/allowed_skips.txt gives a reason for it."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        lines = (
            (Path(__file__).parent / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
        )
        allowed = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
        if not report.nodeid.startswith(tuple(allowed)):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"skipped under CI=true, and tests/allowed_skips.txt does not say why it may be: {why}"
    return report
