"""Runs pytest again and again for mutants: imports torch and its friends once, forks for each run.

Reads one request (JSON: arguments, limit in seconds) a line from stdin, answers one exit code a
line on stdout; a run into its limit is answered with a signal's negative number.
"""

import json
import os
import signal
import sys

import child
import forkserver
import pytest


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what pytest prints must not look like an answer
    # two mutants of one second and one length would share their bytecode
    sys.dont_write_bytecode = True
    forkserver.preload()
    # imported anew by each child, for the script is another one each time
    for name in [name for name in sys.modules if name.startswith("phase")]:
        del sys.modules[name]
    print("ready", file=answers)

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.alarm(request["limit"])
            os._exit(pytest.main(request["arguments"]))
        _, status = os.waitpid(pid, 0)
        forkserver.kill_group(pid)
        print(os.waitstatus_to_exitcode(status), file=answers)


if __name__ == "__main__":
    sys.path.insert(0, str(child.ROOT))
    serve()
