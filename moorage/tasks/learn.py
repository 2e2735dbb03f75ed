"""What teaches: error codes explained, and the journey step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage.output import Line, lines
from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.explanations import Explanation
    from moorage.output import Parts


@command(positional=["code"], help={"code": "an error code, such as x509-unknown-authority"})
def explain(run: Run, code: str = "") -> dict[str, Any]:
    """Explain an error code: what it means, what was changed, what to do; without one, list all.

    Example: inv explain x509-unknown-authority
    Example: inv explain --json
    """
    from moorage.explanations import explanations

    known = explanations()
    if not code:
        run.ui.present(_listed(list(known.values())))
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


@command()
def tutorial(run: Run, yes: bool = False) -> dict[str, Any]:
    """Walk through the journey step by step: the commands by hand, and Moorage's beside them.

    On a terminal each step can be run; nothing is changed unless you say so, step by step.

    Example: inv tutorial
    Example: inv tutorial --yes
    """
    from moorage.walk.tutorial import steps

    asks = run.ui.interactive and not yes and not run.ui.as_json
    told: list[dict[str, Any]] = []
    ok = True
    for number, step in enumerate(steps(run.settings), 1):
        run.ui.show(f"\n{number}. {step.title}\n   {step.why}\n")
        for title, typed in (("by hand", step.by_hand), ("with Moorage", step.ours)):
            run.ui.show(f"   {title}:")
            for line in typed:
                run.ui.show(f"     {line}")
        ran = asks and run.ui.agrees("\nRun this step now?")
        ok = not ran or _typed(run, step.ours)
        told.append({**step._asdict(), "ran": ran})
        if not ok:
            break
    if not asks:
        run.ui.show("\nNothing was run. On a terminal, inv tutorial asks before each step.")
    return {"ok": ok, "steps": told}


def _typed(run: Run, ours: tuple[str, ...]) -> bool:
    """Whether all commands of a step, typed one after the other, ended well."""
    import shlex
    import sys

    from moorage import commands
    from moorage.program import START

    for line in ours:
        run.ui.say(f"$ {line}")
        code = commands.attached([sys.executable, "-P", str(START), *shlex.split(line)[1:]])
        if code:
            run.ui.warn(f"it ended with {code}; mend that, then go on with: inv tutorial")
            return False
    return True


def _listed(known: list[Explanation]) -> Parts:
    from itertools import groupby

    from moorage.program import pages

    for title, group in groupby(known, key=lambda one: one.group):
        yield Line(f"{title}\n")
        yield from lines(pages.columns([(one.code, one.means) for one in group], pages.width()))
        yield Line("")
    yield Line("More about one: inv explain CODE")


def _unknown(code: str, known: dict[str, Explanation]) -> Exception:
    from moorage.errors import Refused
    from moorage.program import pages

    meant = pages.nearest(code, known)
    return Refused(
        "unknown-code",
        f"there is no error code {code!r}" + (f"; did you mean {meant}?" if meant else ""),
        cure=f"inv explain {meant}" if meant else "inv explain",
    )
