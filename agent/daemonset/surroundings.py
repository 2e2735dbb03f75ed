"""Where this pod is: its node, its grade, the API server and the right to speak to it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent.daemonset import passed

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
GRADES = ("files", "full")


@dataclass(frozen=True)
class Surroundings:
    """``root``: where the node's files are mounted; ``plan``: the mounted copy of the Secret;
    ``proof``: the folder of the program that the container ``proof`` is."""

    node: str
    grade: str
    namespace: str
    secret: str
    api_host: str
    api_port: int
    root: str = "/host"
    plan: str = "/moorage/plan"
    account: str = ACCOUNT
    proof: str = passed.FOLDER

    @classmethod
    def from_environment(cls) -> Surroundings:
        """As the manifest sets it. Raises KeyError or ValueError where it does not."""
        here = os.environ
        grade = here["MOORAGE_GRADE"]
        if grade not in GRADES:
            raise ValueError(f"MOORAGE_GRADE is {grade!r}, not one of {', '.join(GRADES)}")
        return cls(
            node=here["MOORAGE_NODE"],
            grade=grade,
            namespace=here["MOORAGE_NAMESPACE"],
            secret=here["MOORAGE_PLAN"],
            api_host=here["KUBERNETES_SERVICE_HOST"],
            api_port=int(here["KUBERNETES_SERVICE_PORT"]),
        )
