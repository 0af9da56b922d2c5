"""A lesson's settings and its `main`: one dataclass field is one flag. Imports no torch.

    @dataclass
    class Config(LessonConfig):
        epochs: int = param(10, "passes over the data", tiny=1, long=40)

An explicit flag wins, then --tiny or --preset, then the default.
"""

import argparse
import dataclasses
import difflib
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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, get_args

from common import record
from common.errors import ClaimFailed, LessonError
from common.files import checked_folder, locked, readable, write_bytes, write_json
from common.lessons import Lesson, lesson_of, shown
from common.threads import use_threads

if TYPE_CHECKING:
    import numpy as np
    import torch


# a lesson's settings -> its numbers and curves; None if it only answered a question
Run = Callable[[Any], dict | None]
# without it the words of the command line
Argv = list[str] | None
# a module of this name that is missing is a file of ours, not a package of others
_OURS = re.compile(r"(common|practice|phase\d\d_\w+)(\.|$)")


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
    """A setting: its value, what it means, and its value under --tiny, --preset long or quick.

    A whole number must be 1 or more and a fraction 0 or more, unless `low` says otherwise.
    """
    values = {"tiny": tiny, "long": long, "quick": quick}
    presets = {name: value for name, value in values.items() if value is not MISSING}
    meta = {"help": help, "presets": presets, "choices": choices, "low": low}
    return dataclasses.field(default=default, metadata=meta)


@dataclass
class LessonConfig:
    """The flags of every lesson. A lesson's own Config inherits them and adds its own."""

    tiny: bool = param(False, "a few seconds on a little data; learned claims are not judged")
    preset: str = param("default", "longer or quicker, where there are such", choices=("default",))
    device: str = param("auto", "auto, cpu, cuda, cuda:1, mps")
    seed: int = param(0, "seed of every random number", low=0)
    data: str = param("generated", "data set", choices=("generated",))
    data_dir: Path | None = param(None, "where the data is, before COURSE_DATA")
    out: Path | None = param(None, "for results, by default outputs/<phase>/<lesson>")
    resume: bool = param(False, "go on from the last checkpoint in --out")
    debug: bool = param(False, "show the whole trace of an error")
    # no flag: a lesson on small arrays says `threads = 1`, None leaves it to the libraries
    threads: ClassVar[int | None] = None

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


def parse(config_class: type, doc: str, argv: Argv = None, prog: str | None = None) -> LessonConfig:
    """Command line -> settings. Raises SystemExit(2) with one sentence when a flag is wrong."""
    parser = Parser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    fields = dataclasses.fields(config_class)
    presets = {name for field in fields for name in field.metadata["presets"]} - {"tiny"}
    for field in fields:
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, **_argument(field, sorted(presets)))
    given = vars(parser.parse_args(argv))

    mode = "tiny" if given.get("tiny") else given.get("preset", "default")
    usual = {field.name: field.metadata["presets"].get(mode, field.default) for field in fields}
    return config_class(**usual | given)


def _argument(field: dataclasses.Field, presets: list[str]) -> dict[str, Any]:
    """What argparse has to know about a field."""
    meta = field.metadata
    help_text = meta["help"]
    if field.default is not None and field.default is not False:
        others = "".join(f", {name} {value}" for name, value in meta["presets"].items())
        help_text += f" (default {field.default}{others})"
    help_text = help_text.replace("%", "%%")

    if field.type is bool:
        action = argparse.BooleanOptionalAction if field.default else "store_true"
        return {"action": action, "help": help_text}

    kinds = [kind for kind in get_args(field.type) if kind is not type(None)]
    kind = kinds[0] if kinds else field.type
    if kind in (int, float):
        kind = number(kind, meta["low"])
    elif kind is Path:
        kind = _path
    choices = ("default", *presets) if field.name == "preset" else meta["choices"]
    metavar = None if choices else field.name.upper()
    return {"type": kind, "help": help_text, "choices": choices, "metavar": metavar}


def number(kind: type, low: float | None = None) -> Callable[[str], float]:
    """For argparse: text -> int or float, not below `low` (1 for whole numbers, else 0)."""
    lowest = low if low is not None else (1 if kind is int else 0)
    name = "whole number" if kind is int else "number"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name}") from None
        # not (a >= b) also refuses nan, and the next line inf
        if not value >= lowest:
            raise argparse.ArgumentTypeError(f"must be {lowest:g} or more, got {text}")
        if value >= 2**63:
            raise argparse.ArgumentTypeError(f"{text} is too large")
        return value

    return convert


def _path(text: str) -> Path:
    # Path("") would be the folder one stands in
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name is no folder")
    return Path(text)


def main(run: Run, config_class: type, doc: str | None, argv: Argv = None) -> NoReturn:
    """The last line of every lesson: parse, seed, run, write result.json, exit."""
    raise SystemExit(execute(run, config_class, doc, argv))


def execute(run: Run, config_class: type, doc: str | None, argv: Argv = None) -> int:
    """What `main` does, returning the exit code. Tests call this."""
    for stream in (sys.stdout, sys.stderr):
        # a Windows console may not know ✓
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    lesson = lesson_of(inspect.getfile(run))
    # python -OO strips the docstring; in the file it still stands
    doc = doc or lesson.doc
    cfg = parse(config_class, doc, argv, prog=lesson.path.name)
    cfg.out = cfg.out or lesson.out(cfg.tiny)

    log = record.start(cfg.tiny)
    start = time.perf_counter()
    result = {"lesson": lesson.key, "status": "passed"}
    metrics = None
    code = 0
    try:
        result["guess"] = _guess()
        cfg.out = checked_folder(cfg.out, "--out", make=True)
        _seed(cfg)
        print(f"{doc.strip().splitlines()[0]}\n{_mode(cfg)} · seed {cfg.seed}{_device(cfg)}")
        metrics = run(cfg)
        log.judge()
    except BaseException as error:  # also Ctrl-C
        code = _explain(error, cfg)
        # a fault of ours needs its trace
        if code is None:
            raise
        if isinstance(error, ClaimFailed):
            # what a run that went to its end has measured is kept, whether its claims hold or not
            result["status"] = "failed"
            metrics = metrics or {}

    # a prediction or a stopped run leaves the last result alone
    if metrics is None:
        return code
    seconds = time.perf_counter() - start
    try:
        _write_result(result, cfg, log, _plain(metrics), seconds)
    except LessonError as error:
        return _explain(error, cfg)
    if metrics or result["status"] == "passed":
        _compare_guess(lesson, result, cfg)
    if code == 0:
        print(f"\n{_verdict(log)} in {seconds:.1f} s · {shown(cfg.out / 'result.json')}")
    return code


def _guess() -> float | None:
    """What the learner expects the Predict line's number to be, as `course run` hands it on."""
    text = os.environ.get("COURSE_GUESS", "").strip()
    if not text:
        return None
    try:
        return number(float, -(2**63))(text)
    except argparse.ArgumentTypeError as error:
        raise LessonError(f"COURSE_GUESS: {error}.") from None


def _compare_guess(lesson: Lesson, result: dict, cfg: LessonConfig) -> None:
    """Show the guess beside what came out; say so if the Predict line names what there is not.

    The question is about the default data: on others its number may be missing.
    """
    predict = lesson.predict
    if predict is None:
        return
    value = result["metrics"].get(predict.key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        if value is None and _on_other_data(cfg):
            return
        place = f"{shown(lesson.path)}, line {predict.line}"
        names = ", ".join(result["metrics"]) or "none"
        sentence = f"“{predict.key}” is no number of the result, which has: {names}."
        print(f"\nwarning: {place}: {sentence}", file=sys.stderr, flush=True)
    elif result["guess"] is not None:
        guessed = f"you guessed {_figure(result['guess'])}, it is {_figure(value)}"
        print(f"\n{predict.question}\n{guessed}")


def _on_other_data(cfg: LessonConfig) -> bool:
    """Does a flag of text (--data, --csv, --target …) differ from its default?"""
    fields = (f for f in dataclasses.fields(cfg) if f.type not in (bool, int, float))
    texts = [f for f in fields if f.name not in ("out", "data_dir", "device", "preset")]
    return any(getattr(cfg, field.name) != field.default for field in texts)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _seed(cfg: LessonConfig) -> None:
    random.seed(cfg.seed)
    # a tiny run is small in any lesson
    threads = 1 if cfg.tiny else cfg.threads
    if threads:
        use_threads(threads)
    # a NumPy lesson never pays for importing torch
    if "torch" not in sys.modules:
        return
    from common.device import seed_everything

    seed_everything(cfg.seed)


def _mode(cfg: LessonConfig) -> str:
    if cfg.tiny:
        return "tiny run"
    return "normal run" if cfg.preset == "default" else f"preset {cfg.preset}"


def _device(cfg: LessonConfig) -> str:
    if "torch" not in sys.modules:
        return ""
    threads = sys.modules["torch"].get_num_threads()
    return f" · device {cfg.torch_device()} · {threads} thread(s)"


def _explain(error: BaseException, cfg: LessonConfig) -> int | None:
    """Print what happened and what to do; return the exit code. None: a fault of ours."""
    trace = traceback.format_exc() if cfg.debug else ""
    # python lesson.py | head: the reader has seen enough
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, OSError):
        error = readable(error, getattr(error, "filename", None) or cfg.out)
    sentence = _sentence(error, cfg)
    if sentence is None:
        return None
    print(f"\n{trace}error: {sentence}", file=sys.stderr, flush=True)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _sentence(error: BaseException, cfg: LessonConfig) -> str | None:
    """What may happen to a learner, in one sentence; None for everything else."""
    if isinstance(error, LessonError):
        return str(error)
    if isinstance(error, NotImplementedError):
        return str(error) or "a part of this lesson is still to be written."
    if isinstance(error, KeyboardInterrupt):
        saved = f"What was saved is in {shown(cfg.out)}"
        return f"stopped by you. {saved}; a lesson that trains goes on with --resume."
    if isinstance(error, ModuleNotFoundError) and not _OURS.match(error.name or "common"):
        package = error.name.split(".")[0]
        return (
            f"this lesson needs the package {package}, which is not installed. "
            'Install what all lessons need: python -m pip install -c constraints.txt -e ".[all]"'
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "not enough memory. Try a smaller --batch-size, or --tiny to see the lesson at all."
    return None


def _write_result(
    result: dict, cfg: LessonConfig, log: record.Record, metrics: dict, seconds: float
) -> None:
    """Complete `result`, write it to result.json, and a line of it to runs.jsonl."""
    curves = {name: value for name, value in metrics.items() if isinstance(value, (list, dict))}
    settings = dataclasses.asdict(cfg)
    for name, value in settings.items():
        settings[name] = str(value) if isinstance(value, Path) else value
    result |= {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "metrics": {name: value for name, value in metrics.items() if name not in curves},
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

    kept = ("date", "status", "settings", "metrics", "guess", "seconds", "curves")
    line = json.dumps({name: result[name] for name in kept}, ensure_ascii=False) + "\n"
    runs = cfg.out / "runs.jsonl"
    with locked(runs):
        try:
            past = runs.read_bytes() if runs.exists() else b""
        except OSError as error:
            raise readable(error, runs) from error
        # the whole file anew: half a line would spoil two
        write_bytes(runs, past + line.encode())


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
