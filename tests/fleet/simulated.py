"""Simulated: the nodes around these agents, each a folder laid out as one, without containerd.

The agents are real: the server, its gate, TLS and certificates, the engine and its journal, many
in one process, each at an address of its own in 127/8. What stands in for the node: restarts are
counted in a file, and the proofs (registry, CRI, pull) are believed. Liars are servers that hold a
node's certificate and misbehave with it.

    python -m tests.fleet.simulated FOLDER PORT    names and kinds on stdin, as JSON
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.engine.engine import Engine
from agent.engine.proving import Prover
from agent.formats.proposal import Proof
from agent.node.host import Host
from agent.resident.home import Home
from agent.server import tls
from agent.server.app import App
from agent.server.gate import Gate, Http
from agent.wire.plan import Plan, Registry, Verify
from tests.agent.conftest import DEBIAN_CONFIG, FAKE_CONTAINERD, UNIT

# The kinds of a simulated node: an honest agent, or what a liar does.
HONEST = "honest"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\n"
PULL_SECONDS = 0.1


class Laid(Host):
    """A laid-out node whose restarts are counted beside its root."""

    def restart(self, name: str, timeout: float = 60) -> None:
        with Path(f"{self.root}.starts").open("a") as file:
            file.write(f"{name}\n")


class Believed(Prover):
    """Says yes to every proof, a pull after a moment."""

    def ask_registry(self, plan: Plan, address: str | None = None) -> None:
        pass

    def cri_serves(self, socket_path: str) -> bool:
        return True

    def wait_for_cri(self, socket_path: str) -> None:
        pass

    def pull(self, proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None:
        import time

        time.sleep(PULL_SECONDS)

    def trusts(self, proof: Proof, plan: Plan) -> None:
        pass

    def cannot(self, proof: Proof) -> str:
        return ""


class LaidApp(App):
    """The agent's own application, at work on such a node."""

    def engine(self) -> Engine:
        return Engine(Laid(self.store.root), Believed())


def lay_out(root: Path) -> None:
    """The files of a node with containerd as its package leaves it."""
    files = {
        "usr/bin/containerd": FAKE_CONTAINERD.encode(),
        "lib/systemd/system/containerd.service": UNIT.encode(),
        "etc/containerd/config.toml": DEBIAN_CONFIG,
        "etc/hosts": b"127.0.0.1\tlocalhost\n",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "usr/bin/containerd").chmod(0o755)
    Path(f"{root}.starts").touch()


def look(root: Path) -> dict[str, bytes]:
    """Every file of the node but the agent's own notes, and every folder of its configuration."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(root.rglob("*"))
        if "var" not in path.relative_to(root).parts
    }


# -- liars -----------------------------------------------------------------------------------------

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
FOREVER = 3600.0


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


async def _garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A whole answer in the right shape, and no word of it makes sense."""
    writer.write(HEAD + _chunk(b"\x00\xff<html>{]\n" * 5) + b"0\r\n\r\n")


async def _noise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes that are no HTTP."""
    writer.write(os.urandom(2000))


async def _claims(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A result in a shape that no agent sends."""
    said = {"event": "result", "host": "r1", "status": "splendid", "changes": [{"a": 1}]}
    writer.write(HEAD + _chunk(json.dumps(said).encode() + b"\n") + b"0\r\n\r\n")


async def _cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stops in the middle of a line, and holds the connection."""
    writer.write(HEAD + _chunk(b'{"event": "alive"}\n') + _chunk(b'{"event": "change", "pa'))
    await writer.drain()
    await asyncio.sleep(FOREVER)


async def _gone(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes in the middle of an answer."""
    writer.write(HEAD + _chunk(b'{"event": "alive"}\n'))


async def _deaf(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Takes the request, and says nothing to it."""
    await asyncio.sleep(FOREVER)


async def _endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One line without end."""
    writer.write(HEAD)
    while not writer.is_closing():
        writer.write(_chunk(b"x" * (1 << 16)))
        await writer.drain()
        await asyncio.sleep(0.001)  # drain alone does not let the loop see that nobody reads


LIARS: dict[str, Talk] = {
    "garbage": _garbage,
    "noise": _noise,
    "claims": _claims,
    "cut": _cut,
    "gone": _gone,
    "deaf": _deaf,
    "endless": _endless,
}
# Not in the table: "mute" takes a connection and says nothing, "other" has another's certificate.
KINDS = (HONEST, *LIARS, "mute", "other")


async def _lie(kind: str, address: str, port: int, context: ssl.SSLContext) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if kind != "mute":
                await reader.readuntil(b"\r\n\r\n")
            await LIARS.get(kind, _deaf)(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    served = None if kind == "mute" else context
    server = await asyncio.start_server(talk, address, port, ssl=served)
    await server.serve_forever()


async def _serve(folder: Path, port: int, nodes: dict[str, dict[str, str]]) -> None:
    serving = []
    for name, one in nodes.items():
        root = folder / name
        home = Home(str(root))
        settings = home.settings()
        assert settings is not None
        context = tls.context(home)
        if one["kind"] in (HONEST, "other"):
            app = LaidApp(str(root), settings)
            gate = Gate(Http(app.handle), context)
            gate.listen(one["address"], port)
            serving.append(asyncio.ensure_future(gate.serve()))
        else:
            serving.append(asyncio.ensure_future(_lie(one["kind"], one["address"], port, context)))
    await asyncio.sleep(0.1)
    print("serving", flush=True)
    await asyncio.gather(*serving)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), json.load(sys.stdin)))
