"""``python -m simulator``: a neighbourhood on this machine whose records keep changing, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from contextlib import suppress

import aiohttp

from .atcr import LAYER
from .clock import Clock
from .host import Host
from .neighbourhood import Neighbourhood


async def main(arguments: argparse.Namespace) -> None:
    async with Neighbourhood(arguments.seed, Clock.wall(), plc_port=arguments.plc_port) as net:
        for number in range(arguments.hosts):
            await net.add_hold(crew=3, layers=arguments.layers, method="plc" if number % 3 == 2 else "web")
        for _ in range(arguments.pds):
            await net.add_pds(accounts=20, sailors=5)
        print(f"PLC directory  {net.plc.url}   (DISCOVERY_PLC_URL={net.plc.url} DISCOVERY_ALLOW_PRIVATE_HOSTS=true)")
        for host in net.hosts:
            kind = "PDS " if host.shape.lists_active else "hold"
            print(f"{kind}  {host.url}  {len(host.accounts)} repos, first {host.did}")
        if arguments.register:
            for host in net.hosts:
                await register(host, arguments.register)
        while True:
            await asyncio.sleep(1 / arguments.rate if arguments.rate else 3600)
            print(change(net))


async def register(host: Host, service: str) -> None:
    try:
        answer = await host.request_crawl(service)
        print(f"requestCrawl {host.hostname}: {answer.status} {answer.body}")
    except aiohttp.ClientError as error:
        print(f"requestCrawl {host.hostname}: {error}")


def change(net: Neighbourhood) -> str:
    """One push, pull or deletion somewhere; says which."""
    rng: random.Random = net.rng
    host = rng.choice(net.hosts)
    did = rng.choice(list(host.accounts))
    author = host.author(did)
    if host.shape.lists_active:
        commit = host.put(did, *author.manifest())
    elif rng.random() < 0.4:
        commit = host.put(did, *author.stats(rng.randrange(3), pulls=rng.randrange(1000)))
    else:
        layer = next(host.accounts[did].repo.paths(LAYER), None)
        commit = host.delete(did, layer) if layer and rng.random() < 0.3 else host.put(did, *author.layer())
    return f"{host.hostname}  {did}  rev {commit.rev}: {', '.join(f'{op.action} {op.path}' for op in commit.ops)}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--hosts", type=int, default=3, help="how many holds (every third has a did:plc)")
    parser.add_argument("--pds", type=int, default=1, help="how many PDSs, with 20 users each")
    parser.add_argument("--layers", type=int, default=20, help="layers in each hold at the start")
    parser.add_argument("--register", metavar="URL", help="a discovery service to send requestCrawl to")
    parser.add_argument("--rate", type=float, default=1, help="changes a second; 0 for none")
    parser.add_argument("--plc-port", type=int, default=0, help="a port for the PLC directory (default: any)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it may be a pipe
    with suppress(KeyboardInterrupt):
        asyncio.run(main(parse()))
