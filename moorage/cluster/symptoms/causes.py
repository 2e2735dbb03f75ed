"""Why a pull fails: the words of kubelets and runtimes -> cause and cure. Pure.

The rows that words tell are those of :mod:`agent.wire.troubles`; below are the causes that the API
tells beside them. A row's words match what they mean: what fits no row is told as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.wire.troubles.row import (
    IMAGE,
    ISSUE,
    LOGIN,
    NO_PROXY,
    NODE,
    ON_NODES,
    PRELOAD,
    PUSH,
    REGISTRY,
    SECRET,
    SITE,
    TRUST,
    UP,
)
from agent.wire.troubles.table import rows
from moorage.references import HUB, home_of

__all__ = [
    "IMAGE", "ISSUE", "LOGIN", "NODE", "NO_PROXY", "PRELOAD", "PUSH", "REGISTRY", "SECRET", "TRUST",
    "UP",
]  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """A row. The texts may use {registry}, {host}, {image}, {nodes}, {namespaces}, {pod}, {why}.

    Those of a login may also use {asked} (the server as the image spells it), {create} and {again}
    (commands that make the Secret); those of an image {tags}, and {pull} (a pull by hand).

    ``cure`` is for our own registry, ``elsewhere`` for any other; ``fix`` names the command of
    ours that does it. ``passing``: it may go away by itself, so waiting for it makes sense.
    ``either``: the registry says the same of a login without the right as of a wrong one.
    """

    code: str
    words: str
    matter: str
    title: str
    cause: str
    cure: str
    elsewhere: str = ""
    fix: str = ""
    passing: bool = False
    either: bool = False


# The first row that fits is said.
CAUSES: tuple[Cause, ...] = tuple(
    Cause(
        row.code,
        row.words,
        row.told.matter,
        row.told.message,
        row.told.cause,
        row.told.cure,
        row.told.elsewhere,
        row.told.fix,
        row.told.passing,
        row.told.either,
    )
    for row in rows("cluster")
)

# Rows about a host, which may be another than the registry: a mirror of it, or its token server.
OF_A_HOST = frozenset(
    (
        "x509-common-name",
        "x509-wrong-name",
        "x509-not-yet-valid",
        "x509-expired",
        "x509-unknown-authority",
        "client-wanted",
        "client-refused",
        "tls-failed",
        "plain-http",
        "name-unresolved",
        "registry-refused",
        "no-route",
        "registry-timeout",
    )
)

# Causes that no words of a runtime tell, but what the API says beside them.
MISSING_TAG = Cause(
    "tag-missing",
    "",
    IMAGE,
    "{registry} has no {image}",
    "the repository is there, the tag is not; it has: {tags}",
    "correct the tag, or push it",
)
MISSING_REPOSITORY = Cause(
    "repository-missing",
    "",
    IMAGE,
    "{registry} has no repository for {image}",
    "nothing was ever pushed under that name",
    "push it, or correct the name",
)
NO_SECRET = Cause(
    "secret-missing",
    "",
    LOGIN,
    "{registry} wants a login, and these pods have none",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --attach",
    "{create}; then name it in imagePullSecrets",
    SECRET,
)
STATIC_POD = Cause(
    "secret-static-pod",
    "",
    LOGIN,
    "{registry} wants a login, and static pods get no Secret from the API",
    "they come from a file on their node (https://kubernetes.io/docs/concepts/workloads/pods/"
    "#static-pods) and cannot refer to a Secret",
    "load the image into the nodes: inv nodes.preload {image} --from-cluster",
    "load the image into the nodes: inv nodes.preload {image} --from-cluster",
)
NOT_NAMED = Cause(
    "secret-not-named",
    "",
    LOGIN,
    "a Secret for {registry} is there, but these pods do not use it",
    "neither they nor their ServiceAccounts name it in imagePullSecrets",
    "inv k8s.secret --namespace={namespaces} --attach",
    "name it in imagePullSecrets of the pods or of their ServiceAccount",
    SECRET,
)
ELSEWHERE = Cause(
    "secret-elsewhere",
    "",
    LOGIN,
    "the Secret that these pods name is in another namespace",
    "{why}; Secrets count in their own namespace only",
    "inv k8s.secret --namespace={namespaces}",
    "{create}",
    SECRET,
)
OTHER_SERVER = Cause(
    "secret-other-server",
    "",
    LOGIN,
    "the Secret of these pods is for another server than {asked}",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "{again}",
    SECRET,
)
WRONG_TYPE = Cause(
    "secret-wrong-type",
    "",
    LOGIN,
    "the Secret that these pods name holds no login for a registry",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "{again}",
    SECRET,
)
WRONG_LOGIN = Cause(
    "secret-wrong-login",
    "",
    LOGIN,
    "the Secret of these pods has a login that {registry} refuses",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "{again}",
    SECRET,
)
# The words of a token server, of a Secret that is for the right one.
LOGIN_OR_RIGHT = Cause(
    "secret-wrong-login",
    "",
    LOGIN,
    "{registry} refuses the login of these pods' Secret, or denies {image} to it",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "give that user the right to pull {image}; a wrong or expired password: {again}",
    SECRET,
)
DENIED = Cause(
    "access-denied",
    "",
    LOGIN,
    "{registry} accepts the login but denies {image}",
    "{why}",
    "give the user the right, or pull with another one: inv k8s.secret"
    " --namespace={namespaces} --credentials=FILE --replace",
)
LATE_LOGIN = Cause(
    "secret-late",
    "",
    LOGIN,
    "these pods were pulled for before their Secret could be read",
    "{why}: the next try will succeed",
    "wait for the next try, or: kubectl delete pod {pod}",
    fix=SECRET,
    passing=True,
)
# The image of a pod's sandbox is pulled by the runtime itself, without any Secret:
# https://github.com/containerd/containerd/blob/main/internal/cri/server/podsandbox/sandbox_run.go
SANDBOX_LOGIN = Cause(
    "sandbox-login",
    "",
    NODE,
    "{registry} wants a login for {image}, the image of every pod's sandbox",
    "the runtime itself pulls it (containerd: sandbox_image or pinned_images.sandbox, CRI-O:"
    " pause_image, k3s: --pause-image) and no Secret is ever used for it",
    f"{PRELOAD}; or give the runtime a login (containerd: registry.configs, CRI-O:"
    " pause_image_auth_file, k3s: configs in registries.yaml)",
)
SANDBOX_MISSING = Cause(
    "sandbox-missing",
    "",
    NODE,
    "{registry} has no {image}, the image of every pod's sandbox",
    "the runtime's configuration names it (containerd: sandbox_image or pinned_images.sandbox,"
    " CRI-O: pause_image, k3s: --pause-image)",
    f"push it, or correct that setting; if an engine has it: {PRELOAD}",
)
# What is said beside the cause of any other failure of a sandbox's image.
SANDBOX = "{image} is the image of every pod's sandbox: without it no container begins"
# A kubelet does not tell an image that is missing from one that a pod may not use:
# https://github.com/kubernetes/kubernetes/blob/v1.36.2/pkg/kubelet/images/image_manager.go
NOT_FOR_THESE = Cause(
    "never-pull-unproven",
    "",
    LOGIN,
    "{image} is on these nodes, but these pods may not use it",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --attach; or set imagePullPolicy to IfNotPresent",
    "{create}, with the login that it was pulled with; then name it in imagePullSecrets",
    SECRET,
)
ALWAYS_VERIFY = Cause(
    "always-verify",
    "",
    NODE,
    "{image} is on these nodes, but their kubelet asks the registry before a pod may use it",
    "{why}",
    "on {nodes}: set imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages in the"
    " kubelet's configuration (or NeverVerifyAllowlistedImages, with the image in"
    " preloadedImagesVerificationAllowlist), then: systemctl restart kubelet",
)
CONFIG_PATH = Cause(
    "config-path-ignored",
    "",
    NODE,
    "the trust is on these nodes, but their runtime does not read it",
    "{why}",
    ON_NODES,
    "let config_path in config.toml name one single folder, then restart containerd",
    TRUST,
)
# Of somebody else's registry alone: nodes that trust the CA of before need the one of now.
UNVOUCHED = Cause(
    "registry-certificate",
    "",
    REGISTRY,
    "{registry} shows a certificate that the CA kept here does not vouch for",
    "{why}; nodes that were given this CA cannot trust it either",
    f"inv registry.ca --fetch; then: {ON_NODES}, or, if agents keep their trust: inv k8s.agents",
)
NO_EVIDENCE = Cause(
    "no-evidence",
    "",
    NODE,
    "these pods wait before the next try, and nobody remembers why the last one failed",
    "the kubelet waits up to five minutes, and events are kept for an hour",
    "kubectl delete pod {pod} (its owner makes it again), then run this again",
    passing=True,
)
UNKNOWN = Cause(
    "pull-failed",
    "",
    IMAGE,
    "the pull of {image} fails for a reason that is not in our table",
    "see the runtime's words below",
    "try it on a node: {pull} {image}",
)


# What is in names and addresses must not count: images, URLs, digests, and what Docker and CRI-O
# put before a name.
_NAMES = re.compile(
    r'"?https?://[^"\s]+"?|sha256:[0-9a-f]+|"(?!text/)[^"\s]*[/:][^"\s]*"|\[manifests [^\]]*\]'
    r"|docker://\S+|(?<=manifest )\S+ in \S+|(?<=denied for )\S+"
    r"|(?<![\w./-])[\w.-]+:\d+/[\w./-]+(:[\w.-]+)?"
)
# CRI-O tells of the mirrors it asked in vain, and then of the registry itself.
_MIRRORS = re.compile(r"\(Mirrors also failed: \[.*\]\): ", re.DOTALL)


def classify(words: str) -> Cause:
    """The row that fits a complaint; UNKNOWN if none does."""
    plain = _NAMES.sub(_left, _MIRRORS.sub("", words))
    for row in CAUSES:
        if re.search(row.words, plain):
            return row
    return UNKNOWN


def _left(name: re.Match[str]) -> str:
    """Whether TLS was spoken is what counts of an address."""
    return "<https>" if name[0].startswith("https://") else " "


def registry_of(image: str) -> str:
    """The registry that an image's name stands for, as runtimes read it: ``docker.io`` by default.

    https://github.com/distribution/reference/blob/main/normalize.go
    """
    return home_of(image).registry


def another_host(words: str, registry: str) -> str:
    """The host that a complaint is about, if it is another than the registry; "" if it is not."""
    found = SITE.findall(_MIRRORS.sub("", words))
    site = str(found[-1]) if found else registry
    of_hub = registry == HUB and site.endswith(f".{HUB}")
    return "" if of_hub or same_registry(site, registry) else site


def same_registry(one: str, other: str) -> bool:
    """Whether two names are one registry: runtimes take port 443 for granted."""
    return one.removesuffix(":443") == other.removesuffix(":443")
