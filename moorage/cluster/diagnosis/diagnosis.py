"""Stuck pods -> causes, each with its nodes, pods, evidence and one cure. Pure.

What had to be asked for that (Secrets, tags, what nodes say) comes in as :class:`Known`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from moorage import references
from moorage.cluster.diagnosis.known import Known, NodeImages, NotAllowed
from moorage.cluster.login import pull_secret
from moorage.cluster.symptoms import causes, keyring
from moorage.cluster.symptoms.causes import Cause
from moorage.cluster.symptoms.stuck import Stuck
from moorage.cluster.symptoms.tags import nearest
from moorage.registry.logins import external


@dataclass(frozen=True)
class Group:
    """Pods that cannot pull for one and the same reason.

    ``fix``: the command of ours that cures it (a key of ``cures``), "" if there is none.
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


class _Verdict(NamedTuple):
    """A cause, what fills its ``{why}``, what is said beside it, and the host at fault if that is
    another than the image's registry."""

    cause: Cause
    why: str = ""
    note: str = ""
    host: str = ""


def diagnose(stuck: Iterable[Stuck], known: Known) -> list[Group]:
    """The causes, those with most pods first."""
    gathered: dict[tuple[str, ...], list[Stuck]] = {}
    found: dict[tuple[str, ...], _Verdict] = {}
    for one in stuck:
        verdict = _judge(one, known)
        cause, registry = verdict.cause, verdict.host or causes.registry_of(one.image)
        key: tuple[str, ...] = (cause.code, cause.title, registry, verdict.why, verdict.note)
        if cause.matter == causes.IMAGE:
            key = (*key, one.image)
        gathered.setdefault(key, []).append(one)
        found[key] = verdict
    groups = [_group(found[key], tuple(members), known) for key, members in gathered.items()]
    return sorted(groups, key=lambda group: (-len(group.stuck), group.code, group.registry))


def wants_secrets(one: Stuck) -> bool:
    """Whether its Secrets have to be read to say more."""
    of_login = bool(one.words) and causes.classify(one.words).matter == causes.LOGIN
    return of_login and not one.mirror and not one.of_sandbox


def wants_rights(one: Stuck, registry: str) -> bool:
    """Whether our registry has to be asked if the Secrets' logins may pull the image: what it said
    to the kubelet, it says to no login as well."""
    either = wants_secrets(one) and causes.classify(one.words).either
    return either and causes.same_registry(causes.registry_of(one.image), registry)


def wants_tags(one: Stuck, registry: str) -> bool:
    """Whether our registry has to be asked for its tags to say more."""
    said = causes.classify(one.words).code if one.words else ""
    ours = causes.same_registry(causes.registry_of(one.image), registry)
    return said == "image-missing" and ours and not one.of_sandbox


def wants_facts(one: Stuck, registry: str) -> bool:
    """Whether the node's own agent has to be asked to say more."""
    said = causes.classify(one.words).code if one.words else ""
    ours = causes.same_registry(causes.registry_of(one.image), registry)
    return (
        said == "x509-unknown-authority" and ours and not causes.another_host(one.words, registry)
    )


def wants_verification(one: Stuck, node: NodeImages) -> bool:
    """Whether the kubelet's policy has to be asked for to say more: it has the image already."""
    return _is_there(one, node) and _verifies(node)


def repository(image: str) -> str:
    """``my.registry.io/a/b:1`` -> ``a/b``."""
    return references.split(image).name.partition("/")[2]


def tag(image: str) -> str:
    """``my.registry.io/a/b:1`` -> ``1``; "" if a digest or nothing is named."""
    return references.split(image).tag


def _judge(one: Stuck, known: Known) -> _Verdict:
    """The cause of one container's trouble."""
    if not one.words and one.reason in ("ImagePullBackOff", "ErrImagePull"):
        return _Verdict(causes.NO_EVIDENCE)
    cause = causes.classify(one.words or one.reason)
    node = known.nodes.get(one.node, NodeImages())
    if one.of_sandbox:
        return _sandbox(one, known, cause)
    if cause.code == "never-pull":
        return _never(one, node, cause)
    verdict = _told_apart(one, known, cause)
    if wants_verification(one, node) and one.policy != "Always":
        return _verified(one, known, node, verdict)
    return verdict


def _told_apart(one: Stuck, known: Known, cause: Cause) -> _Verdict:
    """A cause of which Secrets, tags and nodes say more."""
    registry = causes.registry_of(one.image)
    host = causes.another_host(one.words, registry)
    if host and cause.code in causes.OF_A_HOST:
        note = f"{registry} sends its clients to {host}, or {host} is a mirror of it"
        return _Verdict(cause, note=note, host=host)
    if cause.matter == causes.LOGIN:
        return _login(one, known, cause)
    if cause.code == "image-missing" and known.is_ours(one.image):
        return _image(one, known, cause)
    if known.unvouched and wants_facts(one, known.registry):
        return _Verdict(causes.UNVOUCHED, known.unvouched)
    if cause.code == "x509-unknown-authority" and one.node in known.trusting:
        return _Verdict(causes.CONFIG_PATH, _why_ignored(one, known))
    return _Verdict(cause)


def _sandbox(one: Stuck, known: Known, cause: Cause) -> _Verdict:
    """The image of a sandbox: pulled by the runtime, with its own login, named in its settings."""
    if cause.matter == causes.LOGIN:
        return _Verdict(causes.SANDBOX_LOGIN)
    if cause.code == "image-missing":
        return _Verdict(causes.SANDBOX_MISSING)
    told = _told_apart(one, known, cause)
    cure, elsewhere = told.cause.cure, told.cause.elsewhere or told.cause.cure
    if not told.cause.fix:
        cure = f"{cure}; or {causes.PRELOAD}"
    elsewhere = f"{causes.PRELOAD}; or {elsewhere}"
    return told._replace(
        cause=replace(told.cause, cure=cure, elsewhere=elsewhere),
        note="; ".join(filter(None, (told.note, causes.SANDBOX.format(image=one.image)))),
    )


def _is_there(one: Stuck, node: NodeImages) -> bool:
    return keyring.in_full(one.image) in node.names


def _verifies(node: NodeImages) -> bool:
    """Whether this kubelet may ask the registry about an image that it has: since 1.33 where told
    to, since 1.35 by default (KubeletEnsureSecretPulledImages)."""
    major, _, rest = node.kubelet.removeprefix("v").partition(".")
    minor = rest.partition(".")[0].rstrip("+")
    return major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= (1, 33)


_ALL_ASKED = ("AlwaysVerify", "NeverVerifyAllowlistedImages")
_POLICY = "imagePullCredentialsVerificationPolicy"


def _never(one: Stuck, node: NodeImages, cause: Cause) -> _Verdict:
    """``imagePullPolicy: Never``: the image is not there, or not for this pod."""
    if not wants_verification(one, node):
        note = "" if node.complete else "as far as its node says, which names some of its images"
        return _Verdict(cause, note=note)
    if node.verification in _ALL_ASKED:
        why = f"{_POLICY} is {node.verification}, and imagePullPolicy is Never: it may not be asked"
        return _Verdict(replace(causes.ALWAYS_VERIFY, cure=_OR_ASK, elsewhere=""), why)
    since = "since Kubernetes 1.35 only pods with that login may use it"
    if not one.secrets:
        return _Verdict(
            causes.NOT_FOR_THESE, f"it was pulled with a Secret, and {since}; they name none"
        )
    names = ", ".join(sorted(one.secrets))
    why = f"it was pulled with another login than that of {names}, and {since}"
    return _Verdict(replace(causes.NOT_FOR_THESE, cure=_ASK, elsewhere=_ASK, fix=""), why)


_ASK = "set imagePullPolicy to IfNotPresent, so that the kubelet may ask the registry with it"
_OR_ASK = f"{causes.ALWAYS_VERIFY.cure}; or set imagePullPolicy to IfNotPresent"


def _verified(one: Stuck, known: Known, node: NodeImages, verdict: _Verdict) -> _Verdict:
    """A pull that would not be needed if the kubelet took the pod's word for it."""
    there = "the image is on these nodes already"
    if node.verification not in _ALL_ASKED:
        unknown = "" if node.verification else f", or their {_POLICY} is AlwaysVerify"
        return verdict._replace(
            note=f"{there}, pulled with a Secret{unknown}: the kubelet asks the registry whether"
            " these pods may use it"
        )
    policy = f"{_POLICY} is {node.verification}"
    fixes = verdict.cause.fix and known.is_ours(one.image) and not verdict.host
    if verdict.cause.matter == causes.LOGIN or fixes:
        note = f"{there}, but {policy}: preloading it again would not help"
        return verdict._replace(note=note)
    registry = causes.registry_of(one.image)
    why = f"{policy}, and {verdict.cause.code} keeps it from asking {registry}"
    return _Verdict(causes.ALWAYS_VERIFY, why)


def _login(one: Stuck, known: Known, cause: Cause) -> _Verdict:
    """Which of the reasons for a refusal it is, as far as the Secrets may be read."""
    if one.mirror:
        return _Verdict(causes.STATIC_POD)
    if not one.secrets:
        return _without_secret(one, known, cause)
    found = {name: known.secrets.get((one.namespace, name)) for name in one.secrets}
    names = ", ".join(sorted(found))
    if any(isinstance(secret, NotAllowed) for secret in found.values()):
        return _Verdict(cause)
    there = {
        name: secret
        for name, secret in found.items()
        if secret is not None and not isinstance(secret, NotAllowed)
    }
    if not there:
        return _not_there(one, known, names)
    logins = {name: pull_secret.logins(secret) for name, secret in there.items()}
    if not any(logins.values()):
        kinds = ", ".join(sorted({str(secret.get("type")) for secret in there.values()}))
        return _Verdict(
            causes.WRONG_TYPE, f"{names} is of type {kinds}, or what it holds cannot be read"
        )
    fitting = pull_secret.fitting(logins.values(), one.image)
    if not fitting:
        return _Verdict(causes.OTHER_SERVER, _other_server(one, names, logins.values()))
    return _of_login(one, known, cause, names, fitting)


def _without_secret(one: Stuck, known: Known, cause: Cause) -> _Verdict:
    if known.is_ours(one.image) and known.in_namespace.get(one.namespace):
        return _Verdict(causes.NOT_NAMED)
    also = "; the registry says the same of an image that does not exist" if cause.either else ""
    return _Verdict(causes.NO_SECRET, f"they name no Secret in imagePullSecrets{also}")


def _not_there(one: Stuck, known: Known, names: str) -> _Verdict:
    places = [
        place
        for place, has in sorted(known.in_namespace.items())
        if any(name in has for name in one.secrets)
    ]
    if not places:
        return _Verdict(causes.NO_SECRET, f"they name {names}, which is not there")
    shown = ", ".join(places[:3]) + (" and others" if len(places) > 3 else "")
    return _Verdict(causes.ELSEWHERE, f"{names} is in {shown}")


def _other_server(one: Stuck, names: str, logins: Iterable[pull_secret.Logins]) -> str:
    servers = sorted({server for one_of in logins for server in one_of})
    almost = (f"{key}: {why}" for key in servers if (why := keyring.mismatch(key, one.image)))
    first = next(almost, "")
    return f"{names} is for {', '.join(servers[:5])}" + (f" ({first})" if first else "")


def _of_login(
    one: Stuck, known: Known, cause: Cause, names: str, fitting: list[pull_secret.Login]
) -> _Verdict:
    """What is wrong with a login that is for the right server."""
    registry = causes.registry_of(one.image)
    users = {login.user for login in fitting}
    own = known.login if known.is_ours(one.image) else None
    right = pull_secret.Login(own.user, own.password) if own else None
    good = [login for login in fitting if login in known.accepted]
    if right in fitting and known.login_works:
        good.append(right)
    if good and cause.either and not any((login, one.image) in known.pulls for login in good):
        return _Verdict(causes.DENIED, f"{good[0].user} of {names} may not pull it")
    if good:
        # A kubelet may not read a Secret before the API server has noted that a pod on its
        # node names it (Node authorization); it pulls without a login meanwhile.
        whose = "the registry's own login" if right in good else f"the login of {good[0].user}"
        return _Verdict(causes.LATE_LOGIN, f"{names} holds {whose}, which the registry accepts")
    if own and right not in fitting:
        other = f"another user ({', '.join(sorted(users))})"
        what = "another password" if users & {own.user, *known.users} else other
        return _Verdict(causes.WRONG_LOGIN, f"{names} has {what} than the registry's own login")
    if cause.either:
        who = ", ".join(sorted(users))
        return _Verdict(causes.LOGIN_OR_RIGHT, f"{names} holds a login of {who} for {registry}")
    return _Verdict(
        causes.WRONG_LOGIN, f"{names} is for {registry}, but the login it holds is not accepted"
    )


def _image(one: Stuck, known: Known, cause: Cause) -> _Verdict:
    name = repository(one.image)
    if name not in known.tags:
        return _Verdict(cause)
    tags = known.tags[name]
    if tags is None:
        return _Verdict(causes.MISSING_REPOSITORY)
    return _Verdict(causes.MISSING_TAG, ", ".join(nearest(tags, tag(one.image))) or "none")


def _why_ignored(one: Stuck, known: Known) -> str:
    runtime = known.runtimes.get(one.node, "the runtime")
    return (
        f"{known.trusting[one.node]}; {runtime} does not read it there: its config_path names"
        " another folder, several, or none, or it was not restarted since"
    )


def _group(verdict: _Verdict, stuck: tuple[Stuck, ...], known: Known) -> Group:
    cause = verdict.cause
    first = next((one for one in stuck if one.words), stuck[0])
    registry = verdict.host or causes.registry_of(first.image)
    own = known.is_ours(first.image) and not verdict.host
    if known.external and external.needs_own(cause.cure):
        own = False  # its owner's to cure, as any other registry's
    fixed = own and (cause.code != "client-wanted" or known.presents)  # else by settings first
    group = Group(
        cause.code,
        registry,
        "",
        "",
        "",
        cause.fix if fixed else "",
        cause.passing,
        stuck,
        f"{first.name} on {first.node or 'no node'}: {first.words}" if first.words else "",
        tuple(sorted({one.image for one in stuck})),
    )
    values = _values(verdict, first, group, known)
    cure = cause.cure if own or not cause.elsewhere else cause.elsewhere
    pushes = own and not known.external
    if cause.matter == causes.IMAGE and pushes and first.image == known.image and "push" in cure:
        cure, fix = "inv image.push", causes.PUSH
        group = replace(group, fix=fix)
    told = cause.cause.format_map(values)
    return replace(
        group,
        title=cause.title.format_map(values),
        cause=f"{told}; {verdict.note}" if verdict.note else told,
        cure=cure.format_map(values),
    )


def _values(verdict: _Verdict, first: Stuck, group: Group, known: Known) -> dict[str, str]:
    """What fills the texts of a cause."""
    of_hub = causes.registry_of(first.image) == references.HUB
    asked = references.HUB if of_hub else first.image.partition("/")[0]
    name = first.secrets[0] if first.secrets else "NAME"
    place, *others = group.namespaces or ("NAMESPACE",)
    server = keyring.HUB_KEY if asked == references.HUB else asked
    create = (
        f"kubectl create secret docker-registry {name} -n {place} --docker-server={server}"
        " --docker-username=USER --docker-password=PASSWORD"
    )
    likewise = f" (and so in {', '.join(others)})" if others else ""
    runtime = known.runtimes.get(first.node, "")
    return {
        "registry": group.registry,
        "host": group.registry.partition(":")[0],
        "asked": asked,
        "image": first.image,
        "nodes": ",".join(group.nodes) or "NODE",
        "namespaces": ",".join(group.namespaces),
        "pod": f"-n {first.namespace} {first.pod}",
        "create": create + likewise,
        "again": f"kubectl delete secret {name} -n {place} && {create}{likewise}",
        "pull": "docker pull" if runtime.startswith("docker") else "crictl pull",
        "why": verdict.why,
        "tags": verdict.why,
    }


def secrets_for(registry: str, listed: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Pull Secrets that hold a login for ``registry``, by namespace."""
    found: dict[str, list[str]] = {}
    for secret in listed:
        servers = pull_secret.logins(secret)
        if keyring.serving(servers, f"{registry}/x"):
            metadata = secret["metadata"]
            found.setdefault(metadata["namespace"], []).append(metadata["name"])
    return {namespace: tuple(sorted(names)) for namespace, names in found.items()}
