"""The token of the operators' door, from where the settings say that it is. Only its digest is kept, for a while."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from chalicelib import settings
from chalicelib.telemetry import log

KEEP_SECONDS = 300.0
"""A new token counts after so long at most, and the old one no longer."""
RETRY_SECONDS = 10.0
"""A token that could not be read is not asked for again so soon."""
MIN_CHARACTERS = 16
FORM = r"[A-Za-z0-9._~+/-]{1,1024}={0,2}"
"""Of a bearer token (RFC 6750, 2.1)."""


class TokenUnavailable(Exception):
    """The token cannot be read, or is none; the log says why."""


class _Fault(Exception):
    """What is wrong with the token; never the token."""


class AdminToken:
    """The token that ``source`` (see the setting ``admin_token_from``) leads to."""

    def __init__(self, source: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._digest: bytes | None = None
        self._until = float("-inf")

    @property
    def is_named(self) -> bool:
        """Whether there is to be one at all."""
        return bool(self._source)

    def digest(self) -> bytes:
        """The token's SHA-256. Raises ``TokenUnavailable``, also where an earlier one was known."""
        now = self._clock()
        if now >= self._until:
            self._digest = self._fetched()
            self._until = now + (RETRY_SECONDS if self._digest is None else KEEP_SECONDS)
        if self._digest is None:
            raise TokenUnavailable("the token of this door cannot be read; the log says why")
        return self._digest

    def _fetched(self) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            text = _read(self._source).strip()
            if len(text) < MIN_CHARACTERS:
                raise _Fault(f"it has less than {MIN_CHARACTERS} characters")
            if not re.fullmatch(FORM, text, re.ASCII):
                raise _Fault("it has characters that a bearer token cannot have, or too many")
        except (BotoCoreError, ClientError, OSError, UnicodeDecodeError, _Fault) as reason:
            log("admin-token-unavailable", source=self._source, reason=str(reason))
            return None
        return hashlib.sha256(text.encode()).digest()


@cache
def current() -> AdminToken:
    """The one of this process."""
    return AdminToken(settings.current().admin_token_from)


def _read(source: str) -> str:
    kind, _, name = source.partition(":")
    if kind == "file":
        return Path(name).read_text(encoding="utf-8")
    if kind == "ssm":
        parameter = _client(kind).get_parameter(Name=name, WithDecryption=True)["Parameter"]
        if parameter["Type"] != "SecureString":
            raise _Fault("it is not a SecureString")
        return str(parameter["Value"])
    secret = _client(kind).get_secret_value(SecretId=name)
    if "SecretString" not in secret:
        raise _Fault("it is binary")
    return str(secret["SecretString"])


def _client(service: str) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    bounds = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
    return Session().create_client(service, config=bounds)
