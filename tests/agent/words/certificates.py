"""The certificates of the situations: right ones, another CA's, and servers' that are their own."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.agent.authority import Authority
from tests.agent.words.hostile import STORE, TOKENS

Pair = tuple[bytes, bytes]
DAY = datetime.timedelta(days=1)


class Certificates:
    """A certificate with its key per kind; each is made once."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._authority, self._evil = Authority("words CA"), Authority("another CA")
        other = ("other.test",)
        self._pairs: dict[str, Pair] = {
            "good": self._authority.issue(*names),
            "evil": self._evil.issue(*names),
            "leaf-issued": Authority("unknown CA").issue(*names),
            "leaf-good": own(names),
            "leaf-expired": own(names, ends=-1),
            "leaf-other-name": own(other),
            "leaf-no-san": own((), common_name=names[0]),
        }

    def presented(self, kind: str) -> dict[str, Pair]:
        """What a server presents by the name that is asked for, ``""`` being any other."""
        for host in (STORE, TOKENS):
            if kind == f"{host.partition('.')[0]}-evil":
                return {"": self._pairs["good"], host: self._pairs["evil"]}
        return {"": self._pairs[kind]}

    def filled(self, text: str, kind: str) -> str:
        """``text`` with the certificates that its marks stand for."""
        marks = {"@CA": self._authority.pem, "@EVIL": self._evil.pem}
        marks["@KEY"] = self._pairs["good"][1].decode()
        if kind in self._pairs:
            marks["@LEAF"] = self._pairs[kind][0].decode()
        for mark, content in marks.items():
            text = text.replace(mark, content)
        return text


def own(names: tuple[str, ...], ends: int = 9, common_name: str = "", ca: bool = False) -> Pair:
    """A server's certificate that signed itself: no CA, as ``openssl req -x509`` can make one."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017  (3.9)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or names[0])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 9 * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(alternatives, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem, key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
