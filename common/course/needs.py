"""Which Python this is, asked by the README's commands before anything is downloaded.

Run as a file, by whatever `python3` is there: so nothing in it may need a new Python.
"""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        "This course needs Python 3.11, 3.12 or 3.13, and this is "
        + sys.version.split()[0]
        + ": install one of them and write, for example, python3.12 instead of python3."
    )
