"""Houses with their prices: generated with a known noise, or the districts of California."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.anycsv import read_any_csv
from common.data.tables import load_california
from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    from pandas import DataFrame

NOISE = 0.12  # standard deviation of the logarithm of a price: what no column tells
HOUSES_COLUMNS = ("east", "north", "kind", "area", "rooms", "age", "garden", "price")
KINDS = ("flat", "terraced", "detached")
ROWS, TINY_ROWS = 8000, 600


def generate_houses(n: int, rng: np.random.Generator) -> tuple["DataFrame", np.ndarray]:
    """n houses of a made-up city, and the logarithm of each price as it is without the noise (n,).

    east, north  km from the centre: seven in ten houses lie in one of four towns, the others
                 anywhere in a square of 24 km
    kind         a flat near the centre more often than far from it
    area, rooms  m² by kind, log-normal; a room has about 22 m²
    age          years, 0 to 120, evenly
    garden       m², log-normal; a flat has none, and the cell is empty
    price        log price = 8.9 + 0.85 log(area) - 0.15 log²(area / rooms / 22)
                 + 0.3 (age / 60 - 1)² - 0.15 age / 60          (new and old are dear)
                 + 0.5 exp(-distance² / 2·4²)                   (near the centre)
                 + 0.4 exp(-(north - 3 sin(east / 4))² / 2·1.5²)  (by the river, which bends)
                 - 0.4 exp(-|place - (4, -4)|² / 2·1.5²)        (beside the power station)
                 + 0.1 log(garden / 250), or 0.1 for a flat
                 + NOISE times a standard normal number
    """
    import pandas as pd

    towns = np.array([[0.0, 0.0], [7.0, 5.0], [-6.0, 4.0], [3.0, -7.0]])
    scattered = rng.uniform(-12, 12, size=(n, 2))
    near_a_town = towns[rng.integers(4, size=n)] + rng.normal(scale=2, size=(n, 2))
    place = np.where(rng.random((n, 1)) < 0.7, near_a_town, scattered).round(3)
    east, north = place.T
    distance = np.linalg.norm(place, axis=1)

    flat = 0.15 + 0.6 * np.exp(-distance / 4)
    draw = rng.random(n)
    kind = np.where(draw < flat, 0, np.where(draw < (1 + flat) / 2, 1, 2))
    area = (np.array([70, 105, 150])[kind] * np.exp(0.25 * rng.normal(size=n))).round(1)
    rooms = np.maximum(1, (area / 22 * np.exp(0.3 * rng.normal(size=n))).round())
    age = rng.integers(0, 121, size=n)
    size = np.array([1, 180, 450])[kind] * np.exp(0.5 * rng.normal(size=n))
    garden = np.where(kind == 0, np.nan, size.round(1))

    from_river = north - 3 * np.sin(east / 4)
    from_station = np.linalg.norm(place - [4, -4], axis=1)
    expected = (
        8.9
        + 0.85 * np.log(area)
        - 0.15 * np.log(area / rooms / 22) ** 2
        + 0.3 * (age / 60 - 1) ** 2
        - 0.15 * age / 60
        + 0.5 * np.exp(-(distance**2) / (2 * 4**2))
        + 0.4 * np.exp(-(from_river**2) / (2 * 1.5**2))
        - 0.4 * np.exp(-(from_station**2) / (2 * 1.5**2))
        + np.where(kind == 0, 0.1, 0.1 * np.log(garden / 250))
    )
    price = np.exp(expected + NOISE * rng.normal(size=n)).round()
    columns = (east, north, np.array(KINDS)[kind], area, rooms, age.astype(float), garden, price)
    return pd.DataFrame(dict(zip(HOUSES_COLUMNS, columns, strict=True))), expected


@dataclass(frozen=True)
class Columns:
    """What each column of a table is. A ratio is of two columns among the logs."""

    price: str
    logs: tuple[str, ...]  # above 0 and skewed
    plain: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...]
    category: str
    place: tuple[str, str]
    widths: tuple[float, float]  # of the bumps on the map, in the units of the place


COLUMNS = {
    "generated": Columns(
        price="price",
        logs=("area", "rooms", "garden"),
        plain=("age", "east", "north"),
        ratios=(("area", "rooms"),),
        category="kind",
        place=("east", "north"),
        widths=(1.0, 3.0),
    ),
    "california": Columns(
        price="median_house_value",
        logs=("total_rooms", "total_bedrooms", "population", "households", "median_income"),
        plain=("median_income", "housing_median_age", "longitude", "latitude"),
        ratios=(
            ("total_rooms", "households"),
            ("total_bedrooms", "total_rooms"),
            ("population", "households"),
        ),
        category="ocean_proximity",
        place=("longitude", "latitude"),
        widths=(0.1, 0.4),
    ),
}


def read_houses(path: Path, columns: Columns) -> "DataFrame":
    """The rows of a CSV: numbers where they should be, NaN for an empty cell.

    Raises LessonError, with one sentence, where a column is missing or a cell is no such number.
    """
    import pandas as pd

    cells, notes = read_any_csv(path)
    for note in notes:
        print(f"  note: {note}")
    ratios = [name for pair in columns.ratios for name in pair]
    numbers = dict.fromkeys([*columns.logs, *columns.plain, *ratios, *columns.place])
    needed = [*numbers, columns.category]
    missing = [name for name in needed if name not in cells]
    if missing:
        raise LessonError(
            f"{path} has no column {', '.join(missing)}. The model needs {', '.join(needed)}."
        )
    frame = cells[[columns.category]].copy()
    for name in numbers:
        frame[name] = pd.to_numeric(cells[name], errors="coerce").astype(float)
        wrong = cells[name].notna() & ~np.isfinite(frame[name])
        wanted = "a number"
        if name in columns.logs:
            wrong |= frame[name] <= 0
            wanted = "a number above 0"
        if name in columns.place:
            wrong |= cells[name].isna()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            cell = cells[name].iloc[row]
            raise LessonError(f"row {row + 1} of {path}: {name} is “{cell}”, and must be {wanted}.")
    return frame


@dataclass(frozen=True)
class HouseSplit:
    """A table in three parts. noise: what of each log price is noise, by row; None if unknown."""

    columns: Columns
    train: "DataFrame"
    val: "DataFrame"
    _test: "DataFrame" = field(repr=False)
    noise: np.ndarray | None = None

    def test(self) -> "DataFrame":
        """Read it once, at the end: it measures nothing more once something was chosen by it."""
        current().read_test(self.fingerprints()[2])
        return self._test

    def prices(self, part: "DataFrame") -> np.ndarray:
        return part[self.columns.price].to_numpy()

    def fingerprints(self) -> list[np.ndarray]:
        """Every row as one text, part by part, for `no_leak`; the test set counts as unread."""
        parts = (self.train, self.val, self._test)
        return [np.array(part.to_csv(index=False, header=False).splitlines()) for part in parts]


def load_houses(cfg: LessonConfig, split_seed: int = 0) -> HouseSplit:
    """The table that cfg.data names, split at random: 60 % train, 20 % validation, 20 % test.

    The index of each part holds row numbers of the whole table. A tiny run gets 600 rows.
    """
    name = "california" if cfg.data == "california" else "generated"
    if name == "california":
        frame, noise = load_california(cfg), None
    else:
        frame, expected = generate_houses(TINY_ROWS if cfg.tiny else ROWS, cfg.rng())
        noise = np.log(frame["price"].to_numpy()) - expected
        current().use_data("generated", f"{len(frame)} houses, seed {cfg.seed}")
    order = np.random.default_rng(split_seed).permutation(len(frame))
    first, second = 6 * len(order) // 10, 8 * len(order) // 10
    parts = (order[:first], order[first:second], order[second:])
    return HouseSplit(COLUMNS[name], *(frame.iloc[rows] for rows in parts), noise)
