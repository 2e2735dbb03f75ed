"""What every command about a cluster has in common: which one, and how it is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moorage.tasks.command import Run

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api


CLUSTER = {
    "context": "the kubeconfig's context (else kubernetes.context, else the current one)",
    "kubeconfig": "the kubeconfig file (else settings, $KUBECONFIG, the lab's, ~/.kube/config)",
}


@contextmanager
def cluster_of(run: Run, kubeconfig: str, context: str) -> Iterator[Api]:
    """The cluster that is meant; what fails in it has a cure that is typed for it."""
    from moorage.cluster.login import access

    api = access.connect(run.settings, kubeconfig=kubeconfig, context=context)
    run.ui.note(f"cluster: {api.where}")
    with access.typed_for(api):
        yield api


def check_timeout(seconds: int, task: str) -> None:
    """Raises Refused (``wrong-use``) for what is no time to wait."""
    from moorage.errors import Refused

    if not 1 <= seconds <= 86400:
        wrong = f"--timeout takes 1 to 86400 seconds, not {seconds}"
        raise Refused("wrong-use", wrong, cure=f"inv --help {task}")


def told(api: Api) -> dict[str, str]:
    """The cluster, for a command's document."""
    return {"server": api.where.server, "context": api.where.context}
