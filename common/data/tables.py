"""Tables: iris from a package, Titanic and California's housing by --data."""

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

CALIFORNIA_COLUMNS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
    "median_house_value",
    "ocean_proximity",
)

TITANIC_COMMIT = "f0ccab6a7ceafdff780052166fb6fab3311398eb"
TITANIC_URLS = (
    f"https://raw.githubusercontent.com/datasciencedojo/datasets/{TITANIC_COMMIT}/titanic.csv",
    f"https://cdn.jsdelivr.net/gh/datasciencedojo/datasets@{TITANIC_COMMIT}/titanic.csv",
)
CALIFORNIA_COMMIT = "1e2115277b50f6c584cd668fa30e3af309a5b136"
CALIFORNIA_FILE = "datasets/housing/housing.csv"
CALIFORNIA_URLS = (
    f"https://raw.githubusercontent.com/ageron/handson-ml2/{CALIFORNIA_COMMIT}/{CALIFORNIA_FILE}",
    f"https://cdn.jsdelivr.net/gh/ageron/handson-ml2@{CALIFORNIA_COMMIT}/{CALIFORNIA_FILE}",
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
CALIFORNIA_SOURCE = Source(
    "california",
    "tabular/california_housing.csv",
    (
        Part(
            "housing.csv",
            "sha256:8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e",
            1423529,
            CALIFORNIA_URLS,
        ),
    ),
    _keep,
    "20,640 districts of the census of 1990, 10 columns, what their houses are worth",
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
    frame, path = _read(TITANIC_SOURCE, cfg, TITANIC_COLUMNS, 891)
    current().use_data("titanic", path)
    return frame.head(200) if cfg.tiny else frame


def load_california(cfg: LessonConfig) -> "DataFrame":
    """Districts of California, 20,640 rows and 10 columns; in a tiny run every 30th of them.

    What is known of a district: where it is, how old its houses are, rooms, people, the median
    income in 10,000 dollars, and the median value of its houses in dollars, which the census cut
    off at 500,001. 207 cells of total_bedrooms are empty.
    """
    frame, path = _read(CALIFORNIA_SOURCE, cfg, CALIFORNIA_COLUMNS, 20_640)
    numbers = frame.drop(columns="ocean_proximity")
    text = [name for name in numbers if numbers[name].dtype.kind not in "if"]
    if text:
        raise damaged(CALIFORNIA_SOURCE, path, f"{', '.join(text)} should hold numbers")
    empty = frame.columns[frame.isna().any()].drop("total_bedrooms", errors="ignore")
    if len(empty):
        raise damaged(CALIFORNIA_SOURCE, path, f"{', '.join(empty)} should have no empty cells")
    current().use_data("california", path)
    return frame[::30].reset_index(drop=True) if cfg.tiny else frame


def _read(
    source: Source, cfg: LessonConfig, columns: tuple[str, ...], rows: int
) -> "tuple[DataFrame, Path]":
    """The table as it lies in the file, and where. Raises LessonError for anything else."""
    import pandas as pd

    path = find(source, cfg.data_dir)
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise damaged(source, path, str(error)) from None
    if tuple(frame.columns) != columns or len(frame) != rows:
        found = f"{len(frame)} rows of {', '.join(map(str, frame.columns))[:200]}"
        raise damaged(source, path, found)
    return frame, path


def load_frame(name: str, cfg: LessonConfig) -> "DataFrame":
    """iris (150 rows, the four measures and the species) or titanic, by name."""
    import pandas as pd

    if name == "titanic":
        return load_titanic(cfg)
    measures, species = load_iris()
    return pd.DataFrame(measures, columns=list(IRIS_COLUMNS)).assign(species=species)
