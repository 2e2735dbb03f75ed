"""Certificates: what three TLS stacks accept, what is reused, what is never overwritten."""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agent.wire.plan import Plan
from moorage.errors import Refused
from moorage.files import write_atomically
from moorage.pki import certificates, deciding
from moorage.pki import registry as pki
from moorage.settings import CertsSettings, RegistrySettings, Settings
from tests.agent.words.certificates import own
from tests.unit.elsewhere import certs, project

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def contents(settings: Settings) -> dict[str, bytes]:
    folder = settings.certs_dir
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def refusal(settings: Settings) -> Refused:
    """The refusal of issue, which must be that of pending and must have changed nothing."""
    before = contents(settings)
    with pytest.raises(Refused) as asked:
        pki.pending(settings)
    with pytest.raises(Refused) as done:
        pki.issue(settings)
    assert asked.value.to_json() == done.value.to_json()
    assert done.value.cause
    assert done.value.cure
    assert contents(settings) == before
    return done.value


def handshake(settings: Settings, name: str, *, strict: bool = False) -> None:
    """A real TLS connection; raises ssl.SSLError where the client does not accept the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = settings.certs_dir
    server.load_cert_chain(folder / "registry.crt", folder / "registry.key")
    client = ssl.create_default_context(cadata=pki.ca_pem(settings))
    if strict:
        client.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()
    here.settimeout(10)
    there.settimeout(10)

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True):
                pass
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name):
            pass
    finally:
        here.close()
        thread.join()


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-4096"])
def test_openssl_and_python_accept_the_chain(tmp_path: Path, kind: str) -> None:
    settings = certs(tmp_path, key=kind, names=("*.lab.internal", "10.1.2.3", "fd00::5"))
    issued = pki.issue(settings)
    done = subprocess.run(
        "openssl verify -x509_strict -purpose sslserver -verify_hostname my.registry.io "
        f"-CAfile {issued.ca_path} {issued.cert_path}".split(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    for name in ("my.registry.io", "node.lab.internal", "10.1.2.3", "fd00::5"):
        handshake(settings, name, strict=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(settings, "other.registry.io")


def test_name_constraints_bind_openssl(tmp_path: Path) -> None:
    settings = certs(tmp_path, name_constraints=True, names=("10.1.2.3",))
    pki.issue(settings)
    handshake(settings, "my.registry.io", strict=True)
    handshake(settings, "10.1.2.3", strict=True)
    # Signed with the CA's key all the same, as a thief would; clients have to refuse it.
    folder = settings.certs_dir
    ca = certificates.load_certificates((folder / "ca.crt").read_bytes())[0]
    ca_key = certificates.load_key((folder / "ca.key").read_bytes())
    key = certificates.new_key("ec-p256")
    for name in ("bank.example", "10.9.9.9"):
        leaf = certificates.make_leaf(key, ca=ca, ca_key=ca_key, names=[name], days=5, now=NOW)
        (folder / "registry.crt").write_bytes(certificates.certificate_pem(leaf))
        (folder / "registry.key").write_bytes(certificates.key_pem(key))
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
            handshake(settings, name)


def test_keys_are_private_and_nothing_is_left_over(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    modes = {path.name: path.stat().st_mode & 0o777 for path in settings.certs_dir.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "registry.crt": 0o644, "registry.key": 0o600}
    assert settings.certs_dir.stat().st_mode & 0o777 == 0o700


def test_issuing_again_changes_nothing(tmp_path: Path) -> None:
    settings = project(tmp_path)
    assert pki.issue(settings).changed
    before = contents(settings)
    assert pki.pending(settings) == []
    assert not pki.issue(settings).changed
    assert contents(settings) == before


def test_a_new_name_reissues_the_leaf_and_keeps_the_ca(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    before = contents(settings)
    renamed = certs(tmp_path, names=("other.registry.io",))
    assert len(pki.pending(renamed)) == 1
    assert pki.issue(renamed).changed
    after = contents(renamed)
    assert after["ca.crt"] == before["ca.crt"]
    assert after["registry.crt"] != before["registry.crt"]
    handshake(renamed, "other.registry.io")


def test_only_an_address_that_is_set_stands_in_the_certificate(tmp_path: Path) -> None:
    assert deciding.names(project(tmp_path)) == ("my.registry.io",)
    fixed = project(tmp_path, registry=RegistrySettings(address="10.0.0.9"))
    assert deciding.names(fixed) == ("my.registry.io", "10.0.0.9")


def test_a_long_name_still_gets_a_certificate(tmp_path: Path) -> None:
    host = ".".join(["a" * 60, "b" * 60, "internal"])
    settings = project(tmp_path, registry=RegistrySettings(host=host))
    pki.issue(settings)
    handshake(settings, host, strict=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "registry.crt").unlink(),
        lambda folder: (folder / "registry.key").unlink(),
        lambda folder: (folder / "registry.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nMII"),
        lambda folder: (folder / "registry.key").write_bytes(b""),
        # As a run killed between the two files leaves it.
        lambda folder: (folder / "registry.key").write_bytes(
            certificates.key_pem(certificates.new_key("ec-p256"))
        ),
    ],
    ids=["no crt", "no key", "cut crt", "empty key", "other key"],
)
def test_a_spoilt_leaf_is_made_anew(tmp_path: Path, spoil: object) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    assert callable(spoil)
    spoil(settings.certs_dir)
    ca = (settings.certs_dir / "ca.crt").read_bytes()
    assert pki.issue(settings).changed
    assert (settings.certs_dir / "ca.crt").read_bytes() == ca
    handshake(settings, "my.registry.io")


def test_a_leaf_near_its_end_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = certs(tmp_path, days=90, renew_before=30)
    pki.issue(settings)
    monkeypatch.setattr(pki, "_now", lambda: NOW + 59 * DAY)
    assert not pki.issue(settings).changed
    monkeypatch.setattr(pki, "_now", lambda: NOW + 61 * DAY)
    assert pki.issue(settings).changed
    assert not pki.issue(settings).changed


def test_a_leaf_that_ends_with_its_ca_is_not_renewed_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = certs(tmp_path, ca_days=40)
    pki.issue(settings)
    monkeypatch.setattr(pki, "_now", lambda: NOW + 35 * DAY)
    assert not pki.issue(settings).changed


def spoil_ca(settings: Settings, how: str) -> None:
    folder = settings.certs_dir
    other = project(settings.root / "other")
    pki.issue(other)
    if how == "truncated":
        pem = (folder / "ca.crt").read_bytes()
        (folder / "ca.crt").write_bytes(pem[: len(pem) // 2])
    elif how == "a leaf's":
        shutil.copy(other.certs_dir / "registry.crt", folder / "ca.crt")
    elif how == "foreign":
        shutil.copy(other.certs_dir / "ca.crt", folder / "ca.crt")
    elif how == "foreign key":
        shutil.copy(other.certs_dir / "ca.key", folder / "ca.key")
    elif how == "key cut":
        (folder / "ca.key").write_bytes((folder / "ca.key").read_bytes()[:60])
    elif how == "gone":
        (folder / "ca.crt").unlink()


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("truncated", "ca-unreadable"),
        ("a leaf's", "ca-foreign"),
        ("foreign", "ca-key-mismatch"),
        ("foreign key", "ca-key-mismatch"),
        ("key cut", "ca-key-unreadable"),
        ("gone", "ca-certificate-missing"),
    ],
)
def test_a_ca_that_cannot_be_used_is_refused_and_kept(tmp_path: Path, how: str, code: str) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    spoil_ca(settings, how)
    refused = refusal(settings)
    assert refused.code == code
    assert "--new-ca" in refused.cure


def test_a_folder_in_the_place_of_a_file_gets_a_sentence(tmp_path: Path) -> None:
    settings = project(tmp_path)
    (settings.certs_dir / "ca.crt").mkdir(parents=True)
    with pytest.raises(Refused) as refused:
        pki.issue(settings)
    assert refused.value.code == "certs-not-accessible"


def test_an_expired_ca_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = certs(tmp_path, ca_days=10, days=5, renew_before=1)
    pki.issue(settings)
    monkeypatch.setattr(pki, "_now", lambda: NOW + 11 * DAY)
    assert refusal(settings).code == "ca-expired"
    monkeypatch.setattr(pki, "_now", lambda: NOW - 2 * DAY)
    assert refusal(settings).code == "ca-not-yet-valid"


def test_a_ca_whose_key_is_kept_elsewhere_serves_until_it_has_to_sign(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    (settings.certs_dir / "ca.key").unlink()
    assert not pki.issue(settings).changed
    assert refusal(certs(tmp_path, names=("new.registry.io",))).code == "ca-key-missing"


def test_a_constrained_ca_refuses_a_new_name(tmp_path: Path) -> None:
    pki.issue(certs(tmp_path, name_constraints=True))
    refused = refusal(certs(tmp_path, name_constraints=True, names=("other.example",)))
    assert refused.code == "name-not-permitted"
    assert "other.example" in refused.cause


def test_a_new_ca_on_request_keeps_the_old_one(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    before = contents(settings)
    assert pki.issue(settings, new_ca=True).changed
    after = contents(settings)
    assert after["ca.crt"] != before["ca.crt"]
    for name, content in before.items():
        kept = [copy for copy in after if copy.startswith(f"{name}.")]
        assert [after[copy] for copy in kept] == [content]
    handshake(settings, "my.registry.io")
    assert not pki.issue(settings).changed


def test_a_leaf_of_another_ca_is_kept_as_a_copy(tmp_path: Path) -> None:
    settings, other = project(tmp_path), project(tmp_path / "other")
    pki.issue(settings)
    pki.issue(other)
    for name in ("registry.crt", "registry.key"):
        shutil.copy(other.certs_dir / name, settings.certs_dir / name)
    assert pki.issue(settings).changed
    copies = [
        path for path in settings.certs_dir.iterdir() if path.name.startswith("registry.crt.")
    ]
    assert [path.read_bytes() for path in copies] == [
        (other.certs_dir / "registry.crt").read_bytes()
    ]


def cross_signed(old: Settings, new: Settings) -> bytes:
    """The new CA's key and name, vouched for by the old CA: what a node needs between the two."""
    signer, following = (
        certificates.load_certificates((one.certs_dir / "ca.crt").read_bytes())[0]
        for one in (old, new)
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(following.subject)
        .issuer_name(signer.subject)
        .public_key(following.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(signer.not_valid_before_utc)
        .not_valid_after(signer.not_valid_after_utc)
        .add_extension(certificates._authority(signer), False)
    )
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier):
        extension = following.extensions.get_extension_for_class(kind)
        builder = builder.add_extension(extension.value, extension.critical)
    key = certificates.load_key((old.certs_dir / "ca.key").read_bytes())
    return certificates.certificate_pem(builder.sign(key, hashes.SHA256()))


def vouched(old: Settings, new: Settings) -> None:
    """A server of the new CA, its chain through the old one, before a client that has the old."""
    leaf = new.certs_dir / "registry.crt"
    leaf.write_bytes(leaf.read_bytes() + cross_signed(old, new))
    shutil.copy(old.certs_dir / "ca.crt", new.certs_dir / "ca.crt")
    handshake(new, "my.registry.io", strict=True)


def test_a_ca_can_vouch_for_the_one_that_follows(tmp_path: Path) -> None:
    old, new = project(tmp_path / "old"), project(tmp_path / "new")
    pki.issue(old)
    pki.issue(new)
    vouched(old, new)


def test_a_ca_of_the_build_before_cannot_vouch_and_goes_on_being_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = project(tmp_path / "old"), project(tmp_path / "new")
    pki.issue(new)
    short = x509.BasicConstraints(ca=True, path_length=0)
    with monkeypatch.context() as patch:
        patch.setattr(x509, "BasicConstraints", lambda ca, path_length: short)
        key = certificates.new_key("ec-p256")
        ca = certificates.make_ca(key, common_name="of before", days=3650, now=NOW)
    old.certs_dir.mkdir(parents=True)
    (old.certs_dir / "ca.crt").write_bytes(certificates.certificate_pem(ca))
    (old.certs_dir / "ca.key").write_bytes(certificates.key_pem(key))
    assert len(pki.issue(old).made) == 1  # the server's certificate alone
    assert (old.certs_dir / "ca.crt").read_bytes() == certificates.certificate_pem(ca)
    handshake(old, "my.registry.io", strict=True)
    assert not pki.issue(old).changed
    with pytest.raises(ssl.SSLCertVerificationError, match="path length"):
        vouched(old, new)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("new_ca", [False, True])
def test_killed_at_any_write_the_next_run_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_ca: bool
) -> None:
    steps = 0
    for survive in range(20):
        root = tmp_path / str(survive)
        settings = project(root)
        if new_ca:
            pki.issue(settings)
        left = survive

        def dies(call: object) -> object:
            def counted(*args: object, **options: object) -> object:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                assert callable(call)
                return call(*args, **options)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(pki, "write_atomically", dies(write_atomically))
            patch.setattr(Path, "replace", dies(Path.replace))
            try:
                pki.issue(settings, new_ca=new_ca)
                steps = survive
            except Killed:
                pass
        pki.issue(settings)
        handshake(settings, "my.registry.io")
        assert not pki.issue(settings).changed
        assert not list(settings.certs_dir.glob("*.next"))
        if steps:
            break
    assert steps > 4


def test_the_pem_for_nodes_holds_certificates_and_nothing_else(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    folder = settings.certs_dir
    alone = pki.ca_pem(settings)
    (folder / "ca.crt").write_bytes(
        b"some words\n" + (folder / "ca.crt").read_bytes() + (folder / "ca.key").read_bytes()
    )
    assert pki.ca_pem(settings) == alone


def test_the_project_folder_cannot_be_the_certificates_folder(tmp_path: Path) -> None:
    settings = replace(project(tmp_path), certs=CertsSettings(dir="."))
    assert refusal(settings).code == "bad-setting"


def test_show_without_certificates_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        pki.show(project(tmp_path))
    assert refused.value.cure == "inv certs.issue"


def test_show_tells_names_and_days(tmp_path: Path) -> None:
    settings = project(tmp_path)
    issued = pki.issue(settings)
    shown = pki.show(settings)
    assert shown.registry is not None
    said = pki.to_json(shown.registry, issued.cert_path)
    assert said["names"] == ["my.registry.io"]
    assert said["days_left"] == 364
    assert shown.ca.is_ca
    openssl = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", issued.cert_path],
        capture_output=True,
        check=True,
    )
    assert said["sha256"] in openssl.stdout.decode()


def put_own(settings: Settings, **more: Any) -> None:
    """A server's certificate that signed itself, as ca.crt and as registry.crt."""
    certificate, key = own(more.pop("names", ("my.registry.io",)), **more)
    settings.certs_dir.mkdir(exist_ok=True)
    for name, content in (
        ("ca.crt", certificate), ("registry.crt", certificate), ("registry.key", key)
    ):  # fmt: skip
        (settings.certs_dir / name).write_bytes(content)


@pytest.mark.parametrize(
    "names", [("my.registry.io",), ("my.registry.io", "also.registry.io"), ("*.registry.io",)]
)
def test_a_server_s_certificate_that_signed_itself_is_served_as_it_is(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    settings = project(tmp_path)
    put_own(settings, names=names)
    before = contents(settings)
    assert pki.pending(settings) == []
    assert not pki.issue(settings).changed
    assert contents(settings) == before
    registry = {"host": "my.registry.io", "ca": pki.ca_pem(settings)}
    plan = Plan.parse(json.dumps({"version": 1, "registry": registry}).encode())
    assert plan.registry.ca == pki.ca_pem(settings)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"names": ("other.io",)}, "certificate-names"),
        ({"ends": -1}, "ca-expired"),
        ({"names": (), "common_name": "my.registry.io"}, "certificate-names"),
    ],
)
def test_one_that_cannot_be_served_is_refused_with_the_truth(
    tmp_path: Path, more: dict[str, Any], code: str
) -> None:
    settings = project(tmp_path)
    put_own(settings, **more)
    assert refusal(settings).code == code


def test_a_key_of_another_is_told_of_a_certificate_that_is_its_own_ca(tmp_path: Path) -> None:
    settings = project(tmp_path)
    put_own(settings)
    (settings.certs_dir / "registry.key").write_bytes(own(("my.registry.io",))[1])
    assert refusal(settings).code == "certificate-key-mismatch"
