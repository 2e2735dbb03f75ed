"""Runs a case on the node itself, in one go: before, apply, again, untrust, after.

Sent to a node and started there by the node's own Python with the agent's archive on its path; it
reads one JSON document and writes one. What it tells is judged on the other side.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/moorage")
PLACES = ("/etc", "/var/lib/rancher")
MINE = ("/etc/containerd", "/etc/docker", "/etc/cri", "/var/lib/rancher",
        "/etc/systemd/system/containerd.service.d")  # fmt: skip
UNITS = Path("/etc/systemd/system")


def main() -> int:
    document = json.load(sys.stdin)
    clean(document)
    try:
        print(json.dumps(run(document)))  # noqa: T201
    finally:
        clean(document)
    return 0


def run(document: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"seconds": time.monotonic()}
    lay_out(document)
    restart(document)
    told["serves"] = dumped(document) is not None and serving(document["socket"])
    told["before"] = look(document)
    told["explained"] = explained(document["plan"])
    told["apply"] = agent("apply", document["plan"])
    told["after"] = look(document)
    host, _, rest = document["image"].partition("/")
    told["pulled"] = next(
        (f"{name}: {said}" for name in (document["image"], f"{host}:443/{rest}")
         for said in [pull(document["socket"], name, document["login"])] if said), ""
    )  # fmt: skip
    told["again"] = agent("apply", document["plan"])
    if document["added"]:
        lay(document["added"])
        told["kept"] = agent("untrust", document["plan"])
        told["meanwhile"] = look(document)
        for name in document["added"]:
            Path(name).unlink()
            remove_empty(Path(name).parent)
    told["untrust"] = agent("untrust", document["plan"])
    told["back"] = look(document)
    told["seconds"] = round(time.monotonic() - told["seconds"], 1)
    return told


def lay_out(document: dict[str, Any]) -> None:
    for name, target in document["links"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        Path(target).mkdir(parents=True, exist_ok=True)
    lay(document["files"])
    if document["unit"] != "containerd.service":
        unit = Path("/lib/systemd/system/containerd.service").read_text()
        unit = unit.replace("Alias=", "#Alias=")
        (UNITS / document["unit"]).write_text(unit)
        systemctl("stop", "containerd.service")
        systemctl("mask", "--runtime", "containerd.service")
    folder = UNITS / f"{document['unit']}.d"
    folder.mkdir(exist_ok=True)
    words = document["flags"]
    if document["path"] != "/etc/containerd/config.toml":
        words += f" --config {document['path']}"
    if words:
        line = f"[Service]\nExecStart=\nExecStart=/usr/bin/containerd {words}\n"
        (folder / "field.conf").write_text(line)
    systemctl("daemon-reload")


def lay(files: dict[str, str]) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8"))


def remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # something else is in it
        return


def clean(document: dict[str, Any]) -> None:
    if document["unit"] != "containerd.service":
        systemctl("stop", document["unit"])
        (UNITS / document["unit"]).unlink(missing_ok=True)
        shutil.rmtree(UNITS / f"{document['unit']}.d", ignore_errors=True)
        systemctl("unmask", "--runtime", "containerd.service")
    for name in document["links"]:
        Path(name).unlink(missing_ok=True)
    for place in MINE:
        shutil.rmtree(place, ignore_errors=True)
    for name in document["files"]:
        Path(name).unlink(missing_ok=True)
    for path in STATE.iterdir() if STATE.exists() else ():
        if path.name != "agent":  # the archive, unpacked once
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    systemctl("daemon-reload")


def restart(document: dict[str, Any]) -> None:
    systemctl("reset-failed", document["unit"])
    systemctl("restart", document["unit"])


def systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=False, capture_output=True)


def look(document: dict[str, Any]) -> dict[str, Any]:
    """What stands there, what containerd makes of it, and what pulls."""
    systemctl("reset-failed", document["unit"])  # the agent is measured, not our own restarts
    return {
        "files": files(),
        "dump": dumped(document),
        "pulls": [
            pull(document["socket"], image, login) == "" for image, login in document["others"]
        ],
    }


def dumped(document: dict[str, Any]) -> str | None:
    """What containerd makes of its configuration; None where it does not start with it."""
    words = ["config", "default"]
    if Path(document["path"]).exists():
        words = ["--config", document["path"], "config", "dump"]
    dump = subprocess.run(["containerd", *words], check=False, capture_output=True, text=True)
    return dump.stdout if dump.returncode == 0 else None


def files() -> dict[str, str]:
    """Every path below the places a case can touch, with what tells a changed one."""
    found = {}
    for place in PLACES:
        for path in sorted(Path(place).rglob("*")):
            status = path.lstat()
            what = "folder"
            if path.is_symlink():
                what = f"link {os.readlink(path)}"  # noqa: PTH115
            elif path.is_file():
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {what}"
    return found


def agent(command: str, plan: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        ["python3", "/root/agent.pyz", command],
        input=json.dumps(plan), capture_output=True, text=True, check=False,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    result: dict[str, Any] = events[-1] if events else {"status": "silent"}
    result["noise"] = done.stderr[-2000:]
    result["notes"] = [event["message"] for event in events if event["event"] == "note"]
    return result


def explained(plan: dict[str, Any]) -> list[str]:
    """The strategies that the agent says apply."""
    from agent.facts import gather
    from agent.node.host import Host
    from agent.runtimes import containerd
    from agent.wire.plan import Plan

    found = containerd.explain(gather(Host("/")), Plan.parse(json.dumps(plan).encode()))
    return [one.strategy for one in found if one.applies]


def serving(socket: str, seconds: float = 60) -> bool:
    """Whether CRI serves, once it had the time."""
    from agent.clients.cri_calls import Cri
    from agent.clients.failures import CriError

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(CriError), Cri(socket) as cri:
            if cri.ready(2):
                return True
        time.sleep(0.1)
    return False


def pull(socket: str, image: str, login: list[str] | None) -> str:
    """The complaint of a fresh pull, or nothing where it went well."""
    from agent.clients.cri_calls import Cri
    from agent.clients.failures import CriError
    from agent.wire.plan import Verify

    try:
        with Cri(socket) as cri:
            cri.remove(image)
            cri.pull(Verify(image, *(login or ())), 20)
            cri.remove(image)
    except CriError as problem:
        return problem.message
    return ""


if __name__ == "__main__":
    sys.exit(main())
