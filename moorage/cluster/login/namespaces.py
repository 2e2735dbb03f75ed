"""Which namespaces are meant: one, several, those a label selects, or all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import many, ours, paths
from moorage.cluster.api.refusals import ApiError, nothing_changed_yet
from moorage.errors import Refused

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api


@dataclass(frozen=True)
class Choice:
    """What the user said. At most one of the three; none of them: ``default``."""

    names: str = ""
    selector: str = ""
    all: bool = False
    default: tuple[str, ...] = ("default",)


@dataclass(frozen=True)
class Chosen:
    """The namespaces to work in, and those passed over since they are being deleted."""

    names: tuple[str, ...]
    leaving: tuple[str, ...] = ()


def choose(api: Api, choice: Choice) -> Chosen:
    """Asks the cluster. Raises Refused if a named one is missing or being deleted, or the
    selector finds none."""
    said = [word for word, given in (
        ("--namespace", choice.names), ("--selector", choice.selector), ("--all", choice.all)
    ) if given]  # fmt: skip
    if len(said) > 1:
        raise Refused(
            "wrong-use",
            f"{' and '.join(said)} cannot go together",
            cause="each of them says which namespaces are meant",
            cure="give one of them",
        )
    with nothing_changed_yet():
        if choice.selector or choice.all:
            return _selected(api, choice.selector)
        return Chosen(_named(api, split(choice.names, "--namespace") or choice.default))


def split(text: str, option: str) -> tuple[str, ...]:
    """``a,b`` -> its names, each once. Raises Refused for an empty or impossible one."""
    if not text:
        return ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(names):
        raise Refused(
            "wrong-use",
            f"{option} {text!r} has an empty name",
            cause="there is one comma too many",
            cure=f"{option} a,b,c",
        )
    return tuple(ours.check_namespace(name) for name in names)


def _named(api: Api, names: Sequence[str]) -> tuple[str, ...]:
    def look(name: str) -> Any:
        try:
            return api.find(paths.one("Namespace", name), f"read namespace {name}")
        except ApiError as problem:
            if problem.status != 403:
                raise
            # Who may write into a namespace need not be allowed to read the Namespace itself.
            return {"metadata": {"name": name}}

    found = many.each(names, look, parallel=api.parallel)
    missing = [name for name, one in zip(names, found, strict=True) if one is None]
    if missing:
        raise Refused(
            "no-namespace",
            f"there is no namespace {', '.join(missing)} in {api.where.context}",
            cause="it was never made, or deleted since",
            cure=" && ".join(f"kubectl create namespace {name}" for name in missing),
        )
    leaving = [one["metadata"]["name"] for one in found if _leaves(one)]
    if leaving:
        raise Refused(
            "namespace-terminating",
            f"the namespace {', '.join(leaving)} is being deleted",
            cause="nothing can be made in a namespace in state Terminating",
            cure="wait until it is gone and make it again, or leave it out",
        )
    return tuple(names)


def _selected(api: Api, selector: str) -> Chosen:
    found = list(api.items(paths.all_of("Namespace"), "list namespaces", selector=selector))
    stay = tuple(one["metadata"]["name"] for one in found if not _leaves(one))
    if not stay:
        raise Refused(
            "no-namespace",
            f"no namespace of {api.where.context} has the labels {selector}",
            cause="the selector fits none",
            cure="look at them: kubectl get namespaces --show-labels",
        )
    return Chosen(stay, tuple(one["metadata"]["name"] for one in found if _leaves(one)))


def _leaves(namespace: Any) -> bool:
    return bool(
        namespace.get("status", {}).get("phase") == "Terminating"
        or namespace["metadata"].get("deletionTimestamp")
    )
