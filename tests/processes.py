"""Processes of their own without the ten seconds of imports: forked off one that has imported everything once.

`fork(program, *arguments, **environment)` starts one that ends with the exit code that the program returns, and
`ended(process)` waits for it. A program is a function of
programs.py: what a module imports besides would be imported in each process.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.programs"])


def _run(program, arguments, environment, log):
    with open(log, "w") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(program(*arguments))


def fork(program, *arguments, **environment):
    """A running process, with this one's environment and these variables."""
    handle, log = tempfile.mkstemp()
    os.close(handle)
    words = [str(argument) for argument in arguments]
    process = _FORKS.Process(target=_run, args=(program, words, {**os.environ, **environment}, log))
    process.log = Path(log)
    process.start()
    return process


def ended(process, patience_s=200):
    """(exit code, or minus the signal; what it printed on both streams)."""
    process.join(patience_s)
    process.kill()  # one that is still there failed
    process.join()
    printed = process.log.read_text()
    process.log.unlink()
    return process.exitcode, printed
