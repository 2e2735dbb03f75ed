"""Pods whose image does not come: found in what the API says of a pod and its events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moorage.cluster.api import ours
from moorage.cluster.symptoms import keyring

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


# The reason of a pod whose sandbox cannot get its image, and of the events that say so.
SANDBOX = "FailedCreatePodSandBox"
# Why a container waits until its pod's sandbox is there.
_BEFORE_SANDBOX = frozenset(("", "ContainerCreating", "PodInitializing"))
# Since 1.29 a kubelet says itself whether the sandbox is there; before 1.28 by another name.
_SANDBOX_READY = ("PodReadyToStartContainers", "PodHasNetwork")
# What containerd, dockershim (cri-dockerd, too) and CRI-O say of the sandbox's image.
_SANDBOX_IMAGE = re.compile(
    r'sandbox image \\?"(?P<containerd>[^"\\]+)|failed pulling image \\?"(?P<docker>[^"\\]+)'
    r"|initializing source docker://(?P<crio>\S+?)(?=: |$)"
)


@dataclass(frozen=True)
class Stuck:
    """One container that cannot get its image, or that of an image volume it mounts.

    ``words``: the last complaint known, "" if there is none any more. ``owner``: the controller
    of the pod, as ``ReplicaSet/name``, "" for none; ``owner_api``: its group and version.
    ``runs``: another container of the pod runs, or has run, beside native sidecars, for which
    ``sidecar`` says it. ``mirror``: a static pod's copy in the API. ``ephemeral``: the container is
    one of ``kubectl debug``. ``last_try``: its Job counts a deleted pod as its last failure.
    ``policy``: the imagePullPolicy of the image.
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
    policy: str = ""

    @property
    def of_sandbox(self) -> bool:
        """Whether it is the image of the pod's sandbox, which stands for all its containers."""
        return self.reason == SANDBOX

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
    image, policy = _image(spec, container, message)
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    sidecars = _sidecars(spec)
    return Stuck(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName", ""),
        container=container,
        image=image,
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
        policy=policy,
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


def sandbox(pod: Mapping[str, Any]) -> Stuck | None:
    """A pod on a node that waits for its sandbox, whose image may be why: events say so.

    None for one whose sandbox is there, and for one that ends.
    """
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    ends = pod["metadata"].get("deletionTimestamp") or status.get("phase") in (
        "Succeeded",
        "Failed",
    )
    if ends or not spec.get("nodeName") or _has_sandbox(status, spec):
        return None
    return replace(_stuck(pod, "", SANDBOX, "", []), image="")


def _has_sandbox(status: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    states = [one.get("state") or {} for key in _LISTS for one in status.get(key) or ()]
    if any("running" in state for state in states):
        return True
    said = {one["type"]: one.get("status") for one in status.get("conditions") or ()}
    for condition in _SANDBOX_READY:
        if condition in said:
            return bool(said[condition] == "True")
    # Older kubelets: an address is the sandbox's, but on the host's network the node's.
    waits = all(
        (state.get("waiting") or {"reason": "none"}).get("reason", "") in _BEFORE_SANDBOX
        for state in states
    )
    return not waits or bool(status.get("podIP") and not spec.get("hostNetwork"))


def without_sandbox(one: Stuck, words: str) -> Stuck | None:
    """``one`` of :func:`sandbox` with what its newest event says; None if it is not the image."""
    found = _SANDBOX_IMAGE.search(words)
    if found is None:
        return None
    return replace(one, words=words, image=next(name for name in found.groups() if name))


def _image(spec: Mapping[str, Any], container: str, message: str) -> tuple[str, str]:
    """The image that cannot be had, and its pull policy: the container's, or one that it mounts.

    As the manifest names it: a status may show the name the runtime resolved it to. A kubelet
    gets the image volumes first, and says their trouble of each container that mounts them.
    """
    one = _container(spec, container)
    own = str(one.get("image", "")), str(one.get("imagePullPolicy") or "")
    mounted = {mount.get("name") for mount in one.get("volumeMounts") or ()}
    images = [
        (str(volume["image"].get("reference", "")), str(volume["image"].get("pullPolicy") or ""))
        for volume in spec.get("volumes") or ()
        if volume.get("image") and volume.get("name") in mounted
    ]
    return next((image for image in (own, *images) if _names(message, image[0])), own)


def _container(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(key) or ():
            if one.get("name") == name:
                found: Mapping[str, Any] = one
                return found
    return {}


def _names(message: str, image: str) -> bool:
    """Whether a complaint is about this image, by either of its names."""
    return any(
        re.search(rf"(?:docker://|(?<![\w./:@-])){re.escape(name)}(?![\w.@-]|[:/]\w)", message)
        for name in {image, keyring.in_full(image)}
        if image
    )


def _says_nothing(message: str) -> bool:
    """Older kubelets say only that they wait; newer ones append why."""
    return re.fullmatch(r'Back-off pulling image "[^"]*"', message.strip()) is not None


@dataclass(frozen=True)
class Complaint:
    """What an event said of a pull, and when (RFC 3339, which sorts as text)."""

    words: str
    when: str


# An image volume is the pod's, not a container's: its events name the image alone.
_PULLED_IMAGE = re.compile(
    r'^(?:Failed to pull image|Container image|Failed to inspect image) "([^"]+)"'
)


def complaints(events: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Complaint]:
    """Events -> the newest complaint about a pull by (pod's uid, container).

    In place of a container: the image, of an image volume; :data:`SANDBOX`, of a sandbox.
    """
    found: dict[tuple[str, str], Complaint] = {}
    for event in events:
        message = event.get("message") or ""
        place = _place(event, message)
        if place is None:
            continue
        when = event.get("lastTimestamp") or event.get("eventTime") or ""
        when = (event.get("series") or {}).get("lastObservedTime") or when
        key = ((event.get("involvedObject") or {}).get("uid", ""), place)
        if key not in found or found[key].when <= when:
            found[key] = Complaint(message, when)
    return found


def _place(event: Mapping[str, Any], message: str) -> str | None:
    """What of the pod an event is about; None for one that is about no pull."""
    if event.get("reason") == SANDBOX or message.startswith("Failed to create pod sandbox"):
        return SANDBOX
    # "Error: ErrImagePull" has the same reason and says nothing.
    if "pull" not in message.lower() or message.startswith(("Error: ", "Back-off pulling")):
        return None
    field = (event.get("involvedObject") or {}).get("fieldPath") or ""
    container = field.partition("{")[2].rstrip("}")
    image = _PULLED_IMAGE.match(message)
    return container or (image[1] if image else "")


def heard(one: Stuck, said: Mapping[tuple[str, str], str]) -> str:
    """What events (by the keys of :func:`complaints`) said of it; "" for nothing."""
    places = (SANDBOX,) if one.of_sandbox else (one.container, one.image)
    words = [said[one.uid, place] for place in places if said.get((one.uid, place))]
    return next((text for text in words if _names(text, one.image)), (*words, "")[0])


def candidates(pod: Mapping[str, Any]) -> list[Stuck]:
    """:func:`containers`, or the pod's sandbox where it may be that which cannot get its image."""
    found, before = containers(pod), sandbox(pod)
    return found if found or before is None else [before]
