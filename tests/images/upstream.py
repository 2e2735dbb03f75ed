"""Another registry on loopback: Debian's docker-registry with TLS, made-up images; and skopeo."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import run

from tests.agent.authority import Authority
from tests.debian import unpacked
from tests.distribution import Served, TokenServer, serving
from tests.registry import program
from tests.registry.program import INDEX, Registry, descriptor, digest_of

_PACKAGES = (
    *("skopeo", "golang-github-containers-common"),
    *("libgpgme11", "libdevmapper1.02.1", "libassuan0"),
)
PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/s390x")


def environment(home: Path) -> dict[str, str]:
    """What skopeo needs: itself on PATH, its libraries, a home with Debian's policy."""
    root = unpacked("skopeo", *_PACKAGES)
    folders = sorted({str(path.parent) for path in root.rglob("*.so*")})
    configured = home / ".config" / "containers"
    configured.mkdir(parents=True, exist_ok=True)
    policy = root / "etc" / "containers" / "policy.json"
    (configured / "policy.json").write_bytes(policy.read_bytes())
    return {
        "PATH": f"{root / 'usr' / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(folders),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
    }


def image(registry: Registry, name: str, version: int = 1, *, size: int = 2000) -> bytes:
    """An index of three platforms in a registry's repository: a layer of its own and a shared one.

    It is an image as builders make it, so it can become an archive of any kind.
    """
    rows = []
    for platform in PLATFORMS:
        seed = f"{name} {version} {platform}"
        content = random.Random(seed).randbytes(size)  # noqa: S311 - the same each time
        layers = [_layer("shared", b"in all images"), _layer("own", content)]
        words = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        ids = [digest_of(layer) for layer in layers]
        config = json.dumps({**words, "rootfs": {"type": "layers", "diff_ids": ids}}).encode()
        packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
        assert all(registry.push_blob(name, part) for part in (config, *packed))
        manifest = _manifest(config, packed)
        assert registry.push_manifest(name, digest_of(manifest), manifest) == 201
        rows.append(descriptor(manifest, program.MANIFEST, platform=words))
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode()


def _layer(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def _manifest(config: bytes, layers: list[bytes]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": program.MANIFEST,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [
                descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers
            ],
        }
    ).encode()


@dataclass
class Upstream:
    """The registry; ``digests`` by ``repository:tag``, as it was filled."""

    served: Served
    home: Path
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"localhost:{self.served.port}"

    def requests(self) -> list[str]:
        """Methods and paths that it was asked for so far."""
        words = (line for line in self.served.log.read_text().splitlines() if 'HTTP/1.1" ' in line)
        return [line.partition('"')[2].partition(" HTTP/")[0] for line in words]


def fill(folder: Path, names: Mapping[str, int], *, size: int = 2000) -> dict[str, str]:
    """Images by repository -> version, each as tag 1; returns digests by ``repository:1``."""
    registry = Registry(folder / "data")
    registry.start()
    found = {}
    try:
        for name, version in names.items():
            content = image(registry, name, version, size=size)
            assert registry.push_manifest(name, "1", content, INDEX) == 201
            found[f"{name}:1"] = digest_of(content)
    finally:
        registry.kill()
    return found


@contextmanager
def upstream(
    folder: Path,
    home: Path,
    names: Mapping[str, int],
    *,
    trusted: bool = True,
    tokens: TokenServer | None = None,
    size: int = 2000,
) -> Iterator[Upstream]:
    """It serves ``names``; ``trusted``: skopeo finds its CA; ``tokens``: it wants a login."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = fill(folder, names, size=size)
    authority = tokens.authority if tokens is not None else Authority()
    with serving(folder, authority.issue("localhost"), tokens) as served:
        if trusted:
            certs = home / ".config/containers/certs.d" / f"localhost:{served.port}"
            certs.mkdir(parents=True)
            (certs / "ca.crt").write_text(authority.pem)
        yield Upstream(served, home, digests)


def layout(folder: Path, source: str, words: Mapping[str, str]) -> None:
    """``source`` (skopeo's word) as an OCI layout."""
    run(
        ["skopeo", "copy", "--all", "--preserve-digests", "--quiet", source, f"oci:{folder}:1"],
        check=True,
        env={**os.environ, **words},
    )
