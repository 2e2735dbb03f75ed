"""Follows every link of a built site within itself: files and anchors. Pure but for reading."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LINKS = {"a": "href", "link": "href", "script": "src", "img": "src"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {str(given[name]) for name in ("id", "name") if given.get(name)}
        if link := given.get(_LINKS.get(tag, "")):
            self.links.append(link)


def dead(site: Path) -> list[str]:
    """Each link within the site that leads to nothing, as ``PAGE -> LINK``."""
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())} -> {link}"
        for path, page in pages.items()
        if path.name != "404.html"  # its links begin at wherever it is shown
        for link in dict.fromkeys(page.links)
        if _is_dead(path, link, pages)
    ]


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _is_dead(path: Path, link: str, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return not target.is_file()
    anchor = unquote(parts.fragment)
    return bool(anchor) and not anchor.startswith("__") and anchor not in pages[target].anchors


def all_links(site: Path) -> Iterator[str]:
    """Every link of the site, to show that there are some."""
    for path in site.rglob("*.html"):
        yield from _read(path).links
