"""The registry's logins: kept in files that only the operator can read, put in force at once.

``.moorage/registry/users.json`` has an HMAC of each password and no password. Only the operator's
(``password``) and those that Moorage hands to nodes and Secrets (``logins/NAME``) are kept as well.
"""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import SPOILT, Refused, spoilt
from moorage.files import private_folder, write_atomically
from moorage.redaction import keep_secret
from moorage.registry.front import roles
from moorage.registry.front.roles import User
from moorage.registry.logins.credentials import Credentials, credentials, folder

if TYPE_CHECKING:
    from moorage.settings import Settings

NODES = "nodes"
SECRETS = "secrets"
_OURS = "moorage-"
_DAY = 86400
_PASSWORD_BYTES = 24  # 192 random bits: a digest of one cannot be turned back


def read(settings: Settings) -> tuple[User, ...]:
    """The logins beside the operator's, by name. Raises Refused (``users-unreadable``)."""
    path = _path(settings)
    try:
        document = json.loads(path.read_bytes())
        users = [_user(one) for one in document["users"]]
    except FileNotFoundError:
        return ()
    except (*SPOILT, Refused) as problem:
        cure = (
            "put its last good copy back; without it all logins but yours end: "
            f"rm {shlex.quote(str(path))}"
        )
        raise spoilt("users-unreadable", path, problem, cure) from None
    return tuple(sorted(users, key=lambda one: one.name))


def operator(settings: Settings) -> User:
    """The operator's login: an admin of everything. Raises Refused if none was made yet."""
    own = credentials(settings)
    return User(own.user, "admin", proofs=(roles.proof(ensure_key(settings), own.password),))


def has_operator(settings: Settings) -> bool:
    """Whether the operator's login was made: there may be a registry."""
    return (folder(settings) / "password").exists()


def everybody(settings: Settings) -> tuple[User, ...]:
    """All logins, the operator's first."""
    own = operator(settings)
    return (own, *(one for one in read(settings) if one.name != own.name))


def find(settings: Settings, name: str) -> User:
    """The login of that name. Raises Refused (``no-such-user``)."""
    known = everybody(settings)
    for one in known:
        if one.name == name:
            return one
    raise Refused(
        "no-such-user",
        f"there is no login {name!r}",
        cause="the logins are " + ", ".join(one.name for one in known),
        cure="inv users.list",
    )


def add(settings: Settings, user: User) -> str:
    """Makes the login, or gives the one of that name this role, these repositories and this end.

    Returns the password of a new one, "" if it had one. Raises Refused for the operator's.
    """
    refuse_operators(settings, user.name)
    present = {one.name: one for one in read(settings)}
    before = present.get(user.name)
    if before is not None:
        user = replace(user, proofs=before.proofs)
        password = ""
    else:
        password, user = _with_password(settings, user)
    write(settings, (present | {user.name: user}).values())
    return password


def change_password(settings: Settings, name: str, *, keep_old: bool = False) -> str:
    """Gives a login another password; with ``keep_old`` the one before is right as well, until
    :func:`drop_old`. Returns the new one. Raises Refused for no login, and for the operator's."""
    refuse_operators(settings, name)
    before = find(settings, name)
    password, after = _with_password(settings, before)
    if keep_old:
        after = replace(after, proofs=(*after.proofs, *before.proofs[:1]))
    write(settings, [one for one in read(settings) if one.name != name] + [after])
    return password


def drop_old(settings: Settings, name: str) -> None:
    """Only the newest password of a login is right from now on."""
    users = [
        replace(one, proofs=one.proofs[:1]) if one.name == name else one for one in read(settings)
    ]
    write(settings, users)


def remove(settings: Settings, name: str) -> bool:
    """Takes a login away, and its password where one is kept; whether there was one.

    Raises Refused (``last-admin``) for the operator's: without it nobody could let anybody in.
    """
    refuse_operators(settings, name)
    users = read(settings)
    left = [one for one in users if one.name != name]
    write(settings, left)
    (_passwords(settings) / name).unlink(missing_ok=True)
    return len(left) != len(users)


def refuse_operators(settings: Settings, name: str) -> None:
    """Raises Refused (``last-admin``) if the login is the operator's own."""
    if name == settings.registry.user:
        raise Refused(
            "last-admin",
            f"{name} is the operator's own login, and stays an admin",
            cause="Moorage itself works with it; without it nobody could let anybody in",
            cure="registry.user in invoke.yaml and inv registry.up give the operator another name",
        )


def refuse_reserved(settings: Settings, name: str) -> None:
    """Raises Refused for the operator's login, and for one that Moorage makes for itself."""
    refuse_operators(settings, name)
    if name.startswith(_OURS):
        raise Refused(
            "reserved-user",
            f"{name} is a login of Moorage's own",
            cause=f"names that begin with {_OURS} belong to nodes and Secrets",
            cure="choose another name; inv users.list shows what there is",
        )


def differ(present: User, wanted: User, now: float) -> bool:
    """Whether two logins differ in what they may do, or in when they end.

    ``wanted`` ends so long from ``now``: the same words typed again a little later, less than a
    hundredth of that and less than a day, mean the same end. An earlier end never does.
    """
    later, left = wanted.expires - present.expires, wanted.expires - now
    return (
        (present.role, present.repositories) != (wanted.role, wanted.repositories)
        or bool(present.expires) != bool(wanted.expires)
        or later < 0
        or later * 100 >= min(left, 100 * _DAY) > 0
    )


def of_namespace(namespace: str) -> str:
    """The purpose of a login that the Secrets of one namespace have for themselves."""
    return f"secret:{namespace}"


def name_for(purpose: str) -> str:
    """What the login for ``purpose`` is called: at most 78 characters, as a namespace has 63."""
    return f"{_OURS}{purpose.replace(':', '-')}"


def for_purpose(settings: Settings, purpose: str) -> Credentials:
    """The pull-only login that Moorage made for ``purpose``, made where there is none.

    ``purpose``: ``nodes``, ``secrets``, or :func:`of_namespace`. Its password is kept, since it is
    handed out again and again. Raises Refused if the operator's login has that name.
    """
    name = name_for(purpose)
    refuse_operators(settings, name)
    path = _passwords(settings) / name
    known = {one.name: one for one in read(settings)}
    password = path.read_text().strip() if path.exists() else ""
    present = known.get(name)
    right = roles.proof(ensure_key(settings), password)
    if present is None or present.role != "pull" or right not in present.proofs:
        password, user = _with_password(settings, User(name, "pull", purpose=purpose))
        private_folder(path.parent)
        write_atomically(path, f"{password}\n".encode())
        write(settings, (known | {name: user}).values())
    return Credentials(name, keep_secret(password))


def kept(settings: Settings, purpose: str) -> Credentials | None:
    """The login for ``purpose`` if there is one that lets in, to pull alone; makes none."""
    for one in read(settings):
        if (one.purpose, one.role) != (purpose, "pull"):
            continue
        path = _passwords(settings) / one.name
        password = path.read_text().strip() if path.exists() else ""
        if password and roles.proof(ensure_key(settings), password) in one.proofs:
            return Credentials(one.name, keep_secret(password))
    return None


def handed_out(settings: Settings) -> tuple[User, ...]:
    """The logins that Moorage made for nodes and Secrets."""
    return tuple(one for one in read(settings) if one.name.startswith(_OURS) and one.purpose)


def begin_rotation(settings: Settings, names: Collection[str]) -> None:
    """Gives logins that are handed out another password each; the one before it stays right.

    All of them are begun with at once, or none is. One that has two passwords keeps both: only what
    was begun is ended, wherever it was killed. Raises OSError; the old passwords are kept then.
    """
    private_folder(_passwords(settings))
    after = [
        _begun(settings, one) if one.name in names and len(one.proofs) < 2 else one
        for one in read(settings)
    ]
    write(settings, after)
    for user in after:
        draft = _draft(settings, user.name)
        if draft.exists() and is_right(settings, user, draft.read_text().strip()):
            draft.replace(_passwords(settings) / user.name)


def is_right(settings: Settings, user: User, password: str, *, newest: bool = False) -> bool:
    """Whether the password lets this login in right now, or is its ``newest`` one."""
    ended = 0 < user.expires <= time.time()
    right = user.proofs[:1] if newest else user.proofs
    return not ended and roles.proof(ensure_key(settings), password) in right


def ensure_key(settings: Settings) -> bytes:
    """The key of the passwords' HMACs, made once."""
    path = folder(settings) / "front-key"
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        key = b""
    if len(key) != 32:
        key = secrets.token_bytes(32)
        private_folder(path.parent)
        write_atomically(path, f"{key.hex()}\n".encode())
    return key


def write(settings: Settings, users: Any) -> None:
    """Keeps these logins. Raises OSError; the old ones are kept then."""
    private_folder(folder(settings))
    listed = [asdict(one) for one in sorted(users, key=lambda one: one.name)]
    text = json.dumps({"version": 1, "users": listed}, indent=1)
    write_atomically(_path(settings), f"{text}\n".encode())


def _with_password(settings: Settings, user: User) -> tuple[str, User]:
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    return password, replace(user, proofs=(roles.proof(ensure_key(settings), password),))


def _user(one: dict[str, Any]) -> User:
    """A row of the file. Raises what says that it is none."""
    patterns = roles.check_patterns(",".join(one["repositories"]))
    proofs = tuple(str(found) for found in one["proofs"])
    if not all(len(found) == 64 and set(found) <= set("0123456789ABCDEF") for found in proofs):
        raise ValueError(f"the login {one['name']!r} has a proof that is not one")
    return User(
        roles.check_name(one["name"]),
        roles.check_role(one["role"]),
        patterns,
        int(one["expires"]),
        str(one["purpose"]),
        proofs,
    )


def _path(settings: Settings) -> Path:
    return folder(settings) / "users.json"


def _passwords(settings: Settings) -> Path:
    return folder(settings) / "logins"


def _begun(settings: Settings, user: User) -> User:
    password, after = _with_password(settings, user)
    write_atomically(_draft(settings, user.name), f"{password}\n".encode())
    return replace(after, proofs=(*after.proofs, *user.proofs))


def _draft(settings: Settings, name: str) -> Path:
    """The password that follows, until it is in force."""
    return _passwords(settings) / f"{name}.new"
