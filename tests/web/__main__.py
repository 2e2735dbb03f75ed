"""The page in headless Chromium: three widths, a keyboard alone, both languages, axe-core.

Ends with `web: N checks, 0 failed`, and exit code 1 if that is not so. ``--pictures=FOLDER`` keeps
a screenshot of each width.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.wire.faults import Fault
from moorage.fleet.state.host import Standing
from moorage.web.story import from_groups, from_rows
from moorage.web.words import CHINESE
from tests.unit.test_web import EVIL, Served, standing
from tests.web import browser
from tests.web.browser import Tab

WIDTHS = (360, 768, 1440)
SAID: list[str] = []


def check(name: str, good: bool, words: object = "") -> None:
    SAID.append("" if good else name)
    print(f"{'ok' if good else '--'} {name}{'' if good else f': {words}'}", flush=True)  # noqa: T201


def filled() -> Served:
    """The real server, with nodes and sections of every kind; none of them is there."""
    group = {
        "pods": ["web/shop-1", "web/shop-2"], "title": "the login is refused",
        "cause": "the Secret's password is an old one", "cure": "inv k8s.secret --renew",
    }  # fmt: skip
    given = {
        "registry": lambda: from_rows(
            ("", ""), [("address", "https://my.registry.io"), ("state", "answers")]
        ),
        "images": lambda: from_rows(("repository", "tags"), [("app", "1, 2, 3"), (EVIL, EVIL)]),
        "rollouts": lambda: from_rows(
            ("began", "what", "nodes", "results", "state"),
            [("2026-11-28 17:00:00", "trust my.registry.io", "3", "2 changed, 1 failed", "ended")],
        ),
        "pods": lambda: from_groups([group]),
    }
    made = Served(given, 4)
    hear = made.server.story.hear
    for name in ("node01", "node02"):
        hear(standing(name))
    hear(
        standing("db1", drifted=(("/etc/containerd/certs.d/my.registry.io/hosts.toml", "changed"),))
    )
    hear(
        Standing(
            "far1",
            fault=Fault(
                "x", "far1 does not answer", "no route to host", "inv nodes.status --hosts=far1"
            ),
        )
    )
    return made


async def _english(served: Served, profile: Path, pictures: Path | None) -> None:
    async with browser.tab(profile, "en-GB") as tab:
        await tab.open(served.server.link, WIDTHS[0])
        await tab.until("document.querySelectorAll('tbody tr').length >= 5")
        for width in WIDTHS:
            await tab.open(f"{served.server.place.url}/", width)
            await _at_width(tab, width, pictures)
        await _keyboard(tab)
        await _events(tab, served)
        foreign = [one for one in tab.loaded if not one.startswith(served.server.place.url)]
        check("nothing is loaded from elsewhere", not foreign, foreign)
        refused = [one for one in tab.violations if "favicon" not in one and "404" not in one]
        check("the policy refuses nothing of ours", not refused, refused)


async def _at_width(tab: Tab, width: int, pictures: Path | None) -> None:
    wide = await tab.run("document.documentElement.scrollWidth - innerWidth")
    check(f"{width}: the page itself does not scroll sideways", wide <= 0, wide)
    check(f"{width}: no script of a name ran", not await tab.run("document.images.length"))
    await tab.run(browser.axe() + ";0")
    found = await tab.run(
        "axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))"
    )
    check(f"{width}: axe-core has nothing to say", not found, found)
    if pictures is not None:
        (pictures / f"page-{width}.png").write_bytes(await tab.picture())


async def _keyboard(tab: Tab) -> None:
    """Tab reaches every link, cure, button and table, in order, each with a mark that is seen."""
    await tab.run("document.body.tabIndex = -1; document.body.focus()")
    wanted = await tab.run("document.querySelectorAll('a[href], button, [tabindex=\"0\"]').length")
    reached, marked = 0, True
    for _ in range(wanted):
        await tab.press("Tab")
        here = await tab.run("document.activeElement.matches('a[href], button, [tabindex=\"0\"]')")
        reached += bool(here)
        marked &= await tab.run("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
    check("a keyboard reaches everything", reached == wanted, f"{reached} of {wanted}")
    check("what has the focus is marked", marked)
    await tab.run("document.querySelector('button').focus()")
    await tab.call(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    await tab.press("Enter")
    await tab.until("document.querySelector('button').textContent === 'Copied'")
    check("Enter copies a cure", True)


async def _events(tab: Tab, served: Served) -> None:
    await tab.until("document.getElementById('state').textContent === 'Live'")
    await tab.run("document.querySelector('#nodes .scroll').focus()")
    served.server.story.hear(standing("node03", runtime="docker 28.0"))
    await tab.until("document.getElementById('nodes').textContent.includes('docker 28.0')")
    check("a change arrives without a reload", True)
    held = await tab.run("document.activeElement.className")
    check("the focus stays where it was", held == "scroll", held)


async def _chinese(served: Served, profile: Path) -> None:
    async with browser.tab(profile, "zh-CN") as tab:
        await tab.open(served.server.link, WIDTHS[1])
        await tab.until("document.querySelectorAll('tbody tr').length >= 5")
        title = await tab.run("document.querySelector('#nodes h2').textContent")
        check("Chinese by the browser's language", title == CHINESE["nodes"], title)


async def _without_scripts(served: Served, profile: Path) -> None:
    async with browser.tab(profile, "en-GB") as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.call("Page.navigate", url=served.server.link)
        await asyncio.sleep(3)
        await tab.call("Emulation.setScriptExecutionDisabled", value=False)
        rows = await tab.run("document.querySelectorAll('tbody tr').length")
        buttons = await tab.run("document.querySelectorAll('button').length")
        check("without scripts the tables are there", rows >= 5 and not buttons, (rows, buttons))


def _with(run: Callable[..., object], *words: object) -> None:
    served = filled()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            asyncio.run(run(served, Path(profile), *words))  # type: ignore[arg-type]
    finally:
        served.close()


def main(words: list[str]) -> int:
    given = [one.partition("=")[2] for one in words if one.startswith("--pictures=")]
    pictures = Path(given[0]) if given else None
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    _with(_english, pictures)
    _with(_chinese)
    _with(_without_scripts)
    bad = [one for one in SAID if one]
    print(f"web: {len(SAID)} checks, {len(bad)} failed")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
