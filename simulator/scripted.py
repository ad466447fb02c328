"""A server that says, byte for byte, what it is told to: for what no well-behaved HTTP server can be made to say."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO, Self


@dataclass(frozen=True)
class Request:
    """What was asked. The names of ``headers`` are in lower case."""

    target: str
    headers: dict[str, str]
    method: str = "GET"
    body: bytes = b""


Reply = bytes | Iterable[bytes] | None
"""Bytes: sent, then the next request is awaited. Pieces: sent one by one, then the connection is closed. None: silence."""


def http(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer. ``retry_after`` is the header ``retry-after``."""
    lines = [f"HTTP/1.1 {status} Scripted"]
    fields = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class ScriptedServer:
    """Listens on ``address``, ``port`` inside its ``with``, each connection in a thread.

    ``connections`` counts what was accepted, ``server_names`` are the names asked for in TLS. ``hung_up`` is set when a
    client leaves before all was said.
    """

    def __init__(self, answer: Callable[[Request], Reply], *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.requests: list[Request] = []
        self.server_names: list[str | None] = []
        self.hung_up = threading.Event()
        self._answer = answer
        self._ssl_context = ssl_context
        if ssl_context:
            ssl_context.sni_callback = lambda _, name, __: self.server_names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        return f"http{'s' if self._ssl_context else ''}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        try:
            if self._ssl_context:
                connection = self._ssl_context.wrap_socket(plain, server_side=True)
                self._open.discard(plain)
                self._open.add(connection)
            lines = connection.makefile("rb")
            while (request := _read(lines)) is not None:
                self.requests.append(request)
                reply = self._answer(request)
                if reply is None:
                    lines.read()  # until the client leaves
                elif isinstance(reply, bytes):
                    connection.sendall(reply)
                    continue
                else:
                    for piece in reply:
                        connection.sendall(piece)
                return
        except OSError:
            self.hung_up.set()
        finally:
            self._open.discard(connection)
            connection.close()


def _read(lines: BinaryIO) -> Request | None:
    head: list[str] = []
    for line in lines:
        if line in (b"\r\n", b"\n"):
            break
        head.append(line.decode("latin-1").rstrip())
    if not head:
        return None
    fields = (field.partition(":") for field in head[1:])
    target = head[0].partition(" ")[2].partition(" ")[0]  # empty where TLS was spoken to a server without it
    headers = {name.lower(): value.strip() for name, _, value in fields}
    length = headers.get("content-length", "")
    body = lines.read(int(length)) if length.isdecimal() else b""
    return Request(target, headers, head[0].partition(" ")[0], body)
