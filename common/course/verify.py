"""`course verify`: run lessons in the normal mode, over several seeds, and write docs/RESULTS from what came out.

Each run is a process of its own and leaves outputs/verify/<lesson>/seed<k>/ with its result.json, its figures, log.txt,
and stamp.json, which says what was run. The results files are made anew from these folders after every run, so that a
kill loses at most the runs that were under way; --resume goes on from there.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timezone
from pathlib import Path

from common import lessons
from common.course import curriculum
from common.course.screen import shown
from common.errors import LessonError
from common.files import atomic_path, readable, write_json, write_text
from common.lessons import Lesson, all_lessons, find_lesson

LESSON_SECONDS, LESSON_MIB, PROJECT_SECONDS = 60, 2048, 900  # what a normal run may cost
BASELINE = re.compile(  # names of metrics that stand beside the result
    r"(^|[ _-])(guessing|chance|majority|linear|logistic|naive|nearest[ _-]neighbour|baseline)($|[ _-])"
)
MAIN_METRICS = 5  # how many the tables show: a lesson's first
FIGURE_WIDTH, FIGURE_COLOURS = 1100, 64  # of the figures that the notes show
USAGE_ERROR, STOPPED = 2, 130  # exit codes: does not know a flag; Ctrl-C


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="PHASE-OR-LESSON",
        help="such as 05 or 05/01 (default: everything)",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="run with the seeds 0 to N-1 (default 3)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at the same time, sharing the cores; above 1 the seconds mean little (default 1)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out what this very code has passed here"
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="with this data set, kept beside the results of the default one",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise LessonError("--seeds and --jobs are counts: give 1 or more.")
    if arguments.data and not re.fullmatch(r"[\w-]+", arguments.data):
        raise LessonError(
            f"--data {arguments.data} is no name of a data set. `course data` lists them."
        )
    chosen = choose(arguments.names, lessons.ROOT)
    return verify(
        chosen,
        range(arguments.seeds),
        lessons.ROOT,
        jobs=arguments.jobs,
        resume=arguments.resume,
        data=arguments.data,
    )


def choose(names: list[str], root: Path) -> list[Lesson]:
    """The lessons meant by phases ("05", "phase05_cnn") and lessons ("05/01"), in teaching order; none named: all."""
    everything = all_lessons(root)
    if not names:
        return everything
    keys = set()
    for name in names:
        phase = [
            x.key
            for x in everything
            if name.rstrip("/") == x.phase or name.isdigit() and int(name) == int(x.phase[5:7])
        ]
        keys.update(phase or [find_lesson(name, root).key])
    return [lesson for lesson in everything if lesson.key in keys]


def verify(
    chosen: list[Lesson],
    seeds: range,
    root: Path,
    *,
    jobs: int = 1,
    resume: bool = False,
    data: str | None = None,
) -> int:
    """Run every lesson with every seed, and bring docs/RESULTS up to date after each. Returns the exit code."""
    results, here = Results(root), machine()
    stamps = {
        lesson.key: {"fingerprint": code_fingerprint(lesson, root), "machine": here, "data": data}
        for lesson in chosen
    }
    pairs = [(lesson, seed) for lesson in chosen for seed in seeds]
    todo = [
        (lesson, seed)
        for lesson, seed in pairs
        if not (resume and _passed_before(folder(lesson, seed, root, data), stamps[lesson.key]))
    ]
    if len(pairs) > len(todo):
        print(
            f"{len(pairs) - len(todo)} of {len(pairs)} runs are left out: this very code has passed them here"
        )
    threads = max((os.cpu_count() or 1) // jobs, 1) if jobs > 1 else None
    not_taken = set()
    with ThreadPoolExecutor(jobs) as pool:
        runs = {
            pool.submit(run_one, lesson, seed, root, stamps[lesson.key], threads): (lesson, seed)
            for lesson, seed in todo
        }
        try:
            for number, finished in enumerate(as_completed(runs), 1):
                lesson, seed = runs[finished]
                outcome = finished.result()
                print(f"{number:4}/{len(todo)}  {_line(lesson, seed, outcome)}", flush=True)
                if outcome["code"] == USAGE_ERROR and data:
                    not_taken.add(lesson.key)
                else:
                    results.update(lesson, stamps[lesson.key])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    entries = {}
    for lesson in chosen:
        if lesson.key not in not_taken:
            entries[lesson.key] = results.update(lesson, stamps[lesson.key])
            if data is None:
                copy_figures(lesson, folder(lesson, 0, root), root)
    failed = {key: why for key, entry in entries.items() if (why := _fault(entry))}
    if not_taken:
        print(f"not run, for they do not take --data {data}: {', '.join(sorted(not_taken))}")
    print(
        f"{len(entries) - len(failed)} of {len(entries)} lessons passed with every seed · {shown(results.json)}"
    )
    for key, why in failed.items():
        print(f"  ✗ {key}: {why}")
    return 1 if failed or not entries else 0


def run_one(lesson: Lesson, seed: int, root: Path, stamp: dict, threads: int | None = None) -> dict:
    """One normal run. Returns {"code", "seconds", "error"}; everything else lies in its folder."""
    out = folder(lesson, seed, root, stamp["data"])
    try:
        shutil.rmtree(out, ignore_errors=True)  # what is found there afterwards is this run's
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise readable(error, out) from error
    environment = {k: v for k, v in os.environ.items() if k != "COURSE_MINE"} | {
        "PYTHONIOENCODING": "utf-8"
    }
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [
        sys.executable,
        str(lesson.path),
        "--seed",
        str(seed),
        "--out",
        str(out),
        *(["--data", stamp["data"]] if stamp["data"] else []),
    ]
    start = time.perf_counter()
    with open(out / "log.txt", "wb") as log:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        ).returncode
    words = (out / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    error = words[-1].removeprefix("error: ").replace(str(root), ".") if code and words else ""
    outcome = {"code": code, "seconds": round(time.perf_counter() - start, 1), "error": error}
    if code != STOPPED:  # Ctrl-C is no result
        write_json(out / "stamp.json", {"what": stamp, **outcome})
    return outcome


class Results:
    """docs/RESULTS.json and the two tables made from it."""

    def __init__(self, root: Path):
        self.root, self.json = root, root / "docs" / "RESULTS.json"
        self.lessons = _read_json(self.json).get("lessons", {}) if self.json.exists() else {}

    def update(self, lesson: Lesson, stamp: dict) -> dict | None:
        """Make the lesson's entry anew from its folders, drop entries of lessons that are gone, write the files."""
        key = lesson.key + (f"@{stamp['data']}" if stamp["data"] else "")
        entry = collect(lesson, self.root, stamp)
        if entry:
            self.lessons[key] = entry
        keys = [x.key for x in all_lessons(self.root)]
        self.lessons = {
            k: self.lessons[k]
            for k in sorted(
                (k for k in self.lessons if k.split("@")[0] in keys),
                key=lambda k: (keys.index(k.split("@")[0]), k),
            )
        }
        content = {"machine": stamp["machine"], "lessons": self.lessons}
        write_json(self.json, content)
        for language, name in (("en", "RESULTS.md"), ("zh", "RESULTS.zh.md")):
            write_text(self.json.with_name(name), render(content, self.root, language))
        return entry


def collect(lesson: Lesson, root: Path, stamp: dict) -> dict | None:
    """What all runs with this stamp say together, or None where there is none."""
    runs: dict[int, tuple[dict, dict]] = {}
    for path in folder(lesson, 0, root, stamp["data"]).parent.glob("seed*"):
        ran = _read_json(path / "stamp.json")
        if ran.get("what") == stamp and path.name[4:].isdigit():
            runs[int(path.name[4:])] = ran, _read_json(path / "result.json")
    if not runs:
        return None
    seeds, pairs = sorted(runs), [runs[seed] for seed in sorted(runs)]
    results = [result for _, result in pairs]
    names = dict.fromkeys(
        name
        for result in results
        for name, value in result.get("metrics", {}).items()
        if type(value) in (int, float)
    )
    claims = {claim: None for question in lesson.questions for claim in question.claims}
    claims |= {
        claim["id"]: claim for result in reversed(results) for claim in result.get("claims", [])
    }
    good = [ran["code"] == 0 and result.get("status") == "passed" for ran, result in pairs]
    seconds = [result.get("seconds", ran["seconds"]) for ran, result in pairs]
    memory = [m for result in results if (m := result.get("peak_memory_mib"))]
    reads = max((result.get("test_reads", 0) for result in results), default=0)
    entry = {
        "fingerprint": stamp["fingerprint"],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seeds": seeds,
        "status": "passed" if all(good) and reads <= 1 else "failed",
        "metrics": {
            name: _spread([result.get("metrics", {}).get(name) for result in results])
            for name in names
        },
        "claims": {
            id: {
                "kind": claim["kind"] if claim else "",
                "text": claim["text"] if claim else "",
                **_per_seed(id, results),
            }
            for id, claim in claims.items()
        },
        "seconds": _spread(seconds),
        "peak_memory_mib": max(memory, default=None),
        "versions": next((result["versions"] for result in results if "versions" in result), {}),
        "data": next(
            (_without_paths(result["data"]) for result in results if "data" in result), []
        ),
        "test_reads": reads,
        "over_budget": over_budget(lesson, max(seconds), max(memory, default=0)),
    }
    dates = [result["date"][:10] for result in results if "date" in result]
    errors = {str(seed): ran["error"] for seed, (ran, _) in runs.items() if ran["error"]}
    return entry | ({"date": max(dates)} if dates else {}) | ({"errors": errors} if errors else {})


def _passed_before(path: Path, stamp: dict) -> bool:
    ran = _read_json(path / "stamp.json")
    return ran.get("what") == stamp and ran["code"] == 0 and (path / "result.json").exists()


def _fault(entry: dict | None) -> str:
    """Why a lesson does not count as passed; empty when it does."""
    if entry is None:
        return "no run came to a result"
    if entry["status"] == "passed":
        return ""
    if entry["test_reads"] > 1:
        return f"the test set was read {entry['test_reads']} times"
    return next(iter(entry.get("errors", {}).values()), "a run wrote no result")


def _without_paths(data: list[str]) -> list[str]:
    """ "mnist (/home/me/data/mnist.npz)" -> "mnist": where it lay is nobody's business in a file that is published."""
    return [re.sub(r" \((?:[/~]|\w:\\).*\)$", "", line) for line in data]


def over_budget(lesson: Lesson, seconds: float, mib: float) -> list[str]:
    """Which of the limits of a normal run were passed: "seconds", "memory"."""
    if lesson.is_project:
        return ["seconds"] if seconds > PROJECT_SECONDS else []
    return ["seconds"] * (seconds > LESSON_SECONDS) + ["memory"] * (mib > LESSON_MIB)


def code_fingerprint(lesson: Lesson, root: Path) -> str:
    """A hash of all code that a run depends on: the script, the lessons it loads, and `common` without the command."""
    files, waiting = set(), [lesson.path]
    while waiting:
        path = waiting.pop()
        if path not in files and path.exists():
            files.add(path)
            loaded = re.findall(r'load_lesson\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
            waiting += [root / f"{key}.py" for key in loaded]
    files.update((root / "common").glob("*.py"), (root / "common" / "data").glob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def machine() -> dict[str, str | int]:
    """What the seconds depend on."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "not installed"
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "torch": torch,
    }


def cpu_name() -> str:
    """The processor's name as its maker writes it; platform.processor() is empty on most Linux systems."""
    try:
        if found := re.search(
            r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        ):
            return found[1]
        if sys.platform == "darwin":
            answer = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
            )
            return answer.stdout.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def folder(lesson: Lesson, seed: int, root: Path, data: str | None = None) -> Path:
    return root / "outputs" / "verify" / lesson.key / (data or "") / f"seed{seed}"


def copy_figures(lesson: Lesson, source: Path, root: Path) -> list[Path]:
    """Take the figures that the lesson's notes show out of a passed run, small enough for a repository."""
    if _read_json(source / "result.json").get("status") != "passed":
        return []
    stem, docs = lesson.path.stem, root / "docs" / lesson.phase
    notes = "".join(note.read_text(encoding="utf-8") for note in docs.glob(f"{stem}.*md"))
    written = []
    for name in sorted(set(re.findall(rf"figures/{re.escape(stem)}-([\w-]+)\.png", notes))):
        if (source / f"{name}.png").exists():
            written.append(shrink(source / f"{name}.png", docs / "figures" / f"{stem}-{name}.png"))
        else:
            print(
                f"  the note of {lesson.number} shows {stem}-{name}.png, but the run drew no {name}.png"
            )
    return written


def shrink(source: Path, target: Path) -> Path:
    """A copy at most 1,100 pixels wide with 64 colours: about half the bytes, and no difference to the eye.

    Max coverage keeps the colour of a thin line, which median cut, Pillow's own choice, mixes with its surroundings;
    a box filter makes no new colours beside an edge.
    """
    from PIL import Image

    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > FIGURE_WIDTH:
        height = round(picture.height * FIGURE_WIDTH / picture.width)
        picture = picture.resize((FIGURE_WIDTH, height), Image.Resampling.BOX)
    small = picture.quantize(
        FIGURE_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
    )
    with atomic_path(target) as temporary:
        small.save(temporary, "PNG", optimize=True)
    return target


WORDS = {
    "en": {
        "title": "Results",
        "baseline": "baseline",
        "lesson": "lesson",
        "result": "result: mean (lowest to highest)",
        "claims": "claims held",
        "seeds": "seeds",
        "seconds": "seconds",
        "memory": "MiB",
        "date": "date",
        "phase": "Phase {}",
        "none": "not run",
        "failed": "failed",
        "reads": "the test set was read {} times",
        "about": "Made by `course verify`, never typed: every lesson and project in its normal mode, which takes no "
        "flags. A claim is held when it is held with every seed. Seconds and memory are the highest of all "
        "seeds; ⚠ marks what is over its limit (lesson {} s and {} MiB, project {} s).",
        "machine": "Last measured on: {cpu}, {cores} cores, Python {python}, torch {torch}.",
    },
    "zh": {
        "title": "结果",
        "baseline": "基线",
        "lesson": "课程",
        "result": "结果：均值（最低到最高）",
        "claims": "成立的断言",
        "seeds": "种子数",
        "seconds": "秒",
        "memory": "MiB",
        "date": "日期",
        "phase": "第 {} 阶段",
        "none": "尚未运行",
        "failed": "未通过",
        "reads": "测试集被读取了 {} 次",
        "about": "本页由 `course verify` 生成，从不手写：每课与每个项目都以不带参数的正常模式运行。"
        "一条断言在所有种子下都成立才算成立。秒数与内存取各种子中的最大值；⚠ 表示超出限额"
        "（课程 {} 秒、{} MiB，项目 {} 秒）。",
        "machine": "最近一次测量的机器：{cpu}，{cores} 核，Python {python}，torch {torch}。",
    },
}


def render(content: dict, root: Path, language: str) -> str:
    """RESULTS.md in one of the two languages: a table per phase; lessons without a result are listed as not run."""
    words, every = WORDS[language], all_lessons(root)
    titles = {phase.folder: phase.titles[language] for phase in curriculum.load(root).phases}
    lines = [
        f"# {words['title']}",
        "",
        words["about"].format(LESSON_SECONDS, LESSON_MIB, PROJECT_SECONDS),
        "",
        words["machine"].format(**content["machine"]),
    ]
    columns = [
        words[w]
        for w in ("lesson", "result", "baseline", "claims", "seeds", "seconds", "memory", "date")
    ]
    for phase in dict.fromkeys(lesson.phase for lesson in every):
        lines += [
            "",
            f"## {words['phase'].format(int(phase[5:7]))} · {titles.get(phase, phase)}",
            "",
            _row(columns),
            _row(["---"] * len(columns)),
        ]
        for lesson in (x for x in every if x.phase == phase):
            found = [key for key in content["lessons"] if key.split("@")[0] == lesson.key]
            if lesson.key not in found:
                lines.append(
                    _row([_name(lesson, language, root), words["none"]] + [""] * (len(columns) - 2))
                )
            lines += [
                _row(_cells(_name(lesson, language, root, key), content["lessons"][key], words))
                for key in found
            ]
    return "\n".join(lines) + "\n"


def _name(lesson: Lesson, language: str, root: Path, key: str = "") -> str:
    title = (lesson.title_zh if language == "zh" else "") or lesson.title or lesson.path.stem
    note = f"{lesson.key}{'.zh' if language == 'zh' else ''}.md"
    text = f"{lesson.number} {title}"
    text = f"[{text}]({note})" if (root / "docs" / note).exists() else text
    return text + (f" `--data {key.split('@')[1]}`" if "@" in key else "")


def _cells(name: str, entry: dict, words: dict[str, str]) -> list[str]:
    metrics = {metric: spread for metric, spread in entry["metrics"].items() if spread}
    baselines = {metric: spread for metric, spread in metrics.items() if BASELINE.search(metric)}
    main = [metric for metric in metrics if metric not in baselines][:MAIN_METRICS]
    held = sum(all(s == "passed" for s in claim["status"]) for claim in entry["claims"].values())
    remark = f"**{words['failed']}** " if entry["status"] != "passed" else ""
    remark += f"⚠ {words['reads'].format(entry['test_reads'])} " if entry["test_reads"] > 1 else ""
    warn = {what: "⚠ " if what in entry["over_budget"] else "" for what in ("seconds", "memory")}
    return [
        name,
        remark + "<br>".join(f"{metric} {_range(metrics[metric])}" for metric in main),
        "<br>".join(f"{metric} {_range(spread)}" for metric, spread in baselines.items()),
        f"{held}/{len(entry['claims'])}",
        str(len(entry["seeds"])),
        f"{warn['seconds']}{entry['seconds']['max']:.1f}",
        f"{warn['memory']}{entry['peak_memory_mib'] or '?'}",
        entry["date"],
    ]


def _range(spread: dict) -> str:
    if spread["min"] == spread["max"]:
        return f"{spread['mean']:.4g}"
    return f"{spread['mean']:.4g} ({spread['min']:.4g}–{spread['max']:.4g})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _spread(values: list[float | None]) -> dict | None:
    """{"mean", "min", "max", "values"}; a seed without the value has None in "values". None where nothing is finite."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    return {
        "mean": statistics.fmean(known),
        "min": min(known),
        "max": max(known),
        "values": [v if v is not None and math.isfinite(v) else None for v in values],
    }


def _per_seed(id: str, results: list[dict]) -> dict[str, list[str]]:
    found = [
        next((c for c in result.get("claims", []) if c["id"] == id), None) for result in results
    ]
    return {
        "status": [claim["status"] if claim else "not reached" for claim in found],
        "measured": [claim["measured"] if claim else "" for claim in found],
    }


def _line(lesson: Lesson, seed: int, outcome: dict) -> str:
    mark, error = (
        "✗" if outcome["code"] else "✓",
        f"  {outcome['error']}" if outcome["error"] else "",
    )
    return f"{mark} {lesson.key}  seed {seed}  {outcome['seconds']:.1f} s{error}"


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        if path.name == "RESULTS.json":  # made by hand or by a merge: never thrown away in silence
            raise LessonError(
                f"{shown(path)} is not valid JSON. Restore it (git checkout {shown(path)}) or delete "
                "it."
            ) from None
        return {}
