"""A lesson's settings and its `main`: one dataclass field is one command-line flag. Imports no torch.

    @dataclass
    class Config(LessonConfig):
        epochs: int = param(10, "passes over the data", tiny=1, long=40)

An explicit flag wins, then --tiny or --preset, then the default.
"""

import argparse
import dataclasses
import difflib
import errno
import inspect
import json
import os
import platform
import random
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from common import record
from common.errors import ClaimFailed, LessonError
from common.files import readable, write_bytes, write_json
from common.lessons import ROOT, lesson_of

if TYPE_CHECKING:
    import numpy as np
    import torch


_OURS = re.compile(
    r"(common|practice|phase\d\d_\w+)(\.|$)"
)  # no package of others is missing, but a file of ours


def param(
    default: Any,
    help: str,
    *,
    tiny: Any = MISSING,
    long: Any = MISSING,
    quick: Any = MISSING,
    choices: tuple | None = None,
    low: float | None = None,
) -> Any:
    """A setting: its value, what it means, its value under --tiny, --preset long and --preset quick, what is allowed.

    A whole number must be 1 or more and a fraction 0 or more, unless `low` says otherwise.
    """
    values = {"tiny": tiny, "long": long, "quick": quick}
    presets = {name: value for name, value in values.items() if value is not MISSING}
    return dataclasses.field(
        default=default, metadata={"help": help, "presets": presets, "choices": choices, "low": low}
    )


@dataclass
class LessonConfig:
    """The flags of every lesson. A lesson's own Config inherits them and adds its own."""

    tiny: bool = param(
        False,
        "a few seconds on a little data, as the tests run; claims about learning are not judged",
    )
    preset: str = param(
        "default", "longer or quicker settings, where the lesson has them", choices=("default",)
    )
    device: str = param("auto", "auto, cpu, cuda, cuda:1, mps")
    seed: int = param(0, "seed of every random number", low=0)
    data: str = param("generated", "data set", choices=("generated",))
    data_dir: Path | None = param(
        None, "folder that already holds the data, looked at before COURSE_DATA and cache"
    )
    out: Path | None = param(
        None, "folder for results and figures (default: outputs/<phase>/<lesson>)"
    )
    resume: bool = param(False, "go on from the last checkpoint in --out")
    debug: bool = param(False, "show the whole trace of an error")

    def rng(self) -> "np.random.Generator":
        """A NumPy generator of its own for this seed."""
        import numpy as np

        return np.random.default_rng(self.seed)

    def torch_device(self) -> "torch.device":
        from common.device import pick

        return pick(self.device)


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake gets one sentence that says what to do."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if unknown := re.search(r"unrecognized arguments: (-[\w-]+)", message):
            flags = [flag for action in self._actions for flag in action.option_strings]
            if close := difflib.get_close_matches(unknown[1], flags, 1):
                hint = f" Did you mean {close[0]}?"
        print(f"{self.prog}: {message}.{hint} See --help.", file=sys.stderr)
        raise SystemExit(2)


def parse(
    config_class: type, doc: str, argv: list[str] | None = None, prog: str | None = None
) -> LessonConfig:
    """Command line -> settings. Raises SystemExit(2) with one sentence when a flag is wrong."""
    parser = Parser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    presets = sorted(
        {name for field in fields.values() for name in field.metadata["presets"]} - {"tiny"}
    )
    for field in fields.values():
        parser.add_argument("--" + field.name.replace("_", "-"), **_argument(field, presets))
    given = vars(parser.parse_args(argv))
    mode = "tiny" if given.get("tiny") else given.get("preset", "default")
    return config_class(
        **{
            name: given[name]
            if name in given
            else field.metadata["presets"].get(mode, field.default)
            for name, field in fields.items()
        }
    )


def _argument(field: dataclasses.Field, presets: list[str]) -> dict[str, Any]:
    meta = field.metadata
    note = "".join(f", {name} {value}" for name, value in meta["presets"].items())
    shown = (
        ""
        if field.default is None or field.default is False
        else f" (default {field.default}{note})"
    )
    help_text = (meta["help"] + shown).replace("%", "%%")
    if field.type is bool:
        return {
            "action": argparse.BooleanOptionalAction if field.default else "store_true",
            "help": help_text,
        }
    kind = next((t for t in get_args(field.type) if t is not type(None)), field.type)
    choices = ("default", *presets) if field.name == "preset" else meta["choices"]
    if kind in (int, float):
        kind = _number(kind, meta["low"])
    return {
        "type": kind,
        "help": help_text,
        "choices": choices,
        "metavar": None if choices else field.name.upper(),
    }


def _number(kind: type, low: float | None) -> Callable[[str], float]:
    lowest = low if low is not None else (1 if kind is int else 0)

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a {'whole ' * (kind is int)}number"
            ) from None
        if not value >= lowest:  # also refuses nan
            raise argparse.ArgumentTypeError(f"must be {lowest:g} or more, got {text}")
        if value >= 2**63:  # also refuses inf
            raise argparse.ArgumentTypeError(f"{text} is too large")
        return value

    return convert


def main(
    run: Callable[[Any], dict | None], config_class: type, doc: str, argv: list[str] | None = None
) -> NoReturn:
    """The last line of every lesson: parse, seed, run, write result.json, exit 0 or with one sentence that helps."""
    raise SystemExit(execute(run, config_class, doc, argv))


def execute(
    run: Callable[[Any], dict | None], config_class: type, doc: str, argv: list[str] | None = None
) -> int:
    """What `main` does, returning the exit code. Tests call this."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                encoding="utf-8", errors="replace"
            )  # a Windows console may not know ✓
    lesson = lesson_of(inspect.getfile(run))
    cfg = parse(config_class, doc, argv, prog=lesson.path.name)
    cfg.out = Path(cfg.out).expanduser().resolve() if cfg.out else lesson.out(cfg.tiny)
    log = record.start(cfg.tiny)
    start, status, metrics, code = time.perf_counter(), "passed", None, 0
    try:
        _make_folder(cfg.out)
        _seed(cfg.seed)
        if (
            cfg.tiny and "torch" in sys.modules
        ):  # on little data two threads only wait for each other
            sys.modules["torch"].set_num_threads(1)
        print(f"{doc.strip().splitlines()[0]}\n{_mode(cfg)} · seed {cfg.seed}" + _device_line(cfg))
        metrics = run(cfg)
    except BaseException as error:  # also Ctrl-C
        code = _explain(error, cfg)
        if code is None:  # a fault of ours, which needs its trace
            raise
        if isinstance(error, ClaimFailed):
            status, metrics = "failed", {}
    seconds = time.perf_counter() - start
    if metrics is not None:  # a prediction or a stopped run leaves the last result alone
        try:
            _write_result(cfg, lesson.key, log, metrics, seconds, status)
        except LessonError as error:
            code = _explain(error, cfg)
    if code == 0 and metrics is not None:
        print(f"\n{_verdict(log)} in {seconds:.1f} s · {_shown(cfg.out / 'result.json')}")
    return code


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        raise readable(error, folder) from error


def _seed(seed: int) -> None:
    random.seed(seed)
    if "torch" in sys.modules:  # a NumPy lesson never pays for importing torch
        from common.device import seed_everything

        seed_everything(seed)


def _mode(cfg: LessonConfig) -> str:
    return (
        "tiny run"
        if cfg.tiny
        else f"preset {cfg.preset}"
        if cfg.preset != "default"
        else "normal run"
    )


def _device_line(cfg: LessonConfig) -> str:
    if "torch" not in sys.modules:
        return ""
    import torch

    return f" · device {cfg.torch_device()} · {torch.get_num_threads()} thread(s)"


def _explain(error: BaseException, cfg: LessonConfig) -> int | None:
    """Print what happened and what to do; return the exit code, or None for a fault of ours that needs its trace."""
    trace = traceback.format_exc()
    if isinstance(error, OSError):
        error = readable(error, getattr(error, "filename", None) or cfg.out)
    code = 1
    if isinstance(error, BrokenPipeError):  # python lesson.py | head: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, LessonError):
        sentence = str(error)
    elif isinstance(error, KeyboardInterrupt):
        sentence = f"stopped by you. What was saved is in {cfg.out}; a lesson that trains goes on with --resume."
        code = 130
    elif isinstance(error, NotImplementedError):
        sentence = str(error) or "a part of this lesson is still to be written."
    elif isinstance(error, ModuleNotFoundError) and not _OURS.match(error.name or "common"):
        sentence = (
            f"this lesson needs the package {error.name.split('.')[0]}, which is not installed. "
            'Install what all lessons need: python -m pip install -c constraints.txt -e ".[all]"'
        )
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        sentence = (
            "not enough memory. Try a smaller --batch-size, or --tiny to see the lesson at all."
        )
    else:
        return None
    print(f"\n{trace if cfg.debug else ''}error: {sentence}", file=sys.stderr, flush=True)
    return code


def _write_result(
    cfg: LessonConfig, key: str, log: record.Record, metrics: dict, seconds: float, status: str
) -> None:
    metrics = _plain(metrics)
    curves = {name: value for name, value in metrics.items() if isinstance(value, (list, dict))}
    result = {
        "lesson": key,
        "status": status,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {
            k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(cfg).items()
        },
        "metrics": {k: v for k, v in metrics.items() if k not in curves},
        "claims": log.as_dict()["claims"],
        "data": log.data,
        "test_reads": log.test_reads,
        "figures": log.figures,
        "seconds": round(seconds, 2),
        "peak_memory_mib": _peak_memory(),
        "versions": versions(),
        "threads": sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 1,
        "curves": curves,
    }
    write_json(cfg.out / "result.json", result)
    line = {k: result[k] for k in ("date", "status", "settings", "metrics", "seconds", "curves")}
    runs = cfg.out / "runs.jsonl"
    try:
        past = runs.read_bytes() if runs.exists() else b""
    except OSError as error:
        raise readable(error, runs) from error
    write_bytes(
        runs, past + (json.dumps(line, ensure_ascii=False) + "\n").encode()
    )  # whole: half a line spoils two


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and torch as Python's own, so that JSON can hold them."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def versions() -> dict[str, str]:
    """Versions of what a result depends on, as far as this run has imported it."""
    names = ("numpy", "scipy", "pandas", "sklearn", "torch", "torchvision")
    return {"python": platform.python_version()} | {
        name: str(sys.modules[name].__version__)
        for name in names
        if hasattr(sys.modules.get(name), "__version__")
    }


def _verdict(log: record.Record) -> str:
    held = sum(claim.status == "passed" for claim in log.claims)
    open_ = sum(claim.status == "not judged" for claim in log.claims)
    return f"{held} claims hold" + (f", {open_} not judged in a tiny run" if open_ else "")


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
