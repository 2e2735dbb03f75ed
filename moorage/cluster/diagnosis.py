"""Stuck pods -> causes, each with its nodes, pods, evidence and one cure. Pure.

What had to be asked for that (Secrets, tags, what nodes say) comes in as :class:`Known`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moorage.cluster import causes, pull_secret
from moorage.cluster.causes import Cause
from moorage.cluster.stuck import Stuck
from moorage.registry import Credentials


class _NotAllowed:
    """Stands for a Secret that we may not read."""


NOT_ALLOWED = _NotAllowed()
Secret = Mapping[str, Any] | _NotAllowed | None


@dataclass(frozen=True)
class Known:
    """What is known beside the pods.

    ``registry``: ours, by name; ``login``: its login, None where unknown here; ``login_works``:
    whether the registry takes it right now, None where it cannot be asked. ``secrets``: by
    (namespace, name), None for one that is not there. ``in_namespace``: the names of Secrets for
    our registry by namespace. ``tags``: by repository of our registry; None: there is no such
    repository; a missing key: unknown. ``trusting``: nodes known to have the trust files in place,
    and by what. ``runtimes``: by node, as ``containerd 2.1.9``.
    """

    registry: str
    image: str = ""
    login: Credentials | None = None
    login_works: bool | None = None
    secrets: Mapping[tuple[str, str], Secret] = field(default_factory=dict, repr=False)
    in_namespace: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    trusting: Mapping[str, str] = field(default_factory=dict)
    runtimes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Pods that cannot pull for one and the same reason.

    ``fix``: the command of ours that cures it (a key of ``cures``), "" where there is none.
    ``stuck`` holds its containers; ``evidence`` one complaint in full, and where it was heard.
    """

    code: str
    registry: str
    title: str
    cause: str
    cure: str
    fix: str
    passing: bool
    stuck: tuple[Stuck, ...]
    evidence: str
    images: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted({one.node for one in self.stuck if one.node}))

    @property
    def pods(self) -> tuple[str, ...]:
        return tuple(sorted({one.name for one in self.stuck}))

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(sorted({one.namespace for one in self.stuck}))

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "registry": self.registry,
            "title": self.title,
            "cause": self.cause,
            "cure": self.cure,
            "fix": self.fix,
            "nodes": list(self.nodes),
            "pods": list(self.pods),
            "namespaces": list(self.namespaces),
            "images": list(self.images),
            "evidence": self.evidence,
        }


def diagnose(stuck: Iterable[Stuck], known: Known) -> list[Group]:
    """The causes, those with most pods first."""
    gathered: dict[tuple[str, ...], list[Stuck]] = {}
    found: dict[tuple[str, ...], tuple[Cause, str]] = {}
    for one in stuck:
        cause, why = _cause(one, known)
        registry = causes.registry_of(one.image)
        key: tuple[str, ...] = (cause.code, registry, why)
        if cause.matter == causes.IMAGE:
            key = (*key, one.image)
        gathered.setdefault(key, []).append(one)
        found[key] = (cause, why)
    groups = [_group(*found[key], tuple(members), known) for key, members in gathered.items()]
    return sorted(groups, key=lambda group: (-len(group.stuck), group.code, group.registry))


def wants_secrets(one: Stuck) -> bool:
    """Whether its Secrets have to be read to say more."""
    refused = bool(one.words) and causes.classify(one.words).code == "login-refused"
    return refused and not one.mirror


def wants_tags(one: Stuck, registry: str) -> bool:
    """Whether our registry has to be asked for its tags to say more."""
    said = causes.classify(one.words).code if one.words else ""
    return said == "image-missing" and causes.registry_of(one.image) == registry


def wants_facts(one: Stuck, registry: str) -> bool:
    """Whether the node's own agent has to be asked to say more."""
    said = causes.classify(one.words).code if one.words else ""
    return said == "x509-unknown-authority" and causes.registry_of(one.image) == registry


def repository(image: str) -> str:
    """``my.registry.io/a/b:1`` -> ``a/b``."""
    path = image.partition("/")[2].partition("@")[0]
    head, colon, last = path.rpartition(":")
    return head if colon and "/" not in last else path


def _cause(one: Stuck, known: Known) -> tuple[Cause, str]:
    """The cause, and what fills its ``{why}``."""
    if not one.words and one.reason in ("ImagePullBackOff", "ErrImagePull"):
        return causes.NO_EVIDENCE, ""
    cause = causes.classify(one.words or one.reason)
    if cause.code == "login-refused":
        return _login(one, known, cause)
    if cause.code == "image-missing" and causes.registry_of(one.image) == known.registry:
        return _image(one, known, cause)
    if cause.code == "x509-unknown-authority" and one.node in known.trusting:
        return causes.CONFIG_PATH, _why_ignored(one, known)
    return cause, ""


def _login(one: Stuck, known: Known, cause: Cause) -> tuple[Cause, str]:
    """Which of the reasons for a 401 it is, as far as the Secrets may be read."""
    registry = causes.registry_of(one.image)
    if one.mirror:
        return causes.STATIC_POD, ""
    if not one.secrets:
        here = known.in_namespace.get(one.namespace, ())
        if here and registry == known.registry:
            return causes.NOT_NAMED, ""
        return causes.NO_SECRET, "they name no Secret in imagePullSecrets"
    found = {name: known.secrets.get((one.namespace, name)) for name in one.secrets}
    names = ", ".join(sorted(found))
    if any(isinstance(secret, _NotAllowed) for secret in found.values()):
        return cause, ""
    there = {
        name: secret
        for name, secret in found.items()
        if secret is not None and not isinstance(secret, _NotAllowed)
    }
    if not there:
        places = [
            place
            for place, has in sorted(known.in_namespace.items())
            if any(name in has for name in one.secrets)
        ]
        if places:
            shown = ", ".join(places[:3]) + (" and others" if len(places) > 3 else "")
            return causes.ELSEWHERE, f"{names} is in {shown}"
        return causes.NO_SECRET, f"they name {names}, which is not there"
    logins = {name: pull_secret.logins(secret) for name, secret in there.items()}
    if not any(logins.values()):
        kinds = ", ".join(sorted({str(secret.get("type")) for secret in there.values()}))
        return causes.WRONG_TYPE, f"{names} is of type {kinds}, or what it holds cannot be read"
    fitting = [
        login
        for one_of in logins.values()
        for server, login in one_of.items()
        if pull_secret.serves(server, one.image)
    ]
    if not fitting:
        servers = sorted({server for one_of in logins.values() for server in one_of})
        return causes.OTHER_SERVER, f"{names} is for {', '.join(servers[:5])}"
    if registry == known.registry and known.login is not None:
        right = pull_secret.Login(known.login.user, known.login.password)
        if right not in fitting:
            users = {login.user for login in fitting}
            other = f"another user ({', '.join(sorted(users))})"
            what = "another password" if known.login.user in users else other
            return causes.WRONG_LOGIN, f"{names} has {what} than the registry's own login"
        if known.login_works:
            # A kubelet may not read a Secret before the API server has noted that a pod on its
            # node names it (Node authorization); it pulls without a login meanwhile.
            return causes.LATE_LOGIN, f"{names} holds the registry's own login, which it accepts"
    return causes.WRONG_LOGIN, f"{names} names {registry}, but what it holds is not accepted"


def _image(one: Stuck, known: Known, cause: Cause) -> tuple[Cause, str]:
    name = repository(one.image)
    if name not in known.tags:
        return cause, ""
    tags = known.tags[name]
    if tags is None:
        return causes.MISSING_REPOSITORY, ""
    return causes.MISSING_TAG, ", ".join(tags[-8:]) or "none"


def _why_ignored(one: Stuck, known: Known) -> str:
    runtime = known.runtimes.get(one.node, "the runtime")
    return (
        f"{known.trusting[one.node]}; {runtime} does not read it there: its config_path names"
        " another folder, several, or none, or it was not restarted since"
    )


def _group(cause: Cause, why: str, stuck: tuple[Stuck, ...], known: Known) -> Group:
    first = next((one for one in stuck if one.words), stuck[0])
    registry = causes.registry_of(first.image)
    own = registry == known.registry
    group = Group(
        cause.code,
        registry,
        "",
        "",
        "",
        cause.fix if own else "",
        cause.passing,
        stuck,
        f"{first.name} on {first.node or 'no node'}: {first.words}" if first.words else "",
        tuple(sorted({one.image for one in stuck})),
    )
    values = {
        "registry": registry,
        "host": registry.partition(":")[0],
        "image": first.image,
        "nodes": ",".join(group.nodes) or "NODE",
        "namespaces": ",".join(group.namespaces),
        "pod": f"-n {first.namespace} {first.pod}",
        "why": why,
        "tags": why,
    }
    cure = cause.cure if own or not cause.elsewhere else cause.elsewhere
    if cause.matter == causes.IMAGE and own and first.image == known.image and "push" in cure:
        cure, fix = "inv image.push", causes.PUSH
        group = replace(group, fix=fix)
    return replace(
        group,
        title=cause.title.format_map(values),
        cause=cause.cause.format_map(values),
        cure=cure.format_map(values),
    )


def secrets_for(registry: str, listed: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Pull Secrets that hold a login for ``registry``, by namespace."""
    found: dict[str, list[str]] = {}
    for secret in listed:
        servers = pull_secret.logins(secret)
        if any(pull_secret.serves(server, f"{registry}/x") for server in servers):
            metadata = secret["metadata"]
            found.setdefault(metadata["namespace"], []).append(metadata["name"])
    return {namespace: tuple(sorted(names)) for namespace, names in found.items()}
