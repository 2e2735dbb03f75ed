"""Which agents can be scraped: asked once as Prometheus will ask them, with the viewer's own pair.

The agent's certificate is verified by its DNS name, as everything written in Go does it; the
operator's side, which knows each agent by its role, never asks in this way.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import MoorageError
from moorage.pki.authority import AGENT_NAME

if TYPE_CHECKING:
    from moorage.pki.roster import Resident

_log = logging.getLogger("moorage.agents")

SCRAPED, OLDER, CLOSED = "scraped", "older", "closed"
PATIENCE = 5.0
AT_ONCE = 64


@dataclass(frozen=True)
class Node:
    """An agent that stays. ``address`` is "" if it is only reached through SSH."""

    name: str
    address: str
    port: int

    @property
    def target(self) -> str:
        """``address:port`` as Prometheus spells it; "" if the node has no address."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" if host else ""


@dataclass(frozen=True)
class ScrapeAnswer:
    """``state``: scraped, older (its build or certificate is from before viewers) or closed."""

    node: Node
    state: str
    error: MoorageError | None = None


def nodes(residents: Mapping[str, Resident]) -> tuple[Node, ...]:
    """The roster's agents by name, each once; one of several names goes by the first."""
    found: dict[str, Node] = {}
    for name, one in sorted(residents.items()):
        found.setdefault(one.id, Node(name, one.address, one.port))
    return tuple(found.values())


def ask(found: Sequence[Node], ca: str, folder: Path) -> tuple[ScrapeAnswer, ...]:
    """Each agent's answer to the viewer's pair in ``folder``, many at a time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(folder / "viewer.crt", folder / "viewer.key")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda node: _asked(node, context), found))


def _asked(node: Node, context: ssl.SSLContext) -> ScrapeAnswer:
    if not node.address:
        return ScrapeAnswer(node, CLOSED, _only_by_ssh(node))
    try:
        status, content = _get(node, context)
    except ssl.SSLCertVerificationError as problem:
        return ScrapeAnswer(node, OLDER, _before_viewers(node, problem.verify_message))
    except (OSError, http.client.HTTPException) as problem:
        return ScrapeAnswer(node, CLOSED, _closed(node, str(problem)))
    if status == 200:
        return ScrapeAnswer(node, SCRAPED)
    return ScrapeAnswer(node, OLDER, _before_viewers(node, _words(status, content)))


def _get(node: Node, context: ssl.SSLContext) -> tuple[int, bytes]:
    plain = socket.create_connection((node.address, node.port), PATIENCE)
    line = http.client.HTTPConnection(AGENT_NAME)
    try:
        line.sock = context.wrap_socket(plain, server_hostname=AGENT_NAME)
        line.request("GET", "/metrics")
        answer = line.getresponse()
        _log.info("GET /metrics of %s:%d: %d", node.address, node.port, answer.status)
        return answer.status, answer.read(1 << 20)
    finally:
        line.close()
        plain.close()


def _words(status: int, content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {status}"


def _before_viewers(node: Node, why: str) -> MoorageError:
    return MoorageError(
        "agent-before-viewers",
        f"the agent on {node.name} is of a build that does not know viewer certificates, or has a "
        "certificate from before",
        cause=why,
        cure=f"inv nodes.upgrade --hosts={node.name}, then inv nodes.status --hosts={node.name}",
        host=node.name,
    )


def _only_by_ssh(node: Node) -> MoorageError:
    return MoorageError(
        "not-scrapable",
        f"the agent on {node.name} was only ever reached through SSH; Prometheus cannot scrape it",
        cause="its port is closed from here, or the node is behind a jump host",
        cure=f"open its port ({node.port}) to Prometheus, then inv nodes.status "
        f"--hosts={node.name} and inv monitoring.setup",
        host=node.name,
    )


def _closed(node: Node, why: str) -> MoorageError:
    return MoorageError(
        "not-scrapable",
        f"the agent on {node.name} cannot be scraped from here: {node.target} does not answer",
        cause=why,
        cure=f"inv nodes.status --hosts={node.name}",
        host=node.name,
    )
