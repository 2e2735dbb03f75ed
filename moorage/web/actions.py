"""What the page may do, if it may do anything: verify a node, and fix one cause of stuck pods.

Each goes through the function that its command calls, is asked before, runs alone, and has a log of
its own among those of commands, whose first line says who asked for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError, Refused
from moorage.output.said import Coded, joined, said
from moorage.ui import UI
from moorage.web.story import Section, StoryTrouble, from_rows, trouble

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.diagnosis import Group
    from moorage.cluster.diagnosis.examine import Report
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.operation import Reach
    from moorage.settings import Settings

KEPT = 50
_log = logging.getLogger("moorage.web")


@dataclass(frozen=True)
class Question:
    """An action before it is agreed to. ``of``: the node, or the key of the cause; ``typed``: the
    command that would do the same; ``does``: what will be done, as fragments of a sentence."""

    kind: str
    of: str
    typed: str
    does: tuple[str, ...]


# The task that would do the same.
_TASKS = {"verify": "nodes.verify", "fix": "k8s.diagnose"}


@dataclass(frozen=True)
class ActionOutcome:
    """What became of an action: in words, or with the failure."""

    words: str = ""
    error: MoorageError | None = None


@dataclass(frozen=True)
class AgreedAction:
    """An action that was agreed to. ``began``: seconds since 1970; ``outcome``: None while it is
    under way."""

    began: float
    who: str
    question: Question
    outcome: ActionOutcome | None = None


class Voice(UI):
    """What an action says goes to its log; a question that nobody on the page saw is not agreed."""

    def say(self, text: str) -> None:
        _log.info("%s", text)

    note = warn = say

    @property
    def interactive(self) -> bool:
        return False

    def error(self, problem: MoorageError) -> None:
        _log.error("%s", json.dumps(problem.to_json(), ensure_ascii=False))

    @contextmanager
    def progress(self, text: str) -> Iterator[Any]:
        self.say(text)
        yield lambda **_: None

    @contextmanager
    def board(self, text: str) -> Iterator[Callable[[Sequence[str]], None]]:
        self.say(text)
        yield _unseen

    def confirm(self, actions: Sequence[str], *, question: str = "Go on?") -> None:
        """Raises Refused: a further step has to be asked for on the page by itself."""
        del question
        raise Refused(
            "not-confirmed",
            "something else has come up, and was left alone",
            cause="; ".join(actions),
            cure="inv k8s.diagnose --fix; or look at the page again in a minute",
        )


class Actions:
    """The two actions, and what was done so far. ``show`` gets the section whenever it changes."""

    def __init__(
        self,
        settings: Settings,
        hosts: Sequence[Target],
        show: Callable[[Section], None],
        *,
        reach: Reach | None = None,
        api: Api | None = None,
    ) -> None:
        self._settings = settings
        self._hosts = {host.name: host for host in hosts}
        self._show = show
        self._reach = reach
        self._api = api
        self._report: Report | None = None
        self._guard = threading.Lock()
        self._deeds: tuple[AgreedAction, ...] = ()

    # -- what is offered -----------------------------------------------------------------------

    def heard(self, report: Report) -> None:
        """The causes that the page shows by now."""
        self._report = report

    @property
    def under_way(self) -> str:
        """The command that is under way, "" for none."""
        last = self._deeds[-1] if self._deeds else None
        return last.question.typed if last is not None and last.outcome is None else ""

    def section(self) -> Section:
        """The form, and what was done, newest first."""
        rows = [
            (_when(one.began), one.who, one.question.typed, _state(one.outcome))
            for one in reversed(self._deeds)
        ]
        shown = from_rows(("began", "by", "what", "result"), rows)
        return replace(shown, offers=tuple(self._hosts), troubles=self._failures())

    def _failures(self) -> tuple[StoryTrouble, ...]:
        """Why the newest action failed, if it did."""
        last = self._deeds[-1] if self._deeds else None
        if last is None or last.outcome is None or last.outcome.error is None:
            return ()
        return (trouble(last.question.typed, last.outcome.error),)

    def question(self, kind: str, of: str) -> Question:
        """What agreeing would do. Raises Refused (``no-node``, ``no-finding``)."""
        if kind == "verify":
            return self._verification(of)
        return self._cure(of)

    def _verification(self, name: str) -> Question:
        if name not in self._hosts:
            raise Refused(
                "no-node",
                "the page shows no node of this name",
                cause="only the nodes that inv web was started with can be verified here",
                cure="inv nodes.verify --hosts=NODE",
            )
        does = said(
            "prove that {node} trusts the registry: TLS, CRI and a pull; it changes no file",
            node=name,
        )
        return Question("verify", name, f"inv nodes.verify --hosts={name}", (does,))

    def _cure(self, wanted: str) -> Question:
        from moorage.cluster.workload import cures

        does = tuple(cures.announce(self._settings, _only(self._report, wanted)))
        typed = self._cluster().where.typed("inv k8s.diagnose --fix")
        return Question("fix", wanted, typed, does)

    def _cluster(self) -> Api:
        if self._api is None:
            raise _gone()
        return self._api

    # -- what is done --------------------------------------------------------------------------

    def begin(self, question: Question, who: str) -> None:
        """Begins in a thread. Raises Refused (``busy``) while another action is under way."""
        deed = AgreedAction(time.time(), who, question)
        with self._guard:
            if self.under_way:
                raise Refused(
                    "busy",
                    f"{self.under_way} is under way",
                    cause="the page does one thing at a time",
                    cure="wait until its result is on the page, then ask again",
                )
            self._deeds = (*self._deeds, deed)[-KEPT:]
        self._show(self.section())
        threading.Thread(target=self._carry_out, args=(deed,), name="web-action").start()

    def _carry_out(self, deed: AgreedAction) -> None:
        """Its log begins with the command and who asked, and ends with the result."""
        from moorage.logs import command_log

        words = f"{deed.question.typed} # asked for on the page by {deed.who}"
        folder, task = self._settings.state / "log", _TASKS[deed.question.kind]
        log = command_log.begin(folder, task, words, say=_unseen, level=0)
        try:
            _log.info("begun for %s", deed.who)
            outcome = self._outcome(deed.question)
            _log.info("ended: %s", _state(outcome))
        finally:
            command_log.end(log)
        with self._guard:
            self._deeds = (*self._deeds[:-1], replace(deed, outcome=outcome))
        self._show(self.section())

    def _outcome(self, question: Question) -> ActionOutcome:
        work = {"verify": self._verify, "fix": self._fix}[question.kind]
        try:
            return work(question)
        except MoorageError as problem:
            return ActionOutcome(error=problem)
        except Exception as problem:
            _log.exception("a defect of Moorage")
            words = f"{type(problem).__name__}: {problem}"[:500]
            return ActionOutcome(
                error=MoorageError("defect", "this could not be done", cause=words)
            )

    def _verify(self, question: Question) -> ActionOutcome:
        from moorage.fleet.rollout.fleet import Fleet

        fleet = Fleet(self._settings, Voice(), self._reach)
        (result,) = fleet.run("verify", [self._hosts[question.of]]).hosts
        if result.error is not None:
            return ActionOutcome(error=MoorageError.of(result.error, host=question.of))
        if result.unproven:
            parts = ", ".join(one.part for one in result.unproven)
            return ActionOutcome(said("well; not proven: {parts}", parts=parts))
        if result.pull_seconds is None:
            return ActionOutcome(said("proven"))
        took = f"{result.pull_seconds:.1f}"
        return ActionOutcome(said("proven by a pull in {took} s", took=took))

    def _fix(self, question: Question) -> ActionOutcome:
        """As ``k8s.diagnose --fix`` does it, of one cause, which must be what was agreed to."""
        from moorage.cluster.diagnosis import examine, owners
        from moorage.cluster.login import access
        from moorage.cluster.workload import cures
        from moorage.lock import project_lock

        api, voice = self._cluster(), Voice()
        with project_lock(self._settings.state, "inv web"), access.typed_for(api):
            found = _only(examine.examine(api, self._settings), question.of)
            one = owners.with_last_tries(api, found)
            done, after = cures.by_rounds(api, self._settings, voice, one)
        if failed := [each.error for each in done if each.error is not None]:
            return ActionOutcome(error=failed[0])
        left = len(after.stuck) + len(after.waiting)
        end = said("{count} pods still wait", count=left) if left else said("the pods run")
        return ActionOutcome(joined("; ", (*(each.words for each in done), end)))


def key(group: Group) -> str:
    """What one cause is known by: of other pods or nodes, it is another one."""
    told = (group.code, group.registry, group.fix, group.pods, group.nodes, group.namespaces)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:24]


def _only(report: Report | None, wanted: str) -> Report:
    """The report with that cause alone. Raises Refused (``no-finding``) if it has no such cause, or
    none that a command of ours cures."""
    groups = report.groups if report is not None else ()
    found = tuple(one for one in groups if one.fix and key(one) == wanted)
    if report is None or not found:
        raise _gone()
    return replace(report, groups=found)


def _gone() -> Refused:
    return Refused(
        "no-finding",
        "this cause is gone, or is another by now",
        cause="its pods, nodes or namespaces have changed since the page showed it",
        cure="inv k8s.diagnose; the page shows what there is now",
    )


def _unseen(_: object) -> None:
    """Shows nothing: the log is for later."""


def _state(outcome: ActionOutcome | None) -> str:
    if outcome is None:
        return said("under way")
    if outcome.error is not None:
        problem = Coded(outcome.error.message, outcome.error.code)
        return said("failed: {problem}", problem=problem)
    return outcome.words


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
