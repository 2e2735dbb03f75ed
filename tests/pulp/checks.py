"""What is checked, in the order in which an operator meets it. Each returns why it was left out."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from moorage.cluster.api import paths
from moorage.cluster.login import access
from moorage.pki import certificates
from moorage.settings import RegistrySettings, Settings
from moorage.web import sources
from tests.debian import unpacked
from tests.images import upstream
from tests.k8s import apiserver
from tests.pulp.operator import PASSWORD, ROBOT, STRANGER, Operator
from tests.pulp.server import HOST
from tests.unit.elsewhere import project

CHECKS: list[Callable[[Operator], str | None]] = []


def check(function: Callable[[Operator], str | None]) -> Callable[[Operator], str | None]:
    CHECKS.append(function)
    return function


@check
def an_image_is_there_that_a_robot_may_pull_and_a_stranger_may_not(at: Operator) -> None:
    """By skopeo and Pulp's own API: team/app, private; a collaborator of team, and a stranger."""
    at.skopeo(f"docker://{at.there.name}/team/app:1", f"docker://{at.pulp.name}/team/app:1")
    space = at.pulp.find("pulp_container/namespaces", "team")["pulp_href"]
    place = at.pulp.find("distributions/container/container", "team/app")["pulp_href"]
    at.pulp.wait(at.pulp.api("PATCH", place, {"private": True})["task"])
    at.pulp.user(ROBOT, PASSWORD, ("container.containernamespace_collaborator", space))
    at.pulp.user(STRANGER, PASSWORD)


@check
def without_anything_the_doctor_names_commands_that_can_work(at: Operator) -> None:
    """`doctor` in an empty checkout: no cure that needs a registry of our own."""
    answer = at.inv("doctor", "--hosts=node")
    cures = [one["cure"] for one in answer.document["findings"] if one["state"] != "fine"]
    assert any("registry.ca --fetch" in cure for cure in cures), answer.document
    assert not [one for one in cures if "registry.up" in one or "certs." in one], cures


@check
def the_ca_is_fetched_by_its_fingerprint(at: Operator) -> None:
    """`registry.ca --fetch`: a wrong fingerprint is refused, the right one stores Pulp's root."""
    (root,) = certificates.load_certificates(at.pulp.ca.encode())
    right = certificates.facts(root).fingerprint
    refused = at.inv("registry.ca", "--fetch", f"--fingerprint={'0' * 64}").want(2)
    assert refused.error["code"] == "ca-fingerprint"
    at.inv("registry.ca", "--fetch", f"--fingerprint={right}").want(0)


@check
def a_wrong_password_is_refused_and_a_right_one_kept(at: Operator) -> None:
    """`registry.login`, by Pulp's token server."""
    wrong = at.inv("registry.login", "--credentials=-", stdin=f"{ROBOT}:wrong\n").want(1)
    assert wrong.error["code"] == "registry-refuses", wrong.error
    at.inv("registry.login", "--credentials=-", stdin=f"{ROBOT}:{PASSWORD}\n").want(0)


@check
def a_node_that_does_not_trust_it_cannot_pull(at: Operator) -> None:
    """The runtime's own words before any trust."""
    assert at.pull(f"{at.pulp.name}/team/app:1") != "pulled"


@check
def the_node_trusts_it_and_pulls(at: Operator) -> None:
    """`nodes.trust`, the third command: proved by a CRI pull."""
    done = at.inv("nodes.trust", "--hosts=node").want(0)
    assert done.host["verified"] and done.host["pull_seconds"] is not None, done.host
    assert at.pull(f"{at.pulp.name}/team/app:1") == "pulled"
    again = at.inv("nodes.trust", "--hosts=node").want(0)
    assert (again.host["status"], again.host["changes"]) == ("unchanged", []), again.host


@check
def it_verifies(at: Operator) -> None:
    """`nodes.verify` pulls again; `nodes.status` and `doctor` find nothing wrong."""
    assert at.inv("nodes.verify", "--hosts=node").want(0).host["pull_seconds"] is not None
    at.inv("nodes.status", "--hosts=node").want(0)
    found = at.inv("doctor", "--hosts=node").document["findings"]
    assert not [one for one in found if one["state"] == "wrong"], found


@check
def what_is_wrong_with_an_image_or_a_login_is_told_apart(at: Operator) -> None:
    """A tag and a repository that are missing; a user without the right: each by its own code."""
    for image, codes in {
        "team/app:none": {"image-missing"},
        "team/none:1": {"image-missing", "login-refused"},
        "other/none:1": {"image-missing", "login-refused"},
    }.items():
        answer = at.inv("nodes.verify", "--hosts=node", f"--image={at.pulp.name}/{image}").want(1)
        assert answer.host["error"]["code"] in codes, (image, answer.host["error"])
    at.inv("registry.login", "--credentials=-", stdin=f"{STRANGER}:{PASSWORD}\n").want(0)
    answer = at.inv("nodes.verify", "--hosts=node").want(1)
    at.inv("registry.login", "--credentials=-", stdin=f"{ROBOT}:{PASSWORD}\n").want(0)
    assert answer.host["error"]["code"] == "login-refused", answer.host["error"]


@check
def an_image_is_pushed_and_pulled_by_its_digest(at: Operator) -> None:
    """`image.push` of an OCI layout; a second time nothing changes."""
    layout = at.folder / "layout"
    upstream.layout(layout, f"docker://{at.there.name}/team/later:1", {})
    push = ("image.push", str(layout), "--target=team/later:2")
    unnamed = at.inv(*push).want(2).error
    assert unnamed["code"] == "name-unresolved" and at.address in unnamed["cure"], unnamed
    first, second = (at.inv(*push, named=True).want(0).document for _ in range(2))
    (pushed,), (again,) = first["images"], second["images"]
    assert pushed["digest"] == again["digest"] == at.there.digests["team/later:1"], (first, second)
    assert (pushed["changed"], again["changed"]) == (True, False), (first, second)
    assert at.pull(f"{at.pulp.name}/team/later@{pushed['digest']}") == "pulled"
    elsewhere = at.inv("image.push", str(layout), "--target=other/app:1", named=True).want(1)
    (refused,) = elsewhere.document["images"]
    assert refused["error"]["code"] == "login-refused", refused


@check
def images_are_mirrored_and_a_node_pulls_by_the_first_name(at: Operator) -> None:
    """`image.mirror`: digests equal, a second run asks for no blob; `--mirror` on the node."""
    listed = at.folder / "images.txt"
    listed.write_text("".join(f"{at.there.name}/{name}\n" for name in at.there.digests))
    rows = at.inv("image.mirror", str(listed), "--yes", named=True).want(0).document["images"]
    assert {one["digest"] for one in rows} == set(at.there.digests.values()), rows
    before = len(at.pulp.asked())
    again = at.inv("image.mirror", str(listed), "--yes", named=True).want(0).document["images"]
    assert not [one for one in again if one["changed"]], again
    assert not [one for one in at.pulp.asked()[before:] if "/blobs/" in one], at.pulp.asked()
    at.inv("nodes.trust", "--hosts=node", f"--mirror={at.there.name}").want(0)
    assert at.pull(f"{at.there.name}/library/nginx:1", ":") == "pulled"


@check
def the_page_lists_what_is_there(at: Operator) -> None:
    """The page's images, by Pulp's catalogue, which wants a token of its own, and its tags."""
    chosen = RegistrySettings(host=HOST, port=at.pulp.port, external=True, address=at.address)
    rows = sources.images(project(at.checkout.folder, registry=chosen)).rows
    assert ("team/later", "2") in [tuple(map(str, row)) for row in rows], rows


@check
def what_only_a_registry_of_ours_can_do_is_refused(at: Operator) -> None:
    """`images.list` and others: one sentence, and nothing is changed."""
    for words in (("images.list",), ("registry.collect",), ("users.list",), ("registry.up",)):
        assert at.inv(*words).want(2).error["code"] == "registry-external"
    assert not (at.checkout.folder / "certs" / "ca.key").exists()


@check
def a_pull_secret_has_the_registry_s_login(at: Operator) -> str | None:
    """`k8s.secret` at a real API server."""
    os.environ.setdefault("MOORAGE_TEST_BINARIES", str(unpacked("etcd-server") / "usr" / "bin"))
    programs = apiserver.programs()
    if programs is None:
        return "no kube-apiserver here: inv lab.up --kubernetes builds it"
    with (
        tempfile.TemporaryDirectory() as folder,
        apiserver.running(Path(folder), *programs) as running,
    ):
        kubeconfig = str(running.kubeconfig)
        at.inv("k8s.secret", "--namespace=default", f"--kubeconfig={kubeconfig}").want(0)
        api = access.connect(Settings(), kubeconfig=kubeconfig)
        secret = api.get(paths.one("Secret", "my-registry", "default"))
    auths = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    assert base64.b64decode(auths[at.pulp.name]["auth"]).decode() == f"{ROBOT}:{PASSWORD}"
    return None


@check
def untrusted_it_pulls_no_more(at: Operator) -> None:
    """`nodes.untrust`: the node is as it was, and the same pull fails."""
    at.inv("nodes.untrust", "--hosts=node").want(0)
    assert at.pull(f"{at.pulp.name}/team/app:1") != "pulled"
    at.inv("nodes.release", "--hosts=node").want(0)
