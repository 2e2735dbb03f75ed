"""A port of the pod that answers ``GET /metrics``, also while the node is not as it should be.

Plain HTTP in the network of pods, as Prometheus expects it there: names of registries and files'
states are told, no login, and nothing can be asked but this.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agent.journal.ledger import Store
from agent.journal.status import standing
from agent.node.tree import Tree
from agent.wire.faults import AgentError
from agent.wire.metrics import exposition, gauges
from agent.wire.metrics.exposition import GAUGE, Family, Sample, single
from agent.wire.version import __version__

# moorage/monitoring/prometheus.py and k8s/agents/service.yaml have the same; a test holds them.
PORT = 8078
PATIENCE = 5.0


def text(root: str, node: str, grade: str, settled: bool) -> str:
    """The metrics of one pod: each sample has the Node's name. ``settled``: the last round, of
    which the kubelet's probe is told too, ended well."""
    return exposition.text(_families(root, grade, settled), {"node": node})


def _families(root: str, grade: str, settled: bool) -> Iterator[Family]:
    about = {"version": __version__, "grade": grade}
    yield Family("moorage_agent_info", GAUGE, "The agent's version and grade.", (Sample(1, about),))
    yield single(
        "moorage_agent_settled", GAUGE, "1: the agent's last round ended well.", int(settled)
    )
    tree = Tree(root)
    damaged = False
    try:
        yield from gauges.families(standing(Store(root), lambda at: tree.read(at).content, ()))
    except (AgentError, OSError):
        damaged = True
    words = "1: the agent's notes on the node cannot be read."
    yield single("moorage_state_damaged", GAUGE, words, int(damaged))


def serve(told: Callable[[], str], port: int = PORT) -> ThreadingHTTPServer | None:
    """Answers each scrape with ``told()``, in threads; None, with a word, if the port is taken."""
    try:
        server = _Server(("", port), _handler(told))
    except OSError as problem:
        sys.stderr.write(f"no metrics: port {port} cannot be listened on: {problem}\n")
        return None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def _handler(told: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE
        server_version = "moorage"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            content = told().encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{exposition.CONTENT_TYPE}; version=0.0.4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape every half minute is not worth a line."""

    return Handler
