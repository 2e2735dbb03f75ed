"""The registry's logins as they are kept: what is taken, what is refused, what is never shown."""

from __future__ import annotations

import datetime
import inspect
import json
import time
from pathlib import Path
from typing import Any

import pytest

from moorage.configuration.parsing import BadSetting, parse
from moorage.errors import Refused
from moorage.registry.front import roles
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.registry.logins.credentials import credentials, ensure, folder
from moorage.registry.storage.layout import Layout
from moorage.settings import Settings
from moorage.tasks.command import Run
from moorage.tasks.registry import users as tasks
from moorage.ui import UI
from tests.unit.elsewhere import project

NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = project(tmp_path)
    ensure(made)
    return made


@pytest.mark.parametrize("name", ["", "-x", "a b", "a:b", "a|b", "ä", "a\n", "x" * 97, "a/b", "a#"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        roles.check_name(name)
    assert refused.value.code == "bad-user-name"


@pytest.mark.parametrize("role", ["", "root", "Pull", "pull "])
def test_a_role_that_is_none_is_refused(role: str) -> None:
    with pytest.raises(Refused) as refused:
        roles.check_role(role)
    assert (refused.value.code, "--role=push" in refused.value.cure) == ("unknown-role", True)


@pytest.mark.parametrize(
    "words", ["*", "a/*", "a**", "A/**", "/a", "a/", "a//b", "a/**/b", "a:b", "**/a", "a,,b", ","]
)
def test_a_pattern_that_names_nothing_is_refused(words: str) -> None:
    with pytest.raises(Refused) as refused:
        roles.check_patterns(words)
    assert refused.value.code == "bad-pattern"


def test_patterns_are_a_repository_all_below_a_name_or_all() -> None:
    assert roles.check_patterns("") == ("**",)
    assert roles.check_patterns("a/b, c/**,a/b") == ("a/b", "c/**")
    assert roles.check_patterns("a/b,**") == ("**",)


@pytest.mark.parametrize(("words", "seconds"), [("90d", 7776000), ("12h", 43200), ("2w", 1209600)])
def test_an_end_is_counted_from_now(words: str, seconds: int) -> None:
    assert roles.check_expiry(words, NOW) == int(NOW.timestamp()) + seconds
    assert roles.check_expiry("", NOW) == 0


@pytest.mark.parametrize("words", ["90", "0d", "-1d", "d", "1y", "1d ", "999999d", "1.5d"])
def test_an_end_that_is_no_time_is_refused(words: str) -> None:
    with pytest.raises(Refused) as refused:
        roles.check_expiry(words, NOW)
    assert refused.value.code == "bad-expiry"


@pytest.mark.parametrize(
    ("left", "typed", "differs"),
    [
        ("90d", "90d", False),
        ("20h", "1h", True),
        ("1h", "20h", True),
        ("2h", "1h", True),
        ("89d", "90d", True),
        ("365d", "363d", True),
        ("363d", "365d", True),
        ("", "1h", True),
        ("1h", "", True),
        ("", "", False),
    ],
)
def test_another_end_is_put_in_force_and_the_same_words_again_are_not(
    left: str, typed: str, differs: bool
) -> None:
    """Both are said at once but for half a minute: an hour more or less is another end."""
    earlier = NOW - datetime.timedelta(seconds=30)
    present = User("guest", "pull", expires=roles.check_expiry(left, earlier))
    wanted = User("guest", "pull", expires=roles.check_expiry(typed, NOW))
    assert users.differ(present, wanted, NOW.timestamp()) is differs


def test_an_end_that_stays_is_told_as_it_is(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same words an hour later: the login ends when it did, and that is what is said."""
    ends = int(datetime.datetime.now(datetime.UTC).timestamp()) + 90 * 86400 - 3600
    users.add(settings, User("guest", "pull", ("**",), ends))
    found = typed(tasks.add, settings, "guest", role="pull", expires="90d")
    at = datetime.datetime.fromtimestamp(ends, datetime.UTC)
    assert (found["changed"], found["user"]["expires"][:16]) == (False, f"{at:%Y-%m-%dT%H:%M}")
    assert f"until {at:%Y-%m-%d %H:%M} UTC" in "".join(capsys.readouterr())


def test_a_password_is_given_once_and_kept_nowhere(settings: Settings) -> None:
    password = users.add(settings, User("robot$ci", "push", ("team/**",), 5))
    assert len(password) >= 32  # 192 bits
    assert users.add(settings, User("robot$ci", "pull")) == ""
    (kept,) = users.read(settings)
    assert (kept.role, kept.repositories, kept.expires) == ("pull", ("**",), 0)
    assert kept.proofs == (roles.proof(users.ensure_key(settings), password),)
    for path in folder(settings).rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0
    assert kept.proofs[0] not in repr(kept)
    assert kept.proofs[0] not in json.dumps(kept.to_json())


def test_the_operators_login_is_an_admin_that_nobody_can_take_away(settings: Settings) -> None:
    own = users.everybody(settings)[0]
    assert (own.name, own.role, own.repositories) == ("moorage", "admin", ("**",))
    for attempt in (
        lambda: users.remove(settings, "moorage"),
        lambda: users.add(settings, User("moorage", "pull")),
        lambda: users.change_password(settings, "moorage"),
    ):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code == "last-admin"
    assert users.everybody(settings) == (own,)
    assert own.proofs == (roles.proof(users.ensure_key(settings), credentials(settings).password),)


def test_a_login_of_moorages_own_is_not_for_users(settings: Settings) -> None:
    with pytest.raises(Refused) as refused:
        users.refuse_reserved(settings, "moorage-nodes")
    assert refused.value.code == "reserved-user"


def test_a_login_that_is_not_there_is_named_with_those_that_are(settings: Settings) -> None:
    users.add(settings, User("one", "pull"))
    with pytest.raises(Refused) as refused:
        users.change_password(settings, "two")
    assert (refused.value.code, "moorage, one" in refused.value.cause) == ("no-such-user", True)
    assert not users.remove(settings, "two")


def test_a_login_for_a_purpose_may_only_pull_and_is_the_same_each_time(settings: Settings) -> None:
    assert users.kept(settings, users.NODES) is None
    made = users.for_purpose(settings, users.NODES)
    assert users.for_purpose(settings, users.NODES) == made == users.kept(settings, users.NODES)
    assert made != users.for_purpose(settings, "secret:web")
    assert {one.role for one in users.read(settings)} == {"pull"}
    users.remove(settings, made.user)
    again = users.for_purpose(settings, users.NODES)
    assert again.password != made.password


def test_a_password_that_was_kept_before_its_login_is_made_anew(settings: Settings) -> None:
    made = users.for_purpose(settings, users.NODES)
    users.write(settings, [])  # as if killed between the two
    assert users.kept(settings, users.NODES) is None
    assert users.for_purpose(settings, users.NODES).password != made.password


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", '{"users": 1}', '{"users": [{}]}',
        '{"users": [{"name": "a:b", "role": "pull", "repositories": ["**"], "expires": 0, '
        '"purpose": "", "proofs": []}]}',
        '{"users": [{"name": "a", "role": "root", "repositories": ["**"], "expires": 0, '
        '"purpose": "", "proofs": []}]}',
        '{"users": [{"name": "a", "role": "pull", "repositories": ["**"], "expires": 0, '
        '"purpose": "", "proofs": ["x\\nl:evil:"]}]}',
    ],
)  # fmt: skip
def test_a_spoilt_file_is_refused_and_stays(settings: Settings, content: str) -> None:
    path = folder(settings) / "users.json"
    path.write_text(content)
    for attempt in (
        lambda: users.read(settings),
        lambda: users.add(settings, User("a", "pull")),
        lambda: users.remove(settings, "a"),
    ):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code == "users-unreadable"
    assert path.read_text() == content


def test_rows_say_who_and_where() -> None:
    made = roles.rows([User("a", "push", ("t/**", "b"), 7, proofs=("AA", "BB"))])
    assert made.decode().splitlines() == [
        "l:a:AA: push|7|some",
        "l:a:BB: push|7|some",
        "g:a:t/ 1",
        "g:a:b: 1",
    ]
    assert roles.rows([User("a", "pull", proofs=("AA",))]) == b"l:a:AA: pull|0|all\ng:a: 1\n"


def test_a_robots_name_can_be_the_operators() -> None:
    assert parse({"registry": {"user": "robot$ci"}}).registry.user == "robot$ci"
    with pytest.raises(BadSetting):
        parse({"registry": {"user": "a:b"}})


def typed(task: Any, settings: Settings, *words: Any, **options: Any) -> dict[str, Any]:
    """A task as Invoke calls it."""
    found: dict[str, Any] = inspect.unwrap(task.body)(Run(settings, UI()), *words, **options)
    return found


def test_a_pattern_that_no_repository_fits_yet_is_said(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    Layout(settings.registry_data).tag_link("team/app", "1").parent.mkdir(parents=True)
    (Layout(settings.registry_data).top / "repositories/team/app/_manifests/revisions").mkdir()
    patterns = "team/**,team/app,taem/**,team,team/ap"
    typed(tasks.add, settings, "robot$ci", role="push", repositories=patterns, dry_run=True)
    said = "".join(capsys.readouterr())
    for pattern in patterns.split(","):
        fits = pattern in ("team/**", "team/app")
        assert (f"no repository matches {pattern} yet" in said) is not fits, pattern


@pytest.mark.parametrize("emptied", [False, True])
def test_before_the_first_push_no_pattern_is_doubted(
    settings: Settings, capsys: pytest.CaptureFixture[str], emptied: bool
) -> None:
    if emptied:
        (Layout(settings.registry_data).top / "repositories").mkdir(parents=True)
    typed(tasks.add, settings, "robot$ci", role="push", repositories="team/**", dry_run=True)
    assert "no repository" not in "".join(capsys.readouterr())


def test_a_login_that_has_no_end_any_more_is_said_to_have_none(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(tasks.add, settings, "robot$ci", role="push", expires="90d")
    at = time.strftime("%Y-%m-%d", time.gmtime(users.read(settings)[0].expires))
    assert f"robot$ci is added: push of **, until {at}" in capsys.readouterr().out
    typed(tasks.add, settings, "robot$ci", role="push")
    assert "robot$ci is changed: push of **, without an end" in capsys.readouterr().out


def test_a_list_says_of_a_login_that_it_has_ended(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    users.add(settings, User("robot$ci", "push", expires=int(NOW.timestamp()) - 400 * 86400))
    users.add(settings, User("later", "pull", expires=4102444800))
    typed(tasks.list_, settings)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.split()}
    assert "ended 2025-10-24 00:00" in rows["robot$ci"]
    assert "ended" not in rows["later"]
    assert "2100-01-01 00:00" in rows["later"]
