"""What each source said last, one file each: for when it is down, and to ask for no more than is new."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from discovery_client import entries
from discovery_client.entries import Entry

_FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """A whole answer. ``cursor`` is the last that was given, ``etag`` that of the answer to it; times in seconds since 1970:
    ``whole_at`` when all was asked for, ``asked_at`` when what is new was."""

    entries: tuple[Entry, ...]
    cursor: str | None
    etag: str | None
    whole_at: float
    asked_at: float


class Cache:
    """Several processes may share a folder: a file is replaced as a whole, the last one stays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, source: str, collection: str) -> Kept | None:
        """None where nothing is kept, or nothing that can be read."""
        try:
            content = json.loads(self._path(source, collection).read_bytes())
            known = (content["format"], content["source"], content["collection"])
            if known != (_FORMAT, source, collection):
                return None
            kept = tuple(entry for item in content["entries"] if (entry := entries.read_entry(item)))
            cursor, etag = (None if content[name] is None else str(content[name]) for name in ("cursor", "etag"))
            return Kept(kept, cursor, etag, float(content["wholeAt"]), float(content["askedAt"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def save(self, source: str, collection: str, kept: Kept) -> None:
        """Whole or not at all. Raises OSError."""
        content = {
            "format": _FORMAT,
            "source": source,
            "collection": collection,
            "wholeAt": kept.whole_at,
            "askedAt": kept.asked_at,
            "cursor": kept.cursor,
            "etag": kept.etag,
            "entries": [entries.to_json(entry) for entry in kept.entries],
        }
        path = self._path(source, collection)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".json")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def _path(self, source: str, collection: str) -> Path:
        digest = hashlib.sha256(f"{source}\0{collection}".encode()).hexdigest()
        return self._folder / f"{digest[:32]}.json"
