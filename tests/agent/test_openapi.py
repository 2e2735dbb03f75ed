"""The document that the server serves, held against what it answers on every path."""

from __future__ import annotations

import json
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("jsonschema")

import jsonschema

from agent.resident.home import AgentSettings
from agent.server import openapi
from agent.server.app import App
from tests.agent.conftest import Box
from tests.agent.fleet import NODE_ID, Fleet
from tests.agent.resident import Resident

PLANS = ("/v1/apply", "/v1/verify", "/v1/untrust")


@pytest.fixture(scope="module")
def resident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resident]:
    from tests.agent.authority import Authority

    folder = tmp_path_factory.mktemp("served")
    root = folder / "node"
    root.mkdir()
    box = Box(root, Authority().pem).with_containerd()
    box.write("/etc/hosts", b"127.0.0.1\tlocalhost\n")
    (root / "usr/bin/openssl").symlink_to(shutil.which("openssl") or "/none")
    made = Resident(box, Fleet(folder))
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


class Document:
    """What the server says of itself; :meth:`hold` raises where an answer is not in it."""

    def __init__(self, served: dict[str, Any]) -> None:
        self.served = served

    def hold(self, method: str, path: str, status: int, kind: str, body: bytes) -> list[Any]:
        answers = self.served["paths"][path][method.lower()]["responses"]
        answer = answers.get(str(status), answers["default"])
        if "$ref" in answer:
            answer = self.served["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        schema = answer["content"][kind.partition(";")[0]]["schema"]
        if kind.startswith("text/"):
            return [body.decode()]
        lines = body.splitlines() if kind == "application/jsonl" else [body]
        told = [json.loads(line) for line in lines]
        schema = {**schema, "components": self.served["components"]}
        for one in told:
            jsonschema.Draft202012Validator(schema).validate(one)
        return told


@pytest.fixture(scope="module")
def document(resident: Resident) -> Document:
    return Document(json.loads(resident.ask("GET", "/v1/openapi.json")[1]))


def ask(
    resident: Resident, document: Document, method: str, path: str, body: bytes | None = None,
    query: str = "", **headers: str,
) -> tuple[int, list[Any]]:  # fmt: skip
    status, content, kind = resident.whole(method, path + query, body, None, **headers)
    return status, document.hold(method, path, status, kind, content)


def test_it_is_an_openapi_document_of_the_very_paths(document: Document, tmp_path: Path) -> None:
    assert document.served == openapi.document()
    assert document.served["openapi"] == "3.1.0"
    described = {
        (method.upper(), path)
        for path, methods in document.served["paths"].items()
        for method in methods
    }

    async def table() -> set[tuple[str, str]]:
        return set(App(str(tmp_path), AgentSettings(NODE_ID, "127.0.0.1", 1, 0)).table)

    import asyncio

    assert asyncio.run(table()) == described
    for schema in document.served["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_answers_as_described(resident: Resident, document: Document) -> None:
    plan = json.dumps(resident.box.document()).encode()
    kind = "application/json"
    seen = set()
    dry, status = "?dry_run=true", 0
    for path, query in (
        ("/v1/apply", dry), ("/v1/apply", ""), ("/v1/apply", ""), ("/v1/verify", ""),
        ("/v1/untrust", dry),
    ):  # fmt: skip
        status, told = ask(resident, document, "POST", path, plan, query, Content_Type=kind)
        assert (status, told[-1]["event"]) == (200, "result")
        seen |= {one["event"] for one in told}
    for path in ("/v1/facts", "/v1/status", "/v1/status", "/v1/history", "/healthz", "/metrics"):
        status, told = ask(resident, document, "GET", path)
        assert status == 200
        seen |= {one["event"] for one in told if isinstance(one, dict) and "event" in one}
    assert ask(resident, document, "POST", "/v1/untrust", plan, Content_Type=kind)[0] == 200
    assert {"facts", "change", "resident", "status", "history", "result"} <= seen


def test_certificates_answer_as_described(resident: Resident, document: Document) -> None:
    status, told = ask(resident, document, "POST", "/v1/certificate-request", b"")
    assert status == 200, told
    certificate = resident.fleet.sign(told[0]["request"].encode()).decode()
    body = json.dumps({"certificate": certificate, "until": int(time.time()) + 999}).encode()
    kind = "application/json"
    assert ask(resident, document, "POST", "/v1/certificate", body, Content_Type=kind)[0] == 200


@pytest.mark.parametrize("path", [*PLANS, "/v1/certificate"])
@pytest.mark.parametrize(
    ("body", "kind", "statuses"),
    [
        (None, "", (415,)),
        (b"{}", "text/plain", (415,)),
        (b"{", "application/json", (400, 415)),
        (b"[" * 5000, "application/json", (400, 415)),
        (b"x" * (5 << 20), "application/octet-stream", (413, 415)),
    ],
)
def test_what_is_refused_is_refused_as_described(
    resident: Resident, document: Document, path: str, body: bytes | None, kind: str,
    statuses: tuple[int, ...],
) -> None:  # fmt: skip
    try:
        status, told = ask(resident, document, "POST", path, body, Content_Type=kind)
    except (ConnectionError, ssl.SSLEOFError):
        # The rest of a body that nobody reads may meet a closed connection, before its sender has
        # read the answer: https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14
        assert len(body or b"") > 1 << 20
        return
    assert status in statuses
    assert set(told[0]["error"]) == {"code", "message", "cause", "cure"}


def test_another_query_method_or_path_is_refused_as_described(
    resident: Resident, document: Document
) -> None:
    for path in document.served["paths"]:
        method = next(iter(document.served["paths"][path])).upper()
        if method == "GET":
            assert ask(resident, document, "GET", path, query="?x=1")[0] == 400
        other = "POST" if method == "GET" else "GET"
        status, content, _ = resident.whole(other, path)
        assert (status, json.loads(content)["error"]["code"]) == (405, "not-served")
        for other in ("TRACE", "PUT", "DELETE"):
            assert resident.ask(other, path, b"{}")[0] == 405
    for path in ("/v1/other", "/v1/undo", "/v1/upgrade"):  # no program comes over HTTPS
        assert resident.ask("POST", path, b"any")[0] == 404
