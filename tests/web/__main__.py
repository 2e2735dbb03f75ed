"""The page in headless Chromium: three widths, a keyboard alone, both languages, axe-core, attacks.

Ends with `web: N checks, 0 failed`, and exit code 1 if that is not so. ``--pictures=FOLDER`` keeps
a screenshot of each width; ``--write`` makes those of the documentation again.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.wire.faults import Fault
from moorage.fleet.inventory import Target
from moorage.fleet.state.host import Standing
from moorage.output.said import Said, joined, said
from moorage.web import words
from moorage.web.actions import ActionOutcome, Actions, Question
from moorage.web.history import Point
from moorage.web.story import Plot, Section, from_groups, from_rows
from tests.unit.elsewhere import project
from tests.unit.web.test_chinese import english
from tests.unit.web.test_page import EVIL, Served, standing
from tests.web import browser
from tests.web.browser import Tab
from tests.web.elsewhere import other_site

ROOT = Path(__file__).parents[2]
REACHED = 'a[href], button, input, summary, [tabindex="0"]'
WIDTHS = (360, 768, 1440)
SAID: list[str] = []


def check(name: str, good: bool, words: object = "") -> None:
    SAID.append("" if good else name)
    print(f"{'ok' if good else '--'} {name}{'' if good else f': {words}'}", flush=True)  # noqa: T201


class Proving(Actions):
    """A stand-in: its nodes prove their trust at once. All that comes before is the page's own."""

    def _verify(self, question: Question) -> ActionOutcome:
        return ActionOutcome(said("proven by a pull in {took} s", took="1.2"))


def plotted() -> Section:
    """Two hours of numbers, made up."""
    minutes = [1790000000.0 + 60 * n for n in range(120)]
    pulls = tuple(Point(at, 30 + 25 * math.sin(n / 9) + n % 7) for n, at in enumerate(minutes))
    disk = tuple(Point(at, 180 + n / 6) for n, at in enumerate(minutes))
    hurt = tuple(Point(at, float(60 < n < 75)) for n, at in enumerate(minutes))
    plots = (
        Plot("pulls", "a minute", pulls), Plot("disk in use", "GiB", disk),
        Plot("nodes not in order", "", hurt),
    )  # fmt: skip
    note = "one number per minute, since the page began"
    return replace(from_rows((), (), note), plots=plots)


def filled(odd: str = EVIL, acts: bool = True) -> Served:
    """The real server, with nodes and sections of every kind; none of them is there."""
    group = {
        "code": "secret-wrong-login", "pods": ["web/shop-1", "web/shop-2"],
        "title": "the login is refused",
        "cause": "the Secret's password is an old one",
        "cure": "inv k8s.secret --renew",
    }  # fmt: skip
    images = from_rows(
        ("repository", "tags", "size", "last push"),
        [
            ("app", "3, 2, 1", "81.2 MB", "2026-11-28 16:41"),
            (odd, odd if odd == EVIL else "3.13, 3.12", "48.1 MB", "2026-11-02 09:00"),
        ],
    )
    blobs = said("{size} in {count} blobs", size="1.2 GB", count=31)
    freed = ("a collection would free", said("{blobs}: inv registry.collect", blobs=blobs))
    users = from_rows(
        ("login", "role", "repositories", "ends", "made for"),
        [
            ("moorage", "admin", "**", said("never"), ""),
            ("robot", "push", "team/**", "2027-02-26", ""),
        ],
    )
    command = said("{verb} {registry}", verb=Said("trust"), registry="my.registry.io")
    two, one = Said("changed"), Said("failed")
    told = (said("{count} {status}", count=n, status=what) for n, what in ((2, two), (1, one)))
    counts = joined(", ", told)
    given = {
        "registry": lambda: from_rows(
            ("", ""),
            [
                ("address", "https://my.registry.io"), ("state", said("answers")),
                (
                    "requests",
                    said(
                        "{all} since its start, {refused} refused, {failed} failed",
                        all=10482, refused=31, failed=0,
                    ),
                ),
                ("certificate", said("ends {day}, in {days} days", day="2027-08-20", days=265)),
            ],
        ),
        "history": plotted,
        "images": lambda: replace(images, facts=(freed,)),
        "users": lambda: users,
        "rollouts": lambda: from_rows(
            ("began", "what", "nodes", "results", "state"),
            [("2026-11-28 17:00:00", command, "3", counts, said("ended"))],
        ),
        "pods": lambda: from_groups([group], ["0" * 24]),
    }  # fmt: skip
    made = Served(given, 4)
    if acts:
        _offer(made)
    _stand(made.server.story.hear)
    return made


def _offer(made: Served) -> None:
    hosts = [Target(name, name) for name in ("node01", "node02", "db1", "far1")]
    settings = project(Path(tempfile.mkdtemp()))
    actions = Proving(settings, hosts, lambda shown: made.server.story.put("actions", shown))
    made.server.story.put("actions", actions.section())
    made.server.offer(actions)


def _stand(hear: Callable[[Standing], None]) -> None:
    for name in ("node01", "node02"):
        hear(standing(name))
    drifted = (("/etc/containerd/certs.d/my.registry.io/hosts.toml", "changed"),)
    hear(standing("db1", drifted=drifted))
    cure = "inv nodes.status --hosts=far1"
    hear(
        Standing("far1", fault=Fault("no-route", "far1 does not answer", "no route to host", cure))
    )


async def _english(served: Served, profile: Path, pictures: Path | None) -> None:
    async with browser.tab(profile, "en-GB") as tab:
        await tab.open(served.server.link, WIDTHS[0])
        await tab.until("document.querySelectorAll('tbody tr').length >= 5")
        for width in WIDTHS:
            await tab.open(f"{served.server.place.url}/", width)
            await _at_width(tab, width, pictures)
        await _keyboard(tab)
        await _events(tab, served)
        await _action(tab)
        foreign = [one for one in tab.loaded if not one.startswith(served.server.place.url)]
        check("nothing is loaded from elsewhere", not foreign, foreign)
        refused = [one for one in tab.violations if "favicon" not in one and "404" not in one]
        check("the policy refuses nothing of ours", not refused, refused)
        await _foreign(tab, served)


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
    wanted = await tab.run(f"document.querySelectorAll('{REACHED}').length")
    reached, marked = 0, True
    for _ in range(wanted):
        await tab.press("Tab")
        here = await tab.run(f"document.activeElement.matches('{REACHED}')")
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
    await tab.until("document.getElementById('nodes')?.textContent.includes('docker 28.0')")
    check("a change arrives without a reload", True)
    held = await tab.run("document.activeElement.className")
    check("the focus stays where it was", held == "scroll", held)


async def _action(tab: Tab) -> None:
    """A node is verified by the keyboard alone; the browser says where its form comes from."""
    await tab.run("document.getElementById('of').focus()")
    await tab.call("Input.insertText", text="node01")
    await tab.press("Enter")
    await tab.until("document.querySelector('form[method=post]') !== null")
    await tab.run(browser.axe() + ";0")
    found = await tab.run("axe.run().then(r => r.violations.map(v => v.id))")
    check("axe-core has nothing to say to the question", not found, found)
    await tab.run("document.querySelector('button').focus()")
    await tab.press("Enter")
    await tab.until("document.getElementById('actions') !== null")
    await tab.until("document.getElementById('actions')?.textContent.includes('proven by a pull')")
    check("a node is verified by keyboard, and its result is shown", True)


async def _foreign(tab: Tab, served: Served) -> None:
    """Another site, in the browser that has the cookie: it reads, frames and begins nothing."""
    before = len(served.server.story.section("actions", 0).rows)
    tab.violations.clear()
    with other_site(served.server.place.url) as address:
        await tab.open(address, WIDTHS[1])
        await tab.until("window.said.length >= 4")
        said = await tab.run("window.said")
    check("another site reads nothing", set(said) == {"refused"}, said)
    framed = [one for one in tab.violations if "frame-ancestors" in one or "X-Frame-Options" in one]
    check("another site puts no frame around the page", bool(framed), tab.violations)
    after = len(served.server.story.section("actions", 0).rows)
    check("another site's form begins nothing", before == after, (before, after))


async def _chinese(served: Served, profile: Path) -> None:
    async with browser.tab(profile, "zh-CN") as tab:
        await tab.open(served.server.link, WIDTHS[1])
        await tab.until("document.querySelectorAll('tbody tr').length >= 5")
        title = await tab.run("document.querySelector('#nodes h2').textContent")
        check("Chinese by the browser's language", title == words.chinese("nodes"), title)
        left = {line: found for line in await _heard(tab) if (found := english(line))}
        check("every word of the Chinese page is Chinese", not left, left)
        await tab.open(f"{served.server.place.url}/verify?of=node01", WIDTHS[1])
        left = {line: found for line in await _heard(tab) if (found := english(line))}
        check("what is asked before an action is Chinese", not left, left)


async def _heard(tab: Tab) -> list[str]:
    """What is read, or read out: texts that are shown and not marked as a quotation, and labels."""
    script = """[document.title, ...[...document.querySelectorAll('[aria-label]')]
        .filter(one => !one.ariaLabel.includes('inv ')).map(one => one.ariaLabel),
        ...[...document.body.querySelectorAll('*')]
        .filter(one => !one.matches('code') && !one.closest('p[lang=en]'))
        .flatMap(one => [...one.childNodes]).filter(one => one.nodeType === Node.TEXT_NODE)
        .map(one => one.textContent.trim()).filter(one => one)]"""
    found: list[str] = await tab.run(script)
    assert len(found) > 5
    return [one for one in found if one not in (EVIL, "app", "moorage")]  # names of others


async def _pictures(served: Served, profile: Path, language: str, folder: Path) -> None:
    """The documentation's screenshots: the page, and what is asked before an action."""
    async with browser.tab(profile, language) as tab:
        await tab.open(served.server.link, 1000)
        await tab.until("document.querySelectorAll('svg').length === 3")
        await tab.run("document.getElementById('state').remove()")
        (folder / "page.png").write_bytes(await tab.picture(height=1420))
        await tab.open(f"{served.server.place.url}/verify?of=node01", 700)
        (folder / "question.png").write_bytes(await tab.picture(height=330))


async def _without_scripts(served: Served, profile: Path) -> None:
    async with browser.tab(profile, "en-GB") as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.call("Page.navigate", url=served.server.link)
        await asyncio.sleep(3)
        await tab.call("Emulation.setScriptExecutionDisabled", value=False)
        rows = await tab.run("document.querySelectorAll('tbody tr').length")
        buttons = await tab.run("document.querySelectorAll('button[type=button]').length")
        check("without scripts the tables are there", rows >= 5 and not buttons, (rows, buttons))
        plots = await tab.run("document.querySelectorAll('svg title').length")
        check("without scripts the plots are there", plots == 3, plots)
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.call("Page.navigate", url=f"{served.server.place.url}/verify?of=node01")
        await asyncio.sleep(2)
        await tab.call("Emulation.setScriptExecutionDisabled", value=False)
        await tab.run("document.querySelector('button').click()")
        await tab.until("document.body?.textContent.includes('proven by a pull')")
        check("without scripts a node is verified", True)


def _with(run: Callable[..., object], *words: object, odd: str = EVIL) -> None:
    served = filled(odd)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            asyncio.run(run(served, Path(profile), *words))  # type: ignore[arg-type]
    finally:
        served.close()


def _thousand() -> None:
    """In a process of its own: the memory is the page's alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.web.thousand", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, kib, idle = map(float, done.stdout.split())
    check("a thousand nodes are made in less than a second", seconds < 1, seconds)
    check("a thousand nodes take less than 150 MB", kib < 150 << 10, kib)
    check("a thousand nodes take less than 2 % of a core when idle", idle < 0.02, idle)


def main(words: list[str]) -> int:
    given = [one.partition("=")[2] for one in words if one.startswith("--pictures=")]
    pictures = Path(given[0]) if given else None
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    if "--write" in words:
        for name in ("docs", "docs-zh"):
            (ROOT / name / "pictures").mkdir(exist_ok=True)
        _with(_pictures, "en-GB", ROOT / "docs" / "pictures", odd="base/python")
        _with(_pictures, "zh-CN", ROOT / "docs-zh" / "pictures", odd="base/python")
        return 0
    _with(_english, pictures)
    _with(_chinese)
    _with(_without_scripts)
    _thousand()
    bad = [one for one in SAID if one]
    print(f"web: {len(SAID)} checks, {len(bad)} failed")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
