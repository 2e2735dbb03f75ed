"""Plan in, node changed, Node annotated; again when the plan or the node changes."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.daemonset import passed, scrape
from agent.daemonset.api import ApiTrouble, NodeApi
from agent.daemonset.hosts import FilesHost, FullHost, PodProver
from agent.daemonset.surroundings import Surroundings
from agent.engine.engine import Engine
from agent.journal import status as standing
from agent.journal.ledger import Store
from agent.node.disk import write_own
from agent.wire.faults import AgentError, Fault, Interrupted
from agent.wire.plan import Plan
from agent.wire.report import (
    ChangeEvent,
    Event,
    HostResult,
    RestartEvent,
    ResultEvent,
    StatusEvent,
    Unproven,
    event_to_json,
)
from agent.wire.runtimes.declared import RUNTIMES

STATUS = "moorage.dev/agent"
TRUSTED = "moorage.dev/trusted"
TAINT = "moorage.dev/untrusted"
# The Secret's keys.
PLAN, ACTION = "plan.json", "action"

NEEDS_FULL = "needs-full"
UNTRUSTED = "untrusted"
FAILED = "failed"

DRIFT_SECONDS = 30.0
# A look whether anything drifted touches files only; so often the whole proof is made again.
PROOF_SECONDS = 600.0
SLOWEST_RETRY = 60.0
READY_PORT = 8079


@dataclass(frozen=True)
class PlanWish:
    """What the Secret says: ``apply`` or ``untrust`` this plan; ``digest`` names it."""

    action: str
    plan: bytes
    digest: str
    version: str = ""

    @classmethod
    def of(cls, plan: bytes, action: str, version: str = "") -> PlanWish:
        digest = hashlib.sha256(plan + b"\0" + action.encode()).hexdigest()[:16]
        return cls(action or "apply", plan, digest, version)


@dataclass(frozen=True)
class LoopOutcome:
    """How an operation ended: a status of the core's, ``needs-full`` or ``untrusted``.

    ``pulled``: the kubelet's runtime has, through CRI. ``unproven`` are other parts.
    """

    status: str
    error: Fault | None = None
    pulled: bool = False
    unproven: tuple[Unproven, ...] = ()

    @property
    def good(self) -> bool:
        return self.status in ("changed", "unchanged", UNTRUSTED)


class Loop:
    """One pod's life."""

    def __init__(self, here: Surroundings, api: NodeApi | None = None) -> None:
        self._here = here
        self._api = api or NodeApi(here)
        self._changed = threading.Event()
        self._wish: PlanWish | None = None
        self._told = ""
        self._good_since = 0.0
        self._good_digest = ""
        self._registry = ""
        self._settled = False

    # -- the two programs -----------------------------------------------------------------------

    def trust(self) -> None:
        """Ends when the node is as the plan wants it; until then it tries again, and tells."""
        proof = Path(self._here.proof)
        if proof.is_dir():  # a manifest of before has none
            write_own(proof / passed.NAME, passed.program(platform.machine()), 0o755)
        self._follow()
        pause = 2.0
        while True:
            outcome = self._carry_out(proven=False)
            if outcome.good:
                return
            self._changed.wait(pause)
            pause = 2.0 if self._changed.is_set() else min(pause * 2, SLOWEST_RETRY)
            self._changed.clear()

    def watch(self) -> None:
        """Goes on for ever. In the grade *files*, being here proves the pull: the kubelet has
        started an image of the registry between ``trust`` and this."""
        self._follow()
        ready = _Readiness()
        scrape.serve(self._metrics)
        pause = DRIFT_SECONDS
        while True:
            kubelets = self._here.grade == "files"
            outcome = self._carry_out(proven=kubelets)
            if kubelets:
                self._note_the_kubelets_pull(outcome)
            self._settled = outcome.good
            ready.set(outcome.good)
            pause = DRIFT_SECONDS if outcome.good else min(max(pause / 4, 2.0) * 2, SLOWEST_RETRY)
            self._changed.wait(pause)
            self._changed.clear()

    def _note_the_kubelets_pull(self, outcome: LoopOutcome) -> None:
        """On the node too: what metrics and a status tell of it is what the Node says."""
        if outcome.good and outcome.status != UNTRUSTED:
            standing.note_proven(Store(self._here.root), self._registry, _KUBELETS)

    def _metrics(self) -> str:
        return scrape.text(self._here.root, self._here.node, self._here.grade, self._settled)

    # -- one round ------------------------------------------------------------------------------

    def _carry_out(self, proven: bool) -> LoopOutcome:
        wish = self._wish or self._mounted()
        if self._stands(wish):
            return LoopOutcome("unchanged")
        outcome = self._operate(wish)
        self._good_since = time.monotonic() if outcome.good else 0.0
        self._good_digest = wish.digest
        self._tell(wish, outcome, proven)
        return outcome

    def _stands(self, wish: PlanWish) -> bool:
        """Whether what was proven a while ago is still as it was left: a look, no proof."""
        lately = time.monotonic() - self._good_since < PROOF_SECONDS and self._good_since > 0
        if not lately or wish.digest != self._good_digest or wish.action == "untrust":
            return False
        try:
            engine, plan = self._engine(wish)
            events = list(engine.apply(plan, dry_run=True))
        except (AgentError, ApiTrouble):
            return False
        last = events[-1]
        return isinstance(last, ResultEvent) and last.result.status == "unchanged"

    def _operate(self, wish: PlanWish) -> LoopOutcome:
        try:
            engine, plan = self._engine(wish)
            untrust = wish.action == "untrust"
            if self._here.grade == "files":
                if _was_cut_off(engine):
                    return LoopOutcome(
                        NEEDS_FULL, _more("an interrupted run has to be rolled back")
                    )
                dry = engine.untrust(plan, True) if untrust else engine.apply(plan, True)
                why = _beyond_files(list(dry))
                if why is not None:
                    return LoopOutcome(NEEDS_FULL if why.code == NEEDS_FULL else FAILED, why)
                engine, plan = self._engine(wish)
            if untrust:
                return _ended(engine.untrust(plan), UNTRUSTED)
            return _ended(engine.apply(plan))
        except AgentError as problem:
            return LoopOutcome(FAILED, problem.fault)
        except ApiTrouble as problem:
            return LoopOutcome(
                FAILED, Fault("no-api", f"the API server does not answer: {problem}")
            )
        except OSError as problem:
            return LoopOutcome(FAILED, Fault("io-error", f"{problem.filename}: {problem.strerror}"))

    def _engine(self, wish: PlanWish) -> tuple[Engine, Plan]:
        """A core, good for one operation, and the plan fitted to the grade."""
        plan = Plan.parse(wish.plan)
        self._registry = plan.registry.name
        root = self._here.root
        if self._here.grade == "full":
            return Engine(FullHost(root), PodProver(root, pulls=True)), plan
        info = (self._api.node().get("status") or {}).get("nodeInfo") or {}
        runtime = info.get("containerRuntimeVersion", "")
        # Only the kubelet's own runtime counts here, and the kubelet makes the proving pull.
        kind = runtime.partition("://")[0]
        parts = tuple(part for part in plan.parts if part in ("hosts", kind))
        fitted = replace(plan, parts=parts, verify=None)
        return Engine(FilesHost(root, runtime), PodProver(root, pulls=False)), fitted

    # -- the plan -------------------------------------------------------------------------------

    def _mounted(self) -> PlanWish:
        """The Secret as the kubelet mounted it; up to a minute old, but there without the API."""
        folder = Path(self._here.plan)
        action = "apply"
        with suppress(OSError):
            action = (folder / ACTION).read_text("utf-8").strip()
        try:
            return PlanWish.of((folder / PLAN).read_bytes(), action)
        except OSError:
            return PlanWish.of(b"", action)

    def _follow(self) -> None:
        with suppress(ApiTrouble, KeyError, ValueError):
            self._wish = _wish(self._api.plan())
        threading.Thread(target=self._follow_for_ever, daemon=True).start()

    def _follow_for_ever(self) -> None:
        pause = 1.0
        while True:
            try:
                current = _wish(self._api.plan())
                self._take(current)
                for secret in self._api.plans(current.version, 240):
                    self._take(_wish(secret))
                pause = 1.0
            except (ApiTrouble, KeyError, ValueError, TypeError):
                time.sleep(pause)
                pause = min(pause * 2, 30.0)

    def _take(self, wish: PlanWish) -> None:
        if self._wish is None or wish.digest != self._wish.digest:
            self._wish = wish
            self._changed.set()

    # -- the Node -------------------------------------------------------------------------------

    def _tell(self, wish: PlanWish, outcome: LoopOutcome, proven: bool) -> None:
        """Annotates the Node where something is new, and lifts the taint when a pull is proven.

        A node that was put right is news too: what failed there before counts no more.
        """
        status: dict[str, Any] = {
            "registry": self._registry,
            "grade": self._here.grade,
            "status": "trusted" if outcome.good and outcome.status != UNTRUSTED else outcome.status,
            "plan": wish.digest,
        }
        if outcome.error is not None:
            status["error"] = {
                "code": outcome.error.code,
                "message": outcome.error.message,
                "cure": outcome.error.cure,
            }
        pull = outcome.good and outcome.status != UNTRUSTED and (proven or outcome.pulled)
        if outcome.unproven and not pull:
            status["unproven"] = [one._asdict() for one in outcome.unproven]
        text = json.dumps({**status, "proven": pull}, sort_keys=True)
        if self._told == text and outcome.status != "changed":
            return
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        try:
            self._annotate(text, outcome, pull)
        except ApiTrouble as problem:
            sys.stderr.write(f"the Node cannot be annotated: {problem}\n")
            return
        self._told = text

    def _annotate(self, text: str, outcome: LoopOutcome, pull: bool) -> None:
        node = self._api.node()
        annotations = node["metadata"].get("annotations") or {}
        trusted = _object(annotations.get(TRUSTED, ""))
        if pull:
            trusted[self._registry] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        elif outcome.status == UNTRUSTED or not outcome.good:
            trusted.pop(self._registry, None)
        change: dict[str, Any] = {
            "metadata": {
                "annotations": {
                    STATUS: text,
                    TRUSTED: json.dumps(trusted, sort_keys=True) if trusted else None,
                }
            }
        }
        taints = (node.get("spec") or {}).get("taints") or []
        left = [one for one in taints if one.get("key") != TAINT]
        if pull and left != taints:
            # The list is written whole: this version or none, so that no other taint is lost.
            change["metadata"]["resourceVersion"] = node["metadata"]["resourceVersion"]
            change["spec"] = {"taints": left or None}
        self._api.patch_node(change)


class _Readiness:
    """A port that answers while all is well: what the kubelet's probe asks. No image need have a
    shell or curl for it."""

    def __init__(self, port: int = READY_PORT) -> None:
        self._port = port
        self._listener: socket.socket | None = None

    def set(self, ready: bool) -> None:
        if ready and self._listener is None:
            self._listener = socket.create_server(("", self._port))
            threading.Thread(target=self._answer, args=(self._listener,), daemon=True).start()
        elif not ready and self._listener is not None:
            # shutdown() wakes the thread that waits in accept().
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    @staticmethod
    def _answer(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                listener.accept()[0].close()


def _wish(secret: dict[str, Any]) -> PlanWish:
    data = secret.get("data") or {}
    action = base64.b64decode(data.get(ACTION, "")).decode("utf-8") or "apply"
    version = secret["metadata"]["resourceVersion"]
    return PlanWish.of(base64.b64decode(data[PLAN]), action, version)


def _ended(events: Any, status: str = "") -> LoopOutcome:
    """Runs an operation to its result, and prints what it does as the other faces do."""
    last: ResultEvent | None = None
    for event in events:
        if isinstance(event, ResultEvent):
            last = event
        if not isinstance(event, ResultEvent) or not event.result.ok:
            sys.stdout.write(json.dumps(event_to_json(event)) + "\n")
    if last is None:
        return LoopOutcome(FAILED, Fault("internal-error", "the operation ended without a result"))
    result = last.result
    if result.error is not None and result.error.code == "interrupted":
        raise Interrupted("SIGTERM")
    if result.ok and result.status == "changed":
        sys.stdout.write(json.dumps(event_to_json(last)) + "\n")
    sys.stdout.flush()
    return LoopOutcome(
        status if status and result.ok else result.status,
        result.error,
        pulled=result.ok and result.pull_seconds is not None and not _in_doubt(result),
        unproven=result.unproven if result.ok else (),
    )


# What the kubelet itself may pull by: their proof is CRI's.
_KUBELETS = tuple(declared.name for declared in RUNTIMES if declared.kubelet)


def _in_doubt(result: HostResult) -> bool:
    """Whether what is not proven is what the kubelet pulls by."""
    return any(one.part in _KUBELETS for one in result.unproven)


def _beyond_files(events: list[Event]) -> Fault | None:
    """Why the trust folders alone do not do here; None if they do."""
    for event in events:
        if isinstance(event, ChangeEvent) and event.path.endswith("/config.toml"):
            return _more(f"{event.path} has to be edited")
        if isinstance(event, RestartEvent):
            return _more(f"{event.unit} has to be restarted")
        if isinstance(event, ResultEvent) and event.result.error is not None:
            code = event.result.error.code
            if code == "config-refused-by-containerd":
                return _more("config.toml imports other files, which only containerd can merge")
            return event.result.error
    return None


def _was_cut_off(engine: Engine) -> bool:
    """Whether a run of another agent, over SSH perhaps, was stopped in its middle."""
    return any(isinstance(event, StatusEvent) and event.interrupted for event in engine.status())


def _more(why: str) -> Fault:
    return Fault(
        NEEDS_FULL,
        why,
        cause="the grade files may write into the trust folders only",
        cure="inv k8s.agents (it gives such nodes the grade full)",
    )


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
