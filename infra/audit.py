"""Whether flaws are known of the packages that are deployed: ``python -m infra.audit``.

Asks pip-audit about ``locks/local.txt``, in which all other locks are contained. It ends with 0 where nothing is known against
them, and where nobody could be asked, which it says; with 1 where something is known; with 2 where the question was wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "locks" / "local.txt"
_NOBODY_THERE = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "SSLError",
    "HTTPError",
    "Could not connect",
)

Say = Callable[[str], None]


def audit(command: Sequence[str], *, say: Say = print) -> int:
    """Run pip-audit, and return what to exit with."""
    asked = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        if any(name in asked.stderr for name in _NOBODY_THERE):
            say("audit: not done, as the list of known flaws cannot be reached from here")
            return 0
        say(f"audit: pip-audit failed\n{asked.stderr}")
        return 2
    known = [package for package in packages if "vulns" in package]
    if packages and not known:  # a mirror that has the packages, and not what is known of them
        say("audit: not done, as what can be reached from here does not know these packages")
        return 0
    found = [(package, flaw) for package in known for flaw in package["vulns"]]
    for package, flaw in found:
        mended = f"mended in {', '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else "not mended yet"
        say(f"audit: {package['name']} {package['version']}: {flaw['id']}, {mended}")
    unknown = [package["name"] for package in packages if "vulns" not in package]
    say(
        f"audit: {len(known)} packages, {len(found)} known flaws"
        + (f"; not asked: {', '.join(unknown)}" * bool(unknown))
    )
    return 1 if found else 0


if __name__ == "__main__":
    how = ("--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json", f"--requirement={LOCK}")
    sys.exit(audit([sys.executable, "-m", "pip_audit", *how]))
