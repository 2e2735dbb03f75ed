"""The states a containerd's configuration can be in, and what is done in each: one table.

``docs/containerd.md`` shows the same table; a test holds the two equal. Every row was measured on
real nodes, as told there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agent.runtimes.containerd.state import CriState


class Condition(NamedTuple):
    """Something a row asks of a state, and how to say whether it is so."""

    holds: Callable[[CriState], bool]
    yes: str
    no: str


class Strategy(NamedTuple):
    """A row: when all its conditions hold, what is done, or why it is refused.

    ``edits`` tells that containerd's own configuration is changed, which takes a restart.
    """

    name: str
    when: tuple[Condition, ...]
    does: str
    edits: bool = False
    refusal: tuple[str, str] | None = None

    def applies(self, state: CriState) -> bool:
        return all(condition.holds(state) for condition in self.when)


class StrategyRow(NamedTuple):
    """What became of one row: whether it applies, and why or why not."""

    name: str
    applies: bool
    why: str


TOO_OLD = Condition(
    lambda s: (s.major, s.minor) < (1, 5),
    "this containerd is older than 1.5",
    "this containerd is 1.5 or newer",
)
SET = Condition(
    lambda s: bool(s.config_path),
    "`config_path` is set, or in force unsaid (2.2.2 and newer)",
    "`config_path` is not set",
)
SEVERAL = Condition(
    lambda s: ":" in s.config_path,
    "`config_path` names several folders",
    "`config_path` does not name several folders",
)
TRANSFER = Condition(
    lambda s: s.transfer,
    "CRI pulls through the transfer service, which takes `config_path` for one folder",
    "CRI pulls with its own client, which reads several folders",
)
ONE = Condition(lambda s: s.major < 2, "containerd 1.x", "containerd 2 or newer")
TWO = Condition(lambda s: s.major >= 2, "containerd 2 or newer", "containerd 1.x")
LEGACY = Condition(
    lambda s: s.mirrors or s.configs_tls,
    "`registry.mirrors` or `registry.configs.*.tls` is set",
    "neither `registry.mirrors` nor `registry.configs.*.tls` is set",
)
DEADLY = Condition(
    lambda s: s.mirrors or (s.configs_tls and s.major < 2),
    "`registry.mirrors`, or on 1.x `registry.configs.*.tls`, is set beside it",
    "nothing is set beside it that keeps CRI from loading",
)

STRATEGIES: tuple[Strategy, ...] = (
    Strategy(
        "too-old",
        (TOO_OLD,),
        "refused: such a containerd does not read folders of registries",
        refusal=("containerd-too-old", "install containerd 1.6 or newer, then run again"),
    ),
    Strategy(
        "cri-down-already",
        (SET, DEADLY),
        "refused: with both, CRI does not load, so this node was down before we came",
        refusal=(
            "cri-down-already",
            "take the one or the other out of config.toml, restart containerd, then run again",
        ),
    ),
    Strategy(
        "folders-ignored",
        (SEVERAL, TRANSFER),
        "`config_path` is set to the first of them, and what the others give is said there too",
        edits=True,
    ),
    Strategy(
        "folder",
        (SET,),
        "files in the registry's folder: the one that is there, else a new one under the first",
    ),
    Strategy(
        "move-legacy",
        (LEGACY, TWO),
        "`config_path` is set; mirrors and the CAs of others move to hosts.toml, logins stay",
        edits=True,
    ),
    Strategy(
        "classic-entry",
        (LEGACY, ONE),
        "`registry.configs.HOST.tls.ca_file` beside them: a `config_path` would keep CRI from "
        "loading",
        edits=True,
    ),
    Strategy(
        "set-config-path",
        (),
        "`config_path` is set to /etc/containerd/certs.d, files in the registry's folder there",
        edits=True,
    ),
)


def choose(state: CriState) -> Strategy:
    """The first row that applies."""
    return next(row for row in STRATEGIES if row.applies(state))


def rows(state: CriState) -> tuple[StrategyRow, ...]:
    """Every row of the table, and why it was taken or not."""
    chosen = choose(state)
    return tuple(_row(strategy, state, chosen) for strategy in STRATEGIES)


def _row(strategy: Strategy, state: CriState, chosen: Strategy) -> StrategyRow:
    failed = next((one for one in strategy.when if not one.holds(state)), None)
    if failed is not None:
        return StrategyRow(strategy.name, False, failed.no)
    if strategy is not chosen:
        return StrategyRow(strategy.name, False, f"{chosen.name} comes first")
    reasons = "; ".join(one.yes for one in strategy.when) or "no row before it applies"
    return StrategyRow(strategy.name, True, f"{reasons}: {strategy.does}")
