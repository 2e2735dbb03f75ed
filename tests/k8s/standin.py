"""A stand-in for a Kubernetes API server, for what a real one cannot be made to do: be slow, huge,
busy, forgetful (410) or cut off in the middle. It knows no rule of Kubernetes beyond paths."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Document = dict[str, Any]


@dataclass
class Standin:
    """What it has and how it behaves. ``asked`` counts requests by method and path."""

    objects: dict[str, Document] = field(default_factory=dict)
    lists: dict[str, list[Document]] = field(default_factory=dict)
    delay: float = 0.0
    # Called before each answer; what it returns is answered instead.
    trouble: Callable[[web.Request], web.StreamResponse | None] = lambda _: None
    # The lines of each watch, in turn.
    watches: list[list[Document]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    # Continuation tokens that are too old, and the one that is offered instead.
    expired: set[str] = field(default_factory=set)
    go_on: str = ""
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[f"{request.method} {request.path}"] += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.delay:
            await asyncio.sleep(self.delay)
        instead = self.trouble(request)
        if instead is not None:
            return instead
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method == "PATCH":
            return await self._patch(request)
        if request.path in self.lists:
            return self._page(request)
        found = self.objects.get(request.path)
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
        if found is None:
            return failure(404, "NotFound", f'"{request.path}" not found')
        return web.json_response(found)

    async def _patch(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        known = self.objects.get(request.path, {})
        merged = {**known, **body}
        merged["metadata"] = {**known.get("metadata", {}), **body.get("metadata", {}), "uid": "u"}
        if not request.query.get("dryRun"):
            self.objects[request.path] = merged
        return web.json_response(merged)

    def _page(self, request: web.Request) -> web.Response:
        everything = self.lists[request.path]
        begin = 0
        token = request.query.get("continue", "")
        if token:
            if token in self.expired:
                said = "The provided continue parameter is too old"
                return failure(410, "Expired", said, go_on=self.go_on)
            begin = int(token)
        limit = int(request.query.get("limit") or len(everything) or 1)
        page = everything[begin : begin + limit]
        metadata: Document = {"resourceVersion": "7"}
        if begin + limit < len(everything):
            metadata["continue"] = str(begin + limit)
        return web.json_response({"metadata": metadata, "items": page})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if not self.watches:
            await asyncio.sleep(0.05)
            return web.Response()
        answer = web.StreamResponse()
        await answer.prepare(request)
        for line in self.watches.pop(0):
            await answer.write(json.dumps(line).encode() + b"\n")
        return answer


def failure(
    status: int, reason: str, message: str, headers: Document | None = None, go_on: str = ""
) -> web.Response:
    """A Status document."""
    document: Document = {"kind": "Status", "reason": reason, "message": message, "code": status}
    if go_on:
        document["metadata"] = {"continue": go_on}
    return web.json_response(document, status=status, headers=headers)


def many_pods(count: int, stuck: int, padding: int = 0) -> list[Document]:
    """Pods, the first ``stuck`` of which cannot pull; ``padding`` bytes of annotation each."""
    return [_pod(number, number < stuck, padding) for number in range(count)]


def _pod(number: int, stuck: bool, padding: int) -> Document:
    state: Document = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    if stuck:
        words = "x509: certificate signed by unknown authority"
        state = {"waiting": {"reason": "ErrImagePull", "message": words}}
    image = "my.registry.io/app:1"
    return {
        "metadata": {
            "name": f"pod-{number}",
            "namespace": f"ns-{number % 50}",
            "uid": f"uid-{number}",
            "annotations": {"note": "x" * padding},
        },
        "spec": {
            "nodeName": f"node-{number % 40}",
            "containers": [{"name": "app", "image": image}],
        },
        "status": {
            "phase": "Pending" if stuck else "Running",
            "containerStatuses": [{"name": "app", "state": state, "image": image}],
        },
    }


@contextmanager
def serving(
    standin: Standin, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """It answers there, in a thread of its own; yields the URL."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    port: list[int] = []
    stop = asyncio.Event()

    async def run() -> None:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", standin.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, address, 0, ssl_context=tls)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"{'https' if tls else 'http'}://{address}:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig for it."""
    path = folder / "standin.kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "standin", "cluster": {"server": url}}],
        "users": [{"name": "standin", "user": {"token": "not-a-real-token"}}],
        "contexts": [{"name": "standin", "context": {"cluster": "standin", "user": "standin"}}],
        "current-context": "standin",
    }
    path.write_text(yaml.safe_dump(document))
    return path
