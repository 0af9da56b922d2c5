"""Lesson 5.14: splitting kinds, freezing, groups, and the file of weights from elsewhere."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/14-transfer-learning")


def config(**fields) -> object:
    return lesson.Config(**fields)


def test_kinds_are_split_without_rest() -> None:
    assert sorted(lesson.OLD + lesson.NEW) == list(range(len(lesson.KINDS)))


def test_only_kinds_keeps_pictures_and_order() -> None:
    y = torch.tensor([3, 8, 0, 3, 9])
    x = torch.arange(10.0).reshape(5, 2)
    kept, numbers = lesson.only_kinds(x, y, (8, 3))
    assert kept.tolist() == [[0, 1], [2, 3], [6, 7]]
    assert numbers.tolist() == [1, 0, 1]
    assert len(lesson.only_kinds(x, y, [5])[0]) == 0


def test_the_old_network_stays_as_it_was() -> None:
    old = lesson.lesson_5_11.make_net(0, 6)
    new = lesson.with_new_head(old, 4, 1)
    assert new.head.out_features == 4
    with torch.no_grad():
        new.blocks[0][0].weight.zero_()
        new.blocks[1][1].running_mean.fill_(9.0)
    assert old.blocks[0][0].weight.abs().sum() > 0
    assert old.blocks[1][1].running_mean.abs().sum() == 0
    again = lesson.with_new_head(old, 4, 1)
    assert torch.equal(again.head.weight, new.head.weight), "the seed decides about the head"
    other = lesson.with_new_head(old, 4, 2)
    assert not torch.equal(other.head.weight, new.head.weight)


def test_frozen_blocks_keep_weights_and_statistics() -> None:
    model = lesson.lesson_5_11.make_net(0, 4).train()
    lesson.freeze(model.blocks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    x, y = torch.randn(8, 3, 16, 16), torch.randint(4, (8,))
    lesson.cross_entropy(model, (x, y)).backward()
    sgd.step()
    moved = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    assert moved == ["head.weight", "head.bias"]


def test_a_single_layer_can_be_frozen() -> None:
    layer = nn.BatchNorm2d(4)
    lesson.freeze(layer)
    assert not layer.training
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_features_do_not_depend_on_the_mode() -> None:
    model = lesson.lesson_5_11.make_net(0, 6).eval()
    x = torch.randn(8, 3, 16, 16)
    expected = lesson.features(model, x)
    assert torch.equal(lesson.features(model.train(), x), expected)
    assert not model.training, "left in evaluation mode"


def test_every_parameter_is_in_one_group() -> None:
    model = lesson.lesson_5_11.make_net(0, 4)
    groups = lesson.parameter_groups(model, 0.01, 0.1)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert [id(each) for each in listed] == [id(each) for each in model.parameters()]
    assert [group["lr"] for group in groups] == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    held = [
        parameter for group in torch.optim.SGD(groups).param_groups for parameter in group["params"]
    ]
    assert len(held) == len(listed), "whoever counts the parameters first leaves them there"


@pytest.mark.parametrize("second", [0.1, 0.9])
def test_the_best_weights_stay(second: float) -> None:
    """A second round that makes it worse, or no better, is undone."""
    torch.manual_seed(0)
    x = torch.randn(40, 2)
    y = (x[:, 0] > 0).long()
    model = nn.Linear(2, 2)

    scores = []
    original = lesson.accuracy

    def noted(model: nn.Module, data) -> float:
        scores.append(original(model, data))
        if len(scores) == 1:
            with torch.no_grad():
                noted.weights = model.weight.clone()
            return 0.9
        return second

    lesson.accuracy = noted
    try:
        groups = [{"params": list(model.parameters()), "lr": 0.1}]
        best = lesson.train_best(model, groups, (x, y), (x, y), config(rounds=2))
    finally:
        lesson.accuracy = original
    assert best == 0.9 and len(scores) == 2
    assert torch.equal(model.weight, noted.weights)


def test_a_round_is_20_passes_over_shuffled_batches_of_20(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    x = torch.arange(50.0)[:, None] / 50
    y = torch.arange(50) % 2
    seen = []

    def noted(model: nn.Module, batch: tuple) -> torch.Tensor:
        seen.append(batch[0].flatten().tolist())
        return model(batch[0]).square().mean()

    monkeypatch.setattr(lesson, "cross_entropy", noted)
    model = nn.Linear(1, 2)
    groups = [{"params": list(model.parameters()), "lr": 0.1}]
    lesson.train_best(model, groups, (x, y), (x, y), config(rounds=2, seed=7))
    batches = Batches(x, batch_size=20, shuffle=True, seed=7)
    assert seen == [x.flatten().tolist() for _ in range(40) for (x,) in batches]
    assert capsys.readouterr().out == "", "no line for each of the many short trainings"


def test_training_goes_on_from_round_to_round() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 5)
    y = (x @ torch.randn(5, 3)).argmax(dim=1)
    scores = []
    for rounds in (1, 4):
        torch.manual_seed(1)
        model = nn.Linear(5, 3)
        groups = [{"params": list(model.parameters()), "lr": 0.001}]
        scores.append(lesson.train_best(model, groups, (x, y), (x, y), config(rounds=rounds)))
    assert scores[1] > scores[0] + 0.05


def test_ways_begin_as_their_names_say() -> None:
    old = lesson.lesson_5_11.make_net(0, 6)
    scratch, _ = lesson.start("scratch", old, 0.01, 3)
    tuned, plain = lesson.start("fine-tuned", old, 0.01, 3)
    _, falling = lesson.start("discriminative", old, 0.01, 3)
    opposite, rising = lesson.start("reversed", old, 0.01, 3)
    assert not torch.equal(scratch.blocks[0][0].weight, old.blocks[0][0].weight)
    assert torch.equal(tuned.blocks[0][0].weight, old.blocks[0][0].weight)
    assert {group["lr"] for group in plain} == {0.01}
    assert [group["lr"] for group in falling] == pytest.approx(
        [0.01 / 3**n for n in (4, 3, 2, 1, 0)]
    )
    assert torch.equal(opposite.blocks[0][0].weight, old.blocks[0][0].weight)
    assert [group["lr"] for group in rising] == pytest.approx(
        [0.01 / 3**n for n in (1, 2, 3, 4, 0)]
    )


@pytest.mark.parametrize("way", ["scratch", "fine-tuned", "discriminative", "reversed"])
def test_no_way_trains_the_old_network(way: str) -> None:
    old = lesson.lesson_5_11.make_net(0, 6)
    before = {name: value.clone() for name, value in old.state_dict().items()}
    model, groups = lesson.start(way, old, 0.01, 3)
    assert model.head.out_features == 4
    with torch.no_grad():
        for group in groups:
            for parameter in group["params"]:
                parameter.fill_(9.0)
    assert all(value.equal(before[name]) for name, value in old.state_dict().items())


def test_few_of_each_are_that_many_of_each() -> None:
    y = torch.arange(60) % 3
    x, classes = lesson.few_of_each(torch.arange(60), y, 4, 0)
    assert classes.bincount().tolist() == [4, 4, 4]
    assert torch.equal(y[x], classes) and len(x.unique()) == 12
    assert not torch.equal(x, lesson.few_of_each(torch.arange(60), y, 4, 1)[0])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as torchvision's, with random weights and a digest to match."""
    torch.manual_seed(0)
    path = tmp_path / lesson.RESNET18
    torch.save(torchvision.models.resnet18().state_dict(), path)
    monkeypatch.setattr(lesson, "RESNET18_DIGEST", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_a_whole_file_gives_features(weights: Path) -> None:
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    found = lesson.imagenet_features(config(data_dir=weights.parent), x)
    assert found.shape == (3, 512)
    model = torchvision.models.resnet18()
    model.load_state_dict(torch.load(weights, weights_only=True))
    scores = model.eval()(
        torchvision.transforms.functional.normalize(
            nn.functional.interpolate((x + 1) / 2, scale_factor=2, mode="bilinear"),
            [0.485, 0.456, 0.406],
            [0.229, 0.224, 0.225],
        )
    )
    torch.testing.assert_close(model.fc(found), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("damage", ["cut", "one byte", "empty", "text"])
def test_a_damaged_file_is_refused_in_one_sentence(weights: Path, damage: str) -> None:
    content = weights.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "one byte": content[:-1] + bytes([content[-1] ^ 1]),
        "empty": b"",
        "text": b"<html>403</html>",
    }
    weights.write_bytes(changed[damage])
    with pytest.raises(LessonError, match="is damaged") as error:
        lesson.imagenet_features(config(data_dir=weights.parent), torch.zeros(1, 3, 32, 32))
    assert "\n" not in str(error.value) and lesson.RESNET18 in str(error.value)
    assert weights.read_bytes() == changed[damage], "the learner's file is left alone"


@pytest.mark.parametrize("weights_flag, looked_for", [("none", False), ("imagenet", True)])
def test_weights_are_looked_for_only_when_asked_for(
    weights_flag: str, looked_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = []

    def noted(cfg, way, *_: object) -> tuple[float, float]:
        ways.append(way)
        return 0.5 + 0.1 * len(ways), 0.01

    monkeypatch.setattr(lesson, "best_rate", noted)
    monkeypatch.setattr(lesson, "overfits", lambda *_, **__: None)
    monkeypatch.setattr(lesson, "expect", lambda *_, **__: None)
    old = lesson.lesson_5_11.make_net(0, 6)
    some = (torch.zeros(20, 3, 8, 8), torch.arange(20) % 4)
    sets = {"train": some, "val": some, "test": some}
    lesson.show_ways(config(weights=weights_flag, draws=1), old, sets)
    assert ("imagenet" in ways) == looked_for
    assert ways[:5] == ["scratch", "frozen", "fine-tuned", "discriminative", "reversed"]
    assert lesson.Config().weights == "none"


def test_a_download_is_copied_as_it_is(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    lesson.copy_weights([weights], target)
    assert target.read_bytes() == weights.read_bytes()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.full
def test_what_the_note_says_of_fine_tuning() -> None:
    """One rate for all parts does well with a head trained first, or with three frozen blocks."""
    cfg = config()
    data = load_images(cfg, split_seed=0)
    train = to_tensors(data.x_train, data.y_train)
    old = lesson.lesson_5_11.make_net(0, 6)
    many, labels = lesson.only_kinds(*train, lesson.OLD)
    lesson.lesson_5_11.train_net(old, many[:3000], labels[:3000], 8, 0)
    few = lesson.few_of_each(*lesson.only_kinds(*train, lesson.NEW), 10, 0)
    val = lesson.only_kinds(*to_tensors(data.x_val, data.y_val), lesson.NEW)
    val = val[0][:100], val[1][:100]
    test = lesson.only_kinds(*to_tensors(*data.test()), lesson.NEW)
    rate = 0.002

    tuned, groups = lesson.start("fine-tuned", old, rate, 0)
    lesson.train_best(tuned, groups, few, val, cfg)
    assert lesson.accuracy(tuned, few) > 0.95 and lesson.accuracy(tuned, test) < 0.8

    model = lesson.with_new_head(old, 4, 0)
    of_few = lesson.features(model, few[0])
    adam = torch.optim.Adam(model.head.parameters(), lr=0.01)
    for _ in range(300):
        adam.zero_grad()
        lesson.cross_entropy(model.head, (of_few, few[1])).backward()
        adam.step()
    lesson.train_best(model, lesson.parameter_groups(model, rate, 1.0), few, val, cfg)
    assert lesson.accuracy(model, test) > lesson.accuracy(tuned, test) + 0.08

    model = lesson.with_new_head(old, 4, 0)
    early = nn.Sequential(*model.blocks[:3]).eval().requires_grad_(False)
    late = nn.Sequential(model.blocks[3], nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)
    groups = [{"params": list(late.parameters()), "lr": rate}]
    few, val, test_maps = ((early(x), y) for x, y in (few, val, test))
    lesson.train_best(late, groups, few, val, cfg)
    assert lesson.accuracy(late, test_maps) > lesson.accuracy(tuned, test) + 0.1
