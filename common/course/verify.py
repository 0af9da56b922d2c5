"""`course verify`: run lessons in the normal mode, over several seeds, and write docs/RESULTS.

Each run is a process of its own and leaves outputs/verify/<lesson>/seed<k>/ with its result.json,
its figures, log.txt, and stamp.json, which says what was run. The results files are made anew from
these folders after every run, so that a kill loses at most the runs that were under way; --resume
goes on from there. --stale runs nothing: it names the results that are older than their lesson.
"""

import argparse
import ast
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
from datetime import UTC, datetime
from pathlib import Path

from common import lessons
from common.course import curriculum
from common.course.screen import shown
from common.errors import LessonError
from common.files import atomic_path, locked, readable, write_json, write_text
from common.lessons import Lesson, all_lessons, find_lesson

LESSON_SECONDS, LESSON_MIB, PROJECT_SECONDS = 60, 2048, 900  # what a normal run may cost
# names of metrics that stand beside the result
BASELINE = re.compile(
    r"(^|[ _-])(guessing|chance|majority|linear|logistic|naive|nearest[ _-]neighbour|baseline)"
    r"($|[ _-])"
)
MAIN_METRICS = 5  # how many the tables show: a lesson's first
FIGURE_WIDTH, FIGURE_COLOURS = 1100, 64  # of the figures that the notes show
USAGE_ERROR, STOPPED = 2, 130  # exit codes: does not know a flag; Ctrl-C
TABLES = {"en": "RESULTS.md", "zh": "RESULTS.zh.md"}


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
        help="runs at the same time, sharing the cores; above 1 the seconds mean little",
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out what this very code has passed here"
    )
    parser.add_argument(
        "--stale", action="store_true", help="run nothing: name results older than their lesson"
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="with this data set, kept beside the results of the default one",
    )


def run(arguments: argparse.Namespace) -> int:
    root = lessons.ROOT
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise LessonError("--seeds and --jobs are counts: give 1 or more.")
    if arguments.data and not re.fullmatch(r"[\w-]+", arguments.data):
        raise LessonError(
            f"--data {arguments.data} is no name of a data set. `course data` lists them."
        )
    chosen = choose(arguments.names, root)
    if arguments.stale:
        return show_stale(chosen, root)
    seeds = range(arguments.seeds)
    how = {"jobs": arguments.jobs, "resume": arguments.resume, "data": arguments.data}
    return verify(chosen, seeds, root, **how)


def choose(names: list[str], root: Path) -> list[Lesson]:
    """The lessons meant by phases ("05", "phase05_cnn") and lessons ("05/01"); none named: all."""
    everything = all_lessons(root)
    if not names:
        return everything
    keys = set()
    for name in names:
        number = int(name) if name.isdigit() else None
        phase = [
            lesson.key
            for lesson in everything
            if lesson.phase == name.rstrip("/") or int(lesson.phase[5:7]) == number
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
    """Run every lesson with every seed, bring docs/RESULTS up to date; returns the exit code."""
    results = Results(root)
    stamps = {}
    for lesson in chosen:
        stamps[lesson.key] = {
            "fingerprint": code_fingerprint(lesson, root),
            "lesson": lesson_fingerprint(lesson, root),
            "machine": machine(),
            "data": data,
        }

    todo = [(lesson, seed) for lesson in chosen for seed in seeds]
    count = len(todo)
    if resume:
        todo = [
            (lesson, seed)
            for lesson, seed in todo
            if not _passed_before(folder(lesson, seed, root, data), stamps[lesson.key])
        ]
    if count > len(todo):
        left_out = f"{count - len(todo)} of {count} runs are left out"
        print(f"{left_out}: this very code has passed them here")
    not_taken = _run_all(todo, stamps, results, jobs)

    entries = {}
    for lesson in chosen:
        if lesson.key in not_taken:
            continue
        entries[lesson.key] = results.update(lesson, stamps[lesson.key])
        if data is None:
            copy_figures(lesson, folder(lesson, 0, root), root)
    if not_taken:
        print(f"not run, for they do not take --data {data}: {', '.join(sorted(not_taken))}")
    return _report(entries, results)


def _run_all(
    todo: list[tuple[Lesson, int]], stamps: dict[str, dict], results: "Results", jobs: int
) -> set[str]:
    """Run the pairs of lesson and seed, `jobs` at a time; returns who does not take the data."""
    threads = max((os.cpu_count() or 1) // jobs, 1) if jobs > 1 else None
    not_taken = set()
    with ThreadPoolExecutor(jobs) as pool:
        runs = {}
        for lesson, seed in todo:
            started = pool.submit(run_one, lesson, seed, results.root, stamps[lesson.key], threads)
            runs[started] = lesson, seed
        try:
            for number, finished in enumerate(as_completed(runs), 1):
                lesson, seed = runs[finished]
                outcome = finished.result()
                print(f"{number:4}/{len(todo)}  {_line(lesson, seed, outcome)}", flush=True)
                stamp = stamps[lesson.key]
                if outcome["code"] == USAGE_ERROR and stamp["data"]:
                    not_taken.add(lesson.key)
                else:
                    results.update(lesson, stamp)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return not_taken


def _report(entries: dict[str, dict | None], results: "Results") -> int:
    """Say what passed and what did not; returns the exit code."""
    faults = {key: _fault(entry) for key, entry in entries.items()}
    failed = {key: why for key, why in faults.items() if why}
    passed = f"{len(entries) - len(failed)} of {len(entries)} lessons passed with every seed"
    print(f"{passed} · {shown(results.json)}")
    for key, why in failed.items():
        print(f"  ✗ {key}: {why}")
    return 1 if failed or not entries else 0


def show_stale(chosen: list[Lesson], root: Path) -> int:
    """Name the results that are missing or older than their lesson; exit code 1 if any are."""
    results = Results(root).lessons
    stale = []
    for lesson in chosen:
        entries = {key: entry for key, entry in results.items() if key.split("@")[0] == lesson.key}
        if lesson.key not in entries:
            stale.append(lesson)
            print(f"{lesson.key}: no result")
        now = lesson_fingerprint(lesson, root)
        for key, entry in entries.items():
            if entry.get("lesson") != now:
                stale.append(lesson)
                print(f"{key}: measured {entry['date']}, and the lesson's code has changed since")
    if not stale:
        print(f"all {len(chosen)} lessons are as they were when they were measured")
        return 0
    numbers = " ".join(dict.fromkeys(lesson.number for lesson in stale))
    print(f"\ncourse verify {numbers}")
    return 1


def run_one(lesson: Lesson, seed: int, root: Path, stamp: dict, threads: int | None = None) -> dict:
    """One normal run: {"code", "seconds", "error"}; everything else lies in its folder."""
    out = folder(lesson, seed, root, stamp["data"])
    try:
        # what is found there afterwards is this run's
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise readable(error, out) from error

    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    environment.pop("COURSE_MINE", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, str(lesson.path), "--seed", str(seed), "--out", str(out)]
    if stamp["data"]:
        command += ["--data", stamp["data"]]

    start = time.perf_counter()
    with open(out / "log.txt", "wb") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        code = subprocess.run(command, env=environment, check=False, **streams).returncode
    seconds = round(time.perf_counter() - start, 1)

    words = (out / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    error = ""
    if code and words:
        error = words[-1].removeprefix("error: ").replace(str(root), ".")
    outcome = {"code": code, "seconds": seconds, "error": error}
    # Ctrl-C is no result
    if code != STOPPED:
        write_json(out / "stamp.json", {"what": stamp, **outcome})
    return outcome


class Results:
    """docs/RESULTS.json and the two tables made from it."""

    def __init__(self, root: Path):
        self.root, self.json = root, root / "docs" / "RESULTS.json"
        self.lessons = _read_json(self.json).get("lessons", {})

    def update(self, lesson: Lesson, stamp: dict) -> dict | None:
        """Make the lesson's entry anew from its folders, drop lessons that are gone, write."""
        key = lesson.key + (f"@{stamp['data']}" if stamp["data"] else "")
        entry = collect(lesson, self.root, stamp)
        with locked(self.json):
            # another `course verify` may have written since
            self.lessons = _read_json(self.json).get("lessons", {})
            if entry:
                self.lessons[key] = entry
            self._sort()
            content = {"machine": stamp["machine"], "lessons": self.lessons}
            write_text(self.json, as_lines(content))
            for language, name in TABLES.items():
                write_text(self.json.with_name(name), render(content, self.root, language))
        return entry

    def _sort(self) -> None:
        """As the lessons are taught, without those that are gone."""
        order = [lesson.key for lesson in all_lessons(self.root)]
        there = [key for key in self.lessons if key.split("@")[0] in order]
        there.sort(key=lambda key: (order.index(key.split("@")[0]), key))
        self.lessons = {key: self.lessons[key] for key in there}


def as_lines(content: dict) -> str:
    """JSON with one line for the machine and one a result: a diff then names the lessons."""

    def compact(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    entries = [f"    {compact(key)}: {compact(entry)}" for key, entry in content["lessons"].items()]
    body = "{\n" + ",\n".join(entries) + "\n  }" if entries else "{}"
    return f'{{\n  "machine": {compact(content["machine"])},\n  "lessons": {body}\n}}\n'


def tables(root: Path) -> dict[Path, str]:
    """{RESULTS.md or RESULTS.zh.md: its text}, where it is not what docs/RESULTS.json makes."""
    content = _read_json(root / "docs" / "RESULTS.json")
    changed = {}
    if "machine" in content:
        for language, name in TABLES.items():
            path, text = root / "docs" / name, render(content, root, language)
            if not path.exists() or path.read_bytes() != text.encode():
                changed[path] = text
    return changed


def collect(lesson: Lesson, root: Path, stamp: dict) -> dict | None:
    """What all runs with this stamp say together, or None where there is none."""
    runs: dict[int, tuple[dict, dict]] = {}
    for path in folder(lesson, 0, root, stamp["data"]).parent.glob("seed*"):
        ran = _read_json(path / "stamp.json")
        if ran.get("what") == stamp and path.name[4:].isdigit():
            runs[int(path.name[4:])] = ran, _read_json(path / "result.json")
    if not runs:
        return None
    runs = dict(sorted(runs.items()))
    results = [result for _, result in runs.values()]
    good = [ran["code"] == 0 and result.get("status") == "passed" for ran, result in runs.values()]
    seconds = [result.get("seconds", ran["seconds"]) for ran, result in runs.values()]
    memory = [result["peak_memory_mib"] for result in results if result.get("peak_memory_mib")]
    reads = max(result.get("test_reads", 0) for result in results)
    dates = [result["date"][:10] for result in results if "date" in result]
    entry = {
        "lesson": stamp["lesson"],
        "date": max(dates) if dates else datetime.now(UTC).date().isoformat(),
        "seeds": list(runs),
        "status": "passed" if all(good) and reads <= 1 else "failed",
        "metrics": _metrics(results),
        "claims": _claims(lesson, results),
        "seconds": _spread(seconds),
        "peak_memory_mib": max(memory, default=None),
        "versions": _first(results, "versions") or {},
        "data": _without_paths(_first(results, "data") or []),
        "test_reads": reads,
        "over_budget": over_budget(lesson, max(seconds), max(memory, default=0)),
    }
    errors = {str(seed): ran["error"] for seed, (ran, _) in runs.items() if ran["error"]}
    if errors:
        entry["errors"] = errors
    return entry


def _metrics(results: list[dict]) -> dict[str, dict | None]:
    """{metric: its spread over the seeds}, of all that are numbers."""
    names = {}
    for result in results:
        for name, value in result.get("metrics", {}).items():
            if type(value) in (int, float):
                names[name] = True
    return {name: _spread([r.get("metrics", {}).get(name) for r in results]) for name in names}


def _claims(lesson: Lesson, results: list[dict]) -> dict[str, dict]:
    """{claim: its kind, its text, and for every seed what came out}, the promised ones first."""
    claims: dict[str, dict] = {}
    for question in lesson.questions:
        for name in question.claims:
            claims[name] = {"kind": "", "text": ""}
    # the text of the first seed that reached the claim
    for result in reversed(results):
        for claim in result.get("claims", []):
            claims[claim["id"]] = {"kind": claim["kind"], "text": claim["text"]}
    return {name: about | _per_seed(name, results) for name, about in claims.items()}


def _per_seed(name: str, results: list[dict]) -> dict[str, list[str]]:
    status, measured = [], []
    for result in results:
        found = {claim["id"]: claim for claim in result.get("claims", [])}
        claim = found.get(name, {"status": "not reached", "measured": ""})
        status.append(claim["status"])
        measured.append(claim["measured"])
    return {"status": status, "measured": measured}


def _first(results: list[dict], name: str) -> object:
    return next((result[name] for result in results if name in result), None)


def _spread(values: list[float | None]) -> dict | None:
    """{"mean", "min", "max", "values"}; a seed without the value has None in "values".

    None where nothing is finite.
    """
    values = [v if v is not None and math.isfinite(v) else None for v in values]
    known = [v for v in values if v is not None]
    if not known:
        return None
    mean = statistics.fmean(known)
    return {"mean": mean, "min": min(known), "max": max(known), "values": values}


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
    """ "mnist (/home/me/data/mnist.npz)" -> "mnist": what is published names no place here."""
    return [re.sub(r" \((?:[/~]|\w:\\).*\)$", "", line) for line in data]


def over_budget(lesson: Lesson, seconds: float, mib: float) -> list[str]:
    """Which of the limits of a normal run were passed: "seconds", "memory"."""
    if lesson.is_project:
        return ["seconds"] if seconds > PROJECT_SECONDS else []
    return ["seconds"] * (seconds > LESSON_SECONDS) + ["memory"] * (mib > LESSON_MIB)


def sources(lesson: Lesson, root: Path) -> list[Path]:
    """The lesson's script and those of the lessons that it loads, directly or through another."""
    found, waiting = set(), [lesson.path]
    while waiting:
        path = waiting.pop()
        if path not in found and path.exists():
            found.add(path)
            loaded = re.findall(r'load_lesson\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
            waiting += [root / f"{key}.py" for key in loaded]
    return sorted(found)


def code_fingerprint(lesson: Lesson, root: Path) -> str:
    """A hash of every byte that a run depends on: its sources, and `common` without the command.

    --resume goes by it.
    """
    files = set(sources(lesson, root))
    files.update((root / "common").glob("*.py"), (root / "common" / "data").glob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def lesson_fingerprint(lesson: Lesson, root: Path) -> str:
    """A hash of what the lesson computes: its code without layout, comments and docstrings.

    It stands in docs/RESULTS.json, and --stale goes by it. The shared plumbing is left out, or
    every change there would make every result old.
    """
    digest = hashlib.sha256()
    for path in sources(lesson, root):
        try:
            code = _bare(ast.parse(path.read_text(encoding="utf-8")))
        except SyntaxError:
            code = path.read_text(encoding="utf-8")
        digest.update(f"{path.relative_to(root).as_posix()}\0{code}\0".encode())
    return digest.hexdigest()[:16]


def _bare(node: object) -> object:
    """The syntax tree as plain lists, without docstrings; empty fields differ between Pythons."""
    if isinstance(node, list):
        return [_bare(part) for part in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    body = fields.get("body")
    if isinstance(body, list) and body and _is_text(body[0]):
        fields["body"] = body[1:]
    parts = [[name, _bare(value)] for name, value in fields.items() if value not in (None, [])]
    return [type(node).__name__, *parts]


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@functools.cache
def machine() -> dict[str, str | int]:
    """What the seconds depend on."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "not installed"
    cores, python = os.cpu_count() or 1, platform.python_version()
    return {"cpu": cpu_name(), "cores": cores, "python": python, "torch": torch}


def cpu_name() -> str:
    """The processor's name as its maker writes it; most Linux systems give platform none."""
    try:
        about = Path("/proc/cpuinfo").read_text()
        if found := re.search(r"^model name\s*: (.+)$", about, re.MULTILINE):
            return found[1]
    except OSError:
        pass
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return answer.stdout.strip()
    return platform.processor() or platform.machine()


def folder(lesson: Lesson, seed: int, root: Path, data: str | None = None) -> Path:
    return root / "outputs" / "verify" / lesson.key / (data or "") / f"seed{seed}"


def copy_figures(lesson: Lesson, source: Path, root: Path) -> list[Path]:
    """Take the figures that the lesson's notes show out of a passed run, small for a repository."""
    if _read_json(source / "result.json").get("status") != "passed":
        return []
    stem, docs = lesson.path.stem, root / "docs" / lesson.phase
    notes = "".join(note.read_text(encoding="utf-8") for note in docs.glob(f"{stem}.*md"))
    written = []
    for name in sorted(set(re.findall(rf"figures/{re.escape(stem)}-([\w-]+)\.png", notes))):
        figure = f"{stem}-{name}.png"
        if (source / f"{name}.png").exists():
            written.append(shrink(source / f"{name}.png", docs / "figures" / figure))
        else:
            print(f"  the note of {lesson.number} shows {figure}, but the run drew no {name}.png")
    return written


def shrink(source: Path, target: Path) -> Path:
    """A copy at most 1,100 pixels wide with 64 colours: half the bytes, no difference to the eye.

    Max coverage keeps the colour of a thin line, which median cut, Pillow's own choice, mixes with
    its surroundings; a box filter makes no new colours beside an edge.
    """
    from PIL import Image

    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > FIGURE_WIDTH:
        height = round(picture.height * FIGURE_WIDTH / picture.width)
        picture = picture.resize((FIGURE_WIDTH, height), Image.Resampling.BOX)
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    small = picture.quantize(FIGURE_COLOURS, method=method, kmeans=2, dither=dither)
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
        "about": "Made by `course verify`, never typed: every lesson and project in its normal "
        "mode, which takes no flags. A claim is held when it is held with every seed. Seconds and "
        "memory are the highest of all seeds; ⚠ marks what is over its limit (lesson {} s and {} "
        "MiB, project {} s).",
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
    """RESULTS.md in one of the two languages: a table per phase; lessons without a result, too."""
    words, every = WORDS[language], all_lessons(root)
    titles = {phase.folder: phase.titles[language] for phase in curriculum.load(root).phases}
    lines = [
        f"# {words['title']}",
        "",
        words["about"].format(LESSON_SECONDS, LESSON_MIB, PROJECT_SECONDS),
        "",
        words["machine"].format(**content["machine"]),
    ]
    names = ("lesson", "result", "baseline", "claims", "seeds", "seconds", "memory", "date")
    columns = [words[name] for name in names]
    for phase in dict.fromkeys(lesson.phase for lesson in every):
        heading = f"{words['phase'].format(int(phase[5:7]))} · {titles.get(phase, phase)}"
        lines += ["", f"## {heading}", "", _row(columns), _row(["---"] * len(columns))]
        for lesson in every:
            if lesson.phase == phase:
                lines += _rows(lesson, content["lessons"], root, language)
    return "\n".join(lines) + "\n"


def _rows(lesson: Lesson, results: dict[str, dict], root: Path, language: str) -> list[str]:
    """The lesson's rows: one for each data set that it was measured with."""
    words, rows = WORDS[language], []
    found = [key for key in results if key.split("@")[0] == lesson.key]
    if lesson.key not in found:
        rows.append(_row([_name(lesson, language, root), words["none"], *[""] * 6]))
    for key in found:
        rows.append(_row(_cells(_name(lesson, language, root, key), results[key], words)))
    return rows


def _name(lesson: Lesson, language: str, root: Path, key: str = "") -> str:
    title = (lesson.title_zh if language == "zh" else "") or lesson.title or lesson.path.stem
    text = f"{lesson.number} {title}"
    note = f"{lesson.key}.zh.md" if language == "zh" else f"{lesson.key}.md"
    if (root / "docs" / note).exists():
        text = f"[{text}]({note})"
    if "@" in key:
        text += f" `--data {key.split('@')[1]}`"
    return text


def _cells(name: str, entry: dict, words: dict[str, str]) -> list[str]:
    metrics = {metric: spread for metric, spread in entry["metrics"].items() if spread}
    beside = [metric for metric in metrics if BASELINE.search(metric)]
    main = [metric for metric in metrics if metric not in beside][:MAIN_METRICS]
    held = [set(claim["status"]) == {"passed"} for claim in entry["claims"].values()]
    remark = ""
    if entry["status"] != "passed":
        remark += f"**{words['failed']}** "
    if entry["test_reads"] > 1:
        remark += f"⚠ {words['reads'].format(entry['test_reads'])} "
    warn = {what: "⚠ " if what in entry["over_budget"] else "" for what in ("seconds", "memory")}
    return [
        name,
        remark + "<br>".join(f"{metric} {_range(metrics[metric])}" for metric in main),
        "<br>".join(f"{metric} {_range(metrics[metric])}" for metric in beside),
        f"{sum(held)}/{len(held)}",
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


def _line(lesson: Lesson, seed: int, outcome: dict) -> str:
    mark = "✗" if outcome["code"] else "✓"
    error = f"  {outcome['error']}" if outcome["error"] else ""
    return f"{mark} {lesson.key}  seed {seed}  {outcome['seconds']:.1f} s{error}"


def _read_json(path: Path) -> dict:
    """Empty where there is none. Raises LessonError for damaged results; other damage is empty."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        # made by hand or by a merge: never thrown away in silence
        if path.name == "RESULTS.json":
            sentence = f"Restore it (git checkout {shown(path)}) or delete it."
            raise LessonError(f"{shown(path)} is not valid JSON. {sentence}") from None
        return {}
