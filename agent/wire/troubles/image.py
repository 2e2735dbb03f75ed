"""Images that are not there, or not for this machine."""

from __future__ import annotations

from agent.wire.troubles.row import IMAGE, IMAGE_NAME, PRELOAD, Told, Trouble

ROWS: tuple[Trouble, ...] = (
    Trouble(
        "wrong-platform",
        r"no match for platform|no matching manifest|no child with platform"
        r"|no image found in [^\n]* for architecture",
        node=Told(
            message="{image} is not made for this node's processor",
            cause="no manifest of it fits this platform",
            cure="build and push it for this platform too",
        ),
        cluster=Told(
            message="{image} is not made for the processor of these nodes",
            cause="no manifest of it fits their platform",
            cure="build and push it for that platform too",
            matter=IMAGE,
        ),
    ),
    Trouble(
        "image-missing",
        r"manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN"
        rf"|failed to resolve (reference|image)\b[^\n]*: not found\s*$|{IMAGE_NAME}: not found\s*$",
        node=Told(
            message="there is no image {image}",
            cause="the name or the tag is wrong, or it was never pushed",
            cure="push it (inv image.push), or name another image",
        ),
        cluster=Told(
            message="there is no image {image}",
            cause="the name or the tag is wrong, or it was never pushed",
            cure="push it, or name one that is there",
            elsewhere="push it, or name one that is there",
            matter=IMAGE,
            words=r"manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN"
            r"|failed to resolve (reference|image)\b[^\n]*: not found|(\S+/\S+[:@]\S+"
            r"|^\s*): not found|\b(repository|manifest for|image) \S+ not found"
            r"|\b404 \(?[A-Z]",
        ),
        engine=Told(
            message="{name} has no such image",
            cure="inv image.build image.push",
            words=r"manifest unknown|name unknown|repository name not known",
        ),
    ),
    Trouble(
        "bad-image-name",
        r"couldn't parse image|[Ii]nvalid(ImageName| reference format)"
        r"|Failed to apply default image",
        cluster=Told(
            message="{image} is not an image name",
            cause="it does not follow name:tag or name@digest, in lower case",
            cure="correct it in the pod's manifest",
            matter=IMAGE,
        ),
    ),
    Trouble(
        "never-pull",
        r"is not present with pull policy of Never|ErrImageNeverPull",
        cluster=Told(
            message="{image} is not on these nodes, and may not be pulled",
            cause="its imagePullPolicy is Never",
            cure=f"{PRELOAD}; or set it to IfNotPresent",
            matter=IMAGE,
        ),
    ),
    Trouble(
        "signature-refused",
        r"signature validation failed|SignatureValidationFailed|[Ss]ource image rejected",
        cluster=Told(
            message="these nodes do not accept the signature of {image}",
            cause="their policy wants a signature that the image does not have",
            cure="sign the image, or correct /etc/containers/policy.json on {nodes}",
            matter=IMAGE,
        ),
    ),
)
