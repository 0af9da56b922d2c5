"""The face GAN: stopped and resumed, its parts against slower ways to the same result."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from projects import run_project
from scipy.spatial.distance import cdist
from scipy.stats import chi2

from common.data import faces
from common.errors import LessonError
from common.lessons import load_lesson

project = load_lesson("phase08_generative/project-face-gan")


def run(out: Path, *argv: str) -> int:
    return run_project(project, out, *argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces")
    assert run(out, "--tiny", "--no-plain") == 0
    return out


# ---- as its user meets it


def test_the_film_turns_in_a_circle(tmp_path: Path) -> None:
    cfg = project.Config(width=4, latent_dim=8, device="cpu", out=tmp_path)
    model, _ = project.make_players(cfg, augment=True)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    project.save(cfg, model.eval())
    with Image.open(tmp_path / "between.gif") as film:
        assert film.n_frames == 60 and film.size == (768, 128) and film.info["loop"] == 0
        frames = []
        for number in (0, 1, 30, 59):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB"), dtype=float))
    step = np.abs(frames[1] - frames[0]).mean()
    assert np.abs(frames[3] - frames[0]).mean() < 2 * step < np.abs(frames[2] - frames[0]).mean()


def test_the_model_that_was_kept_makes_the_same_faces(trained: Path) -> None:
    cfg = project.Config(width=4, latent_dim=8, device="cpu")
    model, _ = project.make_players(cfg, augment=True)
    model.load_state_dict(project.checkpoint.load(trained / "generator.pt"))
    saved = project.checkpoint.load(trained / "training-augmented.pt")
    average = saved["members"]["average"]
    assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())


def test_a_folder_of_pictures_and_what_is_no_folder(tmp_path: Path, capsys) -> None:
    drawn = faces.draw(80, 3)
    for number, picture in enumerate(drawn.x):
        Image.fromarray(picture).resize((40, 36)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8no picture")
    assert run(tmp_path / "out", "--tiny", "--no-plain", "--data", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "left out: 1 of 81 files" in said and "broken.jpg" in said
    assert "80 pictures of" in said and "combinations of labels" not in said
    assert run(tmp_path / "out", "--tiny", "--data", "nowhere") == 1
    said = capsys.readouterr().err
    assert "no data set and no folder" in said and said.count("\n") <= 2


# ---- training


def train_small(out: Path, stop_at: int = 0, name: str = "augmented", **changes):
    sizes = {"width": 4, "latent_dim": 8, "batch_size": 8, "looks": 3, "steps": 4, "samples": 20}
    cfg = project.Config(device="cpu", out=out, **sizes | changes)
    x, val = faces.draw(40, 1).pictures(), faces.draw(20, 2).pictures()
    torch.manual_seed(0)
    judge = project.Judge().eval()
    noise = torch.randn(20, 8)
    step = project.gan.gan_step
    count = itertools.count(1)

    def killed(*words):
        if next(count) == stop_at:
            raise KeyboardInterrupt
        return step(*words)

    project.gan.gan_step = killed
    try:
        return project.train(cfg, judge, (x, val, noise), name)
    finally:
        project.gan.gan_step = step


@pytest.mark.parametrize("name", project.KINDS)
def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path, name, capsys) -> None:
    whole, history = train_small(tmp_path / "whole", name=name)
    with pytest.raises(KeyboardInterrupt):
        train_small(tmp_path / "halves", stop_at=11, name=name)  # within the third look
    torch.manual_seed(99)
    halves, again = train_small(tmp_path / "halves", name=name, resume=True)
    assert "resumed after epoch" in capsys.readouterr().out
    for one, two in zip(whole.state_dict().values(), halves.state_dict().values()):
        assert torch.equal(one, two)
    assert again == history and [row["step"] for row in history] == [0, 4, 8, 12]
    with pytest.raises(LessonError, match="made with another --g-rate"):
        train_small(tmp_path / "halves", name=name, resume=True, g_rate=0.1)


def test_with_augmentation_d_sees_other_faces_than_without(tmp_path) -> None:
    one, _ = train_small(tmp_path / "one")
    two, _ = train_small(tmp_path / "two", name="plain")
    assert not torch.equal(next(one.parameters()), next(two.parameters()))


def test_known_by_heart_is_how_far_unseen_faces_stand_towards_made_ones() -> None:
    x, val = faces.draw(30, 1).pictures(), faces.draw(20, 2).pictures()
    logits = {x[0].sum().item(): 3.0, val[0].sum().item(): 2.0, 0.0: -1.0}

    class Known(torch.nn.Module):
        def forward(self, pictures):
            return torch.full((len(pictures), 1), logits[pictures[0].sum().item()])

    def average(noise):
        return torch.zeros(len(noise), 3, 32, 32)

    discriminator = torch.nn.Sequential(project.Augment(), Known())
    parts = x, val, torch.randn(20, 8)
    now = project.measure(project.Config(), project.Judge().eval(), parts, average, discriminator)
    assert [now[name] for name in ("seen", "unseen", "made", "known")] == [3, 2, -1, 0.25]
    assert 0 < now["distance"] != now["to_val"] > 0


# ---- augmentation


def test_the_changes_are_drawn_from_where_the_paper_draws_them(monkeypatch) -> None:
    drawn = {}
    for name in ("recolour", "move", "cut_out"):

        def keep(x, *numbers, name=name):
            drawn[name] = numbers
            return x

        monkeypatch.setattr(project, name, keep)
    project.Augment()(torch.zeros(5000, 1, 32, 32))
    ranges = [(-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)]
    for numbers, (low, high) in zip(drawn["recolour"], ranges):
        assert low <= numbers.min() < low + 0.01 and high - 0.01 < numbers.max() <= high
    counts = torch.bincount(drawn["move"][0].flatten() + 4)
    assert len(counts) == 9 and counts.min() > 0.8 * counts.max()
    corners, side = drawn["cut_out"]
    counts = torch.bincount(corners.flatten() + 8)
    assert side == 16 and len(counts) == 33 and counts.min() > 0.7 * counts.max()


@pytest.mark.parametrize("seed", range(3))
def test_gradients_flow_through_every_change(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 8, 8).double().requires_grad_()
    moves, corners = torch.randint(-3, 4, (2, 2)), torch.randint(-2, 6, (2, 2))
    numbers = torch.rand(3, 2).double()
    assert torch.autograd.gradcheck(lambda x: project.recolour(x, *numbers), x)
    assert torch.autograd.gradcheck(lambda x: project.move(x, moves), x)
    assert torch.autograd.gradcheck(lambda x: project.cut_out(x, corners, 4), x)


def test_nothing_is_changed_by_the_numbers_for_nothing() -> None:
    x = torch.randn(4, 3, 6, 9)
    ones = torch.ones(4)
    torch.testing.assert_close(project.recolour(x, 0 * ones, ones, ones), x)
    still = torch.zeros(4, 2).long()
    assert torch.equal(project.move(x, still), x)
    assert torch.equal(project.cut_out(x, still + 9, 3), x)
    assert (project.cut_out(x, still - 1, 20) == 0).all()
    # the exercise of the note: without saturation all channels are alike
    grey = project.recolour(x, 0 * ones, 0 * ones, ones)
    torch.testing.assert_close(grey, x.mean(dim=1, keepdim=True).expand_as(x))


# ---- average, way, nearest


def test_the_average_is_torchs_own() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    ours = project.copy.deepcopy(model)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    theirs.update_parameters(model)  # the first call copies
    for _ in range(4):
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.normal_()
        project.follow(ours, model, keep=0.9)
        theirs.update_parameters(model)
    for one, two in zip(ours.parameters(), theirs.module.parameters()):
        torch.testing.assert_close(one, two)
    torch.testing.assert_close(ours[1].running_var, theirs.module[1].running_var)


def test_slerp_stays_in_the_plane_and_turns_evenly() -> None:
    a, b = torch.randn(2, 50, 6).double()
    angle = torch.nn.functional.cosine_similarity(a, b, dim=1).acos()
    for share in (0.0, 0.25, 0.7, 1.0):
        found = project.slerp(a, b, torch.full((50, 1), share).double())
        turned = torch.nn.functional.cosine_similarity(a, found, dim=1).clamp(-1, 1).acos()
        torch.testing.assert_close(turned, share * angle, rtol=1e-5, atol=1e-6)
        rest = torch.linalg.lstsq(torch.stack([a, b], dim=2), found[:, :, None]).solution
        plane = (torch.stack([a, b], dim=2) @ rest)[:, :, 0]
        torch.testing.assert_close(plane, found)


def test_slerp_between_two_of_equal_norm_keeps_it() -> None:
    a, b = torch.randn(2, 2000, 64).double()
    alike = b * (a.norm(dim=1) / b.norm(dim=1))[:, None]
    between = project.slerp(a, alike, torch.rand(2000, 1).double())
    torch.testing.assert_close(between.norm(dim=1), a.norm(dim=1))


def test_the_figure_shows_the_ways_with_the_sharpest_ends(tmp_path, monkeypatch):
    """Of a model whose faces are half bright, half dark: z says how much."""
    shown = {}
    monkeypatch.setattr(project, "plot_images", lambda axis, strips, titles: shown.update(s=strips))
    stops = torch.rand(5, 6, 2)
    monkeypatch.setattr(project.torch, "randn", lambda *shape, device: stops)

    class Plain(torch.nn.Module):
        def forward(self, z):
            faces = torch.zeros(len(z), 3, 32, 32)
            faces[:, :, :, :16] = z[:, :1, None, None]
            faces[:, :, :, 16:] = -z[:, :1, None, None]
            return faces

    cfg = project.Config(latent_dim=2, device="cpu", out=tmp_path)
    project.save(cfg, Plain())
    ends = []
    for i in range(5):
        ends += torch.stack([stops[i - 1, :, 0], stops[i, :, 0]], dim=1).tolist()
    least = sorted((min(pair) for pair in ends), reverse=True)[:4]
    rows = shown["s"][0].reshape(4, 32, 13, 32, 3)
    for row, wanted in zip(rows, least):
        found = (row[0, [0, 12], 0, 0] / 127.5 - 1).tolist()
        assert min(found) == pytest.approx(wanted, abs=0.005)
        assert any(found == pytest.approx(pair, abs=0.005) for pair in ends)


def test_distances_and_percentiles_are_scipys_and_numpys() -> None:
    made, train, held_out = torch.randn(3, 1203, 7).double()
    wanted = cdist(made, train).min(axis=1)
    torch.testing.assert_close(project.nearest_distances(made, train).numpy(), wanted)
    fifths = [np.percentile(cdist(rows, train).min(axis=1), 5) for rows in (made, held_out)]
    assert project.copy_ratio(made, train, held_out) == pytest.approx(fifths[0] / fifths[1])
    assert project.copy_ratio(train, train, held_out) == 0.0


def test_half_way_on_the_straight_line_is_as_short_as_one_z_in_3600() -> None:
    assert 1 / chi2(64).cdf(64 / 2) == pytest.approx(3600, rel=0.01)


@pytest.mark.parametrize("noise, low, high", [(0.02, 0.05, 0.15), (0.1, 0.35, 0.55), (0.2, 0.8, 1)])
def test_the_fifth_percentile_finds_sharp_copies_only(noise, low, high) -> None:
    x, unseen = (faces.draw(n, seed).pictures().flatten(1) for n, seed in ((100, 1), (300, 2)))
    tenth = unseen.clone()
    copies = x[torch.arange(30)]
    tenth[::10] = copies + noise * torch.randn_like(copies)
    assert low < project.copy_ratio(tenth, x, unseen) < high


def test_a_mirrored_copy_is_hardly_nearer_than_an_unseen_face() -> None:
    x, unseen = (faces.draw(100, seed).pictures().flatten(1) for seed in (1, 2))
    mirrored = x.view(-1, 3, 32, 32).flip(3).flatten(1)
    apart = (mirrored - x).norm(dim=1).median()
    assert 0.7 < apart / project.nearest_distances(unseen, x).median() < 1


def test_the_gaussian_has_the_mean_and_the_covariances() -> None:
    x = faces.draw(100, 4).pictures()[:, :, ::8, ::8] / 10
    found = project.gaussian_faces(x, 20_000).flatten(1)
    rows = x.flatten(1)
    torch.testing.assert_close(found.mean(dim=0), rows.mean(dim=0), rtol=0, atol=0.004)
    torch.testing.assert_close(found.T.cov(), rows.T.cov(), rtol=0, atol=3e-4)


def test_the_judge_reads_labels_in_their_order() -> None:
    labels = torch.tensor([[1, 0, 1, 3], [0, 1, 0, 2]])
    logits = [torch.nn.functional.one_hot(each, n) for each, n in zip(labels.T, project.ANSWERS)]
    found = project.read_modes(lambda x: torch.cat(logits, dim=1).float(), torch.zeros(2))
    assert found.tolist() == faces.mode_of(labels.numpy()).tolist() == [23, 10]
    wrong = project.judge_loss(lambda x: 99.0 * torch.cat(logits, dim=1), (None, labels.flip(0)))
    right = project.judge_loss(lambda x: 99.0 * torch.cat(logits, dim=1), (None, labels))
    assert right < 1e-6 and wrong > 100


def test_the_way_to_the_opposite_begins_at_its_start() -> None:
    """By rounding the cosine of some of these is under -1, and then has no angle."""
    torch.manual_seed(0)
    z = torch.randn(1000, 64)
    unit = z / z.norm(dim=1, keepdim=True)
    assert (unit * -unit).sum(dim=1).min() < -1
    torch.testing.assert_close(project.slerp(z, -z, torch.zeros(1000, 1)), z)


def test_a_picture_is_at_distance_0_from_itself() -> None:
    """The faster way through a product of matrices would say 0.05 or so."""
    pictures = 100 * torch.randn(40, 300)
    assert (project.nearest_distances(pictures, pictures) == 0).all()
