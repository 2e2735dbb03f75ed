"""The Docker engine: the one that answers, or one that we install and start, and later stop.

``DOCKER_HOST``, ``DOCKER_CONTEXT`` and the current docker context say where it is, as they do for
the docker command. Only the machine's own engine is ever installed or started.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.actions import Action
from moorage.configuration import profiles
from moorage.docker import apt, dockerd
from moorage.errors import MoorageError, Refused
from moorage.files import user_home
from moorage.output.typed import OPTION

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.output import Progress
    from moorage.settings import Settings
    from moorage.ui import UI

# Every container, image and volume of ours carries both; what does not is never touched.
LABEL_PROJECT = "io.moorage.project"
LABEL_PART = "io.moorage.part"

SOCKET = Path("/var/run/docker.sock")
# dockerd sets up its bridge with iptables and does not start without it.
PACKAGES = ("docker.io", "iptables")
# Sixteen nodes are made at once; docker-py's default pool of ten would make them queue.
_CONNECTIONS = 32


@dataclass(frozen=True)
class Endpoint:
    """Where the engine is (``unix://…``, ``tcp://…``, ``ssh://…``) and who said so.

    ``source`` is empty for this machine's own default engine. ``tls`` is docker-py's TLSConfig.
    """

    url: str
    source: str = ""
    tls: Any = None

    @property
    def local(self) -> bool:
        """Whether its containers run on this machine."""
        return self.url.startswith("unix://")


def labels(settings: Settings, part: str) -> dict[str, str]:
    """The labels of what belongs to ``part`` (registry, lab, image, base) of this project."""
    return {LABEL_PROJECT: str(settings.home), LABEL_PART: part}


def refuse_stranger(settings: Settings, found: Container, away: str, setting: str) -> None:
    """Raises Refused (``name-taken``) where a container with a name that we need is not ours.

    ``away``: the task by which its own checkout takes it away; ``setting``: the key by which ours
    takes another name.
    """
    project = str(found.labels.get(LABEL_PROJECT, ""))
    if project == str(settings.home):
        return
    if not project:
        cause, cure = "Moorage did not make it", f"docker rename {found.name} another-name"
    elif _is_checkout(project):
        cause = f"it belongs to the checkout in {project}"
        cure = f"cd {shlex.quote(project)} && ./run inv {away}"
        if project == str(settings.root):  # a profile's own commands would name the profile
            cure = f"inv {OPTION}={profiles.DEFAULT} {away}"
    elif _is_checkout(folder := profiles.checkout_of(project).folder):
        profile = profiles.checkout_of(project).profile
        cause = f"it belongs to the profile {profile} of the checkout in {folder}"
        cure = f"cd {shlex.quote(folder)} && ./run inv {OPTION}={profile} {away}"
    else:
        cause = f"it belongs to a checkout in {project}, a folder that is no longer here"
        label = shlex.quote(f"label={LABEL_PROJECT}={project}")
        cure = f"docker ps -aq --filter {label} | xargs docker rm -fv"
    raise Refused(
        "name-taken",
        f"there is a container {found.name} already, and it is not this project's",
        cause=cause,
        cure=f"{cure}; or set {setting} in invoke.yaml",
    )


def _is_checkout(folder: str) -> bool:
    """Whether its commands can be typed there; what we may not look into may well be one."""
    try:
        Path(folder, "run").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def label_filter(settings: Settings, part: str = "") -> dict[str, str | list[str] | bool]:
    """An engine filter for what is ours: of one ``part``, or of all of them."""
    chosen = [f"{LABEL_PROJECT}={settings.home}"]
    return {"label": [*chosen, f"{LABEL_PART}={part}"] if part else chosen}


def endpoint() -> Endpoint:
    """Where docker itself would look, in its order: DOCKER_HOST, DOCKER_CONTEXT, its config file.

    https://docs.docker.com/engine/manage-resources/contexts/. Raises Refused for a context that is
    not there or cannot be read.
    """
    if os.environ.get("DOCKER_HOST"):
        return Endpoint(os.environ["DOCKER_HOST"], source="DOCKER_HOST")
    home = Path(os.environ.get("DOCKER_CONFIG") or user_home() / ".docker")
    name = os.environ.get("DOCKER_CONTEXT") or _current_context(home)
    return Endpoint(f"unix://{SOCKET}") if name == "default" else _context(home, name)


def _current_context(home: Path) -> str:
    """The context that ``docker context use`` chose; a config file that is torn chooses none."""
    try:
        return str(json.loads((home / "config.json").read_text()).get("currentContext", "default"))
    except (OSError, ValueError, AttributeError):
        return "default"


def _context(home: Path, name: str) -> Endpoint:
    """A context's endpoint. docker-py's own reader finds none where there is no config.json.

    https://github.com/docker/cli/blob/master/cli/context/store/doc.go
    """
    key = hashlib.sha256(name.encode()).hexdigest()
    path = home / "contexts" / "meta" / key / "meta.json"
    try:
        told = json.loads(path.read_text())["Endpoints"]["docker"]
        url, unverified = str(told["Host"]), bool(told.get("SkipTLSVerify"))
    except FileNotFoundError:
        raise _no_engine(
            f"the docker context {name!r} is not there",
            f"DOCKER_CONTEXT or {home / 'config.json'} names it",
            "docker context ls shows those there are; docker context use default",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _no_engine(
            f"the docker context {name!r} cannot be read",
            f"{path}: {problem!r}",
            f"docker context rm {shlex.quote(name)}, and create it again",
        ) from None
    return Endpoint(url, f"context {name}", _tls(home / "contexts" / "tls" / key, unverified))


def _tls(folder: Path, unverified: bool) -> Any:
    """docker-py's TLSConfig of the keys in a context's folder; None if there are none."""
    files = {name: folder / "docker" / f"{name}.pem" for name in ("ca", "cert", "key")}
    if not all(path.exists() for path in files.values()):
        return None
    from docker.tls import TLSConfig

    return TLSConfig(
        client_cert=(str(files["cert"]), str(files["key"])),
        ca_cert=str(files["ca"]),
        verify=not unverified,
    )


def connect(settings: Settings) -> DockerClient:
    """A client of the engine that answers, with the API version both sides know.

    Raises Refused (code ``no-engine``) with the cause and the cure where none does.
    """
    del settings  # where the engine is, docker's own environment and files say
    place = endpoint()
    try:
        return _client(place)
    except Exception as problem:
        raise explain(place, problem) from None


def answers(settings: Settings) -> bool:
    """Whether an engine answers and lets us in."""
    try:
        connect(settings).close()
    except MoorageError:
        return False
    return True


def pending(settings: Settings) -> list[Action]:
    """What :func:`ensure` would do; nothing if an engine answers.

    Raises Refused if an engine is there but not for us, or where DOCKER_HOST or a context names
    one that does not answer: starting another would not be what the user meant.
    """
    place = endpoint()
    try:
        _client(place).close()
    except Exception as problem:
        refusal = explain(place, problem)
        if place.source or refusal.code != "no-engine":
            raise refusal from None
        return _steps()
    return []


def ensure(settings: Settings, progress: Progress) -> None:
    """Installs and starts this machine's engine where none answers.

    What was installed and started is remembered for :func:`stop` and ``apt.remove``. Raises
    MoorageError with the engine's own last words where it does not come up.
    """
    if not pending(settings):
        return
    if shutil.which("dockerd") is None:
        apt.install(PACKAGES, progress, settings)
        if answers(settings):  # the package's own scripts started it
            dockerd.remember(settings.state, "service")
            return
    if dockerd.systemd_is_running():
        dockerd.start_unit(settings.state)
    else:
        data = settings.engine.data
        options = ["--data-root", data] if data else []
        with progress("starting dockerd"):
            dockerd.start(settings.state, ready=lambda: answers(settings), options=options)
    connect(settings).close()


def started_by_us(settings: Settings) -> bool:
    """Whether the engine is ours to stop."""
    return dockerd.started_by_us(settings.state) != ""


def stop(settings: Settings, ui: UI) -> bool:
    """Stops the engine, if it is the one we started and no stranger's container runs in it.

    Returns whether it did.
    """
    if not started_by_us(settings):
        return False
    strangers = _running_strangers(settings)
    if strangers:
        ui.warn(
            f"the engine stays up: containers that are not Moorage's run in it "
            f"({', '.join(strangers)})"
        )
        return False
    with ui.progress("stopping dockerd"):
        dockerd.stop(settings.state)
    return True


def explain(place: Endpoint, problem: Exception) -> Refused:
    """Why ``place`` did not answer, from the error that docker-py raised, and what to do."""
    where = f"{place.url} ({place.source})" if place.source else place.url
    number, words = _reason(problem)
    if number in (errno.EACCES, errno.EPERM):
        return Refused(
            "engine-forbidden",
            f"the Docker engine at {where} does not let you in",
            cause="you may not open its socket: you are not in the group docker",
            cure="sudo usermod -aG docker $USER, and log in again; or run this with sudo",
        )
    if place.source:
        return _no_engine(
            f"the Docker engine at {where} does not answer",
            words,
            f"start it, or correct or unset {place.source} to use this machine's own engine",
        )
    causes = {errno.ENOENT: f"{SOCKET} is not there", errno.ECONNREFUSED: "nothing listens there"}
    return _no_engine(
        f"no Docker engine answers at {where}",
        causes.get(number, words),
        "inv up installs and starts one; or start yours",
    )


def _no_engine(message: str, cause: str, cure: str = "") -> Refused:
    return Refused("no-engine", message, cause=cause, cure=cure)


def _client(place: Endpoint) -> DockerClient:
    import docker
    from docker.utils import kwargs_from_env

    options: dict[str, Any] = {"base_url": place.url}
    if place.source == "DOCKER_HOST":
        options = {**kwargs_from_env()}
    elif place.tls is not None:
        options["tls"] = place.tls
    if place.url.startswith("ssh://"):
        options["use_ssh_client"] = True  # the user's own ssh, with its config and agent
    # "auto" asks the engine, so this also tells whether it answers.
    return docker.DockerClient(version="auto", max_pool_size=_CONNECTIONS, timeout=120, **options)


def _reason(problem: BaseException) -> tuple[int, str]:
    """The system's error number somewhere below ``problem`` (0: none), and words for people.

    docker-py, requests and urllib3 each wrap the one before, as argument, cause or context.
    """
    seen: set[int] = set()
    queue: list[Any] = [problem]
    while queue:
        item = queue.pop()
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, OSError) and item.errno and item.strerror:
            return item.errno, item.strerror
        queue += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return 0, " ".join(str(problem).split())


def _steps() -> list[Action]:
    """What starting this machine's engine takes.

    Raises Refused if we cannot become root, or could not use the engine once it runs.
    """
    from moorage.commands import as_root

    through = "through sudo" if as_root() else "as root"
    if not _in_group():
        raise Refused(
            "engine-forbidden",
            "no Docker engine answers, and one started here would not let you in",
            cause="you are neither root nor in the group docker",
            cure="sudo groupadd -f -r docker && sudo usermod -aG docker $USER, and log in again "
            "(newgrp docker does for this shell); or run this with sudo",
        )
    steps: list[Action] = []
    if shutil.which("dockerd") is None:
        steps += apt.pending(PACKAGES)
    how = "with systemctl" if dockerd.systemd_is_running() else "by hand (dockerd)"
    return [*steps, Action(f"start the Docker engine {how}, {through}", asks=True)]


def _in_group() -> bool:
    """Whether we may use a local engine: its socket is root's and the group docker's."""
    import grp

    if os.geteuid() == 0:
        return True
    try:
        return grp.getgrnam("docker").gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return False


def _running_strangers(settings: Settings) -> Sequence[str]:
    try:
        client = connect(settings)
    except MoorageError:
        return ()
    try:
        return [
            str(container.name)
            for container in client.containers.list(ignore_removed=True)
            if container.labels.get(LABEL_PROJECT) != str(settings.home)
        ]
    finally:
        client.close()
