"""A certificate that Moorage did not make: served as it is, or refused with one sentence."""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from moorage import registry
from moorage.docker import engine
from moorage.pki import chain
from moorage.pki import registry as pki
from moorage.registry import client as https
from moorage.settings import CertsSettings, RegistrySettings, Settings
from moorage.ui import UI
from moorage.walk import doctor
from tests.unit.elsewhere import certs, project, registry_project
from tests.unit.pki.test_registry import contents, handshake, refusal

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
CORPORATE = "Example Corp"


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, as a company's PKI hands them out."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.locked(serialization.NoEncryption())

    def locked(self, how: Any) -> bytes:
        form = serialization.PrivateFormat.PKCS8
        made: bytes = self.key.private_bytes(serialization.Encoding.PEM, form, how)
        return made


def made(
    name: str,
    by: Pair | None = None,
    *,
    names: tuple[str, ...] | None = None,
    key: Any = None,
    begin: datetime.timedelta = -DAY,
    end: datetime.timedelta = 90 * DAY,
) -> Pair:
    """A CA, or with ``names`` a server's; as plain as many companies' are: no key identifiers."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    attributes = [(NameOID.ORGANIZATION_NAME, CORPORATE), (NameOID.COMMON_NAME, name)]
    subject = x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])
    signer = by.key if by else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begin)
        .not_valid_after(NOW + end)
        .add_extension(x509.BasicConstraints(names is None, None), critical=True)
    )
    if names:
        alternatives = [x509.DNSName(one) for one in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Pair(builder.sign(signer, digest), key)


ROOT = made("Root", end=3650 * DAY)
BETWEEN = made("Issuing", ROOT)
LEAF = made("registry", BETWEEN, names=("my.registry.io",))
WILD = made("registry", BETWEEN, names=("*.registry.io",))


def put(settings: Settings, ca: bytes, crt: bytes, key: bytes) -> Settings:
    settings.certs_dir.mkdir(parents=True, exist_ok=True)
    for name, content in (("ca.crt", ca), ("registry.crt", crt), ("registry.key", key)):
        (settings.certs_dir / name).write_bytes(content)
    (settings.certs_dir / "registry.key").chmod(0o600)
    return settings


def corporate(root: Path, leaf: Pair = LEAF, *more: Pair, ca: bytes = ROOT.pem) -> Settings:
    served = b"".join(one.pem for one in (leaf, *more))
    return put(project(root), ca, served, leaf.key_pem)


def is_served(settings: Settings, name: str = "my.registry.io") -> None:
    """Nothing to do, nothing changed, and a client that knows ca.crt alone accepts it."""
    before = contents(settings)
    assert pki.pending(settings) == []
    issued = pki.issue(settings)
    assert (issued.changed, contents(settings)) == (False, before)
    handshake(settings, name)


KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("leaf", [LEAF, WILD], ids=["its name", "a wildcard"])
def test_a_companys_certificate_is_served_as_it_is(tmp_path: Path, leaf: Pair) -> None:
    settings = corporate(tmp_path, leaf, BETWEEN)
    is_served(settings)
    shown = pki.show(settings)
    assert not shown.made_here
    assert [facts.subject for facts in shown.chain] == [f"CN=Issuing,O={CORPORATE}"]
    assert [one.state for one in doctor._certificates(settings)] == ["fine"]


@pytest.mark.parametrize("kind", KEYS)
def test_any_kind_of_key_is_served(tmp_path: Path, kind: str) -> None:
    leaf = made("registry", BETWEEN, names=("my.registry.io",), key=KEYS[kind]())
    is_served(corporate(tmp_path, leaf, BETWEEN))


def test_ca_files_as_companies_have_them(tmp_path: Path) -> None:
    other = made("Root of before", end=-DAY / 2)
    two = other.pem + ROOT.pem
    is_served(corporate(tmp_path / "two roots, one ended", LEAF, BETWEEN, ca=two))
    is_served(corporate(tmp_path / "both in ca.crt", LEAF, ca=BETWEEN.pem + ROOT.pem))
    is_served(corporate(tmp_path / "the root is sent too", LEAF, BETWEEN, ROOT))
    is_served(corporate(tmp_path / "in the wrong order", LEAF, ROOT, BETWEEN))
    windows = b"words\r\n" + ROOT.pem.replace(b"\n", b"\r\n")
    is_served(corporate(tmp_path / "from Windows", LEAF, BETWEEN, ca=windows))


def test_what_go_takes_for_a_root_is_one(tmp_path: Path) -> None:
    settings = corporate(tmp_path, LEAF, ca=BETWEEN.pem)
    assert pki.pending(settings) == []
    assert not pki.issue(settings).changed


STRANGER = made("Stranger")
BAD: dict[str, tuple[str, str, Callable[[Path], Settings]]] = {
    "no intermediate": (
        "certificate-chain",
        "was issued by CN=Issuing,O=Example Corp, which is neither in it nor in ca.crt",
        corporate,
    ),
    "another root": (
        "certificate-chain",
        "which is neither in it nor in ca.crt",
        lambda root: corporate(root, LEAF, BETWEEN, ca=STRANGER.pem),
    ),
    "another root, its own sent": (
        "certificate-chain",
        "it leads to CN=Root,O=Example Corp, which is not in ca.crt",
        lambda root: corporate(root, LEAF, BETWEEN, ROOT, ca=STRANGER.pem),
    ),
    "another name": (
        "certificate-names",
        "it is valid for other.registry.io, not for my.registry.io",
        lambda root: corporate(root, made("r", BETWEEN, names=("other.registry.io",)), BETWEEN),
    ),
    "a wildcard too high": (
        "certificate-names",
        "it is valid for *.io, not for my.registry.io",
        lambda root: corporate(root, made("r", BETWEEN, names=("*.io",)), BETWEEN),
    ),
    "a common name alone": (
        "certificate-names",
        "not for my.registry.io; clients no longer accept a common name (CN) alone",
        lambda root: corporate(root, made("my.registry.io", BETWEEN, names=()), BETWEEN),
    ),
    "another's key": (
        "certificate-key-mismatch",
        "it is not the key of",
        lambda root: put(project(root), ROOT.pem, LEAF.pem + BETWEEN.pem, WILD.key_pem),
    ),
    "the intermediate first": (
        "certificate-order",
        "registry.key belongs to certificate 2 in it (CN=registry,O=Example Corp)",
        lambda root: put(project(root), ROOT.pem, BETWEEN.pem + LEAF.pem, LEAF.key_pem),
    ),
    "ended": (
        "certificate-expired",
        "CN=registry,O=Example Corp in it ended on",
        lambda root: corporate(
            root, made("registry", BETWEEN, names=("my.registry.io",), end=-DAY / 2), BETWEEN
        ),
    ),
    "an ended intermediate": (
        "certificate-expired",
        "CN=Issuing,O=Example Corp in it ended on",
        lambda root: corporate(
            root,
            LEAF,
            made("Issuing", ROOT, key=BETWEEN.key, end=-DAY / 2),
        ),
    ),
    "not yet": (
        "certificate-not-yet-valid",
        "CN=registry,O=Example Corp in it begins on",
        lambda root: corporate(
            root, made("registry", BETWEEN, names=("my.registry.io",), begin=DAY), BETWEEN
        ),
    ),
    "a locked key": (
        "certificate-key-unreadable",
        "protected by a passphrase",
        lambda root: put(
            project(root),
            ROOT.pem,
            LEAF.pem + BETWEEN.pem,
            LEAF.locked(serialization.BestAvailableEncryption(b"secret")),
        ),
    ),
    "no key": (
        "certificate-key-unreadable",
        "not a whole private key",
        lambda root: put(project(root), ROOT.pem, LEAF.pem + BETWEEN.pem, b"nothing"),
    ),
    "no certificate": (
        "certificate-unreadable",
        "not a whole certificate in PEM form",
        lambda root: put(project(root), ROOT.pem, b"nothing", LEAF.key_pem),
    ),
    "DER": (
        "certificate-unreadable",
        "not a whole certificate in PEM form",
        lambda root: put(
            project(root),
            ROOT.pem,
            LEAF.certificate.public_bytes(serialization.Encoding.DER),
            LEAF.key_pem,
        ),
    ),
    "a root that ended": (
        "ca-expired",
        "it ended on",
        lambda root: corporate(root, LEAF, BETWEEN, ca=made("Root", end=-DAY / 2).pem),
    ),
}


@pytest.mark.parametrize("how", BAD)
def test_what_nodes_would_not_accept_is_refused_and_kept(tmp_path: Path, how: str) -> None:
    code, words, laid = BAD[how]
    refused = refusal(laid(tmp_path))
    assert refused.code == code
    assert words in refused.cause
    assert "nothing was changed" in refused.message
    assert doctor._looked("certificates", lambda: doctor._certificates(laid(tmp_path)))[
        0
    ].state == ("wrong")


def test_a_further_name_has_to_be_covered(tmp_path: Path) -> None:
    laid = corporate(tmp_path, WILD, BETWEEN)
    for names, covered in (
        (("other.registry.io",), True),
        (("*.registry.io",), True),
        (("*.other.io",), False),
        (("deep.my.registry.io",), False),
    ):
        settings = replace(laid, certs=CertsSettings(names=names))
        if covered:
            is_served(settings)
        else:
            assert refusal(settings).code == "certificate-names"


def test_an_address_that_is_set_is_not_asked_of_a_companys_certificate(tmp_path: Path) -> None:
    laid = corporate(tmp_path, LEAF, BETWEEN)
    is_served(replace(laid, registry=RegistrySettings(address="10.0.0.9")))


def test_it_is_kept_beside_a_ca_of_ours_too(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    for name, content in (("registry.crt", LEAF.pem + BETWEEN.pem), ("registry.key", LEAF.key_pem)):
        (settings.certs_dir / name).write_bytes(content)
    assert refusal(settings).code == "certificate-chain"


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (("other.example",), {}),
        ((), {}),
        (("my.registry.io",), {"begin": -3 * DAY, "end": -DAY}),
        (("my.registry.io",), {"begin": DAY}),
    ],
    ids=["another name", "a common name only", "over", "not yet"],
)
def test_one_that_was_made_by_hand_with_our_own_ca_is_made_again(
    tmp_path: Path, names: tuple[str, ...], times: dict[str, Any]
) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    folder = settings.certs_dir
    ca = Pair(
        x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()),
        serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None),
    )
    key = serialization.load_pem_private_key((folder / "registry.key").read_bytes(), None)
    bad = made("my.registry.io", ca, names=names, key=key, **times)
    (folder / "registry.crt").write_bytes(bad.pem)
    assert pki.pending(settings) != []
    assert pki.issue(settings).changed
    after = contents(settings)
    assert bad.pem in [after[one] for one in after if one.startswith("registry.crt.")]
    assert after["ca.crt"] == ca.pem
    handshake(settings, "my.registry.io")
    good = made("my.registry.io", ca, names=("my.registry.io", "more.example"), key=key)
    (folder / "registry.crt").write_bytes(good.pem)
    (folder / "registry.key").write_bytes(good.key_pem)
    is_served(settings)


def test_without_its_root_it_is_refused_and_kept(tmp_path: Path) -> None:
    settings = corporate(tmp_path, LEAF, BETWEEN)
    (settings.certs_dir / "ca.crt").unlink()
    assert refusal(settings).code == "ca-certificate-missing"


def test_a_new_ca_takes_its_place_when_told_and_keeps_copies(tmp_path: Path) -> None:
    settings = corporate(tmp_path, LEAF, BETWEEN)
    before = contents(settings)
    assert pki.issue(settings, new_ca=True).changed
    after = contents(settings)
    for name, content in before.items():
        assert [after[one] for one in after if one.startswith(f"{name}.")] == [content]
    assert pki.show(settings).made_here
    handshake(settings, "my.registry.io")


def test_the_cure_for_a_locked_key_works_when_typed(tmp_path: Path) -> None:
    settings = BAD["a locked key"][2](tmp_path)
    command = refusal(settings).cure.partition(";")[0]
    subprocess.run(
        ["sh", "-c", command.replace("pkey ", "pkey -passin pass:secret ")],
        check=True,
        capture_output=True,
    )
    is_served(settings)


def test_the_end_of_it_is_told_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = corporate(tmp_path, LEAF, BETWEEN)
    monkeypatch.setattr(pki, "_now", lambda: NOW + 80 * DAY)
    issued = pki.issue(settings)
    assert not issued.changed
    assert ["registry.crt ends in 9 days" in one.text for one in issued.notes] == [True]


def test_a_ca_that_follows_another_stands_beside_it(tmp_path: Path) -> None:
    old, new = certs(tmp_path / "old"), certs(tmp_path / "new")
    pki.issue(old)
    pki.issue(new)
    both = (old.certs_dir / "ca.crt").read_bytes() + (new.certs_dir / "ca.crt").read_bytes()
    for settings in (old, new):
        (settings.certs_dir / "ca.crt").write_bytes(both)
        assert not pki.issue(settings).changed
        handshake(settings, "my.registry.io")
        (settings.certs_dir / "registry.crt").unlink()
        assert len(pki.issue(settings).made) == 1  # signed by the one whose key is there
        handshake(settings, "my.registry.io")


@pytest.mark.engine
def test_a_registry_serves_it_with_its_chain(tmp_path: Path) -> None:
    ours = Settings()
    if not engine.answers(ours):
        pytest.skip("no Docker engine answers")
    settings = registry_project(tmp_path)
    leaf = made("registry", BETWEEN, names=("localhost",))
    put(settings, ROOT.pem, leaf.pem + BETWEEN.pem, leaf.key_pem)
    client = engine.connect(ours)
    try:
        assert registry.up(settings, client, UI()).healthy
        assert https.ask(settings, "/v2/", login=None).status == 401
        context = chain.client_context(pki.ca_pem(settings))
        with (
            socket.create_connection(("127.0.0.1", settings.registry.port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as line,
        ):
            served = line.getpeercert(binary_form=True)
        assert served == leaf.certificate.public_bytes(serialization.Encoding.DER)
        assert not registry.up(settings, client, UI()).changed
    finally:
        registry.down(settings, client, UI(), purge=True)
        client.close()


def test_only_ssl_of_python_may_be_stricter_than_go(tmp_path: Path) -> None:
    settings = corporate(tmp_path, LEAF, BETWEEN)
    context = chain.client_context(pki.ca_pem(settings))
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(settings, "my.registry.io", strict=True)  # its CAs have no key usage
