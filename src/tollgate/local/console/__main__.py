"""`python -m tollgate.local.console`: the page on port base + 0, until SIGTERM.

In: TOLLGATE_HOME, TOLLGATE_PORT_BASE, TOLLGATE_KAFKA_BOOTSTRAP, TOLLGATE_DATABASE_URL, TOLLGATE_POLICY_FILE.
Out: exit code 0 after an orderly stop, 1 when something unforeseen ended a loop (the supervisor starts the page
again), 2 when a setting is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from aiohttp import web

from tollgate import policy
from tollgate.errors import ConfigurationError
from tollgate.local.console.flow import Flow
from tollgate.local.console.lookup import Lookup
from tollgate.local.console.server import Console
from tollgate.local.layout import HOST, Layout
from tollgate.settings import Settings

log = logging.getLogger("tollgate.local.console")


async def run(layout: Layout, settings: Settings) -> int:
    """Serve until a signal asks to stop; answers the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    flow, lookup = Flow(settings.kafka_bootstrap), Lookup(settings.database_url)
    console = Console(layout, flow, lookup, policy.load(settings.policy_file))
    runner = web.AppRunner(console.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, HOST, layout.port("console")).start()
    log.info("the page is at %s", layout.url("console"))
    keepers = [
        asyncio.create_task(each)
        for each in (flow.keep(), console.keep(), lookup.keep(lambda: [d.transaction_id for d in flow.flagged()]))
    ]
    failures: list[BaseException] = []

    def ended(keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            failures.append(error)
            stop.set()

    for keeper in keepers:
        keeper.add_done_callback(ended)
    try:
        await stop.wait()
    finally:
        for keeper in keepers:
            keeper.cancel()
        await console.close()
        await runner.cleanup()
        await asyncio.to_thread(flow.stop)
        lookup.close()
    for error in failures:
        log.error("cannot continue", exc_info=error)
    return 1 if failures else 0


def main() -> int:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        layout = Layout.resolve()
        settings = Settings.read("kafka_bootstrap", "database_url")
        return asyncio.run(run(layout, settings))
    except ConfigurationError as error:
        log.error("%s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
