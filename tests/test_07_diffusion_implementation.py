"""Lesson 8.7: what its claims cannot see in a short run, and what later lessons rely on."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.config import execute
from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/07-diffusion-implementation")
theory = load_lesson("phase08_generative/06-diffusion-theory")


def make_unet(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    model = lesson.UNet(width).double()
    nn.init.normal_(model.exit.weight)
    return model


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (28, 28)])
def test_the_noise_has_the_shape_of_the_picture(size):
    x = randn(3, 1, *size)
    assert make_unet()(x, torch.rand(3).double(), torch.arange(3)).shape == x.shape


def test_how_many_parameters():
    assert sum(weight.numel() for weight in lesson.UNet(24).parameters()) == 128_424


def test_a_block_is_two_convolutions_beside_a_residual_connection():
    torch.manual_seed(0)
    block = lesson.Block(8, 16, 5).double()
    x, context = randn(2, 8, 4, 6), randn(2, 5)
    y = F.silu(F.group_norm(x, 8, block.norm1.weight, block.norm1.bias))
    y = F.conv2d(y, block.conv1.weight, block.conv1.bias, padding=1)
    y = y + (context @ block.shift.weight.T + block.shift.bias)[:, :, None, None]
    y = F.silu(F.group_norm(y, 8, block.norm2.weight, block.norm2.bias))
    y = F.conv2d(y, block.conv2.weight, block.conv2.bias, padding=1)
    wanted = y + F.conv2d(x, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x, context), wanted)


def test_pictures_of_a_batch_do_not_meet():
    model = make_unet()
    x, angle, label = randn(4, 1, 8, 8), torch.rand(4).double(), torch.arange(4)
    one = model(x[2:3], angle[2:3], label[2:3])
    torch.testing.assert_close(model(x, angle, label)[2:3], one)


def test_a_corner_depends_on_all_pixels_and_on_angle_and_label():
    model = make_unet()
    x = randn(2, 1, 8, 8).requires_grad_()
    angle = torch.tensor([0.3, 1.2]).double().requires_grad_()
    corner = model(x, angle, torch.tensor([1, 7]))[:, 0, 0, 0].sum()
    by_x, by_angle = torch.autograd.grad(corner, (x, angle))
    assert by_x.abs().min() > 0 and by_angle.abs().min() > 0


def test_the_waves_tell_small_angles_apart():
    model = make_unet()
    x = randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    for near in (0.03, math.pi / 2 - 0.02):
        y = model(x, torch.tensor([near, near + 0.01]).double(), torch.tensor([5, 5]))
        assert (y[0] - y[1]).abs().max() > 1e-4


def test_known_noise_has_no_loss_with_sizes_that_all_differ():
    """And each picture of a batch gets a step of its own."""
    seen = []
    x_0 = randn(7, 1, 6, 4)
    knows = lesson.knowing(x_0)

    def model(x, angle, label):
        seen.append(angle)
        return knows(x, angle, label)

    torch.manual_seed(0)
    alpha_bar = theory.linear_schedule(30)
    loss = lesson.diffusion_loss(model, x_0, torch.zeros(7).long(), alpha_bar)
    assert loss.item() < 1e-20
    assert seen[0].shape == (7,) and len(seen[0].unique()) > 3


def test_all_steps_are_drawn_and_none_is_0():
    angles = []

    def model(x, angle, label):
        angles.append(angle)
        return x

    alpha_bar = theory.linear_schedule(5)
    lesson.diffusion_loss(model, randn(500, 1, 1, 1), torch.zeros(500).long(), alpha_bar)
    wanted = torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())[1:]
    torch.testing.assert_close(angles[0].unique(), wanted)


def test_a_step_as_a_row_fails_or_is_silently_wrong():
    """The note's failure."""
    alpha_bar = theory.linear_schedule(100)
    for n, fits in ((64, False), (8, True)):
        t = torch.arange(1, n + 1)
        x_0, noise = randn(2, n, 1, 8, 8)
        if not fits:
            with pytest.raises(RuntimeError, match=r"size of tensor a \(64\) must match the size"):
                theory.diffuse(x_0, t, alpha_bar, noise)
            continue
        x = theory.diffuse(x_0, t, alpha_bar, noise)
        column = theory.diffuse(x_0[..., 3], 4, alpha_bar, noise[..., 3])
        torch.testing.assert_close(x[..., 3], column)


def test_the_average_follows_all_weights_and_leaves_the_model():
    torch.manual_seed(0)
    model = lesson.UNet(8)
    average = lesson.UNet(8)
    first, second = copy.deepcopy(average), copy.deepcopy(model)
    lesson.follow(average, model, decay=0.75)
    weights = zip(average.parameters(), first.parameters(), model.parameters(), second.parameters())
    for found, before, theirs, theirs_before in weights:
        torch.testing.assert_close(found, 0.75 * before + 0.25 * theirs)
        assert torch.equal(theirs, theirs_before)


def test_guidance_of_1_asks_once():
    calls = []

    def model(x, angle, label):
        calls.append(label)
        return x * 0

    x = randn(2, 1, 8, 8)
    lesson.guided_noise(model, x, None, torch.tensor([3, 4]), 1)
    assert len(calls) == 1
    lesson.guided_noise(model, x, None, torch.tensor([3, 4]), 3)
    assert [each.tolist() for each in calls[1:]] == [[3, 4], [10, 10]]


def test_ddim_of_the_exact_denoiser_brings_a_mixture_back():
    """In 20 steps as near as the chain in 100, or nearer: no network."""
    torch.manual_seed(0)
    data = theory.make_data()
    real = data.draw(5000)
    alpha_bar = theory.linear_schedule(100)
    x = torch.randn_like(real)
    jumped = lesson.ddim(x, data.denoise, alpha_bar, 20)[-1]
    chain = theory.reverse_chain(x, data.denoise, theory.linear_schedule(20))[-1]
    assert theory.sliced_distance(jumped, real) < theory.sliced_distance(chain, real)
    assert theory.sliced_distance(jumped, real) < 0.05


@pytest.mark.parametrize("count", [0, -1, 41])
def test_too_few_or_too_many_steps_of_ddim_are_refused(count):
    with pytest.raises(LessonError, match=f"DDIM takes 1 to 40 steps .*, not {count}"):
        lesson.ddim(randn(3, 1, 8, 8), None, theory.linear_schedule(40), count)


@pytest.mark.parametrize("w", [-0.5, math.nan])
def test_a_guidance_below_0_is_refused(w):
    with pytest.raises(LessonError, match="must be 0 or more"):
        lesson.guided_noise(make_unet(), randn(1, 1, 8, 8), None, torch.tensor([3]), w)


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--ddim-steps", "11"], "DDIM takes 1 to 10 steps through a chain of 10, not 11."),
        (["--ddim-steps", "0"], "must be 1 or more, got 0"),
        (["--guidance", "-1"], "must be 0 or more, got -1"),
        (["--noise-steps", "3"], "must be 10 or more, got 3"),
    ],
)
def test_flags_out_of_range_stop_before_the_training(flags, sentence, tmp_path, capsys):
    argv = ["--tiny", "--out", str(tmp_path), *flags]
    try:
        code = execute(lesson.run, lesson.Config, lesson.__doc__, argv)
    except SystemExit as stopped:  # argparse
        code = stopped.code
    shown = capsys.readouterr()
    assert code and sentence in shown.err and "[4]" not in shown.out


def test_ddim_draws_nothing():
    x = randn(3, 1, 8, 8)
    alpha_bar = theory.linear_schedule(40)
    denoise = lesson.make_denoiser(make_unet(), torch.arange(3), 2)
    paths = [lesson.ddim(x, denoise, alpha_bar, count) for count in (4, 4, 40)]
    assert [len(path) for path in paths] == [5, 5, 41]
    assert torch.equal(paths[0][-1], paths[1][-1])


def test_what_is_guessed_needs_no_graph():
    denoise = lesson.make_denoiser(make_unet(), torch.arange(3), 2)
    a, b = theory.amounts(5, theory.linear_schedule(10))
    assert not denoise(randn(3, 1, 8, 8), a, b).requires_grad


def test_the_exercises_and_the_examples():
    assert math.isclose(1 + 0.85 * 3**2 + 0.15 * 10**2, 23.65)
    assert math.isclose(0.2 + 3 * 0.3, 1.1)
    assert round(math.log(0.5) / math.log(0.99)) == 69
    assert round(0.999**600, 2) == 0.55
    x_0 = (1 - 0.8 * 0.5) / 0.6
    assert (x_0, 0.8 * x_0 + 0.6 * 0.5) == pytest.approx((1, 1.1))


def test_guidance_is_the_score_of_a_classifier():
    """The derivation, for two Gaussians: at w = 1 the labelled data, and in between at 0.5."""
    both = theory.Mixture(torch.tensor([1.0, 1.0]), torch.tensor([[-1.0], [2.0]]), sd=0.5)
    first = theory.Mixture(torch.ones(1), torch.tensor([[-1.0]]), sd=0.5)
    x = torch.linspace(-3, 3, 7).double()[:, None].requires_grad_()
    a, b = 0.8, 0.6
    log_p = [
        theory.log_density(each, x, torch.tensor(a), torch.tensor(b)) for each in (both, first)
    ]
    classifier = torch.autograd.grad((log_p[1] - log_p[0]).sum(), x)[0]
    noises = [-b * theory.score(x, each.denoise(x, a, b), a, b) for each in (both, first)]
    torch.testing.assert_close(noises[1] - noises[0], -b * classifier)


def test_the_context_is_made_of_cosines_and_an_embedding():
    """cos 0 = 1 is the constant among them, and tells 0 from π as well."""
    model = make_unet()
    angle, label = torch.tensor([0.0, 0.4, 1.5]).double(), torch.tensor([3, 10, 0])
    waves = torch.stack([torch.cos(k * angle) for k in range(8)], dim=1)
    y = waves @ model.angles.weight.T + model.angles.bias + model.labels.weight[label]
    torch.testing.assert_close(model.context(angle, label), y * y.sigmoid())


def test_steps_of_ddim_that_are_not_whole_numbers_are_rounded():
    """Three steps through ten: from 10 to 7 to 3 to 0."""
    alpha_bar = theory.linear_schedule(10)
    x_0, noise = randn(2, 4, 1, 8, 8)
    x_0 = x_0.clamp(-1, 1)
    denoise = lesson.make_denoiser(lesson.knowing(x_0), torch.zeros(4), 1)
    path = lesson.ddim(theory.diffuse(x_0, 10, alpha_bar, noise), denoise, alpha_bar, 3)
    wanted = [theory.diffuse(x_0, t, alpha_bar, noise) for t in (10, 7, 3, 0)]
    torch.testing.assert_close(torch.stack(path), torch.stack(wanted))


class OneWeight(nn.Module):
    """In place of the U-Net: training moves one number."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(()))


def train_one_weight(monkeypatch, steps: int, seed: int = 0):
    """Both networks, what each step was given, and the weight behind each step."""
    given = []
    weights = []

    def loss(model, pictures, labels, alpha_bar):
        given.append((pictures, labels, alpha_bar))
        weights.append(model.weight.item())
        return (model.weight - 100).square()  # too far to be reached

    monkeypatch.setattr(lesson, "UNet", OneWeight)
    monkeypatch.setattr(lesson, "diffusion_loss", loss)
    cfg = lesson.Config(steps=steps, noise_steps=20, seed=seed, device="cpu")
    model, average = lesson.train(cfg, torch.arange(10.0), torch.arange(10))
    return model, average, given, [*weights, model.weight.item()]


def test_training_draws_64_pictures_with_their_labels_for_each_step(monkeypatch):
    _, _, given, _ = train_one_weight(monkeypatch, steps=30)
    assert len(given) == 30
    for pictures, labels, alpha_bar in given:
        assert pictures.shape == labels.shape == (64,)
        assert torch.equal(pictures.long(), labels)
        torch.testing.assert_close(alpha_bar, theory.linear_schedule(20).float())
    drawn = torch.cat([labels for _, labels, _ in given])
    assert drawn.bincount().min() > 100


def test_training_takes_steps_of_adam(monkeypatch):
    """Each from the gradient of its own loss alone, at the rate 0.003."""
    _, _, _, weights = train_one_weight(monkeypatch, steps=5)
    weight = nn.Parameter(torch.tensor(weights[0]))
    adam = torch.optim.Adam([weight], lr=0.003)
    wanted = [weights[0]]
    for _ in range(5):
        weight.grad = 2 * (weight.detach() - 100)
        adam.step()
        wanted.append(weight.item())
    assert weights == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("steps", [100, 1100])
def test_the_average_has_a_short_memory_at_first(steps, monkeypatch):
    """Of it step / (step + 10) stays, and later 0.99."""
    model, average, _, weights = train_one_weight(monkeypatch, steps)
    wanted = weights[0]
    for step, weight in enumerate(weights[1:]):
        kept = step / (step + 10) if step < 990 else 0.99
        wanted = kept * wanted + (1 - kept) * weight
    assert average.weight.item() == pytest.approx(wanted, abs=1e-4)
    assert model.weight.item() == weights[-1] > wanted + 0.01


def test_training_follows_from_the_seed(monkeypatch):
    paths = [train_one_weight(monkeypatch, 2, seed)[3] for seed in (3, 3, 4)]
    assert paths[0] == paths[1] != paths[2]


def test_a_network_on_another_device_makes_its_waves_there():
    model = lesson.UNet(8).to("meta")
    x, angle = torch.zeros(2, 1, 8, 8, device="meta"), torch.zeros(2, device="meta")
    assert model(x, angle, torch.zeros(2, device="meta").long()).device.type == "meta"
