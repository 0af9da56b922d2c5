"""Lesson 7.11: what its claims cannot see in a short run."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from common.data.shapes import load_shapes
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/11-vision-transformer")


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def small(classes: int = 7) -> torch.nn.Module:
    torch.manual_seed(0)
    model = lesson.VisionTransformer(12, 4, 2, 2, 8, 10, classes).double().eval()
    torch.nn.init.normal_(model.class_token)
    return model


@pytest.mark.parametrize("shape, side", [((2, 3, 8, 12), 4), ((1, 1, 6, 4), 2), ((3, 2, 5, 5), 5)])
def test_patches_are_torchs_unfolded_columns(shape, side):
    x = doubles(*shape)
    found = lesson.patches(x, side)
    assert torch.equal(found, F.unfold(x, side, stride=side).mT)


def test_a_side_that_does_not_fit_is_refused():
    with pytest.raises(RuntimeError):
        lesson.patches(doubles(1, 3, 10, 12), 4)


def test_the_shape_of_what_comes_out():
    model = small()
    x = doubles(5, 3, 12, 12)
    assert model(x).shape == (5, 7)
    assert model(x, torch.tensor([[0, 4]] * 5)).shape == (5, 7)
    assert model.positions.shape == (1, 10, 8)
    # The last call had two patches and the class token.
    assert model.encoder.layers[1].attention.weights.shape == (5, 2, 3, 3)


def test_it_is_the_encoder_on_the_class_token_and_the_patches():
    model = small()
    x = doubles(2, 3, 12, 12)
    tokens = model.embed(lesson.patches(x, 4))
    tokens = torch.cat([model.class_token.expand(2, -1, -1), tokens], dim=1) + model.positions
    wanted = model.head(model.encoder(tokens)[:, 0])
    torch.testing.assert_close(model(x), wanted)


def test_each_picture_keeps_patches_of_its_own():
    model = small()
    x = doubles(2, 3, 12, 12)
    keep = torch.tensor([[8, 0, 3], [1, 2, 5]])
    found = model(x, keep)
    for number in range(2):
        one = slice(number, number + 1)
        torch.testing.assert_close(found[one], model(x[one], keep[one]))
    # A patch that is left out has no influence, one that is kept has.
    changed = x.clone()
    changed[0, :, :4, 4:8] += 1.0  # patch 1
    moved = (model(changed, keep) - found).abs().amax(dim=1)
    assert moved.tolist() == [0.0, 0.0]
    changed[1, :, :4, 4:8] += 1.0
    moved = (model(changed, keep) - found).abs().amax(dim=1)
    assert moved[0] == 0 and moved[1] > 1e-6


def test_it_has_no_dropout_and_torchvisions_epsilon():
    model = small().train()
    x = doubles(2, 3, 12, 12)
    torch.testing.assert_close(model(x), model(x))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 5 and {norm.eps for norm in norms} == {1e-6}


def test_every_weight_of_torchvision_is_copied():
    theirs = torchvision.models.VisionTransformer(24, 8, 1, 3, 12, 20)
    ours = lesson.twin(theirs, 24, 8, 1, 3, 12, 20).double()
    theirs.double()
    x = doubles(1, 3, 24, 24)
    for number, weight in enumerate(theirs.parameters()):
        with torch.no_grad():
            weight += 0.5 * doubles(*weight.shape, seed=number)
    assert (ours(x) - theirs(x)).abs().max() > 0.01
    lesson.load_torchvision(ours, theirs)
    torch.testing.assert_close(ours(x), theirs(x))


def test_twins_begin_with_no_zeros_that_would_hide_mistakes():
    theirs = torchvision.models.VisionTransformer(24, 8, 1, 3, 12, 20)
    lesson.twin(theirs, 24, 8, 1, 3, 12, 20)
    assert all(weight.abs().max() > 0.001 for weight in theirs.parameters())


@pytest.mark.parametrize("name", ["vit_many", "vit_few", "resnet", "linear"])
def test_the_networks_that_are_compared(name):
    cfg = lesson.Config()
    model = lesson.make(cfg, name)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    for weight, again in zip(model.parameters(), lesson.make(cfg, name).parameters()):
        assert torch.equal(weight, again)


def test_learning_sees_the_first_pictures_only():
    x = torch.randn(300, 3, 32, 32)
    y = torch.arange(300) % 10
    x[100:] = float("nan")
    model = lesson.learn(lesson.Config(), lesson.make(lesson.Config(), "linear"), (x, y), 100, 6)
    assert model[1].weight.isfinite().all() and not model.training


def test_pictures_are_standardised_one_by_one():
    scenes = load_shapes(lesson.Config(tiny=True)).val
    x, y = lesson.load(scenes)
    assert x.shape == (100, 3, 32, 32) and y.tolist() == scenes.labels[:, 0].tolist()
    torch.testing.assert_close(x.mean(dim=(2, 3)), torch.zeros(100, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=(1, 2, 3)), torch.ones(100))


def test_the_notes_count_of_multiplications():
    """Exercise 1: patches of 8 and of 16 pixels."""
    found = [12 * n * 768**2 + 2 * n**2 * 768 for n in (785, 197)]
    assert found == [6502663680, 1453954560]
    assert found[0] / found[1] == pytest.approx(4.47, abs=0.005)


def test_equal_weights_in_all_layers():
    """Exercise 3: what is left of a token itself after 12 layers."""
    layers = [torch.full((1, 2, 5, 5), 0.2, dtype=torch.float64)] * 12
    wanted = torch.eye(5) / 2**12 + (1 - 2**-12) / 5
    torch.testing.assert_close(lesson.rollout(layers)[0], wanted.double())


def test_rollout_of_one_layer_is_half_of_itself():
    weights = doubles(2, 3, 5, 5).softmax(dim=-1)
    wanted = (weights.mean(dim=1) + torch.eye(5)) / 2
    torch.testing.assert_close(lesson.rollout([weights]), wanted)


def test_rollout_follows_a_token_through_the_layers():
    """Layer 1 copies token 2 to token 1, layer 2 token 1 to token 0: a quarter arrives."""
    first = torch.eye(3, dtype=torch.float64)
    second = first.clone()
    first[1] = torch.tensor([0.0, 0, 1])
    second[0] = torch.tensor([0.0, 1, 0])
    found = lesson.rollout([first[None, None], second[None, None]])
    assert found[0, 0].tolist() == [0.5, 0.25, 0.25]
    found = lesson.rollout([second[None, None], first[None, None]])
    assert found[0, 0].tolist() == [0.5, 0.5, 0.0]
