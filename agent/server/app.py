"""What is served: a table of exact paths, nothing else. The bodies are bounded and read in time.

Operations answer with the core's events as JSON lines, like the command line; what is refused
before it begins is one JSON object with the error, under a status that says what kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp.web_exceptions import HTTPException
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse

from agent.engine.carrying import carry_out
from agent.journal import desired
from agent.journal.ledger import Store
from agent.node.host import Host, Onlooker
from agent.node.memory import Memory
from agent.resident import keys, upgrade
from agent.resident.home import AgentSettings, Home
from agent.server import metrics, openapi, tls
from agent.server.doors import Doors
from agent.server.drift import Drift
from agent.server.snapshot import Snapshot
from agent.server.unchanged import Unchanged
from agent.server.work import AtOnce, BusyError, Operation, Work
from agent.wire.faults import AgentError, Fault
from agent.wire.metrics import exposition
from agent.wire.plan import MAX_PLAN_BYTES, Plan
from agent.wire.verbs import VERBS, Verb, named
from agent.wire.version import __version__, older

if TYPE_CHECKING:
    from agent.engine.engine import Engine
    from agent.engine.proving import Prover

BODY_SECONDS = 10.0
# A client that takes no line for so long is dropped; its operation goes on.
WRITE_SECONDS = 20.0
JSON_LINES = "application/jsonl"

log = logging.getLogger("moorage")


class Refusal(Exception):
    """An answer other than 200: the status, and what stands in its body."""

    def __init__(self, status: int, fault: Fault, allow: str = "") -> None:
        super().__init__(fault.message)
        self.status = status
        self.fault = fault
        self.allow = allow


@dataclass
class Last:
    """The last operation of each kind, for status and metrics."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, operation: str, result: dict[str, Any], when: float) -> None:
        self.results[operation] = {
            "status": result["status"],
            "code": (result["error"] or {}).get("code"),
            "pull_seconds": result["pull_seconds"],
            "time": int(when),
        }
        key = (operation, str(result["status"]))
        self.counts[key] = self.counts.get(key, 0) + 1


class App:
    """One node's agent. ``reload`` is called once there is a new certificate."""

    def __init__(
        self,
        root: str,
        settings: AgentSettings,
        *,
        digest: str = "",
        prover: Prover | None = None,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.digest = digest
        memory = Memory()
        self.store = Store(root)
        self.home = Home(root)
        self.work = Work(_load_core, memory)
        self.last = Last()
        self.refused: Callable[[], int] = lambda: 0
        self._host = Host(root, memory)
        self._prover = prover
        self._reload = reload
        self._refused_roles = 0
        self._snapshot = Snapshot(self.store)
        self._doors = Doors(self.work.quiet)
        self._unchanged = Unchanged(self.store, partial(self._engine, Onlooker(root, memory)))
        self.drift = Drift(
            self.store, self.work, self.apply, lambda: self.engine().recover(), self.last.note
        )
        # Method and path -> what answers: the verbs that go over HTTPS, and what is of the server.
        self.table: dict[tuple[str, str], Callable[[BaseRequest], Awaitable[Any]]] = {
            (verb.method, verb.path): partial(self._operate, verb) for verb in VERBS if verb.https
        }
        self.table |= {
            ("GET", "/healthz"): self._healthz,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/openapi.json"): self._openapi,
            ("GET", "/v1/status"): self._status,
            ("POST", "/v1/certificate-request"): self._request_certificate,
            ("POST", "/v1/certificate"): self._take_certificate,
        }

    # -- the one way in ------------------------------------------------------------------------

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answers one request; a defect of ours is a 500 and a line in the log, never a crash."""
        try:
            self._let_in(request)
            answer = self.table.get((request.method, request.path))
            if answer is None:
                raise self._not_served(request)
            if request.method != "POST" and request.body_exists:
                raise _unfit(400, "body-not-expected", "a look has no body")
            made: StreamResponse = await answer(request)
            return made
        except Refusal as refusal:
            said = _json({"error": refusal.fault.to_json()}, refusal.status)
            if refusal.allow:
                said.headers["Allow"] = refusal.allow  # RFC 9110, 15.5.6
            return said
        except BusyError as problem:
            return _json({"error": problem.fault.to_json()}, 503)
        except AgentError as problem:
            return _json({"error": problem.fault.to_json()}, 400)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as problem:
            log.exception("a defect at %s", request.path)
            fault = Fault("internal-error", f"{type(problem).__name__}", cause="a defect")
            return _json({"error": fault.to_json()}, 500)

    def _let_in(self, request: BaseRequest) -> None:
        """The role in the client's certificate; an operator's of no older generation than was
        seen here, a viewer's for what a viewer may see."""
        peer = request.transport.get_extra_info("peercert") if request.transport else None
        if tls.is_viewer(peer):
            self._require_view(request)
            return
        generation = tls.operator_generation(peer)
        newest = self.home.generation()
        if generation == 0 or generation < newest:
            self._refused_roles += 1
            what = "is no operator's" if generation == 0 else "was replaced by a later one"
            raise Refusal(
                403,
                Fault(
                    "not-an-operator",
                    f"the client's certificate {what}",
                    cause="only the operator's present certificate may command this agent",
                    cure="use certs/fleet/operator.crt of the folder that adopted this node",
                ),
            )
        if generation > newest:
            self.home.raise_generation(generation)
        upgrade.confirm(self.home)

    def _require_view(self, request: BaseRequest) -> None:
        if (request.method, request.path) not in tls.VIEWS:
            self._refused_roles += 1
            raise Refusal(
                403,
                Fault(
                    "viewer-looks-only",
                    f"a viewer's certificate does not open {request.method} {request.path[:200]!r}",
                    cause="it opens GET /metrics, /healthz and /v1/status, and nothing else",
                    cure="use certs/fleet/operator.crt of the folder that adopted this node",
                ),
            )

    def _not_served(self, request: BaseRequest) -> Refusal:
        there = [method for method, path in self.table if path == request.path]
        status = 405 if there else 404
        message = f"{request.method} {request.path[:200]!r} is not served here"
        fault = Fault("not-served", message, cure="GET /v1/openapi.json lists all")
        return Refusal(status, fault, ", ".join(there))

    # -- operations ----------------------------------------------------------------------------

    def engine(self) -> Engine:
        return self._engine(self._host)

    def _engine(self, host: Host) -> Engine:
        from agent.engine.engine import Engine

        return Engine(host, self._prover)

    def apply(self, plan: Plan, dry_run: bool = False) -> Operation:
        return self._operation(named("apply"), plan, dry_run)

    def _operation(self, verb: Verb, plan: Plan | None, dry_run: bool = False) -> Operation:
        return lambda: carry_out(self.engine(), self.store, verb, plan, dry_run=dry_run)

    async def _operate(self, verb: Verb, request: BaseRequest) -> StreamResponse:
        """Any verb: its plan read and judged, its lines told as they come."""
        dry, plan = False, None
        if verb.changes:
            dry = _flag(request, "dry_run")
            _require_no_older_operator(request)
        else:
            _no_query(request)
        if verb.plan:
            plan = Plan.parse(await _body(request, MAX_PLAN_BYTES, "application/json"))
        if plan is not None and verb.ca:
            plan.require_ca()
        at_once = None
        if plan is not None and verb.name == "apply" and not dry:
            at_once = partial(self._unchanged.apply, plan)
        return await self._told(request, verb, self._operation(verb, plan, dry), dry, at_once)

    async def _status(self, request: BaseRequest) -> StreamResponse:
        _no_query(request)
        first = json.dumps({"event": "resident", **self.resident()}).encode() + b"\n"
        known = self._snapshot.status()
        if known is not None:
            return Response(body=first + known, headers={"Content-Type": JSON_LINES})
        verb = named("status")
        return await self._told(request, verb, self._operation(verb, None), first=first)

    def resident(self) -> dict[str, Any]:
        """What a status says of this agent itself."""
        return {
            "id": self.settings.id,
            "version": __version__,
            "digest": self.digest,
            "certificate_ends": self.settings.until,
            "refused": self.refused() + self._refused_roles,
            "drift": self.drift.to_json(),
            "last": self.last.results,
        }

    async def _told(
        self,
        request: BaseRequest,
        verb: Verb,
        operation: Operation,
        dry: bool = False,
        at_once: AtOnce | None = None,
        first: bytes = b"",
    ) -> StreamResponse:
        """The operation's lines as they come. It goes on where the client does not."""
        name, quiet = verb.name, dry or verb.looks

        def note(result: dict[str, Any], when: float) -> None:
            self.last.note(name, result, when)
            if verb.changes:
                self.drift.reset()

        lines = self.work.begin(operation, None if quiet else note, at_once)
        answer = StreamResponse(headers={"Content-Type": JSON_LINES})
        answer.enable_chunked_encoding()
        try:
            await _within(answer.prepare(request))
            if first:
                await _within(answer.write(first))
            while (line := await lines.get()) is not None:
                self._snapshot.hear(line)
                await _within(answer.write(line))
            await _within(answer.write_eof())
        except (ConnectionError, asyncio.TimeoutError):
            log.info("%s went away during %s; it goes on", request.remote, name)
            if request.transport is not None:
                request.transport.abort()
        return answer

    # -- the rest ------------------------------------------------------------------------------

    async def _healthz(self, request: BaseRequest) -> Response:
        _no_query(request)
        return _json({"ok": True, "version": __version__, "digest": self.digest})

    async def _openapi(self, request: BaseRequest) -> Response:
        _no_query(request)
        return _json(openapi.document())

    async def _metrics(self, request: BaseRequest) -> Response:
        _no_query(request)
        looks = await self._doors.look([one.registry for one in desired.plans(self.store)])
        text = metrics.text(
            self.resident(),
            self.last.counts,
            self.work.count,
            self._snapshot.standing(),
            looks,
            self.store.root,
        )
        return Response(text=text, content_type=exposition.CONTENT_TYPE, charset="utf-8")

    async def _request_certificate(self, request: BaseRequest) -> Response:
        await _body(request, 0, "")
        loop = asyncio.get_running_loop()
        pem = await loop.run_in_executor(None, keys.request, self._host, self.home.next_key)
        return _json({"id": self.settings.id, "request": pem})

    async def _take_certificate(self, request: BaseRequest) -> Response:
        content = await _body(request, 64 << 10, "application/json")
        self.settings = keys.take(self.home, self.settings, content)
        self._reload()
        return _json({"certificate_ends": self.settings.until})

    async def close(self) -> None:
        await self.drift.stop()
        await self.work.stop(60)


def _load_core() -> None:
    """The core comes with the first operation: a start costs less without, and forks share it."""
    # A host's name is encoded by it, and no thread is to import anything beside a fork.
    import encodings.idna  # noqa: F401

    import agent.clients.cri_calls
    import agent.engine.engine
    import agent.proof.verify  # noqa: F401 - they are to be there

    settle()


def settle() -> None:
    """What is loaded by now stays: forks share it, and the collector need not walk, so copy, it."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # musl has none
        # What reading the modules took and gave back, a twelfth of all, goes to the system.
        ctypes.CDLL(None).malloc_trim(0)


def _require_no_older_operator(request: BaseRequest) -> None:
    """One from before this agent does not know what its plan means here."""
    theirs = request.headers.get("Moorage-Operator", __version__)
    if older(theirs, __version__):
        raise Refusal(409, upgrade.newer(__version__, theirs[:40]))


async def _within(step: Awaitable[Any]) -> None:
    await asyncio.wait_for(step, WRITE_SECONDS)


async def _body(request: BaseRequest, most: int, kind: str) -> bytes:
    """The body, at most ``most`` bytes of the kind said, within ``BODY_SECONDS``."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise _unfit(415, "compressed-body", "bodies are sent as they are, not compressed")
    if kind and request.content_type != kind:
        raise _unfit(415, "wrong-content-type", f"the body must be {kind}")
    if (request.content_length or 0) > most:
        raise _unfit(413, "body-too-big", f"the body may have {most} bytes")
    parts: list[bytes] = []
    size = 0

    async def read() -> None:
        nonlocal size
        async for part in request.content.iter_chunked(1 << 16):
            size += len(part)
            if size > most:
                raise _unfit(413, "body-too-big", f"the body may have {most} bytes")
            parts.append(part)

    try:
        await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise _unfit(408, "body-too-slow", f"it took more than {BODY_SECONDS:g} seconds") from None
    except HTTPException as problem:
        raise _unfit(problem.status, "bad-body", problem.reason) from None
    return b"".join(parts)


def _unfit(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, Fault(code, message, cause="the request does not fit", cure=_SEE))


_SEE = "GET /v1/openapi.json says what is expected"


def _flag(request: BaseRequest, name: str) -> bool:
    values = {"": False, "true": True, "false": False}
    text = _only(request, name)
    if text not in values:
        raise _unfit(400, "bad-query", f"{name} is true or false")
    return values[text]


def _only(request: BaseRequest, name: str) -> str:
    query = request.rel_url.query
    if set(query) - {name} or len(query.getall(name, [])) > 1:
        raise _unfit(400, "bad-query", f"only {name} may be in the query, once")
    return query.get(name, "")


def _no_query(request: BaseRequest) -> None:
    if request.rel_url.query_string:
        raise _unfit(400, "bad-query", "the query must be empty")


def _json(document: dict[str, Any], status: int = 200) -> Response:
    answer = Response(
        body=json.dumps(document).encode(), status=status, content_type="application/json"
    )
    if status >= 400:
        answer.force_close()
    return answer
