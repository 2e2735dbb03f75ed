"""What happens, in order: the operator killed, stopped once and twice, nodes hurt, and all mended.

Twice: over SSH, then over resident agents. Each run's report is held against the nodes.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from moorage.pki.roster import Roster
from tests.fleet import simulated
from tests.fleet.faults import OVER_HTTPS, OVER_SSH, Fault
from tests.fleet.judge import WITH, WITHOUT, Judge, code_of
from tests.fleet.runs import Event, Run, once
from tests.fleet.session import RealPlace, Session

PATIENCE = 600.0
# One node in so many is hurt in each way, and one at the least.
NODES_A_FAULT = 24
# What may be said of a liar, by the code of the result.
LIES = {
    "garbage": {"agent-died", "bad-answer"},
    "noise": {"connection-lost"},
    "claims": {"bad-answer"},
    "cut": {"agent-silent"},
    "gone": {"connection-lost"},
    "deaf": {"connection-lost"},
    "endless": {"bad-answer"},
    "mute": {"refused"},
    "other": {"not-our-agent"},
}


class Blows:
    """The faults of one run: some strike before it, the others in the middle of a node's change.

    ``at_work``: the real nodes that have come to theirs.
    """

    def __init__(self, nodes: dict[str, RealPlace], hurt: dict[str, Fault]) -> None:
        self.hurt = hurt
        self.at_work: set[str] = set()
        self._nodes = nodes
        self._pool = ThreadPoolExecutor(16)
        self._struck: dict[str, Future[None]] = {}
        for name, fault in hurt.items():
            if fault.before:
                self._strike(name)
        wait(self._struck.values())

    def _strike(self, name: str) -> None:
        self._struck[name] = self._pool.submit(self.hurt[name].strike, self._nodes[name])

    def hear(self, event: Event) -> None:
        name = str(event.get("host", ""))
        if event["event"] != "restart" or name not in self._nodes:
            return
        if name in self.hurt and name not in self._struck:
            self._strike(name)
        self.at_work.add(name)

    @property
    def missed(self) -> list[str]:
        return [name for name in self.hurt if name not in self._struck]

    def ended(self) -> int:
        """Takes the faults away again. Returns how many there were; raises what kept one away."""
        for name, one in self._struck.items():
            one.result()
            self.hurt[name].heal(self._nodes[name])
        self._pool.shutdown()
        return len(self._struck)


class Story:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.judge = Judge({**session.real, **session.honest, **session.liars})
        self.faults = 0
        self.hurt: dict[str, Fault] = {}
        self._began = time.monotonic()
        self._reports = 0

    @property
    def names(self) -> list[str]:
        return list(self.judge.places)

    def last_line(self) -> str:
        return (
            f"fleet: {len(self.names)} hosts, {self.faults} faults, {len(self.judge.problems)} lost"
        )

    def say(self, words: str) -> None:
        print(f"{time.monotonic() - self._began:5.0f} s  {words}", flush=True)

    def tell(self) -> None:
        for node in self.session.real.values():
            node.sh("touch /root/slow")
        self._canary()
        self._round("over SSH", OVER_SSH, "--once")
        self._adopt()
        self._round("over HTTPS", OVER_HTTPS)
        self._release()

    # -- the parts -----------------------------------------------------------------------------

    def _canary(self) -> None:
        """A liar goes first: nobody else is begun."""
        names = ["liar-other", *list(self.session.honest)[:9]]
        self.faults += 1
        report = self._run("the canary lies", names, "--canary=1")
        codes = {code_of(one) for one in report["hosts"][1:]}
        if codes != {"not-begun"}:
            self.judge.say(f"the canary failed, and of the others is said: {codes}")

    def _round(self, how: str, faults: Sequence[Fault], *once: str) -> None:
        healthy, self.hurt = self._order(faults)
        everyone = [*healthy, *self.hurt, *self.session.liars]
        starts = {name: place.starts() for name, place in self.judge.places.items()}
        careful = ("--canary=1", "--waves=10%,50%,100%", "--max-failures=100%", *once)
        again = ("--resume", *careful)
        self._run(f"{how}: the operator killed", healthy, *careful, stop=_kill, after=2)
        self._run(f"{how}: Ctrl-C once", healthy, *again, stop=_stop_once, after=1)
        self._run(f"{how}: Ctrl-C twice", healthy, *again, stop=_stop_twice, after=1)
        self._run(f"{how}: gone on with", healthy, *again, good=True)
        report = self._run(f"{how}: nodes hurt", everyone, *careful, hurt=self.hurt)
        self._expected(how, report)
        self._run(f"{how}: all mended", everyone, *again, good=True)
        honest = [*healthy, *self.hurt]
        report = self._run(f"{how}: once more", honest, *careful, good=True)
        for one in report["hosts"]:
            if one["status"] != "unchanged":
                self.judge.say(f"{how}: {one['host']} is {code_of(one)} the second time")
        self._counted(how, starts)
        self._run(f"{how}: untrust", honest, *careful[:3], good=True, verb="untrust")

    def _order(self, faults: Sequence[Fault]) -> tuple[list[str], dict[str, Fault]]:
        """The healthy, real ones in three parts, so that each stop finds some at work; the hurt."""
        real, honest = list(self.session.real), list(self.session.honest)
        count = max(1, len(real) // NODES_A_FAULT) * len(faults)
        split = max(3, len(real) - count)
        healthy, victims = real[:split], real[split:]
        third, part = (len(healthy) + 2) // 3, (len(honest) + 2) // 3
        order = honest[:1]
        for place in range(3):
            order += healthy[place * third : (place + 1) * third]
            order += honest[1 + place * part : 1 + (place + 1) * part]
        return order, {name: faults[place % len(faults)] for place, name in enumerate(victims)}

    def _adopt(self) -> None:
        """Trust as it is set up by default leaves an agent behind, and so does its end."""
        real = list(self.session.real)
        self._run("the agents stay", real, "--max-failures=0", good=True)
        self._run("and go on without", real, "--max-failures=0", good=True, verb="untrust")
        residents = Roster(self.session.settings).residents()
        if missing := set(real) - set(residents):
            self.judge.say(f"no agent stayed on {sorted(missing)}")

    def _release(self) -> None:
        told = self.session.operator.ask("nodes.release", f"--hosts={','.join(self.session.real)}")
        assert told["ok"], told
        for node in self.session.real.values():
            words = "find /etc -name 'moorage*' ! -name moorage-lab.conf ! -name moorage-lab"
            left = node.sh(f"{words}; pgrep -af 'agent[.]pyz'")[1].split()
            if left:
                self.judge.say(f"{node.name} has {left} left")

    # -- one run ---------------------------------------------------------------------------------

    def _run(
        self,
        title: str,
        names: Sequence[str],
        *words: str,
        stop: Callable[[Run], int] | None = None,
        after: int = 0,
        hurt: dict[str, Fault] | None = None,
        good: bool = False,
        verb: str = "trust",
    ) -> dict[str, Any]:
        """One command from its start to its end, its report held against the nodes.

        ``stop`` acts once ``after`` real nodes are in the middle of their change. ``good``: nobody
        but a liar may fail.
        """
        before = self.judge.states(self.names)
        self._reports += 1
        stem = self.session.folder / f"report-{self._reports}"
        blows = Blows(self.session.real, hurt or {})
        began = time.monotonic()
        run = self.session.operator.start(
            f"nodes.{verb}", *self._given(names, words, verb), *words, "--json-lines",
            f"--report={stem}", hear=blows.hear,
        )  # fmt: skip
        expected = None
        if stop is not None:
            over = run.process.poll
            once(PATIENCE, lambda: len(blows.at_work) >= after or over() is not None)
            if len(blows.at_work) < after or over() is not None:
                self.judge.say(f"{title}: it ended before it was stopped")
            else:
                time.sleep(0.5)
                expected = stop(run)
                self.faults += 1
        code = run.wait(PATIENCE)
        seconds = time.monotonic() - began
        self.faults += blows.ended() + (len(self.session.liars) if hurt else 0)
        for name in blows.missed:
            self.judge.say(f"{title}: {blows.hurt[name].name}: {name} was never at work")
        self._settle()
        report = run.report
        results = list(report.get("hosts", ()))
        if code == -signal.SIGKILL:
            results = [one["result"] for one in self.session.operator.logbook() if "result" in one]
        else:
            self._ended(title, code, expected, results)
            self.judge.report(title, names, report, stem)
        self.judge.once(title, run.results)
        self.judge.results(title, results, before, WITH if verb == "trust" else WITHOUT)
        for one in results if good else ():
            if one["host"] not in self.session.liars and not _good(one):
                self.judge.say(f"{title}: {one['host']} is {one['error']}")
        counts = Counter(code_of(one) for one in results)
        told = ", ".join(f"{count} {word}" for word, count in counts.items())
        self.say(f"{title}: exit {code} in {seconds:.0f} s; {told}")
        return report

    def _ended(
        self, title: str, code: int, expected: int | None, results: Sequence[dict[str, Any]]
    ) -> None:
        if expected is None:
            expected = 0 if all(_good(one) for one in results) else 1
        if code != expected:
            self.judge.say(f"{title}: it ended with {code}, not {expected}")

    def _given(self, names: Sequence[str], words: Sequence[str], verb: str) -> list[str]:
        given = [] if verb == "untrust" else [f"--image={self.session.image}"]
        if "--resume" in words:
            return given
        inventory = self.session.folder / "inventory"
        inventory.write_text("".join(f"{name}\n" for name in names))
        return [*given, f"--inventory={inventory}"]

    def _settle(self) -> None:
        def settle(node: RealPlace) -> None:
            try:
                node.settle()
            except AssertionError as problem:
                self.judge.say(str(problem))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(settle, self.session.real.values()))
        if not once(60, lambda: not any(one.busy() for one in self.session.honest.values())):
            self.judge.say("a simulated agent does not come to its end")

    # -- what the whole of it has to come to -----------------------------------------------------

    def _expected(self, how: str, report: dict[str, Any]) -> None:
        """Each fault is told as what it is."""
        results = {str(one["host"]): one for one in report["hosts"]}
        for name, fault in self.hurt.items():
            code = code_of(results[name])
            self.say(f"{how}: {fault.name}: {name} {code}")
            if code not in fault.outcomes:
                self.judge.say(f"{how}: {fault.name}: {name} is {results[name]['error']}")
        for name, liar in self.session.liars.items():
            code = code_of(results[name])
            if code not in LIES[liar.kind]:
                self.judge.say(f"{how}: {name} is {results[name]['error'] or code}")

    def _counted(self, how: str, before: dict[str, int]) -> None:
        """Nothing was done twice: starts of containerd, and applies in the history."""
        for name, place in self.judge.places.items():
            if name in self.session.liars:
                continue
            most = self.hurt[name].starts if name in self.hurt else 1
            started = place.starts() - before[name]
            if not 1 <= started <= most:
                self.judge.say(f"{how}: containerd of {name} was started {started} times")
        names = [*self.session.real, *self.session.honest]
        inventory = self.session.folder / "counted"
        inventory.write_text("".join(f"{name}\n" for name in names))
        told = self.session.operator.ask("nodes.history", f"--inventory={inventory}")
        for name in names:
            records = told.get("histories", {}).get(name, [])
            since = []
            for one in records:
                if one["operation"] == "untrust":
                    break
                since.append(one["operation"])
            if since != ["apply"]:
                self.judge.say(f"{how}: the history of {name} has {since}")


def _good(result: dict[str, Any]) -> bool:
    return result["status"] in ("changed", "unchanged") and result["error"] is None


def _kill(run: Run) -> int:
    run.kill()
    return -signal.SIGKILL


def _stop_once(run: Run) -> int:
    run.interrupt()
    return 128 + signal.SIGINT


def _stop_twice(run: Run) -> int:
    run.interrupt()
    time.sleep(1)
    run.interrupt()
    return 128 + signal.SIGINT


assert set(LIES) == set(simulated.KINDS) - {simulated.HONEST}
