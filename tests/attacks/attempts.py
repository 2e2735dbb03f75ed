"""Every attempt on a running agent: what is sent, and whether it was turned away.

An attempt returns what the agent did, in words, and raises :class:`In` where it got through. That
no byte of the node changed and that the agent's log tells of it is checked around all of them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agent.fleet import CLIENT, DAY, NODE_ID, SERVER, Fleet
from tests.agent.resident import Resident


class In(Exception):
    """An attempt got through."""


@dataclass(frozen=True)
class Attempt:
    """``logged``: a word of the line that the agent's log has to gain."""

    name: str
    run: Callable[[], str]
    logged: str = "refused"


def all_attempts(agent: Resident) -> Iterator[Attempt]:
    """In an order that leaves the agent's state alone until the last."""
    yield from _certificates(agent)
    yield from _viewers(agent)
    yield from _versions(agent)
    yield from _bodies(agent)
    yield from _smuggling(agent)
    yield from _places(agent)
    yield from _plans(agent)
    yield from _json(agent)
    yield from _upgrades(agent)
    yield Attempt("a renewed certificate of another key", lambda: _foreign_certificate(agent))
    yield Attempt("a recorded apply, sent again", lambda: _replay(agent))
    yield Attempt("a flood of connections", lambda: _flood(agent))
    yield Attempt("an operator's certificate that was replaced", lambda: _replaced(agent))


# -- who ------------------------------------------------------------------------------------------


def _certificates(agent: Resident) -> Iterator[Attempt]:
    fleet, other = agent.fleet, Fleet(agent.fleet.folder, "other")
    registry = Fleet(agent.fleet.folder, "registry")
    node = f"urn:moorage:node:{NODE_ID}"
    kinds = {
        "no certificate": None,
        "an operator's certificate of another CA": other.issue("a1"),
        "an operator's certificate that has ended": fleet.issue("a2", begin=-5 * DAY, end=-DAY),
        "an operator's certificate not yet valid": fleet.issue("a3", begin=DAY, end=2 * DAY),
        "a node's certificate in an operator's place": fleet.issue("a4", node, SERVER),
        "a node's certificate that may be a client's": fleet.issue("a5", node, CLIENT),
        "a leaf of the registry's CA": registry.issue("a6", usage=SERVER),
        "an operator's certificate without a generation": fleet.issue(
            "a7", "urn:moorage:operator:"
        ),
        "a role with words behind it": fleet.issue("a8", "urn:moorage:operator:1:x"),
        "a role of generation 0": fleet.issue("a9", "urn:moorage:operator:0"),
    }
    for name, pair in kinds.items():
        yield Attempt(name, lambda pair=pair: _as(agent, fleet.client(pair)))  # type: ignore[misc]


# All that a viewer may ask for; the agent's own list is not asked.
_VIEWS = (("GET", "/healthz"), ("GET", "/metrics"), ("GET", "/v1/status"))


def _viewers(agent: Resident) -> Iterator[Attempt]:
    """A viewer's certificate where an operator's is wanted, at every route and beside them."""
    viewer = agent.fleet.client(agent.fleet.issue("v1", "urn:moorage:viewer"))
    served = json.loads(agent.ask("GET", "/v1/openapi.json")[1])["paths"]
    routes = [(method.upper(), path) for path, found in served.items() for method in found]
    odd = [("POST", "/metrics"), ("DELETE", "/v1/status"), ("GET", "/v1/status/"), ("GET", "/")]
    odd += [("GET", "//metrics"), ("GET", "/metrics/../v1/facts"), ("GET", "/v1/%66acts")]
    for method, path in [*(one for one in routes if one not in _VIEWS), *odd]:
        yield Attempt(
            f"a viewer's {method} {path}",
            lambda method=method, path=path: _looks_only(agent, viewer, method, path),  # type: ignore[misc]
        )
    for name, role in {
        "a viewer of generation 1": "urn:moorage:viewer:1",
        "a role that begins as a viewer's": "urn:moorage:viewers",
    }.items():
        pair = agent.fleet.issue(f"v{len(role)}", role)
        yield Attempt(name, lambda pair=pair: _as(agent, agent.fleet.client(pair)))  # type: ignore[misc]
    server = agent.fleet.issue("v2", "urn:moorage:viewer", SERVER)
    yield Attempt(
        "a viewer's role on a server's certificate", lambda: _as(agent, agent.fleet.client(server))
    )
    ended = agent.fleet.issue("v3", "urn:moorage:viewer", begin=-5 * DAY, end=-DAY)
    yield Attempt(
        "a viewer's certificate that has ended", lambda: _as(agent, agent.fleet.client(ended))
    )


def _looks_only(agent: Resident, viewer: ssl.SSLContext, method: str, path: str) -> str:
    plan = json.dumps(agent.box.document()).encode()
    body = plan if method == "POST" else None
    status, said = agent.ask(method, path, body, viewer, Content_Type="application/json")
    if status != 403:
        raise In(f"{status} {said[:200]!r}")
    for view in _VIEWS:
        if agent.ask(*view, context=viewer)[0] != 200:
            raise AssertionError(f"a viewer does not see {view[1]}")
    return str(json.loads(said)["error"]["code"])


def _as(agent: Resident, context: ssl.SSLContext) -> str:
    """All that an operator may do, tried with another's certificate."""
    plan = json.dumps(agent.box.document()).encode()
    said = ""
    for method, path in (("POST", "/v1/apply"), ("GET", "/v1/status"), ("GET", "/healthz")):
        try:
            status, _ = agent.ask(
                method, path, plan if method == "POST" else None, context,
                Content_Type="application/json",
            )  # fmt: skip
        except OSError as problem:
            said = getattr(problem, "reason", "") or type(problem).__name__
        else:
            if status != 403:
                raise In(f"{path}: {status}")
            said = "403"
    return said


def _versions(agent: Resident) -> Iterator[Attempt]:
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2):
        context = agent.fleet.client(agent.operator)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
        name = f"the operator's certificate over {version.name}"
        yield Attempt(name, lambda context=context: _as(agent, context))  # type: ignore[misc]
    yield Attempt(
        "HTTP without TLS", lambda: _plain(agent, b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n")
    )
    yield Attempt("a downgrade in the middle of a connection", lambda: _plain_after(agent))
    pair = ("-cert", str(agent.operator), "-key", str(agent.operator))
    yield Attempt(
        "a renegotiation, asked of TLS 1.3",
        lambda: _renegotiation(agent, *pair),
        "no whole request",
    )
    for name, words in {
        "a renegotiation, asked of TLS 1.2": ("-tls1_2", "-legacy_renegotiation"),
        "a fallback to TLS 1.2 that says it is one": ("-tls1_2", "-fallback_scsv"),
        "TLS 1.2 with ciphers of the last century": ("-tls1_2", "-cipher", "ALL:@SECLEVEL=0"),
        "TLS 1.2 with compression": ("-tls1_2", "-comp"),
    }.items():
        yield Attempt(name, lambda w=words: _not_spoken(agent, *pair, *w))  # type: ignore[misc]
    yield Attempt("a session that was kept, taken up again", lambda: _resumed(agent))


def _openssl(agent: Resident, typed: bytes, *words: str) -> str:
    """What `openssl s_client` says to what is typed into it."""
    call = ["openssl", "s_client", "-connect", f"127.0.0.1:{agent.port}", *words]
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        time.sleep(0.5)
        with suppress(OSError):
            client.stdin.write(typed)
            client.stdin.flush()
        time.sleep(1)
        with suppress(OSError):
            client.stdin.close()
        said = client.stdout.read()
    return said.decode("utf-8", "replace")


def _renegotiation(agent: Resident, *words: str) -> str:
    """TLS 1.3 has none (RFC 8446, 4.1.2): the client's own library refuses to ask for it."""
    said = _openssl(agent, b"R\n", "-tls1_3", *words)
    if "RENEGOTIATING" not in said or "wrong ssl version" not in said:
        raise In(said[-300:])
    line = agent.connect()  # and the line is of no use to who sends nothing else
    with line:
        line.settimeout(20)
        with suppress(OSError):
            while line.recv(1000):
                pass
    return "there is none in TLS 1.3"


def _not_spoken(agent: Resident, *words: str) -> str:
    said = _openssl(agent, b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n", *words)
    if "HTTP/1" in said or "Cipher is (NONE)" not in said:
        raise In(said[-300:])
    return "no handshake"


def _resumed(agent: Resident) -> str:
    """No ticket is given out, so each connection shows its certificate and is judged anew."""
    context = agent.fleet.client(agent.operator)
    line = agent.connect(context)
    with line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n")
        line.recv(1 << 16)
        kept = line.session
    if kept is not None and kept.has_ticket:
        raise In("it gave a ticket out")
    return _as(agent, agent.fleet.client(None))


def _plain(agent: Resident, content: bytes) -> str:
    with socket.create_connection(("127.0.0.1", agent.port), 10) as line:
        line.sendall(content)
        answer = b""
        with suppress(OSError):
            answer = line.recv(1000)
    if b"HTTP/1" in answer:
        raise In(repr(answer))
    return "no answer"


def _plain_after(agent: Resident) -> str:
    """Plain bytes where TLS records are expected: as a renegotiation from below would send."""
    line = agent.connect()
    raw = socket.socket(fileno=line.detach())
    with raw:
        raw.settimeout(10)
        # A TLS 1.2 ClientHello record's head, then a request in the clear.
        raw.sendall(b"\x16\x03\x03\x00\x05\x01\x00\x00\x01\x00POST /v1/apply HTTP/1.1\r\n\r\n")
        answer = b""
        with suppress(OSError):
            while part := raw.recv(4096):
                answer += part
    if b"HTTP/1" in answer:
        raise In(repr(answer))
    # The certificate was the operator's own: what is refused is the record, and nobody logs that.
    _as(agent, agent.fleet.client(None))
    return "closed"


# -- bodies ---------------------------------------------------------------------------------------


def _bodies(agent: Resident) -> Iterator[Attempt]:
    head = b"POST /v1/apply HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
    yield Attempt(
        "a body larger than a plan may be",
        lambda: _answered(agent, head + b"Content-Length: 90000000\r\n\r\n{", 413),
    )
    yield Attempt("a body without end", lambda: _endless(agent, head))
    yield Attempt(
        "a head that comes byte by byte", lambda: _slow(agent, b"GET / HTTP/1.1\r\nA: "), "dropped"
    )
    yield Attempt(
        "a body that comes byte by byte",
        lambda: _slow(agent, head + b"Content-Length: 5000\r\n\r\n"),
    )
    yield Attempt("a client that sends nothing", lambda: _slow(agent, b""), "dropped")
    bomb = gzip.compress(bytes(50_000_000))
    for name, content in (
        ("gzip", bomb),
        ("deflate", zlib.compress(bytes(50_000_000))),
        ("br", b"x"),
    ):
        coded = (
            head + f"Content-Encoding: {name}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        )
        yield Attempt(
            f"a decompression bomb in {name}",
            lambda coded=coded, content=content: _answered(agent, coded + content, 415),  # type: ignore[misc]
        )


def _answered(agent: Resident, content: bytes, *statuses: int) -> str:
    line = agent.connect()
    answer = b""
    with line, suppress(OSError):
        line.settimeout(30)
        with suppress(OSError):
            line.sendall(content)
        while part := line.recv(1 << 16):
            answer += part
    codes = [int(one.split(b" ", 1)[0]) for one in answer.split(b"HTTP/1.1 ")[1:]]
    if any(code < 400 for code in codes) or (codes and codes[0] not in statuses):
        raise In(f"{codes}")
    return f"{codes}"


def _endless(agent: Resident, head: bytes) -> str:
    before = _resident_kib(agent)
    line = agent.connect()
    sent = 0
    with line, suppress(OSError):
        line.settimeout(30)
        line.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (1 << 16, b" " * (1 << 16))
        # The kernels' buffers on the way take tens of MiB; the agent itself reads two at most.
        while sent < 512 << 20:
            line.sendall(chunk)
            sent += 1 << 16
    grown = _resident_kib(agent) - before
    if sent >= 512 << 20 or grown > 16 << 10:
        raise In(f"it took {sent >> 20} MiB and grew by {grown >> 10}")
    return f"cut off after {sent >> 10} KiB, {grown} KiB larger"


def _resident_kib(agent: Resident) -> int:
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _slow(agent: Resident, content: bytes) -> str:
    line = agent.connect()
    began = time.monotonic()
    with line:
        line.settimeout(1)
        line.sendall(content)
        while time.monotonic() - began < 30:
            try:
                if content:
                    line.sendall(b"x")
                if line.recv(1000) == b"":
                    return f"cut off after {time.monotonic() - began:.0f} s"
            except TimeoutError:
                continue
            except OSError:
                return f"cut off after {time.monotonic() - began:.0f} s"
    raise In("it was borne for half a minute")


# -- smuggling ------------------------------------------------------------------------------------


def _smuggling(agent: Resident) -> Iterator[Attempt]:
    plan = json.dumps(agent.box.document()).encode()
    hidden = (
        b"POST /v1/apply HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(plan), plan)
    )
    start = b"POST /v1/certificate HTTP/1.1\r\nHost: n\r\n"
    chunked = b"0\r\n\r\n" + hidden
    forms = {
        "both lengths": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        "two lengths": b"Content-Length: 0\r\nContent-Length: 9\r\n\r\n" + hidden,
        "a length with a sign": b"Content-Length: +5\r\n\r\n" + hidden,
        "a length in hexadecimal": b"Content-Length: 0x5\r\n\r\n" + hidden,
        "a coding before chunked": b"Transfer-Encoding: x, chunked\r\n\r\n" + chunked,
        "a coding after chunked": b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunked,
        "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n" + chunked,
        "a folded header": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\n" + chunked,
        "a null byte in a header": b"A: \x00\r\n\r\n" + hidden,
        "a bad chunk size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + hidden,
        "a header without end": b"A: " + b"x" * 70000 + b"\r\n\r\n" + hidden,
        "a coding in another's clothes": b"Transfer-Encoding: xchunked\r\n\r\n" + chunked,
        "a coding with a tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + chunked,
        "a coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked,
        "a coding in quotes": b'Transfer-Encoding: "chunked"\r\n\r\n' + chunked,
        "a coding that compresses": b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked,
        "a length in a list": b"Content-Length: 0, 9\r\n\r\n" + hidden,
        "an empty length": b"Content-Length: \r\n\r\n" + hidden,
        "a length with a blank in it": b"Content-Length: 1 0\r\n\r\n" + hidden,
        "a length of a hundred digits": b"Content-Length: " + b"9" * 100 + b"\r\n\r\n" + hidden,
        "a line that ends early": b"A: b\nContent-Length: 0\r\n\r\n" + hidden,
        "a return in a header": b"A: b\rContent-Length: 0\r\n\r\n" + hidden,
        "a chunk size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + hidden,
        "a chunk size in another base": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + hidden,
        "a chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n1\r\nABC\r\n0\r\n\r\n"
        + hidden,
        "another protocol": b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
        + hidden,
    }
    for name, content in forms.items():
        yield Attempt(
            f"a hidden request: {name}",
            lambda content=content: _answered(agent, start + content, 400, 415, 431),  # type: ignore[misc]
        )

    reads = b"GET /healthz HTTP/1.1\r\nHost: n\r\n"
    for name, content in {
        "the body of a look": b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden,
        "the chunks of a look": b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
    }.items():
        yield Attempt(
            f"a hidden request: {name}",
            lambda content=content: _answered(agent, reads + content, 400),  # type: ignore[misc]
        )
    yield Attempt(
        "the preface of HTTP/2",
        lambda: _answered(agent, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    )
    yield Attempt("HTTP/0.9", lambda: _answered(agent, b"GET /healthz\r\n", 400), "dropped")


# -- places ---------------------------------------------------------------------------------------


def _places(agent: Resident) -> Iterator[Attempt]:
    for place in (
        b"/v1/../../etc/passwd", b"/v1/%2e%2e/%2e%2e/etc/shadow", b"//v1/apply", b"/v1/apply/",
        b"/v1/apply%00", b"/V1/APPLY", b"/v1/shell", b"/v1/apply?root=/",
        b"/v1/apply?dry_run=maybe",
        b"/v1/status?path=/etc/shadow", b"http://127.0.0.1:2375/containers/json", b"*",
    ):  # fmt: skip
        for method in (b"POST", b"GET"):
            request = method + b" " + place + b" HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n"
            yield Attempt(
                f"{method.decode()} {place.decode()}",
                lambda request=request: _answered(agent, request, 400, 404, 405, 415),  # type: ignore[misc]
            )
    for method in (b"PUT", b"DELETE", b"CONNECT", b"TRACE", b"PATCH"):
        request = method + b" /v1/apply HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n"
        yield Attempt(
            f"the method {method.decode()}",
            lambda request=request: _answered(agent, request, 400, 404, 405),  # type: ignore[misc]
        )


# -- plans ----------------------------------------------------------------------------------------

POISON = {
    "a path upwards": "../../../../etc/cron.d/x",
    "an absolute path": "/etc/shadow",
    "a null byte": "my.registry.io\x00",
    "a second line": "my.registry.io\n10.0.0.6 bank.example",
    "a quote and TOML": 'my.registry.io"]\n[plugins."x"]\nbinary = "/tmp/x',
    "a unit file's line": "my.registry.io\n[Service]\nExecStart=/tmp/x",
    "a shell's words": "$(touch /tmp/x);`id`|sh",
    "a URL": "http://169.254.169.254/latest/",
    "a right-to-left mark": "my.registry.io\u202e",
}
FIELDS: dict[str, tuple[str | int, ...]] = {
    "registry.host": ("registry", "host"),
    "registry.address": ("registry", "address"),
    "registry.ca": ("registry", "ca"),
    "registry.names": ("registry", "names", 0),
    "mirrors.of": ("mirrors", 0, "of"),
    "parts": ("parts", 0),
    "verify.image": ("verify", "image"),
}


# What else in a plan is a string; a login may have any sign in it but these.
STRINGS: tuple[tuple[str | int, ...], ...] = (
    ("version",), ("registry", "port"), ("registry", "insecure"), ("registry", "client"),
    ("mirrors", 0, "fallback"),
    ("verify", "username"), ("verify", "password"), ("options",), ("options", "run"),
    ("options", "restart"), ("parts",), ("registry",), ("verify",),
)  # fmt: skip


def _plans(agent: Resident) -> Iterator[Attempt]:
    for field, place in FIELDS.items():
        for name, poison in POISON.items():
            plan = _poisoned(agent.box.document(), place, poison)
            yield Attempt(
                f"{name} in {field}",
                lambda plan=plan: _plan_refused(agent, json.dumps(plan).encode()),  # type: ignore[misc]
            )
    for place in STRINGS:
        for name, poison in {"a null byte": "a\x00b", "a second line": "a\n127.0.0.1 b"}.items():
            plan = _poisoned(agent.box.document(), place, poison)
            yield Attempt(
                f"{name} in {'.'.join(map(str, place))}",
                lambda plan=plan: _plan_refused(agent, json.dumps(plan).encode()),  # type: ignore[misc]
            )
    for name in ("username", "password"):
        plan = _poisoned(agent.box.document(), ("verify", name), "x\r\nX-Evil: 1")
        yield Attempt(
            f"a second line in verify.{name}",
            lambda plan=plan: _plan_refused(agent, json.dumps(plan).encode()),  # type: ignore[misc]
        )
    for extra in ({"path": "/etc/shadow"}, {"files": {"/etc/shadow": "x"}}, {"command": "id"}):
        plan = {**agent.box.document(), **extra}
        yield Attempt(
            f"a plan with {next(iter(extra))!r}",
            lambda plan=plan: _plan_refused(agent, json.dumps(plan).encode()),  # type: ignore[misc]
        )


def _poisoned(plan: dict[str, Any], place: tuple[str | int, ...], value: str) -> dict[str, Any]:
    plan["registry"]["names"], plan["mirrors"], plan["parts"] = [""], [{"of": ""}], [""]
    plan["options"] = {}
    if place[0] != "parts":
        del plan["parts"]
    if place[0] != "mirrors":
        del plan["mirrors"]
    if place[-2:] != ("names", 0):
        del plan["registry"]["names"]
    target: Any = plan
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return plan


def _plan_refused(agent: Resident, content: bytes, path: str = "/v1/apply") -> str:
    status, said = agent.ask("POST", path, content, Content_Type="application/json")
    if status != 400:
        raise In(f"{status} {said[:200]!r}")
    return str(json.loads(said)["error"]["code"])


def _json(agent: Resident) -> Iterator[Attempt]:
    good = json.dumps(agent.box.document()).encode()
    contents = {
        "JSON nested 100,000 deep": b"[" * 100_000,
        "objects nested 50,000 deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "a key twice": good[:-1] + b', "version": 1}',
        "a key twice, deep down": good.replace(b'"host":', b'"host": "a.b", "host":'),
        "a number of 300,000 digits": b'{"version": ' + b"9" * 300_000 + b"}",
        "not a number": good.replace(b'"version": 1', b'"version": NaN'),
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": good.decode().encode("utf-16"),
        "broken UTF-8": good.replace(b"my.registry", b"\xff\xfe"),
        "an unpaired surrogate": good.replace(b"my.registry", b"\\ud800"),
        "a plan of a later version": good.replace(b'"version": 1', b'"version": 99'),
        "no plan": b"",
    }
    for name, content in contents.items():
        yield Attempt(name, lambda content=content: _plan_refused(agent, content))  # type: ignore[misc]
    yield Attempt("such a plan for untrust", lambda: _plan_refused(agent, b"[]", "/v1/untrust"))
    yield Attempt("such a plan for verify", lambda: _plan_refused(agent, b"{}", "/v1/verify"))


# -- programs and keys ----------------------------------------------------------------------------


def _upgrades(agent: Resident) -> Iterator[Attempt]:
    """No program comes over HTTPS, whoever signed it; archives of before took a signed one."""
    evil = b"#!/usr/bin/env python3\nopen('/tmp/evil', 'w')\n"
    signatures = {
        "without a signature": b"",
        "that another CA signed": Fleet(agent.fleet.folder, "foreign").signature(evil),
        "that the fleet CA signed": agent.fleet.signature(evil),
    }
    for name, signature in signatures.items():
        yield Attempt(f"a program {name}", lambda s=signature: _upgrade(agent, s, evil))  # type: ignore[misc]
    yield Attempt(
        "a program larger than an agent may be", lambda: _upgrade(agent, b"", b"x" * (4 << 20))
    )


def _upgrade(agent: Resident, signature: bytes, content: bytes) -> str:
    try:
        status, said = agent.ask(
            "POST", "/v1/upgrade", content, None,
            Content_Type="application/octet-stream",
            Moorage_Digest=hashlib.sha256(content).hexdigest(),
            Moorage_Signature=base64.b64encode(signature).decode(),
        )  # fmt: skip
    except OSError:
        return "cut off"
    if status != 404:
        raise In(f"{status} {said[:200]!r}")
    return str(json.loads(said)["error"]["code"])


def _foreign_certificate(agent: Resident) -> str:
    pair = agent.fleet.issue("foreign", f"urn:moorage:node:{NODE_ID}", SERVER).read_bytes()
    pem = pair.partition(b"-----BEGIN PRIVATE")[0].decode()
    body = json.dumps({"certificate": pem, "until": 1}).encode()
    return _plan_refused(agent, body, "/v1/certificate")


# -- the line -------------------------------------------------------------------------------------


def _replay(agent: Resident) -> str:
    """A man in the middle records a whole dry run, and sends the client's half again."""
    recorded: list[bytes] = []
    relay = socket.create_server(("127.0.0.1", 0))

    def carry() -> None:
        client, _ = relay.accept()
        server = socket.create_connection(("127.0.0.1", agent.port))

        def back() -> None:
            with suppress(OSError):
                while data := server.recv(1 << 16):
                    client.sendall(data)
            client.close()

        threading.Thread(target=back, daemon=True).start()
        with suppress(OSError):
            while data := client.recv(1 << 16):
                recorded.append(data)
                server.sendall(data)
        server.close()

    threading.Thread(target=carry, daemon=True).start()
    plan = json.dumps(agent.box.document()).encode()
    raw = socket.create_connection(relay.getsockname(), 20)
    with agent.fleet.client(agent.operator).wrap_socket(raw, server_hostname="n") as line:
        line.sendall(
            b"POST /v1/apply?dry_run=true HTTP/1.1\r\nHost: n\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(plan), plan)
        )
        with suppress(OSError):
            while line.recv(1 << 16):
                pass
    relay.close()
    with socket.create_connection(("127.0.0.1", agent.port), 10) as again:
        again.settimeout(10)
        answer = b""
        with suppress(OSError):
            for part in recorded:
                again.sendall(part)
            while data := again.recv(1 << 16):
                answer += data
    if b"HTTP/1" in answer:
        raise In(repr(answer[:100]))
    return "no handshake"


def _flood(agent: Resident) -> str:
    lines = []
    for _ in range(300):
        with suppress(OSError):
            lines.append(socket.create_connection(("127.0.0.1", agent.port), 5))
    for line in lines:
        line.close()
    deadline = time.monotonic() + 15
    while True:
        try:
            if agent.ask("GET", "/healthz")[0] == 200:
                return "it serves the operator again"
        except OSError:
            if time.monotonic() > deadline:
                raise In("it serves no one any more") from None
            time.sleep(0.2)


def _replaced(agent: Resident) -> str:
    second = agent.fleet.client(agent.fleet.issue("second", "urn:moorage:operator:2"))
    if agent.ask("GET", "/healthz", context=second)[0] != 200:
        raise AssertionError("the new one is not served")
    return _as(agent, agent.fleet.client(agent.operator))
