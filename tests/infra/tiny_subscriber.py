"""Stands for the subscriber in the tests of the local stack: it is there until SIGTERM, and then says that it is done."""

from __future__ import annotations

import signal
import threading

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
print("listening", flush=True)
stopped.wait()
print("drained", flush=True)
