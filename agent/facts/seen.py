"""Facts as a value: what a decision asked of the node, with the answers, and no way to the node.

Which file is read next depends on what the last one says, so nobody can list what a decision needs
before it is made. It is made once on facts that note what they are asked (:meth:`Noting.facts`),
and from then on with the answers alone (:meth:`Noting.seen`): on any machine, at any later time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agent.facts import Facts, Names
from agent.node.tree import File, Tree

Answer = TypeVar("Answer")
Answers = dict[tuple[str, str], Any]


class Noting:
    """Notes each answer that ``facts`` give."""

    def __init__(self, facts: Facts) -> None:
        self._answers: Answers = {}
        tree, names = facts.tree, facts.names
        self.facts = facts._replace(
            tree=_Files(self._answers, tree), names=_Addresses(self._answers, names)
        )

    def seen(self) -> Facts:
        """The facts with the answers so far; another question is a LookupError."""
        answers = dict(self._answers)
        return self.facts._replace(tree=_Files(answers), names=_Addresses(answers))


def _answer(
    answers: Answers, question: Callable[[Any, str], Answer], about: str, asked: object | None
) -> Answer:
    """An answer that is not there yet is asked for, if there is somebody to ask."""
    key = question.__name__, about
    if key not in answers:
        if asked is None:
            raise LookupError(f"{' '.join(key)}: it was not looked at")
        answers[key] = getattr(asked, question.__name__)(about)
    found: Answer = answers[key]
    return found


class _Files(Tree):
    """The answers of a tree: all so far, and further ones as long as it has the ``tree``."""

    def __init__(self, answers: Answers, tree: Tree | None = None) -> None:
        self._answers = answers
        self._tree = tree

    def read(self, path: str) -> File:
        return _answer(self._answers, Tree.read, path, self._tree)

    def names(self, folder: str) -> tuple[str, ...]:
        return _answer(self._answers, Tree.names, folder, self._tree)

    def exists(self, path: str) -> bool:
        return _answer(self._answers, Tree.exists, path, self._tree)

    def written(self, path: str) -> float | None:
        return _answer(self._answers, Tree.written, path, self._tree)

    def changed(self, path: str) -> int:
        return _answer(self._answers, Tree.changed, path, self._tree)

    def real(self, path: str) -> str:
        return _answer(self._answers, Tree.real, path, self._tree)

    def outside(self, path: str) -> Path:
        raise LookupError(f"{path}: a decision goes to no file")


class _Addresses(Names):
    """The same of names that are looked up."""

    def __init__(self, answers: Answers, names: Names | None = None) -> None:
        self._answers = answers
        self._names = names

    def by_dns(self, name: str) -> frozenset[str]:
        return _answer(self._answers, Names.by_dns, name, self._names)

    def addresses(self, name: str) -> frozenset[str]:
        return _answer(self._answers, Names.addresses, name, self._names)
