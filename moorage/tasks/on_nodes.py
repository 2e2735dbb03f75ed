"""What every command about nodes has in common: which of them, how to get in, what comes out.

A task decorated with :func:`on_nodes` receives a :class:`Nodes` after its :class:`Run` and names
only options of its own; the flags below are added to the signature that Invoke sees.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from invoke.tasks import Task

    from moorage.fleet.inventory import Target
    from moorage.fleet.report import FleetReport
    from moorage.fleet.report.announcement import Announced
    from moorage.fleet.rollout.fleet import Fleet, Pace
    from moorage.fleet.rollout.operation import Reach
    from moorage.output import Parts
    from moorage.settings import Settings

HELP = {
    "hosts": "nodes: a,user@b:2222,node[01-16].lan,@group, - for stdin "
    "(else nodes.hosts, else the lab's)",
    "inventory": "a file of hosts: one per line, ~/.ssh/config, or Ansible's (INI or YAML)",
    "from_cluster": "the nodes of the Kubernetes cluster, as its API server lists them",
    "selector": "with --from-cluster: only nodes with these labels, as role=edge",
    "kubeconfig": "with --from-cluster: as for k8s.nodes",
    "context": "with --from-cluster: as for k8s.nodes",
    "limit": "only these of them: hosts, ranges, @groups, patterns such as web*",
    "exclude": "all of them but these",
    "learn_host_keys": "show unknown host keys, ask, and add them to known_hosts",
    "ask_sudo_password": "ask for sudo's password (without a terminal: a line on stdin)",
    "json_lines": "one JSON line per event on stdout, the report last",
    "report": "write the report to PATH.json and PATH.html",
}

# Of those that change nodes in waves.
IN_WAVES = {
    "canary": "this many nodes go first and must all succeed (1 above 8 nodes)",
    "waves": "then growing shares or counts, the last 100% (10%,50%,100% above 8 nodes)",
    "max_failures": "stop when more nodes fail: a count or a share (10% above 8 nodes)",
    "resume": "go on with the last run that was stopped",
}


@dataclass(frozen=True)
class ClusterChoice:
    """``--from-cluster`` and what goes with it."""

    wanted: bool
    selector: str
    kubeconfig: str
    context: str


@dataclass(frozen=True)
class Waves:
    """What the user says of the waves; ``resume``: go on with the last run of this command."""

    canary: str | None
    waves: str | None
    max_failures: str | None
    resume: bool


@dataclass(frozen=True)
class Nodes:
    """The nodes of one command, as the user chose them, and how to get in."""

    run: Run
    hosts: str | None
    inventory: str
    limit: str
    exclude: str
    cluster: ClusterChoice
    learn_host_keys: bool
    ask_sudo_password: bool
    report: str
    command: str
    waves: Waves

    def chosen(self) -> tuple[Target, ...]:
        """The hosts that are meant: those named, the cluster's, the settings', or the lab's.

        Raises Refused for words that name none.
        """
        from moorage import fleet
        from moorage.fleet.inventory.selection import Selection

        self._refuse_contradictions()
        hosts = self.hosts
        if self.cluster.wanted:
            hosts = ",".join(self._from_cluster())
        selection = Selection(hosts, self.inventory, self.limit, self.exclude)
        return fleet.choose_hosts(self.run.settings, selection=selection, tell=self.run.ui.note)

    def any_chosen(self) -> tuple[Target, ...]:
        """The same; none if nobody named any, and neither the settings nor a lab has one."""
        from moorage.errors import Refused

        try:
            return self.chosen()
        except Refused as problem:
            if problem.code == "no-hosts" and not self.hosts:
                return ()
            raise

    def beside_pods(self) -> Nodes:
        """The same for a task that asks a cluster for its pods: --kubeconfig and --context name
        that cluster, wherever the nodes come from."""
        if self.cluster.wanted:
            return self
        return replace(self, cluster=replace(self.cluster, kubeconfig="", context=""))

    def or_at(self, host: str | None) -> Nodes:
        """The same with another word for ``--hosts``. Raises Refused if both are used."""
        from moorage.errors import Refused

        if host is not None and self.hosts is not None:
            raise Refused(
                "wrong-use",
                "--host and --hosts are the same",
                cause="each says which nodes are meant",
                cure="leave one of them out",
            )
        return self if host is None else replace(self, hosts=host)

    def named(self) -> tuple[Target, ...]:
        """Those that the user names in this very command: for what is not to befall all others."""
        from moorage.errors import Refused

        if not (self.hosts or self.inventory or self.cluster.wanted):
            raise Refused(
                "no-hosts",
                "no node was named",
                cause="this is not done to all nodes of the settings or the lab by default",
                cure=f"inv {self.command} --hosts=NODE",
            )
        return self.chosen()

    def to_change(self) -> tuple[Target, ...]:
        """Those of the run that is gone on with, else those chosen. Raises Refused."""
        from moorage import fleet

        if not self.waves.resume:
            return self.chosen()
        return fleet.unfinished(self.run.settings, self.command.removeprefix("nodes."))

    def pace(self) -> Pace:
        """In which waves. Raises Refused if the canary is not a number."""
        from moorage.errors import Refused
        from moorage.fleet.report.waves import Policy
        from moorage.fleet.rollout.fleet import Pace

        canary = self.waves.canary
        if canary is not None and not canary.isdecimal():
            raise Refused(
                "bad-waves",
                f"invalid --canary={canary}",
                cause="a number of nodes was expected",
                cure="write it as --canary=1, or 0 for none",
            )
        first = None if canary is None else int(canary)
        policy = Policy(first, self.waves.waves, self.waves.max_failures)
        return Pace(policy, self.waves.resume)

    def _refuse_contradictions(self) -> None:
        from moorage.errors import Refused

        cluster = self.cluster
        if cluster.wanted and (self.hosts is not None or self.inventory):
            raise Refused(
                "wrong-use",
                "--from-cluster excludes --hosts and --inventory",
                cause="each says which nodes are meant",
                cure="leave one of them out; --selector narrows --from-cluster down",
            )
        if not cluster.wanted and (cluster.selector or cluster.kubeconfig or cluster.context):
            raise Refused(
                "wrong-use",
                "--selector, --kubeconfig and --context go with --from-cluster",
                cause="without it, nodes come from --hosts, the settings or the lab",
                cure="add --from-cluster, or name the nodes: --hosts=node1,node2",
            )

    def _from_cluster(self) -> Iterable[str]:
        from moorage.cluster.diagnosis import nodes
        from moorage.cluster.login import access

        run, cluster = self.run, self.cluster
        api = access.connect(run.settings, kubeconfig=cluster.kubeconfig, context=cluster.context)
        run.ui.note(f"cluster: {api.where}")
        found = nodes.linux(nodes.addresses(api, cluster.selector))
        run.ui.note(nodes.described(found))
        hosts = nodes.hosts_by_node(run.settings, found)
        for line in nodes.sharing(found, hosts):
            run.ui.note(line)
        return hosts.values()

    def reach(self) -> Reach:
        """How to get in; asks for sudo's password where that was wished."""
        from moorage.fleet.rollout.operation import Reach

        password = None
        if self.ask_sudo_password:
            password = self.run.ui.ask_secret("sudo password on the nodes")
        return Reach(learn_host_keys=self.learn_host_keys, sudo_password=password)

    def fleet(self, settings: Settings | None = None) -> Fleet:
        """The fleet, as this command gets in. ``settings``: in the place of the run's."""
        from moorage.fleet.rollout.fleet import Fleet

        return Fleet(settings or self.run.settings, self.run.ui, self.reach())

    def do(
        self,
        *,
        settings: Settings | None = None,
        show: Callable[[FleetReport], Parts] | None = None,
        **wish: Any,
    ) -> dict[str, Any]:
        """Carries the command's verb out on its nodes, and shows what came of it.

        ``wish``: the fields of a Wish. Raises Refused.
        """
        from moorage.fleet.report import announcement
        from moorage.fleet.rollout.operation import Wish

        hosts = self.to_change()
        fleet = self.fleet(settings)
        task = self.command.removeprefix("nodes.")
        change = announcement.change_of(task, settings or self.run.settings, Wish(**wish))
        if change is not None:
            self.agree([host.name for host in hosts], change)
        return self.told(fleet.run(task, hosts, Wish(**wish), self.pace()), show=show)

    def agree(self, hosts: Sequence[str], change: Announced) -> None:
        """Asks a person at a terminal; elsewhere, and after an agreement beforehand, it goes on.

        Raises Refused (``not-confirmed``) after a no; no node was touched then.
        """
        from moorage.fleet.report import agreement, announcement

        settings, ui = self.run.settings, self.run.ui
        if hosts and ui.interactive and not agreement.given(settings, yes=ui.yes):
            actions = announcement.actions(settings.registry_name, hosts, change)
            ui.confirm(actions, question="Change these nodes?")

    def told(
        self, report: FleetReport, *, show: Callable[[FleetReport], Parts] | None = None
    ) -> dict[str, Any]:
        """Shows the report, writes it where that was wished, and gives its document.

        Raises Refused if nothing but an agreement was missing.
        """
        from moorage.fleet.report import agreement, parts

        ui = self.run.ui
        ui.present((show or parts)(report))
        if self.report:
            from moorage.files import user_path
            from moorage.fleet.report import report_file

            for path in report_file.write(report, self.command, user_path(self.report)):
                ui.note(f"wrote {path}")
        document = report.to_json()
        if report.interrupted:
            ui.document(document)
            report.stop_if_interrupted()
        if (refusal := agreement.refusal(report)) is not None:
            ui.document({**document, "error": refusal.to_json()})
            raise refusal
        return document


def on_nodes(
    *, help: dict[str, str] | None = None, in_waves: bool = False, **task_options: Any
) -> Callable[[Callable[..., Any]], Task[Any]]:
    """Decorator: ``command`` with the options above. ``help``: the texts of the task's own.

    ``in_waves``: with those of a rollout too.
    """

    def decorate(body: Callable[..., Any]) -> Task[Any]:
        @functools.wraps(body)
        def entry(
            run: Run,
            hosts: str | None = None,
            inventory: str = "",
            limit: str = "",
            exclude: str = "",
            from_cluster: bool = False,
            selector: str = "",
            kubeconfig: str = "",
            context: str = "",
            learn_host_keys: bool = False,
            ask_sudo_password: bool = False,
            report: str = "",
            json_lines: bool = False,
            yes: bool = False,
            canary: str | None = None,
            waves: str | None = None,
            max_failures: str | None = None,
            resume: bool = False,
            **own: Any,
        ) -> Any:
            del yes, json_lines  # the voice knows them already
            if report:
                from moorage.files import user_path
                from moorage.fleet.report import report_file

                report_file.require(user_path(report))
            nodes = Nodes(
                run,
                hosts,
                inventory,
                limit,
                exclude,
                ClusterChoice(from_cluster, selector, kubeconfig, context),
                learn_host_keys,
                ask_sudo_password,
                report,
                f"nodes.{body.__name__}",
                Waves(canary, waves, max_failures, resume),
            )
            return body(run, nodes, **own)

        shared = inspect.signature(entry, follow_wrapped=False).parameters.values()
        unused = () if in_waves else IN_WAVES
        run, *common = (
            one for one in shared if one.kind is not one.VAR_KEYWORD and one.name not in unused
        )
        _, _, *own = inspect.signature(body).parameters.values()
        hosts, *rest = common
        needed = [one for one in own if one.default is one.empty]
        options = [one for one in own if one.default is not one.empty]
        entry.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [run, *needed, hosts, *options, *rest]
        )
        texts = {**HELP, **(IN_WAVES if in_waves else {}), **(help or {})}
        return command(help=texts, **task_options)(entry)

    return decorate
