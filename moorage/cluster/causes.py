"""Why a pull fails: the words of kubelets and runtimes -> cause and cure. A table; pure.

The words are Go's, containerd's (1.6 to 2.x), Docker's and the kubelet's, collected from real
daemons (tests/k8s/messages.json). Codes are the same as the agent's (agent/verify.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What a cause is a matter of; pods are grouped by it.
NODE, IMAGE, LOGIN, REGISTRY = "node", "image", "login", "registry"

# Commands of ours that cure a cause: the key of a fix in `moorage.cluster.cures`.
TRUST, UP, ISSUE, SECRET, PUSH = "nodes.trust", "registry.up", "certs.issue", "k8s.secret", "push"
NO_PROXY = "nodes.trust --fix-proxy"


@dataclass(frozen=True)
class Cause:
    """A row. The texts may use {registry}, {host}, {image}, {nodes}, {namespaces}, {pod}.

    ``cure`` is for our own registry, ``elsewhere`` for any other; ``fix`` names the command of
    ours that does it. ``passing``: it may go away by itself, so waiting for it makes sense.
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


_TRUST = "inv nodes.trust --hosts={nodes}"
_ISSUE = "inv certs.issue && inv registry.up"
_CA_THERE = "put that registry's CA on the nodes: certs.d/{registry}/ca.crt"

# The first row that fits is said.
CAUSES: tuple[Cause, ...] = (
    Cause(
        "runtime-down",
        r"dial unix [^ ]*\.sock: |unknown service runtime\.v1(alpha2)?\.",
        NODE,
        "the container runtime does not serve",
        "containerd is stopped, or its CRI plugin did not load",
        "on the node: journalctl -u containerd -n 50; ctr plugins ls",
        passing=True,
    ),
    Cause(
        "ca-unreadable",
        r"unable to (read|load) CA|failed to (read|load) CA|failed to load X509 key pair"
        r"|open [^ ]*/certs\.d/[^ ]*: ",
        NODE,
        "the runtime cannot read the CA file it was pointed to",
        "the file that hosts.toml names is missing or damaged",
        _TRUST,
        _CA_THERE,
        TRUST,
    ),
    Cause(
        "proxy",
        # Of a proxy that refuses, Go says the status' words alone, where a registry's status has
        # its number: https://go.dev/src/net/http/transport.go (dialConn, CONNECT).
        r"proxyconnect|[Pp]roxy [Aa]uthentication [Rr]equired|\b407\b"
        r"|(Head|Get)\s*: [A-Z][a-z]+( [A-Z][a-z]+)*\s*($|[\";])",
        NODE,
        "the runtime asks a proxy for {registry}",
        "HTTPS_PROXY stands in its environment and {host} is not in NO_PROXY",
        "inv nodes.trust --hosts={nodes} --fix-proxy",
        "add {host} to NO_PROXY of the runtime's unit on {nodes}, then restart it",
        NO_PROXY,
    ),
    Cause(
        "x509-common-name",
        r"x509: certificate relies on legacy Common Name",
        REGISTRY,
        "the certificate of {registry} has its name in the old place only",
        "it names {host} as Common Name; runtimes read subject alternative names alone",
        _ISSUE,
        "have it issued again with {host} as subject alternative name",
        ISSUE,
    ),
    Cause(
        "x509-wrong-name",
        r"x509: certificate is (valid for|not valid for any names)|doesn't contain any IP SANs"
        r"|x509: cannot validate certificate for",
        REGISTRY,
        "the certificate of {registry} is for another name",
        "{host} is not among its subject alternative names",
        _ISSUE,
        "have it issued again with {host} as subject alternative name",
        ISSUE,
    ),
    Cause(
        "x509-not-yet-valid",
        r"x509: certificate has expired or is not yet valid: current time \S+ is before",
        NODE,
        "the certificate of {registry} is not valid yet on these nodes",
        "their clocks are behind, or the registry's was ahead when it was issued",
        "compare `date` on {nodes} with this machine's, and set them right (NTP)",
    ),
    Cause(
        "x509-expired",
        r"x509: certificate has expired or is not yet valid",
        REGISTRY,
        "the certificate of {registry} has expired",
        "its time is over (or the nodes' clocks are ahead)",
        _ISSUE,
        "have it issued again",
        ISSUE,
    ),
    Cause(
        "x509-unknown-authority",
        r"x509: certificate signed by unknown authority|unknown certificate authority"
        r"|x509: certificate is not trusted|not trusted by the trust provider",
        NODE,
        "these nodes do not trust the certificate of {registry}",
        "the runtime does not find its CA where it looks for it, or it is another CA's",
        _TRUST,
        _CA_THERE,
        TRUST,
    ),
    Cause(
        "tls-failed",
        r"x509: |tls: |remote error: tls",
        REGISTRY,
        "TLS with {registry} fails",
        "the runtime and the registry do not agree on a secure connection",
        "inv registry.status; inv certs.show",
        "look at the runtime's words below",
    ),
    Cause(
        "plain-http",
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS",
        REGISTRY,
        "{registry} answers plain HTTP where TLS is expected",
        "something other than a TLS registry listens on that port",
        "inv registry.status says who listens; inv registry.up",
        "check the port, or tell the runtime by hosts.toml that it is plain HTTP",
    ),
    Cause(
        "plain-to-https",
        r"HTTP request to an HTTPS server|malformed HTTP response|\b400 Bad Request",
        NODE,
        "these nodes speak plain HTTP to the TLS port of {registry}",
        "their configuration names it with http:// (hosts.toml, or insecure-registries)",
        _TRUST,
        "name it with https:// in certs.d/{registry}/hosts.toml",
        TRUST,
    ),
    Cause(
        "rate-limit",
        r"toomanyrequests|\b429\b|[Tt]oo [Mm]any [Rr]equests|rate limit",
        REGISTRY,
        "{registry} limits how much is pulled",
        "too many pulls from this address or login",
        "wait, log in, or mirror the image into your own registry",
        passing=True,
    ),
    Cause(
        "name-unresolved",
        r"no such host|server misbehaving|[Tt]emporary failure in name resolution"
        r"|dial tcp: lookup ",
        NODE,
        "the name {host} does not resolve on these nodes",
        "there is neither a hosts entry nor a DNS record for it",
        _TRUST,
        "add a DNS record for {host}, or a hosts entry on {nodes}",
        TRUST,
    ),
    Cause(
        "registry-refused",
        r"connection refused",
        REGISTRY,
        "{registry} refuses the connection",
        "nothing listens there",
        "inv registry.up",
        "start that registry, or correct its name and port",
        UP,
        passing=True,
    ),
    Cause(
        "no-route",
        r"no route to host|network is unreachable|host is down",
        NODE,
        "there is no route from these nodes to {registry}",
        "the address is wrong, or a network or firewall stands between",
        "check registry.address, then from a node: ip route get ADDRESS",
        "from a node: ip route get ADDRESS of {host}",
        passing=True,
    ),
    Cause(
        "registry-timeout",
        r"i/o timeout|deadline exceeded|Client\.Timeout|TLS handshake timeout|unexpected EOF"
        r"|connection reset by peer|\b50[234]\b",
        REGISTRY,
        "{registry} does not answer in time",
        "the address is wrong, a firewall drops packets, or the registry is too busy",
        "inv registry.status, then from a node: curl -v https://{registry}/v2/",
        "from a node: curl -v https://{registry}/v2/",
        passing=True,
    ),
    Cause(
        "login-refused",
        r"\b401\b|[Uu]nauthorized|no basic auth credentials|authentication required"
        r"|incorrect username|failed to authorize",
        LOGIN,
        "{registry} refuses the login",
        "the user name or the password is wrong, or none was given",
        "inv k8s.secret --namespace={namespaces} --attach",
        "make a Secret for {registry}: kubectl create secret docker-registry",
        SECRET,
    ),
    Cause(
        "access-denied",
        r"\b403\b|[Ff]orbidden|denied",
        LOGIN,
        "{registry} accepts the login but denies the image",
        "this user may not pull it",
        "give the user the right, or pull with another one: inv k8s.secret --credentials FILE",
        "give the user the right, or pull with another one",
    ),
    Cause(
        "wrong-platform",  # before image-missing: containerd ends it with "not found" as well
        r"no match for platform|no matching manifest|no child with platform",
        IMAGE,
        "{image} is not made for the processor of these nodes",
        "no manifest of it fits their platform",
        "build and push it for that platform too",
    ),
    Cause(
        "image-missing",
        r"not found|manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN|does not exist"
        r"|\b404\b",
        IMAGE,
        "there is no image {image}",
        "the name or the tag is wrong, or it was never pushed",
        "push it, or name one that is there",
        "push it, or name one that is there",
    ),
    Cause(
        "disk-full",
        r"no space left on device|[Dd]isk [Qq]uota exceeded",
        NODE,
        "the disk of these nodes is full",
        "the image does not fit where the runtime keeps its images",
        "make room on {nodes}: crictl rmi --prune; df -h",
    ),
    Cause(
        "bad-image-name",
        r"couldn't parse image|[Ii]nvalid(ImageName| reference format)"
        r"|Failed to apply default image",
        IMAGE,
        "{image} is no image name",
        "it does not follow name:tag or name@digest, in lower case",
        "correct it in the pod's manifest",
    ),
    Cause(
        "never-pull",
        r"is not present with pull policy of Never|ErrImageNeverPull",
        IMAGE,
        "{image} is not on these nodes, and may not be pulled",
        "its imagePullPolicy is Never",
        "set it to IfNotPresent, or load the image into the nodes",
    ),
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
    "kubectl create secret docker-registry NAME --docker-server={registry} -n {namespaces}",
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
    "make it in {namespaces} too",
    SECRET,
)
OTHER_SERVER = Cause(
    "secret-other-server",
    "",
    LOGIN,
    "the Secret of these pods is for another server than {registry}",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "make it again with --docker-server={registry}",
    SECRET,
)
WRONG_TYPE = Cause(
    "secret-wrong-type",
    "",
    LOGIN,
    "the Secret that these pods name holds no login for a registry",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "make it again: kubectl create secret docker-registry",
    SECRET,
)
WRONG_LOGIN = Cause(
    "secret-wrong-login",
    "",
    LOGIN,
    "the Secret of these pods has a login that {registry} refuses",
    "{why}",
    "inv k8s.secret --namespace={namespaces} --replace",
    "make it again with the right password",
    SECRET,
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
CONFIG_PATH = Cause(
    "config-path-ignored",
    "",
    NODE,
    "the trust is on these nodes, but their runtime does not read it",
    "{why}",
    _TRUST,
    "let config_path in config.toml name one single folder, then restart containerd",
    TRUST,
)
NO_EVIDENCE = Cause(
    "no-evidence",
    "",
    NODE,
    "these pods wait before the next try, and nobody remembers why the last one failed",
    "the kubelet waits up to five minutes, and events are kept for an hour",
    "kubectl delete pod {pod} (its owner makes it anew), then run this again",
    passing=True,
)
UNKNOWN = Cause(
    "pull-failed",
    "",
    IMAGE,
    "the pull of {image} fails for a reason that is not in our table",
    "see the runtime's words below",
    "try it on a node: crictl pull {image}",
)


def classify(words: str) -> Cause:
    """The row that fits a complaint; UNKNOWN where none does."""
    # The image and the asked URL stand in the complaint; what is in them must not count.
    plain = re.sub(r'"?https?://[^"\s]+"?|sha256:[0-9a-f]+|"[^"\s]*[/:][^"\s]*"', " ", words)
    for row in CAUSES:
        if re.search(row.words, plain):
            return row
    return UNKNOWN


def registry_of(image: str) -> str:
    """The registry that an image's name stands for, as runtimes read it: ``docker.io`` by default.

    https://github.com/distribution/reference/blob/main/normalize.go
    """
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first
    return "docker.io"
