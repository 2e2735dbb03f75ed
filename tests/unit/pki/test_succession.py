"""The next CA's files: killed at any write, what nodes are given vouches for what is served."""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from moorage.errors import Refused
from moorage.files import write_atomically
from moorage.pki import certificates, chain, succession
from moorage.pki import registry as pki
from moorage.settings import CertsSettings, Settings
from tests.unit.elsewhere import project

HOST, ADDRESS = "my.registry.io", "192.0.2.7"


class Killed(BaseException):
    """Stands for the end of the process."""


class Short(x509.ExtensionType):
    """Constraints as an earlier Moorage gave them to its CA, whatever is asked for."""

    oid = x509.BasicConstraints.oid

    def __new__(cls, ca: bool, path_length: int | None, real: Any = x509.BasicConstraints) -> Any:
        return real(ca, 0 if ca else None)


Short.register(x509.BasicConstraints)


@pytest.fixture(params=["path length 1", "path length 0"])
def settings(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A registry whose CA may sign the next one, and one of an earlier Moorage, which may not."""
    made = project(tmp_path / "project")
    with monkeypatch.context() as patch:
        if request.param == "path length 0":
            patch.setattr(x509, "BasicConstraints", Short)
        pki.issue(made)
    return made


def accepted(settings: Settings, ca: str) -> bool:
    """Whether a node that holds ``ca`` accepts what is served now."""
    folder = settings.certs_dir
    now = succession._now()
    return chain.trouble(folder, ca, (HOST,), now) is None


def test_a_ca_of_the_same_second_has_another_name(settings: Settings) -> None:
    present = certificates.load_certificates(pki.ca_pem(settings).encode())[0]
    subject = present.subject.rfc4514_string()
    (stamp,) = re.findall(r"\d{8}T\d{6}Z", subject)
    made = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
    assert pki.ca_name(settings, made) in subject
    assert pki.ca_name(settings, made, [present]) not in subject


def whole(settings: Settings) -> bool:
    """Whether the pair is one; else the front keeps the one before, and refuses this."""
    leaf = certificates.load_certificates((settings.certs_dir / "registry.crt").read_bytes())[0]
    key = certificates.load_key((settings.certs_dir / "registry.key").read_bytes())
    return certificates.same_key(leaf, key)


def to_the_switch(settings: Settings) -> None:
    succession.make(settings, [ADDRESS])
    succession.switch(settings)


def to_the_end(settings: Settings) -> None:
    to_the_switch(settings)
    succession.narrow(settings)


def back(settings: Settings) -> None:
    succession.make(settings, [ADDRESS])
    succession.withdraw(settings)


def killed_everywhere(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Settings], None],
    then: Callable[[Settings, str], None],
) -> int:
    """``act`` dies at each of its writes, in a copy of the project; ``then`` gets what is left."""
    old = pki.ca_pem(settings)
    for survive in range(60):
        copy = project(settings.root.with_name(str(survive)))
        shutil.copytree(settings.root, copy.root)
        left = survive

        def dies(call: Callable[..., object]) -> Callable[..., object]:
            def counted(*args: object, **options: object) -> object:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return call(*args, **options)

            return counted

        ended = False
        with monkeypatch.context() as patch:
            patch.setattr(succession, "write_atomically", dies(write_atomically))
            patch.setattr(pki, "write_atomically", dies(write_atomically))
            patch.setattr(shutil, "rmtree", dies(shutil.rmtree))
            try:
                act(copy)
                ended = True
            except Killed:
                pass
        then(copy, old)
        if ended:
            return survive
    raise AssertionError("it never ended")


def test_killed_at_any_write_both_kinds_of_nodes_pull_and_the_next_run_ends_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridged = succession.make(settings, [ADDRESS]).bridged
    succession.withdraw(settings)

    def then(left: Settings, old: str) -> None:
        handed = pki.ca_pem(left)
        assert not whole(left) or accepted(left, handed)
        if bridged and old in handed:  # nodes that nobody has reached yet: the drop waits for them
            assert not whole(left) or accepted(left, old)
        to_the_end(left)
        alone = pki.ca_pem(left)
        assert alone.count("BEGIN CERTIFICATE") == 1
        assert old not in alone
        assert accepted(left, alone)
        assert not accepted(left, old)
        assert not succession.folder(left).exists()
        assert not pki.issue(left).changed

    assert killed_everywhere(settings, monkeypatch, to_the_end, then) > 12


def test_killed_at_any_write_of_the_way_back_the_old_ca_is_left(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (settings.certs_dir / "registry.crt").read_bytes()

    def then(left: Settings, old: str) -> None:
        assert accepted(left, pki.ca_pem(left))
        succession.withdraw(left)
        assert pki.ca_pem(left) == old
        assert (left.certs_dir / "registry.crt").read_bytes() == before
        assert not succession.folder(left).exists()

    assert killed_everywhere(settings, monkeypatch, back, then) >= 4


def test_the_old_ca_vouches_for_the_new_one_if_it_may(settings: Settings) -> None:
    old = pki.ca_pem(settings)
    heir = succession.make(settings, [ADDRESS])
    short = "path_length=0" in str(certificates.load_certificates(old.encode())[0].extensions)
    assert heir.bridged is not short
    succession.switch(settings)
    assert accepted(settings, old) is heir.bridged
    assert accepted(settings, pki.ca_pem(settings))
    assert accepted(settings, succession.pem(settings))


def test_a_leaf_made_anew_in_the_middle_is_one_that_both_kinds_of_nodes_accept(
    settings: Settings,
) -> None:
    old = pki.ca_pem(settings)
    heir = succession.make(settings, [ADDRESS])
    pki.issue(settings, renew=True)
    assert accepted(settings, old)
    succession.switch(settings)
    pki.issue(settings, renew=True)
    assert accepted(settings, succession.pem(settings))
    assert accepted(settings, old) is heir.bridged


def test_what_proves_the_new_ca_is_valid_for_names_and_addresses(
    tmp_path: Path, settings: Settings
) -> None:
    succession.make(settings, [ADDRESS])
    pair = succession.pair_to_prove(settings, [ADDRESS])
    for name in ("registry.crt", "registry.key"):
        (tmp_path / name).write_bytes(pair)
    ca, now = succession.pem(settings), succession._now()
    assert chain.trouble(tmp_path, ca, (HOST, ADDRESS), now) is None
    assert chain.trouble(tmp_path, ca, ("192.0.2.8",), now) is not None


def test_the_old_key_may_be_taken_away_before_the_switch(settings: Settings) -> None:
    heir = succession.make(settings, [ADDRESS])
    old = pki.ca_pem(settings).split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    (settings.certs_dir / "ca.key").unlink()
    succession.switch(settings)
    assert accepted(settings, old) == heir.bridged


def test_an_address_that_came_later_is_left_out_of_the_proof(tmp_path: Path) -> None:
    made = project(tmp_path, certs=CertsSettings(name_constraints=True))
    pki.issue(made)
    succession.make(made, [ADDRESS])
    pair = succession.pair_to_prove(made, [ADDRESS, "192.0.2.99"])
    leaf = certificates.load_certificates(pair)[0]
    heir = certificates.load_certificates(succession.pem(made).encode())[0]
    named = certificates.facts(leaf).names
    assert ADDRESS in named
    assert "192.0.2.99" not in named
    assert all(certificates.forbidden_name(heir, [one]) is None for one in named)


def test_a_ca_with_name_constraints_may_prove_itself_by_an_address(tmp_path: Path) -> None:
    settings = replace(project(tmp_path), certs=CertsSettings(name_constraints=True))
    pki.issue(settings)
    test_what_proves_the_new_ca_is_valid_for_names_and_addresses(tmp_path, settings)


def test_a_companys_ca_is_not_ours_to_rotate(tmp_path: Path) -> None:
    from tests.unit.pki.test_another import BETWEEN, LEAF, corporate

    with pytest.raises(Refused) as refused:
        succession.require_ours(corporate(tmp_path, LEAF, BETWEEN))
    assert refused.value.code == "rotation-foreign"


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_a_spoilt_file_of_the_ca_to_come_is_named(settings: Settings, name: str) -> None:
    succession.make(settings, [ADDRESS])
    (succession.folder(settings) / name).write_bytes(b"spoilt")
    with pytest.raises(Refused) as refused:
        succession.switch(settings)
    assert refused.value.code == "rotation-spoilt"
    assert accepted(settings, pki.ca_pem(settings))
