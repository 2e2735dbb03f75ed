"""`inv web` as a program of its own, and a browser without scripts that follows its links."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urlsplit

FORM = "application/x-www-form-urlencoded"


@dataclass
class Browser:
    """What a browser does: it keeps the cookie, and says where a form comes from."""

    origin: str
    cookie: str = ""

    def get(self, path: str) -> str:
        """A page's text. Raises AssertionError for any status but 200."""
        status, _, text = self._ask("GET", path)
        assert status == 200, f"GET {path}: {status} {text}"
        return text

    def follow(self, path: str) -> None:
        """Opens a link that answers with a cookie and another place, as a login does."""
        status, headers, text = self._ask("GET", path)
        assert (status, headers["Location"]) == (303, "/"), f"{status} {text}"
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def send(self, form: Form, **changed: str) -> int:
        """The status that pressing the form's button gets; ``changed``: headers, otherwise sent."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin", "Content-Type": FORM}
        sent |= {name.replace("_", "-"): value for name, value in changed.items()}
        return self._ask("POST", form.action, urlencode(form.fields), sent)[0]

    def _ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, http.client.HTTPMessage, str]:
        line = http.client.HTTPConnection(urlsplit(self.origin).netloc, timeout=30)
        try:
            given = {"Cookie": self.cookie} if self.cookie else {}
            line.request(method, path, body, {**given, **headers})
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            line.close()


class Form(HTMLParser):
    """The one form of a page that is posted: where to, its fields; and the page's links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self.feed(text)

    def with_fields(self, **changed: str) -> Form:
        """The same with other values."""
        made = copy(self)
        made.fields = {**self.fields, **changed}
        return made

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and found.get("method") == "post":
            self.action = found["action"]
        if tag == "input" and found.get("type") == "hidden":
            self.fields[found["name"]] = found["value"]
        if tag == "a":
            self.links.append(found.get("href", ""))


@contextmanager
def opened(project: Path, *words: str) -> Iterator[Browser]:
    """A browser that has used the link of `inv web WORDS`, which ends with the block."""
    program = str(Path(sys.executable).with_name("inv"))
    command = [program, "web", "--json-lines", "--listen=127.0.0.1:0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said.get("event") == "page", said
            link = urlsplit(said["link"])
            browser = Browser(f"{link.scheme}://{link.netloc}")
            browser.follow(f"{link.path}?{link.query}")
            yield browser
        finally:
            process.terminate()
            process.wait(30)
