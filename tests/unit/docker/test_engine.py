"""The engine is found where docker itself finds it, and its absence is explained."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.configuration.parsing import parse
from moorage.docker import dockerd, engine
from moorage.docker.engine import Endpoint
from moorage.errors import Refused
from moorage.settings import Settings
from moorage.ui import UI
from tests.unit.elsewhere import project


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of ~/.docker, and no say in the environment."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def add_context(config: Path, name: str, url: str) -> None:
    folder = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": url}}}
    (folder / "meta.json").write_text(json.dumps(meta))


def test_without_a_word_it_is_this_machines_own(config: Path) -> None:
    assert engine.endpoint() == Endpoint("unix:///var/run/docker.sock")


def test_the_current_context_is_followed(config: Path) -> None:
    add_context(config, "far", "ssh://me@far.lan")
    (config / "config.json").write_text('{"currentContext": "far"}')
    found = engine.endpoint()
    assert (found.url, found.source) == ("ssh://me@far.lan", "context far")
    assert not found.local


def test_the_environment_comes_before_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(config, "far", "ssh://me@far.lan")
    add_context(config, "near", "tcp://near.lan:2375")
    (config / "config.json").write_text('{"currentContext": "far"}')
    monkeypatch.setenv("DOCKER_CONTEXT", "near")
    assert engine.endpoint().url == "tcp://near.lan:2375"
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert engine.endpoint() == Endpoint("unix:///run/user/1000/docker.sock", "DOCKER_HOST")


def test_a_context_that_is_not_there_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(Refused, match="'gone' is not there"):
        engine.endpoint()


def test_a_broken_context_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_context(config, "torn", "tcp://x:1")
    for meta in config.rglob("meta.json"):
        meta.write_text("{")
    monkeypatch.setenv("DOCKER_CONTEXT", "torn")
    with pytest.raises(Refused, match="'torn' cannot be read"):
        engine.endpoint()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("unix:///nowhere/docker.sock", "No such file or directory"),
        ("tcp://nowhere.invalid:2375", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_an_engine_that_was_asked_for_is_not_replaced_by_another(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, cause: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)
    settings = project(tmp_path)
    for ask in (engine.connect, engine.pending):
        with pytest.raises(Refused) as refusal:
            ask(settings)
        assert refusal.value.code == "no-engine"
        assert "DOCKER_HOST" in refusal.value.message
        assert cause in refusal.value.cause
        assert "unset DOCKER_HOST" in refusal.value.cure
    assert not engine.answers(settings)


def test_a_socket_that_nobody_listens_on_is_no_engine(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    path = sockets / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    monkeypatch.setattr(engine, "SOCKET", path)
    with pytest.raises(Refused) as refusal:
        engine.connect(project(tmp_path))
    assert refusal.value.cause == "nothing listens there"
    assert "inv up" in refusal.value.cure


def test_who_may_not_open_the_socket_is_told_of_the_group() -> None:
    inner = PermissionError(13, "Permission denied")
    refusal = engine.explain(Endpoint("unix:///var/run/docker.sock"), Exception("x", inner))
    assert refusal.code == "engine-forbidden"
    assert "usermod -aG docker" in refusal.cure


def test_who_could_not_use_it_is_told_before_anything_is_installed(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "SOCKET", tmp_path / "none")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "getegid", lambda: 65534)
    monkeypatch.setattr(os, "getgroups", lambda: [65534])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(Refused) as refusal:
        engine.pending(project(tmp_path))
    assert refusal.value.code == "engine-forbidden"
    assert "usermod -aG docker" in refusal.value.cure


def test_what_would_be_done_is_told_and_asked(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "SOCKET", tmp_path / "none")
    monkeypatch.setattr(engine, "_in_group", lambda: True)
    monkeypatch.setattr(dockerd, "systemd_is_running", lambda: True)
    actions = engine.pending(project(tmp_path))
    assert all(action.asks for action in actions)
    assert "systemctl" in actions[-1].text


@pytest.mark.parametrize(
    ("data", "options"), [("", []), ("/srv/docker", ["--data-root", "/srv/docker"])]
)
def test_one_started_by_hand_keeps_its_data_where_settings_say(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: str, options: list[str]
) -> None:
    """Started by a stand-in: the option alone is looked at."""
    given: list[list[str]] = []
    monkeypatch.setattr(engine, "pending", lambda settings: ["start it"])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(dockerd, "systemd_is_running", lambda: False)
    monkeypatch.setattr(dockerd, "start", lambda *_, options, **__: given.append(options))
    monkeypatch.setattr(engine, "connect", lambda settings: socket.socket())
    engine.ensure(parse({"engine": {"data": data}}), UI().progress)
    assert given == [options]


@pytest.mark.engine
def test_one_that_answers_needs_nothing(tmp_path: Path) -> None:
    settings = project(tmp_path)
    assert engine.answers(settings)
    assert engine.pending(settings) == []
    engine.ensure(settings, UI().progress)
    assert not engine.started_by_us(settings)
    assert not engine.stop(settings, UI())


@pytest.mark.engine
def test_an_engine_in_which_others_work_stays_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from moorage.docker import debian

    settings: Settings = project(tmp_path)
    dockerd.remember(settings.state, "dockerd")
    client = engine.connect(settings)
    image = debian.base_image(Settings(), client, UI(yes=True).progress)
    stranger = client.containers.run(
        image, ["sleep", "60"], detach=True, auto_remove=True, labels={engine.LABEL_PROJECT: ""}
    )
    try:
        assert not engine.stop(settings, UI())
        assert str(stranger.name) in capsys.readouterr().err
        assert engine.started_by_us(settings)
    finally:
        stranger.remove(force=True)


def refusal(settings: Settings, labels: dict[str, str]) -> Refused:
    """What is said of a container with these labels; the container itself is a stand-in."""
    found: Any = SimpleNamespace(name="moorage-registry", labels=labels)
    with pytest.raises(Refused) as refused:
        engine.refuse_stranger(settings, found, "registry.down", "registry.container")
    assert refused.value.code == "name-taken"
    assert "registry.container" in refused.value.cure
    return refused.value


def test_a_name_taken_by_another_checkout_is_freed_there(tmp_path: Path) -> None:
    settings = project(tmp_path / "ours")
    own: Any = SimpleNamespace(name="moorage-lab1", labels=engine.labels(settings, "lab"))
    engine.refuse_stranger(settings, own, "lab.down", "lab.prefix")
    theirs = tmp_path / "their check out"
    theirs.mkdir()
    labels = {engine.LABEL_PROJECT: str(theirs)}
    assert "no longer here" in refusal(settings, labels).cause
    (theirs / "run").touch()
    assert refusal(settings, labels).cure.startswith(f"cd '{theirs}' && ./run inv registry.down")
    assert "docker rename moorage-registry" in refusal(settings, {}).cure
