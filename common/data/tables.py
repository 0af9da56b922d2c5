"""Tables: iris from a package, Titanic by --data."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find, shipped
from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    from pandas import DataFrame

IRIS_COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
TITANIC_COLUMNS = (
    "PassengerId",
    "Survived",
    "Pclass",
    "Name",
    "Sex",
    "Age",
    "SibSp",
    "Parch",
    "Ticket",
    "Fare",
    "Cabin",
    "Embarked",
)

TITANIC_COMMIT = "f0ccab6a7ceafdff780052166fb6fab3311398eb"
TITANIC_URLS = (
    f"https://raw.githubusercontent.com/datasciencedojo/datasets/{TITANIC_COMMIT}/titanic.csv",
    f"https://cdn.jsdelivr.net/gh/datasciencedojo/datasets@{TITANIC_COMMIT}/titanic.csv",
)


def _keep(parts: Sequence[Path], target: Path) -> None:
    shutil.copyfile(parts[0], target)


TITANIC_SOURCE = Source(
    "titanic",
    "tabular/titanic.csv",
    (
        Part(
            "titanic.csv",
            "sha256:4a437fde05fe5264e1701a7387ac6fb75393772ba38bb2c9c566405af5af4bd7",
            60302,
            TITANIC_URLS,
        ),
    ),
    _keep,
    "891 passengers, 12 columns, who survived",
)


def load_iris() -> tuple[np.ndarray, np.ndarray]:
    """Four measures of 150 flowers in cm (150, 4), as IRIS_COLUMNS names them; the species (150,).

    Read from scikit-learn's own file, for importing scikit-learn takes longer than most lessons
    of phase 1.
    """
    path = shipped("sklearn", "scikit-learn", "iris", "datasets", "data", "iris.csv")
    try:
        header, *rows = path.read_text(encoding="ascii").splitlines()
        table = np.loadtxt(rows, delimiter=",").reshape(150, 5)
        species = np.array(header.split(",")[2:])[table[:, 4].astype(int)]
    except (OSError, ValueError, IndexError) as error:
        raise LessonError(
            f"{path} is damaged ({error}). Install it again: "
            "python -m pip install --force-reinstall --no-deps scikit-learn"
        ) from None
    current().use_data("iris", "from the package scikit-learn")
    return table[:, :4], species


def load_titanic(cfg: LessonConfig) -> "DataFrame":
    """The passengers of the Titanic, 891 rows and 12 columns; the first 200 in a tiny run."""
    import pandas as pd

    path = find(TITANIC_SOURCE, cfg.data_dir)
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise damaged(TITANIC_SOURCE, path, str(error)) from None
    if tuple(frame.columns) != TITANIC_COLUMNS or len(frame) != 891:
        raise damaged(
            TITANIC_SOURCE, path, f"{len(frame)} rows of {', '.join(map(str, frame.columns))[:200]}"
        )
    current().use_data("titanic", path)
    return frame.head(200) if cfg.tiny else frame


def load_frame(name: str, cfg: LessonConfig) -> "DataFrame":
    """iris (150 rows, the four measures and the species) or titanic, by name."""
    import pandas as pd

    if name == "titanic":
        return load_titanic(cfg)
    measures, species = load_iris()
    return pd.DataFrame(measures, columns=list(IRIS_COLUMNS)).assign(species=species)
