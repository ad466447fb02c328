"""Runs one part of the local stack, and ends it when the process that started it is gone, ``kill -9`` included.

    python -m infra.local.child MODULE [ARGUMENT...]      as python -m MODULE, in this process
    python -m infra.local.child -- COMMAND [ARGUMENT...]  as a process of its own

Whoever starts it holds the other end of its standard input. When that closes, the part gets SIGTERM, and after
``PATIENCE`` seconds SIGKILL.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 25.0


def _end_with_starter() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)


def _run_command(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (what the local stack itself asks for)

    def end(number: int, frame: object) -> None:
        process.terminate()
        threading.Timer(5, process.kill).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return process.wait()


def main() -> None:
    threading.Thread(target=_end_with_starter, daemon=True).start()
    name, *arguments = sys.argv[1:]
    if name == "--":
        os._exit(_run_command(arguments))
    sys.argv = [name, *arguments]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
