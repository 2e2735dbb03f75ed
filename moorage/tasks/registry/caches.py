"""Pull-through caches of other registries, behind the registry's own name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moorage.errors import Refused, wrong_use
from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.caches.standing import CacheStanding
    from moorage.registry.caches.upstreams import Upstream
    from moorage.registry.logins.credentials import Credentials


@command(
    lock=True,
    positional=["upstreams"],
    iterable=["upstreams"],
    help={
        "upstreams": "registries as image names spell them, as docker.io quay.io",
        "login": "a file with one line user:password for the upstream; - is standard input",
        "ca": "the CA of the upstream's certificate, if this machine does not trust it",
        "open": "everybody may read the cache, without a login: kubelets send a mirror none",
        "closed": "only logins may read it again",
        "remove": "take the cache away, with all that it holds",
        "list": "show the state of the caches, and how old their content is",
        "dry_run": "show what would be changed, and change nothing",
    },
    own_registry="inv registry.cache",
)
def cache(
    run: Run,
    upstreams: list[str],
    login: str = "",
    ca: str = "",
    open: bool = False,
    closed: bool = False,
    remove: bool = False,
    list: bool = False,
    dry_run: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Cache other registries' images as they are pulled, each below its registry's name.

    my.registry.io/docker.io/library/nginx is fetched from Docker Hub once, and served from then on,
    if Docker Hub is away, too. nodes.trust --mirror=docker.io sets nodes up for it.

    Example: inv registry.cache docker.io quay.io
    Example: inv registry.cache quay.io --login=robot.txt
    Example: inv registry.cache --list --json
    """
    from moorage.registry.caches import upstreams as kept

    del yes  # the voice knows it already
    changes = bool(login or ca or open or closed or remove)
    named = tuple(dict.fromkeys(kept.parse(run.settings, one) for one in upstreams))
    if list or not named:
        if changes:
            raise wrong_use("no upstream is named", "inv registry.cache docker.io")
        return _listed(run, named)
    if remove and (login or ca or open or closed):
        raise wrong_use("--remove goes alone", f"inv registry.cache {named[0]} --remove")
    if open and closed:
        raise wrong_use("--open and --closed contradict each other", "give one of them")
    if (login or ca) and len(named) > 1:
        raise wrong_use(
            "--login and --ca are for one upstream", f"inv registry.cache {named[0]} ..."
        )
    before = kept.read(run.settings)
    if remove:
        return _removed(run, before, named, dry_run=dry_run)
    given = _login(login), _authority(ca)
    after = {one.name: one for one in before}
    for name in named:
        one = after.get(name) or kept.Upstream(name)
        one = replace(one, open=(one.open or open) and not closed)
        after[name] = replace(one, login=given[0] or one.login, ca=given[1] or one.ca)
    wanted = tuple(sorted(after.values(), key=lambda one: one.file))
    return _made(run, before, wanted, named, dry_run=dry_run)


def told(run: Run, client: DockerClient) -> list[dict[str, Any]]:
    """The caches, for a look at the registry; one whose upstream is away serves what it has."""
    found = _standing(run, client)
    for one in found:
        run.ui.show(f"  cache of {one.upstream.name}: {one.problem or 'answers'}")
    return [one.to_json() for one in found]


def _made(
    run: Run,
    before: tuple[Upstream, ...],
    after: tuple[Upstream, ...],
    named: tuple[str, ...],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    from moorage.caches import hiding
    from moorage.registry import caching
    from moorage.registry.caches import upstreams as kept

    hidden = hiding.hidden(run.settings, before, after)
    actions = [*hidden, *caching.planned(run.settings, before, after)]
    if dry_run:
        return _planned(run, actions)
    if hidden:
        run.ui.confirm([one.text for one in hidden])
    for one in after:
        if one.name in named and one not in before:
            _require_login(run, one)
            kept.keep(run.settings, one)
    client = _engine(run)
    changed = _in_force(run, client) or bool(actions)
    if client is None or not _registry_runs(run, client):
        run.ui.note("the registry does not run; inv registry.up makes it, with its caches")
    found = [one for one in _standing(run, client) if one.upstream.name in named]
    for cached in found:
        verb = "caches" if actions else "unchanged: caches"
        run.ui.show(f"{cached.below} {verb} {cached.upstream.name}")
        if cached.running and cached.problem:
            run.ui.warn(f"{cached.problem}; {cached.cure}")
    run.ui.show(f"  nodes ask there by: inv nodes.trust --mirror={','.join(named)}")
    return {"ok": True, "changed": changed, "caches": [one.to_json() for one in found]}


def _removed(
    run: Run, before: tuple[Upstream, ...], named: tuple[str, ...], *, dry_run: bool
) -> dict[str, Any]:
    from moorage.registry import caching

    leaving = [one for one in before if one.name in named]
    left = tuple(one for one in before if one not in leaving)
    actions = caching.planned(run.settings, before, left)
    if dry_run:
        return _planned(run, actions)
    client = _engine(run)
    if not leaving:
        # A removal that was killed may have left the front as it was.
        changed = _in_force(run, client)
        run.ui.show(f"There is no such cache: {', '.join(named)}.")
        return {"ok": True, "changed": changed, "caches": []}
    run.ui.confirm([one.text for one in actions])
    for one in leaving:
        caching.take_away(run.settings, client, run.ui, one)
        run.ui.show(f"removed the cache of {one.name}")
    _in_force(run, client)
    return {"ok": True, "changed": True, "caches": []}


def _listed(run: Run, named: tuple[str, ...]) -> dict[str, Any]:
    """How caches stand; of those that are named, each image too."""
    from moorage.caches import standing

    every = _standing(run, _engine(run))
    found = [one for one in every if not named or one.upstream.name in named]
    run.ui.table(*standing.table(found))
    for one in found:
        if one.problem:
            run.ui.warn(f"{one.problem}; {one.cure}")
        if named and one.held.images:
            run.ui.table(*standing.images(one))
    if not found:
        run.ui.show("There is no such cache: inv registry.cache docker.io makes one.")
    rows = [one.to_json(images=bool(named)) for one in found]
    return {"ok": True, "changed": False, "caches": rows}


def _planned(run: Run, actions: list[Any]) -> dict[str, Any]:
    run.ui.foretell(actions)
    if not actions:
        run.ui.show("Nothing would be changed.")
    said = [action.text for action in actions]
    return {"ok": True, "changed": False, "dry_run": True, "actions": said}


def _standing(run: Run, client: DockerClient | None) -> list[CacheStanding]:
    from moorage.caches import standing

    with run.ui.progress("asking the upstreams"):
        return standing.all_of(run.settings, client)


def _engine(run: Run) -> DockerClient | None:
    from moorage.docker import engine

    return engine.connect(run.settings) if engine.answers(run.settings) else None


def _in_force(run: Run, client: DockerClient | None) -> bool:
    """Whether a registry that runs had other caches than it should."""
    from moorage.registry import caching

    if client is None or not _registry_runs(run, client):
        return False
    return caching.put_in_force(run.settings, client, run.ui)


def _registry_runs(run: Run, client: DockerClient) -> bool:
    from moorage.registry import container

    found = container.find_front(run.settings, client)
    return found is not None and found.status == "running"


def _require_login(run: Run, one: Upstream) -> None:
    """Raises Refused (``registry-refuses``) for a login that the upstream does not take."""
    from moorage.caches import answering

    if one.login is None:
        return
    found = answering.ask(run.settings, one)
    if found.state == answering.REFUSES:
        raise Refused(
            "registry-refuses",
            f"{one.url} refuses the login of {one.login.user}",
            cause="the user name or the password is wrong, or has expired; nothing was kept",
            cure=found.cure,
        )


def _login(source: str) -> Credentials | None:
    from moorage.registry.logins import login

    return login.read(source) if source else None


def _authority(source: str) -> str:
    """The file's certificates, in PEM. Raises Refused (``bad-upstream-ca``)."""
    from cryptography import x509

    from moorage.files import user_path

    if not source:
        return ""
    try:
        content = user_path(source).read_bytes()
        x509.load_pem_x509_certificates(content)
        return content.decode()
    except (OSError, ValueError) as problem:
        raise Refused(
            "bad-upstream-ca",
            f"{source} holds no CA",
            cause=getattr(problem, "strerror", "") or str(problem),
            cure="--ca=FILE, with the CA of the upstream's certificate in PEM",
            path=source,
        ) from None
