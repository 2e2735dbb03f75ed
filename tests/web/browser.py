"""Debian's Chromium without a window, driven by its own DevTools protocol over aiohttp's client.

This machine's if it is installed, else Debian's packages unpacked, with the
libraries that this machine lacks. https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests import debian
from tests.environment import BUILD

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "ArrowRight": (39, "")}


def chromium() -> tuple[str, dict[str, str]]:
    """The program and what its environment needs."""
    found = shutil.which("chromium")
    if found is not None:
        return found, {}
    unpacked = BUILD / "debian" / "chromium"
    if not unpacked.exists():  # with what apt would install beside it
        words = ["apt-get", "-s", "install", "--no-install-recommends", "chromium"]
        plan = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        debian.unpacked("chromium", *names)
    libraries = unpacked / "usr" / "lib" / "x86_64-linux-gnu"
    paths = f"{libraries}:{libraries / 'pulseaudio'}:{unpacked / 'lib' / 'x86_64-linux-gnu'}"
    program = unpacked / "usr" / "lib" / "chromium" / "chromium"
    return str(program), {"LD_LIBRARY_PATH": paths}


def axe() -> str:
    """axe-core's script, from npm, of the version that is named here."""
    folder = BUILD / "axe"
    script = folder / "package" / "axe.min.js"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", "axe-core@4.14.1"], cwd=folder, check=True)
        subprocess.run(["tar", "-xzf", "axe-core-4.14.1.tgz"], cwd=folder, check=True)
    return script.read_text()


class Tab:
    """One page of the browser."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self.loaded: list[str] = []
        self.violations: list[str] = []

    async def call(self, method: str, **words: Any) -> dict[str, Any]:
        """A command's result; what comes before it is noted."""
        number = next(self._numbers)
        await self._line.send_json({"id": number, "method": method, "params": words})
        while True:
            said = await self._line.receive_json(timeout=60)
            self._note(said)
            if said.get("id") == number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return dict(said["result"])

    def _note(self, said: dict[str, Any]) -> None:
        if said.get("method") == "Network.requestWillBeSent":
            self.loaded.append(said["params"]["request"]["url"])
        if said.get("method") == "Log.entryAdded":
            self.violations.append(said["params"]["entry"]["text"])

    async def run(self, script: str) -> Any:
        """What a script returns, by value; promises are awaited."""
        said = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(str(said["exceptionDetails"])[:1000])
        return said["result"].get("value")

    async def open(self, url: str, width: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def until(self, condition: str, seconds: float = 60) -> None:
        """Waits until a script's value is true."""
        for _ in range(int(seconds * 10)):
            if await self.run(condition):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"never true: {condition}")

    async def press(self, key: str) -> None:
        code, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed
            )

    async def picture(self, *, height: int = 0) -> bytes:
        """A screenshot as PNG: of what is in view, or of the page's first ``height`` pixels."""
        part = {}
        if height:
            width = await self.run("innerWidth")
            tall = min(height, await self.run("document.documentElement.scrollHeight"))
            part = {"clip": {"x": 0, "y": 0, "width": width, "height": tall, "scale": 1}}
        said = await self.call("Page.captureScreenshot", captureBeyondViewport=bool(part), **part)
        return base64.b64decode(said["data"])


def fonts() -> dict[str, str]:
    """What lets it draw Chinese (fontconfig: "fonts" below XDG_DATA_HOME): Debian's, unpacked."""
    return {"XDG_DATA_HOME": str(debian.unpacked("fonts-wqy-microhei") / "usr" / "share")}


@asynccontextmanager
async def tab(profile: Path, language: str) -> AsyncIterator[Tab]:
    """A browser with one tab, ended at the end."""
    program, environment = chromium()
    process = await asyncio.create_subprocess_exec(
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", f"--accept-lang={language}", "--no-first-run", "about:blank",
        env={**os.environ, **environment, **fonts()}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        port = await _port(process.stderr)
        draining = asyncio.ensure_future(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                url = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(
                url["webSocketDebuggerUrl"], max_msg_size=64 << 20
            ) as line:
                made = Tab(line)
                for name in ("Page", "Runtime", "Network", "Log"):
                    await made.call(f"{name}.enable")
                yield made
        draining.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _port(words: asyncio.StreamReader) -> int:
    """The port of its protocol, as it says on stderr."""
    said = b""
    while line := await asyncio.wait_for(words.readline(), 120):
        said += line
        if b"DevTools listening on" in line:
            return int(line.rpartition(b"127.0.0.1:")[2].partition(b"/")[0])
    raise AssertionError(f"Chromium does not start: {said[-2000:]!r}")
