"""What a shell needs to give orders to the local stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from chalicelib.api.admin.token import AdminToken
from infra.local.__main__ import write_environment, write_token


def test_a_shell_reads_what_was_written_and_nobody_else_does(tmp_path: Path) -> None:
    given = {"DISCOVERY_USER_AGENT": 'it\'s $HOME `id` "x"', "AWS_REGION": "us-east-1", "SECRET": "of another program"}
    file = tmp_path / "environment"
    for _ in range(2):
        write_environment(file, given)
    assert file.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        [
            "/bin/sh",
            "-c",
            '. "$0" && exec "$1" -c "import json, os; print(json.dumps(dict(os.environ)))"',
            file,
            sys.executable,
        ],
        env={},
        capture_output=True,
        check=True,
        text=True,
    )
    assert (
        json.loads(shown.stdout).items()
        >= {name: given[name] for name in ("DISCOVERY_USER_AGENT", "AWS_REGION")}.items()
    )
    assert "SECRET" not in json.loads(shown.stdout)


def test_the_token_of_the_operators_door_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    file = write_token(tmp_path / "token")
    made = file.read_text()
    assert len(AdminToken(f"file:{file}").digest()) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert write_token(file).read_text() == made
    assert write_token(tmp_path / "another").read_text() != made
