"""`course data`: which real data sets are on this machine; download one, or check it."""

import argparse
import difflib
import functools
from collections.abc import Callable
from pathlib import Path

from common.config import LessonConfig
from common.course.screen import show_table
from common.data import images, speech, tables, text, translation
from common.data.sources import Source, cache_dir, fetch, local_path
from common.errors import LessonError
from common.files import checked_folder


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "name", nargs="?", help="a data set to download and check (default: list them all)"
    )
    parser.add_argument("--again", action="store_true", help="download anew, even if it is here")
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="look into this folder, check what lies there",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.data_dir is not None:
        arguments.data_dir = checked_folder(arguments.data_dir, "--data-dir")
    if arguments.name is None:
        if arguments.again:
            raise LessonError(
                "--again downloads one data set: say which, as in course data mnist --again"
            )
        return list_sets(arguments.data_dir)
    return get(arguments.name, arguments.data_dir, arguments.again)


def sets() -> dict[str, tuple[tuple[Source, ...], Callable[[LessonConfig], object]]]:
    """{name: (its files, the loader that refuses them unless they are whole)}"""
    multi30k = tuple(translation.MULTI30K_SOURCES.values())
    found = {
        "california": ((tables.CALIFORNIA_SOURCE,), tables.load_california),
        "enzh": ((translation.ENZH_SOURCE,), translation.load_enzh),
        "fsdd": ((speech.FSDD_SOURCE,), speech.load_fsdd),
        "multi30k": (multi30k, translation.load_multi30k),
        "shakespeare": ((text.SHAKESPEARE_SOURCE,), text.load_shakespeare),
        "titanic": ((tables.TITANIC_SOURCE,), tables.load_titanic),
    }
    for name, (source, *_) in images.SETS.items():
        found[name] = (source,), functools.partial(images.load_images, name=name)
    return dict(sorted(found.items()))


def list_sets(data_dir: Path | None = None) -> int:
    rows = []
    for name, (sources, _) in sets().items():
        places = [local_path(source, data_dir) for source in sources]
        place = "not here" if None in places else str(places[0])
        megabytes = sum(source.megabytes for source in sources)
        rows.append([name, sources[0].about, f"{megabytes:.1f}", place])
    show_table(["name", "what it is", "MB", "where it lies"], rows)
    print(
        "\ncourse data NAME downloads one and checks it; a lesson takes it with --data NAME. "
        "Without --data every lesson runs offline."
    )
    return 0


def get(name: str, data_dir: Path | None = None, again: bool = False) -> int:
    """Have the data set here and whole. With `data_dir`, check what is there; download nothing."""
    if name not in sets():
        close = difflib.get_close_matches(name, sets(), 1)
        guess = f"; did you mean {close[0]}?" if close else "."
        raise LessonError(
            f"there is no data set “{name}”{guess} The data sets are {', '.join(sets())}."
        )
    sources, load = sets()[name]
    for source in sources:
        if data_dir is not None:
            _look_into(data_dir, source, again)
        elif again or local_path(source) is None:
            fetch(source)
            used = local_path(source)
            if used is not None and not used.is_relative_to(cache_dir()):
                print(f"note: COURSE_DATA comes before the cache, so lessons go on using {used}")
    # prints where it lies, and raises LessonError for what is damaged or something else
    load(LessonConfig(data_dir=data_dir))
    if name in images.UNPUBLISHED:
        print(f"✓ {name} has the right shape, and is neither noise nor one part twice")
        print("  its values cannot be compared: nobody publishes a hash of them")
    else:
        print(f"✓ {name} is whole: {sources[0].about}")
    return 0


def _look_into(data_dir: Path, source: Source, again: bool) -> None:
    if again:
        raise LessonError(
            "--again downloads into the cache, --data-dir checks your own folder: give one of them."
        )
    if not (data_dir / source.file).exists():
        raise LessonError(
            f"{data_dir} holds no {source.file}. Put it there, or leave --data-dir out to have it "
            "downloaded."
        )
