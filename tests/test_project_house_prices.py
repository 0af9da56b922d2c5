"""The house prices as their user meets them: a CSV of his own, whole, wrong or damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from projects import run_project
from torch import nn

from common.data.batches import Batches
from common.data.houses import COLUMNS, Columns, HouseSplit, generate_houses, read_houses
from common.errors import LessonError
from common.lessons import load_lesson

project = load_lesson("phase04_mlp/project-house-prices")


def run(out: Path, *argv: str) -> int:
    return run_project(project, out, *argv)


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


def test_prices_in_the_file_are_whole_numbers(trained, houses, tmp_path) -> None:
    path = tmp_path / "mine.csv"
    houses.to_csv(path, index=False)
    assert run(trained, "--predict", str(path)) == 0
    table = pd.read_csv(trained / "prices.csv")
    assert list(table) == ["price", "low", "high", "unlike_training"]
    assert (table[["price", "low", "high"]] % 1 == 0).all(axis=None)


# The parts of the pipeline, each against what it is on paper


@pytest.fixture(scope="module")
def city() -> HouseSplit:
    frame, expected = generate_houses(200, np.random.default_rng(3))
    noise = np.log(frame["price"].to_numpy()) - expected
    return HouseSplit(COLUMNS["generated"], frame[:120], frame[120:160], frame[160:], noise)


@pytest.fixture
def cfg():
    return project.Config(seed=2, epochs=2, width=8, centres=4, batch_size=50, boosting=7)


def test_exactly_a_tenth_off_counts_as_within() -> None:
    assert project.scores(np.array([100.0, 200]), np.array([110.0, 100]))["within_10"] == 0.5


def test_the_network_is_two_hidden_layers() -> None:
    kinds = [type(layer) for layer in project.make_model(3, 5)]
    assert kinds == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert project.make_model(3, 5)(torch.zeros(2, 3)).shape == (2, 1)


def test_the_target_is_standardised(city, cfg) -> None:
    learned = project.learn(city.train, city.columns, 0, np.random.default_rng(0))
    _, z = project.to_batch(city, learned)
    assert z.dtype == torch.float32
    assert z.mean().item() == pytest.approx(0, abs=1e-5)
    assert z.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)


def test_training_is_one_cycle_of_adamw_on_shuffled_batches(city, cfg, capsys) -> None:
    """120 houses, batches of 50: two an epoch; the last 20 of each order are left out."""
    learned = project.learn(city.train, city.columns, 0, np.random.default_rng(0))
    ours = project.train_network(cfg, city, learned, seed=5)
    assert capsys.readouterr().out == ""

    torch.manual_seed(5)
    x, z = project.to_batch(city, learned)
    model = project.make_model(x.shape[1], 8)
    adamw = torch.optim.AdamW(model.parameters(), weight_decay=cfg.decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, cfg.lr, 4, pct_start=0.2)
    batches = Batches(x, z, batch_size=50, shuffle=True, seed=5, drop_last=True)
    for _ in range(2):
        for rows, targets in batches:
            adamw.zero_grad()
            (model(rows)[:, 0] - targets).square().mean().backward()
            adamw.step()
            cycle.step()
    for theirs, mine in zip(model.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def pricer_of(model, learned: dict) -> project.Pricer:
    return project.Pricer(SMALL, learned, model)


def test_a_price_comes_back_from_its_standardised_logarithm(three) -> None:
    """The model says the number of the column “log area”: 0, 2, 4, standardised to -1.2, 0, 1.2."""
    learned = project.learn(three, SMALL, 1, np.random.default_rng(0))
    learned |= {"log_mean": 2.0, "log_std": 0.5, "low": 1.6, "high": np.e**2.1}
    pricer = pricer_of(lambda x: x[:, :1], learned)
    assert (pricer.smear, pricer.factor) == (1, 1)
    found = pricer.logs(three)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [2 - 0.5 * 1.5**0.5, 2, 2.1], rtol=1e-6)
    learned["low"] = 5.0
    np.testing.assert_allclose(pricer_of(lambda x: x[:, :1], learned).logs(three)[0], np.log(5))


def test_what_is_far_out_and_what_is_only_rare() -> None:
    """Columns: log area, log garden, their ratio, then one category, then two widths."""
    learned = {"medians": [0, 0, 0], "missing": [], "categories": ["flat"], "centres": [[0.0, 0]]}
    learned |= {"mean": [0] * 4 + [0, 0], "std": [1, 1, 10, 0.01, 0.01, 0.01]}
    pricer = pricer_of(None, learned)
    logs = np.array([0, 6, 6.5, -6.5, 0, 0])
    # The wide function is exp(-d²/8): 0.0015 at 7.21, under 0.001 beyond 7.43.
    east = [0.0, 0, 0, 0, 7.21, 7.5]
    frame = pd.DataFrame({"area": np.exp(logs), "garden": 1.0, "kind": "flat", "east": east})
    found = pricer.unlike_training(frame.assign(north=0.0))
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [False, False, True, True, False, True]


def test_boosting_has_its_settings(city, cfg, monkeypatch) -> None:
    monkeypatch.setattr(project, "on_tensors", lambda fitted: fitted)
    learned = project.learn(city.train, city.columns, 0, np.random.default_rng(0))
    (boosting,) = project.simpler_methods(cfg, city, learned)["boosting"]
    assert (boosting.max_iter, boosting.random_state) == (7, 2)


def test_validation_chooses_by_prices_and_gives_both_factors(city) -> None:
    """Two candidates; the order of their R² is another one if prices are logarithms or swapped."""
    price = city.prices(city.val)
    by_name = {}
    for name, errors in {"one": [0.5], "spread": np.linspace(-1, 1, 40)}.items():
        by_name[name] = Fixed(np.log(price) + np.array(errors))
    r2 = {name: project.scores(price, np.exp(each.said))["r2"] for name, each in by_name.items()}
    for order in (("one", "spread"), ("spread", "one")):
        best = project.choose([by_name[name] for name in order], city)
        assert best is by_name[max(r2, key=r2.get)]
        assert best.smear == pytest.approx(np.exp(np.log(price) - best.said).mean())
        assert best.factor == project.margin(price, best.said, 0.9)


class Fixed:
    """A pricer whose logarithms are given."""

    def __init__(self, said: np.ndarray):
        self.said = said

    def logs(self, frame: pd.DataFrame) -> np.ndarray:
        return self.said


def test_each_split_has_a_seed_and_the_table_no_centres(city, cfg) -> None:
    fitted = project.fit_all(cfg, city, 1)
    wanted = project.learn(city.train, city.columns, 4, np.random.default_rng(3))["centres"]
    assert fitted["ridge_map"].learned["centres"] == wanted
    assert fitted["network_table"].learned["centres"] == []


def outcome_of(city: HouseSplit, noise: np.ndarray | None) -> project.Outcome:
    data = HouseSplit(city.columns, city.train, city.val, city._test, noise)
    test = city._test[:4]
    logs = {"model": np.log([90.0, 210, 300, 500])}
    return project.Outcome(data, {}, test, np.array([100.0, 200, 300, 400]), logs)


def test_the_scores_of_a_split(city) -> None:
    noise = np.zeros(200)
    noise[160:164] = [0.1, -0.1, 0, 0.5]
    outcome = outcome_of(city, noise)
    errors = np.log([10 / 9, 20 / 21, 1, 0.8])
    np.testing.assert_allclose(outcome.residual("model"), errors)
    row = outcome.scores("model")
    assert row["r2"] == pytest.approx(1 - (100 + 100 + 100**2) / 50_000)
    assert row["log_rmse"] == pytest.approx((errors**2).mean() ** 0.5)
    assert row["noise"] == pytest.approx((0.27 / 4) ** 0.5)
    # exp(-0.1) is 0.905, within a tenth; exp(0.1) is 1.105, and is not.
    assert row["ceiling"] == 0.5
    assert "noise" not in outcome_of(city, None).scores("model")


def test_trees_explain_what_they_learned_of_residuals_on_validation(city) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns = city.columns
    learned = project.learn(city.train, columns, 0, np.random.default_rng(0))
    said = {"val": np.log(city.val["area"].to_numpy()), "test": np.log(city._test["area"])}
    ridge = project.Pricer(columns, learned, None)
    outcome = project.Outcome(
        city,
        {"ridge_table": ridge, "other": Fixed(said["val"])},
        city._test,
        city.prices(city._test),
        {"other": said["test"].to_numpy()},
    )
    x, x_test = (project.prepare(part, columns, learned).numpy() for part in (city.val, city._test))
    trees = HistGradientBoostingRegressor(max_iter=50, max_leaf_nodes=8)
    trees.fit(x, np.log(city.prices(city.val)) - said["val"])
    left = np.log(city.prices(city._test)) - said["test"].to_numpy()
    wanted = 1 - ((left - trees.predict(x_test)) ** 2).sum() / ((left - left.mean()) ** 2).sum()
    assert project.explained(outcome, "other") == pytest.approx(wanted)
