"""For which platforms the demo image is made: ``linux/amd64,linux/arm64``, as settings say it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from moorage.errors import Refused


@dataclass(frozen=True)
class ImagePlatform:
    """A platform by its names: in an index, in Debian's archive (``debian``), in tags of wheels.

    https://github.com/opencontainers/image-spec/blob/main/image-index.md
    """

    name: str
    debian: str
    machine: str

    @property
    def described(self) -> dict[str, str]:
        """The platform as an index and an image's configuration have it."""
        return dict(zip(("os", "architecture", "variant"), self.name.split("/"), strict=False))


# What Debian bookworm is made for; whether pip finds each wheel shows by itself.
PLATFORMS = {
    one.name: one
    for one in (
        ImagePlatform("linux/amd64", "amd64", "x86_64"),
        ImagePlatform("linux/arm64", "arm64", "aarch64"),
        ImagePlatform("linux/arm/v7", "armhf", "armv7l"),
        ImagePlatform("linux/ppc64le", "ppc64el", "ppc64le"),
        ImagePlatform("linux/s390x", "s390x", "s390x"),
    )
}
# As others write them: https://github.com/containerd/platforms/blob/main/database.go
SAME = {
    "linux/aarch64": "linux/arm64",
    "linux/amd64/v1": "linux/amd64",
    "linux/arm": "linux/arm/v7",
    "linux/arm64/v8": "linux/arm64",
    "linux/armhf": "linux/arm/v7",
    "linux/x86_64": "linux/amd64",
}


def parse(text: str, *, source: str = "--platform") -> tuple[str, ...]:
    """``linux/amd64,linux/arm64`` -> the names of the platforms, each once.

    ``source`` names where the text comes from. Raises Refused (``wrong-use``) for an unknown one.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if known(word) not in PLATFORMS:
            near = difflib.get_close_matches(word.lower(), PLATFORMS, n=1)
            raise Refused(
                "wrong-use",
                f"invalid {source}={text}: {word or 'an empty word'} is not a known platform",
                cause=f"did you mean {near[0]}?" if near else f"known: {', '.join(PLATFORMS)}",
                cure="inv image.build --platform=linux/amd64,linux/arm64",
            )
    return unique(words)


def known(word: str) -> str:
    """The usual name of a platform, in lower case as all of them are."""
    return SAME.get(word.lower(), word.lower())


def runnable(word: str) -> tuple[str, ...]:
    """The platforms whose images a machine of that platform runs, the best first, by usual names.

    As nodes choose: https://github.com/containerd/platforms/blob/main/compare.go (``Only``).
    """
    name = known(word)
    family, _, variant = name.rpartition("/v")
    if not variant.isdecimal() or len(variant) > 2:
        return (name,)
    if family == "linux/arm":
        return tuple(f"{family}/v{number}" for number in range(int(variant), 4, -1))
    lower = (f"{family}/v{number}" for number in range(int(variant), 1, -1))
    return tuple(dict.fromkeys(map(known, (*lower, family))))


def unique(words: Sequence[str]) -> tuple[str, ...]:
    """The platforms by their usual names, each once, in the order they were named."""
    return tuple(dict.fromkeys(map(known, words)))
