"""Every attempt on the page: by another site in the same browser, by who has no cookie, by names.

What a browser does by itself (a cookie that is Strict, a frame that is refused) is tried in a real
one by ``tests.web``; here stands what the server has to say to whoever sends what no browser would.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser

from tests.attacks.attempts import Attempt, In
from tests.attacks.page import CANARY, EVIL, Answer, Page

PATHS = (
    "/", "/events", "/story.json", "/page.css", "/page.js",
    "/section/nodes", "/section/actions", "/section/registry", "/section/history",
    "/section/images", "/section/users", "/section/rollouts", "/section/pods",
)  # fmt: skip
FOREIGN = "http://evil.example"
NODE = "127.0.0.1:1"
ASKED = ("/verify", "/fix")
FORM = "application/x-www-form-urlencoded"


def all_attempts(page: Page) -> Iterator[Attempt]:
    """In any order: none leaves anything behind."""
    yield from _other_names(page)
    yield from _strangers(page)
    yield from _other_sites(page)
    yield from _forms(page)
    yield from _frames(page)
    yield from _places(page)
    yield from _headers(page)
    yield Attempt("hostile names of images, rollouts and nodes", lambda: _names(page), "")
    yield Attempt("a secret in any answer", lambda: _secrets(page), "")


def _refused(page: Page, wanted: int, method: str, path: str, **headers: str) -> str:
    answer = page.ask(method, path, **headers)
    if answer.status != wanted:
        raise In(f"{method} {path}: {answer.status} {answer.text[:200]!r}")
    _closed(answer)
    return f"{wanted} {answer.text.strip()}"


def _closed(answer: Answer) -> None:
    """What every answer has to say to the browser, be it a refusal or not."""
    policy = answer.headers.get("Content-Security-Policy", "")
    wanted = {
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    if "frame-ancestors 'none'" not in policy or "default-src 'none'" not in policy:
        raise In(f"policy: {policy!r}")
    if missing := wanted.items() - answer.headers.items():
        raise In(f"without {missing}")
    if open_to := [name for name in answer.headers if name.startswith("Access-Control")]:
        raise In(f"{open_to}")


# -- by another name: DNS rebinding ----------------------------------------------------------------


def _other_names(page: Page) -> Iterator[Attempt]:
    """evil.example resolves to 127.0.0.1 by now: the browser sends its name, and no cookie of ours;
    here with the cookie, for the server is not to rely on that."""
    port = page.port
    for host in (
        f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}",
        f"localhost.evil.example:{port}", f"127.0.0.1:{port}.evil.example", f"127.0.0.1:{port + 1}",
        "127.0.0.1", f"[::1]:{port}", f"0.0.0.0:{port}", f"127.1:{port}", f"2130706433:{port}",
        f"127.0.0.2:{port}", f"evil.example@127.0.0.1:{port}", f"127.0.0.1:{port}, evil.example",
        f"LOCALHOST.:{port}", "",
    ):  # fmt: skip
        for path in ("/", "/story.json", "/events", page.login):
            name = f"the page as {host!r}: {path.partition('?')[0]}"
            yield Attempt(name, partial(_refused, page, 421, "GET", path, Host=host))
    yield Attempt("the page through a proxy's words", lambda: _forwarded(page))
    elsewhere = "http://169.254.169.254/latest/"
    yield Attempt(f"GET {elsewhere}", partial(_refused, page, 421, "GET", elsewhere))


def _forwarded(page: Page) -> str:
    """Words that frameworks take for the Host are no host of ours, and change nothing."""
    return _refused(
        page, 421, "GET", "/", Host="evil.example", X_Forwarded_Host=page.own,
        X_Host=page.own, Forwarded=f"host={page.own}",
    )  # fmt: skip


# -- without the cookie ----------------------------------------------------------------------------


def _strangers(page: Page) -> Iterator[Attempt]:
    name, _, value = page.cookie.partition("=")
    cookies = {
        "no cookie": "", "an empty one": f"{name}=", "a wrong one": f"{name}={'A' * 43}",
        "one that is cut short": f"{name}={value[:-1]}", "one that is longer": f"{name}={value}A",
        "another page's": f"moorage-1={value}", "bytes that are no text": f"{name}=\xff\xfe",
        "the link's token": f"{name}={page.login.partition('=')[2]}",
    }  # fmt: skip
    for (what, cookie), path in itertools.product(cookies.items(), (*PATHS, *ASKED)):
        yield Attempt(
            f"{path} with {what}", partial(_refused, page, 403, "GET", path, Cookie=cookie)
        )
    for what, path in {
        "the link a second time": page.login,
        "a link without a token": "/login",
        "a link with two tokens": f"{page.login}&token=x",
        "a guessed link": "/login?token=" + "A" * 43,
        "a token that is no ASCII": "/login?token=%C3%A9",
        "a token of 10,000 letters": "/login?token=" + "A" * 7000,
        "a token with a second header": "/login?token=x%0d%0aSet-Cookie:%20a=b",
    }.items():
        yield Attempt(what, partial(_refused, page, 403, "GET", path, Cookie=""))


# -- by another site in the same browser -----------------------------------------------------------


def _other_sites(page: Page) -> Iterator[Attempt]:
    """Forms and scripts of another site, as if the browser had sent the cookie along."""
    for method, path in itertools.product(("POST", "PUT", "DELETE", "PATCH", "OPTIONS"), PATHS):
        yield Attempt(
            f"{method} {path} from another site",
            partial(_refused, page, 405, method, path, Origin=FOREIGN, Content_Length="0"),
        )
    for header in ("X_HTTP_Method_Override", "X_Method_Override"):
        yield Attempt(
            f"{header.replace('_', '-')}: GET",
            partial(_refused, page, 405, "POST", "/", **{header: "GET"}, Content_Length="0"),
        )
    preflight = {"Origin": FOREIGN, "Access_Control_Request_Method": "POST"}
    yield Attempt(
        "a preflight", partial(_refused, page, 405, "OPTIONS", "/story.json", **preflight)
    )
    for path in ("/", "/story.json", "/events", "/section/nodes"):
        yield Attempt(f"{path} read by another site", partial(_unreadable, page, path), "")


def _unreadable(page: Page, path: str) -> str:
    """No word lets another site's script read an answer, nor load it as its own."""
    answer = page.ask("GET", path, Origin=FOREIGN, Sec_Fetch_Site="cross-site")
    _closed(answer)
    return "no other site may read it"


def _forms(page: Page) -> Iterator[Attempt]:
    """Agreements that nobody gave on the page: each with all that is right, but for one thing."""
    token = re.findall(r'name="token" value="([0-9a-f]{64})"', page.ask("GET", _question()).text)[0]
    body = f"of={NODE}&token={token}"
    right = {"Origin": f"http://{page.own}", "Content_Type": FORM}
    bodies = {
        "without a token": f"of={NODE}", "with an empty token": f"of={NODE}&token=",
        "with a made-up token": f"of={NODE}&token={'0' * 64}",
        "with the session for a token": f"of={NODE}&token={page.cookie.partition('=')[2]}",
        "with half the token": f"of={NODE}&token={token[:32]}",
        "with two nodes": f"of={NODE}&of=node2&token={token}",
        "with two tokens": f"of={NODE}&token=x&token={token}",
        "with a field more": f"{body}&kind=fix",
        "as JSON": f'{{"of": "{NODE}", "token": "{token}"}}',
        "of a node that is not there": f"of=node2&token={token}",
        "with an option for a node": f"of=--hosts%3Dnode2&token={token}",
        "with a second line": f"of={NODE}%0Anode2&token={token}",
        "with a script for a node": f"of=%3Cscript%3E&token={token}",
        "of 1 MB": f"of={'n' * (1 << 20)}&token={token}",
    }  # fmt: skip
    headers = {
        "from another site": {"Origin": FOREIGN}, "from a sandboxed frame": {"Origin": "null"},
        "from nowhere": {"Origin": ""}, "from another port": {"Origin": "http://127.0.0.1:1"},
        "from another name of ours": {"Origin": f"http://localhost:{page.port}"},
        "from two places": {"Origin": f"http://{page.own}, {FOREIGN}"},
        "that the browser calls foreign": {"Sec_Fetch_Site": "cross-site"},
        "without a cookie": {"Cookie": ""}, "as text": {"Content_Type": "text/plain"},
        "as parts": {"Content_Type": "multipart/form-data; boundary=x"},
        "by another name": {"Host": f"evil.example:{page.port}"},
    }  # fmt: skip
    for path in ASKED:
        for what, given in bodies.items():
            yield Attempt(f"{path} {what}", partial(_nothing_done, page, path, given, right))
        for what, more in headers.items():
            yield Attempt(f"{path} {what}", partial(_nothing_done, page, path, body, right | more))
    query = f"{_question()}&token={token}"
    yield Attempt("an agreement by a mere link", lambda: _only_asks(page, query), "")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        name = f"an agreement by {method}"
        yield Attempt(name, partial(_refused, page, 405, method, "/verify", **right))


def _question() -> str:
    return f"/verify?of={NODE}"


def _nothing_done(page: Page, path: str, body: str, headers: dict[str, str]) -> str:
    answer = page.ask("POST", path, body, **headers)
    if answer.status not in (400, 403, 409, 413, 415, 421):
        raise In(f"{answer.status} {answer.text[:200]!r}")
    _closed(answer)
    _none_begun(page)
    return f"{answer.status} {answer.text.strip()[:80]}"


def _only_asks(page: Page, path: str) -> str:
    _harmless(page, path)
    _none_begun(page)
    return "it asks, and does nothing"


def _none_begun(page: Page) -> None:
    """Neither the page nor the logs know of an action."""
    if "<tr>" in page.ask("GET", "/section/actions").text or "asked for on the page" in page.logs:
        raise In("an action was begun")


def _frames(page: Page) -> Iterator[Attempt]:
    for path in (*PATHS, f"/verify?of={NODE}", "/nowhere", "/login?token=x"):
        yield Attempt(f"a frame around {path}", partial(_unframed, page, path), "")


def _unframed(page: Page, path: str) -> str:
    _closed(page.ask("GET", path, Sec_Fetch_Dest="iframe", Sec_Fetch_Site="cross-site"))
    return "no frame"


# -- places, headers -------------------------------------------------------------------------------


def _places(page: Page) -> Iterator[Attempt]:
    for path in (
        "/../.moorage/registry/password", "/%2e%2e/certs/ca.key", "/page.css/../../../certs/ca.key",
        "/page.css%00.html", "//page.css", "/page.py", "/sources.py", "/page.html.j2", "/section/",
        "/section/../../certs/ca.key", "/section/%2e%2e", "/.git/config", "/PAGE.CSS", "/login/",
        "/metrics", "/v1/apply",
    ):  # fmt: skip
        yield Attempt(f"GET {path}", partial(_refused, page, 404, "GET", path))


def _headers(page: Page) -> Iterator[Attempt]:
    for what, language in {
        "a script for a language": EVIL,
        "8,000 languages": ",".join(["zh;q=0.1"] * 700),
        "a weight that is no number": "zh;q=" + "9" * 5000,
        "a path for a language": "../../../../etc/passwd",
    }.items():
        yield Attempt(what, partial(_harmless, page, "/", Accept_Language=language), "")
    for what, path in {
        "a script in the query": f"/?{EVIL}".replace(" ", "%20"),
        "a template in the query": "/?{{7*7}}{%25print(1)%25}",
    }.items():
        yield Attempt(what, partial(_harmless, page, path), "")


def _harmless(page: Page, path: str, **headers: str) -> str:
    answer = page.ask("GET", path, **headers)
    if answer.status != 200:
        raise In(f"{answer.status}")
    _closed(answer)
    _no_script(answer.text)
    if ">49<" in answer.text:
        raise In("a template was carried out")
    return "the page as ever"


# -- names and secrets -----------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _no_script(text: str) -> None:
    for tag, found in _Tags(text).found:
        ours = tag != "script" or found == {"src": "/page.js", "defer": None}
        odd = [name for name in found if name.startswith("on") or name == "style"]
        if not ours or odd or tag in ("img", "iframe", "object", "embed", "base"):
            raise In(f"<{tag} {found}>")


def _names(page: Page) -> str:
    count = 0
    for path in ("/", *(one for one in PATHS if one.startswith("/section/"))):
        text = page.ask("GET", path).text
        _no_script(text)
        count += text.count("&lt;script&gt;")
    if count < 6:
        raise AssertionError("no hostile name is on the page")
    return f"escaped {count} times"


def _secrets(page: Page) -> str:
    """In what the page ever answered here, and in the logs: no canary, token, cookie or key."""
    for path in (one for one in PATHS if one != "/events"):
        page.ask("GET", path)
    tokens = [page.login.partition("=")[2], page.cookie.partition("=")[2]]
    told = [*page.said, page.logs]
    for secret in (CANARY, "PRIVATE KEY", *tokens):
        if found := [text for text in told if secret in text]:
            place = found[0].index(secret)
            raise In(f"{secret[:6]}…: {found[0][max(place - 100, 0) : place]!r}")
    forms = r'name="token" value="[0-9a-f]{64}"'  # what a form brings back, and lets nobody in
    if re.search(r"[A-Za-z0-9_-]{43}", re.sub(forms, "", "".join(page.said))):
        raise In("something as long as a token")
    return f"none in {len(told)} answers and logs"
