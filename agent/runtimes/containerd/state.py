"""What a containerd's merged configuration says about registries, and where it says it."""

from __future__ import annotations

from typing import Any, NamedTuple

from agent.edit.toml import at

# Where each version of config.toml keeps the registry table.
TABLES: dict[int, tuple[str, ...]] = {
    1: ("plugins", "cri", "registry"),
    2: ("plugins", "io.containerd.grpc.v1.cri", "registry"),
    3: ("plugins", "io.containerd.cri.v1.images", "registry"),
}
# In force from 2.2.2 on where neither a `config_path` nor `mirrors` are set, though a dump tells ''
# (plugins/cri/images/plugin.go; 2.2.0 and 2.2.1 tell it).
UNSAID = "/etc/containerd/certs.d:/etc/docker/certs.d"
CRI_PLUGINS = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")


class CriState(NamedTuple):
    """What decides between the strategies; imports and all.

    ``transfer`` tells that CRI pulls through the transfer service (2.1 and newer).
    """

    major: int
    minor: int
    config_path: str = ""
    mirrors: bool = False
    configs_tls: bool = False
    transfer: bool = False


def read(
    version: tuple[int, int, int], merged: dict[str, Any], written: dict[str, Any] | None = None
) -> CriState:
    """The state in a parsed `config dump`.

    ``written`` is the registry table as the files have it: a dump of 2.x leaves out what that
    ignores, `configs.*.tls`.
    """
    table = registry_table(merged)
    path = table.get("config_path")
    if not path and version >= (2, 2, 2) and not table.get("mirrors"):
        path = UNSAID
    entries = [
        entry
        for source in (table, written or {})
        for entry in (source.get("configs") or {}).values()
    ]
    return CriState(
        major=version[0],
        minor=version[1],
        config_path=path if isinstance(path, str) else "",
        mirrors=bool(table.get("mirrors")),
        configs_tls=any(isinstance(one, dict) and one.get("tls") for one in entries),
        transfer=version[:2] >= (2, 1) and not _pulls_locally(merged),
    )


def place(merged: dict[str, Any]) -> tuple[str, ...]:
    """Where a parsed `config dump` has the registry table.

    A version that is newer than this program may have moved it: then the one plugin that has such
    a table tells.
    """
    for version in (3, 2, 1):
        if isinstance(at(merged, *TABLES[version]), dict):
            return TABLES[version]
    plugins = merged.get("plugins")
    for name, said in plugins.items() if isinstance(plugins, dict) else ():
        if isinstance(at(said, "registry", "config_path"), str):
            return ("plugins", name, "registry")
    return TABLES[3]


def registry_table(merged: dict[str, Any]) -> dict[str, Any]:
    """The registry table of a parsed `config dump`, or an empty one."""
    table = at(merged, *place(merged))
    return table if isinstance(table, dict) else {}


def cri_is_off(merged: dict[str, Any]) -> bool:
    """Whether this containerd serves no kubelet: its CRI plugin is disabled."""
    disabled = merged.get("disabled_plugins")
    return isinstance(disabled, list) and any(name in disabled for name in CRI_PLUGINS)


def _pulls_locally(merged: dict[str, Any]) -> bool:
    """Whether an option that the transfer service lacks keeps CRI at its own client.

    The list is ``CheckLocalImagePullConfigs`` in containerd's internal/cri/config/config.go, the
    same from 2.1 to 2.4; each entry was measured on 2.1.9.
    """
    images = at(merged, *place(merged)[:-1])
    if not isinstance(images, dict):
        return False
    table = registry_table(merged)
    return bool(
        images.get("use_local_image_pull")
        or images.get("discard_unpacked_layers")
        or images.get("image_pull_with_sync_fs")
        or images.get("disable_snapshot_annotations", True) is False
        or images.get("max_concurrent_downloads", 3) != 3
        or any(table.get(key) for key in ("mirrors", "configs", "auths"))
    )
