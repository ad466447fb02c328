"""``python -m simulator.demo``: tells the story, and ends with 0 when all came about, 1 when not, 130 on Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import aclosing

import aiohttp

from simulator.clock import Clock
from simulator.demo.narrator import Narrator, StepFailed
from simulator.demo.service import Service
from simulator.demo.stack import LocalStack
from simulator.demo.story import Story
from simulator.neighbourhood import Neighbourhood

REQUEST_SECONDS = 30.0


async def main(options: argparse.Namespace) -> int:
    """The exit code."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    narrator = Narrator(sys.stdout)
    try:
        return await demonstrate(narrator, options.patience)
    except asyncio.CancelledError:
        print("\nInterrupted: all that was started has ended.", flush=True)
        return 130


async def demonstrate(narrator: Narrator, patience: float) -> int:
    """Tell the story to its end. All that it starts ends with it; after a failure the stack's folder is kept."""
    async with (
        Neighbourhood(clock=Clock.wall()) as net,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(REQUEST_SECONDS)) as session,
        aclosing(LocalStack(net.plc.url)) as stack,
    ):
        service = Service(stack.url, narrator, session, patience=patience)
        try:
            await Story(net, stack, service, narrator).tell()
        except (StepFailed, aiohttp.ClientError, TimeoutError):  # the narrator has told it
            stack.keep = True
            print(f"\nThe end of the stack's log, {stack.log_file}:\n\n{stack.last_lines()}", flush=True)
    narrator.summary()
    return 1 if narrator.failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulator.demo", description="The service without internet.")
    patience = float(os.environ.get("PATIENCE") or 30)
    parser.add_argument(
        "--patience", type=float, default=patience, help="seconds that anything may take to come about (PATIENCE, 30)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    for variable in [name for name in os.environ if name.startswith(("AWS_", "DISCOVERY_"))]:
        del os.environ[variable]  # what is set for another service is not for this story
    sys.exit(asyncio.run(main(parse())))
