"""Chromium without a window, driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 30
"""Seconds."""


def installed() -> str | None:
    """The path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One tab. ``complaints``: what came to its console or log, or was thrown, since the page was opened."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._last = 0
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        self._last += 1
        self._connection.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while (got := self._next()).get("id") != self._last:
            pass
        assert "error" not in got, got
        return got["result"]

    def open(self, url: str) -> None:
        """Go to a page; returns when it is loaded."""
        self.complaints.clear()
        assert "errorText" not in self.call("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Returns when a page is loaded."""
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, script: str) -> Any:
        """What an expression is on the page. The page's own policy does not bind it."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def look(self, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Have a screen of this size, and prefer ``light`` or ``dark``."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, file: Path) -> None:
        """Write what the screen shows as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=PATIENCE))
        match message.get("method"):
            case (
                "Runtime.exceptionThrown"
                | "Runtime.consoleAPICalled"
                | "Log.entryAdded"
                | "Page.javascriptDialogOpening"
            ):
                self.complaints.append(json.dumps(message["params"])[:500])
        return message


@contextmanager
def running(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with a new profile; it ends with the context."""
    options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0"]
    options += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []  # it has none as root
    with (
        open(profile.with_suffix(".log"), "w+b") as log,
        subprocess.Popen([program, *options, f"--user-data-dir={profile}", "about:blank"], stderr=log) as process,
    ):
        try:
            yield from _tab(process, Path(log.name))
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _tab(process: subprocess.Popen[bytes], log: Path) -> Iterator[Tab]:
    """The first tab, once the browser has said where it is to be found."""
    until = time.monotonic() + PATIENCE
    while not (found := re.search(r"DevTools listening on ws://([\w.:]+)/", log.read_text(errors="replace"))):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < until, log.read_text(errors="replace")
        threading.Event().wait(0.05)
    pages = httpx.get(f"http://{found[1]}/json/list").json()
    url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
    with connect(url, max_size=None) as connection:
        tab = Tab(connection)
        for domain in ("Page", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        yield tab
