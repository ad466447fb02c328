"""A relay for the firehose benches, in a process of its own: ``python -m bench.sender COUNT OURS_EVERY RATE``.

Frames are built before it says ``ready PORT CA-FILE`` on its output. Each connection is upgraded to a websocket over TLS
and gets all of them: as fast as it takes them, or RATE a second where that is not 0. Then it stays open until the other
side closes it.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path

import trustme

from bench import frames

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PIECE = 1 << 20


def main(count: int, ours_every: int, rate: int) -> None:
    wire = [_websocket(frame) for frame in frames.firehose(count, ours_every)]
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("relay.atcr.io").configure_cert(context)
    listening = socket.create_server(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(file)
        print("ready", listening.getsockname()[1], file, flush=True)
        threading.Thread(target=_accept, args=(listening, context, wire, rate), daemon=True).start()
        sys.stdin.read()  # until whoever started this is gone


def _accept(listening: socket.socket, context: ssl.SSLContext, wire: list[bytes], rate: int) -> None:
    while True:
        raw, _ = listening.accept()
        threading.Thread(target=_serve, args=(raw, context, wire, rate), daemon=True).start()


def _serve(raw: socket.socket, context: ssl.SSLContext, wire: list[bytes], rate: int) -> None:
    try:
        with context.wrap_socket(raw, server_side=True) as connection:
            connection.sendall(handshake(connection.recv(65_536)))
            if rate:
                _send_slowly(connection, wire, rate)
            else:
                data = memoryview(b"".join(wire))
                for at in range(0, len(data), _PIECE):
                    connection.sendall(data[at : at + _PIECE])
            connection.recv(65_536)  # that it goes
    except OSError:
        pass  # it has hung up


def _send_slowly(connection: ssl.SSLSocket, wire: list[bytes], rate: int) -> None:
    """One frame at a time, as a live stream has them."""
    begin = time.monotonic()
    for number, frame in enumerate(wire):
        wait = begin + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        connection.sendall(frame)


def handshake(request: bytes) -> bytes:
    """The answer to a websocket's opening request."""
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(hashlib.sha1(key.partition(b":")[2].strip() + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def _websocket(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x82, size)) + payload
    if size < 65_536:
        return b"\x82\x7e" + size.to_bytes(2, "big") + payload
    return b"\x82\x7f" + size.to_bytes(8, "big") + payload


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
