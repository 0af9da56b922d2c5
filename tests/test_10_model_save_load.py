"""Lesson 3.10: what its functions promise beyond what the lesson itself claims."""

import copy

import pytest
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/10-model-save-load")
STOP = 3  # epochs


@pytest.fixture
def training():
    """After three epochs of one step each."""
    x = torch.rand(16, 64, generator=torch.Generator().manual_seed(0))
    training = lesson.Training(lesson.Config(batch_size=16), x, torch.arange(16) % 10)
    training.train(STOP)
    return training


def test_one_step_without_the_saved_velocities_lacks_them(training) -> None:
    state = training.state_dict()
    velocities = [entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()]
    lacking = 0.05 * 0.9**STOP * 0.9 * torch.cat([velocity.flatten() for velocity in velocities])

    ends = []
    for forgets in (False, True):
        start = copy.deepcopy(state)
        if forgets:
            start["optimizer"]["state"] = {}
        training.load_state_dict(start)
        training.train(1)
        ends.append(lesson.loop.flat(training.model))
    assert lacking.abs().max() > 1e-3
    torch.testing.assert_close(ends[1] - ends[0], lacking, rtol=1e-4, atol=1e-6)


def test_what_is_loaded_can_be_saved_again(training) -> None:
    state = training.state_dict()
    training.train(1)
    training.load_state_dict(copy.deepcopy(state))
    assert lesson.same(training.state_dict(), state)


def test_a_shape_that_does_not_fit_is_left_over_and_missing() -> None:
    model = torch.nn.Linear(3, 2)
    bias = model.bias.detach().clone()
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(5), "unknown": torch.ones(1)}
    report = lesson.load_matching(model, state)
    assert report == {"loaded": ["weight"], "missing": ["bias"], "left over": ["bias", "unknown"]}
    assert torch.equal(model.weight, torch.ones(2, 3))
    assert torch.equal(model.bias, bias)


def test_a_file_of_the_library_is_read_as_the_library_reads_it() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = {"w": torch.randn(3, 1, 2), "steps": torch.tensor(7)}
    content = safetensors.save(tensors, metadata={"format": "pt"})
    assert lesson.same(lesson.read_safetensors(content), safetensors.load(content))


def test_values_read_may_be_written_to() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    content = safetensors.save({"w": torch.zeros(2)})
    lesson.read_safetensors(content)["w"] += 1
    assert lesson.read_safetensors(content)["w"].tolist() == [0, 0]
