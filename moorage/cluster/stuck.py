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
_LISTS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True)
class Stuck:
    """One container that cannot get its image.

    ``words``: the last complaint known, "" where there is none any more. ``owner``: what will
    make the pod anew when it is deleted, as ``ReplicaSet/name``; "" for none. ``runs``: another
    container of the pod runs, or has run.
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
        runs=any("running" in (s.get("state") or {}) or s.get("restartCount") for s in statuses),
        ours=ours.is_ours(pod),
    )


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
