"""What a node says of a pull that fails: a runtime's words as an error. Pure."""

from __future__ import annotations

import re
import shlex
import time

from agent.wire.client_pair import is_refused
from agent.wire.faults import AgentError, TrustError
from agent.wire.plan import Registry
from agent.wire.runtimes.declared import RUNTIMES
from agent.wire.troubles.row import IMAGE_NAME, SITE, Row, Told
from agent.wire.troubles.table import rows

# What a person types to see the same failure, and the folder where that runtime looks for
# certificates, by the kind of proof. Of several runtimes with one kind the first that tells counts.
_BY_HAND = {one.proves: one.by_hand for one in reversed(RUNTIMES) if one.by_hand}
_FOLDERS = {one.proves: one.certificates for one in reversed(RUNTIMES) if one.certificates}
# A row's words match what they mean and nothing else: whatever fits no row is told as it is.
_ROWS = rows("node")
_REFUSED = next(row for row in _ROWS if row.code == "client-refused")
_UNSHOWN = Row(
    "client-wanted",
    "",
    False,
    Told(
        message="the runtime shows {name} no certificate, and {name} wants one of its clients",
        cause="it does not read the pair where this agent put it: a restart of it waits, or "
        "someone else's file applies to it",
        cure="restart the runtime if a restart waits (inv nodes.status), then: inv nodes.verify",
    ),
)

_NAMES = re.compile(
    r'"?https?://[^"\s]+"?|"[^"<]*"|sha256:[0-9a-f]+|\[manifests [^\]]*\]'
    r"|manifest \S+ in \S+|\bdenied for \S+|[\w.-]+:\d+\b(/[\w./-]+(:[\w.-]+)?)?"
)
# Podman tells of the mirrors it asked in vain, and then of the registry itself.
_MIRRORS = re.compile(r"\(Mirrors also failed: \[(?P<mirrors>.*)\]\): (?P<registry>.*)", re.DOTALL)
# Docker downloads a blob without naming a URL, when the registry itself has answered already.
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
    other = _other(decisive, registry) if row.told.elsewhere else ""
    if row.code == "client-wanted" and registry.client is not None and not other:
        # The registry takes the pair from this agent, which asks it before any runtime does.
        row = _UNSHOWN if said else _REFUSED if is_refused(decisive, True) else row
    if other:
        host, _, port = other.partition(":")
        values.update(name=other, host=host, port=port or "443")
        values["folder"] = f"{_FOLDERS[runtime]}/{other.replace(' ', '-')}"
        cause = (
            f"{row.told.cause}; {registry.name} sends its clients there, or it is a mirror of it"
        )
        return AgentError(
            row.code,
            row.told.message.format(**values) + quoted,
            cause.format(**values),
            row.told.elsewhere.format(**values),
        )
    kind = TrustError if row.trust else AgentError
    cause = row.told.cause.format(**values)
    if apart:
        cause += f"; the mirrors before it failed as well: {apart['mirrors']}"
    return kind(
        row.code, row.told.message.format(**values) + quoted, cause, row.told.cure.format(**values)
    )


def _row(words: str, image: str) -> Row | None:
    """The first row that fits, by what is not a name, a URL or a digest: their digits say nothing.

    A tag stands in the words of containerd 1.6 and of Podman without the rest of its name.
    """
    plain = words.replace(image, IMAGE_NAME) if image else words
    plain = _NAMES.sub(" ", plain)
    return next((row for row in _ROWS if re.search(row.words, plain)), None)


def _other(words: str, registry: Registry) -> str:
    """The host at fault if it is not the registry, or an empty string."""
    sites = SITE.findall(words)
    if not sites:
        return "another host" if _SENT_ON.search(words) else ""
    ours = {name for one in registry.each for name in (one.name, f"{one.host}:{one.port}")}
    return "" if sites[-1] in ours else sites[-1]


def _values(words: str, registry: Registry, image: str, runtime: str) -> dict[str, object]:
    path = re.search(r'CA cert "([^"]+)"|\b(?:read|open) (/\S+?):', words)
    named = (path[1] or path[2]) if path else ""
    folder = f"{_FOLDERS[runtime]}/{registry.name}"
    wanted = image or registry.name
    return {
        "registry": registry.name,
        "name": registry.name,
        "host": registry.host,
        "port": registry.port,
        "image": wanted,
        "now": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "path": named or "that it was pointed to",
        "typed": shlex.quote(named or folder),
        "folder": folder,
        "pull": f"{_BY_HAND[runtime]} {wanted}",
    }
