"""The Lambdas' zip: ``python -m infra.package OUT`` leaves ``deployment.zip`` and ``sam.json`` of ``chalice package`` in OUT.

What Chalice would zip by itself starts slowly: no byte code, and 26 MB of descriptions of services that nobody here calls. So
the project is copied, its dependencies are installed for the Lambda's platform into the copy's ``vendor/``, each file by its
hash in ``locks/``, cut and compiled, and Chalice packages the copy. Byte code is of one version of Python, so it is made by that
version: 3.13, or 3.12.

    OUT/project/   app.py  chalicelib/  .chalice/config.json  requirements.txt (empty)
    OUT/project/vendor/   dependencies, with the byte code of everything, of Chalice's own files and of app.py too
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from infra import gateway

ROOT = Path(__file__).resolve().parent.parent
CHALICE = ROOT / ".chalice"
LOCKS = ROOT / "locks"
TOOLS = ROOT / ".venv" / "package"
VERSIONS = ("3.13", "3.12")
"""Of Python, the best first: runtimes of AWS Lambda for which all dependencies have wheels."""
SERVICES = frozenset({"dynamodb", "secretsmanager", "sqs", "ssm", "sts"})
"""Those of botocore's descriptions that are kept."""
MAX_BYTES = 25_000_000
_ON_LAMBDA = "/var/task"


class CannotPackage(Exception):
    """The zip cannot be made here, or would not work; the message says why and what to do."""


def interpreter() -> str:
    """The Python to package with. Raises ``CannotPackage``."""
    for version in VERSIONS:
        of_pyenv = sorted(Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob(f"versions/{version}.*"))
        for candidate in (f"python{version}", *(str(folder / "bin" / "python") for folder in reversed(of_pyenv))):
            if shutil.which(candidate):
                asked = subprocess.run(  # noqa: S603
                    [candidate, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
                    capture_output=True,
                    text=True,
                )
                if asked.stdout.strip() == version:
                    return candidate
    raise CannotPackage(f"the Lambdas are packaged with Python {' or '.join(VERSIONS)}, and neither is on the PATH")


def tools(folder: Path, *packages: str) -> Path:
    """The Python of a virtual environment in ``folder`` that has Chalice and ``packages``, made anew where it is older than
    Chalice's lock."""
    python, ready, lock = folder / "bin" / "python", folder / "ready", LOCKS / "chalice.txt"
    if not ready.exists() or ready.stat().st_mtime < lock.stat().st_mtime:
        shutil.rmtree(folder, ignore_errors=True)
        _run(interpreter(), "-m", "venv", str(folder))
        install(python, lock)
        if packages:
            _run(python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), *packages)
        ready.touch()
    return python


def build(
    out: Path, *, stage: str = "dev", machine: str = "x86_64", python: Path | None = None, chalice: Path = CHALICE
) -> Path:
    """Make the zip anew in ``out`` and return its path. ``machine``: of the Lambda, ``x86_64`` or ``aarch64``; ``chalice``: the
    folder of Chalice's configuration. Raises ``CannotPackage``."""
    python = python or tools(TOOLS)
    project = copy_project(out, chalice)
    vendor = project / "vendor"
    _install(python, vendor, machine)
    _cut(vendor)
    _compile(python, project)
    return chalice_package(python, project, out, stage)


def copy_project(out: Path, chalice: Path = CHALICE) -> Path:
    """A project for Chalice in ``out``, anew, without dependencies. Returns its folder."""
    shutil.rmtree(out, ignore_errors=True)
    project = out / "project"
    shutil.copytree(ROOT / "chalicelib", project / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(chalice, project / ".chalice", ignore=shutil.ignore_patterns("deployments", "venv"))
    shutil.copy(ROOT / "app.py", project)
    (project / "requirements.txt").touch()
    return project


def chalice_package(python: Path, project: Path, out: Path, stage: str = "dev") -> Path:
    """The zip that ``chalice package`` makes of a project. Raises ``CannotPackage`` where something is missing in it."""
    additions = out / "additions.json"
    additions.write_text(json.dumps(_additions(project, stage)), encoding="utf-8")
    chalice = python.parent / "chalice"
    told = _run(chalice, "package", "--stage", stage, "--merge-template", str(additions), str(out), cwd=project)
    if "Could not install dependencies" in told:  # Chalice goes on without them
        raise CannotPackage(told)
    return out / "deployment.zip"


def _additions(project: Path, stage: str) -> dict[str, Any]:
    """What Chalice's template leaves out: the functions' names, on which logs, permissions to log, and alarms depend; the
    gateway's own answers; that a domain needs the stage that it leads to."""
    functions = {"APIHandler": "", "Crawl": "-crawl", "Sweep": "-sweep", "Survey": "-survey"}
    resources: dict[str, Any] = {
        logical: {"Properties": {"FunctionName": f"atcr-discovery-{stage}{name}"}}
        for logical, name in functions.items()
    }
    answers = {"x-amazon-apigateway-gateway-responses": gateway.responses()}
    resources["RestAPI"] = {"Properties": {"DefinitionBody": answers}}
    config = json.loads((project / ".chalice" / "config.json").read_text(encoding="utf-8"))["stages"][stage]
    if "api_gateway_custom_domain" in config:
        resources["ApiGatewayCustomDomainMapping"] = {"DependsOn": f"RestAPI{config['api_gateway_stage']}Stage"}
    return {"Resources": resources}


def check(package: Path, python: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Import everything from the unpacked zip and from nowhere else. Only where the zip is for this machine. Raises
    ``CannotPackage``."""
    if package.stat().st_size > max_bytes:
        raise CannotPackage(f"{package} has {package.stat().st_size:,} bytes, more than the {max_bytes:,} that it may")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(package) as zipped:
        zipped.extractall(folder)
        entries = ", ".join(f"chalicelib.crawl.{name}" for name in ("jobs", "survey", "sweep"))
        code = f"import sys; sys.path.insert(0, {folder!r}); import app, {entries}"
        _run(python, "-I", "-S", "-c", code)


def install(python: Path, lock: Path, *options: str) -> None:
    """Install what is in a lock. Raises ``CannotPackage``, also where a file has none of the hashes that are in the lock for
    it, or where one is needed that is not in the lock."""
    how = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:", "-r", str(lock))
    _run(python, "-m", "pip", "install", *how, *options)


def _install(python: Path, vendor: Path, machine: str) -> None:
    version = _run(python, "-c", "import sys; print(*sys.version_info[:2], sep='.')").strip()
    platforms = [f"--platform=manylinux{tag}_{machine}" for tag in ("_2_28", "_2_17", "2014")]
    what = ("--implementation", "cp", "--python-version", version, "--no-compile", *platforms)
    install(python, LOCKS / "lambda.txt", *what, "--target", str(vendor))


def _cut(vendor: Path) -> None:
    """Remove what no Lambda of ours reads."""
    data = vendor / "botocore" / "data"
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    for examples in data.rglob("examples-1.json"):
        examples.unlink()
    for folder in (vendor / "bin", vendor / "boto3" / "data", vendor / "boto3" / "examples"):
        shutil.rmtree(folder, ignore_errors=True)


def _compile(python: Path, project: Path) -> None:
    """Byte code beside all sources, that is taken as it is: times of files do not outlive a zip."""
    vendor = project / "vendor"
    found = _run(python, "-c", "import chalice, os; print(os.path.dirname(chalice.__file__))").strip()
    own = vendor / "chalice"
    own.mkdir()
    for name in ("__init__.py", "app.py"):
        shutil.copy(Path(found) / name, own)
    shutil.copy(project / "app.py", vendor)
    how = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-p", _ON_LAMBDA)
    _run(python, *how, "-s", str(vendor), str(vendor))
    _run(python, *how, "-s", str(project), str(project / "chalicelib"))
    for source in (own / "__init__.py", own / "app.py", vendor / "app.py"):
        source.unlink()  # Chalice adds the sources itself


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What the command says. Raises ``CannotPackage`` where it fails."""
    # Not our own environment's packages or settings.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DISCOVERY_"))}
    region = {"AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"}
    done = subprocess.run(  # noqa: S603
        [str(part) for part in command], cwd=cwd, env=outside | region, capture_output=True, text=True
    )
    if done.returncode:
        raise CannotPackage(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.package", description="The Lambdas' zip.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", default="dev")
    parser.add_argument("--machine", choices=("x86_64", "aarch64"), default="x86_64")
    options = parser.parse_args()
    try:
        python = tools(TOOLS)
        package = build(options.out.resolve(), stage=options.stage, machine=options.machine, python=python)
        if options.machine == os.uname().machine:
            check(package, python)
    except CannotPackage as reason:
        print(f"package: {reason}", file=sys.stderr)
        return 1
    print(json.dumps({"zip": str(package), "bytes": package.stat().st_size}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
