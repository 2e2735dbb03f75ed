"""What users read when a login may not: clients' words before our front, and what is made of them.

The words were said by the real clients before HAProxy 2.6.12 and docker-registry 2.8.2. ``reader``
may pull, ``limited`` may push to team-a/**, ``guest`` has expired.
"""

from __future__ import annotations

import pytest

from agent.wire.plan import Registry
from agent.wire.troubles.told import classify
from moorage.cluster.symptoms import causes
from moorage.docker import engine_faults

NAME = "my.registry.io"
IMAGE = f"{NAME}/app:1"
_BLOB = "sha256:c0f596b17711a7dc975e9a8cac636f668fa66788181052818bd748ce2959c934"
# By client: what was tried, its words, and the code.
WORDS = [
    ("docker 28.2.2, engine 20.10.24", "push", "denied: the login reader may pull app but not push",
     "access-denied"),
    ("docker 28.2.2, engine 20.10.24", "push", "denied: the login limited may not use app",
     "access-denied"),
    ("docker 28.2.2, engine 20.10.24", "pull",
     f"pull access denied for {NAME}/app, repository does not exist or may require 'docker login':"
     " denied: the login limited may not use app", "access-denied"),
    ("docker 28.2.2, engine 20.10.24", "pull", "unauthorized: the login guest has expired",
     "login-refused"),
    ("containerd 1.6.20 (ctr)", "push", "unexpected status: 403 Forbidden", "access-denied"),
    ("containerd 1.6.20 (ctr)", "pull",
     f'failed to resolve reference "{IMAGE}": pulling from host {NAME} failed with status code'
     " [manifests 1]: 403 Forbidden", "access-denied"),
    ("containerd 1.6.20 (ctr)", "pull",
     f'failed to resolve reference "{IMAGE}": pulling from host {NAME} failed with status code'
     " [manifests 1]: 401 Unauthorized", "login-refused"),
    ("podman 4.3.1", "push",
     f"writing manifest: uploading manifest 1 to {NAME}/app: denied: the login reader may pull app"
     " but not push", "access-denied"),
    ("podman 4.3.1", "push",
     f"trying to reuse blob {_BLOB} at destination: failed to read from destination repository app:"
     " 403 (Forbidden)", "access-denied"),
    ("podman 4.3.1", "pull",
     f"initializing source docker://{IMAGE}: reading manifest 1 in {NAME}/app: denied: the login"
     " limited may not use app", "access-denied"),
    ("podman 4.3.1", "pull",
     f"initializing source docker://{IMAGE}: reading manifest 1 in {NAME}/app: unauthorized: the"
     " login guest has expired", "login-refused"),
    ("skopeo 1.9.3", "delete",
     f'Failed to delete {IMAGE}: {{"errors":[{{"code":"DENIED","message":"the login limited may not'
     ' use app","detail":null}]} (403 Forbidden)', "access-denied"),
    ("skopeo 1.9.3", "delete",
     f'Failed to delete {IMAGE}: {{"errors":[{{"code":"UNAUTHORIZED","message":"the login guest has'
     ' expired","detail":null}]} (401 Unauthorized)', "login-refused"),
]  # fmt: skip


@pytest.mark.parametrize(("client", "tried", "words", "code"), WORDS)
def test_each_side_tells_a_refusal_of_the_front_by_the_same_code(
    client: str, tried: str, words: str, code: str
) -> None:
    found = classify(words, Registry(NAME), IMAGE)
    assert found.code == code, (client, tried)
    if client.startswith("docker"):
        assert engine_faults.explain(words, NAME, f"{tried}ing").code == code
    assert causes.classify(words).code == code


def test_the_fronts_own_sentence_leads_to_the_command_that_gives_the_right() -> None:
    for words in (one[2] for one in WORDS if "may pull" in one[2] or "may not use app" in one[2]):
        if '"' not in words:
            assert "inv users.list" in classify(words, Registry(NAME), IMAGE).fault.cure
            assert "inv users.list" in engine_faults.explain(words, NAME, "pushing").cure


def test_an_expired_login_is_said_to_have_expired() -> None:
    words = "unauthorized: the login guest has expired"
    assert classify(words, Registry(NAME), IMAGE).fault.cause == "the login has expired"


@pytest.mark.parametrize(
    "words",
    ["dial unix /run/containerd/containerd.sock: connect: permission denied: try sudo",
     "open /var/lib/x: permission denied: SELinux"],
)  # fmt: skip
def test_a_file_that_may_not_be_read_is_no_refused_login(words: str) -> None:
    assert classify(words, Registry(NAME), IMAGE).code != "login-refused"
