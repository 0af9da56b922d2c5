"""The errors a learner may cause or meet: one sentence on what happened and what to do next."""


class LessonError(Exception):
    """Shown without a trace (unless --debug), with exit code 1. The message names the next step."""


class ClaimFailed(LessonError):
    """A claim that the script made about itself did not hold."""
