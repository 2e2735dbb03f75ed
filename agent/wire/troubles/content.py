"""What a registry has under an image's name, and no runtime can use."""

from __future__ import annotations

from agent.wire.troubles.row import IMAGE, WHO_ANSWERS, Told, Trouble

ROWS: tuple[Trouble, ...] = (
    Trouble(
        "schema1",
        r"manifest\.v1\+|[Ss]chema ?(version)? ?1\b|no signatures|missing signature key"
        r"|no longer supported since containerd",
        node=Told(
            message="{image} is in a format that this runtime no longer reads",
            cause="its manifest is of schema 1, from before 2016 (or the registry made one for it)",
            cure="build and push it again",
        ),
        cluster=Told(
            message="{image} is in a format that this runtime no longer reads",
            cause="its manifest is of schema 1, from before 2016, or the registry made such a "
            "one for it",
            cure="build it again, then push it",
            matter=IMAGE,
        ),
    ),
    Trouble(
        "blob-missing",
        r"could not fetch content descriptor .* not found|unknown blob|blob unknown|BLOB_UNKNOWN"
        r"|fetching blob: [^\n]*\b404 \(",
        node=Told(
            message="{name} has lost a part of {image}",
            cause="its manifest is there and a blob that it names is not: a garbage collection ran "
            "during a push, or the registry's storage lost it",
            cure="push it again",
        ),
        cluster=Told(
            message="{registry} has lost a part of {image}",
            cause="its manifest is there, but a blob that the manifest names is not",
            cure="push it again",
            matter=IMAGE,
            words=r"could not fetch content descriptor [^\n]*not found|unknown blob|blob unknown"
            r"|BLOB_UNKNOWN|fetching blob: [^\n]*\b404\b",
        ),
    ),
    Trouble(
        "content-damaged",
        r"verification failed for digest|does not match expected|unexpected commit (digest|size)"
        r"|failed size validation|short read: expected|read expected number of bytes",
        node=Told(
            message="what arrives of {image} is not what its digest says",
            cause="the registry's storage is damaged, or something between answers in its place",
            cure="push it again; else pull past any proxy: {pull}",
        ),
        cluster=Told(
            message="what arrives of {image} is not what its digest says",
            cause="the registry's storage is damaged, or something on the way answers in its place",
            cure=f"push it again; if that does not help, {WHO_ANSWERS}",
            matter=IMAGE,
            words=r"verification failed for digest|does not match expected"
            r"|unexpected commit (digest|size)|failed size validation|short read: expected",
        ),
    ),
    Trouble(
        "not-an-image",
        r"unsupported media type|no processor for media-type|on artifact with type"
        r"|mismatched image rootfs and manifest layers|invalid (image )?rootfs",
        node=Told(
            message="{image} is not an image that this runtime can unpack",
            cause="it is an artifact of another kind (a chart, a signature, a file), or was made "
            "by no image builder",
            cure="name an image",
        ),
        cluster=Told(
            message="{image} is not an image that this runtime can unpack",
            cause="it is an artifact of another kind (a chart, a signature, a file)",
            cure="name an image in the pod's manifest",
            matter=IMAGE,
        ),
    ),
)
