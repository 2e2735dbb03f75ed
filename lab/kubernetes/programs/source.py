"""Kubernetes built from Debian's source package, in a container: five minutes on two cores, once.

The container outlives us: a build whose watcher was killed is found again and watched to its end,
and one that was stopped by Ctrl-C goes on from Go's cache.
"""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from lab.kubernetes.programs import kit, shipping
from lab.kubernetes.programs.names import NEEDED, SUMS, WELCOME
from moorage import commands
from moorage.docker import debian, engine
from moorage.errors import MoorageError
from moorage.files import write_stream

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.output import Update
    from moorage.settings import Settings
    from moorage.ui import UI

# Debian bookworm's: kubernetes 1.20.2+really1.20.2.
VERSION = "1.20.2"

_SCRIPT = Path(__file__).parent.parent / "files" / "build-kubernetes"
_RECIPE = "io.moorage.recipe"
# What `go install -v` names while it builds all programs; only the progress bar depends on it.
_PACKAGES = 2450


def build(settings: Settings, client: DockerClient, ui: UI, folder: Path) -> dict[str, str]:
    """The programs into ``folder``. Returns name -> SHA-256 (hex).

    Raises MoorageError with the compiler's last words.
    """
    from docker.errors import NotFound

    try:
        container = _container(settings, client, ui)
        title = f"building Kubernetes {VERSION} from Debian's source (minutes, once)"
        with ui.progress(title) as update:
            _compiled(container, update)
        with ui.progress("taking the programs out of the build"):
            sums = _collect(container, folder)
        container.remove(force=True, v=True)
        return sums
    except NotFound:
        raise _failed("somebody removed its container", "run the same command again") from None


def _compiled(container: Container, update: Update) -> None:
    """Waits for the end of the build. Raises MoorageError with the compiler's last words."""
    try:
        _watch(container, update)
    except KeyboardInterrupt:
        # What is compiled stays in the container; the next run goes on from there.
        container.stop(timeout=1)
        raise
    code = int(container.wait()["StatusCode"])
    if code != 0:
        # Kubernetes' scripts and make only say who called whom.
        said = container.logs(tail=60).splitlines()
        telling = [line for line in said if not line.startswith((b"!!!", b"make"))]
        container.remove(force=True, v=True)
        raise _failed(
            commands.last_words(b"\n".join(telling)),
            "is a Debian mirror with its source packages reachable (lab.mirror), and are 4 GB of "
            "disk free? Or name a folder with the programs: lab.kubernetes_binaries",
        )


def _failed(cause: str, cure: str) -> MoorageError:
    return MoorageError(
        "build-failed", f"building Kubernetes {VERSION} failed", cause=cause, cure=cure
    )


def begin(settings: Settings, client: DockerClient, ui: UI) -> None:
    """Starts the build and returns, for those who need it later; :func:`build` joins it then."""
    _container(settings, client, ui)


def container_name(settings: Settings) -> str:
    """The build's container: one for each checkout, so that none waits for, or ends, another's."""
    checkout = hashlib.sha256(str(settings.root).encode()).hexdigest()[:8]
    return f"moorage-lab-kubernetes-build-{checkout}"


def _container(settings: Settings, client: DockerClient, ui: UI) -> Container:
    """The running or finished build of this recipe; started where there is none."""
    from docker.errors import NotFound

    script = _SCRIPT.read_bytes()
    base = debian.base_image(settings, client, ui.progress)
    recipe = hashlib.sha256(script + base.encode()).hexdigest()[:16]
    try:
        found = client.containers.get(container_name(settings))
    except NotFound:
        return _start(settings, client, base, recipe, script)
    if found.labels.get(_RECIPE) != recipe:
        found.remove(force=True, v=True)
        return _start(settings, client, base, recipe, script)
    ended_well = found.status == "exited" and found.attrs["State"]["ExitCode"] == 0
    if found.status != "running" and not ended_well:
        ui.note("going on with a build of Kubernetes that was stopped")
        found.start()
    return found


def _start(
    settings: Settings, client: DockerClient, base: str, recipe: str, script: bytes
) -> Container:
    made = client.containers.create(
        base,
        ["/build-kubernetes"],
        name=container_name(settings),
        labels={**engine.labels(settings, kit.PART), _RECIPE: recipe},
        cpu_shares=64,  # it may go on beside other work, which comes first (1024 is the default)
        network_mode="host",  # as for images: a mirror that the engine's host reaches
        environment={"HOME": "/root"},
    )
    made.put_archive("/", shipping.pack({"build-kubernetes": shipping.File(script, 0o755)}))
    made.start()
    return made


def _watch(container: Container, update: object) -> None:
    assert callable(update)  # noqa: S101 - for the type checker: ui.Update
    compiled = 0
    pending = b""
    for chunk in container.logs(stream=True, follow=True):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"@@ "):
                update(text=f"Kubernetes {VERSION}: {line[3:].decode()}")
            elif b"/" in line and b" " not in line.strip():
                compiled += 1
                update(done=min(compiled, _PACKAGES), total=_PACKAGES)


def _collect(container: Container, folder: Path) -> dict[str, str]:
    stream, _ = container.get_archive("/out")
    written: dict[str, str] = {}
    expected: dict[str, str] = {}
    with tarfile.open(fileobj=shipping.Reader(stream), mode="r|") as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if name == SUMS:
                lines = content.read().decode().splitlines()
                expected = {line.split()[1]: line.split()[0] for line in lines}
            elif name in (*NEEDED, *WELCOME):
                chunks = iter(lambda content=content: content.read(1 << 20), b"")  # type: ignore[misc]
                written[name] = write_stream(folder / name, chunks, mode=0o755)
    if written != expected or not set(NEEDED) <= set(written):
        raise MoorageError(
            "build-damaged",
            "the programs did not come whole out of their build",
            cause=f"checksums differ, or one is missing: {', '.join(sorted(written))}",
            cure="run the same command again; is the disk full?",
        )
    return written
