"""The one hierarchy of errors of the protocol layer: whose fault it was decides what happens next.

- ``InvalidSyntax``: the caller gave a string that is not what it should be (an XRPC 400).
- ``MalformedData``: bytes that do not have the form they claim (transport and framing: keep what is known, try later).
- ``VerificationFailed``: well-formed, and not true (reject the whole of it, keep what was verified before).
- ``RemoteError``: the other side could not be reached, or answered badly (back off, try again).
"""

from __future__ import annotations


class AtprotoError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidSyntax(AtprotoError, ValueError):
    """A string is not a DID, NSID, hostname, ... ; the message tells a person what is wrong with it."""


class MalformedData(AtprotoError):
    """Bytes that are not in the form they should be in."""


class MalformedCbor(MalformedData):
    """Not strict DAG-CBOR."""


class MalformedCar(MalformedData):
    """Not a CAR v1 file, or one that was cut off."""


class EmptyCar(MalformedCar):
    """Zero bytes where a CAR was expected: some servers answer so when nothing has changed."""


class PassedOver(AtprotoError):
    """A record's block is not in the file, or was passed over before anybody asked for it: a reading that keeps all can tell."""


class MalformedFrame(MalformedData):
    """Not an event-stream frame."""


class MalformedKey(MalformedData):
    """Not a public key of a supported curve and encoding."""


class MalformedDidDocument(MalformedData):
    """A DID document without the shape that the DID specification demands."""


class VerificationFailed(AtprotoError):
    """Well-formed data whose content is not vouched for. ``reason`` is a short stable slug for rows and metrics."""

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__(message or reason)
        self.reason = reason


class BadSignature(VerificationFailed):
    """The signature does not fit the key. Refresh the identity once before believing it."""

    def __init__(self, message: str = "the signature does not fit the key") -> None:
        super().__init__("bad-signature", message)


class RemoteError(AtprotoError):
    """The other side failed. ``retry_after`` is in seconds, where it said so."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(RemoteError):
    """No answer: name, connection, TLS or time."""


class AddressRefused(RemoteError):
    """The name resolves to an address outside the public unicast space, or the URL is not one we may open."""


class BudgetExceeded(RemoteError):
    """The answer is larger, slower or longer than what is allowed."""


class BadResponse(RemoteError):
    """An answer that is not what the endpoint's lexicon says."""


class XrpcError(RemoteError):
    """The other side answered with an XRPC error. ``status`` is the HTTP status, ``name`` the XRPC error's name."""

    def __init__(self, status: int, name: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {name}: {message}" if message else f"{status} {name}", retry_after=retry_after)
        self.status = status
        self.name = name


class DidNotFound(RemoteError):
    """The directory or the web server says that there is no such DID."""


class DidTombstoned(DidNotFound):
    """There was such a DID, and its owner has given it up."""


def forget(error: BaseException) -> None:
    """Let go of the frames that led to an error that was dealt with, to its causes, and to the members of a group.

    In some frame's variables, in libraries too, is the error itself, or what has it: a circle that only a garbage collector
    would find.
    """
    found, known = [error], set[int]()
    while found:
        each = found.pop()
        if id(each) in known:
            continue
        known.add(id(each))
        each.__traceback__ = None
        found += filter(None, (each.__cause__, each.__context__))
        if isinstance(each, BaseExceptionGroup):
            found += each.exceptions
