"""Pods that cannot pull from a registry of somebody else's: what is asked of that registry itself.

The registry is Debian's docker-registry on loopback; the API server is a stand-in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.cluster.diagnosis import examine
from moorage.cluster.diagnosis.diagnosis import Group
from moorage.cluster.login import access
from moorage.cluster.symptoms import causes
from moorage.pki import certificates
from moorage.pki import registry as pki
from moorage.registry.logins.credentials import Credentials, keep
from moorage.settings import RegistrySettings, Settings
from tests import distribution
from tests.agent.authority import Authority
from tests.distribution import NAME, PASSWORD, ROBOT, STRANGER, Served, TokenServer
from tests.k8s import standin
from tests.k8s.standin import Standin
from tests.unit.cluster.diagnosis.test_examine import node, waiting
from tests.unit.elsewhere import project


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def served(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("registry")
    with (
        TokenServer(authority).running() as tokens,
        distribution.serving(folder, authority.issue(NAME), tokens) as running,
    ):
        distribution.push(running, authority, tokens, "team/app")
        yield running


def theirs(root: Path, port: int, ca: Authority) -> Settings:
    chosen = RegistrySettings(host=NAME, port=port, external=True, address="127.0.0.1")
    found = project(root, registry=chosen)
    pki.keep_external_ca(found, certificates.load_certificates(ca.pem.encode())[0])
    return found


def told(settings: Settings, root: Path, image: str, words: str, user: str = "") -> Group:
    """The only cause, of a pod that a kubelet complains of in these words.

    ``user``: whose login its Secret has, "" for a pod that names none.
    """
    named = {"imagePullSecrets": [{"name": "theirs"}]} if user else {}
    pod = waiting("ErrImagePull", words.format(name=settings.registry_name), **named)
    pod["spec"]["containers"][0]["image"] = f"{settings.registry_name}/{image}"
    login = {"username": user, "password": PASSWORD}
    held = json.dumps({"auths": {settings.registry_name: login}}).encode()
    secret = {
        "metadata": {"name": "theirs", "namespace": "web", "uid": "s"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(held).decode()},
    }
    server = Standin(
        lists={
            "/api/v1/pods": [pod],
            "/api/v1/secrets": [],
            "/api/v1/namespaces/web/secrets": [secret] if user else [],
        },
        objects={"/api/v1/nodes/n1": node(), "/api/v1/namespaces/web/secrets/theirs": secret},
    )
    with standin.serving(server) as url:
        api = access.connect(settings, kubeconfig=str(standin.kubeconfig(root, url)))
        (group,) = examine.examine(api, settings).groups
    return group


UNKNOWN = (
    'failed to do request: Head "https://{name}/v2/team/app/manifests/1": tls: failed to verify'
    " certificate: x509: certificate signed by unknown authority"
)


def test_a_ca_that_does_not_vouch_for_the_registry_is_told_before_it_is_given_to_nodes(
    served: Served, tmp_path: Path
) -> None:
    group = told(theirs(tmp_path, served.port, Authority("of before")), tmp_path, "app:1", UNKNOWN)
    assert group.code == "registry-certificate"
    assert group.fix == ""  # nodes.trust would bring the same CA once more
    assert group.cure.startswith("inv registry.ca --fetch; then: inv nodes.trust --hosts=n1,")


def test_with_the_right_ca_it_is_the_node_that_lacks_the_trust(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    known = theirs(tmp_path, served.port, authority)
    group = told(known, tmp_path, "app:1", UNKNOWN)
    assert (group.code, group.fix) == ("x509-unknown-authority", causes.TRUST)
    away = replace(known.registry, port=1)  # what cannot be asked accuses nobody
    silent = project(tmp_path, registry=away)
    assert told(silent, tmp_path, "app:1", UNKNOWN).code == "x509-unknown-authority"


def test_the_tags_of_a_registry_that_gives_without_a_login_are_named(
    authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "registry"
    with (
        TokenServer(authority).running() as tokens,
        distribution.serving(folder, authority.issue(NAME), tokens) as running,
    ):
        distribution.push(running, authority, tokens, "team/app")
    with distribution.serving(folder, authority.issue(NAME)) as open_to_all:
        known = theirs(tmp_path, open_to_all.port, authority)
        words = 'rpc error: code = NotFound desc = failed to pull and unpack image "{name}/team/'
        words += 'app:2": failed to resolve reference "{name}/team/app:2": {name}/team/app:2: not'
        group = told(known, tmp_path, "team/app:2", f"{words} found")
    assert (group.code, group.cause.rpartition(": ")[2]) == ("tag-missing", "1")


SCOPE = (
    'failed to resolve reference "{name}/team/app:1": pull access denied, repository does not exist'
    " or may require authorization: server message: insufficient_scope: authorization failed"
)


@pytest.mark.parametrize(
    ("user", "code"),
    [("", "secret-missing"), (STRANGER, "access-denied"), (ROBOT, "secret-late")],
)
def test_a_login_that_may_pull_was_not_read_yet_whatever_a_token_server_says(
    served: Served, authority: Authority, tmp_path: Path, user: str, code: str
) -> None:
    """It has the same words for no login: a kubelet that may not read the Secret yet sends none."""
    known = theirs(tmp_path, served.port, authority)
    keep(known, Credentials(ROBOT, PASSWORD))
    assert told(known, tmp_path, "team/app:1", SCOPE, user).code == code
