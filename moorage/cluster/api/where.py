"""Which cluster is meant, and how its commands are typed."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """Which cluster this is: the server's URL and the context it was found by.

    ``kubectl``: how to type kubectl for it; ``flags``: what our own commands need, beginning with
    a space, where the user named the cluster on the command line.
    """

    server: str
    context: str
    kubectl: str = "kubectl"
    flags: str = ""

    def __str__(self) -> str:
        return f"{self.context} ({self.server})"

    def typed(self, text: str) -> str:
        """``text`` with its kubectl and ``inv k8s.`` commands so that they reach this cluster.

        What was typed out already stays as it is.
        """
        text = _KUBECTL.sub(lambda _: self.kubectl, text)
        return _OURS.sub(lambda found: found[0] + self.flags, text)


# In a cure, a word that is followed by what it shall do.
_KUBECTL = re.compile(r"(?<![\w/.-])kubectl(?= [a-z])")
_OURS = re.compile(
    r"inv (?:k8s\.[a-z]+|nodes\.\w+ (?:[A-Z]+ )?--from-cluster)\b(?! --(?:kubeconfig|context))"
)
