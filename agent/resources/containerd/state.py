"""What a containerd's merged configuration says about registries, and where it says it."""

from __future__ import annotations

from typing import Any, NamedTuple

from agent.toml import at

# Where each version of config.toml keeps the registry table.
TABLES: dict[int, tuple[str, ...]] = {
    1: ("plugins", "cri", "registry"),
    2: ("plugins", "io.containerd.grpc.v1.cri", "registry"),
    3: ("plugins", "io.containerd.cri.v1.images", "registry"),
}
CRI_PLUGINS = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")


class State(NamedTuple):
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
) -> State:
    """The state in a parsed `config dump`.

    ``written`` is the registry table as the files have it: a dump of 2.x leaves out what that
    ignores, `configs.*.tls`.
    """
    table = registry_table(merged)
    path = table.get("config_path")
    entries = [
        entry
        for source in (table, written or {})
        for entry in (source.get("configs") or {}).values()
    ]
    return State(
        major=version[0],
        minor=version[1],
        config_path=path if isinstance(path, str) else "",
        mirrors=bool(table.get("mirrors")),
        configs_tls=any(isinstance(one, dict) and one.get("tls") for one in entries),
        transfer=version[:2] >= (2, 1) and not _pulls_locally(merged),
    )


def registry_table(merged: dict[str, Any]) -> dict[str, Any]:
    """The registry table of a parsed `config dump`, or an empty one."""
    for version in (3, 2, 1):
        table = at(merged, *TABLES[version])
        if isinstance(table, dict):
            return table
    return {}


def cri_is_off(merged: dict[str, Any]) -> bool:
    """Whether this containerd serves no kubelet: its CRI plugin is disabled."""
    disabled = merged.get("disabled_plugins")
    return isinstance(disabled, list) and any(name in disabled for name in CRI_PLUGINS)


def _pulls_locally(merged: dict[str, Any]) -> bool:
    """Whether an option that the transfer service lacks keeps CRI at its own client.

    The list is ``CheckLocalImagePullConfigs`` in containerd's internal/cri/config/config.go, the
    same from 2.1 to 2.4; each entry was measured on 2.1.9.
    """
    images = at(merged, *TABLES[3][:-1])
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
