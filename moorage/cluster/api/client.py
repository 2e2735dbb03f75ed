"""A Kubernetes API server as few verbs: get, list in pages, apply, merge, delete, watch, text.

Objects are the API's own JSON. Every verb here may be sent twice without harm, so what a busy or
stumbling server asks for is done: it is asked again, later. The package ``kubernetes`` finds
credentials, TLS and proxies; its 700 generated models are not needed for any of this.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moorage.cluster.api.ours import FIELD_MANAGER
from moorage.cluster.api.refusals import ApiError, explain, no_answer
from moorage.cluster.api.where import Where

if TYPE_CHECKING:
    from kubernetes.client import Configuration

Document = dict[str, Any]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
TRIES = 6
# What a server may answer now and not a second later.
_AGAIN = frozenset((429, 500, 502, 503, 504))
# One page of a list, in objects; halved where its answer is larger than MAX_ANSWER.
PAGE = 250
MAX_ANSWER = 16 << 20
# So often a list is begun anew that the server forgets while it is read.
_ANEW = 3
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class Api:
    """A connection to one API server; safe to use from many threads.

    Every method raises ApiError where the server refuses, fails or does not answer.
    """

    def __init__(self, configuration: Configuration, where: Where, *, parallel: int = 12) -> None:
        from kubernetes.client import rest

        configuration.connection_pool_maxsize = parallel
        self.where = where
        self.parallel = parallel
        self._configuration = configuration
        self._pool = rest.RESTClientObject(configuration).pool_manager
        self._pool.connection_pool_kw["block"] = True
        # Everybody waits until then: a server that is too busy for one thread is so for all.
        self._not_before = 0.0
        self._answered = False
        # How far the server's clock is ahead of ours, in seconds, by its last answer.
        self.ahead = 0.0
        self._lock = threading.Lock()

    # -- verbs ------------------------------------------------------------------------------

    def get(self, path: str, what: str = "", **query: str) -> Document:
        """One object, or what else is at ``path``."""
        return self._ask("GET", path, what or f"read {path}", query=query)

    def find(self, path: str, what: str = "") -> Document | None:
        """One object, or None if there is none (404)."""
        try:
            return self.get(path, what)
        except ApiError as problem:
            if problem.status == 404:
                return None
            raise

    def items(
        self, path: str, what: str = "", *, selector: str = "", fields: str = "", page: int = PAGE
    ) -> Iterator[Any]:
        """Every object of a list, a page at a time, so that memory holds one page only.

        ``selector`` is one of labels, ``fields`` one of fields; "" for all.

        A list whose history is gone (410) goes on by the token that the server offers for it, or
        begins anew. Objects already given are not given twice.
        """
        what = what or f"list {path.rsplit('/', 1)[-1]}"
        query = _chosen(selector, fields)
        token, seen, anew = "", set[str](), 0
        while True:
            asked = {**query, "limit": str(page)} | ({"continue": token} if token else {})
            try:
                answer = self._ask("GET", path, what, query=asked)
            except _TooLarge:
                if page == 1:
                    raise
                page = max(1, page // 4)
                continue
            except ApiError as problem:
                anew += 1
                if problem.status != 410 or not token or anew > _ANEW:
                    raise
                token = problem.go_on
                continue
            for item in answer.get("items") or ():
                uid = item.get("metadata", {}).get("uid", "")
                if not uid or uid not in seen:
                    seen.add(uid)
                    yield item
            token = answer.get("metadata", {}).get("continue") or ""
            if not token:
                return

    def apply(
        self, path: str, document: Document, what: str, *, force: bool = False, dry: bool = False
    ) -> Document:
        """Server-side apply by our field manager. ``force`` takes fields over from others."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry:
            query["dryRun"] = "All"
        return self._ask("PATCH", path, what, query=query, body=document, kind=_APPLY)

    def merge(self, path: str, change: Document, what: str, *, dry: bool = False) -> Document:
        """A JSON merge patch. Name a ``resourceVersion`` in it to be told of a conflict (409)."""
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry else {})
        return self._ask("PATCH", path, what, query=query, body=change, kind=_MERGE)

    def delete(
        self, path: str, what: str, *, uid: str = "", grace: int | None = None, dry: bool = False
    ) -> bool:
        """Deletes one object, and what belongs to it in the background.

        ``uid``: only if it is still that very object. False if there is none (any more).
        """
        body: Document = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            query = {"dryRun": "All"} if dry else {}
            self._ask("DELETE", path, what, query=query, body=body)
        except ApiError as problem:
            if problem.status == 404:
                return False
            raise
        return True

    def text(self, path: str, what: str, *, timeout: float = READ_SECONDS) -> str:
        """What is at ``path``, which need not be JSON, such as a pod's answer by the proxy."""
        return self._send("GET", path, what, timeout=timeout).decode("utf-8", "replace")

    def watch(
        self, path: str, version: str, seconds: int, *, selector: str = "", fields: str = ""
    ) -> Iterator[Document]:
        """Changes since ``version`` for at most ``seconds``: ``{type, object}``.

        Ends early where the server closes the stream. Raises ApiError with status 410 where that
        version is too old: list again then.
        """
        from urllib3.exceptions import HTTPError

        asked = {
            **_chosen(selector, fields),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        what = f"watch {path.rsplit('/', 1)[-1]}"
        answer = self._open("GET", _url(path, asked), what, timeout=seconds + 5.0)
        try:
            if answer.status != 200:
                raise explain(answer.status, _parsed(self._read(answer, what)), what)
            for line in _lines(answer):
                event = _parsed(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise explain(int(status.get("code") or 500), status, what)
                if event:
                    yield event
        except (HTTPError, OSError):
            return  # the stream broke: whoever watches goes on from the last version
        finally:
            answer.close()
            answer.release_conn()

    def close(self) -> None:
        self._pool.clear()

    # -- sending ----------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = "application/json",
    ) -> Document:
        answer = _parsed(self._send(method, _url(path, query or {}), what, body=body, kind=kind))
        if not answer:
            raise _no_api(what, self.where)
        return answer

    def _send(
        self,
        method: str,
        url: str,
        what: str,
        *,
        body: Any = None,
        kind: str = "application/json",
        timeout: float = READ_SECONDS,
    ) -> bytes:
        """The body of a 2xx answer. What may be better in a moment is tried again."""
        payload = None if body is None else json.dumps(body).encode()
        for tried in range(1, TRIES + 1):
            last = tried == TRIES
            self._wait_turn()
            try:
                answer = self._open(method, url, what, payload, kind, timeout)
                try:
                    content = self._read(answer, what)
                finally:
                    answer.release_conn()
            except ApiError as problem:
                if last or problem.code != "connection-lost":
                    raise
                self._back_off(tried, "")
                continue
            if 200 <= answer.status < 300:
                return content
            refusal = explain(answer.status, _parsed(content, lenient=True), what)
            refusal.with_cure(self.where.typed(refusal.cure))
            if last or answer.status not in _AGAIN or refusal.code != _code_of(answer.status):
                raise refusal
            self._back_off(tried, answer.headers.get("Retry-After", ""))
        raise AssertionError("unreachable")

    def _open(
        self,
        method: str,
        url: str,
        what: str,
        payload: bytes | None = None,
        kind: str = "application/json",
        timeout: float = READ_SECONDS,
    ) -> Any:
        import urllib3
        from urllib3 import exceptions

        headers = {"Accept": "application/json", "User-Agent": "moorage"}
        if payload is not None:
            headers["Content-Type"] = kind
        for setting in self._configuration.auth_settings().values():
            if setting["in"] == "header":
                headers[setting["key"]] = setting["value"]
        try:
            answer = self._pool.request(
                method,
                self._configuration.host + url,
                body=payload,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except exceptions.HTTPError as problem:
            raise self._no_answer(problem, what) from None
        self._answered = True
        self._learn_clock(answer.headers.get("Date", ""))
        return answer

    def _learn_clock(self, date: str) -> None:
        from email.utils import parsedate_to_datetime

        with contextlib.suppress(TypeError, ValueError):
            self.ahead = parsedate_to_datetime(date).timestamp() - time.time()

    def _read(self, answer: Any, what: str) -> bytes:
        """The whole body, but no endless one: a page that is too large is asked for in parts."""
        from urllib3 import exceptions

        parts, size = [], 0
        try:
            for part in answer.stream(1 << 16):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER:
                    answer.close()
                    raise _TooLarge(
                        "answer-too-large",
                        f"{what}: the answer is larger than {MAX_ANSWER >> 20} MiB",
                        cause="a single object, or whatever is between us and the API server, is",
                        cure="look at it: kubectl get … -o json | wc -c",
                    )
        except (exceptions.HTTPError, OSError) as problem:
            raise self._no_answer(problem, what) from None
        return b"".join(parts)

    def _no_answer(self, problem: Exception, what: str) -> ApiError:
        return no_answer(problem, what, self.where, answered=self._answered)

    def _wait_turn(self) -> None:
        while (pause := self._not_before - time.monotonic()) > 0:
            time.sleep(pause)

    def _back_off(self, tried: int, retry_after: str) -> None:
        pause = min(0.2 * 2**tried, 5.0) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        if retry_after.isdigit():
            pause = max(pause, min(float(retry_after), 30.0))
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + pause)


class _TooLarge(ApiError):
    """An answer over MAX_ANSWER."""


def _code_of(status: int) -> str:
    """The code of a failure that says nothing more particular than its number."""
    return "too-many-requests" if status == 429 else "api-failed"


def _chosen(selector: str, fields: str) -> dict[str, str]:
    asked = {"labelSelector": selector, "fieldSelector": fields}
    return {key: value for key, value in asked.items() if value}


def _url(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path


def _parsed(content: bytes, *, lenient: bool = False) -> Document:
    """JSON's object, else {}; ``lenient``: other text becomes a message of its own."""
    try:
        document = json.loads(content)
    except ValueError:
        text = content[:300].decode("utf-8", "replace").strip()
        return {"message": text} if lenient and text else {}
    return document if isinstance(document, dict) else {}


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for part in answer.stream(1 << 16):
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_ANSWER:
            return
        yield from (line for line in lines if line)
    if rest:
        yield rest


def _no_api(what: str, where: Where) -> ApiError:
    return ApiError(
        "not-kubernetes",
        f"{what}: {where.server} does not answer as a Kubernetes API server",
        cause="what came back is not the JSON of its API",
        cure="check the server's address in the kubeconfig, and proxies in between",
    )
