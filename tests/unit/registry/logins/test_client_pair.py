"""A registry that asks its clients for a certificate, as this machine meets it."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from agent.wire.plan import Plan
from agent.wire.verbs import VERBS
from moorage.cluster.agents.plan import make_plan
from moorage.errors import MoorageError, Refused
from moorage.fleet.rollout.operation import Operation, Wish
from moorage.images import asking, skopeo
from moorage.logs import support
from moorage.pki import certificates, presented
from moorage.pki import registry as pki
from moorage.redaction import redacted
from moorage.registry import client, served, tls
from moorage.registry.logins import client_pair
from moorage.settings import Settings
from moorage.walk import doctor
from tests import distribution
from tests.agent.authority import Authority
from tests.distribution import NAME, Served
from tests.unit.elsewhere import checkout
from tests.unit.program.test_help import inv
from tests.unit.registry.logins.test_external import theirs

OTHER = "other.registry.io"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def running(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Debian's docker-registry with ``http.tls.clientcas``."""
    folder = tmp_path_factory.mktemp("registry")
    pair = authority.issue(NAME)
    with distribution.serving(folder, pair, client_ca=authority.pem) as found:
        yield found


def known(folder: Path, port: int, authority: Authority, **more: str) -> Settings:
    found = theirs(folder, port, **more)
    pki.keep_external_ca(found, certificates.load_certificates(authority.pem.encode())[0])
    return found


def laid(folder: Path, pair: tuple[bytes, bytes], mode: int = 0o600) -> dict[str, str]:
    """The pair as files, and the settings that name them."""
    (folder / "client.crt").write_bytes(pair[0])
    (folder / "client.key").write_bytes(pair[1])
    (folder / "client.key").chmod(mode)
    return {"client_cert": "client.crt", "client_key": str(folder / "client.key")}


@pytest.fixture
def settings(tmp_path: Path, running: Served, authority: Authority) -> Settings:
    return known(tmp_path, running.port, authority, **laid(tmp_path, authority.issue("operator")))


def test_this_machines_requests_present_it(settings: Settings) -> None:
    client.check_login(settings, None)
    pair = client_pair.read(settings)
    assert pair is not None
    asker = asking.Asker(
        {}, lambda _: (str(settings.ca_file),), present=lambda _, made: tls.present(settings, made)
    )
    pool = asker._pool(settings.registry_name)  # digests of this registry are asked over it
    with socket.create_connection(("127.0.0.1", settings.registry.port)) as raw:
        context: ssl.SSLContext = pool.connection_pool_kw["ssl_context"]
        with context.wrap_socket(raw, server_hostname=NAME) as line:
            line.sendall(f"GET /v2/ HTTP/1.0\r\nHost: {NAME}\r\n\r\n".encode())
            assert line.recv(15).startswith(b"HTTP/1.0 200")


def test_doctor_proves_it_and_says_when_it_ends(settings: Settings) -> None:
    found = {one.what: one for one in doctor._client_pair(settings)}
    assert found["client's certificate"].state == "wrong"  # it ends in 30 days: 29 and some hours
    assert "inv nodes.trust" in found["client's certificate"].cure
    assert [one.state for one in doctor._external_registry(settings)] == ["fine"]
    assert served.CLIENT in {one.what for one in served.all_ends(settings)}
    assert served.certificate(settings).names == (NAME,)


def test_one_that_has_ended_is_among_the_ends_that_are_told(
    tmp_path: Path, running: Served, authority: Authority
) -> None:
    ended = laid(tmp_path, authority.issue("operator", days=-1))
    found = {
        one.what: one for one in served.all_ends(known(tmp_path, running.port, authority, **ended))
    }
    assert found[served.CLIENT].at is not None
    assert "not valid now" in found[served.SERVED].why


def test_without_one_it_is_said_what_to_set(
    tmp_path: Path, running: Served, authority: Authority
) -> None:
    bare = known(tmp_path, running.port, authority)
    with pytest.raises(MoorageError) as refused:
        client.check_login(bare, None)
    assert refused.value.code == "client-wanted"
    assert "registry.client_cert" in refused.value.cure
    assert doctor._client_pair(bare) == []


def test_one_of_another_ca_is_said_to_be_refused(
    tmp_path: Path, running: Served, authority: Authority
) -> None:
    other = laid(tmp_path, Authority("other").issue("operator"))
    with pytest.raises(MoorageError) as refused:
        client.check_login(known(tmp_path, running.port, authority, **other), None)
    assert refused.value.code == "client-refused"


def test_the_ca_is_fetched_from_a_server_that_asks(
    tmp_path: Path, running: Served, authority: Authority, settings: Settings
) -> None:
    shown = presented.look(
        "127.0.0.1", NAME, running.port, present=lambda made: tls.present(settings, made)
    )
    assert shown.chain
    old = ssl.SSLContext.wrap_socket

    def by_1_2(context: ssl.SSLContext, *args: object, **more: object) -> ssl.SSLSocket:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return old(context, *args, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "wrap_socket", by_1_2)
        with pytest.raises(MoorageError) as refused:
            presented.look("127.0.0.1", NAME, running.port)
        assert refused.value.code == "client-wanted"
        with pytest.raises(MoorageError) as told:
            client.check_login(known(tmp_path, running.port, authority), None)
        assert told.value.code == "client-wanted"
        present = tls.present
        assert presented.look(
            "127.0.0.1", NAME, running.port, present=lambda made: present(settings, made)
        ).chain


def test_skopeo_gets_it_as_files_that_go_again(settings: Settings) -> None:
    pair = client_pair.read(settings)
    assert pair is not None
    with skopeo.access(settings, None) as allowed:
        folder = Path(allowed.certs)
        assert (folder / "client.cert").read_text() == pair.certificate
        assert (folder / "client.key").read_text() == pair.key
        assert (folder / "client.key").stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_the_plans_that_set_trust_up_carry_it_and_no_others(settings: Settings) -> None:
    image = f"{settings.registry_name}/team/app:1"
    carried = {
        verb.name
        for verb in VERBS
        if verb.plan
        and Operation.of(settings, verb, Wish(image=image)).plan(settings, None).registry.client
    }
    assert carried == {verb.name for verb in VERBS if verb.ca}
    assert {"apply", "verify"} <= carried
    assert not {"untrust", "undo"} & carried


def test_the_agents_of_a_cluster_get_it_in_their_plan(settings: Settings) -> None:
    from dataclasses import replace

    named = replace(settings, image=replace(settings.image, name="team/app"))
    plan = Plan.parse(make_plan(named, ()))
    assert plan.registry.client == client_pair.read(settings)


def test_no_log_and_no_bundle_has_the_key(settings: Settings) -> None:
    pair = client_pair.read(settings)
    assert pair is not None
    lines = pair.key.splitlines()[1:-1]
    assert not [line for line in lines if line in redacted(json.dumps({"key": pair.key}))]
    assert set(lines) - {"", lines[-1]} <= set(support.known_secrets(settings))
    assert pair.key not in repr(pair)


# -- files that are none --------------------------------------------------------------------------


def encrypted(key: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )


@pytest.mark.parametrize(
    ("spoilt", "code", "said", "cure"),
    [
        ("no certificate", "client-pair", "not a whole certificate", "PEM"),
        ("no key", "client-pair", "not a whole private key", "PEM"),
        ("another key", "client-pair", "not the key of", "own key"),
        ("encrypted", "client-pair", "passphrase", "openssl pkey"),
        ("readable 644", "client-pair", "everybody", "chmod 600"),
        ("readable 604", "client-pair", "everybody", "chmod 600"),
        ("readable 640", "client-pair", "its group", "chmod 600"),
        ("readable 620", "client-pair", "its group", "chmod 600"),
        ("ended", "client-pair-ended", "ended on", "follows"),
        ("missing", "client-pair", "No such file", "registry.client_cert"),
    ],
)
def test_files_that_are_no_pair_are_refused_with_a_cure(
    tmp_path: Path, authority: Authority, spoilt: str, code: str, said: str, cure: str
) -> None:
    pair = authority.issue("operator", days=-1 if spoilt == "ended" else 30)
    given = laid(tmp_path, pair, int(spoilt.partition("readable ")[2] or "600", 8))
    cert, key = tmp_path / "client.crt", tmp_path / "client.key"
    if spoilt == "no certificate":
        cert.write_text("hello")
    elif spoilt == "no key":
        key.write_text("hello")
    elif spoilt == "another key":
        key.write_bytes(authority.issue("operator")[1])
    elif spoilt == "encrypted":
        key.write_bytes(encrypted(pair[1]))
    elif spoilt == "missing":
        key.unlink()
    with pytest.raises(Refused) as refused:
        client_pair.read(theirs(tmp_path, 443, **given))
    assert (refused.value.code, said in refused.value.cause) == (code, True), refused.value.cause
    assert cure in refused.value.cure
    assert pair[1].decode().splitlines()[1] not in str(refused.value.to_json())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_the_group_of_anothers_key_may_read_it(tmp_path: Path, authority: Authority) -> None:
    given = laid(tmp_path, authority.issue("operator"), 0o640)
    os.chown(tmp_path / "client.key", 1234, 0)
    assert client_pair.read(theirs(tmp_path, 443, **given)) is not None


def test_a_key_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    import subprocess

    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:SM2 -nodes -subj /CN=x"
    words = [*made.split(), "-keyout", "client.key", "-out", "client.crt"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    crt, key = ((tmp_path / f"client.{end}").read_bytes() for end in ("crt", "key"))
    given = laid(tmp_path, (crt, key))
    with pytest.raises(Refused, match=r"client.crt cannot be used") as refused:
        client_pair.read(theirs(tmp_path, 443, **given))
    assert "not supported" in refused.value.cause


def test_the_cure_for_an_encrypted_key_is_a_command_that_works(
    tmp_path: Path, authority: Authority
) -> None:
    import subprocess

    pair = authority.issue("operator")
    given = laid(tmp_path, (pair[0], encrypted(pair[1])))
    with pytest.raises(Refused) as refused:
        client_pair.read(theirs(tmp_path, 443, **given))
    typed = refused.value.cure.replace("openssl pkey", "openssl pkey -passin pass:word")
    subprocess.run(["sh", "-c", typed], check=True)
    assert client_pair.read(theirs(tmp_path, 443, **given)) is not None


def test_one_file_may_hold_both_and_the_chain_in_any_order(
    tmp_path: Path, authority: Authority
) -> None:
    inner = authority.intermediate()
    leaf, key = inner.issue("operator")
    both = tmp_path / "both.pem"
    both.write_bytes(inner.pem.encode() + key + leaf)
    both.chmod(0o600)
    pair = client_pair.read(theirs(tmp_path, 443, client_cert="both.pem", client_key="both.pem"))
    assert pair is not None
    assert pair.certificate == leaf.decode() + inner.pem


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"external": True, "client_cert": "a"}, "registry.client_cert"),
        ({"external": True, "client_key": "a"}, "registry.client_key"),
        ({"client_cert": "a", "client_key": "a"}, "registry.client_cert"),
    ],
)
def test_half_of_it_or_one_for_our_own_registry_is_no_setting(
    given: dict[str, object], place: str
) -> None:
    from moorage.configuration import parsing

    with pytest.raises(parsing.BadSetting) as refused:
        parsing.parse({"registry": {"host": NAME, **given}})
    assert refused.value.place == place


def test_config_check_reads_the_files(tmp_path: Path, authority: Authority) -> None:
    given = laid(tmp_path, authority.issue("operator"), 0o644)
    given["client_cert"] = str(tmp_path / "client.crt")
    words = "".join(f"  {key}: {value}\n" for key, value in given.items())
    (tmp_path / "mine.yaml").write_text(f"registry:\n  host: {OTHER}\n  external: true\n{words}")
    checked = ["-f", str(tmp_path / "mine.yaml"), "config.check"]
    (code, _, err), *_ = inv(checkout(tmp_path / "checkout"), checked)
    assert (code, "chmod 600" in err) == (2, True), err
    (tmp_path / "client.key").chmod(0o600)
    (code, out, err), *_ = inv(tmp_path / "checkout", checked)
    assert (code, "the settings are right" in out) == (0, True), err
