"""What a command does is told: -v, its log, the bundle; and no secret is."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from moorage import commands, redaction
from moorage.errors import MoorageError
from moorage.logs import command_log, support
from moorage.ui import UI
from tests.terminal import on_a_terminal
from tests.unit.elsewhere import checkout, project
from tests.unit.program.test_help import ROOT

PASSWORD = "canary-pass/word+1"
KEY = "Y2FuYXJ5a2V5Y2FuYXJ5a2V5Y2FuYXJ5a2V5Y2FuYXJ5"
TOKEN = "canarytoken.0123456789abcdef"
JWT = "eyJhbGciOiJub25lIn0.eyJjYW5hcnkiOiJqd3QifQ.c2lnbmF0dXJl"
PEM = f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n"
BASIC = base64.b64encode(f"u:{PASSWORD}".encode()).decode()
URL_FORM = quote(PASSWORD, safe="")
LEAKS = (
    f"password: {PASSWORD}", f"PASSWORD={PASSWORD}", json.dumps({"auth": TOKEN}),
    f"Authorization: Bearer {TOKEN}", f"Authorization: Basic {BASIC}", PEM, JWT,
    f"--password {PASSWORD} x", f"client-key-data: {KEY}", f"https://u:{URL_FORM}@a.io/v2/",
    f"GET /v2/?access_token={TOKEN}&scope=x", f"'api_key': '{TOKEN}'", f"MY_TOKEN='{TOKEN}'",
)  # fmt: skip
CANARIES = (
    *(PASSWORD, KEY, TOKEN, JWT, BASIC, "canary"), base64.b64encode(PASSWORD.encode()).decode(),
)  # fmt: skip


def inv(folder: Path, *lines: list[str], **variables: str) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each command line, each in a process of its own."""
    if not (folder / "lab").exists():
        shutil.copytree(ROOT / "lab", folder / "lab")
    # The session that runs this has settings of its own.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INVOKE_")}
    told = []
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-P", str(folder / "moorage" / "program" / "start.py"), *line],
            cwd=folder, env={**clean, "HOME": str(folder), **variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        told.append((done.returncode, done.stdout, done.stderr))
    return told


@pytest.fixture(autouse=True)
def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())


def leaked(text: str) -> list[str]:
    return [canary for canary in CANARIES if canary in text]


@pytest.mark.parametrize("leak", LEAKS)
def test_what_looks_like_a_secret_is_taken_out(leak: str) -> None:
    assert leaked(leak)
    assert leaked(redaction.redacted(f"before {leak}")) == []
    assert redaction.redacted(f"before {leak}").startswith("before ")


@pytest.mark.parametrize(
    "form",
    [PASSWORD, json.dumps(PASSWORD), "canary-pass%2Fword%2B1",
     *(base64.b64encode(b"x" * n + PASSWORD.encode() + b"yy").decode() for n in range(4))],
)  # fmt: skip
def test_a_known_secret_is_taken_out_in_every_form(form: str) -> None:
    redaction.keep_secret(PASSWORD)
    text = redaction.redacted(f"it said {form} there")
    assert "it said " in text
    assert " there" in text
    assert form not in text


@pytest.mark.parametrize(
    "text",
    ["run: apt-get install -y docker.io", "ssh: a session with [10.0.0.1]:2222",
     "GET /v2/serve_hostname/manifests/0.0.1 of the registry: 200", "author: somebody",
     "/root/.moorage/registry/password is not readable", "the secret my-registry in default"],
)  # fmt: skip
def test_words_that_are_no_secret_stay(text: str) -> None:
    assert redaction.redacted(text) == text


def begun(folder: Path, said: list[str], level: int = 0) -> command_log.CommandLog:
    return command_log.begin(
        folder, "nodes.trust", "inv nodes.trust --hosts=a", say=said.append, level=level
    )


@pytest.mark.parametrize(("level", "heard"), [(0, 0), (1, 2), (2, 3)])
def test_programs_are_said_as_far_as_was_asked_for(tmp_path: Path, level: int, heard: int) -> None:
    said: list[str] = []
    log = begun(tmp_path / "log", said, level)
    try:
        commands.run(["sh", "-c", f"echo 'token={TOKEN}' >&2"])
        logging.getLogger("moorage.said").info("said already")
    finally:
        command_log.end(log)
    assert len(said) == heard
    assert leaked("".join(said)) == []
    assert log.path is not None
    written = log.path.read_text()
    assert "run: sh -c" in written
    assert "sh ended with 0" in written
    assert "said already" in written
    assert leaked(written) == []


@pytest.mark.parametrize("name", ["moorage.ssh", "urllib3.connectionpool", "paramiko.transport"])
@pytest.mark.parametrize("message", ['%s://%s:%s "%s %s %s"', "kex follows"])
@pytest.mark.parametrize("at", [logging.DEBUG, logging.INFO, logging.ERROR])
@pytest.mark.parametrize("most", [1, 2])
def test_a_record_is_made_where_the_log_would_take_it(
    name: str, message: str, at: int, most: int
) -> None:
    record = logging.LogRecord(name, at, "", 0, message, (), None)
    if command_log.level_of(record) <= most:
        assert at >= command_log.floor_of(name.partition(".")[0], most)


def test_records_that_no_log_would_take_are_not_made(tmp_path: Path) -> None:
    said: list[str] = []
    transport = logging.getLogger("paramiko.transport")
    few = begun(tmp_path / "few", said)
    assert not transport.isEnabledFor(logging.ERROR)
    all_of_them = begun(tmp_path / "all", said, 2)
    try:
        assert transport.isEnabledFor(logging.DEBUG)
        begun_meanwhile = begun(tmp_path / "meanwhile", said)
        assert transport.isEnabledFor(logging.DEBUG)
        command_log.end(begun_meanwhile)
    finally:
        command_log.end(all_of_them)
        command_log.end(few)


def test_a_log_is_the_users_alone_and_is_kept_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_log, "MOST_BYTES", 2000)
    folder = tmp_path / "log"
    for number in range(command_log.KEPT + 5):
        (folder / f"2020010{number:03}-1-up.log").parent.mkdir(exist_ok=True)
        (folder / f"2020010{number:03}-1-up.log").touch()
    log = begun(folder, [])
    for _ in range(100):
        logging.getLogger("moorage.programs").info("x" * 100)
    command_log.end(log)
    assert log.path is not None
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == command_log.KEPT
    assert log.path.stat().st_size < 2500
    assert "the log ends here" in log.path.read_text()


def test_a_command_that_did_nothing_leaves_no_log(tmp_path: Path) -> None:
    command_log.end(begun(tmp_path / "log", []))
    assert not (tmp_path / "log").exists()


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    log = begun(tmp_path / "log", [])
    logging.getLogger("moorage.programs").info("x")
    command_log.end(log)
    assert log.path is None


def test_a_log_is_named_after_its_task_wherever_that_stands(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (tmp_path / "more.yaml").write_text("nodes: {}\n")
    words = ["-f", str(tmp_path / "more.yaml"), "certs.show", "--json"]
    [(_, out, _)] = inv(folder, words)
    assert json.loads(out)["log"].endswith("-certs.show.log")


def test_a_failure_tells_where_its_log_is(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    [(code, _, err)] = inv(folder, ["nodes.status", "--hosts=127.0.0.1:1", "-v"], SSH_AUTH_SOCK="")
    assert code == 1
    assert re.search(r"^run: \S+/ssh -T -G ", err, re.MULTILINE)
    paths = re.findall(r"log: (\S+)", err)
    assert paths, err
    assert "/ssh -T -G " in Path(paths[0]).read_text()
    (_, out, _) = inv(folder, ["certs.show", "--json"])[0]
    assert Path(json.loads(out)["log"]).exists()


def test_no_secret_is_in_logs_and_bundle_of_real_commands(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    registry = folder / ".moorage" / "registry"
    registry.mkdir(parents=True)
    (registry / "password").write_text(f"{PASSWORD}\n")
    (folder / "certs").mkdir()
    (folder / "certs" / "extra.key").write_text(PEM)
    logs = folder / ".moorage" / "log"
    logs.mkdir()
    (logs / "20200101T000000-1-up.log").write_text("\n".join([*LEAKS, PASSWORD, KEY, "harmless"]))
    lines = [
        ["certs.issue", "-vv"], ["registry.status", "-vv"],
        ["lab.ssh", f"echo password={PASSWORD}", "-vv"], ["support", "--json"],
    ]  # fmt: skip
    told = inv(folder, *lines)
    written = [one for one in logs.iterdir() if not one.name.startswith("2020")]
    assert len(written) >= 2
    for path in written:
        assert leaked(path.read_text()) == [], path
    assert leaked("".join(err for _, _, err in told[:2])) == []
    document = json.loads(told[-1][1])
    assert {"versions.json", "settings.json", "findings.json"} <= set(document["files"])
    bundle = Path(document["path"])
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as packed:
        texts = {one.name: packed.extractfile(one).read().decode() for one in packed}  # type: ignore[union-attr]
    assert any("harmless" in text for text in texts.values())
    issued = [line for key in (folder / "certs").glob("*.key") for line in key.read_text().split()
              if len(line) > 30 and "-" not in line]  # fmt: skip
    assert len(issued) > 2
    for name, text in texts.items():
        assert leaked(text) == [], name
        assert not [line for line in issued if line in text], name


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("registry/password", PASSWORD),
        ("registry/caches/docker.io/login", f"robot:{PASSWORD}\n"),
    ],
)
def test_a_bundle_with_a_secret_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, text: str
) -> None:
    settings = project(tmp_path)
    path = settings.state / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    monkeypatch.setattr(support, "redacted", lambda text: text)
    with pytest.raises(MoorageError) as problem:
        support.write(settings, {"findings": [PASSWORD]})
    assert problem.value.code == "secret-in-bundle"
    assert not (tmp_path / ".moorage" / "support").exists()


PATH = "/var/lib/moorage/registry/data/docker/registry/v2/repositories/serve_hostname"
TABLE = (
    f"from moorage.ui import UI; UI().table(['a', 'path', 'why'], [['b', {PATH!r}, 'x y ' * 60]])"
)


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_no_path_breaks_in_its_middle_on_a_terminal(columns: int) -> None:
    written = on_a_terminal(TABLE, COLUMNS=str(columns), TERM="xterm")[1]
    assert PATH in written


def test_in_a_pipe_a_row_is_a_line_without_blanks_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if PATH in line]
    assert len(rows) == 1
    assert rows[0].endswith("x y")
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]


def test_a_defect_of_ours_is_in_the_log_too(tmp_path: Path) -> None:
    ui = UI()
    from moorage.tasks import command

    with pytest.raises(ZeroDivisionError), command._logged(ui, 0) as log:
        _ = 1 / 0
    assert log.path is not None
    assert "ZeroDivisionError" in log.path.read_text()
    log.path.unlink()


def test_a_secret_of_one_letter_uncovers_no_key() -> None:
    """It is in the words by which a key is known."""
    redaction.keep_secret("E")
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgAwawIBAQQgVOy19\n-----END PRIVATE KEY-----\n"
    assert "MIGHAg" not in redaction.redacted(f"key: {key}")
