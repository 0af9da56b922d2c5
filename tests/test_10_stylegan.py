"""Lesson 8.10: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/10-stylegan")
gan = load_lesson("phase08_generative/01-gan-basics")
wgan = load_lesson("phase08_generative/03-wgan")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def make_generator() -> nn.Module:
    """With random numbers where training begins with 0."""
    torch.manual_seed(0)
    model = lesson.Generator(16).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return model


@pytest.mark.parametrize("size", [1, 3, 5])
def test_grouped_and_shared_filters_agree(size):
    x, weight, style = randn(4, 6, 8, 5), randn(7, 6, size, size), randn(4, 6)
    found = lesson.grouped_conv(x, weight, style)
    assert found.shape == (4, 7, 8, 5)
    torch.testing.assert_close(lesson.modulated_conv(x, weight, style), found)


def test_a_style_of_0_gives_0_and_no_nan():
    x, weight = randn(2, 3, 4, 4), randn(5, 3, 3, 3)
    style = torch.zeros(2, 3).double().requires_grad_()
    for conv in (lesson.grouped_conv, lesson.modulated_conv):
        y = conv(x, weight, style)
        (gradient,) = torch.autograd.grad(y.sum(), style)
        assert y.abs().max() == 0 and gradient.isfinite().all()


def test_the_scale_of_weights_and_styles_is_divided_out():
    x, weight, style = randn(2, 3, 4, 4), randn(5, 3, 3, 3), randn(2, 3)
    wanted = lesson.modulated_conv(x, weight, style)
    torch.testing.assert_close(lesson.modulated_conv(x, 7 * weight, 3 * style), wanted)


def test_outputs_have_the_sd_1_for_small_and_large_styles():
    """The note: divided by the norm, the output's variance is 1 again."""
    torch.manual_seed(0)
    style = torch.logspace(-1, 1, 8)[:, None] * (1 + torch.randn(8, 16))
    y = lesson.modulated_conv(torch.randn(8, 16, 40, 40), torch.randn(10, 16, 3, 3), style)
    off = y[:, :, 1:-1, 1:-1].std(dim=(1, 2, 3)) - 1
    assert off.abs().max() < 0.05


def test_gradients_of_the_grouped_convolution_are_right():
    parts = [randn(*shape).requires_grad_() for shape in ((2, 3, 4, 3), (2, 3, 3, 3), (2, 3))]
    assert torch.autograd.gradcheck(lesson.grouped_conv, parts)
    assert torch.autograd.gradcheck(lesson.modulated_conv, parts)


def test_a_layer_is_convolution_noise_bias_and_leaky_relu():
    layer = make_generator().layers[2]
    x, w = randn(3, 8, 6, 7), randn(3, lesson.STYLE)
    torch.manual_seed(1)
    found = layer(x, w)
    torch.manual_seed(1)
    y = lesson.one_by_one(x, layer.weight, layer.style(w)) + layer.bias
    y = y + layer.strength * torch.randn(3, 1, 6, 7)
    torch.testing.assert_close(found, y.maximum(0.2 * y))


def test_each_picture_has_noise_of_its_own_the_same_in_all_channels():
    layer = lesson.StyledLayer(8, 4)
    nn.init.ones_(layer.strength)
    nn.init.zeros_(layer.weight)
    y = layer(torch.randn(2, 8, 5, 5), torch.randn(2, lesson.STYLE))
    assert torch.equal(y[:, 0], y[:, 3])
    assert not torch.equal(y[0], y[1])
    assert len(y[0, 0].unique()) == 25


def test_the_whole_generator_written_out():
    model = make_generator()
    z = randn(3, lesson.STYLE)
    w = model.styles(10 * z)  # only the direction of z counts
    torch.manual_seed(1)
    found = model.synthesis(w.expand(lesson.LAYERS, -1, -1))
    torch.manual_seed(1)
    x = model.start.repeat(3, 1, 1, 1)
    w = model.mapping(z / z.norm(dim=1, keepdim=True) * lesson.STYLE**0.5)
    for number, layer in enumerate(model.layers):
        if number:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = layer(x, w)
        torch.testing.assert_close(found[number], x)
    torch.testing.assert_close(found[-1], model.to_picture(x).tanh())
    assert [each.shape[2] for each in found] == [4, 8, 16, 16]
    assert found[-1].shape == (3, 1, 16, 16)


def test_each_picture_of_a_batch_has_its_own_border():
    start = torch.tensor([1, 2, 3, 5])
    found = lesson.mix(torch.zeros(4, 2), torch.ones(4, 2), start)
    wanted = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0.0]])
    assert torch.equal(found, wanted[:, :, None].expand(-1, -1, 2))


def test_in_training_two_of_five_pictures_mix_styles():
    """The first layer always has the picture's own style."""
    model = lesson.Generator(8)
    seen = []
    model.synthesis = lambda styles: seen.append(styles) or [styles]
    torch.manual_seed(0)
    model(torch.randn(4000, lesson.STYLE))
    styles = seen[0]
    assert styles.shape == (3, 4000, lesson.STYLE)
    changed = (styles[1:] != styles[:-1]).any(dim=2).sum(dim=0)
    assert changed.max() == 1
    assert changed.double().mean().item() == pytest.approx(2 / 5, abs=4 * (6 / 25 / 4000) ** 0.5)


def test_truncation_goes_straight_to_the_mean():
    torch.manual_seed(0)
    model = lesson.Generator(8)
    w = model.styles(torch.randn(6, lesson.STYLE))
    torch.manual_seed(1)
    mean = model.styles(torch.randn(5000, lesson.STYLE)).mean(dim=0)
    for psi in (0, 0.5, 1, 1.5):
        torch.manual_seed(1)
        torch.testing.assert_close(model.truncated(w, psi), (1 - psi) * mean + psi * w)


def test_stored_weights_have_the_sd_1_and_used_ones_hes():
    torch.manual_seed(0)
    layer = lesson.equalised(nn.Sequential(nn.Conv2d(20, 30, 4)))[0]
    stored = layer.parametrizations.weight.original
    assert stored.std().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(layer.weight, stored * (2 / 320) ** 0.5)
    x = torch.randn(2, 20, 6, 6)
    wanted = F.conv2d(x, stored * (2 / 320) ** 0.5, layer.bias)
    torch.testing.assert_close(layer(x), wanted)


def test_adam_moves_all_layers_at_the_same_pace():
    """Exercise 3: by 1 % of the sd with which a weight starts; without the scale by more."""
    for inputs, plain_pace in ((8, 0.02), (128, 0.08), (2048, 0.32)):
        torch.manual_seed(0)
        scaled = lesson.equalised(nn.Linear(inputs, 8).double())
        plain = nn.Linear(inputs, 8).double()
        plain.weight.data.copy_(scaled.weight)
        for layer, pace in ((scaled, 0.01), (plain, plain_pace)):
            before = layer.weight.detach().clone()
            adam = torch.optim.Adam(layer.parameters(), lr=0.01)
            wgan.descend(adam, layer(randn(5, inputs)).square().sum())
            moved = (layer.weight - before).abs().mean() / (2 / inputs) ** 0.5
            assert moved.item() == pytest.approx(pace, rel=1e-3)


def test_mapping_network_and_noise_learn_slower():
    model = lesson.Generator(8)
    adam = lesson.adam_for(model, 0.01)
    rates = {id(each): group["lr"] for group in adam.param_groups for each in group["params"]}
    wanted = {"mapping": 0.001, "strength": 0.0001}
    for name, weight in model.named_parameters():
        part = next((part for part in wanted if part in name), None)
        assert rates[id(weight)] == pytest.approx(wanted.get(part, 0.01))
    assert lesson.adam_for(lesson.make_discriminator(4), 0.01).param_groups[0]["lr"] == 0.01


def test_r1_of_a_straight_discriminator():
    """The note: D = 3x + 4y has the slope 5 everywhere; and R1 by finite differences."""
    line = nn.Linear(2, 1).double()
    line.weight.data.copy_(torch.tensor([[3.0, 4]]))
    assert wgan.slopes(line, randn(7, 2)).square().mean().item() == pytest.approx(25)

    torch.manual_seed(0)
    model = lesson.make_discriminator(4).double()
    x = randn(2, 1, 16, 16)
    weight = model[0].parametrizations.weight.original
    penalty = wgan.slopes(model, x).square().mean()
    (gradient,) = torch.autograd.grad(penalty, weight)
    with torch.no_grad():
        values = []
        for step in (1e-5, -2e-5):
            weight[2, 0, 1, 1] += step
            with torch.enable_grad():
                values.append(wgan.slopes(model, x).square().mean().item())
    found = (values[0] - values[1]) / 2e-5
    assert found == pytest.approx(gradient[2, 0, 1, 1].item(), rel=1e-4)


@pytest.mark.parametrize(("gamma", "settles"), [(0.0, False), (1.0, True)])
def test_r1_stops_the_circling(gamma, settles):
    """The note: D(x) = ax, G = b, one real point at 0."""
    generator, discriminator = nn.Linear(1, 1), nn.Linear(1, 1, bias=False)
    nn.init.ones_(generator.bias)
    nn.init.zeros_(discriminator.weight)
    rates = [torch.optim.SGD(each.parameters(), lr=0.2) for each in (generator, discriminator)]
    zero = torch.zeros(1, 1)
    for _ in range(100):
        gan.gan_step(generator, discriminator, zero, zero, *rates)
        penalty = gamma / 2 * wgan.slopes(discriminator, zero).square().mean()
        wgan.descend(rates[1], penalty)
    left = math.hypot(generator.bias.item(), discriminator.weight.item())
    assert left < 0.01 if settles else left > 0.5
