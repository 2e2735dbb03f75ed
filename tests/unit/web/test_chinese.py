"""Every visible word of the Chinese page is Chinese, a name, or a command to type."""

from __future__ import annotations

import ast
import copy
import re
import time
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agent.wire.faults import Fault
from moorage.errors import MoorageError, Refused
from moorage.explanations import explanations
from moorage.fleet.inventory import Target
from moorage.fleet.report import deeds, logbook
from moorage.fleet.report.logbook import Logbook
from moorage.fleet.state import host
from moorage.fleet.state.host import Standing
from moorage.output.said import Coded, Said, in_words, joined, said
from moorage.registry import RegistryStatus
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.web import page, sources, words
from moorage.web.actions import ActionOutcome, Actions, Question
from moorage.web.history import Point
from moorage.web.server import EVERY
from moorage.web.story import SECTIONS, Plot, Section, from_groups, from_rows, silent, trouble
from tests.unit.elsewhere import project
from tests.unit.web.test_page import Served, serving, standing, wait_for

ROOT = Path(words.__file__).parents[2]
# Codes of the command line alone: none of them can come to the page.
NEVER_SHOWN = {
    "wrong-use", "unknown-setting", "unknown-code", "unreadable-settings", "no-password",
    "secret-in-bundle", "bad-interval", "no-report", "bad-listen", "not-loopback",
    "page-port-in-use",
}  # fmt: skip
# Proper nouns, and what has no other name: a program, a user, a setting's value.
NAMES = {
    *("Moorage", "Agent", "Docker", "Kubernetes", "Pod", "Pods", "Secret", "Prometheus", "Python"),
    *("Debian", "Security", "Common", "Name", "Never", "containerd", "docker"),
    *("dockerd", "buildkitd", "kubelet", "kubectl", "kubeconfig", "context", "webhook", "etcd"),
    *("finalizer", "apply", "files", "pull", "push", "admin", "true", "false", "none", "root"),
    *("requiretty", "sudo", "sshd", "openssl", "apt", "dpkg", "systemd", "crontab", "restic"),
    *("skopeo", "registry", "hosts", "robot"),
}
# A word of English prose, which is no part of a path, an option, an address or a setting.
PROSE = re.compile(r"(?<![\w./=@:-])[A-Z]?[a-z]+(?:'[a-z]+)?(?![\w/=@:-]|\.\w)")
COMMAND = re.compile(r"(?:inv [a-z0-9_]+(?:\.[a-z_-]+)?|git pull)(?: --?[\w-]+(?:=\S+)?)*")


class Text(HTMLParser):
    """What is read or heard of a page: texts, and attributes that are read out; quotations in
    another language are marked as such, and left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._quoted: list[str] = []
        self._is_code = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self._quoted or (given.get("lang") == "en" and tag != "html"):
            self._quoted.append(tag)
        self._is_code = tag == "code"
        names = ("aria-label", "title", "alt", "placeholder")
        heard = [one for one in attrs if one[0] in names or one[0].startswith("data-")]
        self.found += [value or "" for name, value in heard if name != "data-version"]

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False
        if self._quoted and self._quoted[-1] == tag:
            self._quoted.pop()

    def handle_data(self, data: str) -> None:
        typed = self._is_code and (words.is_command(data) or re.search(r"[一-鿿]", data))
        if not self._quoted and not typed and data.strip():
            self.found.append(data.strip())


def english(text: str) -> list[str]:
    """The words of a Chinese text that are neither Chinese, nor names, nor commands."""
    return [one for one in PROSE.findall(COMMAND.sub(" ", text)) if one not in NAMES]


def templates() -> Iterator[str]:
    """The first word of every ``said(...)`` in the code, each branch of it."""
    for path in (ROOT / "moorage").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "said":
                yield from (
                    str(one.value)
                    for one in ast.walk(node.args[0])
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )


def the_table() -> dict[str, Any]:
    return tomllib.loads((Path(words.__file__).parent / "chinese.toml").read_text())


# -- words ----------------------------------------------------------------------------------------


def test_every_template_of_ours_has_its_chinese_with_the_same_slots() -> None:
    table_of = the_table()["words"]
    found = {one for one in templates() if re.search(r"[a-z]", one)}
    assert len(found) > 60
    assert found <= table_of.keys(), sorted(found - table_of.keys())
    for key, value in table_of.items():
        assert sorted(re.findall(r"{\w+}", key)) == sorted(re.findall(r"{\w+}", value)), key
        assert not english(re.sub(r"{\w+}", "1", value)), value


def test_every_error_that_the_page_can_show_has_its_chinese() -> None:
    faults = the_table()["faults"]
    of_the_lab = {code for code, one in explanations().items() if one.group.startswith("Lab")}
    assert faults.keys() - {""} <= explanations().keys()
    assert explanations().keys() - NEVER_SHOWN - of_the_lab <= faults.keys()
    for code, (means, cure) in faults.items():
        assert re.search(r"[一-鿿]", means), code
        assert words.is_command(cure) or re.search(r"[一-鿿]", cure), code
        assert not means.endswith("。"), code
        assert not english(means), code


def test_a_node_that_is_silent_is_named_in_chinese_too() -> None:
    fault = Fault("no-route", "far1 does not answer", "no route", "inv nodes.status --hosts=far1")
    (one,) = silent([Standing("far1", fault=fault)])
    assert words.told(one, "en").what == ""  # its message has the name
    assert (words.told(one, "zh").what, words.told(one, "zh").message) == (
        "far1", "到这个地址没有网络路由"
    )  # fmt: skip


def test_a_name_of_somebody_else_is_never_translated() -> None:
    rows = [("nodes", "never, answers, ended"), ("{count} nodes", "{x} {")]
    text = page.part("images", from_rows(("repository", "tags"), rows), "zh")
    assert "<td>never, answers, ended</td>" in text
    assert '<th scope="row">nodes</th>' in text
    assert "<td>{x} {</td>" in text
    assert words.value(said("{tags} and {count} more", tags="never {", count=2)) == (
        "never {，另有 2 个"
    )


def marked(text: str) -> str:
    return f"<{text}>"


def test_words_are_english_texts_that_know_their_template() -> None:
    made = said("{count} nodes", count=said("{count} d", count="3"))
    assert made == "3 d nodes"
    assert hash(made) == hash("3 d nodes")
    both = joined(", ", (made, "x"))
    assert both == "3 d nodes, x"
    for one in (made, both, Coded("it failed", "x")):
        again = copy.deepcopy(one)
        assert (again, type(again)) == (one, type(one))
        assert in_words(again, marked, str) == in_words(one, marked, str)
    assert in_words(Coded("it failed", "x"), str, lambda _: "") == "it failed"
    assert in_words(7, str, str) == "7"
    assert isinstance(made, Said)


@pytest.mark.parametrize(
    ("cure", "is_one"),
    [
        ("inv k8s.secret --namespace=a,b --attach", True),
        ("inv certs.issue && inv registry.up", True),
        ("kubectl delete pod web/shop-1", True),
        ("inv registry.status; inv certs.show", True),
        ("inv registry.up serves the current certificate", False),
        ("wait for the next try, or: kubectl delete pod a", False),
        ("inv nodes.adopt --hosts=a, then inv nodes.trust", False),
        ("inv image.push for the demo image", False),
        ("", False),
    ],
)
def test_a_command_is_told_from_a_sentence(cure: str, is_one: bool) -> None:
    assert words.is_command(cure) == is_one


def test_the_precise_command_of_a_cure_is_kept_and_a_sentence_is_chinese() -> None:
    command = trouble("n1", MoorageError("no-agent", "m", cure="inv nodes.adopt --hosts=n1"))
    assert words.told(command, "zh").cure == "inv nodes.adopt --hosts=n1"
    sentence = trouble("n1", MoorageError("no-room", "m", cure="make room there: df -h"))
    assert words.told(sentence, "zh").cure == "用 df -h 查看，腾出空间"
    assert words.told(sentence, "en").cure == "make room there: df -h"
    unknown = trouble("n1", MoorageError("nobody-knows", "some words"))
    assert words.told(unknown, "zh").original == "some words"
    assert not english(words.told(unknown, "zh").message)


# -- the whole page, of a fleet that is hurt -------------------------------------------------------


def hurt() -> Iterator[Standing]:
    """A node for each thing that can be said of one."""
    now = int(time.time())
    yield standing("n1", applied=now - 90, pulled=now - 3 * 86400, pull_seconds=1.2)
    yield standing("n2", drifted=(("/etc/a", "changed"), ("/etc/b", "missing")), files=3)
    for number, drift in enumerate(("stopped", "failing", "watching")):
        yield standing(
            f"n3{number}",
            resident=host.ResidentAgent(
                "0.9", "e" * 64, now + 86400, drift, number + 1, ("/etc/a",), "EROFS1"
            ),
            drifted=(("/etc/a", "changed"),), ca_ends=now + 86400,
        )  # fmt: skip
    yield standing("n4", resident=host.ResidentAgent("9.9", "f" * 64, now, "watching", 0, (), ""))
    yield standing("n5", waiting=("runc.service",), interrupted="apply", busy="apply")
    yield standing("n41", settling=True)
    yield standing("n42", unsettled=True)
    yield standing("n6", unproven=("docker",), resident=None, drifted=(("/etc/a", "missing"),))
    for place, code in enumerate(explanations().keys() - NEVER_SHOWN):
        fault = Fault(code, f"words of {code}", "a cause in English", "a cure, in words")
        yield Standing(f"m{place}", fault=fault)


def refused() -> Section:
    raise Refused("no-engine", "no Docker engine answers", cause="x", cure="inv up")


def broken() -> Section:
    raise ZeroDivisionError("a defect")


def pods() -> Section:
    groups = [
        {
            "code": code, "pods": ["web/shop-1"], "title": f"the title of {code}",
            "cause": "a cause in English", "cure": cure,
        }
        for code in explanations()
        if explanations()[code].group in ("Kubernetes", "Pulls") or code.startswith("secret")
        for cure in ("inv k8s.secret --namespace=web --attach", "look at it, then go on")
    ]  # fmt: skip
    return from_groups(groups, ["0" * 24] * len(groups))


def plots() -> Section:
    points = tuple(Point(60.0 * one, one) for one in range(3))
    titles = [("pulls", "a minute"), ("disk in use", "GiB"), ("drift put back", "times a minute")]
    made = [Plot(title, unit, points) for title, unit in titles]
    made += [Plot("nodes not in order", "", points[:1])]
    note = "one number per minute, since the page began"
    return Section(note=note, plots=tuple(made), seen=1.0)


def rolled_out(folder: Path) -> Section:
    from agent.wire.report import STATUSES, HostResult

    for end in ("", deeds.STOPPED, deeds.RESTORED, "the canary failed", None):
        targets = [Target(f"n{place}", "a") for place in range(len(STATUSES))]
        book = Logbook.begin(folder, "trust my.registry.io", targets)
        for target, status in zip(targets, STATUSES, strict=True):
            book.result(HostResult(target.name, status))
        if end is not None:
            book.end(end)
    return sources.rollouts(project(folder))


def registry_of(status: RegistryStatus, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Section:
    from moorage import registry
    from moorage.docker import engine

    monkeypatch.setattr(engine, "connect", lambda _: None)
    monkeypatch.setattr(registry, "status", lambda *_: status)
    return sources.registry(project(folder))


def everything(made: Served) -> Iterator[tuple[str, str]]:
    yield "/", made.shown("/", "zh")
    for name in SECTIONS:
        yield name, made.shown(f"/section/{name}", "zh")


def test_no_english_word_is_left_on_the_page_of_a_fleet_that_is_hurt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "folder", lambda _: tmp_path)
    given = dict.fromkeys(EVERY, refused)
    given |= {"rollouts": lambda: rolled_out(tmp_path), "pods": pods, "history": plots}
    given |= {"users": broken}
    with serving(500, **given) as made:
        for one in hurt():
            made.server.story.hear(one)
        made.server.story.put("actions", all_outcomes(tmp_path))
        made.server.offer(Actions(project(tmp_path), [Target("n1", "n1")], lambda _: None))
        made.log_in()
        wait_for(lambda: all(made.server.story.section(one, 0).seen for one in given))
        shown = list(everything(made))
        shown.append(("question", made.shown("/verify?of=n1", "zh")))
    for name, text in shown:
        assert 'lang="zh"' in text or name in SECTIONS
        left = {line: english(line) for line in Text(text).found}
        assert not {line: found for line, found in left.items() if found}, name
    assert len(dict(shown)["/"]) > 100_000


def all_outcomes(folder: Path) -> Section:
    """What the two actions can end with, each as the newest."""
    from dataclasses import replace

    from moorage.web.actions import AgreedAction

    actions = Actions(project(folder), [Target("n1", "n1")], lambda _: None)
    question = Question("verify", "n1", "inv nodes.verify --hosts=n1", ())
    ended = [
        None, ActionOutcome(said("proven")),
        ActionOutcome(said("proven by a pull in {took} s", took="1.2")),
        ActionOutcome(said("well; not proven: {parts}", parts="docker")),
        ActionOutcome(joined("; ", (said("pushed {image}", image="a1"), said("the pods run")))),
        ActionOutcome(
            error=MoorageError("x509-expired", "the certificate is old", "why", "do this")
        ),
    ]  # fmt: skip
    deeds = tuple(AgreedAction(1.0, "root, session 1", question, one) for one in ended)
    actions._deeds = tuple(replace(one, who="root1") for one in deeds)
    return actions.section()


@pytest.mark.parametrize(
    "status",
    [
        RegistryStatus("https://my.registry.io", "moorage-registry", 443, "u", True, True),
        RegistryStatus(
            "https://my.registry.io", "moorage-registry", 443, "u", False, False,
            problem=said("the container {name} is {state}", name="c1", state=Said("exited")),
        ),
        RegistryStatus(
            "https://my.registry.io", "", 443, "u", True, False, external=True,
            problem=Coded("the login is refused: the password is wrong", "login-refused"),
        ),
    ],
)  # fmt: skip
def test_the_registry_is_told_in_chinese(
    status: RegistryStatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project(tmp_path)
    settings.registry_data.mkdir(parents=True, exist_ok=True)
    found = registry_of(status, tmp_path, monkeypatch)
    text = page.part("registry", found, "zh")
    assert not [line for line in Text(text).found if english(line)]
    assert str(status.problem) in page.part("registry", found, "en")


def test_users_and_what_they_are_made_for_are_told_in_chinese(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        User(f"robot{place}", role, ("team1/**",), expires, purpose)
        for place, (role, expires, purpose) in enumerate(
            [("pull", 0, "nodes"), ("push", 4102444800, "secrets"), ("pull", 0, "rotation"),
             ("admin", 0, ""), ("pull", 0, users.of_namespace("web1"))]
        )
    ]  # fmt: skip
    monkeypatch.setattr(users, "everybody", lambda _: made)
    text = page.part("users", sources.users(project(tmp_path)), "zh")
    assert "命名空间 web1 的 Secret" in text
    assert not [line for line in Text(text).found if english(line)]


def test_what_is_answered_in_the_place_of_a_page_is_chinese_too(tmp_path: Path) -> None:
    with serving(1) as made:
        host_of = {"Host": "evil.example", "Accept_Language": "zh-CN"}
        told = [made.ask("/", **host_of), made.ask("/login?token=x", Accept_Language="zh")]
        told += [made.ask(path, Accept_Language="zh") for path in ("/", "/nowhere")]
        made.server.offer(Actions(project(tmp_path), [Target("n1", "n1")], lambda _: None))
        made.log_in()
        told.append(made.ask("/", "POST", Accept_Language="zh"))
        told.append(made.ask("/verify?of=x", Accept_Language="zh"))
        told.append(made.ask("/fix?of=x", Accept_Language="zh"))
        own = {"Origin": made.server.place.url, "Accept_Language": "zh"}
        form = {"Content_Type": "application/x-www-form-urlencoded", **own}
        for headers, body in (
            ({"Accept_Language": "zh"}, ""), ({**own, "Sec_Fetch_Site": "cross-site"}, ""),
            (own, "x"), (form, "x" * 5000), (form, "x"), (form, "of=n1&token=x"),
        ):  # fmt: skip
            told.append(made.ask("/verify", "POST", body, **headers))
    assert {status for status, _, _ in told} == {421, 403, 404, 405, 409, 415, 413, 400}
    for status, headers_of, text in told:
        assert headers_of["Content-Language"] == "zh"
        assert re.search(r"[一-鿿]", text), status
        assert not english(text.replace("--hosts=节点", "")), text
