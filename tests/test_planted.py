"""A model that always answers the same, windows that know the future, and masks that leak are
noticed.

The fault is planted into the text of a real lesson, which is then run tiny: a claim must end it.
"""

import pytest
from engine import Engine, Job

from common.lessons import find_lesson

CONSTANT = {
    "04/02": ("return hidden @ params", "return 0 * hidden @ params"),
    "06/03": ("return self.head(outputs[:, -1])", "return 0 * self.head(outputs[:, -1])"),
    "06/06": ("return self.head(outputs)", "return 0 * self.head(outputs)"),
    "06/07": ("return self.head(outputs), torch", "return 0 * self.head(outputs), torch"),
}
LEAKING = {
    "06/09": ("fit_model(values[: now + 1])", "fit_model(values[:start])"),
    # a centred moving average: each value holds a part of the next one
    "06/project-stock-forecast": (
        "walk_forward(returns, first",
        "walk_forward(np.convolve(returns, [0.3, 0.4, 0.3], 'same'), first",
    ),
}

ONES = "torch.ones({0}, {0}, dtype=torch.bool)"
# the future is seen: by one position, or whole
MASKS = {
    "07/01": ("return allowed.tril()", "return allowed.tril(1)"),
    "07/03": ("causal_mask(length)", ONES.format("length")),
    "07/05": ("causal_mask(x.shape[1]).to(x.device)", ONES.format("x.shape[1]")),
    "07/06": (
        "inputs), memory, memory_mask)",
        f"inputs), memory, memory_mask, {ONES.format('inputs.shape[1]')})",
    ),
    "07/09": ("causal_mask(end)[start:]", ONES.format("end") + "[start:]"),
    "07/12": ("causal_mask(length)", ONES.format("length")),
}
# padding is read as if it were text
PADDING = {
    "07/02": ("longer, mask)", "longer)"),
    "07/04": ("tokens != pad", "tokens == tokens"),
    "07/05": ("layer(x, memory, mask, memory_mask)", "layer(x, memory, mask)"),
    "07/06": ("padding_mask(source, self.pad)", "padding_mask(source, -1)"),
    "07/07": ("encoders.padding_mask(tokens, PAD)", "encoders.padding_mask(tokens, -1)"),
    "07/12": ("padding_mask(source, self.pad)", "padding_mask(source, -1)"),
}


def planted(number: str, old: str, new: str) -> Job:
    lesson = find_lesson(number)
    text = lesson.path.read_text(encoding="utf-8")
    assert old in text, f"{number} reads otherwise now: look for the line that says the same"
    return Job(lesson.path, text=text.replace(old, new), draw=False)


@pytest.mark.parametrize("number", CONSTANT)
def test_a_constant_model_is_caught(engine: Engine, number: str) -> None:
    outcome = engine.run(planted(number, *CONSTANT[number]))
    assert outcome.code == 1 and "✗" in outcome.output, outcome


FAULTS = [*LEAKING.items(), *MASKS.items(), *PADDING.items()]


@pytest.mark.parametrize("number, fault", FAULTS, ids=[f"{key} {new}" for key, (_, new) in FAULTS])
def test_what_leaks_is_caught(engine: Engine, number: str, fault: tuple[str, str]) -> None:
    outcome = engine.run(planted(number, *fault))
    assert outcome.code == 1 and "✗" in outcome.output, outcome
