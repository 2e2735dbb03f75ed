"""A real node that faults are injected into, and what must hold of it afterwards."""

from __future__ import annotations

import time
from pathlib import Path

from tests.agent.real import Node, Registry, Run, plan
from tests.faults.cases import Case, Steps

INJECTOR = Path(__file__).with_name("injector.py")
CONFIG = "/etc/containerd/config.toml"
UNIT = "/run/systemd/system/containerd.service.d"
# Everything an apply may touch, owners and modes with it, and what must not be left behind.
_LOOK = (
    "cd /; for file in etc/hosts etc/containerd/config.toml"
    " $(find etc/containerd/certs.d 2>/dev/null | sort); do"
    " stat -c '%n %F %a %u:%g' $file; test -f $file && sha256sum $file; done;"
    " find etc -name '*.moorage-*' -o -name 'moorage-*'"
)
_STATE = "/var/lib/moorage"
# The step of an apply at which everything is written and nothing committed.
_WRITTEN = "restart noted"
_WHY = "systemctl status --no-pager moorage-recover; journalctl --no-pager -b -n 20"


class Broken(AssertionError):
    """The promise did not hold."""


class Victim:
    """One node; ``old`` and ``new`` are how it looks without and with the trust."""

    def __init__(self, node: Node, registry: Registry, image: str) -> None:
        self.node = node
        self.document = plan(registry, image, options={"lock_wait": 5})
        node.write("/root/injector.py", INJECTOR.read_bytes())
        self.old = self.look()
        self._must_apply()
        self.new = self.look()
        if self.old == self.new:
            raise Broken("an apply changed nothing")
        self._must_untrust()

    def look(self) -> str:
        return self.node.sh(_LOOK)[1]

    def steps(self) -> Steps:
        """How many steps of the journal each operation has here."""
        counts = {}
        for operation in ("apply", "untrust"):
            self._inject("count", "/root/steps", operation)
            counts[operation] = int(self.node.read("/root/steps") or b"0")
        # A rollback's steps: those of an apply that is killed when all is written.
        self._inject("kill", _WRITTEN, "apply")
        self._inject("count", "/root/steps", "recover")
        counts["recover"] = int(self.node.read("/root/steps") or b"0")
        self._expect(self.old)
        return counts

    def suffer(self, case: Case) -> str:
        """Injects one fault and proves that the node came through. Returns how it ended.

        Raises Broken. The node is without trust before and after.
        """
        self.node.sh("systemctl reset-failed containerd")
        if case.operation == "untrust":
            self._must_apply()
        elif case.operation == "recover":
            self._inject("kill", _WRITTEN, "apply")
        try:
            said = getattr(self, f"_{case.kind.replace('-', '_')}")(case)
        finally:
            self._heal()
        self.node.sh("systemctl reset-failed containerd")
        recovered = self.node.agent("recover")
        if recovered.code != 0:
            raise Broken(f"recover: {recovered.result['error']}")
        self.node.wait()
        now = self.look()
        if now not in (self.old, self.new):
            raise Broken(f"neither old nor new:\n{now}\nold:\n{self.old}\nnew:\n{self.new}")
        state = "old" if now == self.old else "new"
        self.node.sh("systemctl reset-failed containerd")
        self._must_apply()
        self._must_untrust()
        return f"{said}, then {state}"

    # The faults

    def _kill(self, case: Case) -> str:
        run = self._inject("kill", str(case.number), case.operation)
        return "killed" if run.code == 137 else f"ended with {run.code}"

    def _random(self, case: Case) -> str:
        seconds = f"{case.number / 1000:.3f}"
        run = self.node.agent(case.operation, self.document, before=f"timeout -s KILL {seconds}")
        return "killed" if run.code == 137 else f"ended with {run.code}"

    def _fsync(self, case: Case) -> str:
        run = self._inject("fsync", str(case.number), case.operation)
        return self._refused(run, "write-failed")

    def _reboot(self, case: Case) -> str:
        self.node.sh("rm -f /run/halted")
        words = self._words("halt", str(case.number), case.operation)
        detached = f"setsid sh -c '{words} < /root/plan.json' &"
        self.node.container.exec_run(["sh", "-c", detached], detach=True)
        for _ in range(300):
            if self.node.read("/run/halted") is not None:
                break
            time.sleep(0.1)
        self.node.container.restart(timeout=0)
        self.node.wait()
        # By the boot alone, before any agent is run by hand.
        if self.look() not in (self.old, self.new):
            raise Broken(f"the boot left it between old and new:\n{self.look()}")
        if self.node.read(f"{_STATE}/active/intent.json") is not None:
            raise Broken(f"the boot did not recover:\n{self.node.sh(_WHY)[1]}")
        return "rebooted, mended at boot"

    def _read_only(self, case: Case) -> str:
        self._cover("/etc/containerd")
        run = self._inject("read-only", str(case.number), case.operation)
        said = self._refused(run, "read-only")
        if run.code != 0:
            self._says_so_until_it_is_writable()
        return said

    def _read_only_state(self, case: Case) -> str:
        self._cover(_STATE)
        run = self._inject("read-only-state", str(case.number), case.operation)
        if run.code != 0:
            for operation in ("recover", "apply", "untrust"):
                if (fault := self.node.agent(operation, self.document).fault) != "read-only":
                    raise Broken(f"{operation} while its own folder is read-only: {fault}")
        return self._refused(run, "read-only")

    def _says_so_until_it_is_writable(self) -> None:
        """Every run names it and goes no further, but one that has nothing to do."""
        pending = self.node.read(f"{_STATE}/active/intent.json") is not None
        for operation in ("recover", "apply", "untrust"):
            run = self.node.agent(operation, self.document)
            idle = not pending and run.result["status"] == "unchanged"
            if not idle and run.fault != "read-only":
                raise Broken(f"{operation} while it is read-only: {run.fault or run.result}")
            if pending and "nodes.recover" not in run.result["error"]["cure"]:
                raise Broken(f"{operation} names no cure: {run.result['error']}")

    def _full_state(self, case: Case) -> str:
        self._cover(_STATE)
        self._fill(_STATE, case.number)
        return self._refused(self.node.agent(case.operation, self.document), "disk-full")

    def _full_etc(self, case: Case) -> str:
        self._cover("/etc/containerd")
        self._fill("/etc/containerd", case.number)
        return self._refused(self.node.agent(case.operation, self.document), "disk-full")

    def _refuses(self, case: Case) -> str:
        self._before_start(f"! grep -q Moorage {CONFIG}")
        return self._rolled_back(self.node.agent(case.operation, self.document))

    def _cri_absent(self, case: Case) -> str:
        """config_path beside registry.mirrors: CRI does not load. The mirrors come at the start."""
        table = 'plugins."io.containerd.grpc.v1.cri".registry'
        words = (
            f'version = 2\\n[{table}]\\nconfig_path = "/etc/containerd/certs.d"\\n'
            f'[{table}.mirrors."docker.io"]\\nendpoint = ["https://mirror.gcr.io"]\\n'
        )
        self._before_start(
            f"if grep -q Moorage {CONFIG}; then printf '{words}' > /run/mirrors.toml;"
            " else : > /run/mirrors.toml; fi"
        )
        self.node.sh(
            f"cp -p {CONFIG} /run/config.kept; : > /run/mirrors.toml;"
            f" sed -i '1i imports = [\"/run/mirrors.toml\"]' {CONFIG}; systemctl restart containerd"
        )
        self.node.wait()
        try:
            run = self.node.agent(case.operation, self.document)
            if run.fault != "cri-not-serving":
                raise Broken(f"CRI was to be absent, and it was {run.fault}")
            return self._rolled_back(run)
        finally:
            self.node.sh(f"cat /run/config.kept > {CONFIG}")

    def _hangs(self, case: Case) -> str:
        self._before_start(f"if grep -q Moorage {CONFIG}; then sleep 600; fi", "TimeoutStartSec=5")
        return self._rolled_back(self.node.agent(case.operation, self.document))

    # Means

    def _inject(self, how: str, number: str, operation: str) -> Run:
        return self.node.told(self._words(how, number, operation), self.document)

    def _words(self, how: str, number: str, operation: str) -> str:
        return f'exec python3 /root/injector.py /root/agent.pyz {how} "{number}" {operation}'

    def _cover(self, folder: str) -> None:
        """A small file system of its own under a folder, with what was in it and 1 MiB of room."""
        code, said = self.node.sh(
            f"mkdir -p {folder} && cp -a {folder} /run/covered &&"
            f" size=$(($(du -sk {folder} | cut -f1) + 1024))k &&"
            f" mount -t tmpfs -o size=$size,mode=755 tmpfs {folder} &&"
            f" cp -a /run/covered/. {folder}/ && rm -r /run/covered"
        )
        if code:
            raise RuntimeError(f"{folder} cannot be covered: {said}")

    def _fill(self, folder: str, free: int) -> None:
        """Fills it up, but for ``free`` bytes."""
        self.node.sh(f"cat /dev/zero > {folder}/filler 2>/dev/null")
        if free:
            self.node.sh(f"truncate -s -{free} {folder}/filler")

    def _before_start(self, words: str, *settings: str) -> None:
        unit = "\n".join(["[Service]", f"ExecStartPre=/bin/sh -c {_quoted(words)}", *settings])
        self.node.write("/root/fault.conf", unit.encode() + b"\n")
        self.node.sh(f"mkdir -p {UNIT}; cp /root/fault.conf {UNIT}/; systemctl daemon-reload")

    def _heal(self) -> None:
        """Takes the fault away, as an operator would; the agent's own doing stays as it is."""
        # A read-only mount lies above the small file system, and covers it alone.
        self.node.sh(
            f"rm -rf {UNIT}; systemctl daemon-reload; for folder in /etc/containerd {_STATE}; do"
            " if findmnt -n -o OPTIONS $folder | tail -n 1 | grep -q ^ro; then umount $folder; fi;"
            " if mountpoint -q $folder; then mount -o remount,rw $folder; rm -f $folder/filler;"
            " rm -rf /run/covered; cp -a $folder /run/covered; umount $folder;"
            " find $folder -mindepth 1 -delete; cp -a /run/covered/. $folder/; rm -r /run/covered;"
            " fi; done"
        )

    # What must hold

    def _refused(self, run: Run, *codes: str) -> str:
        """The fault was met: it said so and changed nothing. Or it had no effect: all is done."""
        if run.code == 0:
            return "went through"
        if run.fault not in codes:
            raise Broken(f"{run.fault or run.noise}: {run.result['error']}")
        return run.fault

    def _rolled_back(self, run: Run) -> str:
        if run.result["status"] != "rolled-back":
            raise Broken(f"{run.result['status']}: {run.result['error']}")
        self.node.wait()  # by the agent's own doing, the fault still there
        return f"rolled back ({run.fault})"

    def _must_apply(self) -> None:
        run = self.node.agent("apply", self.document)
        if run.code != 0 or run.result["verified"] is not True:
            raise Broken(f"apply: {run.result['error']}")

    def _must_untrust(self) -> None:
        run = self.node.agent("untrust", self.document)
        if run.code != 0:
            raise Broken(f"untrust: {run.result['error']}")
        self._expect(self.old)

    def _expect(self, state: str) -> None:
        now = self.look()
        if now != state:
            raise Broken(f"not as it was:\n{now}\nbut:\n{state}")


def _quoted(words: str) -> str:
    """For ExecStartPre=: systemd.service(5) unquotes, and reads $ and % itself."""
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
