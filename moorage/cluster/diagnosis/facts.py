"""What the nodes' own agents say, if they can be asked over SSH: evidence beside the API's.

Asked only about nodes that the runtime's words already accuse, and only where the way to them is
known: the lab's, or hosts named in the settings. Nobody waits for nodes that nothing is known of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError
from moorage.output import Update
from moorage.ui import UI

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings


class Silent(UI):
    """A question in passing needs no voice."""

    def say(self, text: str) -> None:
        del text

    note = warn = say

    @contextmanager
    def progress(self, text: str) -> Iterator[Update]:
        del text
        yield lambda **_: None


def trusting(api: Api, settings: Settings, names: set[str]) -> dict[str, str]:
    """Of these nodes, those where the trust's files are as our agent left them, in words."""
    from moorage.cluster.diagnosis.nodes import addresses, hosts_by_node
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.fleet.ssh.routing import lab_hosts

    if not names:
        return {}
    lab = lab_hosts(settings)
    known = {*settings.nodes.hosts, *(lab.in_order if lab is not None else ())}
    try:
        wanted = {
            host: node
            for node, host in hosts_by_node(settings, addresses(api)).items()
            if node in names and (host in known or node in known)
        }
        if not wanted:
            return {}
        report = Fleet(settings, Silent()).run("status", tuple(wanted))
    except MoorageError:
        return {}
    found = {}
    for host, state in report.states.items():
        words = _words(state, settings.registry_name)
        if host in wanted and words:
            found[wanted[host]] = words
    return found


def _words(state: Mapping[str, Any], registry: str) -> str:
    """Pure. "" if the CA is not in place, so that its absence explains everything."""
    for one in state.get("trusted") or ():
        if one.get("registry") != registry:
            continue
        states = {file["path"]: file["state"] for file in one.get("files") or ()}
        certificates = [state for path, state in states.items() if path.endswith(".crt")]
        if not certificates or any(state != "as-left" for state in certificates):
            return ""
        changed = [path for path, state in states.items() if state != "as-left"]
        if changed:
            return f"the CA is as our agent left it, but {', '.join(changed)} was changed since"
        return f"all {len(states)} files are as our agent left them"
    return ""
