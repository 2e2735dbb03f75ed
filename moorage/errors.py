"""What can go wrong in a way the user can act on.

Every such error carries where it happened, the cause and the cure; it is formatted once, in
``moorage.ui``. Anything else that escapes a task is a defect of ours and may show a traceback.
"""

from __future__ import annotations


class MoorageError(Exception):
    """A failure with a cause and a cure.

    ``code`` is stable and meant for programs (kebab-case); ``message`` is one sentence that names
    what failed; ``cause`` is why; ``cure`` is what to do next, if possible the command to type;
    ``host`` and ``path`` say where. ``exit_code`` is 1: something failed.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        message: str,
        *,
        cause: str = "",
        cure: str = "",
        host: str = "",
        path: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.cure = cure
        self.host = host
        self.path = path

    def to_json(self) -> dict[str, str]:
        """``code, message, cause, cure`` and, where known, ``host`` and ``path``."""
        document = {
            "code": self.code,
            "message": self.message,
            "cause": self.cause,
            "cure": self.cure,
        }
        where = {"host": self.host, "path": self.path}
        return document | {key: value for key, value in where.items() if value}


class Refused(MoorageError):
    """Wrong use, bad input, or something we will not do unasked. Nothing was changed. Exit 2."""

    exit_code = 2
