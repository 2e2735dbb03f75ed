"""One operation, as values: a verb, what the user wishes of it, and the plan that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent.wire.verbs import Call, Verb
from moorage.errors import Refused
from moorage.fleet.report import FleetReport
from moorage.fleet.rollout import plans
from moorage.fleet.state.host import runtime_and_state
from moorage.registry.logins import client_pair, external

if TYPE_CHECKING:
    from agent.wire.client_pair import ClientPair
    from agent.wire.plan import Plan, Verify
    from agent.wire.report import HostResult
    from moorage.fleet.rollout.rollout import HostOutcome
    from moorage.settings import Settings


@dataclass(frozen=True)
class Wish:
    """What the user wishes of a verb, beside the hosts; each verb heeds what it knows.

    ``image``: whose pull proves it (None: the demo's); ``verify`` False: no pull. ``restart``
    False: a restart that is needed waits, and is named. ``replace``: a hosts entry of somebody
    else's is replaced. ``port``: where an agent listens (None: ``nodes.agent_port``), ``loopback``:
    for the node itself alone. ``downgrade``: an agent that is newer is replaced, too. ``proving``:
    the password of the login by which a CA is proved before it is served.
    """

    dry_run: bool = False
    image: str | None = None
    verify: bool = True
    restart: bool = True
    replace: bool = False
    port: int | None = None
    loopback: bool = False
    downgrade: bool = False
    proving: str = field(default="", repr=False)


@dataclass(frozen=True)
class Reach:
    """How to get in: learn unknown host keys first; know sudo's password."""

    learn_host_keys: bool = False
    sudo_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Operation:
    """What the agent is to do on every host."""

    verb: Verb
    wish: Wish = field(default_factory=Wish)
    ca: str | None = None
    # What nodes show to a registry that asks its clients for a certificate.
    client: ClientPair | None = None
    pull: Verify | None = None
    # What makes an undo that is asked for again one and the same.
    run: str = ""
    # What runs on a node may be stopped: see agreement.
    stop_running: bool = False
    # The agent stays after it, where it does not yet.
    stay: bool = False

    @classmethod
    def of(cls, settings: Settings, verb: Verb, wish: Wish) -> Operation:
        """What ``verb`` needs beside the wish. Raises Refused if the CA or the login is missing, or
        the client's pair cannot be used."""
        import secrets

        authority = None
        if verb.plan:
            authority = ca(settings) if verb.ca else ca_if_any(settings)
        return cls(
            verb,
            wish,
            ca=authority,
            client=client_pair.read(settings) if verb.plan and verb.ca else None,
            pull=proof(settings, wish.image) if verb.pull and wish.verify else None,
            run=secrets.token_hex(16) if verb.name == "undo" else "",
            stay="--stay" in verb.flags and settings.nodes.resident and not wish.dry_run,
        )

    @property
    def title(self) -> str:
        return f"would {self.verb.title}" if self.wish.dry_run else self.verb.title

    @property
    def call(self) -> Call:
        """What the agent is asked, by any way."""
        agreed = self.stop_running and "--stop-running" in self.verb.flags
        return Call(self.verb, self.wish.dry_run, ("--stop-running",) if agreed else ())

    @property
    def shows_diffs(self) -> bool:
        """Whether what it tells of changes is to be read, not only counted."""
        return self.wish.dry_run or self.verb.differs

    def agreed(self) -> Operation:
        """The same once the user has agreed to what it stops."""
        return replace(self, stop_running=True)

    def renewed(self, settings: Settings) -> Operation:
        """The same with the login that nodes have now. Raises Refused if there is none."""
        if self.pull is None or self.wish.proving:
            return self
        return replace(self, pull=proof(settings, self.wish.image))

    def plan(self, settings: Settings, address: str | None) -> Plan:
        return plans.make(
            settings,
            ca=self.ca,
            client=self.client,
            address=address,
            verify=self._pull(address),
            restart=self.wish.restart,
            replace=self.wish.replace,
            run=self.run,
            stop_running=self.stop_running,
        )

    def _pull(self, address: str | None) -> Verify | None:
        if self.pull is None or not self.wish.proving:
            return self.pull
        return proving(self.pull, address or "", self.wish.proving)


def proving(pull: Verify, address: str, password: str) -> Verify:
    """The same pull, which the front sends on to where it shows the CA to come.

    ``address``: the registry's, as the node knows it.
    """
    from moorage.registry.front.configuration import proving_name

    return replace(pull, username=proving_name(address), password=password)


def ca(settings: Settings) -> str:
    """The CA's PEM. Raises Refused if none is issued."""
    from moorage.pki import registry as pki

    return pki.ca_pem(settings)


def ca_if_any(settings: Settings) -> str | None:
    """The CA's PEM where one is issued: a look, and taking trust away, do without."""
    try:
        return ca(settings)
    except Refused:
        return None


def proof(settings: Settings, image: str | None) -> Verify:
    """The pull that proves it, with the login that nodes have. Raises Refused if there is none.

    A registry of somebody else's may give its images without a login; it has no demo image of ours.
    """
    from agent.wire.plan import Verify
    from moorage.registry import handed
    from moorage.settings import ImageSettings

    if settings.registry.external and image is None and settings.image == ImageSettings():
        name = settings.registry_name
        raise Refused(
            "no-proof-image",
            f"no image of {name} is named whose pull would prove the trust",
            cause="only a registry that Moorage runs has the demo image",
            cure=f"set image.name and image.tag in invoke.yaml to one that {name} has; for "
            f"nodes.trust and nodes.verify --image={name}/PROJECT/NAME:TAG does, too",
        )
    login = handed.to_nodes(settings)
    reference = image or settings.image_reference
    return Verify(reference, *((login.user, login.password) if login else ()))


def advised(settings: Settings, result: HostResult) -> HostResult:
    """With a cure that works for a registry of somebody else's; agents know of ours alone."""
    if result.error is None:
        return result
    fault = result.error
    cure = external.cure(settings, fault.code, fault.cure)
    return replace(result, error=replace(fault, cure=cure))


def report_of(
    outcomes: Sequence[HostOutcome], operation: Operation, stopped: int, halted: str
) -> FleetReport:
    """What the hosts reported, gathered. ``stopped``: the number of a signal, 0 for none."""
    runtimes: dict[str, str] = {}
    diffs: dict[str, dict[str, str]] = {}
    states: dict[str, dict[str, Any]] = {}
    histories: dict[str, list[dict[str, Any]]] = {}
    findings: dict[str, list[dict[str, Any]]] = {}
    images: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        host = outcome.result.host
        runtime, state = runtime_and_state(outcome.events)
        if runtime:
            runtimes[host] = runtime
        if state:
            states[host] = state
        for event in outcome.events:
            if event["event"] == "change" and operation.shows_diffs:
                diffs.setdefault(host, {})[str(event["path"])] = _with_host(host, event)
            elif event["event"] == "history":
                histories[host] = list(event["records"])
            elif event["event"] == "explain":
                findings[host] = list(event["findings"])
            elif event["event"] == "images":
                images[host] = dict(event)
    report = FleetReport(
        hosts=tuple(outcome.result for outcome in outcomes),
        runtimes=runtimes,
        states=states,
        histories=histories,
        findings=findings,
        images=images,
        dry_run=operation.wish.dry_run,
        interrupted=stopped,
        halted=halted,
    )
    if not operation.shows_diffs:
        return report
    return replace(report, diffs={host.host: diffs.get(host.host, {}) for host in report.hosts})


def _with_host(host: str, event: dict[str, Any]) -> str:
    """The diff with the host before its paths: many hosts' diffs are read one below the other."""
    path = str(event["path"])
    head, hunks, body = str(event["diff"]).partition("@@")
    return head.replace(path, f"{host}:{path}") + hunks + body
