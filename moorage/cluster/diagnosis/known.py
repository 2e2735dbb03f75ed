"""What is known beside the pods when a cause is looked for: Secrets, tags, logins, nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage.cluster.login import pull_secret
from moorage.cluster.symptoms import causes
from moorage.registry import Credentials


class NotAllowed:
    """Stands for a Secret that we may not read."""


NOT_ALLOWED = NotAllowed()
Secret = Mapping[str, Any] | NotAllowed | None


@dataclass(frozen=True)
class NodeImages:
    """What a node says of its images.

    ``names``: in full, as :func:`keyring.in_full` gives them; ``complete``: whether these are all,
    for a node names 50 images at most, unless its kubelet is told otherwise. ``kubelet``: its
    version; ``verification``: its imagePullCredentialsVerificationPolicy, "" for unknown.
    https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification
    """

    names: frozenset[str] = frozenset()
    complete: bool = True
    kubelet: str = ""
    verification: str = ""


@dataclass(frozen=True)
class Known:
    """What is known beside the pods.

    ``registry``: ours, by name; ``login``: the operator's, or that for somebody else's registry,
    None if unknown here; ``login_works``: whether the registry takes it right now, None if it
    cannot be asked; ``users``: who has a login there, as far as is known here. ``secrets``: by
    (namespace, name), None for one that is not there. ``in_namespace``: the names of Secrets for
    our registry by namespace. ``tags``: by repository of our registry; None: there is no such
    repository; a missing key: unknown. ``trusting``: nodes known to have the trust files in place,
    and by what. ``runtimes``: by node, as ``containerd 2.1.9``. ``accepted``: the logins of Secrets
    that our registry takes right now; ``pulls``: those it gives an image to, if it was asked, with
    that image. ``nodes``: what each says of its images. ``external``:
    somebody else runs our registry, so that it is neither started nor given a certificate here;
    ``presents``: the settings name a certificate that nodes show it. ``unvouched``: why the CA that
    is kept here does not vouch for what it presents, "" if it does, or was not asked.
    """

    registry: str
    image: str = ""
    login: Credentials | None = None
    login_works: bool | None = None
    users: frozenset[str] = frozenset()
    secrets: Mapping[tuple[str, str], Secret] = field(default_factory=dict, repr=False)
    in_namespace: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    trusting: Mapping[str, str] = field(default_factory=dict)
    runtimes: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[pull_secret.Login] = field(default=frozenset(), repr=False)
    pulls: frozenset[tuple[pull_secret.Login, str]] = field(default=frozenset(), repr=False)
    nodes: Mapping[str, NodeImages] = field(default_factory=dict)
    external: bool = False
    presents: bool = False
    unvouched: str = ""

    def is_ours(self, image: str) -> bool:
        """Whether an image is our registry's."""
        return causes.same_registry(causes.registry_of(image), self.registry)
