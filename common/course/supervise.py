"""Run a command for as long as the one who started it lives: `python supervise.py COMMAND …`.

The starter holds the other end of our stdin. When the starter ends, however it ends (`kill -9`
too), the system closes that end, and the command is killed with everything that it has started in
its process group (on Windows: the command alone). This works on every system, whatever the command
is busy with. The exit code is the command's, 128 + n if signal n ended it.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=wait_for_the_end, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def wait_for_the_end(process: subprocess.Popen) -> None:
    # returns only when nobody holds the other end any more, for nobody writes
    os.read(0, 1)
    # the starter has made us the head of a process group of our own
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    process.kill()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
