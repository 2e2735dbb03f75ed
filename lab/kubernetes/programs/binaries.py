"""Where the cluster's programs come from: the settings' folder, the user's cache, else fetched.

The cache is outside the checkout, ``$XDG_CACHE_HOME/moorage/kubernetes/<version>/<architecture>``,
with a SHA256SUMS beside the programs that is checked whenever they are used.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.kubernetes.programs.names import ETCD, NEEDED, SUMS, WELCOME
from lab.kubernetes.programs.version import Version, parse
from moorage import commands
from moorage.actions import Action
from moorage.errors import MoorageError, Refused
from moorage.files import replaced_folder, user_cache, write_atomically

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings
    from moorage.ui import UI

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Binaries:
    """The programs in ``folder``. ``digest`` changes whenever one of them does."""

    folder: Path
    version: Version
    digest: str

    @property
    def own_etcd(self) -> bool:
        return (self.folder / ETCD).exists()


def architecture() -> str:
    """This machine's, as Go and Kubernetes call it. Raises Refused for one without releases."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise Refused(
            "wrong-architecture",
            f"the lab's cluster does not run on {machine}",
            cause=f"it is known to run on {' and '.join(_ARCHITECTURES)}",
            cure="leave out --kubernetes; the lab's nodes work without it",
        )
    return _ARCHITECTURES[machine]


def cache(version: str) -> Path:
    """The cache's folder for ``version``."""
    return user_cache() / "kubernetes" / version / architecture()


def planned_version(settings: Settings) -> Version:
    """The version that :func:`ensure` will give. Raises Refused for a folder of no use."""
    if settings.lab.kubernetes_binaries:
        return _from_folder(settings).version
    return parse(settings.lab.kubernetes_version)


def pending(settings: Settings) -> list[Action]:
    """What :func:`ensure` would do. Raises Refused if the settings' folder is of no use."""
    if settings.lab.kubernetes_binaries:
        _from_folder(settings)
        return []
    wanted = settings.lab.kubernetes_version
    folder = cache(wanted)
    if (folder / SUMS).exists():
        return []
    how = "download it, or build it from Debian's source package (minutes, once)"
    return [Action(f"get Kubernetes {wanted} into {folder}: {how}", asks=True)]


def kubectl(settings: Settings) -> Path | None:
    """The one that came with the cluster's programs; None if they came without, or are gone."""
    given = settings.lab.kubernetes_binaries
    folder = _folder(settings) if given else cache(settings.lab.kubernetes_version)
    found = folder / WELCOME[0]
    return found if found.is_file() else None


def ensure(settings: Settings, client: DockerClient, ui: UI) -> Binaries:
    """The programs, from where the settings say, else from the cache, which is filled if needed.

    Raises Refused for a folder of no use, MoorageError where they can be had from nowhere.
    """
    if settings.lab.kubernetes_binaries:
        return _from_folder(settings)
    wanted = settings.lab.kubernetes_version
    folder = cache(wanted)
    found = read_cache(folder)
    if found is None:
        if folder.exists():
            ui.warn(f"{folder} is damaged; its content is fetched again")
        fill(folder, _source(settings, client, ui))
        found = read_cache(folder)
    if found is None:  # the disk itself lies
        raise MoorageError(
            "cache-damaged",
            f"what was written to {folder} does not come back from there",
            cause=f"it does not fit its {SUMS}",
            cure="check the disk; XDG_CACHE_HOME can point to another one",
            path=str(folder),
        )
    return found


def read_cache(folder: Path) -> Binaries | None:
    """What the cache holds in ``folder``; None if it is not whole."""
    try:
        text = (folder / SUMS).read_text()
        sums = {name: digest for digest, name in (line.split() for line in text.splitlines())}
        if not set(NEEDED) <= set(sums):
            return None
        for name, digest in sums.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
    except (OSError, ValueError):
        return None
    version = parse(folder.parent.name)
    return Binaries(folder, version, hashlib.sha256(text.encode()).hexdigest())


def fill(folder: Path, source: Callable[[Path], dict[str, str]]) -> None:
    """Fills the cache: ``source`` puts programs into a folder and returns name -> SHA-256 (hex).

    Stopped in the middle, it leaves nothing that is taken for a cache.
    """
    try:
        with replaced_folder(folder) as draft:
            sums = source(draft)
            lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
            write_atomically(draft / SUMS, lines.encode(), mode=0o644)
    except OSError as problem:
        raise MoorageError(
            "cache-not-writable",
            f"the cache of Kubernetes programs in {folder} cannot be written",
            cause=problem.strerror or str(problem),
            cure="make room or correct its rights; XDG_CACHE_HOME can point elsewhere",
            path=str(folder),
        ) from None


def _source(settings: Settings, client: DockerClient, ui: UI) -> Callable[[Path], dict[str, str]]:
    """The first source that has the wanted version."""
    from lab.kubernetes.programs import release, source

    wanted = settings.lab.kubernetes_version
    place = settings.lab.kubernetes_release
    why = "lab.kubernetes_release is empty"
    if place:
        why = release.why_not(place, wanted, architecture())
        if not why:
            return lambda folder: release.download(
                place, wanted, architecture(), folder, ui.progress
            )
        ui.note(f"the official release of Kubernetes {wanted} is out of reach ({why})")
    if wanted == source.VERSION:
        return lambda folder: source.build(settings, client, ui, folder)
    raise MoorageError(
        "no-kubernetes",
        f"Kubernetes {wanted} can be had from nowhere",
        cause=f"the official release: {why}; Debian's source package is {source.VERSION}",
        cure=(
            "lab.kubernetes_binaries in invoke.yaml can name a folder that has it; or set "
            f"lab.kubernetes_version to {source.VERSION}"
        ),
    )


def _folder(settings: Settings) -> Path:
    return settings.root / settings.lab.kubernetes_binaries


def _from_folder(settings: Settings) -> Binaries:
    folder = _folder(settings)
    absent = [name for name in NEEDED if not os.access(folder / name, os.X_OK)]
    if absent:
        raise _refused_folder(
            folder,
            f"it has no program {', '.join(absent)}" if folder.is_dir() else "it is not a folder",
        )
    versions = {name: _version(folder, name) for name in NEEDED}
    if len(set(versions.values())) > 1:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        raise _refused_folder(folder, f"its programs are of different versions: {told}")
    identity = hashlib.sha256()
    for name in (*NEEDED, *WELCOME, ETCD):
        if (folder / name).exists():
            seen = (folder / name).stat()
            identity.update(f"{name} {seen.st_size} {seen.st_mtime_ns}\n".encode())
    return Binaries(folder, versions[NEEDED[0]], identity.hexdigest())


def _version(folder: Path, name: str) -> Version:
    try:
        done = commands.run([str(folder / name), "--version"], timeout=30)
        return parse(done.stdout.decode(errors="replace"))
    except (MoorageError, OSError, ValueError) as problem:
        why = problem.cause if isinstance(problem, MoorageError) else str(problem)
        raise _refused_folder(folder, f"{name} --version: {why}") from None


def _refused_folder(folder: Path, cause: str) -> Refused:
    return Refused(
        "bad-binaries",
        f"{folder} is not a folder of Kubernetes programs",
        cause=cause,
        cure=f"lab.kubernetes_binaries in invoke.yaml names a folder with {', '.join(NEEDED)}, "
        "all of one version; or leave it empty",
        path=str(folder),
    )
