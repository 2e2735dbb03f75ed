"""A line to a registry that is some way off: bytes come through as they are, and later."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

    async def read() -> None:
        while content := await source.read(1 << 16):
            await under_way.put((loop.time() + seconds, content))
        await under_way.put((loop.time() + seconds, b""))

    async def write() -> None:
        while True:
            at, content = await under_way.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not content:
                break
            target.write(content)
            await target.drain()
        target.close()

    with contextlib.suppress(OSError):
        await asyncio.gather(read(), write())


@contextlib.contextmanager
def line(port: int, there_and_back: float) -> Iterator[int]:
    """A port of loopback that leads to ``port``; an answer takes ``there_and_back`` s longer."""
    loop = asyncio.new_event_loop()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", port)
            one_way = there_and_back / 2
            await asyncio.gather(_carry(reader, back, one_way), _carry(there, writer, one_way))

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(_end, loop)
        thread.join(10)
        loop.close()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    asyncio.gather(*tasks, return_exceptions=True).add_done_callback(lambda _: loop.stop())
