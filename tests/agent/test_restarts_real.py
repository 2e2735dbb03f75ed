"""A restart is never a surprise: containers that it would end, services that it takes along.

On real nodes, with containers at work in containerd and Docker. Takes the images that `inv up` has
built, and is skipped where there are none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker")

import docker

from moorage.archive import agent_archive
from tests.agent import runtimes
from tests.agent.real import Node, Registry, Run, plan
from tests.agent.test_real import LOOK, client, image, machine, node, registry

__all__ = ["client", "image", "machine", "node", "registry"]
pytestmark = pytest.mark.engine
CODE = "restart-stops-running"
AGREED: dict[str, Any] = {"options": {"stop_running": True}}
CONTAINERD = "/etc/systemd/system/containerd.service.d/killmode.conf"
_ROOTFS = (
    "mkdir -p /root/fs/bin /root/fs/proc /root/fs/sys /root/fs/dev; cp /usr/bin/sleep"
    " /root/fs/bin/; cp --parents $(ldd /usr/bin/sleep | grep -o '/[^ ]*') /root/fs/"
)
_TASKS = "ctr tasks ls | awk '$3 == \"RUNNING\" {print $1, $2}'"


def drop_in(node: Node, service: str, *lines: str) -> None:
    folder = f"/etc/systemd/system/{service}.d"
    text = "\\n".join(lines)
    node.sh(f"mkdir -p {folder}; printf '{text}\\n' > {folder}/test.conf; systemctl daemon-reload")


def no_drop_ins(node: Node, *services: str) -> None:
    for service in services:
        node.sh(f"rm -rf /etc/systemd/system/{service}.d")
    node.sh("systemctl daemon-reload")


@pytest.fixture
def task(node: Node) -> Iterator[str]:
    """A container at work; gives its line, name and process, as `ctr tasks ls` has it."""
    node.sh(_ROOTFS)
    code, said = node.sh("ctr run -d --rootfs /root/fs bystander /bin/sleep 1000")
    assert code == 0, said
    try:
        yield node.sh(_TASKS)[1]
    finally:
        no_drop_ins(node, "containerd.service", "dependent.service")
        node.sh(
            "{ systemctl stop dependent; rm -f /etc/systemd/system/dependent.service;"
            " ctr tasks kill -s KILL bystander; sleep 0.5; ctr tasks rm -f bystander;"
            " ctr containers rm bystander; systemctl daemon-reload; } > /dev/null 2>&1"
        )


def refused(node: Node, run: Run, *words: str) -> dict[str, Any]:
    error: dict[str, Any] = run.result["error"] or {}
    assert (run.result["status"], run.fault) == ("failed", CODE), run.result
    for word in words:
        assert word in error["message"], error
    assert run.result["changes"] == []
    assert run.result["restarts"] == []
    assert node.read("/var/lib/moorage/active/intent.json") is None
    return error


@pytest.mark.parametrize("mode", ["control-group", "mixed"])
def test_a_restart_that_ends_containers_is_refused_until_it_is_agreed_to(
    node: Node, registry: Registry, task: str, mode: str
) -> None:
    drop_in(node, "containerd.service", "[Service]", f"KillMode={mode}")
    before = node.sh(LOOK)[1]
    document = plan(registry)
    words = (f"KillMode={mode}", "1 running container", "bystander")
    dry = node.agent("apply --dry-run", document)
    assert dry.fault == ""
    (restart,) = (event for event in dry.events if event["event"] == "restart")
    assert all(word in " ".join(restart["stops"]) for word in words)
    error = refused(node, node.agent("apply", document), *words)
    assert "--yes" in error["cure"]
    assert node.sh(LOOK)[1] == before
    assert node.sh(_TASKS)[1] == task  # the same process: nothing was touched

    agreed = node.agent("apply", {**document, **AGREED})
    assert (agreed.fault, agreed.result["restarts"]) == ("", ["containerd.service"])
    assert agreed.result["stopped"] == ["default/bystander"]
    assert node.sh(_TASKS)[1] == ""


def test_the_cure_works_when_typed_and_the_container_lives_on(
    node: Node, registry: Registry, task: str
) -> None:
    drop_in(node, "containerd.service", "[Service]", "KillMode=control-group")
    cure = refused(node, node.agent("apply", plan(registry)))["cure"]
    typed = cure.rpartition("or first: ")[2]
    assert node.sh(typed)[0] == 0
    run = node.agent("apply", plan(registry))
    assert (run.fault, run.result["stopped"]) == ("", [])
    assert node.sh(_TASKS)[1] == task


def test_with_nothing_running_there_is_nothing_to_ask(node: Node, registry: Registry) -> None:
    drop_in(node, "containerd.service", "[Service]", "KillMode=control-group")
    try:
        assert node.agent("apply", plan(registry)).fault == ""
    finally:
        no_drop_ins(node, "containerd.service")


@pytest.mark.parametrize("verb", ["untrust", "undo"])
def test_taking_away_asks_alike(node: Node, registry: Registry, task: str, verb: str) -> None:
    assert node.agent("apply", plan(registry)).fault == ""
    drop_in(node, "containerd.service", "[Service]", "KillMode=control-group")
    before = node.sh(LOOK)[1]
    refused(node, node.agent(verb, plan(registry)), "1 running container")
    assert (node.sh(LOOK)[1], node.sh(_TASKS)[1]) == (before, task)
    later = node.agent(verb, {**plan(registry), "options": {"restart": False}})
    assert (later.fault, node.sh(_TASKS)[1]) == ("", task)


def test_recovery_asks_unless_its_run_had_been_agreed_to(
    node: Node, registry: Registry, task: str
) -> None:
    """Killed with the restart noted; the drop-in came since."""
    node.write("/root/injector.py", _INJECTOR.read_bytes())
    for agreed in (False, True):
        options = {"lock_wait": 2, "stop_running": agreed}
        killed = inject(node, plan(registry, options=options))
        assert killed == 137
        drop_in(node, "containerd.service", "[Service]", "KillMode=control-group")
        if not agreed:
            refused_run = node.agent("recover")
            assert refused_run.fault == CODE, refused_run.result
            assert node.sh(_TASKS)[1] == task
            # A run that is not agreed to asks first as well; one that is recovers on its way.
            assert node.agent("apply", plan(registry)).fault == CODE
            no_drop_ins(node, "containerd.service")
            assert node.agent("recover").fault == ""
            assert node.sh(_TASKS)[1] == task
        else:
            done = node.agent("recover")
            assert (done.fault, done.result["stopped"]) == ("", ["default/bystander"])


_INJECTOR = Path(__file__).parent.parent / "faults" / "injector.py"


def inject(node: Node, document: dict[str, Any]) -> int:
    import json

    node.write("/root/plan.json", json.dumps(document).encode())
    return node.sh(
        'python3 /root/injector.py /root/agent.pyz kill "restart noted" apply < /root/plan.json'
        " > /dev/null"
    )[0]


@pytest.mark.parametrize("setting", ["BindsTo", "Requires", "PartOf", "Requisite"])
def test_a_service_that_goes_along_is_named_and_runs_again(
    node: Node, registry: Registry, task: str, setting: str
) -> None:
    unit = (
        f"[Unit]\n{setting}=containerd.service\nAfter=containerd.service\n"
        "[Service]\nExecStart=/usr/bin/sleep 100000\n"
    )
    node.write("/etc/systemd/system/dependent.service", unit.encode())
    node.sh("systemctl daemon-reload; systemctl start dependent")
    error = refused(node, node.agent("apply", plan(registry)), "dependent.service", f"{setting}=")
    assert "--yes" in error["cure"]
    run = node.agent("apply", {**plan(registry), **AGREED})
    assert (run.fault, run.result["stopped"]) == ("", [])
    assert node.sh("systemctl is-active dependent")[1].strip() == "active"
    assert node.sh(_TASKS)[1] == task


def test_a_service_that_stays_down_ends_the_run_with_its_name_and_the_trust_stays(
    node: Node, registry: Registry, task: str
) -> None:
    unit = (
        "[Unit]\nBindsTo=containerd.service\nAfter=containerd.service\n"
        "[Service]\nExecStartPre=/usr/bin/test ! -e /run/no-more\nExecStart=/usr/bin/sleep 100000\n"
    )
    node.write("/etc/systemd/system/dependent.service", unit.encode())
    node.sh("systemctl daemon-reload; systemctl start dependent; touch /run/no-more")
    run = node.agent("apply", {**plan(registry), **AGREED})
    assert (run.code, run.result["status"], run.fault) == (1, "failed", "stays-down")
    assert run.result["stopped"] == ["dependent.service"]
    assert "dependent.service" in run.result["error"]["message"]
    assert run.result["changes"]
    node.sh("rm /run/no-more; systemctl start dependent")
    assert node.agent("apply", plan(registry)).result["status"] == "unchanged"


# Docker: bound to containerd, as Docker's own packages up to 20.10 have it.


@pytest.fixture(scope="module", params=["bookworm", "sid"])
def moored(
    request: pytest.FixtureRequest,
    client: docker.DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[runtimes.RuntimeNode]:
    archive = agent_archive(tmp_path_factory.mktemp("state")).path
    made = runtimes.image(client, "docker", request.param, "docker.io")
    with runtimes.started(runtimes.RuntimeNode(client, made), archive) as node:
        node.sh(_ROOTFS)
        node.sh("tar -C /root/fs -c . > /root/fs.tar; cp -a /etc/containerd /root/pristine")
        yield node


@pytest.fixture
def engine(moored: runtimes.RuntimeNode) -> Iterator[runtimes.RuntimeNode]:
    yield moored
    moored.sh(
        "rm -rf /etc/systemd/system/docker.service.d /etc/systemd/system/containerd.service.d"
        " /etc/docker/daemon.json /etc/containerd /var/lib/moorage;"
        " cp -a /root/pristine /etc/containerd; systemctl daemon-reload;"
        " systemctl reset-failed; systemctl restart containerd docker"
    )


def api(node: Node, method: str, path: str, body: str = "") -> str:
    """Docker's API on the node: newer Debian brings no client along."""
    return node.sh(
        "python3 - <<'END_OF_PROGRAM'\n"
        "import http.client, socket\n"
        "c = http.client.HTTPConnection('localhost', timeout=60)\n"
        "c.sock = socket.socket(socket.AF_UNIX)\n"
        "c.sock.connect('/run/docker.sock')\n"
        f"image = {path!r}.startswith('/images')\n"
        f"body = open('/root/fs.tar', 'rb').read() if image else {body!r}\n"
        f"c.request({method!r}, {path!r}, body, {{'Content-Type': 'application/json'}})\n"
        "print(c.getresponse().read().decode())\n"
        "END_OF_PROGRAM"
    )[1]


def run_container(node: Node, name: str, policy: str) -> None:
    import json

    api(node, "POST", "/images/create?fromSrc=-&repo=probe&tag=1")
    wanted = {
        "Image": "probe:1",
        "Cmd": ["/bin/sleep", "100000"],
        "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": policy}},
    }
    said = api(node, "POST", f"/containers/create?name={name}", json.dumps(wanted))
    assert '"Id"' in said, said
    said = api(node, "POST", f"/containers/{name}/start")
    assert said.strip() == "", said


def running(node: Node) -> set[str]:
    import json

    return {one["Names"][0].lstrip("/") for one in json.loads(api(node, "GET", "/containers/json"))}


@pytest.fixture
def containers(engine: runtimes.RuntimeNode) -> Iterator[set[str]]:
    run_container(engine, "web", "no")
    run_container(engine, "db", "always")
    try:
        assert running(engine) == {"web", "db"}
        yield {"web", "db"}
    finally:
        for name in ("web", "db"):
            api(engine, "DELETE", f"/containers/{name}?force=true")


@pytest.mark.parametrize("setting", ["BindsTo", "Requires"])
def test_docker_that_goes_along_names_its_containers_and_tells_what_stays_down(
    engine: runtimes.RuntimeNode, registry: Registry, containers: set[str], setting: str
) -> None:
    drop_in(engine, "docker.service", "[Unit]", f"{setting}=containerd.service")
    document = plan(registry, parts=["hosts", "containerd"])
    error = refused(
        engine, engine.agent("apply", document),
        "docker.service has no live-restore", "2 running containers", "1 without a restart policy",
        "web",
    )  # fmt: skip
    assert "live-restore" in error["cure"]
    assert running(engine) == containers
    run = engine.agent("apply", {**document, **AGREED})
    assert (run.fault, run.result["stopped"]) == ("", ["docker/web"]), run.result
    assert running(engine) == {"db"}


def test_live_restore_keeps_them_and_nothing_is_asked(
    engine: runtimes.RuntimeNode, registry: Registry, containers: set[str]
) -> None:
    drop_in(engine, "docker.service", "[Unit]", "BindsTo=containerd.service")
    engine.sh(
        "mkdir -p /etc/docker; echo '{\"live-restore\": true}' > /etc/docker/daemon.json;"
        " systemctl reload docker"
    )
    for _ in range(100):
        if '"LiveRestoreEnabled":true' in api(engine, "GET", "/info"):
            break
        time.sleep(0.2)
    run = engine.agent("apply", plan(registry, parts=["hosts", "containerd"]))
    assert (run.fault, run.result["stopped"]) == ("", []), run.result
    assert running(engine) == containers


def test_docker_that_only_wants_containerd_is_left_alone(
    engine: runtimes.RuntimeNode, registry: Registry, containers: set[str]
) -> None:
    run = engine.agent("apply", plan(registry, parts=["hosts", "containerd"]))
    assert (run.fault, run.result["stopped"]) == ("", []), run.result
    assert running(engine) == containers


def test_dockers_containers_in_a_killed_group_of_containerd_are_named_as_docker_has_them(
    engine: runtimes.RuntimeNode, registry: Registry, containers: set[str]
) -> None:
    drop_in(engine, "containerd.service", "[Service]", "KillMode=control-group")
    document = plan(registry, parts=["hosts", "containerd"])
    refused(engine, engine.agent("apply", document), "2 running containers", "web", "db")
    assert running(engine) == containers
