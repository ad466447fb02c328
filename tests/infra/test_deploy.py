"""A stage is brought up in an empty account, again as an update, taken down, and brought up again on the tables that stayed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra import deploy, gateway, package, provision
from infra.deploy import CannotDeploy, Options, Stage, read_stage
from infra.local import engines
from tests.conftest import ROOT

SETTINGS = {"DISCOVERY_COLLECTIONS": "io.atcr.hold.*,io.atcr.tag"}
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
OPTIONS = Options(image="registry.example.com/subscriber:1", architecture="x86_64", spot="true")
STAGE = Stage("t1", OPTIONS, SETTINGS)
WITH_DOMAIN = replace(STAGE, options=replace(OPTIONS, domain="discovery.example.com", certificate=CERTIFICATE))
PREFIX = "atcr-discovery-t1"
TAKEN_BY_LAMBDA = 50_000_000
"""Bytes of a zip that is uploaded directly."""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """An empty account; gives boto3 clients."""
    port = engines.free_port()
    for name, value in {**engines.CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "tests.infra.aws", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            engines.wait_for_port(port, running)
            yield boto3.client
        finally:
            running.kill()


@pytest.fixture
def chalice(tmp_path: Path) -> Path:
    """A configuration of Chalice that may be changed."""
    folder = tmp_path / ".chalice"
    shutil.copytree(package.CHALICE, folder, ignore=shutil.ignore_patterns("deployments", "venv", "deployed"))
    return folder


@pytest.fixture
def packaged_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The dependencies are installed for the first deployment only."""
    build, kept = package.build, tmp_path / "vendor"

    def build_once(out: Path, **options: Any) -> Path:
        if not kept.exists():
            made = build(out, **options)
            shutil.copytree(out / "project" / "vendor", kept)
            return made
        project = package.copy_project(out, options["chalice"])
        shutil.copytree(kept, project / "vendor")
        return package.chalice_package(options["python"], project, out, options["stage"])

    monkeypatch.setattr(package, "build", build_once)


def test_up_again_down_and_up_on_the_same_tables(
    aws: Callable[[str], Any], chalice: Path, packaged_once: None, tmp_path: Path
) -> None:
    said: list[str] = []
    url = deploy.up(STAGE, say=said.append, chalice=chalice)
    assert url.startswith("https://")
    assert url.endswith(".amazonaws.com/t1")
    has_all_that_it_needs(aws)
    first = functions(aws)
    assert first.keys() == {PREFIX, f"{PREFIX}-crawl", f"{PREFIX}-sweep", f"{PREFIX}-survey"}
    aws("dynamodb").put_item(TableName=f"{PREFIX}-state", Item={"kind": {"S": "kept"}, "id": {"S": "x"}})

    said.clear()
    assert deploy.up(STAGE, say=said.append, chalice=chalice) == url
    assert f"stack {PREFIX}-base: updating" in said
    has_all_that_it_needs(aws)

    plain_chalice_deploys_the_same(aws, chalice, tmp_path)

    for _ in range(2):
        assert deploy.up(WITH_DOMAIN, say=said.append, chalice=chalice) == "https://discovery.example.com"
        has_all_that_it_needs(aws)
        (api,) = aws("apigateway").get_rest_apis()["items"]
        assert api["endpointConfiguration"]["types"] == ["REGIONAL"]  # which moto forgets at the first import
        (mapping,) = aws("apigateway").get_base_path_mappings(domainName="discovery.example.com")["items"]
        assert (mapping["basePath"], mapping["restApiId"], mapping["stage"]) == ("(none)", api["id"], "t1")
        target = aws("apigateway").get_domain_name(domainName="discovery.example.com")
        assert (target["securityPolicy"], target["regionalCertificateArn"]) == ("TLS_1_2", CERTIFICATE)
        assert any(target["regionalDomainName"] in line for line in said)

    deploy.up(STAGE, say=said.append, chalice=chalice)
    assert aws("apigateway").get_domain_names()["items"] == []
    has_all_that_it_needs(aws)

    deploy.down(STAGE, say=said.append, chalice=chalice)
    assert functions(aws) == {}
    assert aws("apigateway").get_rest_apis()["items"] == []
    assert stacks(aws) == {f"{PREFIX}-data"}
    assert aws("sqs").list_queues().get("QueueUrls", []) == []

    deploy.up(WITH_DOMAIN, say=said.append, chalice=chalice)
    has_all_that_it_needs(aws)
    assert "Item" in aws("dynamodb").get_item(
        TableName=f"{PREFIX}-state", Key={"kind": {"S": "kept"}, "id": {"S": "x"}}
    )

    (chalice / "deployed" / "t1.json").unlink()  # lost, or the deployment broke off before it was written
    with pytest.raises(CannotDeploy, match=r"deployed/t1\.json is not here"):
        deploy.up(STAGE, say=said.append, chalice=chalice)
    deploy.down(STAGE, tables=True, say=said.append, chalice=chalice)
    assert functions(aws) == {}
    assert aws("events").list_rules()["Rules"] == aws("apigateway").get_rest_apis()["items"] == []
    assert aws("apigateway").get_domain_names()["items"] == []
    assert aws("lambda").list_event_source_mappings()["EventSourceMappings"] == []
    assert (stacks(aws), aws("dynamodb").list_tables()["TableNames"]) == (set(), [])


def plain_chalice_deploys_the_same(aws: Callable[[str], Any], chalice: Path, tmp_path: Path) -> None:
    """As from the project's root: ``chalice deploy --stage t1``, then ``python -m infra.gateway t1``."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copytree(ROOT / "chalicelib", root / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(chalice, root / ".chalice")
    for name in ("app.py", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    before = functions(aws)
    told = deploy._chalice(package.tools(package.TOOLS), root, "deploy", "--stage", "t1")
    assert "Could not install dependencies" not in told
    gateway.put_of_stage("t1", root / ".chalice")
    after = functions(aws)
    changes = {"CodeSha256", "CodeSize", "LastModified", "RevisionId"}
    for name, function in after.items():
        assert function["CodeSha256"] != before[name]["CodeSha256"]
        assert all(function[key] == before[name][key] for key in function.keys() - changes)
    has_all_that_it_needs(aws, max_bytes=TAKEN_BY_LAMBDA)
    (zipped,) = (root / ".chalice" / "deployments").glob("*.zip")
    package.check(zipped, package.tools(package.TOOLS), max_bytes=TAKEN_BY_LAMBDA)


def functions(aws: Callable[[str], Any]) -> dict[str, Any]:
    return {function["FunctionName"]: function for function in aws("lambda").list_functions()["Functions"]}


def stacks(aws: Callable[[str], Any]) -> set[str]:
    found = aws("cloudformation").list_stacks()["StackSummaries"]
    return {stack["StackName"] for stack in found if stack["StackStatus"] != "DELETE_COMPLETE"}


def has_all_that_it_needs(aws: Callable[[str], Any], *, max_bytes: int = package.MAX_BYTES) -> None:
    """Whether everything is there and knows of the rest."""
    outputs = {
        output["OutputKey"]: output["OutputValue"]
        for name in ("base", "service")
        for output in aws("cloudformation").describe_stacks(StackName=f"{PREFIX}-{name}")["Stacks"][0]["Outputs"]
    }
    tables = {table["TableName"] for table in provision.resources("data", "AWS::DynamoDB::Table", PREFIX).values()}
    assert set(aws("dynamodb").list_tables()["TableNames"]) == tables
    environment = {
        **SETTINGS,
        "DISCOVERY_TABLE_PREFIX": PREFIX,
        "DISCOVERY_QUEUE_URL": outputs["CrawlQueueUrl"],
        "DISCOVERY_METRICS": "emf",
    }
    roles = {PREFIX: "ApiRoleArn"} | {
        f"{PREFIX}-{name}": f"{name.title()}RoleArn" for name in ("crawl", "sweep", "survey")
    }
    for name, function in functions(aws).items():
        assert function["Role"] == outputs[roles[name]]
        assert function["Environment"]["Variables"] == environment
        assert function["Architectures"] == ["x86_64"]
        assert function["CodeSize"] < max_bytes
    (mapping,) = aws("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert mapping["EventSourceArn"].endswith(f":{PREFIX}-crawl")
    assert mapping["BatchSize"] == 1
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 10}
    rules = aws("events").list_rules()["Rules"]
    assert {rule["ScheduleExpression"] for rule in rules} == {"rate(1 minute)", "rate(1 hour)"}
    (api,) = aws("apigateway").get_rest_apis()["items"]
    assert api["name"] == "atcr-discovery"
    answers = aws("apigateway").get_gateway_responses(restApiId=api["id"])["items"]
    assert {answer["responseType"] for answer in answers} == gateway.responses().keys()
    (stage,) = aws("apigateway").get_stages(restApiId=api["id"])["item"]
    made = {item["id"]: item["createdDate"] for item in aws("apigateway").get_deployments(restApiId=api["id"])["items"]}
    assert (stage["stageName"], made[stage["deploymentId"]]) == ("t1", max(made.values()))
    task = aws("ecs").describe_task_definition(taskDefinition=f"{PREFIX}-subscriber")["taskDefinition"]
    (container,) = task["containerDefinitions"]
    assert container["image"] == STAGE.options.image
    assert {item["name"]: item["value"] for item in container["environment"]} == {
        **environment,
        "AWS_REGION": "us-east-1",
    }
    (service,) = aws("ecs").describe_services(cluster=PREFIX, services=[f"{PREFIX}-subscriber"])["services"]
    assert service["desiredCount"] == 1
    body = json.loads(aws("cloudwatch").get_dashboard(DashboardName=PREFIX)["DashboardBody"])
    assert "${" not in json.dumps(body)
    groups = {group["logGroupName"]: group for group in aws("logs").describe_log_groups()["logGroups"]}
    assert {f"/aws/lambda/{name}" for name in functions(aws)} | {f"/ecs/{PREFIX}-subscriber"} == groups.keys()
    assert {group["retentionInDays"] for group in groups.values()} == {30}


# -- a stage's file


@pytest.mark.parametrize(
    "source",
    [
        "ssm:/atcr-discovery-prod/admin-token",
        "secretsmanager:atcr-discovery-prod/admin-token",
        "secretsmanager:arn:aws:secretsmanager:us-east-1:123456789012:secret:atcr-discovery-prod/admin-token-a1B2c3",
    ],
)
def test_the_operators_token_is_a_secret_of_the_stage(tmp_path: Path, source: str) -> None:
    (tmp_path / ".env.prod").write_text(f"DISCOVERY_ADMIN_TOKEN_FROM={source}\n")
    assert read_stage("prod", tmp_path).variables == {"DISCOVERY_ADMIN_TOKEN_FROM": source}


def test_a_stage_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    stage = read_stage("prod", tmp_path)
    assert (stage.prefix, stage.options, stage.variables) == ("atcr-discovery-prod", Options(), {})
    assert stage.options.machine == "aarch64"


def test_a_stage_is_what_its_file_says(tmp_path: Path) -> None:
    (tmp_path / ".env.prod").write_text("DEPLOY_SPOT=true\nDISCOVERY_COLLECTIONS='io.atcr.*'\n# DEPLOY_IMAGE=x\n")
    stage = read_stage("prod", tmp_path)
    assert (stage.options.spot, stage.variables) == ("true", {"DISCOVERY_COLLECTIONS": "io.atcr.*"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("DEPLOY_SPOTS=true", "DEPLOY_SPOTS: there is no such setting"),
        ("DEPLOY_SPOT=yes", "say true or false"),
        ("DISCOVERY_ADMIN_TOKEN_FROM=ssm:/atcr-discovery-dev/admin-token", "say ssm:/atcr-discovery-prod/..."),
        ("DISCOVERY_ADMIN_TOKEN_FROM=secretsmanager:admin-token", "say ssm:/atcr-discovery-prod/..."),
        ("DISCOVERY_ADMIN_TOKEN_FROM=file:/etc/token", "say ssm:/atcr-discovery-prod/..."),
        ("DEPLOY_ARCHITECTURE=arm", "say arm64 or x86_64"),
        ("DEPLOY_SUBSCRIBERS=21", "say a number from 0 to 20"),
        ("DEPLOY_ALARM_EMAIL=nobody", "say an address"),
        ("DEPLOY_LOG_DAYS=31", "say 1, 3"),
        ("DEPLOY_DOMAIN=https://a.example.com", "say a name"),
        ("DEPLOY_DOMAIN=a.example.com", "say both, or none"),
        ("DEPLOY_CERTIFICATE=x", "the ARN of a certificate"),
        ("DISCOVERY_QUEUE_URL=x", "set by the deployment"),
        ("DISCOVERY_COLLECTIONS=*", "DISCOVERY_COLLECTIONS"),
        ("PATH=x", "PATH: there is no such setting"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / ".env.prod").write_text(line)
    with pytest.raises(CannotDeploy, match=message):
        read_stage("prod", tmp_path)


@pytest.mark.parametrize("name", ["", "Prod", "a-b", "1a", "x" * 21, "../x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(CannotDeploy, match="small letters"):
        read_stage(name)


def test_without_an_engine_or_an_image_nothing_is_begun(
    aws: Callable[[str], Any], chalice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CannotDeploy, match="DEPLOY_IMAGE"):
        deploy.up(Stage("t1", Options(), {}), say=lambda line: None, chalice=chalice)
    assert stacks(aws) == set()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Docker that does nothing but note how it was called, in the file that this is."""
    program, calls = tmp_path / "bin" / "docker", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return calls


def test_an_image_is_built_once_for_what_is_in_it(aws: Callable[[str], Any], docker: Path) -> None:
    registry: str = aws("ecr").create_repository(repositoryName=f"{PREFIX}-subscriber")["repository"]["repositoryUri"]
    image = deploy._push(lambda line: None, STAGE, registry)
    login, build, push = docker.read_text().splitlines()
    assert login == f"login --username AWS --password-stdin {registry.partition('/')[0]}"
    assert build == f"build --platform linux/amd64 -t {image} ."
    assert push == f"push {image}"
    tag = image.rpartition(":")[2]
    manifest = '{"mediaType": "application/vnd.oci.image.manifest.v1+json"}'
    aws("ecr").put_image(repositoryName=f"{PREFIX}-subscriber", imageManifest=manifest, imageTag=tag)
    assert deploy._push(lambda line: None, STAGE, registry) == image
    assert len(docker.read_text().splitlines()) == 3, "it was there already: so it is when one goes back to it"


def test_a_certificate_of_another_region_is_refused_before_anything_is_begun(
    aws: Callable[[str], Any], chalice: Path
) -> None:
    elsewhere = replace(WITH_DOMAIN.options, certificate=CERTIFICATE.replace("us-east-1", "eu-west-1"))
    with pytest.raises(CannotDeploy, match="us-east-1"):
        deploy.up(replace(WITH_DOMAIN, options=elsewhere), say=lambda line: None, chalice=chalice)
    assert stacks(aws) == set()


def test_a_stack_that_cannot_come_about_says_why(aws: Callable[[str], Any]) -> None:
    with pytest.raises(CannotDeploy, match="t1-service"):
        deploy._stack(lambda line: None, STAGE, "service")
