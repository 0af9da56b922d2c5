"""Lesson 8.2: what its claims cannot see in a short run, and what later lessons rely on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/02-dcgan")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size, times", [(28, 2), (8, 2), (32, 3), (14, 1)])
def test_sizes_channels_and_range(size, times, channels):
    torch.manual_seed(0)
    generator = lesson.Generator(5, width=4, channels=channels, size=size, doublings=times)
    discriminator = lesson.Discriminator(4, channels=channels, size=size, halvings=times)
    pictures = generator(torch.randn(6, 5))
    assert pictures.shape == (6, channels, size, size)
    assert pictures.abs().max() < 1
    assert discriminator(pictures).shape == (6, 1)


def test_how_many_parameters():
    """The note's third exercise."""
    counts = [weight.numel() for weight in lesson.Generator(64, width=32).parameters()]
    assert sum(counts) == 234_177
    assert [counts[0], counts[3], counts[6] + counts[7]] == [200_704, 32_768, 513]


def test_where_there_is_batch_norm_and_where_a_bias():
    generator, discriminator = lesson.Generator(5), lesson.Discriminator()
    for model in (generator, discriminator):
        for layer, following in zip(model.layers, list(model.layers)[1:]):
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                assert (layer.bias is None) == isinstance(following, nn.BatchNorm2d)
    assert not isinstance(list(generator.layers)[-2], nn.BatchNorm2d)
    assert not isinstance(list(discriminator.layers)[1], nn.BatchNorm2d)


def test_initial_weights_replace_whatever_was_there():
    model = lesson.Discriminator(16)
    for weight in model.parameters():
        nn.init.constant_(weight, 7.0)
    lesson.init_weights(model)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        else:
            mean = 1.0 if weight.ndim == 1 else 0.0
            assert (weight - mean).abs().max() < 0.2
            assert weight.std() > 0.005


def test_the_transposed_convolution_of_a_picture_that_is_not_square():
    x, weight = randn(2, 3, 5, 7), randn(3, 4, 4, 4)
    wanted = F.conv_transpose2d(x, weight, stride=3, padding=2)
    torch.testing.assert_close(lesson.transposed(x, weight, 3, 2), wanted)


@pytest.mark.parametrize("size", [2, 4, 7, 14])
def test_kernel_4_stride_2_padding_1_doubles(size):
    """The note: exactly twice as many pixels. And its first exercise: kernel 3 does not."""
    x = randn(1, 1, size, size)
    assert lesson.transposed(x, randn(1, 1, 4, 4), 2, 1).shape[2] == 2 * size
    assert lesson.transposed(x, randn(1, 1, 3, 3), 2, 1).shape[2] == 2 * size - 1


@pytest.mark.parametrize("kernel, wanted", [(5, [4, 6, 6, 9]), (6, [9])])
def test_overlaps_of_larger_kernels(kernel, wanted):
    """The note's second exercise."""
    ones = torch.ones(1, 1, 8, 8)
    count = lesson.transposed(ones, torch.ones(1, 1, kernel, kernel), 2, 0)[0, 0, 6:-6, 6:-6]
    assert sorted(set(count.flatten().tolist())) == sorted(set(wanted))


def test_together_in_one_batch_half_the_contrast_is_seen():
    torch.manual_seed(0)
    discriminator = lesson.Discriminator(8).double()
    discriminator.layers[3].eps = 1e-15
    real = 2 * torch.rand(16, 1, 28, 28).double() - 1
    both = discriminator(torch.cat([real, real / 2]))
    assert (both[:16] - both[16:]).abs().mean() > 0.01


def test_copies_are_found_and_new_pictures_are_not_taken_for_copies():
    torch.manual_seed(0)
    train, held_out, new = torch.randn(3, 400, 1, 4, 4)
    assert lesson.closer_to_training(train + 0.01, train, held_out) == 1
    assert lesson.closer_to_training(held_out + 0.01, train, held_out) == 0
    assert lesson.closer_to_training(new, train, held_out) == pytest.approx(0.5, abs=0.1)
    assert lesson.closer_to_training(new, train, train) == 0  # as near is not nearer


def test_a_larger_training_set_is_searched_in_full_and_gives_no_advantage():
    torch.manual_seed(0)
    train, held_out, fresh = torch.randn(1200, 5), torch.randn(300, 5), torch.randn(2000, 5)
    assert abs(lesson.closer_to_training(fresh, train, held_out) - 0.5) < 0.08
    assert lesson.closer_to_training(train[900:], train, held_out) == 1  # copies of the last ones
    some = torch.cat([train[::4], fresh[:600]])
    assert lesson.closer_to_training(some, train, held_out) > 0.56  # every third one is a copy


def test_learn_takes_each_step_and_says_so():
    torch.manual_seed(0)
    players = lesson.Generator(4, 2, size=8), lesson.Discriminator(2, size=8)
    before = [weight.clone() for player in players for weight in player.parameters()]
    pictures = torch.rand(10, 1, 8, 8) * 2 - 1
    assert list(lesson.learn(players, pictures, 4, 3, (0.1, 0.1))) == [0, 1, 2, 3]
    after = [weight for player in players for weight in player.parameters()]
    # Batch norm takes away what a factor in front of it would change, but none stays as it was.
    assert all((old != new).any() for old, new in zip(before, after))


def test_learn_falls_to_a_rate_of_zero():
    torch.manual_seed(0)
    rates = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    players = lesson.Generator(4, 2, size=8), lesson.Discriminator(2, size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson.gan, "adam_for", lambda model, rate: Spy(model.parameters(), rate))
        for _ in lesson.learn(players, torch.zeros(4, 1, 8, 8), 4, 4, (1.0, 2.0)):
            pass
    assert rates[::2] == pytest.approx([2.0, 1.5, 1.0, 0.5])  # D moves first
    assert rates[1::2] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_the_share_of_copies_is_a_plain_number():
    train, held_out, pictures = torch.randn(3, 6, 2)
    assert isinstance(lesson.closer_to_training(pictures, train, held_out), float)
