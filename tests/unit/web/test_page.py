"""The page over real HTTP on loopback: who may look, what is shown, in which language, how fast."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import itertools
import json
import re
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agent.wire.faults import Fault
from agent.wire.metrics import gauges
from agent.wire.report import HostResult, StatusEvent
from moorage.errors import Refused
from moorage.fleet.inventory import Target
from moorage.fleet.report import logbook
from moorage.fleet.report.logbook import Logbook
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.state import table
from moorage.fleet.state.host import Ours, ResidentAgent, Standing
from moorage.fleet.watch import Watch
from moorage.settings import Settings
from moorage.ui import UI
from moorage.web import page, sources
from moorage.web.access import HEADERS, Access, PagePlace
from moorage.web.server import EVERY, Server
from moorage.web.story import SECTIONS, Story, from_groups, from_rows
from tests.adopted import Folder, adopted_by_address

OWN = Ours("1.0", "d" * 64)
EVIL = "<script>alert('x')</script><img src=x onerror=y>&\"'"


def theirs() -> Settings:
    """Settings for a registry that somebody else runs."""
    usual = Settings()
    return dataclasses.replace(usual, registry=dataclasses.replace(usual.registry, external=True))


def standing(host: str, **changed: Any) -> Standing:
    resident = ResidentAgent("1.0", "d" * 64, int(time.time()) + 80 * 86400, "watching", 0, (), "")
    usual = Standing(
        host, runtime="containerd 2.1", trusts=("my.registry.io",), files=3, resident=resident,
        ca_ends=int(time.time()) + 900 * 86400,
    )  # fmt: skip
    return dataclasses.replace(usual, **changed)


class Served:
    """The server in a thread of its own, and a browser without scripts."""

    def __init__(self, given: Mapping[str, sources.Source], nodes: int = 0) -> None:
        self.server = Server(PagePlace("127.0.0.1", 0), "my.registry.io", dict(given))
        self.server.story = Story(OWN, nodes, self.server.tell)
        self.ready = threading.Event()
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(20)
        self.cookie = ""

    def _run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve(self.ready.set, self.stop)

        asyncio.run(main())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(20)
        assert not self.thread.is_alive()

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        line = http.client.HTTPConnection("127.0.0.1", self.server.place.port, timeout=20)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.cookie:
                names.setdefault("Cookie", self.cookie)
            line.request(method, path, body, headers=names)
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            line.close()

    def log_in(self) -> Served:
        status, headers, _ = self.ask(self.server.link.partition(str(self.server.place.port))[2])
        assert status == 303
        self.cookie = str(headers["Set-Cookie"]).partition(";")[0]
        return self

    def shown(self, path: str = "/", lang: str = "en") -> str:
        status, _, text = self.ask(path, Accept_Language=lang)
        assert status == 200, text
        return text


@contextmanager
def serving(nodes: int = 0, **given: Any) -> Iterator[Served]:
    made = Served(given, nodes)
    try:
        yield made
    finally:
        made.close()


def wait_for(found: Any) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- who may look ---------------------------------------------------------------------------------


def test_the_link_lets_one_browser_in_once() -> None:
    with serving() as made:
        path = made.server.link.partition(str(made.server.place.port))[2]
        status, headers, _ = made.ask(path)
        said = str(headers["Set-Cookie"])
        assert (status, headers["Location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(re.split(r"; ?", said))
        assert str(made.server.place.port) in said.partition("=")[0]
        again, headers, _ = made.ask(path)
        assert again == 403
        assert "Set-Cookie" not in headers
        made.cookie = said.partition(";")[0]
        assert made.ask("/")[0] == 200


PATHS = (
    "/",
    "/events",
    "/story.json",
    "/page.css",
    "/page.js",
    *(f"/section/{n}" for n in SECTIONS),
)


def test_nothing_is_shown_without_the_cookie() -> None:
    with serving() as made:
        for path in PATHS:
            for cookie in (
                "",
                f"moorage-{made.server.place.port}=x",
                f"moorage-{made.server.place.port}=\xff\xfe",  # no UTF-8
            ):
                made.cookie = cookie
                assert made.ask(path)[0] == 403, path
        assert made.ask("/login?token=wrong")[0] == 403
        assert made.ask("/login")[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "", "127.0.0.1:1"]
)
def test_a_page_of_another_name_is_told_nothing(host: str) -> None:
    """DNS rebinding: the browser sends the cookie's site, and the Host of the attacker."""
    with serving() as made:
        made.log_in()
        named = host.format(port=made.server.place.port)
        for path in (*PATHS, "/login?token=x"):
            status, _, text = made.ask(path, Host=named)
            assert status == 421, (path, text)


def test_no_way_to_change_anything() -> None:
    with serving() as made:
        made.log_in()
        for path, method in itertools.product(PATHS, ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")):
            assert made.ask(path, method)[0] == 405
        assert made.ask("/../etc/passwd")[0] == 404
        assert made.ask("/page.py")[0] == 404


def test_every_answer_forbids_frames_scripts_of_others_and_keeping() -> None:
    with serving() as made:
        for path in ("/", "/nowhere", "/login?token=x"):
            assert HEADERS.items() <= dict(made.ask(path)[1].items()).items()
        made.log_in()
        for path in (one for one in PATHS if one != "/events"):
            headers = dict(made.ask(path)[1].items())
            assert HEADERS.items() <= headers.items(), path
    policy = HEADERS["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_tokens_are_long_and_compared_whole() -> None:
    access = Access()
    assert len(access.token) >= 43  # 256 bits in base64
    assert access.log_in(access.token[:-1]) is None
    assert access.log_in(f"{access.token}x") is None
    session = access.log_in(access.token)
    assert session
    assert access.knows(session)
    assert not access.knows(session[:-1])
    assert not access.knows("")


@pytest.mark.parametrize(
    ("text", "code"),
    [("0.0.0.0:1", "not-loopback"), ("[::]:80", "not-loopback"), ("192.0.2.1:1", "not-loopback"),
     ("nowhere:1", "bad-listen"), ("127.0.0.1:99999", "bad-listen"), ("127.0.0.1:x", "bad-listen"),
     ("", "bad-listen"), ("127.0.0.1:²", "bad-listen")],
)  # fmt: skip
def test_where_it_may_not_listen_is_refused(text: str, code: str) -> None:
    with pytest.raises(Refused) as told:
        PagePlace.parse(text)
    assert told.value.code == code
    assert "inv web --listen=127.0.0.1" in told.value.cure


def test_places_of_loopback_are_taken() -> None:
    assert PagePlace.parse("[::1]:80") == PagePlace("::1", 80)
    assert PagePlace.parse("localhost:1") == PagePlace.parse("1") == PagePlace("127.0.0.1", 1)
    assert PagePlace("::1", 80).hosts == {"[::1]:80", "[::1]", "localhost:80", "localhost"}


def test_a_port_in_use_is_refused_with_a_way_out() -> None:
    with serving() as made:
        second = Server(PagePlace("127.0.0.1", made.server.place.port), "r", {})
        with pytest.raises(Refused) as told:
            asyncio.run(second.serve(lambda: None))
        assert told.value.code == "page-port-in-use"


# -- what is shown --------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The page's elements, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def hostile() -> dict[str, Any]:
    """Sections full of words that somebody else chose."""
    group = {"pods": [EVIL], "title": EVIL, "cause": EVIL, "cure": EVIL}
    return {
        "registry": lambda: from_rows(("", ""), [("state", EVIL)], EVIL),
        "images": lambda: from_rows(("repository", "tags"), [(EVIL, EVIL)]),
        "rollouts": lambda: from_rows(("began", "what"), [(EVIL, EVIL)]),
        "pods": lambda: from_groups([group]),
    }


def test_hostile_names_stay_text() -> None:
    with serving(2, **hostile()) as made:
        fault = Fault(EVIL, EVIL, EVIL, EVIL)
        made.server.story.hear(
            standing(EVIL, runtime=EVIL, trusts=(EVIL,), drifted=((EVIL, EVIL),))
        )
        made.server.story.hear(Standing("n2", fault=fault))
        made.log_in()
        wait_for(lambda: made.shown().count("alert(&#39;x&#39;)") > 10)
        for path in ("/", *(f"/section/{name}" for name in SECTIONS)):
            tags = Tags(made.shown(path)).found
            scripts = [found for tag, found in tags if tag == "script"]
            assert scripts in ([], [{"src": "/page.js", "defer": None}])
            assert "img" not in {tag for tag, _ in tags}
            assert not [found for _, found in tags for name in found if name.startswith("on")]
            assert not [found for _, found in tags if "style" in found]


def test_what_the_page_loads_is_its_own() -> None:
    with serving() as made:
        made.log_in()
        loaded = {
            str(found[name]) for _, found in Tags(made.shown()).found
            for name in ("src", "href") if found.get(name)
        }  # fmt: skip
        assert all(one.startswith(("/page.", "#")) for one in loaded)
        for path in ("/page.css", "/page.js"):
            assert "//" not in re.sub(r"^//.*$", "", made.shown(path), flags=re.MULTILINE)


def test_no_secret_is_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-8d3f"
    from moorage import registry as registries
    from moorage.registry import client
    from moorage.registry.logins.credentials import Credentials

    settings = theirs()
    monkeypatch.setattr(registries, "if_any", lambda _: Credentials("moorage", canary))

    def asked(_: Settings, path: str, *, login: Credentials, **__: Any) -> client.Answer:
        """A stand-in for a registry that has two images."""
        assert login.password == canary
        key, found = ("repositories", ["a", "b"]) if "catalog" in path else ("tags", ["1"])
        return client.Answer(200, {}, json.dumps({key: found}).encode())

    monkeypatch.setattr(client, "ask", asked)
    given = {
        "images": lambda: sources.images(settings),
        "registry": lambda: sources.registry(settings),
        "rollouts": lambda: sources.rollouts(settings),
    }
    with serving(0, **given) as made:
        made.log_in()
        wait_for(lambda: ">a</th>" in made.shown())
        everything = "".join(made.shown(path) for path in PATHS if path != "/events")
        for secret in (canary, made.server.access.token, made.cookie.partition("=")[2], "PRIVATE"):
            assert secret not in everything


def test_a_source_that_fails_says_so_and_the_others_go_on() -> None:
    def broken() -> Any:
        raise Refused("x", "the engine is gone", cause="it was stopped", cure="inv doctor")

    def defective() -> Any:
        raise ZeroDivisionError("a defect")

    with serving(
        0, registry=broken, images=defective, rollouts=lambda: from_rows(("what",), [("z",)])
    ) as made:
        made.log_in()
        wait_for(lambda: "the engine is gone" in made.shown() and ">z</th>" in made.shown())
        text = made.shown()
        assert "inv doctor</code>" in text
        assert "ZeroDivisionError" in text
        assert "Traceback" not in text


def test_a_repository_that_cannot_be_asked_for_keeps_no_other_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from moorage import registry as registries
    from moorage.registry import client

    def asked(_: Settings, path: str, **__: Any) -> client.Answer:
        """A stand-in for a registry that lists what no client could have pushed."""
        assert path.startswith(("/v2/_catalog?", "/v2/app/tags"))
        names = {"repositories": [EVIL, "../etc/passwd", "app"], "tags": ["1"]}
        return client.Answer(200, {}, json.dumps(names).encode())

    monkeypatch.setattr(client, "ask", asked)
    monkeypatch.setattr(registries, "if_any", lambda _: None)
    assert sources.images(theirs()).rows == (
        (EVIL, "not a name of a repository"),
        ("../etc/passwd", "not a name of a repository"),
        ("app", "1"),
    )


def test_a_fleet_of_which_half_is_silent_is_folded_by_cause() -> None:
    with serving(40) as made:
        for number in range(40):
            host = f"node{number:02}"
            fault = Fault(
                "x", f"{host} does not answer", "no route", f"inv nodes.status --hosts={host}"
            )
            made.server.story.hear(standing(host) if number % 2 else Standing(host, fault=fault))
        made.log_in()
        text = made.shown()
        assert text.count("<li>") == 1
        assert "HOST does not answer" in text
        assert "inv nodes.status --hosts=node[00,02,04,06" in text  # for all of them
        assert "20 in order, 20 not asked" in text
        rows = text.count('<th scope="row">')
        assert rows == 1  # those that answer look alike


def test_each_language_by_the_browsers_wish() -> None:
    for accepted, wanted in {
        "zh-CN,zh;q=0.9,en;q=0.8": "zh", "en-GB,zh;q=0.9": "en", "": "en", "fr": "en",
        "fr,zh-TW;q=0.3": "zh", "zh;q=0,en;q=0.1": "en", "en;q=0.2,zh;q=0.9": "zh", "zh;q=x": "zh",
    }.items():  # fmt: skip
        assert page.language(accepted) == wanted, accepted
    with serving(1) as made:
        made.log_in()
        made.server.story.hear(standing("n1"))
        assert '<html lang="zh">' in made.shown(lang="zh")
        assert ">节点</h2>" in made.shown(lang="zh")
        assert ">Nodes</h2>" in made.shown()


def test_every_word_of_the_page_has_its_chinese() -> None:
    templates = "".join(path.read_text() for path in page.HERE.glob("*.j2"))
    said = (
        set(re.findall(r'(?:say|word)\("([^"]+)"\)', templates))
        | set(SECTIONS)
        | set(table.COLUMNS)
    )
    code = (page.HERE.parent / "sources.py").read_text()
    for columns in re.findall(r"from_rows\(\(([^)]*)\)", code):
        said |= set(re.findall(r'"(\w+)"', columns))
    said |= set(re.findall(r'\("(\w+)", (?:f"|found|said)', code))
    history = (page.HERE.parent / "history.py").read_text()
    said |= {one for pair in re.findall(r'Series\("([^"]+)", "([^"]*)"', history) for one in pair}
    actions = (page.HERE.parent / "actions.py").read_text()
    said |= set(re.findall(r'"(\w+)"', re.findall(r"from_rows\(\(([^)]*)\)", actions)[0]))
    said |= set(re.findall(r'\("([a-z ]+)", (?:freed|_blobs)', code))
    known = tomllib.loads((page.HERE.parent / "chinese.toml").read_text())["words"]
    assert said - {""} <= known.keys()


def test_the_page_is_whole_without_scripts() -> None:
    with serving(1, images=lambda: from_rows(("repository", "tags"), [("app", "1, 2")])) as made:
        made.server.story.hear(standing("n1"))
        made.log_in()
        wait_for(lambda: ">app</th>" in made.shown())
        text = made.shown()
        assert '<th scope="row">n1</th>' in text
        assert "<noscript><meta http-equiv" in text


def test_changes_arrive_as_events_and_end_with_the_page() -> None:
    with serving(1) as made:
        made.log_in()
        line = http.client.HTTPConnection("127.0.0.1", made.server.place.port, timeout=20)
        line.request("GET", "/events", headers={"Cookie": made.cookie})
        answer = line.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"
        made.server.story.hear(standing("n1"))
        told = [answer.readline() for _ in range(4)]
        assert b'data: ["nodes"]\n' in told
        made.server.story.hear(standing("n1", busy="apply"))
        made.server.story.put("images", from_rows(("tags",), [("1",)]))
        assert b'data: ["images", "nodes"]\n' in [answer.readline() for _ in range(2)]
    assert answer.read() in (b"", b"\n")
    line.close()


def test_what_changed_before_the_events_began_is_noticed() -> None:
    """Between the page and its events something changed: the two have another version."""
    with serving(1) as made:
        made.log_in()
        (shown,) = re.findall(r'data-version="(\d+)"', made.shown())
        made.server.story.hear(standing("n1"))
        line = http.client.HTTPConnection("127.0.0.1", made.server.place.port, timeout=20)
        line.request("GET", "/events", headers={"Cookie": made.cookie})
        answer = line.getresponse()
        assert answer.readline() == b"event: hello\n"
        assert answer.readline() == f"data: {int(shown) + 1}\n".encode()
        line.close()


def test_what_is_as_before_is_no_event() -> None:
    told: list[str] = []
    story = Story(OWN, 1, told.append)
    same = standing("n1")
    for _ in range(3):
        story.hear(same)
        story.put("images", from_rows(("tags",), [("1",)]))
    assert told == ["nodes", "images"]


def test_rollouts_are_told_newest_first_and_while_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "folder", lambda _: tmp_path)
    hosts = [Target(name, name) for name in ("a", "b")]
    first = Logbook.begin(tmp_path, "trust my.registry.io", hosts)
    first.result(HostResult("a", "changed"))
    first.result(HostResult("b", "failed"))
    first.end("")
    second = Logbook.begin(tmp_path, "untrust my.registry.io", hosts)
    second.result(HostResult("a", "changed"))
    found = sources.rollouts(Settings())
    assert [row[1:] for row in found.rows] == [
        ("untrust my.registry.io", "2", "1 changed", "1 of 2: under way, or killed"),
        ("trust my.registry.io", "2", "1 changed, 1 failed", "ended"),
    ]


def test_every_source_has_its_pace() -> None:
    assert set(EVERY) | {"nodes", "actions"} == set(SECTIONS)


# -- one story ------------------------------------------------------------------------------------


def test_metrics_and_standing_judge_by_the_same_rule() -> None:
    states = ("", "watching", "healing", "failing", "stopped")
    files = ("as-left", "changed", "missing")
    for drift, file, interrupted in itertools.product(states, files, (None, "apply")):
        trusted = ({"registry": "r", "files": [{"path": "/f", "state": file}], "ca_ends": None},)
        status = StatusEvent(trusted, (), interrupted, None)
        told: dict[str, Any] = {"trusted": trusted, "interrupted": interrupted}
        if drift:
            told["resident"] = {
                "version": "1", "digest": "d", "certificate_ends": 1,
                "drift": {"state": drift, "healed": 0, "last_files": [], "error": ""},
            }  # fmt: skip
        node = Standing.of(HostResult("n", "unchanged"), "", told)
        assert node.good == gauges.in_order(status, drift), (drift, file, interrupted)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with adopted_by_address(tmp_path) as made:
        yield made


HOSTS_TOML = "etc/containerd/certs.d/my.registry.io/hosts.toml"


def changed(folder: Folder) -> None:
    (folder.box.root / HOSTS_TOML).write_text("# hurt")


def emptied(folder: Folder) -> None:
    (folder.box.root / HOSTS_TOML).write_text("")


def missing(folder: Folder) -> None:
    (folder.box.root / HOSTS_TOML).unlink()


def moved(folder: Folder) -> None:
    where = folder.box.root / HOSTS_TOML
    where.rename(where.with_suffix(".old"))


def appended(folder: Folder) -> None:
    with (folder.box.root / HOSTS_TOML).open("a") as file:
        file.write("\n")


def another_ca(folder: Folder) -> None:
    path = next((folder.box.root / "etc/containerd/certs.d/my.registry.io").glob("*.crt"))
    path.write_text("-----BEGIN CERTIFICATE-----\nspoilt\n-----END CERTIFICATE-----\n")


def configuration_gone(folder: Folder) -> None:
    (folder.box.root / "etc/containerd/config.toml").unlink()


def folder_gone(folder: Folder) -> None:
    path = folder.box.root / "etc/containerd/certs.d"
    path.rename(path.with_suffix(".old"))


def notes_damaged(folder: Folder) -> None:
    for path in (folder.box.root / "var/lib/moorage/history").glob("*"):
        path.write_bytes(b"spoilt")


def agent_stopped(folder: Folder) -> None:
    folder.agent.stop()


def unhurt(folder: Folder) -> None:
    pass


@pytest.mark.parametrize(
    "hurt",
    [unhurt, changed, emptied, missing, moved, appended, another_ca, configuration_gone,
     folder_gone, notes_damaged, agent_stopped],
)  # fmt: skip
def test_status_watch_page_and_metrics_tell_the_same_story(folder: Folder, hurt: Any) -> None:
    folder.apply()
    for plan in (folder.box.root / "var/lib/moorage/plans").glob("*"):
        plan.unlink()  # or the agent would put back what is hurt
    hurt(folder)
    nodes = dataclasses.replace(folder.settings.nodes, retries=0)
    settings = dataclasses.replace(folder.settings, nodes=nodes)
    told = {
        "status": by_status(settings, folder), "watch": by_watch(settings, folder),
        "page": by_page(settings, folder), "metrics": by_metrics(folder),
    }  # fmt: skip
    wanted = (
        "in order"
        if hurt is unhurt
        else "not asked"
        if hurt in (notes_damaged, agent_stopped)
        else "not in order"
    )
    assert told == dict.fromkeys(told, wanted)


def in_words(node: Standing) -> str:
    return "not asked" if node.fault else "in order" if node.good else "not in order"


def by_status(settings: Settings, folder: Folder) -> str:
    report = Fleet(settings, UI(as_json=True)).run("status", [folder.target])
    (judged,) = table.judged(report, table.ours(settings)).hosts
    words = {"unchanged": "in order", "differs": "not in order"}
    return words.get(judged.status, "not asked") if judged.error is None else "not asked"


def by_watch(settings: Settings, folder: Folder) -> str:
    found: list[Standing] = []
    watch = Watch(settings, UI(as_json=True), [folder.target])

    def hear(node: Standing) -> None:
        found.append(node)
        watch.stop()

    watch.follow(hear)
    return in_words(found[0])


def by_page(settings: Settings, folder: Folder) -> str:
    with serving(1) as made:
        watch = Watch(settings, UI(as_json=True), [folder.target])
        following = threading.Thread(target=watch.follow, args=(made.server.story.hear,))
        following.start()
        try:
            made.log_in()
            wait_for(lambda: json.loads(made.shown("/story.json"))["nodes"])
            (node,) = json.loads(made.shown("/story.json"))["nodes"].values()
        finally:
            watch.stop()
            following.join(20)
    if not node["asked"]:
        return "not asked"
    return "in order" if node["in_order"] else "not in order"


def by_metrics(folder: Folder) -> str:
    from moorage import monitoring
    from moorage.monitoring import scraping

    out = folder.path / "out"
    found = monitoring.setup(folder.settings, out, kubernetes=False, check=True)
    if found.answers[0].state != scraping.SCRAPED:
        return "not asked"
    import ssl

    context = ssl.create_default_context(cafile=str(out / "fleet-ca.crt"))
    context.load_cert_chain(out / "viewer.crt", out / "viewer.key")
    text = scraping._get(found.answers[0].node, context)[1].decode()
    if "\nmoorage_state_damaged 1\n" in text:
        return "not asked"
    return "in order" if "\nmoorage_node_in_order 1\n" in text else "not in order"
