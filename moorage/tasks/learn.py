"""What teaches: error codes explained, and the journey step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.explanations import Explanation
    from moorage.ui import UI


@command(positional=["code"], help={"code": "an error code, such as x509-unknown-authority"})
def explain(run: Run, code: str = "") -> dict[str, Any]:
    """Explain an error code: what it means, what was changed, what to do; without one, list all.

    Example: inv explain x509-unknown-authority
    Example: inv explain --json
    """
    from moorage.explanations import explanations

    known = explanations()
    if not code:
        _list(run.ui, list(known.values()))
        return {"ok": True, "codes": [one._asdict() for one in known.values()]}
    if code not in known:
        raise _unknown(code, known)
    found = known[code]
    run.ui.show(f"{found.code} ({found.group})")
    for title, text in (
        ("means", found.means),
        ("changed", found.changed),
        ("cure", found.cure),
    ):
        run.ui.show(f"  {title}: {text}")
    return {"ok": True, "codes": [found._asdict()]}


def _list(ui: UI, known: list[Explanation]) -> None:
    from itertools import groupby

    from moorage.program import pages

    for title, group in groupby(known, key=lambda one: one.group):
        ui.show(f"{title}\n")
        for line in pages.columns([(one.code, one.means) for one in group], pages.width()):
            ui.show(line)
        ui.show("")
    ui.show("More about one: inv explain CODE")


def _unknown(code: str, known: dict[str, Explanation]) -> Exception:
    from moorage.errors import Refused
    from moorage.program import pages

    meant = pages.nearest(code, known)
    return Refused(
        "unknown-code",
        f"there is no error code {code!r}" + (f"; did you mean {meant}?" if meant else ""),
        cure=f"inv explain {meant}" if meant else "inv explain",
    )
