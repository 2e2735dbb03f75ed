"""Secrets that go while others are written; the API server is a stand-in, for want of a race."""

from __future__ import annotations

import copy
from typing import Any

from moorage.cluster.api.refusals import ApiError
from moorage.cluster.login import secrets
from moorage.cluster.login.login import Given
from moorage.cluster.login.secrets import FAILED, GONE, Place, SecretOutcome
from moorage.registry import Credentials
from moorage.settings import Settings
from moorage.ui import UI

PLACE = Place("shop", "my-registry")
OLD, NEW = Credentials("old", "words"), Credentials("new", "words")
PATH = "/api/v1/namespaces/shop/secrets/my-registry"


class Server:
    """Holds one Secret. ``before_writing`` is called when it is asked to write; dry runs pass."""

    parallel = 1

    class where:
        server = "https://cluster"

    def __init__(self, held: dict[str, Any] | None, *, refuses: bool = False) -> None:
        self.held, self.refuses, self.goes = held, refuses, False
        self.sent: list[dict[str, Any]] = []

    def find(self, path: str, what: str = "") -> dict[str, Any] | None:
        assert (path, bool(what)) == (PATH, True)
        return copy.deepcopy(self.held)

    def apply(
        self, path: str, document: dict[str, Any], what: str, *, force: bool, dry: bool = False
    ) -> None:
        assert path == PATH
        if dry:
            return
        self.sent.append(document)
        if self.goes:
            self.held = None
        if self.refuses or self.goes:
            raise ApiError("refused", f"{what}: no", status=403)
        self.held = document

    def delete(self, path: str, what: str, *, uid: str = "", dry: bool = False) -> bool:
        stood = self.held is not None
        if not dry:
            self.held = None
        return stood


def document(login: Credentials, **more: Any) -> dict[str, Any]:
    wanted = secrets.wish(Settings(), Given(login))
    made = secrets._document(PLACE, wanted, login)
    return {**made, "metadata": {**made["metadata"], "uid": "u-1"}, **more}


def renewed(server: Server, *, replace: bool = False) -> SecretOutcome:
    wanted = secrets.wish(Settings(), Given(NEW), replace=replace, standing=True)
    (outcome,) = secrets.apply(server, UI(as_json=True), [PLACE], wanted)  # type: ignore[arg-type]
    return outcome


def test_a_secret_that_went_meanwhile_is_no_failure() -> None:
    server = Server(document(OLD))
    server.goes = True
    assert renewed(server).status == GONE


def test_a_secret_is_only_changed_as_the_one_that_was_seen() -> None:
    server = Server(document(OLD))
    assert renewed(server).changed
    assert [one["metadata"]["uid"] for one in server.sent] == ["u-1"]


def test_a_refusal_is_told_if_the_secret_stands() -> None:
    outcome = renewed(Server(document(OLD), refuses=True))
    assert (outcome.status, outcome.error is not None) == (FAILED, True)


def test_a_secret_that_we_took_away_ourselves_did_not_go() -> None:
    """Replaced, for it is immutable: deleted by us, and the new one refused."""
    server = Server(document(OLD, immutable=True), refuses=True)
    outcome = renewed(server, replace=True)
    assert server.held is None
    assert (outcome.status, outcome.error is not None) == (FAILED, True)
