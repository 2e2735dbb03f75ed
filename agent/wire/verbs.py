"""The verbs: what an agent is asked to do, a row each; everything that offers one reads this table.

The agent's command line, its routes and their OpenAPI document, what HTTPS carries and what the
operator's fleet calls come from here. The engine's method of a verb's name carries it out.
"""

from __future__ import annotations

from typing import NamedTuple

# What the node is held to after a verb: the plan it was sent, or nothing for that registry.
HOLDS = "holds"
LETS_GO = "lets-go"


class Verb(NamedTuple):
    """One verb.

    ``name``: on the agent's command line and in its route; ``task``: what users call it;
    ``title``: what the progress says. ``summary``: one sentence, for the OpenAPI document.
    """

    name: str
    summary: str
    task: str
    title: str
    # What is sent: a plan, and what has to be in it.
    plan: bool = False
    ca: bool = False
    address: bool = False
    pull: bool = False
    # Whether it changes the node, and so has a dry run; else whether its answer is what counts.
    changes: bool = False
    looks: bool = False
    differs: bool = False  # its diffs are to be read, not counted
    # Whether it needs root, and the parts of a node for which it does not.
    root: bool = True
    rootless_parts: tuple[str, ...] = ()
    https: bool = False
    viewer: bool = False  # a viewer's certificate opens it as well
    # Whether it is about the agent that stays: installed, replaced or taken away.
    resident: bool = False
    then: str = ""
    flags: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        return "POST" if self.plan else "GET"

    @property
    def path(self) -> str:
        return f"/v1/{self.name}"


VERBS = (
    Verb("apply", "Bring the node into the plan's state.", "trust", "trust",
         plan=True, ca=True, address=True, pull=True, changes=True, https=True, then=HOLDS,
         flags=("--stay",)),
    Verb("untrust", "Take the trust away again.", "untrust", "untrust",
         plan=True, changes=True, https=True, then=LETS_GO),
    Verb("undo", "Take back the last apply.", "undo", "undo",
         plan=True, changes=True, then=LETS_GO),
    Verb("verify", "Prove the trust as it stands.", "verify", "verify",
         plan=True, ca=True, pull=True, https=True,
         rootless_parts=("hosts", "docker")),  # Docker's socket is its group's, CRI's are root's
    Verb("diff", "What differs from the plan, file by file.", "diff", "compare",
         plan=True, ca=True, address=True, looks=True, differs=True, root=False),
    Verb("explain", "Which strategies there are, and which is taken.", "explain", "explain",
         plan=True, address=True, looks=True, root=False),
    Verb("status", "What of ours is here, drift, and the agent itself.", "status", "status",
         looks=True, https=True, viewer=True),
    Verb("facts", "Which runtimes are here.", "facts", "facts",
         looks=True, root=False, https=True),
    Verb("history", "The finished transactions, newest first.", "history", "history",
         looks=True, https=True),
    Verb("images", "Which images the runtimes have.", "images", "list the images of",
         looks=True, https=True),
    Verb("recover", "Roll back what an interrupted run left.", "recover", "recover",
         flags=("--boot", "--stop-running")),
    Verb("reside", "Make the agent stay.", "adopt", "adopt", resident=True),
    Verb("upgrade", "Put this archive in the place of the agent that stays.", "upgrade", "upgrade",
         resident=True, flags=("--downgrade",)),
    Verb("release", "Take the agent that stays away.", "release", "release", resident=True),
)  # fmt: skip


class Call(NamedTuple):
    """A verb with its flags, as it is asked for."""

    verb: Verb
    dry_run: bool = False
    flags: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The agent's command line."""
        return (self.verb.name, *(("--dry-run",) if self.dry_run else ()), *self.flags)

    @property
    def target(self) -> str:
        """The request's target over HTTPS (RFC 9112, section 3.2)."""
        return self.verb.path + ("?dry_run=true" if self.dry_run else "")


_BY_NAME = {verb.name: verb for verb in VERBS}
_BY_TASK = {verb.task: verb for verb in VERBS}


def named(name: str) -> Verb:
    """Find a verb by its name on the agent's command line. Raises KeyError."""
    return _BY_NAME[name]


def asked(task: str) -> Verb:
    """Find a verb by what users call it. Raises KeyError."""
    return _BY_TASK[task]
