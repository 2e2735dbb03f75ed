"""Trust on nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.fleet.operation import Reach
    from moorage.fleet.report import FleetReport

_REACH = {
    "hosts": "nodes, as a,user@b,c:2222,[fd00::3] (else nodes.hosts, else the lab's)",
    "learn_host_keys": "show unknown host keys, ask, and add them to known_hosts",
    "ask_sudo_password": "ask for sudo's password (without a terminal: a line on stdin)",
}
_IMAGE = {"image": "the image whose pull proves it (else the demo image)"}
_CHANGE = {
    "dry_run": "print every change as a diff and change nothing",
    "no_restart": "prepare everything; say which restart waits",
}


@command(
    help={
        **_REACH,
        **_IMAGE,
        **_CHANGE,
        "no_verify": "set trust up without the pull that proves it",
        "replace": "replace a hosts entry that gives the registry's name another address",
    }
)
def trust(
    run: Run,
    hosts: str | None = None,
    dry_run: bool = False,
    image: str | None = None,
    no_verify: bool = False,
    no_restart: bool = False,
    replace: bool = False,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Make nodes trust the registry over SSH, and prove it by a pull.

    Example: inv nodes.trust --hosts=node1,admin@node2 --learn-host-keys
    """
    from moorage import fleet

    del yes  # the voice knows it already
    report = fleet.trust(
        run.settings,
        run.ui,
        fleet.choose_hosts(run.settings, hosts),
        dry_run=dry_run,
        image=image,
        verify=not no_verify,
        restart=not no_restart,
        replace=replace,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report)


@command(help={**_REACH, **_CHANGE})
def untrust(
    run: Run,
    hosts: str | None = None,
    dry_run: bool = False,
    no_restart: bool = False,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Take the trust away from nodes again; their files are as they were before.

    Example: inv nodes.untrust --hosts=node1,node2 --dry-run
    """
    from moorage import fleet

    del yes
    report = fleet.untrust(
        run.settings,
        run.ui,
        fleet.choose_hosts(run.settings, hosts),
        dry_run=dry_run,
        restart=not no_restart,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report)


@command(help={**_REACH, **_IMAGE})
def verify(
    run: Run,
    hosts: str | None = None,
    image: str | None = None,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Prove that nodes trust the registry: TLS, CRI and a pull; exit code 1 where one does not.

    Example: inv nodes.verify --hosts=node1 --image=my.registry.io/serve_hostname:0.0.1
    """
    from moorage import fleet

    del yes
    report = fleet.verify(
        run.settings,
        run.ui,
        fleet.choose_hosts(run.settings, hosts),
        image=image,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report)


@command(help=_REACH)
def status(
    run: Run,
    hosts: str | None = None,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Say what nodes trust by our doing, and whether our files there are still as we left them.

    Example: inv nodes.status --hosts=node1,node2
    """
    from moorage import fleet

    del yes
    report = fleet.status(
        run.settings,
        run.ui,
        fleet.choose_hosts(run.settings, hosts),
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report, states=True)


def _reach(run: Run, learn_host_keys: bool, ask_sudo_password: bool) -> Reach:
    from moorage.fleet.operation import Reach

    password = run.ui.ask_secret("sudo password on the nodes") if ask_sudo_password else None
    return Reach(learn_host_keys=learn_host_keys, sudo_password=password)


def _told(run: Run, report: FleetReport, *, states: bool = False) -> dict[str, Any]:
    from moorage.fleet.report import show, show_states

    (show_states if states else show)(run.ui, report)
    document = report.to_json()
    if report.interrupted:
        run.ui.document(document)
        report.stop_if_interrupted()
    return document


namespace = Collection("nodes", trust, untrust, verify, status)
