"""Why a change to the index did not take place."""

from __future__ import annotations


class IndexConflict(Exception):
    """Somebody else changed the row again and again; nothing was written."""


class JobLost(Exception):
    """The job's token is no longer on the row: another job took over, and this one must stop."""


class TooLarge(Exception):
    """More than one transaction can hold; nothing was written."""


class Superseded(Exception):
    """The row is no longer what the change was decided on; nothing was written. Read it again and decide again."""
