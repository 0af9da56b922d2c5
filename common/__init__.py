"""Plumbing of the course: everything a lesson needs and does not teach. Nothing here imports torch by itself."""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        f"This course needs Python 3.11 to 3.13, and this is {sys.version.split()[0]}. "
        "Install a newer Python, make the environment again with it, and rerun."
    )
