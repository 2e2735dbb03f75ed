"""What cloud-init will do to the hosts file at the next boot.

With ``manage_etc_hosts`` it makes the file again from a template at each boot, so the template is
what an entry has to stand in (cloudinit/config/cc_update_etc_hosts.py). ``localhost`` changes one
line alone. Read in 22.4.2: ``helpers.ConfigMerger`` for the order, ``util.translate_bool`` and
PyYAML, which reads YAML 1.1, for what is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.node.tree import Tree

TEMPLATES = "/etc/cloud/templates"
_SYSTEM = "/etc/cloud/cloud.cfg"
_DROP_INS = "/etc/cloud/cloud.cfg.d"
_RUNTIME = "/run/cloud-init/cloud.cfg"
# What was given for this instance, as cloud-init has put it together from all its parts (multipart,
# Jinja, includes, JSON): of two that say something the later one here counts.
_INSTANCE = tuple(
    f"/var/lib/cloud/instance/{name}cloud-config.txt" for name in ("vendor-", "vendor2-", "")
)
_TRUE = frozenset(("true", "yes", "on", "1", "template"))

# OSFAMILIES in cloudinit/distros/__init__.py; in front, the words of os-release that differ.
_FAMILIES = {
    "debian": ("debian", "ubuntu", "raspberry-pi-os"),
    "redhat": ("rhel", "fedora", "centos", "rocky", "almalinux", "amzn", "amazon", "ol",
               "cloudlinux", "eurolinux", "miraclelinux", "virtuozzo", "openeuler", "openmandriva",
               "mariner", "azurelinux", "photon", "tencentos", "opencloudos"),
    "suse": ("suse", "sles", "opensuse", "sle-micro", "sle_hpc"),
    "alpine": ("alpine",),
    "arch": ("arch",),
    "gentoo": ("gentoo", "cos"),
    # Families of their own in some versions, members of redhat's in others.
    "photon": ("photon",),
    "openeuler": ("openeuler",),
    "openmandriva": ("openmandriva",),
    "mariner": ("mariner",),
    "azurelinux": ("azurelinux",),
}  # fmt: skip


def templates(tree: Tree) -> tuple[str, ...]:
    """The templates that the hosts file is made from at each boot; none where it is left alone."""
    said = ""
    for text in _texts(tree):
        said = _last(text, "manage_etc_hosts") or said
    # What Jinja will make of a value is known at boot: an entry too many does no harm.
    if said.lower() not in _TRUE and "{{" not in said:
        return ()
    paths = [
        f"{TEMPLATES}/hosts.{family}.tmpl"
        for family, members in _FAMILIES.items()
        if any(word.startswith(members) for word in _distributions(tree))
    ]
    return tuple(path for path in paths if tree.exists(path))


def _texts(tree: Tree) -> Iterator[str]:
    """The configurations, the one that counts most last."""
    drop_ins = [name for name in tree.names(_DROP_INS) if name.endswith(".cfg")]
    paths = (_SYSTEM, *(f"{_DROP_INS}/{name}" for name in drop_ins), _RUNTIME, *_INSTANCE)
    for path in paths:
        yield (tree.read(path).content or b"").decode("utf-8-sig", "replace")


def _last(text: str, key: str) -> str:
    """The value of a top-level key, "null" for an empty one, "" if the key is not there.

    A key that is there twice has its last value, as for PyYAML. The value may stand on the next
    line, and a document that is one flow mapping ({...}, so JSON too) has its keys inside.
    """
    quoted = f"[\"']?{key}[\"']?[ \t]*:(?=[ \t\r\n]|$)"
    flow = re.match(r"(?:[ \t]*(?:#.*|---.*)?\r?\n)*[ \t]*\{", text)
    before = r"[{,]\s*" if flow else "^"
    value = r"(?:[ \t]*(?:#.*)?\r?\n[ \t]+)?[ \t]*(?:!!\w+[ \t]+)?([\"']?)(\{\{|[\w.~-]*)\1"
    found = re.findall(f"{before}{quoted}{value}", text, re.MULTILINE)
    return (found[-1][1] or "null") if found else ""


def _distributions(tree: Tree) -> set[str]:
    """What this system is: cloud-init's own word (system_info.distro), else os-release's."""
    own = ""
    for text in _texts(tree):
        table = re.findall(
            r"^system_info:[^\n]*\n((?:[ \t]+[^\n]*\n|[ \t]*\n)*)", text + "\n", re.M
        )
        said = re.findall(r"^[ \t]+distro:[ \t]*[\"']?([\w-]+)", table[-1], re.M) if table else ()
        own = said[0] if said else own
    if own:
        return {own.lower()}
    release = (tree.read("/etc/os-release").content or b"").decode("utf-8", "replace")
    ids = re.findall(r"^ID(?:_LIKE)?=[\"']?([^\"'\n]*)", release, re.MULTILINE)
    return set(" ".join(ids).lower().split())
