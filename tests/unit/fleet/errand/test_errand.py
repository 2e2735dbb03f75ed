"""The shell words and the bootstrap, run by real shells; what the answers mean.

The archive here is a tiny stand-in for the agent's. It tells what it was given.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from moorage.archive import AgentArchive
from moorage.fleet.errand import errand
from moorage.fleet.errand.errand import (
    Become,
    ErrandAnswer,
    as_root,
    cold_words,
    host_result,
    warm_words,
)
from moorage.fleet.ssh.session import Session

STAND_IN = """
import json, sys
plan = sys.stdin.read()
print(json.dumps({"event": "facts", "runtime": "stand-in", "plan": plan, "words": sys.argv[1:]}))
print(json.dumps({"event": "result", "host": "x", "status": "unchanged", "changes": [],
    "restarts": [], "verified": None, "pull_seconds": None, "error": None}))
"""
PLAN = b'{"version": 1}'


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        bundle.writestr("__main__.py", STAND_IN)
        # Bigger than a pipe, so that a reader that takes more than it should is found out.
        bundle.writestr("ballast", os.urandom(200_000))
    return content.getvalue()


ARCHIVE = archive()
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


class Node:
    """A folder that stands for a node's /var/lib."""

    def __init__(self, root: Path) -> None:
        self.state = root / "moorage"
        self.path = os.environ["PATH"]

    def sh(
        self, words: str, stdin: bytes, become: Become | None = None, prompt: str = ""
    ) -> tuple[ErrandAnswer, int]:
        words = words.replace("/var/lib/moorage", str(self.state))
        command = as_root(words, become or Become(sudo=False), prompt)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            input=stdin,
            capture_output=True,
            env={"PATH": self.path},
            check=False,
        )
        self.events: list[dict[str, object]] = []
        answer = ErrandAnswer(self.events.append)
        answer.stdout(done.stdout)
        answer.stderr(done.stderr)
        answer.end()
        answer.status = done.returncode
        return answer, done.returncode

    def warm(self) -> tuple[ErrandAnswer, int]:
        return self.sh(warm_words(DIGEST, ["apply", "--dry-run"]), PLAN)

    def cold(self, content: bytes = ARCHIVE) -> tuple[ErrandAnswer, int]:
        words = cold_words(DIGEST, len(content), ["apply", "--dry-run"])
        return self.sh(words, content + PLAN)

    def programs(self, folder: Path, **scripts: str) -> None:
        """Nothing but these programs is found on the node."""
        folder.mkdir()
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        self.path = str(folder)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def code(answer: ErrandAnswer, status: int) -> str:
    answer.status = status
    error = host_result("n", answer, "op").error
    assert error is not None
    assert error.cause
    assert error.cure
    return error.code


def test_a_node_without_the_archive_says_so(node: Node) -> None:
    answer, _ = node.warm()
    assert errand.absent(answer)


def test_the_archive_is_brought_once_and_found_the_next_time(node: Node) -> None:
    for run in (node.cold, node.warm):
        answer, status = run()
        assert status == 0
        assert host_result("n", answer, "root").status == "unchanged"
        # Plan and words arrive whole, and nothing of the archive with them.
        assert node.events[0]["plan"] == PLAN.decode()
        assert node.events[0]["words"] == ["apply", "--dry-run"]


def test_what_is_brought_belongs_to_its_owner_alone(node: Node) -> None:
    node.cold()
    folder = node.state / "agent"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert node.state.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [f"{DIGEST}.python", f"{DIGEST}.pyz"]
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_archive_is_brought_again_where_its_python_is_gone(node: Node) -> None:
    node.cold()
    (node.state / "agent" / f"{DIGEST}.python").write_text("/gone/python3\n")
    answer, _ = node.warm()
    assert errand.absent(answer)
    assert node.cold()[1] == 0
    assert node.warm()[1] == 0


def test_archives_of_long_ago_are_cleared_away(node: Node) -> None:
    node.cold()
    folder = node.state / "agent"
    for name, age in (("old.pyz", 3 * 86400), ("old.python", 3 * 86400), ("new.pyz", 60)):
        (folder / name).touch()
        os.utime(folder / name, (1, folder.stat().st_mtime - age))
    node.cold()
    assert {path.name for path in folder.iterdir()} == {
        "new.pyz",
        f"{DIGEST}.python",
        f"{DIGEST}.pyz",
    }


def test_a_damaged_archive_is_not_run(node: Node) -> None:
    answer, status = node.cold(ARCHIVE[:-1] + b"x")
    assert code(answer, status) == "bad-transfer"
    assert not (node.state / "agent" / f"{DIGEST}.pyz").exists()


def test_a_folder_that_others_may_write_is_refused(node: Node) -> None:
    node.state.mkdir()
    node.state.chmod(0o777)
    answer, status = node.cold()
    assert code(answer, status) == "unsafe-folder"


def test_a_link_in_the_place_of_the_folder_is_refused(node: Node, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    node.state.symlink_to(tmp_path / "elsewhere")
    answer, status = node.cold()
    assert code(answer, status) == "unsafe-folder"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_node_without_python_says_so(node: Node, tmp_path: Path) -> None:
    node.programs(tmp_path / "bin", sh='exec /bin/sh "$@"')
    answer, status = node.cold()
    assert code(answer, status) == "no-python"


def test_a_python_that_is_too_old_is_told(node: Node, tmp_path: Path) -> None:
    node.programs(tmp_path / "bin", sh='exec /bin/sh "$@"', python3="exit 1")
    answer, status = node.cold()
    assert code(answer, status) == "old-python"


def test_a_newer_python_beside_an_old_one_is_found(node: Node, tmp_path: Path) -> None:
    newer = f'exec {shutil.which(sys.executable)} "$@"'
    node.programs(
        tmp_path / "bin", **{"sh": 'exec /bin/sh "$@"', "python3": "exit 1", "python3.11": newer}
    )
    assert node.cold()[1] == 0
    recorded = (node.state / "agent" / f"{DIGEST}.python").read_text()
    assert recorded == f"{tmp_path}/bin/python3.11\n"


def test_no_sudo_is_told(node: Node, tmp_path: Path) -> None:
    node.programs(tmp_path / "bin", sh='exec /bin/sh "$@"', id="echo 1000")
    answer, status = node.sh(warm_words(DIGEST, ["status"]), PLAN, Become(sudo=True))
    assert code(answer, status) == "no-sudo"


def test_no_sudo_is_needed_where_the_login_is_root_already(node: Node, tmp_path: Path) -> None:
    node.programs(tmp_path / "bin", sh='exec /bin/sh "$@"', id="echo 0")
    answer, _ = node.sh(warm_words(DIGEST, ["status"]), PLAN, Become(sudo=True))
    assert errand.absent(answer)


def test_sudo_is_called_without_a_question_where_there_is_no_password(
    node: Node, tmp_path: Path
) -> None:
    tells = 'printf "%s %s %s" "$1" "$2" "$3" >&2; exit 1'
    node.programs(tmp_path / "bin", sh='exec /bin/sh "$@"', id="echo 1000", sudo=tells)
    node.path += f":{os.environ['PATH']}"
    answer, _ = node.sh(warm_words(DIGEST, ["status"]), PLAN, Become(sudo=True))
    assert answer.words.startswith("-n sh -c")


def test_the_password_is_in_no_command_line() -> None:
    become = Become(sudo=True, password="hunter2")
    assert "hunter2" not in as_root(warm_words(DIGEST, ["apply"]), become, "prompt:")
    assert "hunter2" not in repr(become)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("sudo: a password is required", "sudo-needs-password"),
        ("sudo: interactive authentication is required", "sudo-needs-password"),
        ("Sorry, try again.\nsudo: no password was provided", "wrong-sudo-password"),
        ("bob is not in the sudoers file.", "sudo-refused"),
        ("Sorry, user bob is not allowed to execute '/bin/sh' as root", "sudo-refused"),
        ("sudo: sorry, you must have a tty to run sudo", "sudo-wants-tty"),
        ('Please login as the user "ubuntu" rather than the user "root".', "wrong-user"),
        ("This account is currently not available.", "wrong-user"),
        ("sh: 1: cannot create /x: No space left on device", "no-room"),
        ("Segmentation fault", "agent-died"),
        ("", "agent-died"),
    ],
)
def test_words_that_are_no_answer_are_explained(said: str, expected: str) -> None:
    answer = ErrandAnswer()
    answer.stderr(b"sudo: unable to resolve host node1: Name or service not known\n" * bool(said))
    answer.stderr(said.encode())
    answer.end()
    assert code(answer, 1) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(28, "no-room"), (30, "read-only-disk"), (122, "no-room"), (13, "not-installed")],
)
def test_a_disk_that_takes_nothing_is_explained(number: int, expected: str) -> None:
    answer = ErrandAnswer()
    event = {"event": "not-installed", "errno": number, "path": "/var/lib/moorage/agent"}
    answer.stdout(json.dumps(event).encode() + b"\n")
    assert code(answer, 85) == expected


def test_a_greeting_before_the_events_does_no_harm() -> None:
    answer = ErrandAnswer()
    answer.stdout(b"Welcome to node1!\n{not json}\n[1]\n")
    answer.stdout(
        b'{"event": "result", "host": "node1.lan", "status": "changed", "changes": '
        b'[{"path": "/etc/hosts", "action": "edited"}], "restarts": ["containerd.service"], '
        b'"verified": true, "pull_seconds": 1.5, "error": null}'
    )
    answer.end()
    result = host_result("as-typed", answer, "root")
    assert result.host == "as-typed"
    assert result.ok
    assert result.changes[0].path == "/etc/hosts"


@pytest.mark.parametrize(
    "line",
    [b'{"event": "result"}', b'{"event": "result", "status": "fine"}'],
)
def test_a_result_in_another_shape_is_no_result(line: bytes) -> None:
    answer = ErrandAnswer()
    answer.stdout(line + b"\n")
    assert code(answer, 0) == "bad-answer"


def test_an_answer_without_end_is_cut() -> None:
    answer = ErrandAnswer()
    answer.stdout(b"x" * (errand.MAX_LINE + 1))
    assert answer.too_much
    assert code(answer, 1) == "bad-answer"


def test_a_lost_line_says_whether_the_agent_had_begun() -> None:
    answer = ErrandAnswer()
    assert code(answer, -1) == "connection-lost"
    answer.stdout(b'{"event": "facts"}\n')
    assert answer.begun
    assert code(answer, -1) == "connection-lost"


def test_one_that_is_to_leave_nothing_is_brought_unasked(tmp_path: Path) -> None:
    """A session that notes what it is to run, on a node where the archive is not."""

    class Noting(Session):
        def __init__(self) -> None:
            self.asked: list[str] = []

        def _run(self, words: str, *_: object) -> int:
            self.asked.append(words)
            return errand.ABSENT

    archive = AgentArchive(tmp_path / "agent.pyz", DIGEST)
    archive.path.write_bytes(ARCHIVE)
    for words, first in ((["apply"], [warm_words(DIGEST, ["apply"])]), (["apply", "--once"], [])):
        session = Noting()
        session.errand(archive, words, PLAN, Become(sudo=False), lambda _: None, 1)
        assert session.asked == [*first, cold_words(DIGEST, len(ARCHIVE), words)]
