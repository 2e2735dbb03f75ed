"""Pods whose image does not come: found in what the API says of a pod and its events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moorage.cluster import ours

# Why a container waits, where the image is the reason (kubelet/images/types.go).
PULL_REASONS = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    )
)
# https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror
_MIRROR = "kubernetes.io/config.mirror"
_LISTS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True)
class Stuck:
    """One container that cannot get its image.

    ``words``: the last complaint known, "" where there is none any more. ``owner``: the controller
    of the pod, as ``ReplicaSet/name``, "" for none; ``owner_api``: its group and version.
    ``runs``: another container of the pod runs, or has run, beside native sidecars, for which
    ``sidecar`` says it. ``mirror``: a static pod's copy in the API. ``ephemeral``: the container is
    one of ``kubectl debug``. ``last_try``: its Job counts a deleted pod as its last failure.
    """

    namespace: str
    pod: str
    uid: str
    node: str
    container: str
    image: str
    reason: str
    words: str
    secrets: tuple[str, ...] = ()
    account: str = "default"
    owner: str = ""
    runs: bool = False
    ours: bool = False
    owner_api: str = ""
    sidecar: bool = False
    mirror: bool = False
    ephemeral: bool = False
    last_try: bool = False

    @property
    def name(self) -> str:
        return f"{self.namespace}/{self.pod}"


def containers(pod: Mapping[str, Any]) -> list[Stuck]:
    """The containers of a pod that cannot get their image; [] for a healthy one."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    if metadata.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return []
    found = []
    statuses = [one for key in _LISTS for one in status.get(key) or ()]
    for one in statuses:
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in PULL_REASONS:
            found.append(_stuck(pod, one["name"], reason, waiting.get("message") or "", statuses))
    return found


def _stuck(
    pod: Mapping[str, Any], container: str, reason: str, message: str, statuses: list[Any]
) -> Stuck:
    spec, metadata = pod["spec"], pod["metadata"]
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    sidecars = _sidecars(spec)
    return Stuck(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName", ""),
        container=container,
        image=_image(spec, container),
        reason=reason,
        words="" if _says_nothing(message) else message,
        secrets=tuple(one["name"] for one in spec.get("imagePullSecrets") or () if "name" in one),
        account=spec.get("serviceAccountName") or "default",
        owner=f"{owner['kind']}/{owner['name']}" if owner else "",
        runs=any(_has_run(one) for one in statuses if one["name"] not in sidecars),
        ours=ours.is_ours(pod),
        owner_api=owner.get("apiVersion", "") if owner else "",
        sidecar=any(_has_run(one) for one in statuses if one["name"] in sidecars),
        mirror=_MIRROR in (metadata.get("annotations") or {}),
        ephemeral=_holds(spec, "ephemeralContainers", container),
    )


def _has_run(status: Mapping[str, Any]) -> bool:
    return bool("running" in (status.get("state") or {}) or status.get("restartCount"))


def _sidecars(spec: Mapping[str, Any]) -> frozenset[str]:
    """Init containers that stay beside the others: they do no work of their own.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    listed = spec.get("initContainers") or ()
    return frozenset(one["name"] for one in listed if one.get("restartPolicy") == "Always")


def _holds(spec: Mapping[str, Any], key: str, container: str) -> bool:
    return any(one.get("name") == container for one in spec.get(key) or ())


def _image(spec: Mapping[str, Any], container: str) -> str:
    """As the manifest names it: a status may show the name the runtime resolved it to."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(key) or ():
            if one.get("name") == container:
                return str(one.get("image", ""))
    return ""


def _says_nothing(message: str) -> bool:
    """Older kubelets say only that they wait; newer ones append why."""
    return message.startswith("Back-off pulling image") and "ErrImagePull:" not in message


@dataclass(frozen=True)
class Complaint:
    """What an event said of a pull, and when (RFC 3339, which sorts as text)."""

    words: str
    when: str


def complaints(events: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Complaint]:
    """Events -> the newest complaint about a pull by (pod's uid, container)."""
    found: dict[tuple[str, str], Complaint] = {}
    for event in events:
        message = event.get("message") or ""
        # "Error: ErrImagePull" has the same reason and says nothing.
        if "pull" not in message.lower() or message.startswith(("Error: ", "Back-off pulling")):
            continue
        about = event.get("involvedObject") or {}
        place = about.get("fieldPath") or ""
        container = place.partition("{")[2].rstrip("}")
        when = event.get("lastTimestamp") or event.get("eventTime") or ""
        when = (event.get("series") or {}).get("lastObservedTime") or when
        key = (about.get("uid", ""), container)
        if key not in found or found[key].when <= when:
            found[key] = Complaint(message, when)
    return found
