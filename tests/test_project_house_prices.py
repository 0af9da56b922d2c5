"""The house prices as their user meets them: a CSV of his own, whole, wrong or damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.config import execute
from common.data.houses import COLUMNS, Columns, generate_houses, read_houses
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


SMALL = Columns(
    price="price",
    logs=("area", "garden"),
    plain=(),
    ratios=(("area", "garden"),),
    category="kind",
    place=("east", "north"),
    widths=(1.0, 2.0),
)


@pytest.fixture
def three() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "area": [1, np.e**2, np.e**4],
            "garden": [1, np.nan, np.e],
            "kind": ["flat", "villa", "flat"],
            "east": [0.0, 3, 0],
            "north": [0.0, 4, 0],
            "price": [1, np.e**2, np.e**4],
        }
    )


def test_three_houses_become_the_numbers_found_on_paper(three) -> None:
    learned = {"medians": [2, 0.5, 1.5], "missing": [1, 2], "categories": ["flat", "villa"]}
    found = project.encode(three, SMALL, learned | {"centres": [[3.0, 4.0]]})
    far = [np.exp(-25 / 2), np.exp(-25 / 8)]  # 3 to the left and 4 down are 5 away
    by_hand = [
        [0, 0, 0, 0, 0, 1, 0, *far],
        [2, 0.5, 1.5, 1, 1, 0, 1, 1, 1],
        [4, 1, 3, 0, 0, 1, 0, *far],
    ]
    np.testing.assert_allclose(found, by_hand)


def test_what_is_learned_of_three_houses(three) -> None:
    learned = project.learn(three, SMALL, 3, np.random.default_rng(0))
    assert sorted(learned["centres"]) == [[0, 0], [0, 0], [3, 4]]
    assert learned["categories"] == ["flat", "villa"] and learned["medians"][0] == 2
    assert [learned["log_mean"], learned["log_std"] ** 2] == pytest.approx([2, 8 / 3])
    assert [learned["low"], learned["high"]] == pytest.approx([1, np.e**4])
    single = project.learn(three[:1], SMALL, 1, np.random.default_rng(0))
    assert single["std"] == [1] * 6


def test_the_same_generator_draws_the_same_centres(three) -> None:
    first, again = (project.learn(three, SMALL, 2, np.random.default_rng(5)) for _ in range(2))
    assert first == again


def test_a_new_category_is_all_zeros(three) -> None:
    learned = project.learn(three, SMALL, 2, np.random.default_rng(0))
    castle = project.encode(three.assign(kind="castle"), SMALL, learned)
    assert not castle[:, 5:7].any() and np.isfinite(castle).all()


def test_the_factor_is_the_mean_of_two_ratios() -> None:
    assert project.smearing(np.array([2.0, 8]), np.log([2, 2])) == pytest.approx(2.5)


def test_both_factors_come_back_from_the_file(trained, tmp_path) -> None:
    pricer = project.load(trained / "model.pt")
    pricer.smear, pricer.factor = 1.25, 1.5
    project.save(tmp_path / "model.pt", project.Config(width=32), pricer)
    again = project.load(tmp_path / "model.pt")
    assert (again.smear, again.factor) == (1.25, 1.5)


def test_what_is_unlike_training_is_flagged_one_reason_at_a_time(trained, houses) -> None:
    pricer = project.load(trained / "model.pt")
    houses = pd.concat([houses.head(1)] * 4, ignore_index=True)
    houses.loc[1, "kind"] = "castle"
    houses.loc[2, "area"] = 90_000
    houses.loc[3, ["east", "north"]] = 20, 20  # the city ends at 12
    assert pricer.unlike_training(houses).tolist() == [False, True, True, True]


def test_the_price_is_the_middle_of_its_interval(trained, houses, tmp_path) -> None:
    """The price of one house is the median; the factor of smearing is for sums."""
    path = tmp_path / "mine.csv"
    houses.to_csv(path, index=False)
    assert run(trained, "--predict", str(path)) == 0
    table = pd.read_csv(trained / "prices.csv")
    middle = np.sqrt(table["low"] * table["high"])
    np.testing.assert_allclose(table["price"], middle, rtol=1e-4)
