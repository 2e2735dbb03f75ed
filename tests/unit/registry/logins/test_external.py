"""A registry that somebody else runs: its CA, its login by tokens, and what is refused there."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.x509 import Certificate

from agent.proof.verify import ask_registry
from agent.wire.faults import AgentError
from agent.wire.plan import Plan, Verify
from agent.wire.plan import Registry as Wanted
from moorage import fleet, registry
from moorage.archive import AgentArchive
from moorage.configuration import parsing
from moorage.errors import MoorageError, Refused
from moorage.fleet.rollout import operation, plans
from moorage.fleet.state.host import Ours, Standing
from moorage.images import pushing
from moorage.logs import support
from moorage.monitoring import rules
from moorage.pki import certificates, presented
from moorage.pki import registry as pki
from moorage.redaction import redacted
from moorage.registry import client, renewal, tls
from moorage.registry.logins import external, tokens
from moorage.registry.logins import login as given
from moorage.registry.logins.credentials import Credentials, keep, login_file
from moorage.settings import CertsSettings, ImageSettings, RegistrySettings, Settings
from moorage.tasks.command import Run
from moorage.tasks.registry import registry as tasks
from moorage.ui import UI
from moorage.walk import doctor
from moorage.web import sources
from tests import distribution
from tests.agent.authority import Authority
from tests.distribution import NAME, PASSWORD, ROBOT, STRANGER, Served, TokenServer
from tests.unit.elsewhere import project
from tests.unit.fleet.state import test_standing
from tests.unit.program import test_edges

LOGIN = Credentials(ROBOT, PASSWORD)
NAMELESS = "nowhere.invalid"  # RFC 6761: resolves nowhere


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def token_server(authority: Authority) -> Iterator[TokenServer]:
    with TokenServer(authority).running() as running:
        yield running


@pytest.fixture(scope="module")
def served(
    authority: Authority, token_server: TokenServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("registry")
    with distribution.serving(folder, authority.issue(NAME), token_server) as running:
        distribution.push(running, authority, token_server, "team/app")
        yield running


def theirs(root: Path, port: int, **more: object) -> Settings:
    chosen = RegistrySettings(host=NAME, port=port, external=True, address="127.0.0.1")
    return project(root, registry=replace(chosen, **more))  # type: ignore[arg-type]


@pytest.fixture
def known(served: Served, authority: Authority, tmp_path: Path) -> Settings:
    """Settings of the registry that serves, with its CA stored."""
    found = theirs(tmp_path, served.port)
    pki.keep_external_ca(found, certificates.load_certificates(authority.pem.encode())[0])
    return found


# -- the login, by tokens ------------------------------------------------------------------------


def test_a_login_that_tokens_are_issued_for_is_taken(known: Settings) -> None:
    client.check_login(known, LOGIN)
    nobody = registry.external_status(known)  # the server issues tokens to nobody, too
    assert (nobody.healthy, nobody.user) == (True, "")
    keep(known, LOGIN)
    status = registry.external_status(known)
    assert (status.healthy, status.user, status.external) == (True, ROBOT, True)


def test_the_web_page_shows_it_without_an_engine(
    known: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    shown = sources.registry(known).rows
    assert {("state", "answers"), ("run by", "somebody else")} <= set(shown)


def test_a_name_that_no_dns_knows_is_reached_by_its_address_and_so_is_its_token_server(
    tmp_path: Path, authority: Authority
) -> None:
    tokens_there = TokenServer(authority, name=NAMELESS)
    pair = authority.issue(NAMELESS)
    with tokens_there.running(), distribution.serving(tmp_path, pair, tokens_there) as running:
        chosen = replace(theirs(tmp_path, running.port).registry, host=NAMELESS)
        wanted = project(tmp_path, registry=chosen)
        pki.keep_external_ca(wanted, chain_of(authority.pem)[0])
        client.check_login(wanted, LOGIN)
        keep(wanted, LOGIN)
        with pytest.raises(Refused) as refused:  # skopeo takes no address
            pushing.push(wanted, [str(tmp_path)], "", UI())
    assert set(tokens_there.asked) == {ROBOT}
    assert refused.value.cure.endswith(f"hosts file: 127.0.0.1 {NAMELESS}")


def test_a_wrong_password_is_refused_with_a_cure_that_works(known: Settings) -> None:
    with pytest.raises(MoorageError) as refused:
        client.check_login(known, Credentials(ROBOT, "wrong"))
    assert refused.value.code == "registry-refuses"
    assert refused.value.cure.startswith("inv registry.login")


def test_a_token_covers_the_repository_that_is_asked_for(known: Settings) -> None:
    assert client.manifest_digest(known, LOGIN, "team/app", "1").startswith("sha256:")
    path = "/v2/team/app/manifests/1"
    may_not = client.ask(known, path, login=Credentials(STRANGER, PASSWORD))
    assert may_not.status == 401
    assert "insufficient_scope" in may_not.headers["www-authenticate"]


def test_no_password_goes_to_a_token_server_without_tls(
    known: Settings, token_server: TokenServer
) -> None:
    before = len(token_server.asked)
    wanted = {"realm": f"http://{NAME}:{token_server.port}/token"}
    context = tls.context(known, with_systems=True)
    with pytest.raises(MoorageError) as refused:
        tokens.fetch(known, wanted, {"Authorization": "Basic x"}, context, 5)
    assert refused.value.code == "token-server"
    assert len(token_server.asked) == before


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "[::1", "a:99999"])
def test_a_token_server_that_has_no_address_is_a_sentence(known: Settings, host: str) -> None:
    wanted, context = {"realm": f"https://{host}/token"}, tls.context(known, with_systems=True)
    with pytest.raises(MoorageError) as refused:
        tokens.fetch(known, wanted, {}, context, 5)
    assert (refused.value.code, host in refused.value.cause) == ("token-server", True)


@pytest.mark.parametrize(("host", "place"), [(NAME, "192.0.2.1"), ("else.test", "else.test")])
def test_the_registrys_address_is_that_of_its_own_host_alone(
    known: Settings, monkeypatch: pytest.MonkeyPatch, host: str, place: str
) -> None:
    asked: list[tuple[str, int]] = []

    def connect(at: tuple[str, int], _timeout: float) -> socket.socket:
        asked.append(at)
        raise OSError("not here")

    monkeypatch.setattr(socket, "create_connection", connect)
    wanted, context = {"realm": f"https://{host}:8443/token"}, tls.context(known)
    with pytest.raises(MoorageError, match="no token"):
        tokens.fetch(known, wanted, {}, context, 5, "192.0.2.1")
    assert asked == [(place, 8443)]


def test_no_password_goes_where_a_registry_names_a_token_server_without_tls(
    tmp_path: Path, authority: Authority, token_server: TokenServer
) -> None:
    before = len(token_server.asked)
    pair = authority.issue(NAME)
    with distribution.serving(tmp_path / "r", pair, token_server, scheme="http") as running:
        wanted = theirs(tmp_path, running.port)
        pki.keep_external_ca(wanted, chain_of(authority.pem)[0])
        with pytest.raises(MoorageError) as refused:
            client.check_login(wanted, LOGIN)
        image = f"{wanted.registry_name}/team/app:1"
        node = Wanted(NAME, running.port, "127.0.0.1", authority.pem)
        ask_registry(Plan(node, verify=Verify(image, ROBOT, PASSWORD)))  # left to the runtime
    assert refused.value.code == "token-server"
    assert len(token_server.asked) == before


def test_no_password_goes_to_a_server_whose_certificate_the_ca_does_not_vouch_for(
    tmp_path: Path, token_server: TokenServer
) -> None:
    before = len(token_server.asked)
    wanted = theirs(tmp_path, token_server.port)  # it notes every login that reaches it
    with pytest.raises(Refused) as unknown:
        client.check_login(wanted, LOGIN)
    pki.keep_external_ca(wanted, chain_of(Authority("another").pem)[0])
    with pytest.raises(MoorageError) as refused:
        client.check_login(wanted, LOGIN)
    assert (unknown.value.code, refused.value.code) == ("no-certificates", "registry-certificate")
    assert len(token_server.asked) == before
    pki.keep_external_ca(wanted, chain_of(token_server.authority.pem)[0])
    client.ask(wanted, "/v2/", login=LOGIN)
    assert token_server.asked[before:] == [ROBOT]


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nHost: b"}']
)
def test_what_is_no_token_is_one_sentence(
    known: Settings, token_server: TokenServer, answer: bytes
) -> None:
    token_server.answer = answer
    try:
        with pytest.raises(MoorageError) as refused:
            client.check_login(known, LOGIN)
    finally:
        token_server.answer = None
    assert refused.value.code == "token-server"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t",service="s"', {"realm": "https://a/t", "service": "s"}),
        (
            'bearer Realm="https://a/t", scope="repository:a/b:pull,push"',
            {"realm": "https://a/t", "scope": "repository:a/b:pull,push"},
        ),
        ('Basic realm="Moorage"', None),
        ('Bearer service="s"', None),
        ("", None),
    ],
)
def test_a_challenge_is_taken_apart(header: str, expected: dict[str, str] | None) -> None:
    assert tokens.challenge(header) == expected


def test_the_login_is_kept_for_one_registry_alone_and_for_nobody_else_to_read(
    known: Settings,
) -> None:
    assert keep(known, LOGIN)
    assert not keep(known, LOGIN)
    assert registry.credentials(known) == LOGIN
    assert login_file(known).stat().st_mode & 0o777 == 0o600
    other = replace(known, registry=replace(known.registry, host="other.example.com"))
    assert registry.if_any(other) is None
    with pytest.raises(Refused) as refused:
        registry.credentials(other)
    assert refused.value.cure.startswith("inv registry.login")


@pytest.mark.parametrize("spoilt", [b"", b"nobody\n", b"a:b\nc:d\n", b"\xff:x", b":x\n"])
def test_a_spoilt_login_file_is_one_sentence(known: Settings, spoilt: bytes) -> None:
    keep(known, LOGIN)
    login_file(known).write_bytes(spoilt)
    with pytest.raises(Refused) as refused:
        registry.credentials(known)
    assert refused.value.code == "credentials-unusable"
    assert refused.value.cure.startswith("inv registry.login")


def test_the_login_is_kept_out_of_logs_and_of_the_bundle(known: Settings) -> None:
    login = Credentials(ROBOT, "correct horse: battery")
    keep(known, login)
    assert login.password in support.known_secrets(known)
    assert registry.credentials(known) == login
    assert login.password not in redacted(f"it said {login.password}")


def test_a_password_may_have_colons_and_spaces_and_a_user_a_dollar() -> None:
    assert given.parsed(f"{ROBOT}:{PASSWORD}\n".encode(), "a file") == LOGIN


# -- its certificates ----------------------------------------------------------------------------


def chain_of(*pems: str | bytes) -> list[Certificate]:
    joined = b"".join(one.encode() if isinstance(one, str) else one for one in pems)
    return certificates.load_certificates(joined)


def test_the_chain_that_a_server_presents_is_seen_and_its_top_chosen(
    served: Served, authority: Authority
) -> None:
    found = presented.look("127.0.0.1", NAME, served.port)
    assert len(found.chain) == 1
    assert (found.anchor, found.kind) == (found.chain[0], presented.SERVER)


def test_of_a_chain_the_highest_is_trusted_in_whatever_order_it_comes() -> None:
    root = Authority("root")
    between = root.intermediate()
    leaf, _ = between.issue(NAME)
    (between_crt,), (root_crt,) = chain_of(between.pem), chain_of(root.pem)
    for rest in ([between.pem, root.pem], [root.pem, between.pem]):
        found = presented.chosen(chain_of(leaf, *rest), None)
        assert (found.anchor, found.kind) == (root_crt, presented.ROOT)
    found = presented.chosen(chain_of(leaf, between.pem), None)
    assert (found.anchor, found.kind) == (between_crt, presented.INTERMEDIATE)
    stray = presented.chosen(chain_of(leaf, Authority("stray").pem), None)
    assert stray.kind == presented.SERVER
    own = presented.chosen(chain_of(root.pem), None)
    assert (own.anchor, own.kind) == (root_crt, presented.OWN)
    public = presented.chosen(chain_of(leaf, between.pem), root_crt)
    assert (public.anchor, public.kind) == (root_crt, presented.PUBLIC)


@pytest.mark.parametrize("top", ["root", "intermediate", "server"])
def test_whatever_is_chosen_is_enough_to_trust_the_server(
    tmp_path: Path, token_server: TokenServer, top: str
) -> None:
    root = Authority("root")
    between = root.intermediate()
    leaf, key = between.issue(NAME)
    more = {"root": between.pem + root.pem, "intermediate": between.pem, "server": ""}[top]
    with distribution.serving(tmp_path / "r", (leaf + more.encode(), key)) as running:
        wanted = theirs(tmp_path, running.port)
        found = presented.look("127.0.0.1", NAME, running.port)
        pki.keep_external_ca(wanted, found.anchor)
        client.check_login(wanted, None)
        ask_registry(Plan(Wanted(NAME, running.port, "127.0.0.1", pki.ca_pem(wanted))))


def test_another_fingerprint_than_the_one_expected_is_refused(authority: Authority) -> None:
    found = presented.chosen(chain_of(authority.pem), None)
    right = certificates.facts(found.anchor).fingerprint
    for spelled in (right, right.lower(), right.replace(":", "")):
        presented.require_fingerprint(found, spelled)
    for wrong in (right[:-2] + "00" if right[-2:] != "00" else right[:-2] + "01", "", right[:-3]):
        with pytest.raises(Refused) as refused:
            presented.require_fingerprint(found, wrong)
        assert refused.value.code == "ca-fingerprint"


def test_a_server_without_tls_presents_nothing(tmp_path: Path) -> None:
    with (
        distribution.serving(tmp_path / "r", None) as running,
        pytest.raises(MoorageError) as refused,
    ):
        presented.look("127.0.0.1", NAME, running.port)
    assert refused.value.code == "registry-unseen"


def test_one_that_wants_a_certificate_of_its_clients_is_told_as_that(
    tmp_path: Path, authority: Authority
) -> None:
    pair = authority.issue(NAME)
    with distribution.serving(tmp_path / "r", pair, client_ca=authority.pem) as running:
        wanted = theirs(tmp_path, running.port)
        pki.keep_external_ca(wanted, chain_of(authority.pem)[0])
        with pytest.raises(MoorageError) as refused:
            client.check_login(wanted, None)
        with pytest.raises(AgentError) as told:
            ask_registry(Plan(Wanted(NAME, running.port, "127.0.0.1", authority.pem)))
    assert refused.value.code == told.value.fault.code == "client-wanted"


def test_a_ca_file_of_the_users_is_read_and_never_written(
    tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "theirs.pem").write_text(authority.pem)
    wanted = theirs(tmp_path, 443, ca="theirs.pem")
    assert pki.ca_pem(wanted) == authority.pem
    with pytest.raises(Refused) as refused:
        pki.keep_external_ca(wanted, chain_of(Authority("other").pem)[0])
    assert refused.value.code == "ca-file-yours"
    assert (tmp_path / "theirs.pem").read_text() == authority.pem


def test_without_a_ca_the_cure_is_a_command_for_such_a_registry(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        pki.ca_pem(theirs(tmp_path, 443))
    assert refused.value.code == "no-certificates"
    assert refused.value.cure.startswith("inv registry.ca --fetch")


# -- what is refused, and what is never offered --------------------------------------------------


@pytest.mark.parametrize("verb", ["up", "pending", "down", "logs", "renew"])
def test_what_needs_a_registry_of_our_own_is_refused_before_any_engine_is_asked(
    tmp_path: Path, verb: str
) -> None:
    wanted = theirs(tmp_path, 443)
    calls = {
        "up": lambda: registry.up(wanted, None, UI()),  # type: ignore[arg-type]
        "pending": lambda: registry.pending(wanted, None),
        "down": lambda: registry.down(wanted, None, UI()),  # type: ignore[arg-type]
        "logs": lambda: list(registry.logs(wanted, None)),  # type: ignore[arg-type]
        "renew": lambda: renewal.renew(wanted, UI()),
    }
    with pytest.raises(Refused) as refused:
        calls[verb]()  # type: ignore[no-untyped-call]
    assert refused.value.code == "registry-external"
    assert not (tmp_path / ".moorage").exists()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `inv` needs, with settings of a registry of somebody else's."""
    found = tmp_path_factory.mktemp("checkout")
    for name in ("moorage", "agent"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(test_edges.ROOT / name, found / name, ignore=ignored)
    shutil.copy(test_edges.ROOT / "tasks.py", found)
    (found / "invoke.yaml").write_text(f"registry: {{host: {NAME}.example.com, external: true}}\n")
    return found


@pytest.mark.parametrize(
    "words",
    [
        *("up", "registry.up", "registry.down", "registry.logs", "registry.collect"),
        *("registry.restore-blobs", "registry.verify", "registry.backup /nowhere"),
        *("registry.restore /nowhere", "certs.issue", "certs.renew", "users.list"),
        *("users.add a --role=pull", "users.password a", "users.remove a"),
        *("images.list", "images.delete a:1", "images.prune --keep=1"),
    ],
)
def test_every_command_for_a_registry_of_our_own_refuses_and_changes_nothing(
    checkout: Path, words: str
) -> None:
    done = test_edges.inv(
        checkout, *words.split(), "--json", DOCKER_HOST="unix:///nowhere/docker.sock"
    )
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "registry-external")
    name = words.partition(" ")[0]
    assert error["message"].startswith(f"inv {name} is for a registry that Moorage runs")
    assert not (checkout / "certs").exists()
    assert not (checkout / ".moorage" / "registry").exists()


def test_what_is_for_one_of_somebody_elses_is_refused_for_ours(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        external.require_external(project(tmp_path), "inv registry.login")
    assert refused.value.code == "registry-own"


def ending() -> Standing:
    """A node whose CA ends tomorrow."""
    state = test_standing.state()
    state["trusted"][0]["ca_ends"] = int(test_standing.NOW) + 86400
    return test_standing.of(state)


_NEVER = (
    *("registry.up", "registry.logs", "registry.down", "certs.issue", "certs.rotate-ca"),
    *("inv up", "image.push"),
)


def test_doctor_offers_no_cure_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    found = doctor.examine(theirs(tmp_path, 1), UI(as_json=True), "node1")
    assert {one.what for one in found} >= {"system", "nodes"}
    assert not [one.cure for one in found for word in _NEVER if word in one.cure]
    assert [one for one in found if "inv registry.ca --fetch" in one.cure]


def test_without_a_node_neither_doctor_nor_a_command_offers_the_lab(tmp_path: Path) -> None:
    """The lab's nodes are containers of an engine that such a registry does not need."""
    wanted = theirs(tmp_path, 1)
    assert wanted.nodes.hosts == ()
    (found,) = [one for one in doctor.examine(wanted, UI(as_json=True)) if one.what == "nodes"]
    assert found.cure.startswith("inv nodes.trust --hosts=NAMES")
    for settings, word in ((wanted, "--hosts=node1,node2"), (project(tmp_path), "inv lab.up")):
        with pytest.raises(Refused) as refusal:
            fleet.choose_hosts(settings)
        assert word in refusal.value.cure
        assert ("lab" in refusal.value.cure) is (settings is not wanted)


def test_status_offers_no_cure_that_cannot_work(
    known: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tests' CA ends in 29 days, which is soon."""
    assert [one["state"] for one in tasks._ends(Run(known, UI()))["ends"]] == ["soon", "soon"]
    said = "".join(capsys.readouterr())
    assert external.next_ca(known) in said.replace("\n", " ")
    assert not [word for word in _NEVER if word in said]


def test_a_ca_that_ends_on_a_node_has_one_cure_that_can_work(tmp_path: Path) -> None:
    for settings in (theirs(tmp_path, 1), theirs(tmp_path, 1, ca="ca.pem"), project(tmp_path)):
        own = Ours.of(settings, AgentArchive(tmp_path, "a" * 64))
        cure = external.next_ca(settings)
        (told,) = ending().to_do(own, test_standing.NOW)
        assert told == f"its CA ends: {cure}"
        alerts = yaml.safe_load(rules.document(settings, 1))["groups"][0]["rules"]
        next_words = {one["alert"]: one["annotations"]["description"] for one in alerts}
        assert next_words["MoorageCAEnds"].startswith(f"Next: {cure} --hosts=")
        (found,) = doctor.ends_of_node(ending(), datetime.fromtimestamp(test_standing.NOW, UTC))
        assert external.cure(settings, "", found.cure) == cure
        if settings.registry.external:
            assert not [word for word in _NEVER if word in f"{cure} {next_words}"]


def test_doctor_has_nothing_to_cure_where_ca_and_login_are_kept(known: Settings) -> None:
    keep(known, LOGIN)
    known = replace(known, certs=CertsSettings(renew_before=5))
    found = doctor.examine(known, UI(as_json=True))
    assert {one.what: one.state for one in found}["registry"] == "fine"
    assert {one.what: one.state for one in found}["CA"] == "fine"
    assert not [one for one in found if one.state == "wrong"]


def test_every_cure_of_the_pulls_table_can_work_where_somebody_else_runs_it(
    tmp_path: Path,
) -> None:
    from agent.wire.troubles.table import rows

    wanted, ours = theirs(tmp_path, 443), project(tmp_path)
    for row in (*rows("node"), *rows("engine")):
        told = external.cure(wanted, row.code, row.told.cure)
        assert not [word for word in _NEVER if word in told], row.code
        assert external.cure(ours, row.code, row.told.cure) == row.told.cure


def test_every_cause_of_a_stuck_pod_has_a_cure_that_can_work() -> None:
    from moorage.cluster.diagnosis.diagnosis import diagnose
    from moorage.cluster.diagnosis.known import Known
    from moorage.cluster.symptoms import causes
    from moorage.cluster.symptoms.stuck import Stuck

    for words in (
        "x509: certificate has expired or is not yet valid: current time",
        "dial tcp 10.0.0.1:443: connect: connection refused",
        "500 Internal Server Error",
        "tls: handshake failure",
        "server gave HTTP response to HTTPS client",
        "manifest unknown",
    ):
        name = "my.registry.io"
        one = Stuck("web", "pod", "uid", "n1", "app", f"{name}/app:1", "ErrImagePull", words)
        (ours,) = diagnose([one], Known(name, one.image))
        (group,) = diagnose([one], Known(name, one.image, external=True))
        assert group.code == ours.code
        assert group.fix not in (causes.UP, causes.ISSUE, causes.PUSH)
        assert not [word for word in _NEVER if word in group.cure], words


# -- plans ---------------------------------------------------------------------------------------


def test_nodes_find_such_a_registry_by_dns_and_get_no_entry_in_their_hosts_file(
    tmp_path: Path,
) -> None:
    wanted = theirs(tmp_path, 443, address="auto")
    assert plans.found_by_dns(wanted)
    assert plans.registry_address(wanted, "192.0.2.7") == ""
    assert plans.this_machines_address(wanted) is None
    set_ = theirs(tmp_path, 443, address="192.0.2.9")
    assert not plans.found_by_dns(set_)
    assert plans.registry_address(set_, "192.0.2.7") == "192.0.2.9"


def test_the_proving_pull_is_of_an_image_that_is_named(known: Settings) -> None:
    with pytest.raises(Refused) as refused:
        operation.proof(known, None)
    assert refused.value.code == "no-proof-image"
    image = f"{known.registry_name}/team/app:1"
    assert operation.proof(known, image) == Verify(image)  # no login is kept: none is sent
    keep(known, LOGIN)
    assert operation.proof(known, image) == Verify(image, ROBOT, PASSWORD)
    set_ = replace(known, image=ImageSettings(name="team/app", tag="1"))
    assert operation.proof(set_, None) == Verify(image, ROBOT, PASSWORD)


# -- the settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("https://Harbor.example.com/", "harbor.example.com"),
        ("https://harbor.example.com:443/", "harbor.example.com"),
        ("https://harbor.example.com:443", "harbor.example.com"),
        ("harbor.example.com", "harbor.example.com"),
        ("https://harbor.example.com:8443", "harbor.example.com:8443"),
    ],
)
def test_an_address_of_a_browser_is_the_same_registry(host: str, name: str) -> None:
    found = parsing.parse({"registry": {"host": host, "external": True}})
    assert found.registry_name == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "https://harbor.example.com/harbor/projects", "external": True},
        {"host": "https://user:secret@harbor.example.com", "external": True},
        {"host": "http://harbor.example.com", "external": True},
        {"host": "https://harbor.example.com:8443", "port": 9443, "external": True},
        {"host": "https://harbor.example.com:99999", "external": True},
        {"host": "https://harbor.example.com", "external": False},
        {"ca": "theirs.pem"},
    ],
)
def test_what_is_no_address_of_a_registry_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        parsing.parse({"registry": wrong})
    assert refused.value.code == "bad-setting"


def test_the_agent_tells_a_refused_token(known: Settings, token_server: TokenServer) -> None:
    image = f"{known.registry_name}/team/app:1"
    wanted = Wanted(NAME, known.registry.port, "127.0.0.1", pki.ca_pem(known))
    ask_registry(Plan(wanted, verify=Verify(image, ROBOT, PASSWORD)))
    before = len(token_server.asked)
    for user, password in ((ROBOT, "wrong"), (STRANGER, PASSWORD)):
        with pytest.raises(AgentError) as refused:
            ask_registry(Plan(wanted, verify=Verify(image, user, password)))
        assert refused.value.fault.code == "login-refused"
    missing = image.replace("app:1", "app:2")
    with pytest.raises(AgentError) as refused:
        ask_registry(Plan(wanted, verify=Verify(missing, ROBOT, PASSWORD)))
    assert refused.value.fault.code == "image-missing"
    assert len(token_server.asked) > before
