"""What is done to real nodes while a rollout is at work there: a fault a row, and what it costs.

``before`` strikes before the run; the others strike when the agent tells that it is about to
restart containerd, which then takes six seconds. ``outcomes``: what the report may say of such a
node, by the code of its error or else its status. ``starts``: how often containerd may be started
until trust stands: once, and more only where the fault makes the agent put back, or the node boot,
or lasts for longer than a restart may take, which then looks like one that hangs.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.nodes import GATEWAY, STATE, FleetNode

SLOW_LINE = Path(__file__).with_name("slow_line.py")
DELAY_MS, LOSS_PERCENT = 200, 5
# Patterns that do not match the shell that they stand in.
ERRAND = "[p]yz apply"
SERVICE = "[a]gent.pyz serve"
SHORT_SECONDS = 20.0

Deed = Callable[[FleetNode], None]


@dataclass(frozen=True)
class Fault:
    """One way to hurt a node, and the way out of it that an operator would take."""

    name: str
    strike: Deed
    heal: Deed
    outcomes: frozenset[str]
    before: bool = False
    starts: int = 1


def _must(done: bool, what: str) -> None:
    if not done:
        raise RuntimeError(f"{what}: it did not strike")


def _signal(name: str, pattern: str) -> Deed:
    def deed(node: FleetNode) -> None:
        _must(node.signal(name, pattern), f"SIG{name} to {pattern} on {node.name}")

    return deed


def _worker(name: str) -> Deed:
    """A signal to the resident agent's process for the operation alone, not to its server."""

    def deed(node: FleetNode) -> None:
        code, _ = node.sh(f"kill -{name} $(pgrep -n -f '{SERVICE}')")
        _must(code == 0, f"SIG{name} to the worker on {node.name}")

    return deed


def _continue(node: FleetNode) -> None:
    node.signal("CONT", f"{ERRAND}|{SERVICE}")


def _briefly(stop: Deed) -> Deed:
    def deed(node: FleetNode) -> None:
        stop(node)
        threading.Timer(SHORT_SECONDS, _continue, [node]).start()

    return deed


def _pause(node: FleetNode) -> None:
    node.container.pause()


def _unpause(node: FleetNode) -> None:
    node.container.unpause()


def _cut_off(node: FleetNode) -> None:
    """From one packet to the next nothing comes or goes any more; the registry is still there."""
    node.network("iptables", "-I", "INPUT", "-s", GATEWAY, "-j", "DROP")
    node.network("iptables", "-I", "OUTPUT", "-d", GATEWAY, "-j", "DROP")


def _connect_again(node: FleetNode) -> None:
    node.network("iptables", "-F")


def _reboot(node: FleetNode) -> None:
    node.container.restart(timeout=0)


def _nothing(node: FleetNode) -> None:
    pass


def _slow(node: FleetNode) -> None:
    """Delay and loss of what the node sends: by netem, or by its stand-in."""
    netem = ("tc", "qdisc", "add", "dev", "eth0", "root", "netem")
    words = (*netem, "delay", f"{DELAY_MS}ms", "loss", f"{LOSS_PERCENT}%")
    if subprocess.run(node.inside(*words), capture_output=True, check=False).returncode == 0:
        print(f"{node.name}: delay and loss by netem", flush=True)
        return
    print(f"{node.name}: delay and loss by NFQUEUE: this kernel has no netem", flush=True)
    argv = node.inside(sys.executable, str(SLOW_LINE), str(DELAY_MS), str(LOSS_PERCENT))
    node.helpers.append(subprocess.Popen(argv))
    queue = ("-o", "eth0", "-j", "NFQUEUE", "--queue-num", "7", "--queue-bypass")
    node.network("iptables", "-A", "OUTPUT", *queue)


def _fast(node: FleetNode) -> None:
    if not node.helpers:
        node.network("tc", "qdisc", "del", "dev", "eth0", "root")
        return
    # "7 PORT 0 1 0 0 0 PACKETS 1": kernel, nfnetlink_queue.c, seq_show. A queue that nobody reads
    # would let all of them pass at once.
    queue = node.network("cat", "/proc/net/netfilter/nfnetlink_queue").split()
    alive = all(helper.poll() is None for helper in node.helpers)
    _must(alive and len(queue) == 9 and int(queue[7]) > 20, f"delay and loss on {node.name}")
    node.network("iptables", "-F")
    while node.helpers:
        helper = node.helpers.pop()
        helper.kill()
        helper.wait()


def _fill(folder: str) -> Deed:
    """A small file system of its own over a folder, with what was in it and no room for more."""

    def deed(node: FleetNode) -> None:
        code, said = node.sh(
            f"mkdir -p {folder} && cp -a {folder} /run/covered"
            f" && mount -t tmpfs -o size=$(($(du -sk {folder} | cut -f1) + 64))k,mode=755"
            f" tmpfs {folder} && cp -a /run/covered/. {folder}/;"
            f" cat /dev/zero >{folder}/filler 2>/dev/null; mountpoint -q {folder}"
        )
        _must(code == 0, f"{folder} on {node.name}: {said}")

    return deed


def _fill_under_the_agent(folder: str) -> Deed:
    """The same, and the agent that stays sees it: its service has a view of the mounts of its own,
    which follows the node's where systemd itself has made them shared, and not in a container."""
    fill = _fill(folder)

    def deed(node: FleetNode) -> None:
        fill(node)
        node.sh("systemctl restart moorage-agent")

    return deed


def _make_room(folder: str) -> Deed:
    def deed(node: FleetNode) -> None:
        node.sh(
            f"umount {folder}; find {folder} -mindepth 1 -delete;"
            f" cp -a /run/covered/. {folder}/; rm -r /run/covered;"
            " ! systemctl is-active moorage-agent || systemctl restart moorage-agent"
        )

    return deed


def _another_key(node: FleetNode) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    code, said = node.sh(
        f"mkdir /root/key; mv {key} {key}.pub /root/key/; ssh-keygen -q -t ed25519 -N '' -f {key}"
        " && systemctl restart ssh"
    )
    _must(code == 0, said)


def _own_key(node: FleetNode) -> None:
    node.sh("mv /root/key/* /etc/ssh/; rmdir /root/key; systemctl restart ssh")


DONE = frozenset(("changed", "unchanged"))
# The line broke with the agent at work: it finishes or puts back, and the report says so.
BROKEN = frozenset(("connection-lost",))
SILENT = frozenset(("agent-silent",))
# An agent may see a service refused because its machine is being shut down, and say so in time.
GOING_DOWN = frozenset(("rollback-failed", "restart-failed"))
# sshd may tell of the signal, or of nothing: then it looks like a broken line, and is tried again.
DIED = frozenset(("agent-died",)) | DONE

OVER_SSH = (
    Fault("takes connections and says nothing", _signal("STOP", "[s]shd: .*listener"),
          _signal("CONT", "[s]shd: .*listener"), frozenset(("no-ssh", "timeout")), before=True),
    Fault("the agent stopped", _signal("STOP", ERRAND), _continue, SILENT, starts=2),
    Fault("the agent stopped for 20 s", _briefly(_signal("STOP", ERRAND)), _nothing, DONE),
    Fault("the agent killed", _signal("KILL", ERRAND), _nothing,
          DIED, starts=3),
    Fault("frozen", _pause, _unpause, SILENT, starts=2),
    Fault("cut off", _cut_off, _connect_again, BROKEN),
    Fault("rebooted", _reboot, _nothing, DONE | BROKEN | GOING_DOWN, starts=4),
    Fault("delay and loss", _slow, _fast, DONE, before=True),
    Fault("no room for the agent", _fill(STATE), _make_room(STATE),
          frozenset(("no-room", "disk-full")), before=True),
    Fault("another host key", _another_key, _own_key,
          frozenset(("changed-host-key",)), before=True),
)  # fmt: skip
OVER_HTTPS = (
    Fault("its server takes connections and says nothing", _signal("STOP", SERVICE), _continue,
          DONE, before=True),
    Fault("the worker stopped", _worker("STOP"), _continue, SILENT, starts=2),
    Fault("the worker stopped for 20 s", _briefly(_worker("STOP")), _nothing, DONE),
    Fault("the worker killed", _worker("KILL"), _nothing, DIED, starts=3),
    Fault("the whole service killed", _signal("KILL", SERVICE), _nothing, DONE | BROKEN, starts=3),
    Fault("frozen", _pause, _unpause, SILENT, starts=3),
    Fault("cut off", _cut_off, _connect_again, BROKEN),
    Fault("rebooted", _reboot, _nothing, DONE | BROKEN | GOING_DOWN, starts=4),
    Fault("delay and loss", _slow, _fast, DONE, before=True),
    Fault("no room for the change", _fill_under_the_agent("/etc/containerd"),
          _make_room("/etc/containerd"), frozenset(("disk-full",)), before=True),
)  # fmt: skip
