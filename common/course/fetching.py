"""`course data`: which real data sets are on this machine; download one, or check that it is whole."""

import argparse
import difflib
from collections.abc import Callable
from pathlib import Path

from common.config import LessonConfig
from common.course.screen import show_table
from common.data import images, tables
from common.data.sources import Source, cache_dir, fetch, local_path
from common.errors import LessonError


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "name", nargs="?", help="a data set to download and check (default: list them all)"
    )
    parser.add_argument("--again", action="store_true", help="download anew, even if it is here")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="FOLDER",
        help="look into this folder, check what lies there",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.data_dir is not None and not arguments.data_dir.expanduser().is_dir():
        raise LessonError(
            f"--data-dir {arguments.data_dir} is not a folder. Give the one that holds the data."
        )
    if arguments.name is None:
        if arguments.again:
            raise LessonError(
                "--again downloads one data set: say which, as in course data mnist --again"
            )
        return list_sets(arguments.data_dir)
    return get(arguments.name, arguments.data_dir, arguments.again)


def sets() -> dict[str, tuple[Source, Callable[[LessonConfig], object]]]:
    """{name: (where it comes from, the loader that refuses it unless it is whole)}"""
    pictures = {
        name: (source, lambda cfg, name=name: images.load_images(cfg, name))
        for name, (source, _, _) in images.SETS.items()
    }
    return pictures | {"titanic": (tables.TITANIC_SOURCE, tables.load_titanic)}


def list_sets(data_dir: Path | None = None) -> int:
    rows = [
        [
            name,
            source.about,
            f"{source.megabytes:.1f}",
            str(local_path(source, data_dir) or "not here"),
        ]
        for name, (source, _) in sets().items()
    ]
    show_table(["name", "what it is", "MB", "where it lies"], rows)
    print(
        "\ncourse data NAME downloads one and checks it; a lesson takes it with --data NAME. Without --data every "
        "lesson runs offline."
    )
    return 0


def get(name: str, data_dir: Path | None = None, again: bool = False) -> int:
    """Have the data set here and whole. With `data_dir`, check the file in there and download nothing."""
    if name not in sets():
        close = difflib.get_close_matches(name, sets(), 1)
        raise LessonError(
            f"there is no data set “{name}”{f'; did you mean {close[0]}?' if close else '.'} "
            f"The data sets are {', '.join(sets())}."
        )
    source, load = sets()[name]
    if data_dir is not None:
        if again:
            raise LessonError(
                "--again downloads into the cache, --data-dir checks your own folder: give one of them."
            )
        if not (data_dir.expanduser() / source.file).exists():
            raise LessonError(
                f"{data_dir} holds no {source.file}. Put it there, or leave --data-dir out to have it "
                "downloaded."
            )
    elif again or local_path(source) is None:
        fetch(source)
        used = local_path(source)
        if used is not None and not used.is_relative_to(cache_dir()):
            print(f"note: COURSE_DATA comes before the cache, so lessons go on using {used}")
    load(LessonConfig(data_dir=data_dir))  # prints where it lies
    print(f"✓ {name} is whole: {source.about}")
    return 0
