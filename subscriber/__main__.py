"""``python -m subscriber``: follow the streams of all hosts until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import uvloop

from chalicelib import process, settings
from subscriber import memory
from subscriber.healthy import answering
from subscriber.supervisor import Supervisor


async def main() -> None:
    """Run one subscriber with the settings of the environment."""
    supervisor = Supervisor(process.context())
    memory.prepare()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, supervisor.stop)
    async with answering(lambda: time.monotonic() - supervisor.last_round):
        await supervisor.run()


if __name__ == "__main__":
    try:
        process.begin()
        uvloop.run(main())
        os._exit(0)  # all is saved; threads that wait for others' servers are not waited for
    except settings.InvalidSetting as error:
        sys.exit(f"settings: {error}")
