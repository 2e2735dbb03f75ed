"""What a kubelet needs of a node's containerd, and the least edit that gives it. Pure."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from typing import Any

_V2 = ("plugins", "io.containerd.grpc.v1.cri")
_V3 = ("plugins", "io.containerd.cri.v1.runtime")
_OPTION = "restrict_oom_score_adj"
_WHY = "set by the lab: this machine does not let a container lower its oom_score_adj"


def restrict_oom(text: str) -> str:
    """``config.toml`` with ``restrict_oom_score_adj = true``, every other byte as it was.

    containerd asks for a lower oom_score_adj for each pod than its own, which takes the capability
    SYS_RESOURCE. ``text`` may be empty (no file). Raises ValueError where it is no TOML.
    """
    import tomlkit

    try:
        document: Any = tomlkit.parse(text)
    except tomlkit.exceptions.TOMLKitError as problem:
        raise ValueError(str(problem)) from None
    if not text.strip():
        document["version"] = 2
    path = _V3 if document.get("version", 1) >= 3 else _V2
    table = document
    for name in path:
        if name not in table:
            table[name] = tomlkit.table(is_super_table=name == path[0])
        table = table[name]
    if table.get(_OPTION) is True:
        return text
    table[_OPTION] = tomlkit.item(True).comment(_WHY)
    return str(tomlkit.dumps(document))


def sandbox_image(dump: str) -> str:
    """The pause image's name in the output of ``containerd config dump``.

    Raises ValueError where there is none.
    """
    plugins = tomllib.loads(dump).get("plugins", {})
    cri = plugins.get("io.containerd.grpc.v1.cri", {}).get("sandbox_image")
    images = plugins.get("io.containerd.cri.v1.images", {}).get("pinned_images", {})
    name = images.get("sandbox") or cri
    if not isinstance(name, str) or not name:
        raise ValueError("its configuration names no image for a pod's sandbox")
    return name


def pause_image(busybox: bytes, name: str, *, architecture: str) -> bytes:
    """A tar of an image that does nothing for ever, as ``ctr images import`` reads it.

    ``busybox``: a static binary. The same input gives the same bytes.
    """
    import hashlib

    layer = _tar({"busybox": (busybox, 0o755)})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/busybox", "sleep", "2147483647"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
            "config.json": (json.dumps(config).encode(), 0o644),
            "layer.tar": (layer, 0o644),
        }
    )


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
