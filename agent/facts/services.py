"""What the service manager reports of services: whether they run, what their stop takes along.

Of systemd in one call for all of them: a call takes 5 ms, a property more nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agent.node.host import READ, Host, is_read, properties

# The setting in the other unit's file, by the property that systemd shows of this one. A restart of
# this one restarts those (measured with systemd 252); ``StopPropagatedFrom=`` does not count then.
_BOUND = {
    "BoundBy": "BindsTo=",
    "RequiredBy": "Requires=",
    "RequisiteOf": "Requisite=",
    "ConsistsOf": "PartOf=",
}
_SHOWN = (
    "LoadState",
    "ActiveState",
    "InvocationID",
    "KillMode",
    "ControlGroup",
    "MainPID",
    *READ,
    *_BOUND,
)
_RUNS = frozenset(("active", "reloading", "activating"))
# systemd.kill(5): with these a stop ends the main process alone, or none at all.
_SPARING = frozenset(("process", "none", ""))
_OPENRC = "/run/openrc"


class Service(NamedTuple):
    """A service as its manager reports it.

    ``start`` differs from start to start. ``kill_mode`` is how its stop ends more than its main
    process, such as ``KillMode=control-group``; "" if it does not. ``group`` is its control group,
    ``pid`` its main process. ``bound``: services that stop with it, and by which setting.
    ``current``: its manager has read its files as they are.
    """

    name: str
    active: bool = False
    start: str = ""
    kill_mode: str = ""
    group: str = ""
    pid: int = 0
    bound: tuple[tuple[str, str], ...] = ()
    current: bool = False


def shown(host: Host, names: Sequence[str]) -> dict[str, Service]:
    """Each of the services that there is, by name."""
    if not names:
        return {}
    if host.openrc:
        found = (_of_openrc(name) for name in names)
    elif host.systemd:
        done = host.run(["systemctl", "show", *names, "-p", ",".join(_SHOWN)])
        found = (_of_systemd(*pair) for pair in zip(names, done.out.split("\n\n")))
    else:
        return {}
    return {one.name: one for one in found if one is not None}


def _of_systemd(name: str, shown: str) -> Service | None:
    facts = properties(shown)
    if facts.get("LoadState") != "loaded":
        return None
    mode = facts.get("KillMode", "")
    return Service(
        name=name,
        active=facts.get("ActiveState") in _RUNS,
        start=facts.get("InvocationID", ""),
        kill_mode="" if mode in _SPARING else f"KillMode={mode}",
        group=facts.get("ControlGroup", ""),
        pid=int(facts.get("MainPID") or 0),
        bound=tuple(
            (other, setting)
            for key, setting in _BOUND.items()
            for other in facts.get(key, "").split()
        ),
        current=is_read(facts, name),
    )


def _of_openrc(name: str) -> Service | None:
    """OpenRC stops and starts what needs a service with it: its own cache of dependencies tells.

    Its stop ends the whole control group where ``rc_cgroup_cleanup`` says so: openrc's rc.conf.
    """
    service = name[: -len(".service")] if name.endswith(".service") else name
    if not Path("/etc/init.d", service).is_file():
        return None
    try:
        start = str(Path(_OPENRC, "started", service).lstat().st_mtime_ns)
    except OSError:
        start = ""
    setting = "rc_cgroup_cleanup"
    texts = [_text(path) for path in (f"/etc/conf.d/{service}", "/etc/rc.conf")]
    cleans = _configured(setting, texts)
    needed = _needed_by(service, _text(f"{_OPENRC}/deptree"))
    return Service(
        name=name,
        active=bool(start),
        start=start,
        kill_mode=f"{setting}={cleans}" if cleans.lower() in ("yes", "true", "on", "1") else "",
        group="",  # its name differs from version to version: any container of the node counts
        pid=1,
        bound=tuple((other, "need ") for other in needed),
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _configured(key: str, texts: Sequence[str]) -> str:
    """What the first of these files that has a setting says of it."""
    for text in texts:
        found = re.findall(rf"^\s*{key}=[\"']?(\w+)", text, re.MULTILINE)
        if found:
            return str(found[-1])
    return ""


def _needed_by(service: str, tree: str) -> tuple[str, ...]:
    """Who needs a service: ``depinfo_<n>_needsme_<m>='other'`` in OpenRC's tree of dependencies."""
    number = re.search(rf"^depinfo_(\d+)_service='{re.escape(service)}'$", tree, re.MULTILINE)
    if number is None:
        return ()
    pattern = rf"^depinfo_{number[1]}_needsme_\d+='([^']+)'$"
    return tuple(re.findall(pattern, tree, re.MULTILINE))
