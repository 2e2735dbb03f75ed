"""Why Kubernetes says no, or nothing: its Status, or what urllib3 raised -> rule and cure. Pure.

The shapes are the API server's own: https://kubernetes.io/docs/reference/kubernetes-api/
common-definitions/status/; the words were collected from real servers (tests/k8s).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from moorage.cluster.api.where import Where


class ApiError(MoorageError):
    """The API server refused or failed.

    ``status`` is HTTP's (0: no answer came), ``reason`` Kubernetes' own word (``Forbidden``,
    ``NotFound``, …), ``words`` the server's message. ``go_on``: with a 410 to a list's page, the
    token by which the list goes on all the same, "" for none.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        words: str = "",
        go_on: str = "",
        cause: str = "",
        cure: str = "",
    ) -> None:
        super().__init__(code, message, cause=cause, cure=cure)
        self.status = status
        self.reason = reason
        self.words = words
        self.go_on = go_on


@dataclass(frozen=True)
class Rule:
    """A row: ``status`` (0: any) and ``words`` (a pattern) of an answer -> what to say of it.

    The texts may use the pattern's named groups, and ``{what}``: what was asked for.
    ``wrong_use``: it is the user's own word that is wrong.
    """

    status: int
    words: str
    code: str
    message: str
    cause: str
    cure: str
    wrong_use: bool = False


# The first row that fits is said.
RULES: tuple[Rule, ...] = (
    Rule(
        0,
        r"because it is being terminated",
        "namespace-terminating",
        "{what}: the namespace is being deleted",
        "nothing can be made in a namespace in state Terminating",
        "wait until it is gone and make it again, or name another one with --namespace",
    ),
    Rule(
        403,
        r'User "system:anonymous" cannot',
        "no-credentials",
        "{what}: the cluster sees this request as anonymous",
        "the user of this context has no credentials, or none that reach the API server",
        "give the user in the kubeconfig a certificate, a token or a plugin, or name another"
        " context with --context",
    ),
    Rule(
        400,
        r"unable to parse requirement|found '[^']*', expected: ",
        "bad-selector",
        "{what}: the label selector is not understood",
        "{words}",
        "write it as --selector=team=web or --selector='team in (web,shop)'",
        wrong_use=True,
    ),
    Rule(
        400,
        r"Client sent an HTTP request to an HTTPS server",
        "not-tls",
        "{what}: the API server wants TLS",
        "{words}",
        "begin the server's address in the kubeconfig with https://",
    ),
    Rule(
        403,
        r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group '
        r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]*)")?',
        "rbac-denied",
        "{what}: RBAC does not let {user} {verb} {resource}{in_namespace}",
        "no Role or ClusterRole bound to {user} has the verb {verb} on {resource_group}",
        "{grant}",
    ),
    Rule(
        403,
        r"exceeded quota: (?P<quota>[^,]+), requested: (?P<requested>.*?), used: (?P<used>.*?), "
        r"limited: (?P<limited>.*)",
        "quota-exceeded",
        "{what}: the quota {quota} is used up",
        "requested {requested}, used {used}, limited to {limited}",
        "ask for a larger quota, or remove what is not needed: kubectl describe quota {quota}",
    ),
    Rule(
        403,
        r"failed quota: (?P<quota>[^:]+): must specify (?P<needed>.*)",
        "quota-needs-resources",
        "{what}: the quota {quota} wants {needed} to be stated",
        "in this namespace every pod has to name its resources",
        "use --workload deployment (it states them), or a LimitRange with defaults",
    ),
    Rule(
        403,
        r'violates PodSecurity "(?P<level>[^"]*)": (?P<details>.*)',
        "pod-security",
        "{what}: the namespace's Pod Security level {level} forbids it",
        "{details}",
        "use --workload deployment (it meets 'restricted'), or another namespace",
    ),
    Rule(
        403,
        r"unable to validate against any (?:pod security policy|security context constraint)",
        "pod-security",
        "{what}: a policy on pods forbids it",
        "{words}",
        "use --workload deployment (non-root), or ask the cluster's admin which policy applies",
    ),
    Rule(
        0,
        r'admission webhook "(?P<hook>[^"]*)" denied the request:? ?(?P<details>.*)',
        "admission-denied",
        "{what}: the admission webhook {hook} refuses it",
        "{details}",
        "ask who runs {hook} which rule it is: kubectl get validatingwebhookconfigurations,"
        "mutatingwebhookconfigurations",
    ),
    Rule(
        0,
        r"ValidatingAdmissionPolicy '(?P<policy>[^']*)'.*denied request: (?P<details>.*)",
        "admission-denied",
        "{what}: the admission policy {policy} refuses it",
        "{details}",
        "read the rule: kubectl get validatingadmissionpolicy {policy} -o yaml",
    ),
    Rule(
        0,
        r'failed calling webhook "(?P<hook>[^"]*)": (?P<details>.*)',
        "webhook-failed",
        "{what}: the admission webhook {hook} does not answer",
        "{details}",
        "mend the webhook's service, or have its admin set failurePolicy: Ignore",
    ),
    Rule(
        403,
        r"error looking up service account (?P<account>[^:]+): ",
        "no-service-account",
        "{what}: there is no ServiceAccount {account}",
        "a new namespace gets its own a moment later; else it was deleted",
        "kubectl create serviceaccount default -n NAMESPACE",
    ),
    Rule(
        403,
        r"is forbidden: (?P<details>.*)",
        "forbidden",
        "{what}: an admission rule forbids it",
        "{details}",
        "ask the cluster's admin which rule it is",
    ),
    Rule(
        401,
        r"",
        "unauthorized",
        "{what}: the cluster does not accept these credentials",
        "the token or client certificate of this context is expired, revoked or of another cluster",
        "renew them (log in again, or fetch a new kubeconfig), then: kubectl auth can-i --list",
    ),
    Rule(
        404,
        r'namespaces "(?P<name>[^"]*)" not found',
        "no-namespace",
        "{what}: there is no namespace {name}",
        "it was never made, or deleted since",
        "kubectl create namespace {name}",
    ),
    Rule(
        409,
        r"(?:conflict with|conflicts? with) (?P<owner>.*)",
        "field-conflict",
        "{what}: somebody else has changed our fields since",
        "the field's owner is now {owner}",
        "look at it: kubectl get … --show-managed-fields -o yaml; --replace takes it back",
    ),
    Rule(
        409,
        r"",
        "conflict",
        "{what}: it was changed by somebody else at the same moment",
        "{words}",
        "run the same command again",
    ),
    Rule(
        410,
        r"",
        "gone",
        "{what}: the list was too old to go on from",
        "the API server keeps only a few minutes of history",
        "run the same command again",
    ),
    Rule(
        413,
        r"",
        "too-large",
        "{what}: the request is too large for the API server",
        "{words}",
        "an object may have about 1 MiB",
    ),
    Rule(
        415,
        r"",
        "old-server",
        "{what}: the API server does not know server-side apply",
        "it is older than Kubernetes 1.16",
        "upgrade the cluster",
    ),
    Rule(
        422,
        r"",
        "invalid",
        "{what}: Kubernetes finds it invalid",
        "{words}",
        "correct the name or setting it points at",
    ),
    Rule(
        429,
        r"",
        "too-many-requests",
        "{what}: the API server is too busy, even after several tries",
        "its priority and fairness queues are full",
        "run it again later; kubectl get --raw /metrics | grep apiserver_flowcontrol shows who",
    ),
    Rule(
        0,
        r"etcdserver: |no leader|etcd cluster is unavailable",
        "no-etcd",
        "{what}: the cluster's store does not answer",
        "{words}",
        "look at etcd on the control plane, then run it again",
    ),
)


def explain(status: int, document: Mapping[str, Any], what: str) -> ApiError:
    """An answer that is no success, told. ``what`` was tried, as ``make Secret a/b``."""
    words = " ".join(str(document.get("message") or "it gave no reason").split())
    for rule in RULES:
        found = re.search(rule.words, words)
        if rule.status in (0, status) and found:
            values = _values(found.groupdict(), what, words)
            break
    else:
        code = "not-found" if status == 404 else "api-failed"
        rule = Rule(
            0,
            "",
            code,
            "{what}: " + ("it is not there" if status == 404 else f"HTTP {status}"),
            "{words}",
            "" if status == 404 else "run it again; the API server's log says more",
        )
        values = _values({}, what, words)
    problem = ApiError(
        rule.code,
        rule.message.format_map(values),
        status=status,
        reason=str(document.get("reason") or ""),
        words=words,
        go_on=str((document.get("metadata") or {}).get("continue") or ""),
        cause=rule.cause.format_map(values),
        cure=rule.cure.format_map(values),
    )
    if rule.wrong_use:
        problem.exit_code = Refused.exit_code
    return problem


def _values(groups: Mapping[str, str | None], what: str, words: str) -> dict[str, str]:
    values = {key: value or "" for key, value in groups.items()}
    values |= {"what": what, "words": words}
    if "verb" in values:
        namespace = values["namespace"]
        group = f".{values['group']}" if values["group"] else ""
        values["in_namespace"] = f" in namespace {namespace}" if namespace else " in the cluster"
        values["resource_group"] = values["resource"] + group
        values["grant"] = grant(
            values["user"], values["verb"], values["resource"] + group, namespace
        )
    return values


def grant(user: str, verb: str, resource: str, namespace: str) -> str:
    """The two commands by which an admin gives the right."""
    account = re.fullmatch(r"system:serviceaccount:([^:]+):([^:]+)", user)
    who = f"--serviceaccount={account[1]}:{account[2]}" if account else f"--user={user}"
    kind, place = ("role", ["-n", namespace]) if namespace else ("clusterrole", [])
    name = re.sub(r"[^a-z0-9-]+", "-", f"moorage-{verb}-{resource}")
    make = ["kubectl", "create", kind, name, f"--verb={verb}", f"--resource={resource}", *place]
    bind = ["kubectl", "create", f"{kind}binding", name, f"--{kind}={name}", who, *place]
    return f"{shlex.join(make)} && {shlex.join(bind)}"


@contextmanager
def nothing_changed_yet() -> Iterator[None]:
    """Around what is asked before the first change: see :func:`beforehand`."""
    try:
        yield
    except ApiError as problem:
        raise beforehand(problem) from None


def beforehand(problem: ApiError, others: int = 0) -> MoorageError:
    """An error met before anything was changed: what the server refuses is then exit 2.

    ``others``: how many more there were like it.
    """
    if not 400 <= problem.status < 500 or problem.status == 429:
        return problem
    more = f"; {others} more like it" if others else ""
    message = f"nothing was changed: {problem.message}{more}"
    return Refused.of(replace(problem.fault, message=message))


# -- no answer at all ----------------------------------------------------------------------

# Words of urllib3, OpenSSL and the C library -> code, cause, cure. The first that fits is said.
_NO_ANSWER = (
    (
        r"certificate has expired|certificate is not yet valid",
        "server-certificate",
        "the API server's certificate has expired or is not yet valid",
        "check `date` here, else renew it on the control plane: kubeadm certs renew all",
    ),
    (
        r"Hostname mismatch|IP address mismatch|doesn't match|not valid for",
        "server-certificate",
        "the API server's certificate is for another name",
        "use a name the certificate has, or set tls-server-name in the kubeconfig",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "server-certificate",
        "its certificate is not of the CA in the kubeconfig",
        "fetch the kubeconfig of this cluster again",
    ),
    (
        r"CERTIFICATE_EXPIRED|alert certificate|BAD_CERTIFICATE|alert unknown ca",
        "client-certificate",
        "the API server does not accept the client certificate of this context",
        "renew the credentials, or fetch the kubeconfig again",
    ),
    (
        # OpenSSL's words for a certificate or key that it cannot load, or that do not fit.
        r"PEM lib|KEY_VALUES_MISMATCH|NO_START_LINE|BAD_BASE64_DECODE",
        "client-certificate",
        "the client certificate of this context, or its key, is missing or damaged",
        "fetch the kubeconfig again",
    ),
    (
        r"WRONG_VERSION_NUMBER|record layer failure|HTTP_REQUEST",
        "not-tls",
        "what listens there does not speak TLS",
        "check scheme and port of the server in the kubeconfig",
    ),
    (
        r"Name or service not known|No address associated|Temporary failure in name resolution"
        r"|NameResolutionError",
        "unreachable",
        "its name does not resolve",
        "check the server's name in the kubeconfig, and DNS (a VPN, perhaps)",
    ),
    (
        r"Connection refused",
        "unreachable",
        "nothing listens there",
        "start the cluster, or name another one with --context",
    ),
    (
        r"No route to host|Network is unreachable",
        "unreachable",
        "there is no route to it",
        "check the network (a VPN, perhaps), or name another cluster with --context",
    ),
    (
        r"Unable to connect to proxy|ProxyError|Tunnel connection failed",
        "unreachable",
        "the proxy from HTTPS_PROXY or the kubeconfig does not let us through",
        "add the server to NO_PROXY, or correct the proxy",
    ),
    (
        r"[Tt]imed? ?out|TimeoutError",
        "unreachable",
        "it did not answer in time",
        "check the network and firewalls in between, or name another cluster with --context",
    ),
)


def no_answer(problem: Exception, what: str, where: Where, *, answered: bool) -> ApiError:
    """Why none comes. ``answered``: one came before, so that this may be a passing trouble."""
    words = f"{type(problem).__name__}: {problem}"
    for pattern, code, cause, cure in _NO_ANSWER:
        if re.search(pattern, words):
            if answered and code == "unreachable":
                break
            return ApiError(
                code,
                f"{what}: the API server {where.server} cannot be reached"
                if code == "unreachable"
                else f"{what}: no secure connection to {where.server}",
                cause=cause,
                cure=cure,
                words=words,
            )
    return ApiError(
        "connection-lost",
        f"{what}: the connection to {where.server} broke, even after several tries",
        cause=words[:300],
        cure="run it again; if it persists, look at the API server and what is in between",
        words=words,
    )
