"""Invoke's configuration, read: as settings, as sources, or as a refusal of what it cannot read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.config import AmbiguousMergeError, Config
from invoke.exceptions import AmbiguousEnvVar, UncastableEnvVar

from moorage.configuration import profiles
from moorage.output.typed import file_of

if TYPE_CHECKING:
    from invoke.context import Context

    from moorage.configuration.origins import SettingSource
    from moorage.configuration.parsing import BadSetting
    from moorage.errors import Refused
    from moorage.settings import Settings


def settings_of(context: Context) -> Settings:
    """Invoke's merged configuration -> Settings. Raises Refused (see moorage.settings)."""
    from moorage import settings
    from moorage.configuration import origins, parsing

    sources = sources_of(context.config)
    origins.refuse_unknown(sources, os.environ)
    sections = {key: _plain(context.config[key]) for key in settings.sections()}
    profile = profiles.current(os.environ)
    found = parsing.parse(sections, source=partial(origins.giver, sources), profile=profile)
    for problem in shared_with_others(sources):
        raise problem
    return found


def shared_with_others(sources: Sequence[SettingSource]) -> Iterator[BadSetting]:
    """The refusals of what another profile of this checkout uses as well."""
    from moorage.settings import ROOT

    me = profiles.current(os.environ)
    names = [name for name in ("", *profiles.there(ROOT)) if name != me]
    if not me and not names:
        return
    from moorage.configuration import apart, origins

    others = {
        name: apart.used(apart.sources_of(sources, name, profiles.said(ROOT, name)), ROOT, name)
        for name in names
    }
    mine = apart.used(sources, ROOT, me)
    yield from apart.shared(mine, others, partial(origins.giver, sources))


def sources_of(config: Config) -> tuple[SettingSource, ...]:
    """What Invoke has read, each file by the path it was found at, in the order that wins."""
    from moorage import settings
    from moorage.configuration.origins import DEFAULT, SettingSource

    def source(kind: str) -> SettingSource:
        # Invoke counts a missing invoke.py as found, and empty.
        path = str(getattr(config, f"_{kind}_path", None) or "")
        path = path if Path(path).exists() else ""
        values = getattr(config, f"_{kind}", None)
        return SettingSource(kind, _shown(path) if path else "", _plain(values or {}))

    files = [source(kind) for kind in ("system", "user", "project")]
    environment = SettingSource("environment", "", _plain(getattr(config, "_env", None) or {}))
    usual = settings.defaults(profiles.current(os.environ))
    return (SettingSource(DEFAULT, "", usual), *files, environment, source("runtime"))


def _plain(value: Any) -> Any:
    """Invoke's proxies of mappings -> dicts."""
    return {key: _plain(value[key]) for key in value} if hasattr(value, "keys") else value


def broken_file(kind: str, problem: Exception, config: Any) -> Refused:
    # Whatever the YAML reader raises: bad syntax, not UTF-8, a folder, no permission.
    return unreadable(_path_of(config, kind), " ".join(str(problem).split()))


def require_given(path: Any) -> None:
    """Raises Refused if the file that ``-f`` names is not there; None: it names none."""
    from moorage.files import user_path

    if path is not None and not user_path(path).exists():
        raise unreadable(str(path), "there is no such file")


def _path_of(config: Any, kind: str) -> str:
    """The file of that kind that Invoke reads, or would."""
    if kind == "runtime":
        return str(config._runtime_path)
    from moorage.files import user_path

    prefix = getattr(config, f"_{kind}_prefix")
    stem = file_of(profiles.current(os.environ) if kind == "project" else "").removesuffix("yaml")
    names = [f"{prefix}{stem}{suffix}" for suffix in config._file_suffixes]
    found = next((name for name in names if user_path(name).exists()), names[0])
    return _shown(found)


def _shown(path: str) -> str:
    """A path as a user at this place would write it."""
    from moorage.files import user_path

    whole = user_path(path).absolute()
    here = Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def broken_merge(problem: Exception, config: Any) -> Refused | None:
    """Of a file whose section is a word where keys belong."""
    if not isinstance(problem, AmbiguousMergeError):
        return None
    from moorage import settings

    sections = settings.defaults()
    path, section = next(
        (
            (source.name, section)
            for source in sources_of(config)
            for section in source.values
            if section in sections and not hasattr(source.values[section], "keys")
        ),
        ("invoke.yaml", ""),
    )
    cause = f"a section of keys was expected{f' at {section}' if section else ''}: {problem}"
    return unreadable(path, cause)


def broken_variable(problem: Exception, _config: Any) -> Refused | None:
    from moorage.errors import Refused

    if not isinstance(problem, AmbiguousEnvVar | UncastableEnvVar | ValueError):
        return None
    # Invoke does not say which variable it was; the value that could not be cast tells.
    name = next(
        (
            name
            for name, value in os.environ.items()
            if name.startswith("INVOKE_") and repr(value) in str(problem)
        ),
        "an INVOKE_* variable",
    )
    return Refused(
        "bad-setting",
        f"{name} in the environment has the wrong type",
        cause=str(problem),
        cure="moorage/settings.py lists every key with its type; correct or unset the variable",
    )


def unreadable(path: str, cause: str) -> Refused:
    from moorage.errors import Refused

    return Refused(
        "unreadable-settings",
        f"{path} cannot be read",
        cause=cause,
        cure="correct the file at that place; docs/reference/settings.md lists every key",
        path=path,
    )
