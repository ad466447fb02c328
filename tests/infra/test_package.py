"""What Chalice makes of the project: the zip of ``make deploy``, and a template for those who deploy their own way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from infra import deploy, gateway, package, provision
from infra.deploy import Options, Stage
from infra.package import CannotPackage
from tests.conftest import ROOT

PREFIX = "atcr-discovery-t1"
FUNCTIONS = {"APIHandler": "", "Crawl": "-crawl", "Sweep": "-sweep", "Survey": "-survey"}
ROLES = {
    "APIHandler": "ApiRoleArn",
    "Crawl": "CrawlRoleArn",
    "Sweep": "SweepRoleArn",
    "Survey": "SurveyRoleArn",
}
QUEUE_URL = f"https://sqs.us-east-1.amazonaws.com/123456789012/{PREFIX}-crawl"
OUTPUTS = {role: f"arn:aws:iam::123456789012:role/{role}" for role in ROLES.values()} | {"CrawlQueueUrl": QUEUE_URL}
DOMAIN = Options(domain="discovery.example.com", certificate="arn:aws:acm:us-east-1:123456789012:certificate/1")


def template(folder: Path, options: Options) -> Path:
    """The template of a stage, with a zip that has none of the dependencies."""
    chalice, out = folder / ".chalice", folder / "out"
    shutil.copytree(package.CHALICE, chalice, ignore=shutil.ignore_patterns("deployments", "venv", "deployed"))
    deploy._configure(chalice / "config.json", Stage("t1", options, {}), OUTPUTS)
    project = package.copy_project(out, chalice)
    package.chalice_package(package.tools(package.TOOLS), project, out, "t1")
    return out / "sam.json"


@pytest.mark.parametrize("options", [Options(), DOMAIN], ids=["plain", "with a domain"])
def test_a_template_of_chalice_passes_the_linter(tmp_path: Path, options: Options) -> None:
    command = [Path(sys.executable).parent / "cfn-lint", template(tmp_path, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_chalice_packages_the_stage_that_the_project_comes_with(tmp_path: Path) -> None:
    """Chalice looks through app.py for what it calls on AWS, and of Python 3.13 it does not understand an annotated variable."""
    package.chalice_package(package.tools(package.TOOLS), package.copy_project(tmp_path), tmp_path)
    assert (tmp_path / "sam.json").exists()


def test_a_template_of_chalice_has_the_whole_service(tmp_path: Path) -> None:
    resources = json.loads(template(tmp_path, DOMAIN).read_text())["Resources"]
    for logical, name in FUNCTIONS.items():
        properties = resources[logical]["Properties"]
        assert properties["FunctionName"] == PREFIX + name
        assert properties["Role"] == OUTPUTS[ROLES[logical]]
        assert properties["Architectures"] == ["arm64"]
        assert properties["Environment"]["Variables"]["DISCOVERY_QUEUE_URL"] == QUEUE_URL
    (source,) = resources["Crawl"]["Properties"]["Events"].values()
    assert source["Type"] == "SQS"
    assert source["Properties"]["Queue"]["Fn::Sub"].endswith(f":{PREFIX}-crawl")
    assert source["Properties"]["BatchSize"] == 1
    assert source["Properties"]["ScalingConfig"] == {"MaximumConcurrency": 10}
    schedules = {name: resources[name]["Properties"]["Events"] for name in ("Sweep", "Survey")}
    assert {name: event["Properties"] for name, events in schedules.items() for event in events.values()} == {
        "Sweep": {"Schedule": "rate(1 minute)"},
        "Survey": {"Schedule": "rate(1 hour)"},
    }
    api = resources["RestAPI"]["Properties"]["DefinitionBody"]
    assert "/xrpc/{nsid}" in api["paths"]
    assert api["x-amazon-apigateway-gateway-responses"] == gateway.responses()
    assert resources["ApiGatewayCustomDomainMapping"]["DependsOn"] == "RestAPIt1Stage"
    with zipfile.ZipFile(tmp_path / "out" / "deployment.zip") as zipped:
        assert "chalicelib/api/openapi.json" in zipped.namelist()


def test_each_function_has_a_log_that_ends() -> None:
    groups = provision.resources("base", "AWS::Logs::LogGroup", PREFIX).values()
    assert {group["LogGroupName"] for group in groups} >= {f"/aws/lambda/{PREFIX}{name}" for name in FUNCTIONS.values()}


# -- what the gateway says by itself


@pytest.mark.parametrize(("kind", "response"), gateway.responses().items())
def test_what_the_gateway_answers_has_the_shape_of_xrpc(kind: str, response: dict[str, Any]) -> None:
    body = response["responseTemplates"]["application/json"]
    said = json.loads(body.replace("$context.error.messageString", '"Forbidden"'))
    assert said.keys() == {"error", "message"}
    assert all(said.values())
    assert response["responseParameters"]["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
    assert ("gatewayresponse.header.Retry-After" in response["responseParameters"]) == (kind == "THROTTLED")


# -- Python


def python_that_is(folder: Path, name: str, version: str) -> Path:
    """Something called ``name`` that says that it is Python ``version``."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path / "bin"


def test_the_newer_python_packages_and_else_the_older(path: Path) -> None:
    python_that_is(path, "python3.12", "3.12")
    assert package.interpreter() == "python3.12"
    python_that_is(path, "python3.13", "3.13")
    assert package.interpreter() == "python3.13"


def test_a_python_of_pyenv_that_is_not_on_the_path_packages(path: Path, tmp_path: Path) -> None:
    (tmp_path / "pyenv" / "versions" / "3.13.0").mkdir(parents=True)
    program = python_that_is(tmp_path / "pyenv" / "versions" / "3.13.0" / "bin", "python", "3.13")
    assert package.interpreter() == str(program)


@pytest.mark.parametrize("version", [None, "3.11", "not installed"])
def test_without_one_of_both_nothing_is_packaged_and_it_says_why(path: Path, version: str | None) -> None:
    if version is not None:  # as a shim of pyenv for a version that is not chosen
        python_that_is(path, "python3.13", version)
    with pytest.raises(CannotPackage, match=r"3\.13 or 3\.12"):
        package.interpreter()


def test_a_zip_that_lacks_something_is_not_deployed(tmp_path: Path) -> None:
    zipped = template(tmp_path, Options()).parent / "deployment.zip"
    with pytest.raises(CannotPackage, match="No module named"):
        package.check(zipped, package.tools(package.TOOLS))


def test_dependencies_that_chalice_could_not_install_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "_run", lambda *command, cwd=ROOT: "Could not install dependencies:\ncbor2==6.3.0")
    (tmp_path / ".chalice").mkdir()
    shutil.copy(package.CHALICE / "config.json", tmp_path / ".chalice")
    with pytest.raises(CannotPackage, match="cbor2"):
        package.chalice_package(Path("python"), tmp_path, tmp_path)
