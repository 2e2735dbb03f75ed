"""The page's server: a table of exact paths, with events for what changed; read only, unless it has
actions, which alone are posted.

aiohttp on uvloop. Everything that blocks runs in threads; a source that hangs delays its own
section and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import web

from moorage.errors import MoorageError, Refused
from moorage.output.said import said
from moorage.web import page
from moorage.web.access import (
    FORM,
    FORM_HEADERS,
    HEADERS,
    MOST_FORM_BYTES,
    Access,
    PagePlace,
    form_fields,
)
from moorage.web.story import SECTIONS, Section, Story, failed

if TYPE_CHECKING:
    from moorage.web.actions import Actions
    from moorage.web.sources import Source

# How often each source is asked, in seconds.
EVERY: Mapping[str, float] = {
    "registry": 15, "history": 60, "images": 60, "users": 15, "rollouts": 2, "pods": 60,
}  # fmt: skip
# And never so often that one takes more than this share of a core: a registry may be large.
MOST_SHARE = 0.005
# Events are gathered for so long: a thousand nodes that answer are not a thousand events.
GATHER_SECONDS = 1.0
ALIVE_SECONDS = 15.0
REFUSED = (400, 403, 404, 405, 409, 413, 415, 421)
ASKED = ("/verify", "/fix")
FORM_SECONDS = 10.0
FILES = {"/page.css": "text/css", "/page.js": "text/javascript"}

_log = logging.getLogger("moorage.web")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """One page. ``follow`` feeds the nodes' standings until ``unfollow``; ``sources`` are asked
    again and again, each in a thread of its own."""

    def __init__(self, place: PagePlace, registry: str, sources: dict[str, Source]) -> None:
        self.place = place
        self.access = Access()
        self.story: Story
        self._acts = False
        self._registry = registry
        self.sources = sources
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[asyncio.Queue[str]] = set()
        self._shown: dict[tuple[str, str, int, int], str] = {}
        self._table: dict[str, Handler] = {
            "/": self._page,
            "/login": self._log_in,
            "/events": self._events,
            "/story.json": self._story,
            **{f"/section/{name}": self._section for name in SECTIONS},
            **dict.fromkeys(FILES, self._file),
        }

    def offer(self, actions: Actions) -> None:
        """Lets the page do these."""
        self._acts = True
        self._table |= dict.fromkeys(ASKED, functools.partial(self._asked, actions))

    @property
    def link(self) -> str:
        """The address that lets one browser in, once."""
        return f"{self.place.url}/login?token={self.access.token}"

    def tell(self, name: str) -> None:
        """From any thread: this section changed."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._hear, name)

    def _hear(self, name: str) -> None:
        for listener in self._listeners:
            listener.put_nowait(name)

    async def serve(self, ready: Callable[[], None], stop: asyncio.Event | None = None) -> None:
        """Until SIGINT, SIGTERM or ``stop``; ``ready`` is called once it listens. Raises Refused
        if the port is taken."""
        self._loop = asyncio.get_running_loop()
        ending = stop or asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread
                self._loop.add_signal_handler(number, ending.set)
        runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, self.place.address, self.place.port)
        try:
            await site.start()
        except OSError as problem:
            raise _in_use(self.place, str(problem)) from None
        sockets = site._server.sockets  # type: ignore[union-attr]
        self.place = PagePlace(self.place.address, sockets[0].getsockname()[1])
        self._rendered("", "en")  # the first browser waits for no template to be compiled
        asking = [asyncio.ensure_future(self._ask(name)) for name in self.sources]
        ready()
        try:
            await ending.wait()
        finally:
            for one in asking:
                one.cancel()
            for listener in self._listeners:
                listener.put_nowait("")
            await runner.cleanup()

    async def _ask(self, name: str) -> None:
        pool = ThreadPoolExecutor(1, thread_name_prefix=f"web-{name}")
        loop = asyncio.get_running_loop()
        before = 0.0  # the first look loads modules, too
        while True:
            found, took = await loop.run_in_executor(pool, _looked, self.sources[name])
            self.story.put(name, found)
            await asyncio.sleep(max(EVERY[name], min(took, before) / MOST_SHARE))
            before = took

    # -- requests ------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request's way in: the name it was asked by, the method, the path, the cookie."""
        path = self._table.get(request.path)
        answer = self._refusal(request, path) or await path(request)  # type: ignore[arg-type,misc]
        if answer.status in REFUSED:  # neither the query nor a cookie: a token may be in them
            _log.info("refused: %s %.100r: %d", request.method, request.path, answer.status)
        return answer

    def _refusal(self, request: web.BaseRequest, answer: Handler | None) -> web.Response | None:
        if request.headers.get("Host", "") not in self.place.hosts:
            return _said(request, 421, "This page is served under its own name only.")
        if answer is None:
            return _said(request, 404, "There is no such page.")
        methods = ("GET", "POST") if request.path in ASKED else ("GET",)
        if request.method not in methods:
            refused = _said(request, 405, "This page is read only.")
            refused.headers["Allow"] = ", ".join(methods)
            return refused
        if request.path != "/login" and not self.access.knows(self._session(request)):
            way = "Open the link that `inv web` printed; it lets one browser in, once."
            return _said(request, 403, way)
        return self._refused_form(request) if request.method == "POST" else None

    def _refused_form(self, request: web.BaseRequest) -> web.Response | None:
        """Every browser says where a form comes from; one that does not is not believed."""
        if request.headers.getall("Origin", []) != [f"http://{request.headers['Host']}"]:
            return _said(request, 403, "This was sent by another site, and nothing was done.")
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return _said(request, 403, "This was sent by another site, and nothing was done.")
        if request.content_type != FORM:
            return _said(request, 415, "A form of this page was expected.")
        if request.content_length is None or request.content_length > MOST_FORM_BYTES:
            most = said("A form of this page has {count} bytes at most.", count=MOST_FORM_BYTES)
            return _said(request, 413, most)
        return None

    def _session(self, request: web.BaseRequest) -> str:
        return request.cookies.get(self._cookie, "")

    @property
    def _cookie(self) -> str:
        # Cookies know no ports: two pages on one machine must not end each other's sessions.
        return f"moorage-{self.place.port}"

    async def _log_in(self, request: web.BaseRequest) -> web.Response:
        session = self.access.log_in(request.query.get("token", ""))
        if session is None:
            why = "This link was used already, or is not right: run `inv web` again."
            return _said(request, 403, why)
        answer = web.Response(status=303, headers={**HEADERS, "Location": "/"})
        answer.set_cookie(self._cookie, session, httponly=True, samesite="Strict", path="/")
        return answer

    async def _page(self, request: web.BaseRequest) -> web.Response:
        lang = _language(request)
        headers = FORM_HEADERS if self._acts else HEADERS
        return _html(self._rendered("", lang), lang, headers)

    async def _asked(self, actions: Actions, request: web.BaseRequest) -> web.Response:
        """The form that asks before an action (GET), and the agreement (POST)."""
        kind = request.path.removeprefix("/")
        try:
            if request.method == "POST":
                return await self._agreed(actions, kind, request)
            question = actions.question(kind, request.query.get("of", ""))
        except Refused as problem:
            return _refused(request, problem)
        lang = _language(request)
        token = self.access.form_token(self._session(request))
        return _html(page.confirmation(self._registry, question, token, lang), lang, FORM_HEADERS)

    async def _agreed(self, actions: Actions, kind: str, request: web.BaseRequest) -> web.Response:
        """Begins what the form asked. Raises Refused."""
        session = self._session(request)
        try:
            fields = form_fields(await asyncio.wait_for(request.read(), FORM_SECONDS))
        except TimeoutError:
            fields = None
        if fields is None:
            return _said(request, 400, "This is not a form of this page; nothing was done.")
        of, token = fields
        if not self.access.is_form_of(session, token):
            return _said(request, 403, "This form is of another session; nothing was done.")
        who = f"{_user()}, session {self.access.short(session)}"
        actions.begin(actions.question(kind, of), who)
        return web.Response(status=303, headers={**HEADERS, "Location": "/#actions"})

    async def _section(self, request: web.BaseRequest) -> web.Response:
        lang = _language(request)
        return _html(self._rendered(request.path.rpartition("/")[2], lang), lang)

    def _rendered(self, name: str, lang: str) -> str:
        """A section, or with ``name`` "" the page; made anew when the story or the minute is."""
        now = time.time()
        key = (name, lang, self.story.version, int(now // 60))
        if key not in self._shown:
            self._shown = {one: text for one, text in self._shown.items() if one[2:] == key[2:]}
            if name:
                self._shown[key] = page.part(name, self.story.section(name, now), lang)
            else:
                sections = {one: self.story.section(one, now) for one in self._shown_sections()}
                self._shown[key] = page.whole(self._registry, sections, lang, key[2])
        return self._shown[key]

    def _shown_sections(self) -> tuple[str, ...]:
        there = {"nodes", *self.sources, *(["actions"] if self._acts else [])}
        return tuple(one for one in SECTIONS if one in there)

    async def _story(self, request: web.BaseRequest) -> web.Response:
        del request
        return web.json_response(self.story.to_json(time.time()), headers=HEADERS)

    async def _file(self, request: web.BaseRequest) -> web.Response:
        content = _content(request.path)
        return web.Response(
            body=content, content_type=FILES[request.path], charset="utf-8", headers=HEADERS
        )

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        """Names of sections that changed, as server-sent events, once a second at most."""
        answer = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        heard: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.add(heard)
        try:
            await answer.prepare(request)
            await answer.write(f"event: hello\ndata: {self.story.version}\n\n".encode())
            while (names := await _gathered(heard)) is not None:
                line = f"data: {json.dumps(sorted(names))}" if names else ": alive"
                await answer.write(f"{line}\n\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._listeners.discard(heard)
        return answer


async def _gathered(heard: asyncio.Queue[str]) -> set[str] | None:
    """What changed within a second of the first change; empty after a quiet while, None at the
    end."""
    try:
        names = {await asyncio.wait_for(heard.get(), ALIVE_SECONDS)}
    except TimeoutError:
        return set()
    if "" not in names:
        await asyncio.sleep(GATHER_SECONDS)
    while not heard.empty():
        names.add(heard.get_nowait())
    return None if "" in names else names


def _looked(source: Source) -> tuple[Section, float]:
    """What a source found, and the seconds of a core that it took."""
    began = time.thread_time()
    try:
        found = source()
    except MoorageError as problem:
        found = failed(problem)
    except Exception as problem:  # a defect, or an engine that ended: one section's, not the page's
        words = f"{type(problem).__name__}: {problem}"
        found = failed(MoorageError("defect", "this could not be looked at", cause=words[:500]))
    return found, time.thread_time() - began


@functools.cache
def _content(path: str) -> bytes:
    return (page.HERE / path.removeprefix("/")).read_bytes()


def _html(text: str, lang: str, given: Mapping[str, str] = HEADERS) -> web.Response:
    headers = {**given, "Content-Language": lang, "Vary": "Accept-Language"}
    return web.Response(text=text, content_type="text/html", headers=headers)


@functools.cache
def _user() -> str:
    """Whoever started the page: its browser is theirs, or was let in by them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def _language(request: web.BaseRequest) -> str:
    return page.language(request.headers.get("Accept-Language", ""))


def _said(request: web.BaseRequest, status: int, text: str) -> web.Response:
    lang = _language(request)
    return _plain(status, page.plain(said(text) if type(text) is str else text, lang), lang)


def _refused(request: web.BaseRequest, problem: Refused) -> web.Response:
    lang = _language(request)
    return _plain(409, page.refused(problem, lang), lang)


def _plain(status: int, text: str, lang: str) -> web.Response:
    headers = {**HEADERS, "Content-Language": lang, "Vary": "Accept-Language"}
    return web.Response(status=status, text=f"{text}\n", headers=headers)


def _in_use(place: PagePlace, why: str) -> Refused:
    return Refused(
        "page-port-in-use",
        f"port {place.port} of {place.address} cannot be listened on",
        cause=why,
        cure="inv web --listen=127.0.0.1:0 takes any port that is free",
    )


def run(server: Server, ready: Callable[[], None]) -> None:
    """Serves until a signal, on uvloop."""
    import uvloop

    async def main() -> Any:
        return await server.serve(ready)

    uvloop.run(main())
