"""An image of this machine's engine, brought into the runtimes of nodes over SSH.

For what has to be there before any trust is: the agents' own image on a cluster without a way out.
"""

from __future__ import annotations

import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.wire.faults import Fault
from agent.wire.report import CHANGED, UNCHANGED, HostResult
from moorage.errors import MoorageError, Refused
from moorage.files import write_stream
from moorage.fleet.errand import errand, faults
from moorage.fleet.report import FleetReport, failures
from moorage.fleet.rollout.operation import Reach
from moorage.fleet.rollout.rollout import HostLine, Rollout
from moorage.fleet.ssh import routing
from moorage.fleet.ssh import session as ssh
from moorage.output import Parts, Table, lines

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image as DockerImage

    from moorage.fleet.inventory import Target
    from moorage.fleet.ssh.routes import Route
    from moorage.settings import Settings
    from moorage.ui import UI

_CHUNK = 1 << 20
# Seconds that a node may take to unpack an image without a word.
_PATIENCE = 300.0


class SavedImage:
    """An image of an engine's, saved into ``folder`` when the first node wants it.

    ``name`` in full; ``id``: ``sha256:…`` of its configuration.
    """

    def __init__(self, found: DockerImage, tag: str, folder: Path) -> None:
        self.name = in_full(tag)
        self.id = str(found.id)
        self._found = found
        self._tag = tag
        self._path = folder / "image.tar"
        self._guard = threading.Lock()

    def chunks(self, tell: Callable[[str], None]) -> Iterator[bytes]:
        """Its archive's bytes; ``tell`` gets the progress in words."""
        with self._guard:
            if not self._path.exists():
                tell("saving it")
                self._save()
        total, gone = self._path.stat().st_size, 0
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                gone += len(chunk)
                tell(f"{gone >> 20} of {total >> 20} MiB")

    def _save(self) -> None:
        from docker.errors import DockerException

        draft = self._path.with_suffix(".part")
        draft.unlink(missing_ok=True)
        try:
            write_stream(draft, self._found.save(named=self._tag))
        except (DockerException, OSError) as problem:
            raise MoorageError(
                "not-saved",
                f"this machine's engine could not save {self.name}",
                cause=str(problem),
                cure=f"is there room below {tempfile.gettempdir()}? TMPDIR names another place",
            ) from None
        draft.rename(self._path)


def preload(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    image: str,
    *,
    reach: Reach | None = None,
) -> FleetReport:
    """Loads ``image`` into every runtime of ``hosts`` that lacks it; ``runtimes`` has their names.

    Raises Refused before any of them is touched, where this machine's engine has no such image.
    """
    from moorage.docker import engine

    reach = reach or Reach()
    routes = routing.to(settings, hosts)
    found, tag = _image(engine.connect(settings), image)
    if reach.learn_host_keys:
        from moorage.fleet.ssh.learn import learn_host_keys

        learn_host_keys(ui, routes, settings.nodes.parallel)
    with tempfile.TemporaryDirectory(prefix="moorage-preload-") as folder:
        kept = SavedImage(found, tag, Path(folder))
        works = [(route.name, partial(_on_host, kept, route, reach)) for route in routes]
        outcomes, stopped = Rollout(works, settings.nodes.parallel).run(ui, f"load {image}")
    runtimes = {
        outcome.result.host: str(event["all"])
        for outcome in outcomes
        for event in outcome.events
        if event["event"] == "runtimes"
    }
    return FleetReport(tuple(outcome.result for outcome in outcomes), runtimes, interrupted=stopped)


def parts(report: FleetReport) -> Parts:
    """The table of nodes and their runtimes, and what to do about those that failed."""
    rows = [[one.host, one.status, report.runtimes.get(one.host, "")] for one in report.hosts]
    yield Table(["node", "status", "runtimes"], rows)
    yield from lines(failures(report.hosts))


def _image(client: DockerClient, image: str) -> tuple[DockerImage, str]:
    """The image, and the tag it goes by. Raises Refused."""
    from docker.errors import ImageNotFound, NullResource

    try:
        found = client.images.get(image)
    except (ImageNotFound, NullResource):
        raise Refused(
            "no-image",
            f"there is no image {image!r} on this machine's engine",
            cause="nodes get it from there",
            cure=f"docker pull {image}; or the demo image, which has a Python: inv image.build",
        ) from None
    tag = next((name for name in (image, f"{image}:latest") if name in found.tags), "")
    if not tag:
        raise Refused(
            "no-image",
            f"{image} is an image without that name, and pods ask for names",
            cause=f"it is called {', '.join(found.tags) or 'nothing'}",
            cure=f"docker tag {image} NAME:TAG, then inv nodes.preload NAME:TAG",
        )
    return found, tag


def in_full(name: str) -> str:
    """A name in full: engines leave ``docker.io/library/`` out, containerd does not."""
    from moorage.cluster.symptoms.causes import registry_of

    if registry_of(name) != "docker.io":
        return name
    path = name.removeprefix("docker.io/")
    return f"docker.io/{path}" if "/" in path else f"docker.io/library/{path}"


def _on_host(image: SavedImage, route: Route, reach: Reach, line: HostLine) -> HostResult:
    become = errand.Become(route.user != "root", reach.sudo_password)
    with ssh.connect(route) as session, line.open(session):
        answer = session.program(
            words("look", image.name, image.id), (), become, line.tell, _PATIENCE
        )
        seen = _runtimes(line)
        if answer.status != 0 or seen is None:
            return errand.failed(route.name, _fault(answer, route.user))
        if not seen["all"]:
            return errand.failed(route.name, NO_RUNTIME)
        if not seen["lacking"]:
            return HostResult(route.name, UNCHANGED)

        chunks = image.chunks(lambda text: line.tell({"event": "progress", "message": text}))
        answer = session.program(
            words("load", image.name, image.id), chunks, become, line.tell, _PATIENCE
        )
        if answer.status == 0 and any(event["event"] == "loaded" for event in line.events):
            return HostResult(route.name, CHANGED)
        return errand.failed(route.name, _fault(answer, route.user))


def words(mode: str, name: str, image_id: str) -> str:
    """The shell's part: ``look`` whether the image is there, or ``load`` it. Pure."""
    return f"exec sh -c {shlex.quote(_script())} moorage {mode} {shlex.quote(name)} {image_id}"


@cache
def _script() -> str:
    text = Path(__file__).with_name("preload.sh").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return "\n".join(line for line in lines if line)


def _runtimes(line: HostLine) -> dict[str, Any] | None:
    return next((event for event in line.events if event["event"] == "runtimes"), None)


NO_RUNTIME = Fault(
    "no-runtime",
    "no runtime on this node accepts images",
    cause="containerd that serves CRI, k3s, Docker and Podman were looked for",
    cure="is it running? systemctl status containerd docker",
)


def _fault(answer: errand.ErrandAnswer, user: str) -> Fault:
    status = answer.status
    if status == -1:
        return faults.connection_lost(answer.begun)
    if status == errand.NO_SUDO:
        return faults.no_sudo(user)
    known = faults.from_words(answer.words, status, user)
    if known.code != "agent-died":
        return known
    return Fault(
        "not-loaded",
        "the node did not accept the image",
        cause="\n".join(answer.words.splitlines()[-4:]) or f"it ended with code {status}",
        cure="look there: df -h /var/lib; journalctl -u containerd -n 20; then run this again",
    )
