"""Files of settings: lines ``NAME=value``, as in .env.example."""

from __future__ import annotations

from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """The variables in a file; none if there is no such file. A line may begin with ``export``, a value may be quoted."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    values: dict[str, str] = {}
    for line in lines:
        name, found, value = line.strip().removeprefix("export ").partition("=")
        if found and not name.startswith("#"):
            values.setdefault(name.strip(), value.strip().strip("\"'"))
    return values
