"""Every cure of a diagnosis can be typed: its commands are taken out of the text and parsed.

kubectl itself parses its own, by a dry run that asks no server.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from moorage.cluster.diagnosis import diagnosis
from moorage.cluster.diagnosis.known import NOT_ALLOWED, Known, NodeImages
from moorage.cluster.symptoms import causes, keyring, stuck
from moorage.cluster.symptoms.stuck import Stuck
from moorage.cluster.workload import recovery
from moorage.registry import Credentials
from moorage.settings import Settings
from tests.unit.cluster.diagnosis.test_diagnosis import secret
from tests.unit.program.test_help import parse

SETTINGS = Settings()
OURS = SETTINGS.registry_name
TESTS = Path(__file__).resolve().parents[3]
LOGIN = Credentials("moorage", "words")
HELD = {
    ("web", "old"): secret(OURS, "moorage", "old"),
    ("web", "other"): secret("other.io", "u", "p"),
    ("web", "hub"): secret(keyring.HUB_KEY, "u", "p"),
    ("web", "opaque"): {"type": "Opaque", "data": {}},
    ("web", "right"): secret(OURS, "moorage", "words"),
    ("web", "gone"): None,
    ("web", "unread"): NOT_ALLOWED,
}
IMAGES = (
    f"{OURS}/app:1",
    SETTINGS.image_reference,
    f"{OURS}:443/app:1",
    "busybox",
    "reg:5000/a/b:1",
)
REFUSALS = ("401 Unauthorized", "insufficient_scope", "403 Forbidden", "denied")


def heard() -> list[str]:
    """Every complaint that was ever collected."""
    listed = [
        row["words"]
        for name in ("messages.json", "kubelet.json")
        for rows in json.loads((TESTS / "k8s" / name).read_text()).values()
        for row in rows
    ]
    for path in sorted((TESTS / "agent" / "words").glob("*.json")):
        listed += json.loads(path.read_text()).values()
    return sorted({*listed, "something new"})


def plain(words: str, image: str, **changes: Any) -> Stuck:
    fields = {"reason": "ErrImagePull", "policy": "IfNotPresent", **changes}
    return Stuck("web", "pod", "uid", "n1", "app", image, words=words, **fields)


def groups() -> Iterable[diagnosis.Group]:
    for image in IMAGES:
        in_full = frozenset({keyring.in_full(image)})
        for words in heard():
            yield from diagnosis.diagnose([plain(words, image)], Known(OURS, IMAGES[1]))
        for words in REFUSALS:
            for name in ("", *(name for _, name in HELD)):
                found = plain(words, image, secrets=(name,) if name else ())
                for login in (LOGIN, None):
                    known = Known(
                        OURS, IMAGES[1], login=login, login_works=True, secrets=HELD,
                        in_namespace={"shop": ("gone",)},
                    )  # fmt: skip
                    yield from diagnosis.diagnose([found], known)
        for verification in ("", "AlwaysVerify", "NeverVerifyPreloadedImages"):
            nodes = {"n1": NodeImages(in_full, True, "v1.36.2", verification)}
            for words in ("no such host", "is not present with pull policy of Never"):
                for secrets in ((), ("old",)):
                    found = plain(words, image, secrets=secrets)
                    yield from diagnosis.diagnose([found], Known(OURS, IMAGES[1], nodes=nodes))
        trusting = {"n1": "its agent says so"}
        found = plain("x509: certificate signed by unknown authority", image)
        yield from diagnosis.diagnose([found], Known(OURS, IMAGES[1], trusting=trusting))
        another = Known(OURS, IMAGES[1], external=True, unvouched="self-signed", trusting=trusting)
        yield from diagnosis.diagnose([found], another)
        for tags in ({"app": ("1",)}, {"app": None}, {}):
            missing = plain(f"failed to resolve image: {image}: not found", image)
            yield from diagnosis.diagnose([missing], Known(OURS, IMAGES[1], tags=tags))
        yield from diagnosis.diagnose([plain("", image)], Known(OURS))
        yield from diagnosis.diagnose([plain("401", image, mirror=True)], Known(OURS))


def of_sandboxes() -> Iterable[diagnosis.Group]:
    rows = json.loads((TESTS / "k8s" / "kubelet.json").read_text())["sandboxes"]
    for row in rows:
        for registry in (OURS, "reg:5000"):
            words = row["words"].replace("reg.test:5000", registry)
            waits = plain("", "", reason=stuck.SANDBOX)
            found = stuck.without_sandbox(waits, words)
            assert found is not None
            yield from diagnosis.diagnose([found], Known(OURS))


ALL = [*groups(), *of_sandboxes()]
CURES = sorted({group.cure for group in ALL})
# A command goes on to whatever begins another sentence.
COMMAND = re.compile(
    r"(?<![\w./-])(inv|kubectl) [a-z].*?(?=; | && | \|\| |, (?:then|with|or)| \(|$)"
)


def commands(program: str) -> list[str]:
    listed = (match for cure in CURES for match in COMMAND.finditer(cure))
    return sorted({match[0] for match in listed if match[1] == program})


def test_every_cause_is_among_the_cures_that_are_tried() -> None:
    """Otherwise a cure could stand in the table and never be read by this test."""
    told = {group.code for group in ALL}
    known = {row.code for row in causes.CAUSES}
    known |= {row.code for row in vars(causes).values() if isinstance(row, causes.Cause)}
    unheard = {"client-wanted", "client-refused", "tls-failed", "proxy", "secret-not-named"}
    unheard |= {"no-evidence"}
    assert known - told <= unheard
    assert len(commands("inv")) > 20
    assert len(commands("kubectl")) > 20


def test_nothing_is_left_to_fill_in() -> None:
    for cure in CURES:
        assert "{" not in cure
        assert cure.strip() == cure
        assert cure


@pytest.mark.parametrize("command", commands("inv"))
def test_a_command_of_ours_is_one(command: str) -> None:
    parse(command)


@pytest.mark.parametrize("command", commands("kubectl"))
def test_a_command_of_kubectl_s_is_one(command: str, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here")
    _, verb, *rest = shlex.split(command)
    if verb == "delete":
        assert rest[0] in ("secret", "pod", "job")
        assert rest[-2] == "-n" or rest[1] == "-n"
        return
    done = subprocess.run(
        [kubectl, verb, *rest, "--dry-run=client", "-o", "json"],
        capture_output=True, check=False, text=True, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    if "connect" in done.stderr and "refused" in done.stderr:
        pytest.skip("this kubectl wants a cluster for that")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["type"] == "kubernetes.io/dockerconfigjson"


def test_the_secret_that_kubectl_is_told_to_make_serves_the_image() -> None:
    for group in ALL:
        server = re.search(r"--docker-server=(\S+)", group.cure)
        if server is not None:
            assert all(keyring.serves(server[1], image) for image in group.images), group.cure


def test_what_a_pod_without_a_new_secret_is_advised_can_be_typed() -> None:
    for changes in ({}, {"owner": "Job/a", "last_try": True}, {"ephemeral": True}):
        assert "kubectl delete" in recovery.advice(plain("401", IMAGES[0], **changes))


@pytest.mark.parametrize("words", ["certificate required", "bad certificate", "handshake failure"])
def test_a_registry_that_wants_a_certificate_is_cured_by_the_settings_and_a_trust(
    words: str,
) -> None:
    asked = f"https://{OURS}/v2/app/manifests/1"
    said = f'failed to do request: Head "{asked}": remote error: tls: {words}'
    one = Stuck("web", "pod", "uid", "n1", "app", f"{OURS}/app:1", "ErrImagePull", said)
    (bare,) = diagnosis.diagnose([one], Known(OURS, one.image, external=True))
    (given,) = diagnosis.diagnose([one], Known(OURS, one.image, external=True, presents=True))
    assert bare.code == given.code == "client-wanted"
    assert "registry.client_cert" in bare.cure
    assert "inv nodes.trust --hosts=n1" in bare.cure
    assert (bare.fix, given.fix) == ("", causes.TRUST)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("remote error: tls: unknown certificate authority", "client-refused"),
        ("error parsing HTTP 400 response body: invalid character '<' looking for beginning of "
         'value: "<title>400 The SSL certificate error</title>"', "client-refused"),
        ("error parsing HTTP 400 response body: invalid character '<' looking for beginning of "
         'value: "<title>400 No required SSL certificate was sent</title>"', "client-wanted"),
    ],
)  # fmt: skip
def test_a_refusal_and_what_docker_quotes_of_nginx_are_told(said: str, code: str) -> None:
    one = Stuck("web", "pod", "uid", "n1", "app", f"{OURS}/app:1", "ErrImagePull", said)
    (group,) = diagnosis.diagnose([one], Known(OURS, one.image, external=True, presents=True))
    assert group.code == code
