"""Structured logs: each event one line on standard error, as JSON for machines or as text for people.

What other libraries log through ``logging`` comes out in the same form. Fields whose name says that they are a secret are
not written, and long values are cut.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

MAX_CHARACTERS = 2_000
"""Of one field; tracebacks are written whole."""

_EVENT = "discovery.event"
_FIELDS = "discovery.fields"
_SECRET = re.compile(
    r"secret|password|passwd|authorization|cookie|credential|api_?key|private_?key|token", re.IGNORECASE
)
_PLAIN = re.compile(r"[\w.,:;/%@+*#-]+", re.ASCII)
_CHATTY = ("boto3", "botocore", "httpcore", "httpx", "pynamodb", "urllib3", "websockets")

_logger = logging.getLogger("discovery")


def configure(log_format: str) -> None:
    """Write all logs of this process in ``log_format``, ``json`` or ``text``. May be called again."""
    handler = _LineHandler()
    handler.setFormatter(_TextFormatter() if log_format == "text" else _JsonFormatter())
    root = logging.getLogger()
    for other in list(root.handlers):
        if isinstance(other, _LineHandler) or type(other).__module__.startswith("awslambdaric"):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def log(event: str, /, *, exception: BaseException | None = None, **fields: Any) -> None:
    """Log that something happened. ``event`` is a slug such as ``host-done``; with ``exception`` it is an error, and its
    traceback is logged as well."""
    level = logging.INFO if exception is None else logging.ERROR
    _logger.log(level, event, exc_info=exception, extra={_EVENT: event, _FIELDS: fields})


class _LineHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _JsonFormatter(logging.Formatter):
    """``{"time":"2026-01-02T03:04:05.678Z","level":"info","event":"host-done","host":"hold01.atcr.io"}``"""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event, fields = _parts(record)
        head = {"time": time, "level": record.levelname.lower(), "event": event}
        line = head | fields | head
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, separators=(",", ":"))


class _TextFormatter(logging.Formatter):
    """``03:04:05 host-done host=hold01.atcr.io repos=3``, in local time; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _parts(record)
        words = [self.formatTime(record, "%H:%M:%S"), event]
        if record.levelno >= logging.WARNING:
            words.insert(1, record.levelname)
        line = " ".join(words + [f"{name}={_shown(value)}" for name, value in fields.items()])
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    event, fields = getattr(record, _EVENT, None), getattr(record, _FIELDS, None)
    if event is None or fields is None:
        event, fields = "log", {"logger": record.name, "message": record.getMessage()}
    return event, {name: _bounded(name, value) for name, value in fields.items()}


def _bounded(name: str, value: Any) -> Any:
    if _SECRET.search(name):
        return "[left out]"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if len(text) > MAX_CHARACTERS:
        return f"{text[:MAX_CHARACTERS]}… ({len(text)} characters)"
    return text if isinstance(value, str) else value


def _shown(value: Any) -> str:
    # Quoted where need be: a value comes from other people, and must not look like another line or another field.
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
