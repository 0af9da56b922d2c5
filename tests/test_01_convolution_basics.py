"""Lesson 5.1 and its note: the worked example, the exercises, and what the answers say."""

import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d, correlate2d

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/01-convolution-basics")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_gradients_of_the_worked_example() -> None:
    x = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])[None, None]
    weight = torch.tensor([[1.0, 0.0], [2.0, -1.0]])[None, None]
    grad = torch.tensor([1.0, 2.0])[None, None, None]
    by_x, by_weight, by_bias = lesson.conv2d_backward(grad, x, weight, 1, 0, 1, 1)
    assert by_x.tolist() == [[[[1, 2, 0], [2, 3, -2]]]]
    assert by_weight.tolist() == [[[[5, 2], [2, 7]]]]
    assert by_bias.tolist() == [3]


@pytest.mark.parametrize("size", range(5, 12))
@pytest.mark.parametrize(
    "kernel, stride, padding, dilation", [(3, 1, 1, 1), (4, 3, 2, 1), (2, 2, 0, 3)]
)
def test_number_of_places(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    x, weight = random(1, 1, size, 9), random(1, 1, kernel, 1)
    shape = F.conv2d(x, weight, None, (stride, 1), (padding, 0), (dilation, 1)).shape
    assert lesson.output_size(size, kernel, stride, padding, dilation) == shape[2]


def test_weights_and_products_of_the_first_exercise() -> None:
    layer = torch.nn.Conv2d(3, 64, 3, padding=1)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 1_792
    assert 64 * 27 * 32 * 32 == 1_769_472
    assert (3 * 32 * 32) * (64 * 32 * 32) == 201_326_592


def test_transposed_convolution_is_torchs() -> None:
    for _, weight, _, options in lesson.cases():
        y = random(3, 6, 4, 5)
        theirs = F.conv_transpose2d(y, weight, **options)
        ours = lesson.conv2d_transposed(y, weight, theirs.shape[2:], **options)
        torch.testing.assert_close(ours, theirs)


def test_sobel_ignores_an_even_patch_and_follows_the_brightness() -> None:
    x = random(1, 1, 8, 9)
    for kernel in lesson.sobel():
        output = lesson.conv2d_loops(x, kernel)
        torch.testing.assert_close(lesson.conv2d_loops(x + 0.5, kernel), output)
        torch.testing.assert_close(lesson.conv2d_loops(2 * x, kernel), 2 * output)


def test_with_stride_2_only_even_shifts_move_the_output() -> None:
    x = random(1, 1, 12, 12)
    weight = random(1, 1, 3, 3)
    bias = torch.zeros(1, dtype=torch.float64)

    def convolved(picture: torch.Tensor) -> torch.Tensor:
        return lesson.conv2d(F.pad(picture, [1, 1, 1, 1], mode="circular"), weight, bias, stride=2)

    for shift in (2, 4):
        moved = convolved(x.roll(shift, dims=3))
        torch.testing.assert_close(moved, convolved(x).roll(shift // 2, dims=3))
    odd = convolved(x.roll(1, dims=3))
    assert not any(torch.allclose(odd, convolved(x).roll(n, dims=3)) for n in range(6))


def test_sobel_is_a_column_times_a_row() -> None:
    x = random(1, 1, 8, 9)
    bias = torch.zeros(1, dtype=torch.float64)
    across, _ = lesson.sobel()
    column = torch.tensor([1.0, 2.0, 1.0]).double().reshape(1, 1, 3, 1)
    row = torch.tensor([-1.0, 0.0, 1.0]).double().reshape(1, 1, 1, 3)
    twice = lesson.conv2d(lesson.conv2d(x, column, bias), row, bias)
    torch.testing.assert_close(twice, lesson.conv2d(x, across, bias))


def test_mathematics_flips_the_filter() -> None:
    x, weight = random(7, 9), random(3, 2)
    ours = lesson.conv2d_loops(x[None, None], weight[None, None])[0, 0]
    correlated = torch.tensor(correlate2d(x, weight, "valid"))
    convolved = torch.tensor(convolve2d(x, weight.flip(0, 1), "valid"))
    torch.testing.assert_close(ours, correlated)
    torch.testing.assert_close(ours, convolved)


def test_a_border_reaches_one_pixel_further_with_each_layer() -> None:
    x = random(1, 1, 20, 20)
    weight = random(1, 1, 3, 3)
    bias = torch.zeros(1, dtype=torch.float64)
    inside, outside = x, F.pad(x, [5] * 4, value=1.0)
    for layers in range(1, 4):
        inside = lesson.conv2d(inside, weight, bias, padding=1)
        outside = lesson.conv2d(outside, weight, bias)
        margin = 5 - layers
        seen = outside[:, :, margin : margin + 20, margin : margin + 20]
        changed = (inside - seen).abs()[0, 0] > 1e-9
        assert changed[:, :layers].all()
        assert not changed[layers:-layers, layers:-layers].any()
