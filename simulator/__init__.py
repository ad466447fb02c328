"""A simulated AT Protocol neighbourhood that knows the truth: hosts, repos, a PLC directory, faults on demand.

An oracle for tests, benches and the demonstration. It shares no code with ``chalicelib``. See ``simulator/README.md``.
"""

from .clock import Clock
from .host import HOLD, OLD_PDS, PDS, Account, Host, Shape
from .keys import SigningKey
from .neighbourhood import Neighbourhood
from .repo import Commit, Record, Repo, Write
from .thread import SimulatorThread

__all__ = [
    "HOLD",
    "OLD_PDS",
    "PDS",
    "Account",
    "Clock",
    "Commit",
    "Host",
    "Neighbourhood",
    "Record",
    "Repo",
    "Shape",
    "SigningKey",
    "SimulatorThread",
    "Write",
]
