"""Files beside a registry's CA that end every pull before the registry is asked.

In a folder that is read as Docker reads it, ``*.crt`` are CAs, ``*.cert`` clients' certificates,
each with a ``*.key`` of the same name. Half a pair fails every pull (measured: containerd 1.6, 1.7,
2.1, Docker 20.10 to 28, Podman 4.3 and 5.4); containerd alone passes over a key without its
certificate, and gives up at a ``*.crt`` that holds none. Sources: ``ReadCertsDirectory`` of
https://github.com/moby/moby, ``loadCertFiles`` of containerd's ``core/remotes/docker/config``.
"""

from __future__ import annotations

import shlex

from agent.edit.change import Ledger
from agent.formats.authorities import certificates
from agent.node.tree import Tree
from agent.wire.faults import RefusedError


def require_whole(tree: Tree, folder: str, owned: Ledger, *, by_containerd: bool) -> None:
    """Refuse a folder with a file that ends every pull of whoever reads it.

    ``by_containerd``: containerd's code reads it, Docker's image store of that name included. What
    is ours is written anew, so it may be damaged.
    """
    names = tree.names(folder)
    for name in names:
        stem, _, ending = name.rpartition(".")
        if f"{folder}/{name}" in owned and ending in ("cert", "key"):
            continue
        if ending == "cert" and f"{stem}.key" not in names:
            raise _half(tree, folder, name, f"{stem}.key")
        if ending == "key" and f"{stem}.cert" not in names and not by_containerd:
            raise _half(tree, folder, name, f"{stem}.cert")
        if ending == "crt" and by_containerd and f"{folder}/{name}" not in owned:
            content = tree.read(f"{folder}/{name}").content
            if content is not None and not certificates(content):
                raise _no_ca(f"{folder}/{name}")


def _half(tree: Tree, folder: str, name: str, missing: str) -> RefusedError:
    path = f"{folder}/{name}"
    stem, _, ending = name.rpartition(".")
    rename = ending == "cert" and not tree.exists(f"{folder}/{stem}.crt") and stem != "client"
    ca, off = (shlex.join((path, to)) for to in (f"{folder}/{stem}.crt", f"{path}.off"))
    cure = f"if it is a CA: mv {ca}" if rename else f"mv {off}"
    return RefusedError(
        "client-certificate",
        f"{path} keeps the runtime from asking the registry: there is no {missing} beside it",
        cause="*.cert is a client's certificate and *.key its key, and one needs the other; "
        "a CA's file has to end with .crt",
        cure=f"{cure}; or put {missing} beside it; then run again",
    )


def _no_ca(path: str) -> RefusedError:
    return RefusedError(
        "ca-unreadable",
        f"{path} keeps the runtime from asking the registry: there is no certificate in it",
        cause="containerd reads every *.crt of that folder and gives up at one that it cannot use",
        cure=f"mv {shlex.join((path, f'{path}.off'))}, then run again",
    )
