"""A client's certificate and key on a node: written as each runtime reads them, and taken away."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.edit.change import HEADER
from agent.edit.toml import parse
from agent.engine import words
from agent.formats import client_files, hosts_toml
from agent.formats.proposal import Proof
from agent.journal import desired, status, transaction
from agent.journal.ledger import Store
from agent.proof import verify
from agent.wire.client_pair import ClientPair
from agent.wire.faults import AgentError, PlanError, TrustError
from agent.wire.plan import Plan
from tests.agent.authority import Authority
from tests.agent.conftest import Box
from tests.agent.test_containerd_kept import MIRRORS, with_config
from tests.agent.test_runtimes import lay_out, only

NAME = "my.registry.io"
CONTAINERD = f"/etc/containerd/certs.d/{NAME}"
CLASSIC = (
    b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.configs."other.io".tls]\n'
    b'ca_file = "/etc/ssl/other.pem"\n'
)


def pair_of(authority: Authority, name: str = "node") -> dict[str, str]:
    certificate, key = authority.issue(name)
    return {"certificate": certificate.decode(), "key": key.decode()}


@pytest.fixture(scope="session")
def pair(authority: Authority) -> dict[str, str]:
    return pair_of(authority)


def node_with(box: Box, part: str) -> Box:
    if part == "docker":
        return box.with_docker()
    if part == "containerd":
        return box.with_containerd()
    return lay_out(box, part)


def apply(box: Box, part: str, pair: dict[str, str] | None, **more: Any) -> dict[str, Any]:
    registry = {"client": pair} if pair is not None else {}
    return box.apply(registry=registry, **only(part, **more))


def secrets(pair: dict[str, str]) -> list[str]:
    """The lines of a key that give it away."""
    return pair["key"].splitlines()[1:-1]


# Per runtime: its part, and the folder and name of the pair.
CASES = {
    "containerd": ("containerd", CONTAINERD, "client"),
    "docker": ("docker", f"/etc/docker/certs.d/{NAME}", "client"),
    "crio": ("crio", f"/etc/containers/certs.d/{NAME}", "client"),
    "podman": ("podman", f"/etc/containers/certs.d/{NAME}", "client"),
    "nerdctl": ("nerdctl", CONTAINERD, "client"),
    "microk8s": ("microk8s", f"/var/snap/microk8s/current/args/certs.d/{NAME}", "client"),
    "k0s": ("k0s", f"/etc/k0s/containerd.d/certs.d/{NAME}", "client"),
    "k3s": ("k3s", "/etc/rancher/k3s/moorage", NAME),
    "rke2": ("k3s", "/etc/rancher/rke2/moorage", NAME),
    "buildkit": ("buildkit", f"/etc/buildkit/moorage/{NAME}", "client"),
}


@pytest.mark.parametrize("runtime", CASES)
def test_each_runtime_gets_the_pair_and_loses_it_again(
    box: Box, pair: dict[str, str], runtime: str
) -> None:
    part, place, stem = CASES[runtime]
    before = node_with(box, runtime).files()
    done = apply(box, part, pair)
    assert done["code"] is None
    cert, key = client_files.paths(place, stem)
    assert (box.read(cert) or b"").endswith(pair["certificate"].encode())
    assert (box.read(key) or b"").endswith(pair["key"].encode())
    assert stat.S_IMODE((box.root / key.lstrip("/")).stat().st_mode) == 0o600
    assert told_of(box, runtime, cert, key)
    assert not [line for line in secrets(pair) if line in json.dumps(done["events"])]
    again = apply(box, part, pair)
    assert (again["status"], again["changes"]) == ("unchanged", [])
    assert box.untrust()["code"] is None
    assert box.files() == before


def told_of(box: Box, runtime: str, cert: str, key: str) -> bool:
    """Whether the runtime's own file names the two, if it has to."""
    if runtime in ("docker", "crio", "podman"):
        return True
    if runtime == "buildkit":
        tables = parse(box.read("/etc/buildkit/buildkitd.toml") or b"")
        return bool(tables["registry"][NAME]["tlsconfigdir"] == [cert.rpartition("/")[0]])
    if runtime in ("k3s", "rke2"):
        text = (box.read(f"/etc/rancher/{runtime}/registries.yaml") or b"").decode()
        return f'cert_file: "{cert}"' in text and f'key_file: "{key}"' in text
    tables = parse(box.read(f"{cert.rpartition('/')[0]}/hosts.toml") or b"")
    return bool(tables["client"] == [[cert, key]])


@pytest.mark.parametrize("runtime", CASES)
def test_a_pair_that_the_plan_has_no_more_goes(
    box: Box, pair: dict[str, str], runtime: str
) -> None:
    part, place, stem = CASES[runtime]
    before = node_with(box, runtime).files()
    apply(box, part, None)
    alone = box.files()
    apply(box, part, pair)
    assert apply(box, part, None)["status"] == "changed"
    assert [box.read(path) for path in client_files.paths(place, stem)] == [None, None]
    assert {**alone, **without_pairs(box)} == alone
    assert apply(box, part, None)["status"] == "unchanged"
    box.untrust()
    assert box.files() == before


def without_pairs(box: Box) -> dict[str, bytes]:
    """The node's files, of TOML what they say: a folder of pairs that is empty may be named."""
    return {path: one for path, one in box.files().items() if not path.endswith("buildkitd.toml")}


@pytest.mark.parametrize(
    "client", ["", 'client = [["/t.cert", "/t.key"]]\n', 'client = "/t.pem"\n']
)
def test_it_goes_from_anothers_hosts_toml_as_well(
    box: Box, pair: dict[str, str], client: str
) -> None:
    box.with_containerd(WITH_FOLDERS)
    theirs = f'server = "https://{NAME}"\n{client}[host."https://{NAME}"]\n  dial_timeout = "3s"\n'
    box.write(f"{CONTAINERD}/hosts.toml", theirs.encode())
    before = box.files()
    apply(box, "containerd", None)
    alone = box.files()
    apply(box, "containerd", pair)
    assert apply(box, "containerd", None)["status"] == "changed"
    assert box.files() == alone
    box.untrust()
    assert box.files() == before


def test_its_files_stay_as_long_as_anothers_table_names_them(
    box: Box, pair: dict[str, str]
) -> None:
    box.with_containerd(WITH_FOLDERS)
    theirs = f'server = "https://{NAME}"\n[host]\n"https://{NAME}" = {{ dial_timeout = "3s" }}\n'
    before = box.write(f"{CONTAINERD}/hosts.toml", theirs.encode()) and box.files()
    apply(box, "containerd", pair)
    assert apply(box, "containerd", None)["code"] is None
    inline = parse(box.read(f"{CONTAINERD}/hosts.toml") or b"")["host"][f"https://{NAME}"]
    assert None not in [box.read(path) for one in inline["client"] for path in one]
    box.untrust()
    assert box.files() == before


def test_it_goes_from_the_configuration_of_an_old_containerd(
    box: Box, pair: dict[str, str]
) -> None:
    before = box.with_containerd(CLASSIC).files()
    apply(box, "containerd", None)
    alone = box.files()
    apply(box, "containerd", pair)
    done = apply(box, "containerd", None)
    assert (done["status"], done["restarts"]) == ("changed", ["containerd.service"])
    assert box.files() == alone
    box.untrust()
    assert box.files() == before


@pytest.mark.parametrize("runtime", CASES)
def test_another_pair_takes_the_place_of_the_one_before(
    box: Box, authority: Authority, pair: dict[str, str], runtime: str
) -> None:
    part, place, stem = CASES[runtime]
    node_with(box, runtime)
    apply(box, part, pair)
    other = pair_of(authority)
    done = apply(box, part, other)
    assert done["status"] == "changed"
    assert (box.read(client_files.paths(place, stem)[1]) or b"").endswith(other["key"].encode())
    shown = json.dumps(done["events"])
    assert not [line for one in (pair, other) for line in secrets(one) if line in shown]
    assert shown.count("a private key, SHA-256") >= 2


def test_a_lost_half_is_put_back_and_a_changed_key_is_told_by_its_digest(
    box: Box, pair: dict[str, str]
) -> None:
    box.with_docker()
    apply(box, "docker", pair)
    cert, key = (box.root / one.lstrip("/") for one in client_files.paths(CASES["docker"][1]))
    key.unlink()
    assert {one["state"] for one in states(box)} == {"as-left", "missing"}
    assert apply(box, "docker", pair)["status"] == "changed"
    key.write_bytes(b"another key")
    assert {one["state"] for one in states(box)} == {"as-left", "changed"}
    told = box.run(box.engine().diff(box.plan(registry={"client": pair}, **only("docker"))))
    shown = json.dumps(told["events"])
    assert "another key" not in shown
    assert "SHA-256" in shown
    assert cert.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")
def test_a_key_below_a_users_folder_is_that_users(box: Box, pair: dict[str, str]) -> None:
    """A rootless engine reads its own folder as its user."""
    box.with_docker()
    os.chown(box.root / "etc/docker", 1234, 1234)
    apply(box, "docker", pair)
    key = box.root / client_files.paths(CASES["docker"][1])[1].lstrip("/")
    assert (key.stat().st_uid, stat.S_IMODE(key.stat().st_mode)) == (1234, 0o600)
    key.chmod(0o644)
    apply(box, "docker", pair_of(Authority("next")))
    assert (key.stat().st_uid, stat.S_IMODE(key.stat().st_mode)) == (1234, 0o600)


def states(box: Box) -> list[dict[str, str]]:
    status = box.run(box.engine().status())["events"][-2]
    return [one for trusted in status["trusted"] for one in trusted["files"]]


def test_anothers_pair_in_a_folder_is_left_and_ours_comes_beside(
    box: Box, authority: Authority, pair: dict[str, str]
) -> None:
    place = CASES["docker"][1]
    other = pair_of(authority)
    box.with_docker()
    box.write(f"{place}/client.cert", other["certificate"].encode())
    box.write(f"{place}/client.key", other["key"].encode(), 0o600)
    before = box.files()
    apply(box, "docker", pair)
    assert box.read(f"{place}/client.key") == other["key"].encode()
    assert (box.read(f"{place}/moorage-client.key") or b"").endswith(pair["key"].encode())
    box.untrust()
    assert box.files() == before


def test_a_pair_that_is_there_already_is_not_doubled(box: Box, pair: dict[str, str]) -> None:
    place = CASES["podman"][1]
    lay_out(box, "podman")
    box.write(f"{place}/node.cert", pair["certificate"].encode())
    box.write(f"{place}/node.key", pair["key"].encode(), 0o600)
    apply(box, "podman", pair)
    names = {path.name for path in (box.root / place.lstrip("/")).iterdir()}
    assert names == {"ca.crt", "node.cert", "node.key"}


WITH_FOLDERS = (
    b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
    b'config_path = "/etc/containerd/certs.d"\n'
)


@pytest.mark.parametrize(
    ("client", "wanted"),
    [
        ("", []),
        ('client = "/etc/ssl/both.pem"\n', ["/etc/ssl/both.pem"]),
        ('client = [["/etc/a.pem", "/etc/a.key"]]\n', [["/etc/a.pem", "/etc/a.key"]]),
    ],
)  # fmt: skip
def test_anothers_hosts_toml_presents_the_pair_beside_its_own(
    box: Box, pair: dict[str, str], client: str, wanted: list[Any]
) -> None:
    box.with_containerd(WITH_FOLDERS)
    theirs = f'server = "https://{NAME}"\n{client}[host."https://{NAME}"]\n  dial_timeout = "3s"\n'
    box.write(f"{CONTAINERD}/hosts.toml", theirs.encode())
    before = box.files()
    assert apply(box, "containerd", pair)["code"] is None
    tables = parse(box.read(f"{CONTAINERD}/hosts.toml") or b"")
    ours = list(client_files.paths(CONTAINERD, "moorage-client"))
    assert tables["client"] == [*wanted, ours]
    assert tables["host"][f"https://{NAME}"]["client"] == [ours]
    assert apply(box, "containerd", pair)["status"] == "unchanged"
    box.untrust()
    assert box.files() == before


def test_an_old_containerd_is_told_of_the_pair_in_its_configuration(
    box: Box, pair: dict[str, str]
) -> None:
    before = box.with_containerd(CLASSIC).files()
    assert apply(box, "containerd", pair)["code"] is None
    tables = parse(box.read("/etc/containerd/config.toml") or b"")
    tls = tables["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["configs"][NAME]["tls"]
    cert, key = client_files.paths(CONTAINERD, "moorage-client")
    assert (tls["cert_file"], tls["key_file"]) == (cert, key)
    assert (box.read(key) or b"").endswith(pair["key"].encode())
    assert apply(box, "containerd", pair)["status"] == "unchanged"
    box.untrust()
    assert box.files() == before


@pytest.mark.parametrize("part", ["containerd", "k3s"])
def test_another_pair_that_alone_counts_is_named_and_nothing_is_touched(
    box: Box, pair: dict[str, str], part: str
) -> None:
    if part == "containerd":
        theirs = CLASSIC.replace(b"other.io", NAME.encode()) + b'cert_file = "/etc/ssl/c.pem"\n'
        box.with_containerd(theirs + b'key_file = "/etc/ssl/k.pem"\n')
    else:
        lay_out(box, "k3s").write(
            "/etc/rancher/k3s/registries.yaml",
            f"configs:\n  {NAME}:\n    tls:\n      cert_file: /etc/ssl/c.pem\n".encode(),
        )
    before = box.files()
    refused = apply(box, part, pair)
    assert refused["code"] == "client-pair-foreign"
    assert "/etc/ssl/c.pem" in refused["error"]["message"]
    assert box.files() == before


def test_a_mirror_is_asked_with_the_pair(box: Box, pair: dict[str, str]) -> None:
    box.with_containerd(WITH_FOLDERS)
    apply(box, "containerd", pair, mirrors=[{"of": "docker.io", "path": "docker.io"}])
    tables = parse(box.read("/etc/containerd/certs.d/docker.io/hosts.toml") or b"")
    (section,) = tables["host"].values()
    assert section["client"] == [list(client_files.paths(CONTAINERD))]


def test_without_notes_our_pair_is_known_by_its_first_line(box: Box, pair: dict[str, str]) -> None:
    before = box.with_containerd(WITH_FOLDERS).files()
    apply(box, "containerd", pair)
    shutil.rmtree(box.root / "var/lib/moorage")
    box.untrust()
    assert box.files() == before


def test_the_state_keeps_the_key_for_root_alone_and_not_beyond_the_trust(
    box: Box, pair: dict[str, str]
) -> None:
    box.with_docker()
    apply(box, "docker", pair)
    plan = box.plan(registry={"client": pair}, **only("docker"))
    desired.keep(Store(str(box.root)), plan)
    other = {"host": "other.registry.io"}
    box.apply(registry=other, verify=None, **only("docker"))
    state = box.root / "var/lib/moorage"
    line = secrets(pair)[0].encode()
    holding = [path for path in state.rglob("*") if path.is_file() and line in path.read_bytes()]
    assert len(holding) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
    box.untrust()
    desired.drop(Store(str(box.root)), NAME)
    assert not [path for path in state.rglob("*") if path.is_file() and line in path.read_bytes()]
    # What stands of the other registry can be taken back all the same.
    assert box.run(box.engine().undo(box.plan(registry=other, verify=None)))["code"] is None


def in_the_state(box: Box, pair: dict[str, str]) -> list[Path]:
    """The files of the state folder that have the key in them."""
    line = secrets(pair)[0].encode()
    files = (path for path in (box.root / "var/lib/moorage").rglob("*") if path.is_file())
    return [path for path in files if line in path.read_bytes()]


def test_without_notes_a_pair_of_ours_is_not_taken_for_dockers(
    box: Box, pair: dict[str, str]
) -> None:
    apply(box.with_docker(), "docker", pair)
    shutil.rmtree(box.root / "var/lib/moorage")
    apply(lay_out(box, "podman"), "podman", pair)
    _, place, stem = CASES["podman"]
    assert None not in [box.read(path) for path in client_files.paths(place, stem)]


def test_a_pair_is_not_told_as_the_ca(box: Box, pair: dict[str, str]) -> None:
    box.with_docker()
    box.write(f"/etc/docker/certs.d/{NAME}/theirs.crt", box.ca.encode())
    assert apply(box, "docker", pair)["code"] is None
    events = box.run(box.engine().status())["events"]
    [told] = next(one for one in events if one["event"] == "status")["trusted"]
    endings = [one["path"].rpartition(".")[2] for one in told["files"]]
    assert endings.index("cert") < endings.index("crt")  # of the folder by the port's name
    assert told["ca_ends"] == status.ends(box.ca.encode()) is not None


def test_what_stays_for_others_keeps_no_key_in_the_state(box: Box, pair: dict[str, str]) -> None:
    with_config(box, MIRRORS)
    apply(box, "containerd", pair)
    assert in_the_state(box, pair)
    box.write("/etc/containerd/certs.d/quay.io/hosts.toml", b"[host]\n")
    assert "quay.io relies on it" in str(box.untrust()["events"])
    assert not in_the_state(box, pair)


def test_an_apply_that_was_rolled_back_leaves_no_key_in_the_state(
    box: Box, pair: dict[str, str]
) -> None:
    node_with(box, "containerd")
    box.prover.errors["pull"] = TrustError("ca-wrong", "it is not trusted")
    seen: list[list[Path]] = []
    transaction.on_step = lambda name: (
        seen.append(in_the_state(box, pair)) if name == "written" else None
    )
    assert apply(box, "containerd", pair)["code"] == "ca-wrong"
    assert seen[0]
    assert not in_the_state(box, pair)


def test_what_is_shown_of_a_file_has_no_key_in_it(pair: dict[str, str]) -> None:
    content = f"a\n{pair['key']}b\n".encode()
    for path in ("/etc/x.key", "/etc/x.pem"):
        for cut in (content, content[:80]):
            shown = words.without_keys(path, cut).decode()
            assert not [line for line in secrets(pair) if line[:20] in shown]
            assert re.search(r"SHA-256 [0-9a-f]{64}", shown)


# -- the plan ------------------------------------------------------------------------------------


def test_a_plan_without_a_pair_is_what_agents_of_before_read(box: Box) -> None:
    assert "client" not in box.plan().to_json()["registry"]
    assert Plan.parse(json.dumps(box.plan().to_json()).encode()).registry.client is None


def test_a_pair_goes_through_a_plan_and_is_in_no_repr(box: Box, pair: dict[str, str]) -> None:
    plan = box.plan(registry={"client": pair})
    assert plan.registry.client == ClientPair(**pair)
    assert Plan.parse(json.dumps(plan.to_json()).encode()) == plan
    assert secrets(pair)[0] not in repr(plan)
    assert {one.client for one in plan.registry.spellings} == {plan.registry.client}


@pytest.mark.parametrize(
    "change",
    [
        {"key": ""},
        {"key": "no key"},
        {"certificate": "no certificate"},
        {"key": "ANOTHER"},
        {"key": "ENCRYPTED"},
        {"key": "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n"},
        {"certificate": "KEY"},
    ],
)  # fmt: skip
def test_a_pair_that_is_none_is_refused_without_a_word_of_the_key(
    box: Box, authority: Authority, pair: dict[str, str], change: dict[str, str]
) -> None:
    known = {"ANOTHER": pair_of(authority)["key"], "KEY": pair["certificate"] + pair["key"]}
    known["ENCRYPTED"] = pair["key"].replace("PRIVATE", "ENCRYPTED PRIVATE")
    given = {**pair, **{name: known.get(text, text) for name, text in change.items()}}
    with pytest.raises(PlanError) as refused:
        box.plan(registry={"client": given})
    assert refused.value.code == ("plan-invalid" if change == {"key": ""} else "bad-client-pair")
    assert not [line for line in secrets(pair) if line in str(refused.value.fault)]


def test_a_registry_without_tls_is_shown_nothing(box: Box, pair: dict[str, str]) -> None:
    with pytest.raises(PlanError) as refused:
        box.plan(registry={"client": pair, "insecure": "http", "ca": None})
    assert refused.value.code == "bad-client-pair"


# -- a server that asks --------------------------------------------------------------------------


class _Answering(http.server.BaseHTTPRequestHandler):
    page = b""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(400 if self.page else 200)
        self.send_header("Content-Type", "text/html" if self.page else "application/json")
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class Asking:
    """A TLS server on loopback that demands a client's certificate, or answers as nginx does."""

    def __init__(self, folder: Path, authority: Authority, newest: bool, page: bytes = b"") -> None:
        crt, key = authority.issue(NAME)
        (folder / "crt").write_bytes(crt)
        (folder / "key").write_bytes(key)
        (folder / "cas").write_text(authority.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "crt", folder / "key")
        if not newest:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if not page:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(folder / "cas")
        handler = type("Handler", (_Answering,), {"page": page})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def plan(self, box: Box, pair: dict[str, str] | None) -> Plan:
        registry: dict[str, Any] = {"port": self.port, "address": "127.0.0.1"}
        if pair is not None:
            registry["client"] = pair
        return box.plan(registry=registry, verify=None)


@pytest.fixture(params=["1.3", "1.2"])
def asking(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority
) -> Iterator[Asking]:
    made = Asking(tmp_path, authority, newest=request.param == "1.3")
    yield made
    made.server.shutdown()
    made.server.server_close()


def told(plan: Plan) -> AgentError:
    with pytest.raises(AgentError) as caught:
        verify.ask_registry(plan, "127.0.0.1")
    return caught.value


def test_the_agents_own_request_presents_the_pair(
    box: Box, asking: Asking, pair: dict[str, str]
) -> None:
    verify.ask_registry(asking.plan(box, pair), "127.0.0.1")


def test_without_a_pair_it_is_said_that_one_is_wanted(box: Box, asking: Asking) -> None:
    problem = told(asking.plan(box, None))
    assert problem.code == "client-wanted"
    assert "registry.client_cert" in problem.cure


def test_a_pair_of_another_ca_is_said_to_be_refused(box: Box, asking: Asking) -> None:
    problem = told(asking.plan(box, pair_of(Authority("somebody else's"))))
    assert problem.code == "client-refused"


@pytest.mark.parametrize(
    ("page", "pair_given", "code"),
    [
        (b"<title>400 No required SSL certificate was sent</title>", False, "client-wanted"),
        (b"<title>400 The SSL certificate error</title>", True, "client-refused"),
        (b"<title>400 Bad Request</title>", False, "not-a-registry"),
    ],
)
def test_nginx_says_it_on_a_page(
    box: Box, tmp_path: Path, authority: Authority, pair: dict[str, str], page: bytes,
    pair_given: bool, code: str,
) -> None:  # fmt: skip
    made = Asking(tmp_path, authority, newest=True, page=page)
    assert told(made.plan(box, pair if pair_given else None)).code == code
    made.server.shutdown()
    made.server.server_close()


def test_what_docker_reads_is_shown_where_it_verifies_nothing(
    box: Box, tmp_path: Path, asking: Asking, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    plan = asking.plan(box, pair)
    folder = tmp_path / "certs.d"
    folder.mkdir()
    (folder / "ca.crt").write_text(box.ca)
    proof = Proof("files", "docker", reads=(str(folder),), name=plan.registry.name)
    there = socket.create_connection
    monkeypatch.setattr(
        "agent.proof.asking.socket.create_connection",
        lambda address, timeout: there(("127.0.0.1", address[1]), timeout),
    )
    with pytest.raises(AgentError) as caught:
        verify.trusts(proof, plan)
    assert caught.value.code in ("client-wanted", "client-refused")
    cert, key = map(Path, client_files.paths(str(folder)))
    cert.write_bytes((HEADER + pair["certificate"]).encode())
    key.write_bytes((HEADER + pair["key"]).encode())
    verify.trusts(proof, plan)


@pytest.mark.parametrize(
    ("said", "given", "code"),
    [
        ("remote error: tls: certificate required", False, "client-wanted"),
        ("remote error: tls: certificate required", True, "client-wanted"),
        ("remote error: tls: bad certificate", False, "client-wanted"),
        ("remote error: tls: bad certificate", True, "client-wanted"),
        ("remote error: tls: handshake failure", False, "client-wanted"),
        ("remote error: tls: unknown certificate authority", True, "client-refused"),
        ("remote error: tls: expired certificate", True, "client-refused"),
        ("x509: certificate signed by unknown authority", True, "x509-unknown-authority"),
    ],
)
def test_containerds_words_are_told_apart(
    box: Box, pair: dict[str, str], said: str, given: bool, code: str
) -> None:
    from agent.wire.troubles.told import classify

    plan = box.plan(registry={"client": pair} if given else {})
    words = f'failed to do request: Head "https://{NAME}/v2/app/manifests/1": {said}'
    found = classify(words, plan.registry, f"{NAME}/app:1")
    assert found.code == code
    if given and code == "client-wanted":  # the agent itself was let in with it a moment before
        assert "does not read the pair" in found.cause


def test_a_hosts_toml_of_ours_without_a_pair_is_as_it_was(box: Box) -> None:
    assert b"client" not in hosts_toml.own(box.plan().registry, "/ca.crt")
