"""What the page tells of a real registry behind a real front, and of numbers over time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.errors import MoorageError
from moorage.registry import service
from moorage.registry.front import traffic
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials, credentials
from moorage.registry.storage.layout import Layout
from moorage.web import page, sources
from moorage.web.drawing import drawn
from moorage.web.history import MOST_POINTS, History, Point, Series, thinned
from moorage.web.story import Plot, Section, Story, from_rows
from tests.loopback import Loopback, loopback
from tests.unit.elsewhere import project, registry_project
from tests.unit.registry.front.test_front import MANIFEST, push_blob
from tests.unit.web.test_page import EVIL, OWN, standing


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A registry with an image of 1,000 bytes under two tags, and a blob that nothing needs."""
    with loopback(registry_project(tmp_path_factory.mktemp("front"))) as made:
        who = credentials(made.settings)
        config, layer = push_blob(made, who, "team/app", b"{}"), b"x" * 998
        digest = push_blob(made, who, "team/app", layer)
        content = json.dumps(
            {
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": "a/b", "size": 2, "digest": config},
                "layers": [{"mediaType": "a/b", "size": len(layer), "digest": digest}],
            }
        ).encode()  # fmt: skip
        for tag in ("1", "2"):
            path = f"/v2/team/app/manifests/{tag}"
            assert made.ask("PUT", path, who, content, {"Content-Type": MANIFEST})[0] == 201
        push_blob(made, who, "team/app", b"y" * 5000)
        _age(made.settings.registry_data, 7200)
        yield made


def _age(folder: Path, seconds: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_images_have_tags_and_sizes_and_what_a_collection_would_free(front: Loopback) -> None:
    found = sources.images(front.settings)
    ((name, tags, size, pushed),) = found.rows
    manifest = next(iter(Layout(front.settings.registry_data).revisions("team/app")))
    content = Layout(front.settings.registry_data).read(manifest, 9999) or b""
    assert (name, sorted(tags.split(", "))) == ("team/app", ["1", "2"])
    # Both tags are one image: its parts and its manifest count once.
    assert size == f"{(1000 + len(content)) / 1000:.1f} kB"
    assert pushed == time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() - 7200))
    told = dict(found.facts)
    assert told["a collection would free"] == "5.0 kB in 1 blob: inv registry.collect"
    assert told["together"].endswith("in 4 blobs")


def test_what_somebody_put_into_the_folder_keeps_no_image_back(front: Loopback) -> None:
    layout = Layout(front.settings.registry_data)
    name = EVIL.replace("/", "_")
    odd = layout.tag_link(name, name)
    odd.parent.mkdir(parents=True)
    odd.write_text(f"sha256:{'0' * 64}")
    try:
        names = [row[0] for row in sources.images(front.settings).rows]
    finally:
        shutil.rmtree(layout.top / "repositories" / name)
    assert "team/app" in names


def test_a_damaged_manifest_is_told_beside_the_images(front: Loopback) -> None:
    layout = Layout(front.settings.registry_data)
    path = layout.blob(next(iter(layout.revisions("team/app"))))
    content = path.read_bytes()
    path.write_bytes(b"spoilt")
    try:
        found = sources.images(front.settings)
    finally:
        path.write_bytes(content)
        _age(path.parent, 7200)
    assert [row[0] for row in found.rows] == ["team/app"]
    assert "cannot be read" in found.troubles[0].fault.message


def test_users_are_shown_with_their_roles_and_without_a_secret(front: Loopback) -> None:
    password = users.add(front.settings, User("robot", "push", ("team/**",), 4102444800))
    try:
        found = sources.users(front.settings)
    finally:
        users.remove(front.settings, "robot")
    own = credentials(front.settings)
    assert ("robot", "push", "team/**", "2100-01-01", "") in found.rows
    assert (own.user, "admin", "**", "never") in [row[:4] for row in found.rows]
    text = page.part("users", found, "en")
    assert password not in text
    assert own.password not in text
    assert not re.search(r"[0-9A-F]{64}", text)


def test_requests_are_counted_by_the_front(front: Loopback) -> None:
    run = service.run(front.settings)
    before = traffic.requests(run)
    for _ in range(3):
        front.ask("GET", "/v2/", credentials(front.settings))
    front.ask("GET", "/v2/", Credentials("nobody", "wrong"))
    after = traffic.requests(run)
    assert (after.all - before.all, after.refused - before.refused) == (4, 1)
    ((_, said), (_, words)) = sources._front(front.settings)
    assert said == "answers"
    assert words.startswith(f"{after.all} since its start, {after.refused} refused")


def test_a_front_that_is_silent_is_said_with_the_cure(tmp_path: Path) -> None:
    ((name, words),) = sources._front(project(tmp_path))
    assert (name, words) == ("front", "the registry's front does not answer: inv registry.up")
    with pytest.raises(MoorageError):
        traffic.requests(tmp_path)


def test_pulls_are_counted_by_the_registry(front: Loopback) -> None:
    text = (front.settings.state / "config.yml").read_text()
    port = int(re.findall(r"addr: 127\.0\.0\.1:(\d+)", text)[0])
    before = traffic.pulls(port)
    assert before is not None
    who = credentials(front.settings)
    for tag in ("1", "2", "none"):
        front.ask("GET", f"/v2/team/app/manifests/{tag}", who, headers={"Accept": MANIFEST})
    front.ask("HEAD", "/v2/team/app/manifests/1", who, headers={"Accept": MANIFEST})
    assert traffic.pulls(port) == before + 2


def test_metrics_of_somebody_else_count_no_pulls(tmp_path: Path) -> None:
    assert traffic.read_pulls("up 1\n") is None
    assert traffic.read_pulls("# HELP registry_storage_action_seconds x\n") == 0
    assert traffic.pulls(1) is None


# -- numbers over time -----------------------------------------------------------------------------


def series(*values: float | None, counts: bool = False) -> list[float]:
    made = Series("a", "b", counts=counts)
    for minute, value in enumerate(values):
        made.add(value, minute * 60.0)
    return [round(one.value, 3) for one in made.plot().points]


def test_a_counter_is_shown_by_its_growth_and_a_gauge_as_it_is() -> None:
    assert series(3, 3, 5) == [3, 3, 5]
    assert series(100, 100, 130, counts=True) == [0, 30]
    assert series(100, 7, counts=True) == [7]  # begun again
    assert series(100, None, 200, 260, counts=True) == [60]  # nobody knows of the time between


def test_of_a_day_the_peaks_are_kept() -> None:
    points = tuple(Point(minute * 60.0, 50.0 if minute == 777 else 1.0) for minute in range(1440))
    kept = thinned(points)
    assert len(kept) == MOST_POINTS
    assert kept[-1].at == points[-1].at
    assert [one.value for one in kept].count(50.0) == 1


def test_a_plot_is_drawn_from_nought_to_its_highest() -> None:
    made = drawn(Plot("pulls", "a minute", (Point(0, 0), Point(60, 10), Point(120, 5))))
    assert made.lines == ("0.0,120.0 300.0,0.0 600.0,60.0",)
    assert (made.latest, made.lowest, made.highest) == ("5", "0", "10")
    assert [value for _, value in made.rows] == ["5", "10", "0"]
    gap = drawn(Plot("a", "", (Point(0, 1), Point(60, 1), Point(6000, 1), Point(6060, 1))))
    assert len(gap.lines) == 2
    for few in ((), (Point(0, 1),)):
        assert drawn(Plot("a", "", few)).lines == ()


def test_a_plot_is_readable_without_script_picture_or_style() -> None:
    plot = Plot("pulls", "a minute", tuple(Point(n * 60.0, n) for n in range(30)))
    for lang, words in {"en": ("Pulls", "As a table"), "zh": ("拉取次数", "表格")}.items():
        section = dataclasses.replace(from_rows((), ()), plots=(plot,))
        text = page.part("history", section, lang)
        assert "<polyline" in text
        assert re.search(rf'<title id="plot-pulls-title">{words[0]}</title>', text)
        assert 'aria-labelledby="plot-pulls-title plot-pulls-words"' in text
        assert f"<summary>{words[1]}" in text
        assert text.count('<th scope="row">') == 24
        assert "style=" not in text
        assert "<script" not in text


def test_the_history_counts_pulls_disk_and_drift_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 600, 60))
    pulled = iter((10, 40, 40))
    monkeypatch.setattr(traffic, "pulls", lambda _: next(pulled))
    settings = project(tmp_path)
    settings.registry_data.mkdir(parents=True)
    story = Story(OWN, 3, lambda _: None)
    history = History(settings, story, lambda: float(next(now)))
    story.hear(standing("a"))
    resident = standing("b").resident
    assert resident is not None
    story.hear(standing("b", resident=dataclasses.replace(resident, healed=2)))
    history.look()
    story.hear(standing("b", resident=dataclasses.replace(resident, healed=5)))
    story.hear(standing("a", drifted=(("/etc/x", "changed"),)))
    history.look()
    told = {one.title: [point.value for point in one.points] for one in history.look().plots}
    assert told["pulls"] == [30, 0]
    assert told["nodes not in order"] == [0, 1, 1]
    assert told["drift put back"] == [3, 0]
    assert len(told["disk in use"]) == 3


def test_a_registry_of_somebody_else_has_no_pulls_and_no_disk(tmp_path: Path) -> None:
    settings = project(tmp_path)
    external = dataclasses.replace(settings.registry, external=True)
    found = History(project(tmp_path, registry=external), Story(OWN, 0, lambda _: None)).look()
    assert [one.title for one in found.plots] == ["nodes not in order", "drift put back"]


def test_a_source_that_takes_long_is_asked_less_often() -> None:
    from moorage.web.server import MOST_SHARE, _looked

    def works() -> Section:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            hashlib.sha256(b"x" * 10000)
        return Section()

    _, took = _looked(works)
    assert took >= 0.05
    assert took / MOST_SHARE >= 10  # seconds until the next look
    assert _looked(lambda: time.sleep(0.05) or Section())[1] < 0.04  # type: ignore[func-returns-value]
