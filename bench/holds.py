"""Many idle holds behind one port, in a process of its own: ``python -m bench.holds NAMES``, a wildcard such as *.atcr.io.

Says ``ready PORT CA-FILE``. Each connection is upgraded to a websocket over TLS, and pings are answered. A line on the input
breaks all connections at once.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
import tempfile
from pathlib import Path
from typing import cast

import trustme
import uvloop

from bench.sender import handshake

_CLOSE, _PING = 0x88, 0x89


class _Hold(asyncio.Protocol):
    def __init__(self, all_of_them: set[asyncio.Transport]) -> None:
        self._all = all_of_them
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._all.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if not self._upgraded:
            self._upgraded = True
            self._transport.write(handshake(data))
        elif data[0] == _PING:
            mask, masked = data[2:6], data[6 : 6 + (data[1] & 127)]
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
            self._transport.write(bytes((0x8A, len(payload))) + payload)
        elif data[0] == _CLOSE:
            self._transport.close()


async def main(names: str) -> None:
    allow_many_files()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(names).configure_cert(context)
    connections: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # it breaks connections, and uvloop complains of it
    server = await loop.create_server(lambda: _Hold(connections), "127.0.0.1", 0, ssl=context, backlog=10_000)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(file)
        print("ready", server.sockets[0].getsockname()[1], file, flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            for transport in list(connections):
                transport.abort()


def allow_many_files() -> None:
    """As many open sockets as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
