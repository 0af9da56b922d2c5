"""The house prices as their user meets them: a CSV of his own, whole, wrong or damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.config import execute
from common.data.houses import COLUMNS, generate_houses, read_houses
from common.errors import LessonError
from common.lessons import load_lesson

project = load_lesson("phase04_mlp/project-house-prices")


def run(out: Path, *argv: str) -> int:
    argv = ["--device", "cpu", "--out", str(out), *argv]
    return execute(project.run, project.Config, project.__doc__, argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("houses")
    assert run(out, "--tiny") == 0
    return out


@pytest.fixture
def houses(tmp_path: Path) -> pd.DataFrame:
    return generate_houses(5, np.random.default_rng(0))[0].drop(columns="price")


def test_a_csv_is_priced_in_any_order_of_columns(trained, houses, tmp_path, capsys) -> None:
    path = tmp_path / "mine.csv"
    houses.assign(owner="me")[["owner", *reversed(houses.columns)]].to_csv(path, index=False)
    before = path.read_bytes()
    assert run(trained, "--predict", str(path)) == 0 and path.read_bytes() == before
    table = pd.read_csv(trained / "prices.csv")
    assert len(table) == 5 and (table["low"] < table["price"]).all()
    assert (table["price"] < table["high"]).all() and not table["unlike_training"].any()


def test_a_palace_on_the_moon_is_named_as_such(trained, houses, tmp_path) -> None:
    path = tmp_path / "moon.csv"
    houses.loc[0, ["east", "area"]] = 400_000, 90_000
    houses.to_csv(path, index=False)
    assert run(trained, "--predict", str(path)) == 0
    assert pd.read_csv(trained / "prices.csv")["unlike_training"].tolist() == [True] + 4 * [False]


def change(frame: pd.DataFrame, name: str, cell: object) -> bytes:
    frame = frame.astype(object)
    frame.loc[2, name] = cell
    return frame.to_csv(index=False).encode()


FAULTS = {
    "no area": (lambda f: f.drop(columns="area").to_csv(index=False).encode(), "no column area"),
    "a word": (lambda f: change(f, "area", "big"), "row 3 of"),
    "nothing": (lambda f: change(f, "rooms", 0), "must be a number above 0"),
    "infinite": (lambda f: change(f, "age", "inf"), "age is “inf”"),
    "nowhere": (lambda f: change(f, "east", None), "east is"),
    "empty": (lambda f: b"", "is empty"),
    "no rows": (lambda f: f.head(0).to_csv(index=False).encode(), "no rows"),
    "binary": (lambda f: b"\x89PNG\r\n\0\0", "is not a text file"),
}


@pytest.mark.parametrize("content, words", FAULTS.values(), ids=FAULTS)
def test_a_wrong_csv_gets_one_sentence(houses, tmp_path, content, words) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content(houses))
    with pytest.raises(LessonError) as caught:
        read_houses(path, COLUMNS["generated"])
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value


def test_an_empty_cell_is_filled(houses, tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(change(houses, "age", None))
    assert np.isnan(read_houses(path, COLUMNS["generated"])["age"][2])


def test_nothing_is_overwritten_by_a_wrong_csv(trained, houses, tmp_path, capsys) -> None:
    path = tmp_path / "mine.csv"
    houses.to_csv(path, index=False)
    assert run(trained, "--predict", str(path)) == 0
    before = (trained / "prices.csv").read_bytes()
    path.write_bytes(b"a,b\n1,2\n")
    assert run(trained, "--predict", str(path)) == 1
    assert (trained / "prices.csv").read_bytes() == before
    assert "has no column area" in capsys.readouterr().err


def test_without_a_model_or_with_another_one(trained, houses, tmp_path, capsys) -> None:
    path = tmp_path / "mine.csv"
    houses.to_csv(path, index=False)
    assert run(tmp_path / "fresh", "--predict", str(path)) == 1
    assert "holds no model yet" in capsys.readouterr().err
    (tmp_path / "model.pt").write_bytes((trained / "model.pt").read_bytes()[:1000])
    assert run(tmp_path, "--predict", str(path)) == 1
    project.checkpoint.save(tmp_path / "model.pt", {"model": {}})
    assert run(tmp_path, "--predict", str(path)) == 1
    assert "holds another model" in capsys.readouterr().err
