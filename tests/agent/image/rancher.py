#!/usr/bin/python3
"""A stand-in for k3s, RKE2 and k0s: it starts the true containerd as they do, and nothing else.

It is no Kubernetes. It reads registries.yaml or the drop-ins, writes containerd's files from its
own template or the user's, starts containerd as its child at their socket, and calls itself as they
do: k3s and RKE2 put a title in the place of their command line. Called as ``rancher.py NAME TITLE
WORDS...``, TITLE being the path of the program that it stands for.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

NAME, TITLE, *WORDS = sys.argv[1:]
NEWER = b" 2." in subprocess.check_output(["containerd", "--version"])
IMAGES = "io.containerd.cri.v1.images" if NEWER else "io.containerd.grpc.v1.cri"
VERSION = 3 if NEWER else 2


def merged() -> dict[str, Any]:
    """config.yaml and its drop-ins: of each key the last one counts."""
    told: dict[str, Any] = {}
    path = Path(f"/etc/rancher/{NAME}/config.yaml")
    for one in [path, *sorted(Path(f"{path}.d").glob("*.y*ml"))]:
        told.update((yaml.safe_load(one.read_text()) or {}) if one.is_file() else {})
    return told


def hosts_toml(folder: Path, registries: dict[str, Any]) -> None:
    """A folder a mirror, as HostsTomlTemplate of k3s's pkg/agent/templates has it."""
    configs = registries.get("configs") or {}
    for host, mirror in (registries.get("mirrors") or {}).items():
        text = f'server = "https://{host}"\n'
        for url in mirror.get("endpoint") or []:
            text += f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
            tls = (configs.get(re.sub("^https?://", "", url)) or {}).get("tls") or {}
            if tls.get("ca_file"):
                text += f'  ca = ["{tls["ca_file"]}"]\n'
        (folder / host).mkdir(parents=True, exist_ok=True)
        (folder / host / "hosts.toml").write_text(text)


def rancher(told: dict[str, Any]) -> list[str]:
    """k3s and RKE2."""
    data = told.get("data-dir", f"/var/lib/rancher/{NAME}")
    etc = Path(f"{data}/agent/etc/containerd")
    etc.mkdir(parents=True, exist_ok=True)
    subprocess.run(["rm", "-rf", f"{etc}/certs.d"], check=True)
    path = Path(told.get("private-registry", f"/etc/rancher/{NAME}/registries.yaml"))
    hosts_toml(etc / "certs.d", (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {})
    base = (
        f'version = {VERSION}\nroot = "{data}/agent/containerd"\nstate = "/run/k3s/containerd"\n'
        f'[grpc]\n  address = "/run/k3s/containerd/containerd.sock"\n'
        f'[plugins."{IMAGES}".registry]\n  config_path = "{etc}/certs.d"\n'
    )
    names = ["config-v3.toml.tmpl", "config.toml.tmpl"] if NEWER else ["config.toml.tmpl"]
    template = next((etc / name for name in names if (etc / name).is_file()), None)
    text = template.read_text() if template else base
    (etc / "config.toml").write_text(text.replace('{{ template "base" . }}', base))
    return ["containerd", "-c", f"{etc}/config.toml"]


def k0s() -> list[str]:
    """k0s, with its drop-ins as containerd's own imports."""
    path = Path("/etc/k0s/containerd.toml")
    if not path.is_file() or path.read_text().startswith("# k0s_managed=true"):
        path.parent.mkdir(parents=True, exist_ok=True)
        imports = "imports = ['/etc/k0s/containerd.d/*.toml']"
        path.write_text(f"# k0s_managed=true\nversion = {VERSION}\n{imports}\n")
    return ["containerd", "--root=/var/lib/k0s/containerd", "--state=/run/k0s/containerd",
            "--address=/run/k0s/containerd.sock", f"--config={path}"]  # fmt: skip


def dies_with_its_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


told = {} if NAME == "k0s" else merged()
if not (told.get("docker") or told.get("container-runtime-endpoint")):
    words = k0s() if NAME == "k0s" else rancher(told)
    subprocess.Popen(words, preexec_fn=dies_with_its_parent)  # noqa: PLW1509
# From here on it is called as they are: k0s by all its words, the others by a title.
read, write = os.pipe()
os.dup2(read, 0)
os.set_inheritable(write, True)  # held open by itself: it waits until it is stopped
if NAME == "k0s":
    Path("/run/k0s").mkdir(exist_ok=True)
    Path("/run/k0s", WORDS[0]).write_text("import sys; sys.stdin.read()")
    os.chdir("/run/k0s")
    os.execv("/usr/bin/python3", [TITLE, *WORDS])  # noqa: S606
os.execv("/bin/cat", [f"{TITLE} {WORDS[0]}"])  # noqa: S606
