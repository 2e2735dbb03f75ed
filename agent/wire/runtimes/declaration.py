"""What a runtime says of itself at the head of its file, ``agent/runtimes/<name>.py``. Literals.

``python -m agent.wire.regenerate`` collects the declarations into ``declared.py``, so that nothing
has to import a runtime's file to know that it is there.
"""

from __future__ import annotations

from typing import NamedTuple

# In the words of a program that pulls: the image; the file with the login, without which it reads
# Docker's; and a folder with a Dockerfile of nothing but the image.
IMAGE, AUTH, FROM = "{image}", "{auth}", "{from}"


class Kind(NamedTuple):
    """A product, and how a node shows that it has it.

    ``programs`` show by being there that it is installed; ``daemon`` is the one that runs.
    ``verbs``: what the daemon is told first if the same program is also a client. ``units`` are
    the names that packages and installers give, ``tells`` the variables that count.
    ``client`` is the program that asks the daemon for something, if that is another.
    """

    name: str
    programs: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    folder: str = ""
    daemon: str = ""
    verbs: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    client: str = ""


class Declaration(NamedTuple):
    """A runtime. ``name`` is the part that a plan names, and the file's name.

    ``place`` orders the parts; equal ones go by their names. ``usual``: most nodes have it, so its
    file is loaded with the agent; the others are loaded when they are first at work.
    ``kinds`` are the products it is about; none for one whose facts are a module of their own.

    ``socket`` is where it listens unless it is told otherwise, ``kubelet`` whether the kubelet
    pulls by it. ``readers`` are services that read what it looks after, beside the units of its
    kinds: a transaction that was cut off is rolled back before they start. ``writes`` are folders
    outside /etc that the agent's sandbox leaves open. ``containerds`` are words of a command line
    by which a containerd that it starts and configures is known.

    ``proves`` is the kind of its proof (:class:`agent.formats.proposal.Proof`), ``by_hand`` what a
    person types to pull as it does, ``certificates`` the folder where it looks for CAs.
    """

    name: str
    place: int = 100
    usual: bool = False
    kinds: tuple[Kind, ...] = ()
    socket: str = ""
    kubelet: bool = False
    readers: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    containerds: tuple[str, ...] = ()
    proves: str = "cri"
    by_hand: str = ""
    certificates: str = ""
    # Collected, not declared: which of the optional decisions its file has.
    decides: tuple[str, ...] = ()

    @property
    def services(self) -> tuple[str, ...]:
        """The services that read, as they start, what this runtime's part looks after."""
        return (*self.readers, *(unit for kind in self.kinds for unit in kind.units))


# The decisions that a runtime's file may have or not; agent/runtimes/table.py says what they mean.
OPTIONAL = (
    "there", "restarts", "proofs", "further", "doubts", "shared", "left", "kept", "forgotten",
    "judge",
)  # fmt: skip
