"""The `course` command. Each command is a module of its own, imported only when asked for."""

import importlib
import os
import sys

from common.config import Parser
from common.errors import LessonError
from common.files import readable

# command -> (module in common.course, one line for --help);
# a module has configure(parser, name) and run(arguments) -> exit code
COMMANDS = {
    "list": ("overview", "all lessons, with ticks and minutes"),
    "help": ("overview", "what a lesson teaches and which flags it takes"),
    "next": ("overview", "the next lesson that is not ticked"),
    "run": ("running", "run a lesson; --mine uses your own practice copies"),
    "runs": ("running", "your past runs of a lesson, with their curves in one picture"),
    "practice": ("practice", "open a lesson with its heart cut out; --check grades it"),
    "hint": ("practice", "one more hint for the practice copy"),
    "solution": ("practice", "the taught code, once your copy has passed"),
    "watch": ("practice", "check the practice copy at every save"),
    "done": ("progress", "tick lessons in both READMEs"),
    "status": ("progress", "what is ticked, and the milestones; --restore after a pull"),
    "note": ("progress", "open your own note on a lesson"),
    "data": ("fetching", "which data sets are here; download or check one"),
    "doctor": ("doctor", "is this machine ready, and how to mend what is not"),
    "sync": ("sync", "bring what is generated up to date (for authors)"),
    "verify": ("verify", "run lessons in the normal mode and write docs/RESULTS (for authors)"),
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
    # the command's module; set before parse_args lets a command through
    command = None
    for name, (module, help_text) in COMMANDS.items():
        sentence = f"{help_text[0].upper()}{help_text[1:]}."
        sub = commands.add_parser(name, help=help_text, description=sentence, allow_abbrev=False)
        if name == wanted:
            command = importlib.import_module(f"common.course.{module}")
            command.configure(sub, name)

    # leaves here with a sentence when there is no such command
    arguments = parser.parse_args(argv)
    try:
        return command.run(arguments)
    except LessonError as error:
        sentence = str(error)
    # course list | head: the reader has seen enough
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        reason = readable(error, error.filename or "a file")
        if not isinstance(reason, LessonError):
            raise
        sentence = str(reason)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print(f"error: {sentence}", file=sys.stderr)
    return 1
