"""Why a pull fails: the words of runtimes -> code, cause and cure. A table; pure.

The words are Go's, containerd's (1.6 to 2.1), Docker's (20.10 to 28) and Podman's (4.3, 5.4),
collected from real daemons (tests/agent/words, tests/k8s/messages.json). A row's words match what
they mean and nothing else: whatever fits no row is told as it is.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from agent.wire.faults import AgentError, TrustError
from agent.wire.plan import Registry
from agent.wire.runtimes.declared import RUNTIMES

# What a person types to see the same failure, and the folder where that runtime looks for
# certificates, by the kind of proof. Of several runtimes with one kind the first that tells counts.
_BY_HAND = {one.proves: one.by_hand for one in reversed(RUNTIMES) if one.by_hand}
_FOLDERS = {one.proves: one.certificates for one in reversed(RUNTIMES) if one.certificates}


IMAGE = "@image"  # stands for the image's name in the words that a row is compared with


class Trouble(NamedTuple):
    """A row of the table: the words it is known by, and what to say of it.

    The texts may use {name}, {host}, {port}, {image}, {now}, {path} (the file that the words name),
    {folder} (the registry's certificates), {pull} (the same pull by hand).
    ``elsewhere`` is the cure if another host than the registry is at fault; without it the row is
    always about the registry.
    """

    words: str
    code: str
    trust: bool
    message: str
    cause: str
    cure: str
    elsewhere: str = ""


_CA_ELSEWHERE = "give the runtime the CA of {name}: {folder}/ca.crt; or ask whoever runs {name}"
_REACH = "from the node: curl -v https://{name}/; or have the registry not send its clients there"

# A token server has no other words for a wrong login, for none, and for one that may not have the
# image: https://distribution.github.io/distribution/spec/auth/token/
_LOGIN_OR_RIGHT = (
    "{registry} refuses the login, or denies {image} to it",
    "the user name or the password is wrong, none was given, or this user may not pull it: "
    "a registry says the same of all three",
    "check the login with the registry: inv registry.status; then the user's rights there",
)

# First match wins.
TROUBLES: tuple[Trouble, ...] = (
    Trouble(
        r"no space left on device|[Dd]isk [Qq]uota exceeded",
        "disk-full", False,
        "the image does not fit on this node's disk",
        "the disk with the runtime's images is full",
        "make room (df -h), then run again",
    ),
    Trouble(
        r"failed to load X509 key pair|missing key \S+ for client certificate"
        r"|[Mm]issing client certificate \S+ for key|private key does not match public key",
        "client-certificate", True,
        "a client's certificate or key in {folder} keeps the runtime from asking {name}",
        "a *.cert there counts as a client's certificate and needs its *.key, and a *.key its "
        "*.cert; a CA's file has to end with .crt",
        "ls -l {folder}; rename a CA's file to *.crt, move half a pair away, then run again",
    ),
    Trouble(
        r"unable to (read|load) CA cert|\b(read|open) \S*certs\.d/",
        "ca-unreadable", True,
        "the runtime cannot read the CA file {path}",
        "the file is missing, is damaged, or is not a file",
        "ls -l {path}; move it away if it is not Moorage's, then: inv nodes.trust",
    ),
    Trouble(
        # Of a proxy that refuses, Go says the status' words alone, where a registry's status has
        # its number: https://go.dev/src/net/http/transport.go (dialConn, CONNECT).
        r"proxyconnect|[Pp]roxy Authentication Required"
        r"|(Head|Get)\s*: [A-Z][a-z]+( [A-Z][a-z]+)*\s*$",
        "proxy", False,
        "the runtime asks a proxy for the registry",
        "HTTPS_PROXY stands in its environment and the registry is not in NO_PROXY",
        "inv nodes.trust --fix-proxy, or add {host} to NO_PROXY of the service and restart it",
    ),
    Trouble(
        r"tls: (certificate required|bad certificate)",
        "client-wanted", False,
        "{name} wants a certificate of its clients",
        "it lets in only whoever presents a client's certificate (mutual TLS)",
        "put the pair beside the CA: {folder}/client.cert and {folder}/client.key",
    ),
    Trouble(
        r"fetch (anonymous|oauth) token: [^\n]*x509: certificate signed by unknown authority",
        "x509-unknown-authority", False,
        "the runtime does not trust {name}, the token server of {registry}",
        "its certificate is another CA's than the registry's; or this is Docker with containerd's "
        "image store, which asks for tokens with the system's CAs alone",
        "inv nodes.trust --system-store, then on the node: systemctl restart docker",
        "have the node trust the CA of {name}; Docker with containerd's image store: "
        "inv nodes.trust --system-store, then on the node: systemctl restart docker",
    ),
    Trouble(
        r"x509: certificate signed by unknown authority|unknown certificate authority",
        "x509-unknown-authority", True,
        "the runtime does not trust the certificate of {name}",
        "it does not read the CA where this agent put it, or the certificate is another CA's",
        "compare inv certs.show with what the registry presents; then inv nodes.trust again",
        _CA_ELSEWHERE,
    ),
    Trouble(
        r"x509: certificate is (valid for|not valid for any names)|legacy Common Name"
        r"|doesn't contain any IP SANs|x509: cannot validate certificate for",
        "x509-wrong-name", True,
        "the registry's certificate is for another name than {name}",
        "its subject alternative names do not have {host}",
        "issue it again with that name: inv certs.issue",
        "have whoever runs {name} issue its certificate with that name",
    ),
    Trouble(
        r"x509: certificate has expired or is not yet valid",
        "x509-expired", True,
        "the certificate of {name} has expired or is not yet valid",
        "its time is over, or this node's clock is wrong (it says {now})",
        "check `date` on the node, else issue it again: inv certs.issue",
        "check `date` on the node, else have whoever runs {name} issue it again",
    ),
    Trouble(
        r"x509:|tls: |remote error: tls",
        "tls-failed", True,
        "TLS with {name} fails",
        "the runtime and the server do not agree on a secure connection",
        "look at the runtime's words in this message",
        "look at the runtime's words in this message",
    ),
    Trouble(
        r"gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        "plain-http", True,
        "{name} answers plain HTTP where TLS is expected",
        "something other than the TLS registry listens on that port",
        "check the port, and that the registry serves TLS: inv registry.status",
        _REACH,
    ),
    Trouble(
        r"toomanyrequests|[Tt]oo [Mm]any [Rr]equests|rate limit|\b429 \(?[A-Z]",
        "rate-limit", False,
        "{name} limits how much is pulled",
        "this address or this login has pulled too much in a short time",
        "wait, then run again; a login, or a higher limit on the registry, helps for good",
        "wait, then run again; a login, or a higher limit on {name}, helps for good",
    ),
    Trouble(
        r"decode token response"
        r"|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b(40[0456]|5\d\d) \(?[A-Z]",
        "token-server", False,
        "the token server of {registry} issues no token",
        "whatever answers there is not a token server, or it is broken",
        "ask which one it is, then look at it: curl -si https://{registry}/v2/ | grep -i realm",
    ),
    Trouble(
        r"media type text/|\(text/html\)|invalid character '<'|<!DOCTYPE|<html"
        r"|pinging container registry [^\n]*\b404 \(",
        "not-a-registry", False,
        "whatever answers for {name} is not a registry",
        "it sends a web page: a proxy, a sign-in page or another service answers in its place, "
        "or in place of its token server",
        "look at the page from the node: curl -i https://{name}/v2/",
    ),
    Trouble(
        r"manifest\.v1\+|[Ss]chema ?(version)? ?1\b|no signatures|missing signature key"
        r"|no longer supported since containerd",
        "schema1", False,
        "{image} is in a format that this runtime reads no more",
        "its manifest is of schema 1, from before 2016 (or the registry made one for it)",
        "build and push it again",
    ),
    Trouble(
        r"could not fetch content descriptor .* not found|unknown blob|blob unknown|BLOB_UNKNOWN"
        r"|fetching blob: [^\n]*\b404 \(",
        "blob-missing", False,
        "{name} has lost a part of {image}",
        "its manifest is there and a blob that it names is not: a garbage collection ran "
        "beside a push, or the registry's storage lost it",
        "push it again",
    ),
    Trouble(
        r"verification failed for digest|does not match expected|unexpected commit (digest|size)"
        r"|failed size validation|short read: expected|read expected number of bytes",
        "content-damaged", False,
        "what arrives of {image} is not what its digest says",
        "the registry's storage is damaged, or something between answers in its place",
        "push it again; else pull past any proxy: {pull}",
    ),
    Trouble(
        r"unsupported media type|no processor for media-type|on artifact with type"
        r"|mismatched image rootfs and manifest layers|invalid (image )?rootfs",
        "not-an-image", False,
        "{image} is not an image that this runtime can unpack",
        "it is an artifact of another kind (a chart, a signature, a file), or was made by no "
        "image builder",
        "name an image",
    ),
    Trouble(
        r"no such host|server misbehaving|Temporary failure in name resolution",
        "name-unresolved", False,
        "the name {host} does not resolve on this node",
        "there is neither a hosts entry nor a DNS record for it",
        "let nodes.trust make a hosts entry (registry.address in invoke.yaml), or add a DNS record",
        "add a DNS record for {host}, or have the registry not send its clients there",
    ),
    Trouble(
        r"connection refused",
        "registry-refused", False,
        "{name} refuses the connection",
        "nothing listens on port {port} there",
        "start the registry: inv registry.up",
        _REACH,
    ),
    Trouble(
        r"no route to host|network is unreachable",
        "no-route", False,
        "there is no route from this node to {name}",
        "the address is wrong, or a network or firewall stands between",
        "check registry.address in invoke.yaml, then from the node: ip route get ADDRESS",
        _REACH,
    ),
    Trouble(
        r"\b500 \(?[A-Z]|Internal Server Error",
        "registry-broken", False,
        "{name} answers with an error of its own",
        "something in the registry, or in its storage, is broken",
        "read its log: inv registry.logs",
    ),
    Trouble(
        r"i/o timeout|deadline exceeded|Client\.Timeout|no answer within|handshake timeout"
        r"|\b50[234] \(?[A-Z]",
        "registry-timeout", False,
        "{name} did not answer in time",
        "the address is wrong, a firewall drops packets, or the registry is too busy",
        "check the way from the node to the registry, then run again",
        _REACH,
    ),
    Trouble(
        r"insufficient_scope|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b403 \(?[A-Z]",
        "login-refused", False, *_LOGIN_OR_RIGHT,
    ),
    Trouble(
        # A blob that is denied after the manifest was given is no matter of the login.
        r"\b403 \(?[A-Z]|StatusCode: 403"
        r"|(download failed after attempts=\d+|fetching blob): denied",
        "access-denied", False,
        "{registry} denies {image}",
        "this user may not pull it, or something before the registry blocks it",
        "give the user the right, or pull with another one",
    ),
    Trouble(
        r"pull access denied|(resource|access) is denied|access forbidden|^\s*denied\s*$"
        r"|: denied: ",
        "login-refused", False, *_LOGIN_OR_RIGHT,
    ),
    Trouble(
        r"\b401 \(?[A-Z]|[Uu]nauthorized|no basic auth credentials|authentication required"
        r"|incorrect username|invalid username/password",
        "login-refused", False,
        "{registry} refuses the login",
        "the user name or the password is wrong, or none was given",
        "check the login with the registry: inv registry.status",
    ),
    Trouble(  # before image-missing: containerd ends it with "not found" as well
        r"no match for platform|no matching manifest|no child with platform"
        r"|no image found in [^\n]* for architecture",
        "wrong-platform", False,
        "{image} is not made for this node's processor",
        "no manifest of it fits this platform",
        "build and push it for this platform too",
    ),
    Trouble(
        r"manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN"
        rf"|failed to resolve (reference|image)\b[^\n]*: not found\s*$|{IMAGE}: not found\s*$",
        "image-missing", False,
        "there is no image {image}",
        "the name or the tag is wrong, or it was never pushed",
        "push it (inv image.push), or name another image",
    ),
)  # fmt: skip

_NAMES = re.compile(
    r'"?https?://[^"\s]+"?|"[^"<]*"|sha256:[0-9a-f]+|\[manifests [^\]]*\]'
    r"|manifest \S+ in \S+|\bdenied for \S+|[\w.-]+:\d+\b(/[\w./-]+(:[\w.-]+)?)?"
)
# Podman tells of the mirrors it asked in vain, and then of the registry itself.
_MIRRORS = re.compile(r"\(Mirrors also failed: \[(?P<mirrors>.*)\]\): (?P<registry>.*)", re.DOTALL)
# The host of the last URL is the one at fault; a blob that Docker downloads comes without one, when
# the registry itself has answered already.
_SITE = re.compile(r"https?://([^/\s\"\\]+)")
_SENT_ON = re.compile(r"download failed after attempts=\d+: (x509|tls|dial)")


def classify(
    words: str, registry: Registry, image: str = "", said: bool = True, runtime: str = "cri"
) -> AgentError:
    """A complaint about a pull as an error with code, cause and cure; a TrustError if of trust.

    ``said`` quotes the words in the message: they are a runtime's own. ``runtime`` is ``cri``,
    ``docker`` or ``podman``, whose commands the cure names.
    """
    apart = _MIRRORS.search(words)
    decisive = apart["registry"] if apart else words
    values = _values(decisive, registry, image, runtime)
    row = _row(decisive, image)
    quoted = f" (it said: {words.strip()})" if said else ""
    if row is None:
        return AgentError(
            "pull-failed",
            f"the pull failed: {words.strip()}",
            cause="the runtime's words are not among those this agent knows",
            cure="try the same by hand on the node: {pull}".format(**values),
        )
    other = _other(decisive, registry) if row.elsewhere else ""
    if other:
        host, _, port = other.partition(":")
        values.update(name=other, host=host, port=port or "443")
        values["folder"] = f"{_FOLDERS[runtime]}/{other.replace(' ', '-')}"
        cause = f"{row.cause}; {registry.name} sends its clients there, or it is a mirror of it"
        return AgentError(
            row.code,
            row.message.format(**values) + quoted,
            cause.format(**values),
            row.elsewhere.format(**values),
        )
    kind = TrustError if row.trust else AgentError
    cause = row.cause.format(**values)
    if apart:
        cause += f"; the mirrors before it failed as well: {apart['mirrors']}"
    return kind(row.code, row.message.format(**values) + quoted, cause, row.cure.format(**values))


def _row(words: str, image: str) -> Trouble | None:
    """The first row that fits, by what is not a name, a URL or a digest: their digits say nothing.

    A tag stands in the words of containerd 1.6 and of Podman without the rest of its name.
    """
    plain = words.replace(image, IMAGE) if image else words
    plain = _NAMES.sub(" ", plain)
    return next((row for row in TROUBLES if re.search(row.words, plain)), None)


def _other(words: str, registry: Registry) -> str:
    """The host at fault if it is not the registry, or an empty string."""
    sites = _SITE.findall(words)
    if not sites:
        return "another host" if _SENT_ON.search(words) else ""
    ours = {name for one in registry.each for name in (one.name, f"{one.host}:{one.port}")}
    return "" if sites[-1] in ours else sites[-1]


def _values(words: str, registry: Registry, image: str, runtime: str) -> dict[str, object]:
    path = re.search(r'CA cert "([^"]+)"|\b(?:read|open) (/\S+?):', words)
    wanted = image or registry.name
    return {
        "registry": registry.name,
        "name": registry.name,
        "host": registry.host,
        "port": registry.port,
        "image": wanted,
        "now": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "path": (path[1] or path[2]) if path else "that it was pointed to",
        "folder": f"{_FOLDERS[runtime]}/{registry.name}",
        "pull": f"{_BY_HAND[runtime]} {wanted}",
    }
