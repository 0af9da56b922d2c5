"""A model that always answers the same, and windows that know the future, are noticed.

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


def planted(number: str, old: str, new: str) -> Job:
    lesson = find_lesson(number)
    text = lesson.path.read_text(encoding="utf-8")
    assert old in text, f"{number} reads otherwise now: look for the line that says the same"
    return Job(lesson.path, text=text.replace(old, new), draw=False)


@pytest.mark.parametrize("number", CONSTANT)
def test_a_constant_model_is_caught(engine: Engine, number: str) -> None:
    outcome = engine.run(planted(number, *CONSTANT[number]))
    assert outcome.code == 1 and "✗" in outcome.output, outcome


@pytest.mark.parametrize("number", LEAKING)
def test_a_leaking_window_is_caught(engine: Engine, number: str) -> None:
    outcome = engine.run(planted(number, *LEAKING[number]))
    assert outcome.code == 1 and "✗" in outcome.output, outcome
