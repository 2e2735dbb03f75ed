"""What an agent that stays costs a node: on a real one, with containerd, adopted over SSH.

By hand, `nox -s bench -- --resident`: it takes four minutes, most of them to watch it do nothing.
All limits are absolute. At work is the median from an apply's request to its result, as the
operator's side sees it on a line that is open already; nothing has to be changed, and no image is
pulled.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from moorage.fleet.rollout.fleet import Fleet
from moorage.pki.authority import Authority
from moorage.ui import UI
from tests.agent import authority, real
from tests.bench.measure import Row
from tests.resident.lab import PORT, ResidentNode, asked, resident_node, run

IDLE_SECONDS = 60
APPLIES = 40
DROP_INS = "/etc/systemd/system/moorage-agent.service.d"
WITHOUT_INOTIFY = b"[Service]\nSystemCallFilter=~inotify_init inotify_init1\n"


def rows() -> list[Row]:
    """Measures all of them. AssertionError where the agent does not come to stay."""
    client = docker.from_env(timeout=120)
    image = real.images(client, real.REGISTRY)["moorage/registry"]
    registry = real.Registry(client, image, authority.Authority())
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            resident_node(client, Path(folder)) as node,
        ):
            ui = UI(as_json=True)
            assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
            assert run(node, ui, registry, "apply").ok
            return _figures(node, registry)
    finally:
        registry.container.remove(force=True, v=True)


def _figures(node: ResidentNode, registry: real.Registry) -> list[Row]:
    # As after a reboot: what set the agent up is not in its memory any more.
    node.sh("systemctl restart moorage-agent")
    work = _applies(node, registry)
    memory = _resident_bytes(node) / 2**20
    watching = _idle(node)
    with _without_inotify(node):
        assert not json.loads(asked(node, "/v1/status").splitlines()[0])["drift"]["inotify"]
        polling = _idle(node)
    start = _start(node)
    return [
        Row("resident agent, idle: memory", memory, 30, "MiB", 1),
        Row("resident agent, idle: share of a core", watching * 100, 0.1, "%", 1),
        Row("resident agent, idle, without inotify", polling * 100, 0.1, "%", 1),
        Row("agent's work on one warm host", work * 1000, 30, "ms", 1),
        Row("resident agent, start: time of a core", start * 1000, 350, "ms", 1),
    ]


def _applies(node: ResidentNode, registry: real.Registry) -> float:
    """Seconds from the request to the result, the median; the first has everything to load."""
    plan = json.dumps(real.plan(registry)).encode()
    context = Authority.open(node.settings).context()
    plain = socket.create_connection((node.address, PORT), 10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line = http.client.HTTPConnection("node")
    spent = []
    with context.wrap_socket(plain, server_hostname="node") as line.sock:
        for _ in range(APPLIES + 1):
            began = time.perf_counter()
            line.request("POST", "/v1/apply", plan, {"Content-Type": "application/json"})
            answer = line.getresponse()
            events = iter(answer.readline, b"")
            result = next(one for one in map(json.loads, events) if one["event"] == "result")
            spent.append(time.perf_counter() - began)
            assert result["status"] == "unchanged", result
            answer.read()
    return statistics.median(spent[1:])


def _idle(node: ResidentNode) -> float:
    """Its share of a core while nothing happens, children included."""
    time.sleep(3)
    began, before = time.monotonic(), _processor_seconds(node)
    time.sleep(IDLE_SECONDS)
    return (_processor_seconds(node) - before) / (time.monotonic() - began)


def _processor_seconds(node: ResidentNode) -> float:
    """The agent's own to the nanosecond (/proc/PID/schedstat), its children's in clock ticks."""
    pid = _pid(node)
    said = node.sh(f"cut -d' ' -f1 /proc/{pid}/schedstat; cut -d' ' -f16,17 /proc/{pid}/stat")[1]
    own, user, system = (int(word) for word in said.split())
    return own / 1e9 + (user + system) / 100


def _resident_bytes(node: ResidentNode) -> int:
    return int(node.sh(f"awk '/^VmRSS/ {{print $2}}' /proc/{_pid(node)}/status")[1]) * 1024


def _start(node: ResidentNode) -> float:
    """What a start takes of a core until the agent serves."""
    spent = []
    for _ in range(3):
        node.sh("systemctl restart moorage-agent")
        spent.append(_processor_seconds(node))
    return statistics.median(spent)


def _pid(node: ResidentNode) -> str:
    return node.sh("systemctl show -p MainPID --value moorage-agent")[1].strip()


@contextmanager
def _without_inotify(node: ResidentNode) -> Iterator[None]:
    node.sh(f"mkdir -p {DROP_INS}")
    node.write(f"{DROP_INS}/bench.conf", WITHOUT_INOTIFY)
    node.sh("systemctl daemon-reload; systemctl restart moorage-agent")
    try:
        yield
    finally:
        node.sh(f"rm -r {DROP_INS}; systemctl daemon-reload; systemctl restart moorage-agent")
