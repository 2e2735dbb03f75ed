"""What others undo on a real node is back within five seconds, and a runtime restarts only for it.

cloud-init, dpkg and a colleague, each by the real tool or in its way; with inotify and without.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("docker")

from moorage.fleet.rollout.fleet import Fleet
from moorage.ui import UI
from tests.agent.real import Registry
from tests.resident.lab import ResidentNode, asked, drift, run, until

pytestmark = pytest.mark.engine

CA = "/etc/containerd/certs.d/my.registry.io/ca.crt"
CONFIG = "/etc/containerd/config.toml"
STARTS = "journalctl -u containerd -o cat | grep -c '^Started containerd'"
DROP_IN = "/etc/systemd/system/moorage-agent.service.d/test.conf"
# The installed containerd once more, as a later version: all its files, its scripts, its conffile.
PACKAGE = """
set -e; rm -rf /root/pkg; mkdir -p /root/pkg/DEBIAN; cd /root/pkg
dpkg -L containerd | while read f; do [ ! -f "$f" ] || [ -L "$f" ] || cp -a --parents "$f" .; done
cp /root/clean.toml etc/containerd/config.toml
echo '# the new version' >> etc/containerd/config.toml
for s in preinst postinst prerm postrm conffiles; do
  [ ! -e /var/lib/dpkg/info/containerd.$s ] || cp /var/lib/dpkg/info/containerd.$s DEBIAN/
done
dpkg-query -s containerd | sed '/^Status:/d; /^Conffiles:/,/^[A-Z]/{/^Conffiles:/d; /^ /d}' |
  sed 's/^Version:.*/Version: 99.0-1/' > DEBIAN/control
dpkg-deb -Znone --build . /root/new.deb >/dev/null
"""


@pytest.fixture(scope="module")
def trusting(node: ResidentNode, registry: Registry) -> Iterator[ResidentNode]:
    ui = UI(as_json=True)
    node.sh(f"cat /etc/hosts > /root/hosts; cat {CONFIG} > /root/clean.toml")
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    assert run(node, ui, registry, "apply").ok
    yield node
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def starts(node: ResidentNode) -> int:
    return int(node.sh(STARTS)[1].strip() or 0)


def test_hosts_file_written_anew_as_cloud_init_does(trusting: ResidentNode, ui: UI) -> None:
    kept, before, healed = trusting.read("/etc/hosts"), starts(trusting), drift(trusting, ui)
    trusting.sh("cat /root/hosts > /etc/hosts")
    until(lambda: trusting.read("/etc/hosts") == kept, trusting)
    until(lambda: drift(trusting, ui)["healed"] == healed["healed"] + 1, trusting)
    assert starts(trusting) == before


def test_a_colleague_removes_the_folder(trusting: ResidentNode, ui: UI) -> None:
    before = starts(trusting)
    trusting.sh("rm -rf /etc/containerd/certs.d")
    until(lambda: trusting.sh(f"test -s {CA}")[0] == 0, trusting)
    until(lambda: drift(trusting, ui)["state"] == "watching", trusting)
    assert starts(trusting) == before


def test_a_package_upgrade_replaces_the_configuration(trusting: ResidentNode, ui: UI) -> None:
    code, said = trusting.sh(PACKAGE)
    assert code == 0, said
    until(lambda: drift(trusting, ui)["state"] == "watching", trusting)
    before = starts(trusting)
    code, said = trusting.sh("dpkg -i --force-confnew --force-depends /root/new.deb 2>&1")
    assert (code, "containerd (99.0-1)" in said) == (0, True), said
    until(lambda: trusting.sh(f"grep -q config_path {CONFIG}")[0] == 0, trusting)
    assert b"# the new version" in (trusting.read(CONFIG) or b"")
    until(lambda: drift(trusting, ui)["state"] == "watching", trusting, 15)
    trusting.wait()
    # One by the package, one for the configuration that was put back.
    assert starts(trusting) <= before + 2, trusting.sh("journalctl -u containerd -o cat -n 40")[1]


def test_without_inotify_it_looks_often_enough(
    trusting: ResidentNode, ui: UI, registry: Registry
) -> None:
    trusting.sh(f"mkdir -p {DROP_IN.rpartition('/')[0]}")
    trusting.write(DROP_IN, b"[Service]\nSystemCallFilter=~inotify_init inotify_init1\n")
    trusting.sh("systemctl daemon-reload; systemctl restart moorage-agent")
    try:
        until(lambda: not drift(trusting, ui)["inotify"], trusting)
        kept = trusting.read("/etc/hosts")
        trusting.sh("cat /root/hosts > /etc/hosts")
        until(lambda: trusting.read("/etc/hosts") == kept, trusting, 15)
    finally:
        trusting.sh(f"rm {DROP_IN}; systemctl daemon-reload; systemctl restart moorage-agent")
    until(lambda: bool(drift(trusting, ui)["inotify"]), trusting)


def test_who_undoes_it_again_and_again_is_let_win_until_the_next_apply(
    trusting: ResidentNode, ui: UI, registry: Registry
) -> None:
    kept = trusting.read("/etc/hosts")
    trusting.sh(
        "(while [ ! -e /root/enough ]; do cmp -s /root/hosts /etc/hosts || "
        "{ cat /root/hosts > /etc/hosts; echo x >> /root/fights; }; sleep 0.2; done) "
        ">/dev/null 2>&1 &"
    )
    try:
        until(lambda: drift(trusting, ui)["state"] == "stopped", trusting, 90)
    finally:
        trusting.sh("touch /root/enough; sleep 0.5")
    state = drift(trusting, ui)
    assert ("/etc/hosts" in state["error"], state["lately"]) == (True, 5)
    # Undone once, and once more after each of the five times that it was put back.
    assert trusting.sh("wc -l < /root/fights")[1].strip() == "6"
    assert "moorage_drift_state 3" in asked(trusting, "/metrics")
    assert trusting.read("/etc/hosts") != kept
    assert run(trusting, ui, registry, "apply").ok
    assert trusting.read("/etc/hosts") == kept
    assert drift(trusting, ui)["state"] == "watching"
    trusting.sh("cat /root/hosts > /etc/hosts")
    until(lambda: trusting.read("/etc/hosts") == kept, trusting)
