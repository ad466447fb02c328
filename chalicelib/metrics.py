"""What is measured, as log lines in CloudWatch's embedded metric format: no agent, no calls, no permission.

``count`` and ``observe`` add up in memory; ``flush`` writes a line for each set of dimensions, at the end of a Lambda's
invocation and every minute in the container. Where metrics are off, all three do nothing.

Format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

NAMESPACE = "atcr-discovery"
MAX_VALUES = 100
"""Values of one metric in one line; the format allows no more."""

Unit = Literal["Count", "Milliseconds", "Seconds", "Bytes"]


@dataclass
class _Group:
    """The metrics that share their dimensions."""

    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    values: dict[tuple[str, Unit], list[float]] = field(default_factory=lambda: defaultdict(list))


class Metrics:
    """Measurements of one process. Safe to use from several threads.

    ``installation``: the table prefix, a dimension of every metric.
    """

    def __init__(
        self,
        installation: str,
        *,
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._installation = installation
        self._write = write or _to_stderr
        self._clock = clock
        self._groups: dict[tuple[tuple[str, str], ...], _Group] = defaultdict(_Group)
        self._lock = threading.Lock()

    def count(self, name: str, number: float, dimensions: dict[str, str]) -> None:
        """``number`` more of ``name``, a sum."""
        with self._lock:
            self._group(dimensions).counts[name] += number

    def observe(self, name: str, value: float, unit: Unit, dimensions: dict[str, str]) -> None:
        """One value, of which percentiles are wanted."""
        with self._lock:
            values = self._group(dimensions).values[name, unit]
            values.append(value)
            full = len(values) >= MAX_VALUES
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what was measured since the last flush."""
        with self._lock:
            groups, self._groups = self._groups, defaultdict(_Group)
        for dimensions, group in groups.items():
            self._write(self._line(dict(dimensions), group))

    def _group(self, dimensions: dict[str, str]) -> _Group:
        return self._groups[tuple(sorted(dimensions.items()))]

    def _line(self, dimensions: dict[str, str], group: _Group) -> str:
        metrics = [{"Name": name, "Unit": "Count"} for name in group.counts]
        metrics += [{"Name": name, "Unit": unit} for name, unit in group.values]
        about = {"Namespace": NAMESPACE, "Dimensions": [["Installation", *dimensions]], "Metrics": metrics}
        values = {name: values[0] if len(values) == 1 else values for (name, _), values in group.values.items()}
        head = {
            "_aws": {"Timestamp": int(self._clock() * 1000), "CloudWatchMetrics": [about]},
            "Installation": self._installation,
        }
        return json.dumps(head | dimensions | group.counts | values, separators=(",", ":"))


_metrics: Metrics | None = None


def configure(installation: str | None) -> None:
    """Measure from now on under this installation's name; ``None``: not at all."""
    global _metrics
    _metrics = None if installation is None else Metrics(installation)


def count(name: str, number: float = 1, **dimensions: str) -> None:
    """``number`` more of ``name``, a sum."""
    if _metrics is not None:
        _metrics.count(name, number, dimensions)


def observe(name: str, value: float, unit: Unit, **dimensions: str) -> None:
    """One value, of which percentiles are wanted."""
    if _metrics is not None:
        _metrics.observe(name, value, unit, dimensions)


def flush() -> None:
    """Write what was measured since the last flush."""
    if _metrics is not None:
        _metrics.flush()


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
