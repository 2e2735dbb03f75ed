"""How what is ours is known in a cluster: names, labels, annotations, the field manager."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moorage.errors import Refused
from moorage.settings import REPOSITORY, TAG

if TYPE_CHECKING:
    from moorage.settings import Settings

# Server-side apply keeps a list of who owns which field; this is our name there.
FIELD_MANAGER = "moorage"

# https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
MANAGED_BY = "app.kubernetes.io/managed-by"
# Ours alone: `managed-by` is a word anybody may use.
PART = "moorage.dev/part"
REGISTRY = "moorage.dev/registry"
# On a ServiceAccount: the Secrets that we put into its imagePullSecrets, so that we take back
# these only.
ATTACHED = "moorage.dev/attached"

# https://github.com/distribution/reference: [domain/]path[:tag][@digest]
_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/"
_IMAGE = re.compile(
    rf"(?:{_DOMAIN})?{REPOSITORY.pattern}(?::{TAG.pattern})?(?:@sha256:[0-9a-f]{{64}})?"
)

# RFC 1123 label, as Kubernetes wants namespaces; names of most objects may have dots as well.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def labels(settings: Settings, part: str) -> dict[str, str]:
    """The labels of everything we make: ``part`` is ``secret``, ``workload`` or ``agents``."""
    return {
        MANAGED_BY: "moorage",
        PART: part,
        REGISTRY: registry_label(settings.registry_name),
    }


def registry_label(name: str) -> str:
    """A registry's name as a label's value, which allows no colon and 63 characters."""
    return name.replace(":", "_")[:63].rstrip("-_.")


def labels_of(document: Mapping[str, Any]) -> dict[str, str]:
    """An object's labels."""
    return dict(document.get("metadata", {}).get("labels") or {})


def is_ours(document: Mapping[str, Any]) -> bool:
    """Whether an object carries both of our marks."""
    found = labels_of(document)
    return found.get(MANAGED_BY) == "moorage" and PART in found


def check_namespace(name: str) -> str:
    """The name itself. Raises Refused if it can be no namespace's."""
    if not _LABEL.fullmatch(name):
        raise _no_name("namespace", name, "at most 63 of a-z, 0-9 and '-'")
    return name


def check_object_name(kind: str, name: str) -> str:
    """The name itself. Raises Refused if it can be no object's (RFC 1123 subdomain)."""
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise _no_name(kind, name, "at most 253 of a-z, 0-9, '-' and '.'")
    return name


def check_image(name: str) -> str:
    """The name itself. Raises Refused if it can be no image's: a pod would wait for ever."""
    if len(name) > 500 or not _IMAGE.fullmatch(name):
        raise Refused(
            "bad-image",
            f"{name[:200]!r} cannot be the name of an image",
            cause="expected REGISTRY/NAME:TAG; NAME in lower case, without spaces",
            cure="correct the name, as my.registry.io/serve_hostname:0.0.1",
        )
    return name


def _no_name(kind: str, name: str, rule: str) -> Refused:
    return Refused(
        "bad-name",
        f"{name!r} cannot be the name of a {kind}",
        cause=f"Kubernetes wants {rule}, beginning and ending with a letter or digit",
        cure="correct the name",
    )
