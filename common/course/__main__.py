"""`python -m common.course …`: the `course` command where no such command is on the PATH."""

import sys

from common.course.cli import main

if __name__ == "__main__":
    sys.exit(main())
