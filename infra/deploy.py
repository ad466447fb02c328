"""Brings a stage of the service up in an AWS account, again as an update, and down: ``make deploy STAGE=prod``.

    data      tables, kept when everything else goes       infra/data.yaml
    base      queues, network, registry, roles, logs       infra/base.yaml
    image     the container, built and pushed
    service   the container's service, alarms, dashboard   infra/service.yaml
    Lambdas   ``chalice deploy``, from what infra/package.py makes of the project

Everything of a stage is named ``atcr-discovery-STAGE``. Its settings are in ``.env.STAGE``: those of the service as in
.env.example, and ``DEPLOY_...``, which ``Options`` lists. Credentials and region are boto's own business.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from chalicelib import settings
from infra import env_file, gateway, package, provision

ROOT = package.ROOT
_SET_HERE = ("TABLE_PREFIX", "QUEUE_URL", "METRICS")
_NO_STACK = "does not exist"
_UNCHANGED = "No updates are to be performed"
_IN_THE_IMAGE = (
    "Dockerfile",
    "locks/subscriber.txt",
    "chalicelib",
    "subscriber",
)

Say = Callable[[str], None]


class CannotDeploy(Exception):
    """The message says why, and what to do."""


@dataclass(frozen=True)
class Options:
    """How a stage is deployed: ``DEPLOY_<FIELD>`` in its file."""

    image: str = ""
    """An image that exists already, by its URI; empty: it is built here, with Docker, and pushed."""
    architecture: str = "arm64"
    """Of Lambdas and container: arm64 or x86_64."""
    spot: str = "false"
    """Whether the container runs on spare capacity: a third of the price, and interruptions of some seconds."""
    subscribers: str = "1"
    """How many containers share the hosts."""
    alarm_email: str = ""
    """Where alarms are sent."""
    log_days: str = "30"
    """How long logs are kept."""
    domain: str = ""
    """A name of yours at whose root the API is."""
    certificate: str = ""
    """The ARN of a certificate for that name, in the stage's region."""

    @property
    def machine(self) -> str:
        """The architecture as Python's packages call it."""
        return {"arm64": "aarch64", "x86_64": "x86_64"}[self.architecture]


@dataclass(frozen=True)
class Stage:
    """A stage and what its file says. Build with ``read_stage``."""

    name: str
    options: Options
    variables: Mapping[str, str]
    """The service's settings that are not the defaults."""

    @property
    def prefix(self) -> str:
        """What all names begin with."""
        return f"atcr-discovery-{self.name}"


def read_stage(name: str, folder: Path = ROOT) -> Stage:
    """The stage as its file describes it. Raises ``CannotDeploy`` that names every fault."""
    if not re.fullmatch("[a-z][a-z0-9]{0,19}", name):
        raise CannotDeploy(f"STAGE={name}: say up to 20 small letters and digits, a letter first")
    path = folder / f".env.{name}"
    values = env_file.read(path)
    names = {f"DEPLOY_{item.name.upper()}": item.name for item in fields(Options)}
    faults = [
        f"{name}: there is no such setting"
        for name in values
        if name not in names and not name.startswith("DISCOVERY_")
    ]
    faults += [f"DISCOVERY_{name} is set by the deployment" for name in _SET_HERE if f"DISCOVERY_{name}" in values]
    options = Options(**{field: values[name] for name, field in names.items() if values.get(name)})
    faults += [
        f"DEPLOY_{name}={value}: say {what}"
        for name, value, pattern, what in (
            ("ARCHITECTURE", options.architecture, "arm64|x86_64", "arm64 or x86_64"),
            ("SPOT", options.spot, "true|false", "true or false"),
            ("SUBSCRIBERS", options.subscribers, "1?[0-9]|20", "a number from 0 to 20"),
            ("ALARM_EMAIL", options.alarm_email, r"|[^@\s]+@[^@\s]+", "an address"),
            ("DOMAIN", options.domain, r"|([a-z0-9-]+\.)+[a-z]+", "a name such as discovery.example.com"),
            ("CERTIFICATE", options.certificate, "|arn:aws[a-z-]*:acm:.+", "the ARN of a certificate"),
            ("LOG_DAYS", options.log_days, "1|3|5|7|14|30|60|90|180|365", "1, 3, 5, 7, 14, 30, 60, 90, 180 or 365"),
        )
        if not re.fullmatch(pattern, value)
    ]
    if bool(options.domain) != bool(options.certificate):
        faults.append("DEPLOY_DOMAIN and DEPLOY_CERTIFICATE: say both, or none")
    variables = {name: value for name, value in values.items() if name.startswith("DISCOVERY_") and value}
    token, prefix = values.get("DISCOVERY_ADMIN_TOKEN_FROM", ""), f"atcr-discovery-{name}/"
    if token and not re.match(rf"ssm:/{prefix}|secretsmanager:(arn:[^/]+:secret:)?{prefix}", token):
        faults.append(
            f"DISCOVERY_ADMIN_TOKEN_FROM: say ssm:/{prefix}... or secretsmanager:{prefix}..., which the API may read"
        )
    try:
        settings.read(variables)
    except settings.InvalidSetting as error:
        faults.append(str(error))
    if faults:
        raise CannotDeploy(f"{path.name}: " + "; ".join(faults))
    return Stage(name, options, variables)


# -- up and down


def up(stage: Stage, *, say: Say = print, chalice: Path = package.CHALICE) -> str:
    """Bring the stage up, or up to date. Returns the API's URL. ``chalice``: the folder of Chalice's configuration, where the
    stage is noted. Raises ``CannotDeploy``."""
    _account()
    python = package.tools(package.TOOLS)  # says early if there is no Python to package with
    if not gateway.deployed(stage.name, chalice) and any(_functions(stage)):
        raise CannotDeploy(
            f".chalice/deployed/{stage.name}.json is not here, and Lambdas of {stage.prefix} are there. Take it from where the "
            f"stage was deployed last; or make destroy STAGE={stage.name}, which keeps the tables, and deploy again: the API "
            "then has another URL"
        )
    up_to_lambdas(stage, say=say, chalice=chalice)
    say("Lambdas: packaging")
    out = ROOT / ".local" / "deploy" / stage.name
    package.build(out, stage=stage.name, machine=stage.options.machine, python=python, chalice=chalice)
    if stage.options.machine == os.uname().machine:
        package.check(out / "deployment.zip", python)
    say(f"Lambdas: {(out / 'deployment.zip').stat().st_size / 1e6:.1f} MB, deploying")
    project = out / "project"
    try:
        _chalice(python, project, "deploy", "--stage", stage.name)
    finally:
        _keep(project / ".chalice", chalice, stage)
    gateway.put_of_stage(stage.name, chalice)
    made = gateway.deployed(stage.name, chalice)
    if not stage.options.domain:
        return str(made["rest_api"]["rest_api_url"]).rstrip("/")
    target = made["api_gateway_custom_domain"]
    say(
        f"domain {stage.options.domain}: an alias (or CNAME) of {target['alias_domain_name']}, zone {target['hosted_zone_id']}"
    )
    return f"https://{stage.options.domain}"


def up_to_lambdas(stage: Stage, *, say: Say = print, chalice: Path = package.CHALICE) -> None:
    """Bring up everything but the Lambdas and their API, and note the stage for Chalice. Raises ``CannotDeploy``."""
    account = _account()
    if not stage.options.image:
        _check_docker()
    if stage.options.certificate and stage.options.certificate.split(":")[3] != _region():
        raise CannotDeploy(f"DEPLOY_CERTIFICATE: the certificate has to be in the stage's region, {_region()}")
    say(f"{stage.prefix} in account {account['Account']}, {_region()}")
    _stack(say, stage, "data")
    base = _stack(say, stage, "base", {"LogDays": stage.options.log_days})
    image = stage.options.image or _push(say, stage, base["RegistryUri"])
    _stack(say, stage, "service", _service_parameters(stage, base, image), body=_service_template(stage))
    _configure(chalice / "config.json", stage, base)


def down(stage: Stage, *, tables: bool = False, say: Say = print, chalice: Path = package.CHALICE) -> None:
    """Take the stage down; the tables stay, unless ``tables``. Raises ``CannotDeploy``."""
    _account()
    _delete_stack(say, stage, "service")
    say("Lambdas: deleting")
    _delete_lambdas(stage)
    (chalice / "deployed" / f"{stage.name}.json").unlink(missing_ok=True)
    _delete_stack(say, stage, "base")
    if tables:
        _delete_tables(say, stage)
        _delete_stack(say, stage, "data")


def _account() -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = boto3.client("sts").get_caller_identity()
        return found
    except (BotoCoreError, ClientError) as error:
        raise CannotDeploy(
            f"no AWS account can be used: {error}. Set AWS_PROFILE, or the keys, and AWS_REGION"
        ) from error


def _region() -> str:
    return str(boto3.Session().region_name)


# -- stacks


def _stack(
    say: Say, stage: Stage, name: str, parameters: Mapping[str, str] = {}, *, body: str | None = None
) -> dict[str, str]:
    """Create or update one stack. Returns its outputs."""
    client = boto3.client("cloudformation")
    stack = f"{stage.prefix}-{name}"
    found = _found(client, stack)
    if found is not None and found["StackStatus"] in ("ROLLBACK_COMPLETE", "CREATE_FAILED", "ROLLBACK_FAILED"):
        _delete_stack(say, stage, name)  # it never came up, and cannot be updated
        found = None
    request: dict[str, Any] = {
        "StackName": stack,
        "TemplateBody": body or (provision.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"),
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in {"Prefix": stage.prefix, **parameters}.items()
        ],
        "Capabilities": ["CAPABILITY_IAM"],
        "Tags": [{"Key": "service", "Value": "atcr-discovery"}, {"Key": "stage", "Value": stage.name}],
    }
    say(f"stack {stack}: {'updating' if found else 'creating'}")
    try:
        if found is None:
            client.create_stack(**request, OnFailure="ROLLBACK")
        else:
            client.update_stack(**request)
        client.get_waiter(f"stack_{'create' if found is None else 'update'}_complete").wait(
            StackName=stack, WaiterConfig={"Delay": 5, "MaxAttempts": 360}
        )
    except ClientError as error:
        if _UNCHANGED not in str(error):
            raise CannotDeploy(f"stack {stack}: {error}") from error
    except WaiterError as error:
        raise CannotDeploy(f"stack {stack}: {_why(client, stack)}") from error
    outputs = (_found(client, stack) or {}).get("Outputs", [])
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


def _delete_stack(say: Say, stage: Stage, name: str) -> None:
    client = boto3.client("cloudformation")
    stack = f"{stage.prefix}-{name}"
    if _found(client, stack) is None:
        return
    say(f"stack {stack}: deleting")
    client.delete_stack(StackName=stack)
    try:
        client.get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig={"Delay": 5, "MaxAttempts": 360})
    except WaiterError as error:
        raise CannotDeploy(f"stack {stack}: {_why(client, stack)}") from error


def _delete_tables(say: Say, stage: Stage) -> None:
    client = boto3.client("dynamodb")
    for table in provision.resources("data", "AWS::DynamoDB::Table", stage.prefix).values():
        name = table["TableName"]
        say(f"table {name}: deleting")
        try:
            client.update_table(TableName=name, DeletionProtectionEnabled=False)
            client.delete_table(TableName=name)
        except client.exceptions.ResourceNotFoundException:
            continue
        client.get_waiter("table_not_exists").wait(TableName=name)


def _found(client: Any, stack: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if _NO_STACK in str(error):
            return None
        raise
    return found


def _why(client: Any, stack: str) -> str:
    """What CloudFormation says went wrong first."""
    events = client.describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
    told = [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'failed')}" for event in reversed(failed)
    ]
    return "; ".join(told[:3]) or "it did not come about; its events say why"


# -- the container


def _service_parameters(stage: Stage, base: Mapping[str, str], image: str) -> dict[str, str]:
    return {
        "Image": image,
        "Architecture": stage.options.architecture.upper(),
        "Spot": stage.options.spot,
        "Subscribers": stage.options.subscribers,
        "AlarmEmail": stage.options.alarm_email,
        "SubnetIds": base["SubnetIds"],
        "SecurityGroupId": base["SecurityGroupId"],
        "SubscriberRoleArn": base["SubscriberRoleArn"],
        "ExecutionRoleArn": base["ExecutionRoleArn"],
        "QueueUrl": base["CrawlQueueUrl"],
        "ApiStage": stage.name,
    }


def _service_template(stage: Stage) -> str:
    """The service's template with the stage's settings in the container's environment."""
    text = (provision.FOLDER / "service.yaml").read_text(encoding="utf-8")
    head, mark, tail = text.partition(
        "            # and what the stage's own file of settings says (infra/deploy.py)\n"
    )
    assert mark  # noqa: S101 - it stands there
    lines = [f"            - {{Name: {name}, Value: {json.dumps(value)}}}\n" for name, value in stage.variables.items()]
    return head + "".join(lines) + tail


def _check_docker() -> None:
    why = "no container engine answers. Start Docker, or have the image built elsewhere and name it: DEPLOY_IMAGE=URI"
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=30)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotDeploy(why) from error
    if done.returncode:
        raise CannotDeploy(why)


def _push(say: Say, stage: Stage, registry: str) -> str:
    """Build the image and push it, unless one of the same content is there. Returns its URI."""
    client = boto3.client("ecr")
    tag = _fingerprint(stage.options.architecture)
    image = f"{registry}:{tag}"
    try:
        client.describe_images(repositoryName=registry.partition("/")[2], imageIds=[{"imageTag": tag}])
    except client.exceptions.ImageNotFoundException:
        say(f"image {image}: building")
        token = client.get_authorization_token()["authorizationData"][0]
        user, _, password = base64.b64decode(token["authorizationToken"]).decode().partition(":")
        _docker("login", "--username", user, "--password-stdin", registry.partition("/")[0], stdin=password)
        _docker(
            "build", "--platform", f"linux/{stage.options.architecture}".replace("x86_64", "amd64"), "-t", image, "."
        )
        _docker("push", image)
    return image


def _fingerprint(architecture: str) -> str:
    """A name for what goes into the image."""
    digest = hashlib.sha256(architecture.encode())
    for name in _IN_THE_IMAGE:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _docker(*arguments: str, stdin: str | None = None) -> None:
    if subprocess.run(["docker", *arguments], cwd=ROOT, input=stdin, text=True).returncode:  # noqa: S603, S607
        raise CannotDeploy(f"docker {arguments[0]} failed; what it said stands above")


# -- the Lambdas


def _configure(path: Path, stage: Stage, base: Mapping[str, str]) -> None:
    """Write the stage into Chalice's configuration, from where ``chalice deploy --stage`` takes it too."""
    config = json.loads(path.read_text(encoding="utf-8"))
    domain = {
        "domain_name": stage.options.domain,
        "certificate_arn": stage.options.certificate,
        "tls_version": "TLS_1_2",
    }
    config["stages"][stage.name] = {
        "api_gateway_stage": stage.name,
        "api_gateway_endpoint_type": "REGIONAL",
        **({"api_gateway_custom_domain": domain} if stage.options.domain else {}),
        "lambda_architecture": stage.options.architecture,
        "autogen_policy": False,
        "manage_iam_role": False,
        "environment_variables": {
            **stage.variables,
            "DISCOVERY_TABLE_PREFIX": stage.prefix,
            "DISCOVERY_QUEUE_URL": base["CrawlQueueUrl"],
            "DISCOVERY_METRICS": "emf",
        },
        "lambda_functions": {
            "api_handler": {"iam_role_arn": base["ApiRoleArn"], "lambda_timeout": 29},
            "crawl": {"iam_role_arn": base["CrawlRoleArn"]},
            "sweep": {"iam_role_arn": base["SweepRoleArn"]},
            "survey": {"iam_role_arn": base["SurveyRoleArn"]},
        },
    }
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _keep(noted: Path, chalice: Path, stage: Stage) -> None:
    """What Chalice notes of a deployment is needed by the next one."""
    made = noted / "deployed" / f"{stage.name}.json"
    if made.exists():
        (chalice / "deployed").mkdir(exist_ok=True)
        shutil.copy(made, chalice / "deployed")


def _functions(stage: Stage) -> Iterator[str]:
    """The ARNs of the stage's Lambdas."""
    for page in boto3.client("lambda").get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            if f"{function['FunctionName']}-".startswith(f"{stage.prefix}-"):
                yield function["FunctionArn"]


def _delete_lambdas(stage: Stage) -> None:
    """Delete what Chalice made, by its names: also what is noted nowhere, because a deployment broke off."""
    functions, rules, apis = boto3.client("lambda"), boto3.client("events"), gateway.client()
    for arn in list(_functions(stage)):
        for mapping in functions.list_event_source_mappings(FunctionName=arn)["EventSourceMappings"]:
            functions.delete_event_source_mapping(UUID=mapping["UUID"])
        functions.delete_function(FunctionName=arn)
    for rule in rules.list_rules(NamePrefix=f"{stage.prefix}-")["Rules"]:
        targets = rules.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        if targets:
            rules.remove_targets(Rule=rule["Name"], Ids=[target["Id"] for target in targets])
        rules.delete_rule(Name=rule["Name"])
    mine = {
        api["id"]
        for page in apis.get_paginator("get_rest_apis").paginate()
        for api in page["items"]
        if api["name"] == "atcr-discovery"
        and stage.name in [made["stageName"] for made in apis.get_stages(restApiId=api["id"])["item"]]
    }
    for page in apis.get_paginator("get_domain_names").paginate():
        for domain in page["items"]:
            mappings = apis.get_base_path_mappings(domainName=domain["domainName"]).get("items", [])
            if mappings and {mapping["restApiId"] for mapping in mappings} <= mine:
                for mapping in mappings:
                    apis.delete_base_path_mapping(domainName=domain["domainName"], basePath=mapping["basePath"])
                apis.delete_domain_name(domainName=domain["domainName"])
    for api in mine:
        apis.delete_rest_api(restApiId=api)


def _chalice(python: Path, project: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DISCOVERY_"))}
    environment.setdefault("AWS_DEFAULT_REGION", _region())
    done = subprocess.run(  # noqa: S603
        [str(python.parent / "chalice"), *arguments], cwd=project, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise CannotDeploy(f"chalice {arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout


HINTS = """
{prefix} is up: {url}

  curl '{url}/xrpc/_health'
  curl '{url}/xrpc/com.atproto.sync.requestCrawl' -H 'content-type: application/json' -d '{{"hostname": "hold01.atcr.io"}}'
  curl '{url}/xrpc/com.atproto.sync.listReposByCollection?collection=io.atcr.hold.captain'
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("up", "up-to-lambdas", "down"))
    parser.add_argument("stage")
    parser.add_argument("--tables", action="store_true", help="down: delete the tables as well")
    chosen = parser.parse_args()
    try:
        stage = read_stage(chosen.stage)
        if chosen.what == "up":
            print(HINTS.format(prefix=stage.prefix, url=up(stage)))
        elif chosen.what == "up-to-lambdas":
            up_to_lambdas(stage)
        else:
            down(stage, tables=chosen.tables)
    except (CannotDeploy, package.CannotPackage, BotoCoreError, ClientError) as reason:
        print(f"deploy: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
