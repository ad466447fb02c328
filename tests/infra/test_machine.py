"""The files for one small machine: each name in them is one that is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chalicelib import settings
from tests.conftest import ROOT

MACHINE = ROOT / "infra" / "machine"
UNIT = (MACHINE / "atcr-discovery.service").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PORT = "8000"
"""Of the API, where nothing else is said."""


def test_the_unit_sets_only_what_there_is() -> None:
    words = " ".join(re.findall(r"^Environment=(.+)$", UNIT, re.MULTILINE)).split()
    environment = dict(word.split("=", 1) for word in words)
    assert not settings.read(environment).allow_private_hosts
    assert environment["DISCOVERY_LOCAL_DIR"] == "/var/lib/atcr-discovery"
    assert "\nStateDirectory=atcr-discovery\n" in UNIT


def test_the_unit_gives_the_parts_the_time_that_they_may_take() -> None:
    from infra.local.__main__ import SUBSCRIBER_PATIENCE

    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert found
    assert int(found[1]) > SUBSCRIBER_PATIENCE + 5  # the engine ends after the others
    assert "\nKillMode=mixed\n" in UNIT


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.touch(0o755)
    unit = tmp_path / "atcr-discovery.service"
    unit.write_text(UNIT.replace("/opt/atcr-discovery/.venv/bin/python", str(program)))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_both_proxies_ask_the_api_where_it_listens() -> None:
    assert f"{{$UPSTREAM:127.0.0.1:{PORT}}}" in (MACHINE / "Caddyfile").read_text()
    assert f"server 127.0.0.1:{PORT};" in (MACHINE / "nginx.conf").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_of_the_compose_file_names_is_there(name: str) -> None:
    service = SERVICES[name]
    dockerfile = (ROOT / "Dockerfile").read_text()
    if "build" in service:
        assert f" AS {service['build']['target']}\n" in dockerfile
    for volume in service.get("volumes", []):
        place = volume.split(":")[0]
        assert (ROOT / place).is_file() if place.startswith("./") else place in COMPOSE["volumes"]
    for other in service.get("depends_on", {}):
        assert SERVICES[other]["profiles"] == service["profiles"]
    environment = service.get("environment", {})
    settings.read({variable: value for variable, value in environment.items() if value is not None})
    for url in (environment.get("UPSTREAM"), environment.get("AWS_ENDPOINT_URL")):
        if url:
            host, port = url.removeprefix("http://").split(":")
            assert SERVICES[host]["profiles"] == service["profiles"]
            assert SERVICES[host].get("environment", {}).get("PORT", port) == port


def test_every_variable_of_the_compose_file_has_a_default() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    assert set(re.findall(r"\$\{([^}]+)\}", text)) == {"DOMAIN:-localhost", "LOCALSTACK_VERSION:-4.14.0"}


def test_the_containers_of_the_service_change_nothing_but_their_state() -> None:
    for service in (SERVICES["machine"], SERVICES["on-localstack"]):
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["environment"]["DISCOVERY_LOCAL_DIR"] == "/state"
        assert service["environment"]["PORT"] == PORT


def test_the_proxy_is_believed_where_nobody_else_can_ask() -> None:
    assert "infra.local --behind-proxy\n" in UNIT
    assert SERVICES["machine"]["command"] == ["--behind-proxy"]
    assert "ports" not in SERVICES["machine"]
    assert "command" not in SERVICES["on-localstack"]
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in (MACHINE / "nginx.conf").read_text()


def test_nothing_but_the_proxy_is_open_to_others() -> None:
    for name, service in SERVICES.items():
        ports = service.get("ports", [])
        assert name == "caddy" or all(port.startswith("127.0.0.1:") for port in ports)
