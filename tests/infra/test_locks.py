"""What is deployed is what was locked, file by file: pip takes none that has another hash, and none that has no hash."""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from pathlib import Path

import pytest

from infra import package
from infra.package import CannotPackage
from tests.conftest import ROOT

NAMES = ("lambda", "chalice", "subscriber", "local")
INSTALLER = {"pip", "setuptools", "wheel"}
"""What `pip freeze` leaves out, and Chalice asks for."""


def pins(text: str) -> dict[str, str]:
    """Name to version of what is pinned in a file of requirements."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[\w+\])?==([^\s;]+)", text, re.MULTILINE)
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in found}


def lock(name: str) -> dict[str, set[str]]:
    """Each entry of a lock, such as ``cbor2==6.3.0``, and its hashes."""
    text = (package.LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"^(?=[a-z])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    return {entry.split()[0]: set(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)) for entry in entries if entry}


def wanted(name: str) -> dict[str, str]:
    """What a file of requirements pins, with those that it names."""
    text = (ROOT / name).read_text()
    found = pins(text)
    for other in re.findall(r"^-r (\S+)", text, re.MULTILINE):
        found |= wanted(other)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_distribution_that_is_deployed_has_a_hash(name: str) -> None:
    assert [entry for entry, hashes in lock(name).items() if not hashes] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_has_the_versions_that_are_tested(name: str) -> None:
    tested, locked = pins((ROOT / "constraints.txt").read_text()), pins((package.LOCKS / f"{name}.txt").read_text())
    others = {entry for entry in locked if entry not in tested} - INSTALLER
    assert {entry: locked[entry] for entry in locked.keys() & tested.keys()} == {
        entry: tested[entry] for entry in locked.keys() & tested.keys()
    }
    only_on_windows = re.findall(
        r"^(\S+)==\S+ ; sys_platform == 'win32'", (package.LOCKS / f"{name}.txt").read_text(), re.M
    )
    assert others == set(only_on_windows)


@pytest.mark.parametrize(
    ("name", "requirements"),
    [("subscriber", "requirements-subscriber.txt"), ("local", "requirements-local.txt")],
)
def test_a_lock_has_what_is_required(name: str, requirements: str) -> None:
    locked = pins((package.LOCKS / f"{name}.txt").read_text())
    assert wanted(requirements).items() <= locked.items()


def test_the_lambdas_locks_share_out_what_they_need() -> None:
    locked = [pins((package.LOCKS / f"{name}.txt").read_text()) for name in ("lambda", "chalice")]
    assert "chalice" not in locked[0]
    assert wanted("requirements.txt").items() <= (locked[0] | locked[1]).items()


def test_one_file_has_one_set_of_hashes_in_all_locks() -> None:
    everything = lock("local")
    for name in NAMES:
        assert {entry: everything[entry] for entry in lock(name)} == lock(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_does_not_say_where_packages_come_from(name: str) -> None:
    text = (package.LOCKS / f"{name}.txt").read_text()
    assert not re.search(r"://|file:|@|--(?!hash=sha256:)", text)


@pytest.mark.parametrize("name", ["Dockerfile", "docs/one-machine.md"])
def test_whatever_installs_for_good_asks_for_hashes(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if re.search(r"pip\b.* install ", line)]
    assert lines
    assert [line for line in lines if not re.search(r"--require-hashes .*-r locks/\w+\.txt$", line)] == []


# -- pip, offline, with packages of this test


class Shelf:
    """A folder with two packages, ``first`` and ``second``, which ``first`` needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "wheels"
        self.folder.mkdir()
        self.target, self._lock = folder / "installed", folder / "lock.txt"
        self.files = {"first": self._wheel("first", needs="second"), "second": self._wheel("second")}

    def _wheel(self, name: str, needs: str = "") -> Path:
        path = self.folder / f"{name}-1.0-py3-none-any.whl"
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", "VALUE = 1\n")
            wheel.writestr(
                f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}"
            )
            wheel.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
        return path

    def lock(self, *names: str) -> None:
        hashes = {name: hashlib.sha256(self.files[name].read_bytes()).hexdigest() for name in names}
        self._lock.write_text("".join(f"{name}==1.0 --hash=sha256:{digest}\n" for name, digest in hashes.items()))

    def install(self) -> set[str]:
        offline = ("--no-index", "--find-links", str(self.folder), "--target", str(self.target))
        package.install(Path(sys.executable), self._lock, *offline)
        return {path.stem for path in self.target.glob("*.py")}


def test_what_is_locked_is_installed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.lock("first", "second")
    assert shelf.install() == {"first", "second"}


@pytest.mark.parametrize("name", ["first", "second"])
def test_one_changed_byte_and_nothing_is_installed(name: str, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.lock("first", "second")
    content = bytearray(shelf.files[name].read_bytes())
    content[content.index(b"VALUE = 1") + 8] += 1
    shelf.files[name].write_bytes(content)
    with pytest.raises(CannotPackage, match="DO NOT MATCH THE HASHES"):
        shelf.install()
    assert not shelf.target.exists()


def test_a_dependency_without_a_hash_is_not_installed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.lock("first")
    with pytest.raises(CannotPackage, match="second"):
        shelf.install()
    assert not shelf.target.exists()
