"""What further folders of a `config_path` give to registries, said for the first folder alone.

From 2.1 on CRI takes ``/a:/b`` for one folder, so neither counts. With ``/a`` alone, what ``/b``
was meant to give is said there: files that are named by their whole paths, so that no key is copied
and a certificate renewed in ``/b`` counts at once.
"""

from __future__ import annotations

from agent.edit.change import readable
from agent.formats import hosts_toml
from agent.formats.hosts_toml import DEFAULT
from agent.node.tree import Tree


def folders(tree: Tree, roots: list[str]) -> dict[str, str]:
    """The hosts.toml of each registry that only a later folder knows, by the folder's name.

    The order is containerd's: a `_default` hides every folder after its own.
    """
    found: dict[str, str] = {}
    for number, root in enumerate(roots[1:], 1):
        if any(tree.exists(f"{before}/{DEFAULT}") for before in roots[:number]):
            break
        for name in tree.names(root):
            place = f"{root}/{name}"
            if name in found or has(tree, roots[0], name) or not tree.names(place):
                continue
            hosts = tree.read(f"{place}/hosts.toml")
            content = readable(hosts)
            if content is None:
                found[name] = hosts_toml.of_certificates(tree, place, _host(name))
            else:
                found[name] = hosts_toml.absolute(place, hosts.path, content)
    return found


def has(tree: Tree, root: str, host: str) -> bool:
    """Whether a folder knows a registry already, in either spelling of its port."""
    return any(tree.exists(f"{root}/{name}") for name in hosts_toml.names(_host(host)))


def _host(folder: str) -> str:
    """The registry a folder is for: ``host_5000_`` is ``host:5000``."""
    name, mark, port = folder.rstrip("_").rpartition("_")
    return f"{name}:{port}" if folder.endswith("_") and mark and port.isdigit() else folder
