"""The alert rules as rows: what is asked, for how long it has to hold, and what to do then. Pure.

Every alert says what the next command is. With two scrapes a minute, one that is held for half a
minute fires at the second scrape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.monitoring.prometheus import HEAD, INTERVAL
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.settings import Settings

WARNING, CRITICAL = "warning", "critical"
JOBS = '{job=~"moorage-(nodes|pods)"}'


class Alert(NamedTuple):
    """``held``: how long ``expression`` has to be true before the alert fires, "" for at once."""

    name: str
    expression: str
    held: str
    severity: str
    summary: str
    cure: str


def _ends(metric: str, days: int) -> str:
    return f"{metric} - time() < {days} * 86400"


def _since(metric: str) -> str:
    return f"time() - {metric}"


_BACKUP = '{part="backup"}'
# node_exporter's own, which it shows beside the file that has our names. A file system that is
# mounted twice at one place has two of them.
_DISK = "min by (instance, mountpoint) (node_filesystem_avail_bytes / node_filesystem_size_bytes)"
_LEFT = "{{ $value | humanizeDuration }}"
_CERTIFICATE = "{{ $labels.certificate }}"
_NODE = "{{ $labels.node }}"
_REGISTRY = "{{ $labels.registry }}"
_STATUS = f"inv nodes.status --hosts={_NODE}"

ALERTS = (
    Alert(
        "MoorageAgentSilent",
        f"up{JOBS} == 0",
        INTERVAL,
        CRITICAL,
        f"The agent on {_NODE} does not answer: the node is down, or its agent is",
        _STATUS,
    ),
    Alert(
        "MoorageNodeNotTrusted",
        "moorage_registry_trusted == 0",
        "2m",
        CRITICAL,
        f"{_NODE} does not trust {_REGISTRY} as it was left, or no proof shows that it does",
        f"{_STATUS}, then inv nodes.verify --hosts={_NODE}",
    ),
    Alert(
        "MoorageDriftGivenUp",
        "moorage_drift_state == 3",
        "",
        CRITICAL,
        f"The agent on {_NODE} no longer puts back what others undo again and again",
        f"{_STATUS} names the files; find out who writes them, then inv nodes.trust "
        f"--hosts={_NODE}",
    ),
    Alert(
        "MoorageDriftNotPutBack",
        "moorage_drift_state == 2",
        "5m",
        WARNING,
        f"The agent on {_NODE} cannot put back what drifted",
        _STATUS,
    ),
    Alert(
        "MoorageOperationCutOff",
        "moorage_interrupted == 1",
        "2m",
        WARNING,
        f"An operation on {_NODE} was cut off",
        f"inv nodes.recover --hosts={_NODE}",
    ),
    Alert(
        "MoorageStateDamaged",
        "moorage_state_damaged == 1",
        "2m",
        WARNING,
        f"The agent's notes on {_NODE} cannot be read",
        _STATUS,
    ),
    Alert(
        "MoorageRegistryOutOfReach",
        "moorage_registry_reachable == 0",
        "2m",
        CRITICAL,
        f"{_NODE} has no TLS connection to {_REGISTRY} with the CA that it trusts",
        f"inv registry.status, then inv nodes.verify --hosts={_NODE}",
    ),
    Alert(
        "MoorageRegistryDown",
        'up{job="moorage-registry"} == 0',
        INTERVAL,
        CRITICAL,
        "The registry's own metrics are silent",
        "inv registry.status",
    ),
    Alert(
        "MoorageRegistryCertificateEnds",
        _ends("min by (registry) (moorage_registry_certificate_end_timestamp_seconds)", 21),
        "",
        WARNING,
        f"The certificate of {_REGISTRY} ends in {_LEFT}",
        "inv certs.renew; one made elsewhere: put its successor into certs/ first",
    ),
    Alert(
        "MoorageCAEnds",
        _ends("min by (registry, node) (moorage_registry_ca_end_timestamp_seconds)", 30),
        "",
        CRITICAL,
        f"The CA of {_REGISTRY} on {_NODE} ends in {_LEFT}",
        f"{external.NEXT_CA} --hosts={_NODE}",
    ),
    Alert(
        "MoorageKeptCertificateEnds",
        _ends(
            "min by (registry, certificate) (moorage_kept_certificate_end_timestamp_seconds)", 21
        ),
        "",
        WARNING,
        f"On the machine of {_REGISTRY} the {_CERTIFICATE} ends in {_LEFT}",
        "inv doctor says what to type",
    ),
    Alert(
        "MoorageKeptCertificateInvalid",
        "moorage_kept_certificate_valid == 0",
        "2m",
        WARNING,
        f"On the machine of {_REGISTRY} the {_CERTIFICATE} is not valid, or cannot be read",
        "inv certs.show says why",
    ),
    Alert(
        "MoorageClockOff",
        "abs(timestamp(moorage_node_time_seconds) - moorage_node_time_seconds) > 300",
        "2m",
        WARNING,
        f"The clock of {_NODE} is {_LEFT} off: certificates begin and end at other times there",
        f"{_STATUS} says which way; timedatectl set-ntp true on the node",
    ),
    Alert(
        "MoorageAgentCertificateEnds",
        _ends("moorage_certificate_end_timestamp_seconds", 21),
        "",
        WARNING,
        f"The certificate of the agent on {_NODE} ends in {_LEFT}",
        f"{_STATUS} renews it",
    ),
    Alert(
        "MoorageDiskAlmostFull",
        "moorage_filesystem_avail_bytes / moorage_filesystem_size_bytes < 0.1",
        "2m",
        WARNING,
        f"{_NODE} has {{{{ $value | humanizePercentage }}}} free at {{{{ $labels.folder }}}}",
        "crictl rmi --prune on the node, or a larger disk: pulls fail when it is full",
    ),
    Alert(
        "MoorageCollectionFailed",
        'moorage_upkeep_failed{part="collect"} == 1',
        "",
        WARNING,
        f"The last collection of {_REGISTRY} failed: deleted images free no space",
        "inv registry.collect",
    ),
    Alert(
        "MoorageUpkeepFailed",
        'moorage_upkeep_failed{part!="collect"} == 1',
        "",
        WARNING,
        f"The last attempt at a part of {_REGISTRY}'s upkeep failed: {{{{ $labels.part }}}}",
        "inv upkeep",
    ),
    Alert(
        "MoorageUpkeepSilent",
        f"{_since('moorage_upkeep_last_run_timestamp_seconds')} > 2 * 86400",
        "",
        WARNING,
        f"Nothing has looked after {_REGISTRY} for {_LEFT}",
        "inv upkeep, then inv upkeep.install",
    ),
    Alert(
        "MoorageBackupOld",
        f"{_since('moorage_upkeep_last_success_timestamp_seconds' + _BACKUP)} > 2 * 86400",
        "",
        CRITICAL,
        f"The last good backup of {_REGISTRY} is {_LEFT} old",
        "inv upkeep, or inv registry.backup PLACE",
    ),
    Alert(
        "MoorageRegistryDiskAlmostFull",
        f"{_DISK} * on (instance, mountpoint) group_right moorage_registry_storage_info < 0.1",
        "2m",
        CRITICAL,
        f"{_REGISTRY} has {{{{ $value | humanizePercentage }}}} free at {{{{ $labels.folder }}}}",
        "inv images.prune --keep=10 --dry-run, then inv registry.collect: pushes fail when it is "
        "full",
    ),
)


def viewer_ends(until: int) -> Alert:
    """The end of the certificate that all this is scraped with; its holder cannot see it."""
    return Alert(
        "MoorageViewerCertificateEnds",
        _ends(f"vector({until})", 21),
        "",
        WARNING,
        f"The certificate that Prometheus scrapes agents with ends in {_LEFT}",
        "inv monitoring.setup",
    )


def document(settings: Settings, viewer_until: int) -> str:
    """The file of rules. ``viewer_until``: seconds since 1970."""
    import yaml

    alerts = (*ALERTS, viewer_ends(viewer_until))
    rules = [_rule(one, external.cure(settings, "", one.cure)) for one in alerts]
    groups = {"groups": [{"name": "moorage", "rules": rules}]}
    return HEAD + str(yaml.safe_dump(groups, sort_keys=False, width=1000))


def _rule(one: Alert, cure: str) -> dict[str, Any]:
    return {
        "alert": one.name,
        "expr": one.expression,
        **({"for": one.held} if one.held else {}),
        "labels": {"severity": one.severity},
        "annotations": {"summary": one.summary, "description": f"Next: {cure}"},
    }
