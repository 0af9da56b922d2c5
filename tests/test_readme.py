"""The plan and the two READMEs: whole, in agreement with each other and with the scripts on disk.

Ticks and the cells of the progress table are the learner's, so nothing here looks at them.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.course import cli, sync
from common.course import curriculum as plan
from common.course.readme import NAMES, Readme, region_of
from common.lessons import ROOT, all_lessons

TEXTS = {language: (ROOT / name).read_text(encoding="utf-8") for language, name in NAMES.items()}
CURRICULUM = plan.load()
# named scripts, electives, projects, weeks of each phase
COUNTS = [
    (7, 1, 1, 1),
    (7, 0, 0, 2),
    (10, 2, 1, 1),
    (9, 2, 1, 1),
    (12, 2, 1, 2),
    (9, 1, 2, 2),
    (10, 2, 2, 3),
    (8, 2, 1, 2),
    (10, 7, 0, 1),
    (8, 1, 1, 2),
    (8, 1, 1, 2),
    (10, 5, 1, 3),
]

# what the course plan asks of the README, item by item, in the order in which it has to stand there
ITEMS = {
    "learner": (
        [
            "senior web full-stack engineer",
            "AI or algorithm role",
            "Python and PyTorch",
            "20–24 weeks",
            "10–15 hours",
        ],
        ["AI 或算法岗位", "资深 Web 全栈开发工程师", "Python + PyTorch", "10–15 小时", "20–24 周"],
    ),
    "goals": (
        [
            "principles and the mathematics of deep learning",
            "build every kind of network fluently in PyTorch",
            "computer-vision and NLP projects alone",
            "understand large models, fine-tune them and apply them",
            "algorithm-engineer interviews",
        ],
        [
            "理解深度学习的原理和背后的数学",
            "用 PyTorch 熟练搭建各类网络",
            "独立完成计算机视觉（CV）和自然语言处理（NLP）项目",
            "理解大模型，会微调，也会应用",
            "算法工程师面试",
        ],
    ),
    "method": (
        [
            "Run the code first, then the theory",
            "Keep your own notes",
            "`docs/notes/`",
            "CONCEPTS",
            "Learn by project",
            "end of every phase",
            "from phase 5 on, one or two classic papers a week",
            "Record every experiment",
            "accuracy",
            "loss curve",
            "compare methods",
        ],
        [
            "先跑代码，再看理论",
            "记自己的笔记",
            "`docs/notes/`",
            "CONCEPTS",
            "用项目来学",
            "每个阶段末尾",
            "从第 5 阶段起，每周一两篇经典论文",
            "记录每次实验",
            "准确率",
            "损失曲线",
            "比较不同方法",
        ],
    ),
}


def section(text: str, number: int) -> str:
    """One "##" section, by its place."""
    return re.split(r"(?m)^## ", text)[number]


SECTIONS = {"learner": 2, "goals": 2, "progress": 4, "milestones": 5, "method": 6, "checklist": 7}


def test_the_plan_has_every_script() -> None:
    kinds = ("named", "elective", "project")
    assert [tuple(len(phase.of_kind(kind)) for kind in kinds) for phase in CURRICULUM.phases] == [
        c[:3] for c in COUNTS
    ]
    assert [sum(column) for column in zip(*COUNTS)][:3] == [108, 26, 12] and len(
        CURRICULUM.entries
    ) == 146
    assert sum(entry.is_core for entry in CURRICULUM.entries) == 120
    files = [entry.file for entry in CURRICULUM.entries]
    assert len(set(files)) == 146, "the READMEs' lines are found by the file's name"
    for phase in CURRICULUM.phases:
        assert phase.folder.startswith(f"phase{phase.number:02d}_")
        numbers = [entry.file[:2] for entry in phase.entries if entry.kind != "project"]
        assert numbers == [f"{number:02d}" for number in range(1, len(numbers) + 1)]
        assert all(
            entry.file.startswith("project-") == (entry.kind == "project")
            for entry in phase.entries
        )


def test_titles_in_both_languages() -> None:
    for entry in CURRICULUM.entries:
        assert entry.title("en").isascii() or not re.search(r"[\u4e00-\u9fff]", entry.title("en"))
        assert re.search(r"[\u4e00-\u9fff]", entry.title("zh")), entry.file
        assert " · " not in entry.title("en") + entry.title("zh")


def test_minutes_fit_the_weeks() -> None:
    """Each phase fits its weeks at 15 hours, and all of it 20 to 24 weeks of 10 to 15 hours."""
    for phase, (*_, weeks) in zip(CURRICULUM.phases, COUNTS):
        hours = sum(entry.minutes for entry in phase.entries if entry.is_core) / 60
        assert 9 * weeks <= hours <= 15 * weeks, phase.folder
    hours = sum(entry.minutes for entry in CURRICULUM.entries if entry.is_core) / 60
    assert 20 * 10 <= hours <= 22 * 15
    assert (
        f"about {round(hours, -1):.0f} hours" in TEXTS["en"]
        and f"约 {round(hours, -1):.0f} 小时" in TEXTS["zh"]
    )


def test_every_script_on_disk_is_in_the_plan() -> None:
    assert {lesson.key for lesson in all_lessons()} <= {
        entry.lesson.key for entry in CURRICULUM.entries
    }


@pytest.mark.parametrize("language", NAMES)
def test_readme_agrees_with_plan_and_files(language: str) -> None:
    """`course sync` would change nothing but cells of the progress table.

    Those may lag behind ticks made by hand.
    """
    readme = Readme(ROOT / NAMES[language], language)
    assert readme.faults(CURRICULUM) == []
    sync.sync_readme(readme, CURRICULUM, readme.ticked())
    cells = re.compile(r"\d+/\d+( \(\+\d+\))?|[⏳🔄✅]")
    assert cells.sub("", readme.text).split("\n") == cells.sub("", readme.original).split("\n"), (
        "run `course sync`"
    )


@pytest.mark.parametrize("language", NAMES)
def test_sync_writes_the_whole_plan_in_order(tmp_path: Path, language: str) -> None:
    markers = "\n".join(
        f"<!-- course:{name} -->\n<!-- /course:{name} -->"
        for name in ["progress", *(region_of(phase) for phase in CURRICULUM.phases)]
    )
    (tmp_path / NAMES[language]).write_text(markers + "\n", encoding="utf-8")
    readme = Readme(tmp_path / NAMES[language], language)
    sync.sync_readme(readme, CURRICULUM, set())
    scripts = re.findall(r"^- \[ \] \[?((?:\d\d|project)-[\w-]+\.py)", readme.text, re.MULTILINE)
    assert scripts == [entry.file for entry in CURRICULUM.entries]
    assert len(re.findall(r"^\|", readme.text, re.MULTILINE)) == 2 + 12 + 1
    for entry in CURRICULUM.entries:
        line = next(line for line in readme.text.split("\n") if entry.file in line)
        assert (
            ("*not yet written*" in line or "*尚未写出*" in line)
            != entry.is_written
            == ("](" in line)
        )
        assert ("· elective" in line or "· 选修" in line) != entry.is_core


@pytest.mark.parametrize("language, place", [("en", 0), ("zh", 1)])
@pytest.mark.parametrize("name", ITEMS)
def test_what_the_plan_asks_for_is_there(name: str, language: str, place: int) -> None:
    text = re.sub(r"\s+", " ", section(TEXTS[language], SECTIONS[name]))
    for item in ITEMS[name][place]:
        assert item in text, item


@pytest.mark.parametrize("language", NAMES)
def test_goals_and_methods_are_five(language: str) -> None:
    for name in ("goals", "method"):
        assert re.findall(r"(?m)^(\d)\. ", section(TEXTS[language], SECTIONS[name])) == list(
            "12345"
        )


@pytest.mark.parametrize("language", NAMES)
def test_milestones_are_those_of_the_plan(language: str) -> None:
    points = section(TEXTS[language], SECTIONS["milestones"]).split("\n- ")[1:]
    assert len(points) == len(CURRICULUM.milestones) == 5
    for point, milestone in zip(points, CURRICULUM.milestones):
        point = re.sub(r"\s+", " ", point)
        assert f"{milestone.week}" in point.split("**")[1]
        assert f"{milestone.phases[0]}" in point or len(milestone.phases) == 12
        assert len(milestone.items[language]) >= 4
        for item in milestone.items[language]:
            assert item in point, item
    assert [m.week for m in CURRICULUM.milestones] == [4, 8, 12, 18, 24]


@pytest.mark.parametrize("language", NAMES)
def test_weeks_and_projects_of_the_progress_table(language: str) -> None:
    table, checklist = (
        section(TEXTS[language], SECTIONS[name]) for name in ("progress", "checklist")
    )
    rows = re.findall(r"(?m)^\| ([^|]+) \| ([^|]+) \| [^|]+ \| ([^|]+) \| \S+ \|$", table)
    weeks = [
        "1",
        "2–3",
        "4",
        "5",
        "6–7",
        "8–9",
        "10–12",
        "13–14",
        "15 (–16)",
        "16–17",
        "18–19",
        "20–22",
        "23–24",
    ]
    assert [row[0] for row in rows if row[0][0].isdigit()] == weeks
    projects = [row[2] for row in rows if row[0][0].isdigit()]
    words = [
        "Titanic/Iris",
        "–",
        "MNIST",
        "regression 回归",
        "CIFAR-10",
        "forecast 股票",
        "BERT",
        "GAN",
        "–",
        "YOLOv8",
        "sentiment 情感",
        "LoRA",
        "–",
    ]
    for project, expected in zip(projects, words, strict=True):
        assert any(word in project for word in expected.split()), project
    headings = re.findall(
        r"(?m)^### \D+ (\d+)(?: 阶段)? · (.+?) ?[(（]\D*([\d–() ]+?)(?: 周)?[)）]$", checklist
    )
    assert headings == [(str(p.number), p.titles[language], p.weeks) for p in CURRICULUM.phases]


def test_both_languages_hold_the_same() -> None:
    """The same headings, code, tables, lists, pictures and links, one for one.

    Progress and checklist are left out: there the learner may write freely.
    """
    free = (SECTIONS["progress"], SECTIONS["checklist"])
    english, chinese = (
        "\n## ".join(part for number, part in enumerate(text.split("\n## ")) if number not in free)
        for text in TEXTS.values()
    )
    for pattern in (
        r"^## ",
        r"^\|",
        r"^- ",
        r"^- \*\*",
        r"^\d\. ",
        r"^!\[",
        r"^\*\*",
        r"^<details>",
        r"TODO-MEASURE",
    ):
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1], pattern
    assert code(english) == code(chinese)
    links = [
        [
            target.replace(".zh.md", ".md")
            for target in re.findall(r"\]\(([^)]+)\)", text)
            if "docs/" not in target
        ]
        for text in (english, chinese)
    ]
    assert links[0] == links[1]
    assert len(chinese) > len(english) / 4


def code(text: str) -> list[str]:
    """The fenced blocks without their comments."""
    return [re.sub(r" *#.*", "", block) for block in re.findall(r"(?ms)^```\w+\n(.*?)^```", text)]


@pytest.mark.parametrize("language", NAMES)
def test_links_lead_somewhere(language: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXTS[language]):
        assert (ROOT / target).exists(), target


def command(text: str, name: str) -> str:
    block = re.search(rf"(?m)^<!-- command:{name} -->\n```bash\n(.+)\n```$", text)
    assert block, name
    return block[1]


@pytest.mark.parametrize("language", NAMES)
def test_the_two_commands(language: str) -> None:
    first, second = (command(TEXTS[language], name) for name in ("try", "test"))
    assert first.startswith("python3 common/course/needs.py && python3 -m venv .venv && ")
    assert " -c constraints.txt -e . " in first
    assert first.endswith(".venv/bin/python phase03_pytorch/project-mnist.py")
    assert second.startswith("test -x .venv/bin/python || { python3 common/course/needs.py && ")
    assert '-c constraints.txt -e ".[all]"' in second and second.endswith("-m pytest")
    assert TEXTS[language].index("5.5 GB") < TEXTS[language].index("<!-- command:try -->"), (
        "sizes first"
    )
    assert TEXTS[language][: TEXTS[language].index("<!-- command:test -->")].count("\n") < 25, (
        "in the first screen"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("there", [True, False])
def test_the_second_command_makes_the_environment_only_if_absent(
    tmp_path: Path, there: bool
) -> None:
    """The line as it stands, with a stand-in for Python that writes down how it was called."""
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\necho "$@" >> log\n'
        'if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi\n'
    )
    fake.chmod(0o755)
    if there:
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        (tmp_path / ".venv" / "bin" / "python").write_bytes(fake.read_bytes())
        (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    subprocess.run(
        ["sh", "-c", command(TEXTS["en"], "test")],
        cwd=tmp_path,
        check=True,
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
    )
    calls = (tmp_path / "log").read_text().splitlines()
    made = [] if there else ["common/course/needs.py", "-m venv .venv"]
    assert calls == [*made, "-m pip install -c constraints.txt -e .[all]", "-m pytest"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("name", ["try", "test"])
def test_a_python_that_does_not_fit_downloads_nothing(tmp_path: Path, name: str) -> None:
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@" >> log\nexit 1\n')
    fake.chmod(0o755)
    answer = subprocess.run(
        ["sh", "-c", command(TEXTS["en"], name)],
        cwd=tmp_path,
        check=False,
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
    )
    assert answer.returncode != 0
    assert (tmp_path / "log").read_text() == "common/course/needs.py\n"


@pytest.mark.parametrize("version, fits", [((3, 10), 0), ((3, 11), 1), ((3, 13), 1), ((3, 14), 0)])
def test_which_python_fits_is_said_in_one_sentence(version: tuple, fits: bool) -> None:
    script = ROOT / "common" / "course" / "needs.py"
    code = f"import runpy, sys; sys.version_info = {version}; runpy.run_path({str(script)!r})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == (0 if fits else 1)
    assert answer.stdout == "" and answer.stderr.count("\n") == (0 if fits else 1)
    assert fits or answer.stderr.startswith("This course needs Python 3.11, 3.12 or 3.13")


@pytest.mark.parametrize("language", NAMES)
def test_settings_are_named_without_a_host(language: str) -> None:
    names = "PIP_INDEX_URL UV_DEFAULT_INDEX COURSE_MIRROR HF_ENDPOINT COURSE_DATA COURSE_LANG"
    assert not [name for name in names.split() if f"`{name}" not in TEXTS[language]]


def test_the_workflow_runs_the_readmes_command() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert command(TEXTS["en"], "test") in text, "the README's command, word for word"
    windows = re.search(r"(?s)```powershell\nif (.+?)\n```", TEXTS["en"])[1]
    for step in windows.split("; ")[1:]:
        assert step in text, step
    assert "not run anywhere yet" in text
    for system in ("ubuntu", "macos", "windows"):
        assert f"{system}-latest" in text
    assert all(f'"3.{minor}"' in text for minor in (11, 12, 13))


@pytest.mark.parametrize("language", NAMES)
def test_every_course_command_is_named_and_none_is_invented(language: str) -> None:
    assert set(re.findall(r"(?m)(?:`|&& |^)course ([a-z]+)", TEXTS[language])) == set(cli.COMMANDS)
    for flag in set(re.findall(r"`course \w+ [^`]*?(--[a-z]+)", TEXTS[language])):
        assert flag in ("--undo", "--mine", "--restore"), flag
