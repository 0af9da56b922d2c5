"""The `course` command. Each command lives in a module of its own, imported only when it is asked for."""

import importlib
import os
import sys

from common.config import Parser
from common.errors import LessonError

# command -> (module, one line for --help); a module has configure(parser) and run(arguments) -> exit code
COMMANDS = {
    "list": ("common.course.overview", "all lessons, with ticks and minutes"),
    "help": ("common.course.overview", "what a lesson teaches and which flags it takes"),
    "next": ("common.course.overview", "the next lesson that is not ticked"),
    "run": ("common.course.running", "run a lesson; --mine uses your own practice copies"),
    "runs": (
        "common.course.running",
        "your past runs of a lesson, with their curves in one picture",
    ),
    "practice": (
        "common.course.practice",
        "open a lesson with its heart cut out; --check grades it",
    ),
    "hint": ("common.course.practice", "one more hint for the practice copy"),
    "solution": ("common.course.practice", "the taught code, once your copy has passed"),
    "watch": ("common.course.practice", "check the practice copy at every save"),
    "done": ("common.course.progress", "tick lessons in both READMEs"),
    "status": (
        "common.course.progress",
        "what is ticked, and the milestones; --restore after a pull",
    ),
    "note": ("common.course.progress", "open your own note on a lesson"),
    "data": ("common.course.fetching", "which data sets are here; download or check one"),
    "doctor": ("common.course.doctor", "is this machine ready, and how to mend what is not"),
    "sync": (
        "common.course.sync",
        "bring the generated parts of the READMEs and notes up to date (for authors)",
    ),
    "verify": (
        "common.course.verify",
        "run lessons in the normal mode and write docs/RESULTS (for authors)",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Mistakes get one sentence and no trace."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(
        prog="course",
        description="Deep learning by runnable lessons: find, run, practise, tick.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    command = None  # the module; set before parse_args lets a command through
    for name, (module, help_text) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            allow_abbrev=False,
        )
        if name == wanted:
            command = importlib.import_module(module)
            command.configure(sub, name)
    arguments = parser.parse_args(argv)  # leaves here with a sentence when there is no such command
    try:
        return command.run(arguments)
    except LessonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # course list | head: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
