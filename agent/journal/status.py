"""How what is ours on the node stands: its files, what waits, when it was applied and pulled.

Reads a handful of files and runs nothing, so that the resident agent answers without a process of
its own for it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Container, Iterable
from functools import lru_cache
from typing import Any

from agent.journal.ledger import Store, digest_of
from agent.journal.lock import holder
from agent.journal.record import RecordedFile
from agent.node.disk import write_own
from agent.wire.faults import AgentError
from agent.wire.report import StatusEvent, Unproven

Read = Callable[[str], "bytes | None"]


def standing(store: Store, read: Read, waiting: Iterable[str]) -> StatusEvent:
    """``read`` gives a file's bytes by its path on the node, None if there is none; ``waiting``
    are the services whose restart was put off. Raises AgentError if our notes are damaged.

    An operation may end while this looks: files that it was at are told with its ``holder``.
    """
    at_work = holder(store)
    records = store.records()
    newest = next(records, None)
    ledgers = newest.ledger if newest else {}
    unproven, pulls = _unproven(store), _pulls(store)
    finished = itertools.chain([newest] if newest else [], records)
    event = StatusEvent(
        trusted=tuple(
            {
                **_trusted(name, owned, read),
                "unproven": unproven.get(name, []),
                "pulled": pulls.get(name),
            }
            for name, owned in ledgers.items()
            if not all(file.kept for file in owned)
        ),
        waiting=tuple(waiting),
        interrupted=_cut_off(store),
        holder=holder(store),
        applied=next((one.time for one in finished if one.operation == "apply"), None),
        pulled=_pulled(store),
        kept=tuple(file.path for owned in ledgers.values() for file in owned if file.kept),
        time=int(time.time()),
    )
    return event if event.holder is not None else event._replace(holder=at_work)


def _cut_off(store: Store) -> str | None:
    """The operation that an agent left half-way, which is not the one that an agent is at now.

    It may end between two of these looks: what counts stood both before and after a free lock.
    """
    pending = store.pending()
    if pending is None or holder(store) is not None or store.pending() != pending:
        return None
    return str(pending["operation"])


def note_pull(store: Store, registry: str, image: str, seconds: float) -> None:
    """Keeps when the last proving pull was made, of each registry too; one not kept fails none."""
    now = int(time.time())
    each = {**_pulls(store), registry: {"seconds": seconds, "time": now}}
    told = {
        "registry": registry, "image": image, "seconds": seconds, "time": now, "by_registry": each,
    }  # fmt: skip
    with contextlib.suppress(OSError, AgentError):
        write_own(store.folder / "pull.json", json.dumps(told).encode(), 0o600)


def note_unproven(store: Store, registry: str, unproven: Iterable[Unproven], anew: bool) -> None:
    """Keeps which parts of a registry's trust no proof shows, for a status to tell.

    ``anew``: pulls were to be made. One without an image takes no earlier proof away, so it is kept
    only where nothing is known yet.
    """
    known = _unproven(store)
    told = [one._asdict() for one in unproven]
    if known.get(registry, told if not told else None) == told or (registry in known and not anew):
        return
    with contextlib.suppress(OSError, AgentError):
        content = json.dumps({**known, registry: told}).encode()
        write_own(store.folder / "unproven.json", content, 0o600)


def note_proven(store: Store, registry: str, parts: Container[str]) -> None:
    """Takes these parts out of what no proof shows: a proof of another's, the kubelet's, did."""
    known = _unproven(store).get(registry, [])
    left = [Unproven(**one) for one in known if one["part"] not in parts]
    note_unproven(store, registry, left, anew=True)


def _unproven(store: Store) -> dict[str, list[dict[str, str]]]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        told = json.loads((store.folder / "unproven.json").read_bytes())
        return {
            str(name): [{key: str(one[key]) for key in ("part", "because")} for one in parts]
            for name, parts in told.items()
        }
    return {}


def _pulled(store: Store) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((store.folder / "pull.json").read_bytes())
        return {name: told[name] for name in ("registry", "image", "seconds", "time")}
    return None


def _pulls(store: Store) -> dict[str, dict[str, float]]:
    """The last proving pull of each registry; of an agent of before, of the last one alone."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        told = json.loads((store.folder / "pull.json").read_bytes())
        each = told.get("by_registry", {told["registry"]: told})
        return {
            str(name): {"seconds": float(one["seconds"]), "time": int(one["time"])}
            for name, one in each.items()
        }
    return {}


def _trusted(registry: str, files: Iterable[RecordedFile], read: Read) -> dict[str, Any]:
    found = [(file, read(file.path)) for file in files]
    cas = (now for file, now in found if not file.path.endswith(".cert"))  # a client's, that one
    copies = [ends(one) for one in cas if one and b"-----BEGIN CERTIFICATE" in one]
    known = [one for one in copies if one is not None]
    return {
        "registry": registry,
        "files": [{"path": file.path, "state": _state(file.after, now)} for file, now in found],
        # The first of all copies; one that is spoilt makes it unknown.
        "ca_ends": min(known) if known and len(known) == len(copies) else None,
    }


def _state(left: str | None, content: bytes | None) -> str:
    """``left``: the SHA-256 of the file as we left it; None if we took it away."""
    if content is None:
        return "as-left" if left is None else "missing"
    return "as-left" if digest_of(content) == left else "changed"


@lru_cache(maxsize=8)
def ends(pem: bytes) -> int | None:
    """When the last of the CA certificates in ``pem`` ends (seconds since 1970); None for none.

    Source: https://docs.python.org/3/library/ssl.html#ssl.SSLContext.get_ca_certs
    """
    if not pem:
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(ssl.SSLError, UnicodeDecodeError):
        context.load_verify_locations(cadata=pem.decode("ascii"))
    times = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    return max(times, default=None)
