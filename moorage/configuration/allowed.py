"""What one setting may be, as data: :mod:`.parsing` holds it, and the JSON Schema says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from moorage import platforms
from moorage.settings import COMPONENT, REPOSITORY, TAG

# RFC 1123, section 2.1, in the lower case that image references demand.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Span(NamedTuple):
    """The least and the greatest value of a whole number, and what such a number is called."""

    low: int
    high: int
    kind: str


class Form(NamedTuple):
    """What a word has to match as a whole, and how that is said."""

    pattern: str
    expected: str


class WordList(NamedTuple):
    """Words by their usual names, others that stand for one of them, and who knows which."""

    names: tuple[str, ...]
    others: tuple[str, ...]
    usual: Callable[[Sequence[str]], tuple[str, ...]]


_PORT = Span(1, 65535, "port")
_DAYS = Span(1, 36500, "number of days")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/: a pod's name becomes
# its host name and a label's value.
_DURATION = r"[0-9]{1,6}[smhdw]"
_OBJECT = Form(LABEL.pattern, "a name of a-z, 0-9 and '-', at most 63")
SPANS: Mapping[str, Span] = {
    "registry.port": _PORT,
    "registry.metrics_port": _PORT,
    "certs.days": _DAYS,
    "certs.ca_days": _DAYS,
    "certs.renew_before": Span(0, 36499, "number of days"),
    "nodes.agent_port": _PORT,
    "nodes.connect_timeout": Span(1, 1000, "number"),
    "nodes.parallel": Span(1, 1000, "number"),
    "nodes.retries": Span(0, 20, "number"),
    "upkeep.keep": Span(0, 999999, "number of tags"),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "certs.key": ("ec-p256", "rsa-4096"),
    "nodes.insecure": ("http", ""),
}
# What each word of a list may be.
EACH: Mapping[str, WordList] = {
    "image.platforms": WordList(tuple(platforms.PLATFORMS), tuple(platforms.SAME), platforms.unique)
}
FORMS: Mapping[str, Form] = {
    "engine.data": Form(r"([/~][^\x00]*)?", "a folder from the root (/…)"),
    "registry.user": Form(
        r"[A-Za-z0-9._@+$-]{1,64}", "1 to 64 letters, digits, '.', '_', '-', '@', '+' and '$'"
    ),
    "registry.container": Form(
        r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}", "a container's name, as moorage-registry"
    ),
    "registry.data": Form(r"[^\x00]*[^\x00\s][^\x00]*", "a folder"),
    "certs.dir": Form(r"[^\x00]*[^\x00\s][^\x00]*", "a folder"),
    "image.name": Form(REPOSITORY.pattern, "a repository name in lower case, as a/b_c"),
    "image.tag": Form(TAG.pattern, "a tag: letters, digits, '_', '.', '-'; at most 128"),
    # {registry} comes last, so that two registries never meet at one path.
    "nodes.mirror_path": Form(
        rf"|(?:{COMPONENT}/)*\{{registry\}}",
        "{registry}, a path before it such as mirror/{registry}, or nothing",
    ),
    "lab.prefix": Form(
        r"[a-z]([a-z0-9-]{0,38}[a-z])?", "a-z, 0-9 and '-', at most 40; a letter first and last"
    ),
    "lab.mirror": Form(r"auto|https?://\S+", "auto, or an http address"),
    "lab.kubernetes_version": Form(
        r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", "a version such as 1.20.2"
    ),
    # Checksums come from the same place, so only TLS tells that it is the right one.
    "lab.kubernetes_release": Form(
        r"|https://\w.*|http://(127\.0\.0\.1|localhost)[:/].*", "an https address"
    ),
    "kubernetes.secret": _OBJECT,
    "kubernetes.pod": _OBJECT,
    "upkeep.older_than": Form(f"({_DURATION})?", "a number and one of s, m, h, d and w, as 30d"),
    "upkeep.grace": Form(_DURATION, "a number and one of s, m, h, d and w, as 1h"),
    "upkeep.at": Form(r"([01][0-9]|2[0-3]):[0-5][0-9]", "a time of the day in quotes, as '03:17'"),
    "upkeep.textfile": Form(
        r"|[/~][^\x00\n]*[^/\x00\n]\.prom", "a file from the root (/…) that ends with .prom"
    ),
}
