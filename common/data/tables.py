"""Tables: Titanic by --data."""
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find
from common.record import current

if TYPE_CHECKING:
    from pandas import DataFrame

TITANIC_COLUMNS = ("PassengerId", "Survived", "Pclass", "Name", "Sex", "Age", "SibSp", "Parch", "Ticket", "Fare",
                   "Cabin", "Embarked")


def _keep(parts: Sequence[Path], target: Path) -> None:
    shutil.copyfile(parts[0], target)


TITANIC_SOURCE = Source("titanic", "tabular/titanic.csv", (
    Part("titanic.csv", "sha256:4a437fde05fe5264e1701a7387ac6fb75393772ba38bb2c9c566405af5af4bd7", 60302, tuple(
        f"https://{host}" for host in (
            "raw.githubusercontent.com/datasciencedojo/datasets/f0ccab6a7ceafdff780052166fb6fab3311398eb/titanic.csv",
            "cdn.jsdelivr.net/gh/datasciencedojo/datasets@f0ccab6a7ceafdff780052166fb6fab3311398eb/titanic.csv"))),),
    _keep, "891 passengers, 12 columns, who survived")


def load_titanic(cfg: LessonConfig) -> "DataFrame":
    """The passengers of the Titanic, 891 rows and 12 columns; the first 200 in a tiny run."""
    import pandas as pd

    path = find(TITANIC_SOURCE, cfg.data_dir)
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise damaged(TITANIC_SOURCE, path, str(error)) from None
    if tuple(frame.columns) != TITANIC_COLUMNS or len(frame) != 891:
        raise damaged(TITANIC_SOURCE, path, f"{len(frame)} rows of {', '.join(map(str, frame.columns))[:200]}")
    current().use_data("titanic", path)
    return frame.head(200) if cfg.tiny else frame
