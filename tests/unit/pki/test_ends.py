"""When certificates end is told before they do, of a file and of what is served."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.errors import MoorageError
from moorage.pki import certificates, deciding, ends
from moorage.pki import registry as pki
from moorage.pki.ends import End
from moorage.registry import renewal, served, service
from moorage.settings import Settings
from moorage.ui import UI
from moorage.walk import doctor
from tests.unit.elsewhere import project

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("begins", "at", "state", "words"),
    [
        (-DAY, 90 * DAY, "fine", "ends in 90 days (2027-02-26)"),
        (-DAY, 29 * DAY, "soon", "ends in 29 days (2026-12-27)"),
        (-9 * DAY, DAY / 2, "soon", "ends in 0 days"),
        (-9 * DAY, -DAY, "ended", "ended on 2026-11-27 12:00 UTC"),
        (DAY, 9 * DAY, "not-yet", "is this clock right?"),
    ],
)
def test_an_end_is_judged_by_the_days_that_are_left(
    begins: datetime.timedelta, at: datetime.timedelta, state: str, words: str
) -> None:
    one = End("CA", "ca.crt", NOW + at, NOW + begins)
    assert one.state(NOW) == state
    assert words in one.words(NOW)


def test_what_cannot_be_asked_is_unknown_and_never_the_first() -> None:
    silent = End("x", "y", None, why="no answer")
    assert (silent.state(NOW), silent.to_json(NOW)["ends"]) == ("unknown", None)
    assert ends.first([silent]) is None
    assert ends.first([silent, End("b", "", NOW + DAY), End("a", "", NOW)]) == End("a", "", NOW)


@contextmanager
def serving(settings: Settings, folder: Path) -> Iterator[Settings]:
    """A TLS server with the certificate in ``folder``, where the settings have the registry."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "registry.crt", folder / "registry.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                context.wrap_socket(raw, server_side=True).close()

    threading.Thread(target=answer, daemon=True).start()
    port = listener.getsockname()[1]
    try:
        yield replace(settings, registry=replace(settings.registry, port=port, listen="127.0.0.1"))
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
        listener.close()


def make_short(settings: Settings, days: int) -> None:
    """A leaf of our own CA that has ``days`` left, in the place of the one that was issued."""
    folder = settings.certs_dir
    ca = certificates.load_certificates((folder / "ca.crt").read_bytes())[0]
    ca_key = certificates.load_key((folder / "ca.key").read_bytes())
    key = certificates.load_key((folder / "registry.key").read_bytes())
    made = certificates.make_leaf(
        key, ca=ca, ca_key=ca_key, names=deciding.names(settings), days=days, now=served_now()
    )
    (folder / "registry.crt").write_bytes(certificates.certificate_pem(made))


def served_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def test_what_is_served_is_told_apart_from_what_is_on_disk(tmp_path: Path) -> None:
    settings = project(tmp_path)
    pki.issue(settings)
    before = certificates.load_certificates((settings.certs_dir / "registry.crt").read_bytes())
    with serving(settings, settings.certs_dir) as listening:
        shown = served.certificate(listening)
        assert shown.fingerprint == certificates.facts(before[0]).fingerprint
        states = {one.what: one.state(served_now()) for one in served.all_ends(listening)}
        assert states == {"CA": "fine", served.LEAF: "fine", served.SERVED: "fine"}
    states = {one.what: one.state(served_now()) for one in served.all_ends(listening)}
    assert states[served.SERVED] == "unknown"


def test_doctor_names_the_certificate_that_ends_and_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    settings = project(tmp_path)
    pki.issue(settings)
    found = [one for one in doctor.examine(settings, UI(as_json=True)) if "ends" in one.what]
    assert [one.state for one in found] == ["fine"]
    make_short(settings, 20)
    with serving(settings, settings.certs_dir) as listening:
        found = [one for one in doctor.examine(listening, UI(as_json=True)) if "ends" in one.what]
    assert [one.state for one in found] == ["wrong", "wrong"]
    assert "ends in 19 days" in found[0].found
    assert "inv certs.renew" in found[1].cure


def test_every_kind_has_a_cure() -> None:
    kinds = {served.LEAF, served.SERVED, served.CLIENT, "CA", *served._FLEET.values()}
    assert kinds == set(served.RENEWED_BY)


def test_a_renewal_that_is_not_served_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a front that takes the pair and shows another."""
    settings = project(tmp_path)
    pki.issue(settings)
    (tmp_path / "another").mkdir()
    for name in ("registry.crt", "registry.key"):
        content = (settings.certs_dir / name).read_bytes()
        (tmp_path / "another" / name).write_bytes(content)
    monkeypatch.setattr(service, "require_running", lambda _: None)
    monkeypatch.setattr(service, "put_pair", lambda _: True)
    with serving(settings, tmp_path / "another") as listening:
        with pytest.raises(MoorageError) as failed:
            renewal.renew(listening, UI(as_json=True))
        assert failed.value.code == "certificate-not-served"
    with serving(settings, settings.certs_dir) as listening:
        assert renewal.renew(listening, UI(as_json=True), another=False).changed
