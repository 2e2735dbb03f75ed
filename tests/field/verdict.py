"""What a node told of a case, judged: pulled or not, harmed or not.

Its own eyes: nothing here asks the agent's code what counts as trust.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from tests.agent.real import NAME
from tests.field.case import Case

OTHER = "other.registry.io"


@dataclass(frozen=True)
class Verdict:
    """``harm`` names what is worse than before, ``why`` what else is not as the case says.

    ``pulled``, or where the case says so refused: all is as the case says.
    """

    case: Case
    pulled: bool
    harm: str
    why: str
    seconds: float = 0.0


def verdict(case: Case, told: dict[str, Any]) -> Verdict:
    """Compare what the node told with what the case expects."""
    if case.refused:
        return _refused(case, told)
    apply, again, untrust = told["apply"], told["again"], told["untrust"]
    wrong = _unsaid(case, apply)
    if not told["serves"]:
        wrong.append("the case is wrong: CRI does not serve with these files")
    if told["explained"] != [case.strategy]:
        wrong.append(f"the strategy is {told['explained']}, not {case.strategy}")
    if apply["status"] != "changed":
        wrong.append(f"apply: {_words(apply)}")
    if bool(apply.get("restarts")) != case.restart:
        wrong.append(f"restarted: {apply.get('restarts')}")
    if told["pulled"]:
        wrong.append(f"the pull: {told['pulled']}")
    if (again["status"], again.get("restarts")) != ("unchanged", []):
        wrong.append(f"a second apply: {_words(again)}")
    if untrust["status"] != "changed":
        wrong.append(f"untrust: {_words(untrust)}")
    if case.added and told["kept"]["status"] != "changed":
        wrong.append(f"untrust beside a colleague's files: {_words(told['kept'])}")
    meanwhile = _lost_pulls(told, "meanwhile") if case.added else []
    harm = "\n".join([*_harm(told, "after"), *meanwhile, *_harm(told, "back"), *_bytes(told)])
    return Verdict(case, not wrong, harm, "\n".join(wrong), told["seconds"])


def _refused(case: Case, told: dict[str, Any]) -> Verdict:
    apply = told["apply"]
    wrong = _unsaid(case, apply)
    code = (apply.get("error") or {}).get("code")
    if code != case.refused:
        wrong.append(f"apply: {_words(apply)}, where it should refuse: {case.refused}")
    if told["explained"] != [case.strategy]:
        wrong.append(f"the strategy is {told['explained']}, not {case.strategy}")
    harm = "\n".join([*_harm(told, "after"), *_bytes(told)])
    return Verdict(case, not wrong, harm, "\n".join(wrong), told["seconds"])


def _unsaid(case: Case, apply: dict[str, Any]) -> list[str]:
    said = "\n".join(apply["notes"])
    return [f"it does not say {note!r}, but: {said}" for note in case.notes if note not in said]


def _words(result: dict[str, Any]) -> str:
    return f"{result['status']} {result.get('error') or ''} {result.get('changes')} " + (
        f"{result['noise']}"
    )


def _harm(told: dict[str, Any], when: str) -> list[str]:
    found = []
    if told[when]["dump"] is None and told["before"]["dump"] is not None:
        found.append(f"{when}: containerd refuses its configuration")
    elif told["before"]["dump"] is not None:
        trust = when == "after"
        before, after = (
            settings(told["before"]["dump"], trust),
            settings(told[when]["dump"], trust),
        )
        found += [f"{when}: {line}" for line in differences(before, after)]
    return [*found, *_lost_pulls(told, when)]


def _lost_pulls(told: dict[str, Any], when: str) -> list[str]:
    return [
        f"{when}: another registry's pull {number} that went well fails now"
        for number, pulled in enumerate(told["before"]["pulls"])
        if pulled and not told[when]["pulls"][number]
    ]


def _bytes(told: dict[str, Any]) -> list[str]:
    before, back = told["before"]["files"], told["back"]["files"]
    return [
        f"not given back: {path}: {before.get(path, 'nothing')} became {back.get(path, 'nothing')}"
        for path in sorted({*before, *back})
        if before.get(path) != back.get(path)
    ]


def settings(dump: str, without_trust: bool) -> dict[str, Any]:
    """A dump's tables, without the list of files, and without what says whom to trust."""
    tables = tomllib.loads(dump)
    tables.pop("imports", None)
    for plugin in tables.get("plugins", {}).values() if without_trust else ():
        registry = plugin.get("registry") if isinstance(plugin, dict) else None
        if not isinstance(registry, dict):
            continue
        registry.pop("config_path", None)
        for name in (NAME, f"{NAME}:443"):  # both spellings are one registry
            (registry.get("configs") or {}).pop(name, None)
        if tables.get("version") != 2:  # where mirrors move to hosts.toml; their pulls are judged
            registry.pop("mirrors", None)
    return tables


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two documents differ, one line each; an empty table is as good as none."""
    if isinstance(before, dict) or isinstance(after, dict):
        old, new = (one if isinstance(one, dict) else {} for one in (before, after))
        if not isinstance(before, dict | None) or not isinstance(after, dict | None):
            return [f"{place}: {before!r} became {after!r}"]
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{place}.{key}")
        ]
    return [] if before == after else [f"{place}: {before!r} became {after!r}"]
