"""Plumbing of the course: what a lesson needs and does not teach. This file imports no torch."""

import sys

# An older Python may well get here: without an installation, or by another interpreter.
if sys.version_info < (3, 11):  # noqa: UP036 what it refuses is what the rule takes for gone
    sys.exit(
        f"This course needs Python 3.11 to 3.13, and this is {sys.version.split()[0]}. "
        "Install a newer Python, make the environment again with it, and rerun."
    )
