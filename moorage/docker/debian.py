"""The Debian base that images of Moorage stand on: bookworm with python3 and ca-certificates.

Made once, from Docker Hub's image where the Hub answers quickly, else from Debian's packages by
mmdebstrap. Both give the same: an image ``moorage/base:<key>`` with our labels.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands, references
from moorage.actions import Action
from moorage.docker import apt, bootstrap, building, engine, supplied
from moorage.errors import MoorageError
from moorage.files import private_folder

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Progress, Update
    from moorage.settings import Settings

SUITE = "bookworm"
_HUB_IMAGE = "debian:bookworm-slim"
_INCLUDE = ("python3", "ca-certificates")
# Raised by hand when what follows would make another image from the same settings.
_RECIPE = 1
# What nobody reads in a container; the copyright files stay, as their licences ask.
_LEAN = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/doc/*/copyright",
    "force-unsafe-io",
)
_DOCKERFILE = """\
FROM {image}
COPY sources.list /tmp/sources.list
RUN set -eu; \\
    if [ -s /tmp/sources.list ]; then \\
        rm -f /etc/apt/sources.list.d/*; mv /tmp/sources.list /etc/apt/sources.list; \\
    fi; \\
    apt-get -q update; \\
    DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install {include}; \\
    rm -rf /var/lib/apt/lists/* /tmp/sources.list
"""


@dataclass(frozen=True)
class DebianMirror:
    """Where Debian's packages come from: base addresses, ``security`` empty if unknown."""

    main: str
    security: str = ""

    def sources(self, suite: str = SUITE) -> tuple[str, ...]:
        """The lines of a sources.list for a stable ``suite``."""
        lines = [f"deb {self.main} {name} main" for name in (suite, f"{suite}-updates")]
        if self.security:
            lines.append(f"deb {self.security} {suite}-security main")
        return tuple(lines)


def tag(settings: Settings) -> str:
    """The reference of the base image these settings ask for."""
    words = repr((_RECIPE, SUITE, _INCLUDE, _LEAN, _DOCKERFILE, settings.lab.mirror))
    return f"moorage/base:{SUITE}-{hashlib.sha256(words.encode()).hexdigest()[:10]}"


def pending(settings: Settings) -> list[Action]:
    """What :func:`base_image` would install: nothing if the image is there or the Hub answers.

    Raises Refused if mmdebstrap is needed and cannot be installed or used here.
    """
    if supplied.known(settings, tag(settings)):
        return []
    if not engine.answers(settings):
        return bootstrap.pending()
    client = engine.connect(settings)
    try:
        if building.exists(client, tag(settings)) or hub_answers(client, _HUB_IMAGE):
            return []
    finally:
        client.close()
    return bootstrap.pending()


def base_image(settings: Settings, client: DockerClient, progress: Progress) -> str:
    """The reference of the Debian base; makes it where it is not there yet.

    Threads that need it at once make one. Raises MoorageError if neither Docker Hub nor a Debian
    mirror can be had.
    """
    with _making:
        return _base_image(settings, client, progress)


_making = threading.Lock()


def _base_image(settings: Settings, client: DockerClient, progress: Progress) -> str:
    reference = tag(settings)
    for left in (settings.state / "base").glob("*.tar"):  # of a stopped run
        left.unlink()
    if building.exists(client, reference) or supplied.bring(settings, client, progress, reference):
        return reference
    if hub_answers(client, _HUB_IMAGE):
        with progress("building a Debian base from Docker Hub's") as update:
            _from_hub(settings, client, reference, update)
    else:
        apt.install(bootstrap.packages(), progress, settings)
        bootstrap.pending()  # says what is still missing
        with progress("a Debian base from packages (mmdebstrap)") as update:
            _bootstrap(settings, client, reference, update)
    return reference


def hub_answers(client: DockerClient, reference: str, seconds: float = 5) -> bool:
    """Whether the engine can reach ``reference`` at its registry within ``seconds``.

    The engine asks, not we: it has its own proxies and name servers. Remembered for this run, by
    registry, so that one that is out of reach costs its seconds once.
    """
    registry = references.home_of(reference).registry
    known = _reach.get(registry)
    if known is not None:
        return known
    answered = threading.Event()

    def ask() -> None:
        try:
            client.api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
        except Exception:
            return
        answered.set()

    # A daemon thread: a call that hangs must not keep us from ending.
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(seconds)
    _reach[registry] = answered.is_set()
    return answered.is_set()


_reach: dict[str, bool] = {}


@lru_cache(maxsize=8)
def mirror(wanted: str = "auto") -> DebianMirror | None:
    """The mirror to use: ``wanted``, else on Debian the machine's own.

    None: the default of mmdebstrap or of the image from the Hub.
    """
    if wanted != "auto":
        return DebianMirror(wanted.rstrip("/"))
    if shutil.which("apt-get") is None:
        return None
    done = commands.run(["apt-get", "update", "--print-uris"], check=False)
    return own_mirror(_os_release(), done.stdout.decode(errors="replace"))


def own_mirror(os_release: dict[str, str], uris: str) -> DebianMirror | None:
    """The mirror among ``uris`` (what ``apt-get update`` would fetch), if this system is Debian's.

    An address on this machine itself cannot be reached from a container, and one with a password
    in it has no business in an image: neither counts.
    """
    if os_release.get("ID") != "debian":
        return None
    codename = os_release.get("VERSION_CODENAME", SUITE)
    roles = {codename: "main", "stable": "main"}
    roles |= {f"{suite}-security": "security" for suite in (codename, "stable")}
    found: dict[str, str] = {}
    for site, suite in re.findall(r"'(https?://[^'@\s]+)/dists/([^/'\s]+)/InRelease'", uris):
        here = re.match(r"https?://(localhost|127\.|\[::1\])", site)
        # Third parties name their suites after Debian's too; Debian's mirrors end like this.
        debians = re.search(r"/debian(-security)?$", site)
        if suite in roles and debians and not here:
            found.setdefault(roles[suite], site)
    return DebianMirror(**found) if "main" in found else None


def _from_hub(settings: Settings, client: DockerClient, reference: str, update: Update) -> None:
    own = mirror(settings.lab.mirror)
    sources = "".join(f"{line}\n" for line in own.sources()) if own else ""
    text = _DOCKERFILE.format(image=_HUB_IMAGE, include=" ".join(_INCLUDE))
    building.build(
        client,
        {"Dockerfile": text.encode(), "sources.list": sources.encode()},
        tag=reference,
        replace=False,
        labels=engine.labels(settings, "base"),
        title="the Debian base",
        update=update,
    )


def _bootstrap(settings: Settings, client: DockerClient, reference: str, update: Update) -> None:
    folder = private_folder(settings.state / "base")
    tar = folder / f"{secrets.token_hex(4)}.tar"
    own = mirror(settings.lab.mirror)
    words = [
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=minbase",
        f"--include={','.join(_INCLUDE)}",
        *(f"--dpkgopt={option}" for option in _LEAN),
    ]
    try:
        aim = [SUITE, str(tar), *(own.sources() if own else ())]
        bootstrap.run(words, aim, folder / bootstrap.LOG, update)
        _import(settings, client, tar, reference)
    finally:
        tar.unlink(missing_ok=True)


def _import(settings: Settings, client: DockerClient, tar: Path, reference: str) -> None:
    """A whole tar -> the image ``reference``. The name comes last: half an import has none."""
    from docker.errors import APIError

    changes = ['CMD ["/bin/bash"]']
    changes += [f'LABEL "{k}"="{v}"' for k, v in engine.labels(settings, "base").items()]
    try:
        with tar.open("rb") as content:
            answer = client.api.import_image(src=content, changes=changes)
    except APIError as problem:
        raise MoorageError(
            "import-failed",
            "the engine refused the image",
            cause=str(problem.explanation),
            cure="is its disk full? docker system df",
        ) from None
    repository, _, name = reference.partition(":")
    client.api.tag(building.imported_id(answer), repository=repository, tag=name)


def _os_release() -> dict[str, str]:
    """os-release(5) as a mapping."""
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}
