"""How nodes are reached: the operator's key, their host keys, and an OpenSSH configuration.

All of it lives in ``.moorage/lab/``; host keys come through the engine, never over the network.
"""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.machines.node import LabNode, container_name
from moorage.errors import Refused
from moorage.files import private_folder, write_atomically

if TYPE_CHECKING:
    from moorage.settings import Settings

# Ordinary users of each node: sudo without a password, and with one.
OPERATOR = "operator"
OPERATOR_WITH_PASSWORD = "operator-pw"  # noqa: S105 - a user's name


@dataclass(frozen=True)
class Access:
    """``public_key`` in OpenSSH's form; ``password`` is operator-pw's, for sudo."""

    public_key: str
    password: str = field(repr=False)


def folder(settings: Settings) -> Path:
    return settings.state / "lab"


def ssh_config(settings: Settings) -> Path:
    """The OpenSSH configuration of the lab's nodes; there while the lab is up (``ssh -F``)."""
    return folder(settings) / "ssh_config"


def password_file(settings: Settings) -> Path:
    """Holds operator-pw's password; 0600."""
    return folder(settings) / "operator-pw"


def prepare(settings: Settings) -> Access:
    """The operator's key and password, made where they are not there or cannot be read."""
    private_folder(folder(settings))
    return Access(_public_key(folder(settings) / "id_ed25519"), _password(settings))


def write(settings: Settings, nodes: Sequence[LabNode], host_keys: Mapping[str, str]) -> None:
    """Writes known_hosts and ssh_config for ``nodes``; ``host_keys`` is by node name.

    The configuration comes last: where it is there, all it refers to is.
    """
    place = private_folder(folder(settings))
    lines = [
        f"{container_name(node.name)},{node.name},{node.address} {host_keys[node.name]}\n"
        for node in nodes
        if node.name in host_keys
    ]
    _replace(place / "known_hosts", "".join(lines))
    _replace(ssh_config(settings), "".join(_block(place, node) for node in nodes))


def known_keys(settings: Settings) -> dict[str, str]:
    """The host keys that were learnt, by node name."""
    try:
        text = (folder(settings) / "known_hosts").read_text()
    except OSError:
        return {}
    rows = (line.split(" ", maxsplit=1) for line in text.splitlines() if " " in line)
    return {names.split(",")[1]: key for names, key in rows if names.count(",") == 2}


def forget(settings: Settings) -> None:
    """Removes all of it: keys, password, configuration."""
    shutil.rmtree(folder(settings), ignore_errors=True)


def archive(access: Access) -> bytes:
    """A tar for the root of a new node: authorized keys, and the password to be set at boot."""
    keys = access.public_key.encode() + b"\n"
    passwords = f"{OPERATOR_WITH_PASSWORD}:{access.password}\n".encode()
    # sshd refuses keys that others than their user could have written; root's own are nobody's.
    files = {
        "root/.ssh/authorized_keys": keys,
        f"home/{OPERATOR}/.ssh/authorized_keys": keys,
        f"home/{OPERATOR_WITH_PASSWORD}/.ssh/authorized_keys": keys,
        "etc/lab/passwords": passwords,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            parent = tarfile.TarInfo(str(Path(name).parent))
            parent.type, parent.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(parent)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o600 if content is passwords else 0o644
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def need_node(name: str, known: Sequence[str]) -> str:
    """``name`` (``lab1``, ``moorage-lab1`` or ``1``) -> ``lab1``. Raises Refused for others."""
    wanted = name.strip().removeprefix("moorage-")
    for node in known:
        if wanted in (node, node.lstrip("abcdefghijklmnopqrstuvwxyz-")):
            return node
    raise Refused(
        "unknown-node",
        f"{name!r} is not a node of the lab",
        cause=f"there are {', '.join(known)}" if known else "the lab is not up",
        cure="inv lab.ssh " + known[0] if known else "inv lab.up",
    )


def ssh_command(settings: Settings, name: str, command: str = "") -> list[str]:
    """The ssh command line for node ``name``: a shell, or ``command`` by the node's own shell."""
    argv = ["ssh", "-F", str(ssh_config(settings)), name]
    return [*argv, "--", command] if command else argv


def _block(place: Path, node: LabNode) -> str:
    def quoted(name: str) -> str:
        return '"' + str(place / name).replace("%", "%%") + '"'

    return (
        f"Host {node.name}\n"
        f"  HostName {node.address}\n"
        f"  HostKeyAlias {container_name(node.name)}\n"
        "  User root\n"
        f"  IdentityFile {quoted('id_ed25519')}\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {quoted('known_hosts')}\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  ConnectTimeout 10\n"
        "\n"
    )


def _public_key(path: Path) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = form.load_ssh_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("another kind of key")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()
        )
        write_atomically(path, private)
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return f"{public.decode()} moorage-lab"


def _password(settings: Settings) -> str:
    path = password_file(settings)
    try:
        password = path.read_text().strip()
    except OSError:
        password = ""
    if not password:
        password = secrets.token_urlsafe(18)
        write_atomically(path, password.encode() + b"\n")
    return password


def _replace(path: Path, text: str) -> None:
    """Writes ``text`` unless it stands there already."""
    content = text.encode()
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomically(path, content)
