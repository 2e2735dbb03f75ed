"""Why a pull fails: the words of kubelets and runtimes -> cause and cure. A table; pure.

The words are Go's, containerd's (1.6 to 2.x), Docker's, CRI-O's and the kubelet's, collected from
real daemons (tests/k8s/messages.json) and from the kubelet's source (tests/k8s/kubelet.json). A
row's words match what they mean: what fits no row is told as it is. Codes are the agent's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorage.cluster.symptoms import keyring

# What a cause is a matter of; pods are grouped by it.
NODE, IMAGE, LOGIN, REGISTRY = "node", "image", "login", "registry"

# Commands of ours that cure a cause: the key of a fix in `moorage.cluster.workload.cures`.
TRUST, UP, ISSUE, SECRET, PUSH = "nodes.trust", "registry.up", "certs.issue", "k8s.secret", "push"
NO_PROXY = "nodes.trust --fix-proxy"


@dataclass(frozen=True)
class Cause:
    """A row. The texts may use {registry}, {host}, {image}, {nodes}, {namespaces}, {pod}, {why}.

    Those of a login may also use {asked} (the server as the image spells it), {anew} and {again}
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


_TRUST = "inv nodes.trust --hosts={nodes}"
_ISSUE = "inv certs.issue && inv registry.up"
_CA_THERE = "put that registry's CA on the nodes: certs.d/{registry}/ca.crt"
PRELOAD = "docker pull {image} && inv nodes.preload {image} --hosts={nodes}"
_WHO_ANSWERS = "from a node: curl -vL https://{registry}/v2/"

_LOGIN_OR_RIGHT = (
    "{registry} refuses the login, or denies {image} to it",
    "the login is wrong, none was given, or this user may not pull the image: a registry with a"
    " token server says the same of all three",
    "inv k8s.secret --namespace={namespaces} --attach",
    "{anew}",
    SECRET,
)

_LOGIN_NEEDED = (
    LOGIN,
    "{registry} refuses the login",
    "the user name or the password is wrong, or none was given",
    "inv k8s.secret --namespace={namespaces} --attach",
    "{anew}",
    SECRET,
)

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
        "client-certificate",
        r"failed to load X509 key pair|missing key \S+ for client certificate"
        r"|[Mm]issing client certificate \S+ for key|private key does not match public key",
        NODE,
        "a client's certificate or key keeps these nodes from asking {registry}",
        "a *.cert in certs.d counts as a client's certificate and needs its *.key, and a *.key its"
        " *.cert; a CA's file has to end with .crt",
        "on the node: ls -l /etc/containerd/certs.d/{registry} /etc/docker/certs.d/{registry}; then"
        " rename a CA's file to *.crt, or move half a pair away",
    ),
    Cause(
        "ca-unreadable",
        r"unable to (read|load) CA|failed to (read|load) CA|\b(read|open) [^ ]*/certs\.d/[^ ]*: ",
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
        "client-wanted",
        r"tls: (certificate required|bad certificate)",
        NODE,
        "{registry} wants a certificate of its clients",
        "it lets in only clients that present a certificate (mutual TLS)",
        "put the pair beside the CA on the nodes: certs.d/{registry}/client.cert and client.key",
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
        "inv registry.status; then inv registry.up",
        "check the port, or tell the runtime by hosts.toml that it is plain HTTP",
    ),
    Cause(
        "plain-to-https",
        r"HTTP request to an HTTPS server|malformed HTTP response"
        r"|(?<!<https> )\b400 Bad Request",
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
        "token-server",
        r"decode token response|decoding bearer token"
        r"|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b(40[0456]|5\d\d) \(?[A-Z]",
        REGISTRY,
        "the token server of {registry} issues no token",
        "whatever answers there is not a token server, or it is broken",
        "from a node: curl -si https://{registry}/v2/ | grep -i realm; then look at that address",
    ),
    Cause(
        "not-a-registry",
        r"media ?type[^\n]{0,20}text/|\(text/html\)|invalid character '[^']+' looking for"
        r"|<!DOCTYPE|<html|pinging container registry [^\n]*\b404\b",
        REGISTRY,
        "whatever answers for {registry} is not a registry",
        "it sends a web page in place of an image: a proxy, a sign-in page or another service"
        " answers",
        f"{_WHO_ANSWERS} shows who; past a proxy: inv nodes.trust --hosts={{nodes}} --fix-proxy",
        f"{_WHO_ANSWERS} shows who; past a proxy, add {{host}} to NO_PROXY of the runtime's unit",
    ),
    Cause(
        "schema1",
        r"manifest\.v1\+|[Ss]chema ?(version)? ?1\b|no signatures|missing signature key"
        r"|no longer supported since containerd",
        IMAGE,
        "{image} is in a format that this runtime no longer reads",
        "its manifest is of schema 1, from before 2016, or the registry made such a one for it",
        "build it again, then push it",
    ),
    Cause(
        "blob-missing",
        r"could not fetch content descriptor [^\n]*not found|unknown blob|blob unknown|BLOB_UNKNOWN"
        r"|fetching blob: [^\n]*\b404\b",
        IMAGE,
        "{registry} has lost a part of {image}",
        "its manifest is there, but a blob that the manifest names is not",
        "push it again",
    ),
    Cause(
        "content-damaged",
        r"verification failed for digest|does not match expected|unexpected commit (digest|size)"
        r"|failed size validation|short read: expected",
        IMAGE,
        "what arrives of {image} is not what its digest says",
        "the registry's storage is damaged, or something on the way answers in its place",
        f"push it again; if that does not help, {_WHO_ANSWERS}",
    ),
    Cause(
        "not-an-image",
        r"unsupported media type|no processor for media-type|on artifact with type"
        r"|mismatched image rootfs and manifest layers|invalid (image )?rootfs",
        IMAGE,
        "{image} is not an image that this runtime can unpack",
        "it is an artifact of another kind (a chart, a signature, a file)",
        "name an image in the pod's manifest",
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
        "registry-broken",
        r"\b500 \(?[A-Z]|Internal Server Error",
        REGISTRY,
        "{registry} answers with an error of its own",
        "something in the registry, or in its storage, is broken",
        "inv registry.logs",
        "read that registry's log",
        passing=True,
    ),
    Cause(
        "registry-timeout",
        r"i/o timeout|deadline exceeded|Client\.Timeout|TLS handshake timeout|unexpected EOF"
        r"|connection reset by peer|\b50[234]\b|because the registry is unavailable\s*$"
        r"|^RegistryUnavailable$",
        REGISTRY,
        "{registry} does not answer in time",
        "the address is wrong, a firewall drops packets, or the registry is too busy",
        "inv registry.status, then from a node: curl -v https://{registry}/v2/",
        "from a node: curl -v https://{registry}/v2/",
        passing=True,
    ),
    Cause(
        "login-refused",
        # The runtime had none to give, whatever it says of rights before that.
        r"no basic auth credentials",
        *_LOGIN_NEEDED,
    ),
    Cause(
        "login-refused",
        # A token server says the same of a wrong login, of none, and of one without the right:
        # https://distribution.github.io/distribution/spec/auth/token/
        r"insufficient_scope|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b403\b",
        LOGIN,
        *_LOGIN_OR_RIGHT,
        either=True,
    ),
    Cause(
        "access-denied",
        # A blob that is denied after the manifest was given is no matter of the login.
        r"\b403\b|Forbidden|download failed after attempts=\d+: denied|fetching blob: denied",
        LOGIN,
        "{registry} denies {image}",
        "this user may not pull it, its login has expired, or something before the registry blocks"
        " it",
        "give the user the right, or pull with another one: inv k8s.secret"
        " --namespace={namespaces} --credentials=FILE --replace",
        "give the user the right, or pull with another one: {anew}",
        either=True,
    ),
    Cause(
        "login-refused",
        r"pull access denied|(resource|access) is denied|access forbidden|[Aa]ccess denied"
        r"|(^|: )denied(: |\s*$)",
        LOGIN,
        *_LOGIN_OR_RIGHT,
        either=True,
    ),
    Cause(
        "login-refused",
        r"\b401\b|[Uu]nauthorized|authentication required|incorrect username"
        r"|invalid username/password|failed to authorize",
        *_LOGIN_NEEDED,
    ),
    Cause(
        "wrong-platform",  # before image-missing: containerd ends it with "not found" as well
        r"no match for platform|no matching manifest|no child with platform"
        r"|no image found in [^\n]* for architecture",
        IMAGE,
        "{image} is not made for the processor of these nodes",
        "no manifest of it fits their platform",
        "build and push it for that platform too",
    ),
    Cause(
        "image-missing",
        r"manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN"
        r"|failed to resolve (reference|image)\b[^\n]*: not found|(\S+/\S+[:@]\S+|^\s*): not found"
        r"|\b(repository|manifest for|image) \S+ not found|\b404 \(?[A-Z]",
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
        "{image} is not an image name",
        "it does not follow name:tag or name@digest, in lower case",
        "correct it in the pod's manifest",
    ),
    Cause(
        "never-pull",
        r"is not present with pull policy of Never|ErrImageNeverPull",
        IMAGE,
        "{image} is not on these nodes, and may not be pulled",
        "its imagePullPolicy is Never",
        f"{PRELOAD}; or set it to IfNotPresent",
    ),
    Cause(
        "signature-refused",
        r"signature validation failed|SignatureValidationFailed|[Ss]ource image rejected",
        IMAGE,
        "these nodes do not accept the signature of {image}",
        "their policy wants a signature that the image does not have",
        "sign the image, or correct /etc/containers/policy.json on {nodes}",
    ),
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
    "{anew}; then name it in imagePullSecrets",
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
    "{anew}",
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
    "{anew}, with the login that it was pulled with; then name it in imagePullSecrets",
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
    return keyring.repository(image).partition("/")[0]


# The host of the last address is the one at fault.
_SITE = re.compile(r"https?://([^/\s\"\\]+)")


def another_host(words: str, registry: str) -> str:
    """The host that a complaint is about, if it is another than the registry; "" if it is not."""
    found = _SITE.findall(_MIRRORS.sub("", words))
    site = str(found[-1]) if found else registry
    of_hub = registry == keyring.HUB and site.endswith(f".{keyring.HUB}")
    return "" if of_hub or same_registry(site, registry) else site


def same_registry(one: str, other: str) -> bool:
    """Whether two names are one registry: runtimes take port 443 for granted."""
    return one.removesuffix(":443") == other.removesuffix(":443")
