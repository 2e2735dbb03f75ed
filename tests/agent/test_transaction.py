"""Old state or new state, never between: stopped, killed or refused at every step there is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.journal import blobs, transaction
from agent.journal.ledger import Store
from agent.journal.lock import holder, locked
from agent.journal.record import RecordedChange, RecordedFile
from agent.journal.transaction import Transaction
from agent.node import disk
from agent.wire.faults import Interrupted
from tests.agent.conftest import Box


class Crash(BaseException):
    """The end of the world for this process, as far as Python can act it."""


@pytest.fixture
def node(box: Box) -> Box:
    return box.with_containerd().with_docker()


def steps_of(box: Box, operation: str) -> list[str]:
    """The names of all steps of one operation, in order."""
    seen: list[str] = []
    transaction.on_step = seen.append
    getattr(box, operation)()
    transaction.on_step = lambda name: None
    return seen


def at(number: int, act: Callable[[], None]) -> Callable[[str], None]:
    """A step hook that acts at the step of that number."""
    count = iter(range(1 << 30))

    def hook(name: str) -> None:
        if next(count) == number:
            act()

    return hook


def crash() -> None:
    raise Crash


def interrupt() -> None:
    raise Interrupted("SIGTERM")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work: Callable[[], object]) -> int:
    """Do it in a forked process, and tell the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("operation", ["apply", "untrust"])
def test_killed_at_any_step_the_node_is_old_or_new(node: Box, operation: str) -> None:
    start = node.files()
    if operation == "untrust":
        node.apply()
    old, old_folders = node.files(), node.folders()
    names = steps_of(node, operation)
    new = node.files()
    assert len(names) > 12
    assert new != old
    ends = set()
    for number in range(len(names)):
        # Back to the old state by the agent itself.
        node.untrust()
        assert node.files() == start
        if operation == "untrust":
            node.apply()
        assert node.files() == old

        def run(number: int = number) -> None:
            transaction.on_step = at(number, kill)
            getattr(node, operation)()

        assert in_a_child(run) == signal.SIGKILL
        leftovers = {name for name in node.files() if ".moorage-" in name}
        for name, content in node.files().items():
            if name not in leftovers:
                assert content in (old.get(name), new.get(name)), (names[number], name)
        result = node.run(node.engine().recover())
        assert result["status"] in ("changed", "unchanged"), result
        assert node.files() in (old, new), names[number]
        ends.add(node.files() == new)
        if node.files() == old:
            assert node.folders() == old_folders, names[number]
        assert getattr(node, operation)()["error"] is None
        assert node.files() == new
    assert ends == {True, False}


@pytest.mark.parametrize("act", [crash, interrupt])
@pytest.mark.parametrize("operation", ["apply", "untrust"])
def test_stopped_at_any_step_it_rolls_back_at_once(
    node: Box, operation: str, act: Callable[[], None]
) -> None:
    if operation == "untrust":
        node.apply()
    old, folders = node.files(), node.folders()
    names = steps_of(node, operation)
    new = node.files()
    for number in range(names.index("committed")):
        node.untrust()
        if operation == "untrust":
            node.apply()
        transaction.on_step = at(number, act)
        if act is crash:
            with pytest.raises(Crash):
                getattr(node, operation)()
        else:
            result = getattr(node, operation)()
            assert result["code"] == "interrupted"
            assert result["status"] in ("rolled-back", "failed")
        transaction.on_step = lambda name: None
        assert node.files() == old, names[number]
        assert node.folders() == folders
        assert Store(str(node.root)).pending() is None
        getattr(node, operation)()
        assert node.files() == new


def test_killed_while_rolling_back_the_next_run_finishes_it(node: Box) -> None:
    old = node.files()

    def cut_off() -> None:
        transaction.on_step = at(steps.index("restart noted"), kill)
        node.apply()

    steps = steps_of(node, "apply")
    node.untrust()
    assert in_a_child(cut_off) == signal.SIGKILL
    seen: list[str] = []
    probe = Transaction.pending(Store(str(node.root)))
    assert probe is not None
    for number in range(6):

        def recover(number: int = number) -> None:
            transaction.on_step = at(number, kill)
            node.run(node.engine().recover())

        in_a_child(recover)
        seen.append(str(number))
    node.run(node.engine().recover())
    assert node.files() == old


def test_recovery_restarts_only_what_may_run_with_what_was_undone(node: Box) -> None:
    steps = steps_of(node, "apply")
    node.untrust()
    for name, restarts in (("written", []), ("restart noted", ["containerd.service"])):

        def run(name: str = name) -> None:
            transaction.on_step = at(steps.index(name), kill)
            node.apply()

        in_a_child(run)
        node.restarted.clear()
        node.run(node.engine().recover())
        assert node.restarted == restarts


def attributes(path: Path) -> dict[str, bytes]:
    """Sets what this file system takes of: an attribute, an ACL (acl(5), as the kernel keeps it,
    include/uapi/linux/posix_acl_xattr.h: user 1234 may read), an SELinux label. Returns it.
    """
    entries = ((1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    wanted = {
        "user.note": b"keep me",
        "system.posix_acl_access": acl,
        "security.selinux": b"system_u:object_r:container_file_t:s0\0",
    }
    kept = {}
    for name, value in wanted.items():
        with contextlib.suppress(OSError):
            os.setxattr(path, name, value)
            kept[name] = value
    return kept


def test_mode_owner_and_attributes_stay(node: Box) -> None:
    config = node.root / "etc/containerd/config.toml"
    config.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(config, 12, 34)
    kept = attributes(config)
    if not kept:
        pytest.skip("no extended attributes here")
    before = config.stat()
    node.apply()
    for _ in range(2):
        after = config.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (
            before.st_mode, before.st_uid, before.st_gid
        )  # fmt: skip
        for name, value in kept.items():
            assert os.getxattr(config, name) == value, name
        node.untrust()


def test_a_links_target_is_edited_and_the_link_stays(node: Box) -> None:
    config = node.root / "etc/containerd/config.toml"
    node.write("/data/real.toml", config.read_bytes())
    config.unlink()
    config.symlink_to("/data/real.toml")  # absolute: the node's root, not this machine's
    before = node.files()
    node.apply()
    assert config.is_symlink()
    assert b"config_path" in (node.read("/data/real.toml") or b"")
    node.untrust()
    assert config.is_symlink()
    assert node.files() == before


def test_the_journal_is_private_and_has_no_password(node: Box) -> None:
    node.apply()
    state = node.root / "var/lib/moorage"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in state.rglob("*"):
        assert not path.stat().st_mode & 0o077
        if path.is_file():
            assert b"pass-word-1" not in path.read_bytes()


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk-full"), (errno.EROFS, "read-only"), (errno.EIO, "write-failed")],
)
def test_a_write_or_sync_that_fails_anywhere_leaves_the_old_state(
    node: Box, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    old = node.files()
    for name in ("pwrite", "fsync"):
        real = getattr(os, name)
        calls = [0]

        def counting(*arguments: object, real=real, calls=calls) -> object:  # type: ignore[no-untyped-def]
            calls[0] += 1
            return real(*arguments)

        monkeypatch.setattr(os, name, counting)
        node.apply()
        total = calls[0]
        monkeypatch.setattr(os, name, real)
        node.untrust()
        assert total > 8
        for failing in range(1, total + 1):
            calls = [0]

            def fail(*arguments: object, real=real, calls=calls, failing=failing) -> object:  # type: ignore[no-untyped-def]
                calls[0] += 1
                if calls[0] == failing:
                    raise OSError(number, os.strerror(number))
                return real(*arguments)

            monkeypatch.setattr(os, name, fail)
            result = node.apply()
            monkeypatch.setattr(os, name, real)
            if result["error"] is None:  # the lock's note, or tidying after the commit
                node.untrust()
            else:
                assert result["code"] == code, (name, failing, result)
            assert node.files() == old, (name, failing)


def test_an_edit_by_someone_else_in_between_is_kept(node: Box) -> None:
    def other() -> None:
        node.write("/etc/hosts", b"10.8.8.8 theirs\n")

    steps = steps_of(node, "apply")
    node.untrust()
    transaction.on_step = at(steps.index("written") - 1, other)
    result = node.apply()
    transaction.on_step = lambda name: None
    assert result["code"] == "changed-meanwhile"
    assert node.read("/etc/hosts") == b"10.8.8.8 theirs\n"
    assert node.apply()["status"] == "changed"


def test_recovery_leaves_alone_what_others_changed_since(node: Box) -> None:
    steps = steps_of(node, "apply")
    node.untrust()

    def run() -> None:
        transaction.on_step = at(steps.index("restart noted"), kill)
        node.apply()

    in_a_child(run)
    node.write("/etc/hosts", b"10.8.8.8 theirs\n")
    result = node.run(node.engine().recover())
    note = next(event["message"] for event in result["events"] if event["event"] == "note")
    assert "/etc/hosts" in note.partition("left alone")[2]
    assert node.read("/etc/hosts") == b"10.8.8.8 theirs\n"


def test_the_second_comer_waits_and_then_says_who_is_there(node: Box) -> None:
    store = Store(str(node.root))
    with locked(store, "apply", 0):
        found = holder(store)
        assert found is not None
        assert found["pid"] == os.getpid()
        result = node.apply(options={"lock_wait": 0})
        assert result["code"] == "locked"
        assert str(os.getpid()) in result["error"]["message"]
    assert holder(store) is None
    assert node.apply()["status"] == "changed"


def test_the_second_comer_gets_its_turn_within_its_patience(node: Box) -> None:
    store = Store(str(node.root))
    entered = threading.Event()

    def hold() -> None:
        with locked(store, "apply", 0):
            entered.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with locked(store, "untrust", 5):
        pass
    thread.join()


def test_a_file_that_cannot_be_renamed_over_is_written_in_place(
    node: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def busy(self: Path, target: Path) -> Path:
        if str(target).endswith("etc/hosts"):
            raise OSError(errno.EBUSY, "busy")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    before, inode = node.files(), (node.root / "etc/hosts").stat().st_ino
    assert node.apply()["status"] == "changed"
    assert (node.root / "etc/hosts").stat().st_ino == inode
    assert not [name for name in node.files() if ".moorage-" in name]
    steps = steps_of(node, "untrust")
    assert node.files() == before
    for number in range(len(steps)):
        node.apply()
        during = node.files()

        def run(number: int = number) -> None:
            transaction.on_step = at(number, kill)
            node.untrust()

        in_a_child(run)
        node.run(node.engine().recover())
        assert node.files() in (before, during), steps[number]
        node.untrust()


def test_only_the_last_hundred_transactions_are_kept(
    node: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "KEEP", 4)
    before = node.files()
    node.apply()
    for number in range(2, 9):
        node.apply(registry={"address": f"10.0.0.{number}"})
    store = Store(str(node.root))
    assert store.numbers() == [5, 6, 7, 8]
    kept = {path.name for path in (node.root / "var/lib/moorage/blobs").iterdir()}
    entries: list[RecordedChange | RecordedFile] = []
    for record in store.records():
        entries += [*record.changes]
        entries += [*record.ledger["my.registry.io"]]
    named = {digest for entry in entries for digest in (entry.before, entry.after)}
    assert kept == named - {None}
    node.untrust()
    assert node.files() == before
    assert not list((node.root / "var/lib/moorage/blobs").iterdir()), "nothing of others is kept"


def test_damaged_notes_are_an_error_and_no_guess(node: Box) -> None:
    node.apply()
    during = node.files()
    for blob in (node.root / "var/lib/moorage/blobs").iterdir():
        blob.write_bytes(b"damaged")
    assert node.untrust()["code"] == "state-damaged"
    assert node.files() == during


# A note that is whole but for its ledger, which is a list.
LIST = (
    b'{"version": 1, "number": 1, "operation": "apply", "registry": "r", "time": "t", "agent": "a",'
    b' "changes": [], "starts": {}, "waiting": {}, "ledger": []}'
)


@pytest.mark.parametrize("spoilt", [b"", b"[]", b'{"version": 1}', b"\xff", LIST])
def test_an_old_note_that_is_damaged_undoes_no_change(node: Box, spoilt: bytes) -> None:
    node.apply()
    (node.root / "var/lib/moorage/history/000001.json").write_bytes(spoilt)
    # It is the newest yet, and says what is ours: nothing is done by guess.
    during = node.files()
    assert node.apply(registry={"address": "10.0.0.2"})["code"] == "state-damaged"
    assert node.files() == during


def test_an_older_note_that_is_damaged_keeps_no_trust(node: Box) -> None:
    before = node.files()
    node.apply()
    node.apply(registry={"address": "10.0.0.2"})
    (node.root / "var/lib/moorage/history/000001.json").write_bytes(b"damaged")
    assert node.untrust()["status"] == "changed"
    assert node.files() == before
    # Nothing is ours any more, so the damaged note is of no use: the node can be trusted again.
    assert node.apply()["status"] == "changed"
    assert node.untrust()["status"] == "changed"
    assert node.files() == before


def test_sigkill_of_the_real_command_at_random_instants(node: Box) -> None:
    old = node.files()
    node.apply()
    new = node.files()
    node.untrust()
    plan = json.dumps(node.document(verify=None)).encode()
    command = [sys.executable, "-m", "agent", "apply", "--root", str(node.root)]
    for number in range(8):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=Path.cwd()
        )
        assert process.stdin is not None
        process.stdin.write(plan)
        process.stdin.close()
        time.sleep(0.1 + number * 0.02)
        process.kill()
        process.wait()
        node.run(node.engine().recover())
        assert node.files() in (old, new)
        node.untrust()
        assert node.files() == old


@pytest.mark.parametrize(
    ("now", "torn"),
    [
        (b"new and longer", True),
        (b"old", True),
        (b"newest", True),
        (b"new and lon", True),
        (b"ned", True),
        (b"nxd", False),
        (b"10.8.8.8 theirs", False),
        (b"", False),
        (b"new and longer still", False),
    ],
)
def test_a_file_cut_off_while_it_is_written_over_is_told_from_an_edit_of_others(
    now: bytes, torn: bool
) -> None:
    old, new = b"old", b"new and longer"
    if now == b"newest":
        old = b"oldest"
    assert disk.mixed(now, new, old) is torn


def test_the_intent_is_on_the_disk_before_the_first_change(
    node: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power loss may take is what was not synced: file and folder, in this order."""
    state = str(node.root / "var/lib/moorage")
    order: list[tuple[str, str]] = []
    real_fsync, real_open, real_rename = os.fsync, os.open, Path.rename

    def fsync(descriptor: int) -> None:
        order.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        real_fsync(descriptor)

    def opened(path: str | Path, flags: int, *more: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            order.append(("write", str(path)))
        return real_open(path, flags, *more, **named)

    def rename(self: Path, target: Path) -> Path:
        order.append(("rename", f"{self} {target}"))
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(Path, "rename", rename)
    node.apply()
    monkeypatch.undo()
    outside = [path.startswith(str(node.root)) and state not in path for _, path in order]
    first = next(i for i, (what, _) in enumerate(order) if what == "write" and outside[i])
    active = order.index(("rename", f"{state}/active.new {state}/active"))
    before = order[:active]
    assert ("sync", f"{state}/active.new/intent.json.new") in before
    assert ("sync", f"{state}/active.new") in before
    assert ("sync", f"{state}/blobs") in before
    blobs = [path for what, path in before if what == "write" and "/blobs/" in path]
    assert blobs
    assert all(("sync", path) in before for path in blobs)
    assert ("sync", state) in order[active:first], "the rename itself"
    for what, path in order[first:]:  # and each new file before it takes its place
        source = path.partition(" ")[0]
        if what == "rename" and ".moorage-" in source:
            place = order.index((what, path))
            assert ("sync", source) in order[:place]
            assert ("sync", str(Path(source).parent)) in order[place:]
