"""The login as a Secret of type kubernetes.io/dockerconfigjson: made, read, compared. Pure.

Nothing here shows a password: diffs and reprs speak of it as hidden.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage.cluster.api import ours
from moorage.cluster.symptoms import keyring
from moorage.registry import Credentials

TYPE = "kubernetes.io/dockerconfigjson"
KEY = ".dockerconfigjson"
_OLD_TYPE, _OLD_KEY = "kubernetes.io/dockercfg", ".dockercfg"

# What may be found where our Secret goes.
ABSENT = "absent"
SAME = "same"
STALE = "stale"
FOREIGN = "foreign"
OTHER_TYPE = "other-type"
FROZEN = "frozen"


@dataclass(frozen=True)
class Login:
    """A login as a Secret holds it; no ``repr`` shows the password."""

    user: str
    password: str = field(repr=False)


Logins = Mapping[str, Login]  # by server


def document(
    name: str, namespace: str, server: str, login: Credentials, labels: Mapping[str, str]
) -> dict[str, Any]:
    """The Secret, as server-side apply wants it: our fields and no others.

    ``server`` is the registry's name as images spell it, the key the kubelet looks a login up by.
    Of port 443 there are two spellings, and the kubelet takes them for two servers: both are keys.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "type": TYPE,
        "data": {KEY: _encoded(_auths(server, login))},
    }


def state(live: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    """What ``live`` is to ``wanted``: one of the words above."""
    if live is None:
        return ABSENT
    if live.get("type") != TYPE:
        return OTHER_TYPE
    if not ours.is_ours(live):
        return FOREIGN
    labels, has = wanted["metadata"]["labels"], ours.labels_of(live)
    labelled = all(has.get(key) == value for key, value in labels.items())
    there, right = logins(live), logins(wanted)
    if live.get("immutable") and there and there.items() <= right.items():
        return SAME if labelled else STALE  # of a build that knew one spelling, and for good
    if there != right:
        return FROZEN if live.get("immutable") else STALE
    return SAME if labelled else STALE


def logins(secret: Mapping[str, Any]) -> dict[str, Login]:
    """The logins by server of a Secret of either pull type; {} where it holds none that is read.

    The kubelet reads ``auth`` and, where that is not there, ``username`` and ``password``.
    """
    key = {TYPE: KEY, _OLD_TYPE: _OLD_KEY}.get(str(secret.get("type")), KEY)
    try:
        content = json.loads(base64.b64decode((secret.get("data") or {}).get(key) or "", None))
    except (ValueError, TypeError, binascii.Error):
        return {}
    auths = content if key == _OLD_KEY else _mapping(content).get("auths")
    found = {str(server): _login(_mapping(entry)) for server, entry in _mapping(auths).items()}
    return {server: login for server, login in found.items() if login is not None}


def fitting(secrets: Iterable[Logins], image: str) -> list[Login]:
    """The logins of a pod's Secrets that the kubelet tries for ``image``, in its order."""
    held = list(secrets)
    keys = dict.fromkeys(server for logins in held for server in logins)
    return [logins[key] for key in keyring.serving(keys, image) for logins in held if key in logins]


def hidden(secret: Mapping[str, Any] | None, other: Mapping[str, Any] | None = None) -> str | None:
    """A Secret as text for a diff: names and labels as they are, logins without passwords.

    ``other``: the one it is compared with, so that a changed password shows as changed.
    """
    if secret is None:
        return None
    metadata = secret.get("metadata", {})
    lines = [f"type: {secret.get('type', '')}", "labels:"]
    lines += [f"  {key}: {value}" for key, value in sorted(ours.labels_of(secret).items())]
    lines.append("logins:")
    mine, theirs = logins(secret), logins(other or {})
    for server, login in sorted(mine.items()):
        there = theirs.get(server)
        word = "hidden"
        if there is not None and there.password != login.password:
            word = "hidden, the present one" if _is_live(metadata) else "hidden, another one"
        lines.append(f"  {server}: {login.user} ({word})")
    return "\n".join([*lines, ""])


def _is_live(metadata: Mapping[str, Any]) -> bool:
    return "uid" in metadata


def _auths(server: str, login: Credentials) -> dict[str, Any]:
    pair = f"{login.user}:{login.password}".encode()
    entry = {
        "username": login.user,
        "password": login.password,
        "auth": base64.b64encode(pair).decode("ascii"),
    }
    return {"auths": dict.fromkeys(_spellings(server), entry)}


def _spellings(server: str) -> tuple[str, ...]:
    host, _, port = server.rpartition(":")
    if port == "443":
        return host, server
    return (server,) if host and not server.endswith("]") else (server, f"{server}:443")


def _encoded(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(text.encode()).decode("ascii")


def _login(entry: Mapping[str, Any]) -> Login | None:
    user, password = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        try:
            text = str(entry["auth"])
            # The kubelet takes it without its padding, too (decodeDockerConfigFieldAuth).
            pair = base64.b64decode(text + "=" * (-len(text) % 4)).decode("utf-8", "replace")
        except (ValueError, binascii.Error):
            return None
        user, _, password = pair.partition(":")
    if not isinstance(user, str) or not isinstance(password, str):
        return None
    return Login(user, password)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
