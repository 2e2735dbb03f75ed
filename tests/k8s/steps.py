"""The journey's steps, in order. Each is a function whose first line says what it shows."""

from __future__ import annotations

import base64
import json
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from agent.daemonset import scrape
from moorage.cluster.api import ours, paths
from moorage.cluster.symptoms import causes
from moorage.registry import caching, handed
from moorage.registry.caches.upstreams import Upstream
from moorage.registry.logins import users
from tests.agent.authority import Authority
from tests.agent.real import Registry
from tests.k8s import nodehalf, page, spoilt
from tests.k8s.journey import PREFIX, Journey, NotHere

Step = Callable[[Journey], None]
STEPS: list[Step] = []
# Left to a run by hand (`--full`): each is a variant of a kind that another step holds.
VARIANTS: set[Step] = set()
# Go reads the hosts file again only after five seconds (net/hosts.go, cacheMaxAge).
HOSTS_FILE_AGE = 5.5


def step(function: Step) -> Step:
    STEPS.append(function)
    return function


def variant(function: Step) -> Step:
    VARIANTS.add(function)
    return step(function)


# -- the Secret -----------------------------------------------------------------------------------


@step
def secret_in_three_namespaces_and_again(journey: Journey) -> None:
    """One login in three namespaces; the second run changes nothing, not even a version."""
    with ExitStack() as stack:
        names = [stack.enter_context(journey.namespace(word)) for word in ("one", "two", "three")]
        words = (f"--namespace={','.join(names)}",)
        dry = journey.k8s("secret", *words, "--dry-run").want()
        assert dry.document["changed"] is False
        assert all(journey.find("Secret", name, "my-registry") is None for name in names)
        first = journey.k8s("secret", *words).want()
        assert handed.planned(journey.settings, users.SECRETS).password not in first.words
        assert [one["status"] for one in first.document["secrets"]] == ["created"] * 3
        before = [journey.find("Secret", name, "my-registry") for name in names]
        again = journey.k8s("secret", *words).want()
        assert again.document["changed"] is False
        assert before == [journey.find("Secret", name, "my-registry") for name in names]


@step
def others_fields_stay_and_attach_drops_nothing(journey: Journey) -> None:
    """A colleague's annotation and imagePullSecrets survive, and go back as they were."""
    with journey.namespace("attach") as name:
        journey.k8s("secret", f"--namespace={name}").want()
        note = {"metadata": {"annotations": {"colleague": "was here"}}}
        path = paths.one("Secret", "my-registry", name)
        journey.api.merge(path, note, "annotate")
        account = paths.one("ServiceAccount", "default", name)
        named = {"imagePullSecrets": [{"name": "theirs"}]}
        journey.api.merge(account, named, "name a Secret")
        answer = journey.k8s("secret", f"--namespace={name}", "--attach").want()
        assert answer.document["secrets"][0]["attached"] == ["default"]
        assert answer.document["secrets"][0]["status"] == "unchanged"
        live = journey.api.get(account)
        assert live["imagePullSecrets"] == [{"name": "theirs"}, {"name": "my-registry"}]
        assert journey.api.get(path)["metadata"]["annotations"] == {"colleague": "was here"}
        journey.k8s("rm", f"--namespace={name}", "--yes").want()
        live = journey.api.get(account)
        assert live["imagePullSecrets"] == [{"name": "theirs"}]
        assert ours.ATTACHED not in (live["metadata"].get("annotations") or {})


@variant
def somebody_elses_secret_is_refused(journey: Journey) -> None:
    """A Secret not ours, of another type, a missing namespace: exit 2, and nothing is half done."""
    with journey.namespace("theirs") as theirs, journey.namespace("free") as free:
        opaque = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "my-registry", "namespace": theirs},
            "type": "Opaque",
            "stringData": {"a": "b"},
        }
        journey.api.apply(paths.of(opaque), opaque, "make a Secret")
        answer = journey.k8s("secret", f"--namespace={free},{theirs}").want(2)
        assert answer.document["error"]["code"] == "secret-other-type"
        assert journey.find("Secret", free, "my-registry") is None
        journey.k8s("secret", f"--namespace={free},{PREFIX}-nowhere").want(2)
        assert journey.find("Secret", free, "my-registry") is None
        answer = journey.k8s("secret", f"--namespace={free},{theirs}", "--replace").want()
        made = {one["namespace"]: one["status"] for one in answer.document["secrets"]}
        assert made == {free: "created", theirs: "replaced"}
        journey.api.delete(paths.one("Secret", "my-registry", theirs), "delete")
        journey.secret(theirs, "my-registry", "other.example", "u", "p")
        answer = journey.k8s("secret", f"--namespace={theirs}").want(2)
        assert answer.document["error"]["code"] == "secret-foreign"
        journey.k8s("secret", f"--namespace={theirs}", "--replace").want()
        journey.api.delete(paths.one("Namespace", theirs), "delete a namespace")


@step
def a_changed_password_is_renewed_everywhere(journey: Journey) -> None:
    """After a change of the password, --renew finds every Secret of ours."""
    journey.alone_with_secrets()
    with journey.namespace("renew") as one, journey.namespace("renew2") as two:
        journey.k8s("secret", f"--namespace={one},{two}", "--credentials=-", stdin="old:words\n")
        journey.k8s("secret", "--renew", "--credentials=-", stdin="new:words\n").want()
        for name in (one, two):
            assert _login(journey, name)["username"] == "new"
        journey.k8s("secret", "--renew").want()
        for name in (one, two):
            login = _login(journey, name)
            assert login["username"] == users.name_for(users.SECRETS)
            assert login["password"] == handed.planned(journey.settings, users.SECRETS).password


def _login(journey: Journey, namespace: str) -> dict[str, Any]:
    secret = journey.find("Secret", namespace, "my-registry")
    assert secret is not None
    content = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    login: dict[str, Any] = content["auths"][journey.settings.registry_name]
    return login


# -- deploy ---------------------------------------------------------------------------------------


@step
def private_reg_runs_and_answers(journey: Journey) -> None:
    """The tutorial's pod is 1/1 Running in one command; the second changes nothing."""
    with journey.namespace("deploy") as name:
        answer = journey.k8s("deploy", f"--namespace={name}", "--timeout=90").want()
        assert [pod["stage"] for pod in answer.document["pods"]] == ["ready"]
        assert answer.document["answer"] == "private-reg"
        again = journey.k8s("deploy", f"--namespace={name}").want()
        assert again.document["changed"] is False
        assert again.document["seconds"] < 30


@variant
def deployment_with_service_answers(journey: Journey) -> None:
    """--workload deployment: probes, non-root, a Service that answers through the proxy."""
    with journey.namespace("deployment") as name:
        words = (f"--namespace={name}", "--workload=deployment", "--timeout=90")
        answer = journey.k8s("deploy", *words).want()
        assert len(answer.document["pods"]) == 2
        assert answer.document["answer"].startswith("private-reg-")
        assert journey.k8s("deploy", *words).want().document["changed"] is False
        scaled = journey.k8s("deploy", *words, "--replicas=1").want()
        assert scaled.document["changed"] is True


@step
def runs_on_every_node(journey: Journey) -> None:
    """--workload daemonset: every node proves that it can pull, and k8s.nodes says so."""
    nodes = journey.nodes()
    with journey.namespace("every") as name:
        words = (f"--namespace={name}", "--workload=daemonset", "--timeout=120")
        answer = journey.k8s("deploy", *words).want()
        assert sorted(pod["node"] for pod in answer.document["pods"]) == sorted(nodes)
        told = journey.k8s("nodes").want()
        proven = {one["name"] for one in told.document["nodes"] if one["trusts"]}
        assert set(nodes) <= proven


@step
def nodes_come_from_the_cluster(journey: Journey) -> None:
    """--from-cluster: one node by its labels loses the trust, all of them have it again."""
    nodes = journey.nodes()
    journey.on_node(nodes[0], "true")
    cluster = ("--from-cluster", f"--kubeconfig={journey.kubeconfig}")
    chosen = f"--selector=kubernetes.io/hostname={nodes[0]}"

    def runtime() -> str:
        """As the API tells it: ``Unknown`` while the kubelet last asked during a restart."""
        told = journey.api.get(paths.one("Node", nodes[0]))["status"]["nodeInfo"]
        version = str(told["containerRuntimeVersion"])
        return "" if version.endswith("Unknown") else version.replace("://", " ")

    known = journey.until(runtime, "version of the runtime")
    try:
        gone = journey.inv("nodes.untrust", *cluster, chosen).want()
        assert [(one["host"], one["status"]) for one in gone.document["hosts"]] == [
            (nodes[0], "changed")
        ]
        assert known in gone.words, gone.words
        # A pull of before proves nothing any more.
        (told,) = journey.k8s("nodes", chosen).want().document["nodes"]
        assert (told["trusts"], told["by"]) == (False, "untrusted"), told
        back = journey.inv("nodes.trust", *cluster, "--no-verify").want(3)
        status = {one["host"]: one["status"] for one in back.document["hosts"]}
        assert status.pop(nodes[0]) == "changed"
        assert status == dict.fromkeys(nodes[1:], "unchanged")
        none = journey.inv("nodes.trust", *cluster, "--selector=nobody=here").want(2)
        assert none.document["error"]["code"] == "no-nodes"
        none = journey.inv("nodes.trust", "--selector=nobody=here").want(2)
        assert none.document["error"]["code"] == "wrong-use"
    finally:
        journey.trust()


@step
def an_agent_that_stays_puts_back_what_a_colleague_takes(journey: Journey) -> None:
    """The hosts entry and the CA are back within seconds, beside a kubelet that runs."""
    node, host = journey.nodes()[0], journey.settings.registry.host
    folder = f"/etc/containerd/certs.d/{journey.settings.registry_name}"
    there = f"grep -q '{host}' /etc/hosts && test -s {folder}/ca.crt && echo yes || true"
    assert journey.on_node(node, there).strip() == "yes"
    journey.on_node(
        node, f"sed '/{host}/d' /etc/hosts > /tmp/h && cat /tmp/h > /etc/hosts && rm -r {folder}"
    )
    journey.until(lambda: journey.on_node(node, there).strip() == "yes", "the trust", 60)


@step
def a_pod_of_somebody_else_is_left_alone(journey: Journey) -> None:
    """A pod named private-reg that is not ours: exit 2, and it is as it was."""
    with journey.namespace("pod") as name:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "private-reg", "namespace": name},
            "spec": {"containers": [{"name": "a", "image": "other.example/a:1"}]},
        }
        journey.api.apply(paths.of(pod), pod, "make a pod")
        answer = journey.k8s("deploy", f"--namespace={name}").want(2)
        assert answer.document["error"]["code"] == "not-ours"
        assert journey.find("Secret", name, "my-registry") is None


# -- diagnose -------------------------------------------------------------------------------------


@step
def diagnoses_a_missing_secret(journey: Journey) -> None:
    """No Secret at all; --fix makes and attaches one, and the pod runs."""
    with journey.namespace("no-secret") as name:
        journey.foreign(name, journey.settings.image_reference)
        journey.diagnosed(name, "secret-missing")
        journey.fixed(name)


@step
def a_native_sidecar_that_runs_keeps_no_pod_from_being_cured(journey: Journey) -> None:
    """A pod without a Secret whose sidecar runs is made anew, and runs when cured is said."""
    journey.since(29, "native sidecars")
    sidecar = {
        "name": "proxy",
        "image": journey.preloaded(),
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", "import time; time.sleep(9999)"],
        "restartPolicy": "Always",
    }
    with journey.namespace("sidecar") as name:
        journey.foreign(name, journey.settings.image_reference, initContainers=[sidecar])
        journey.diagnosed(name, "secret-missing")

        def proxies() -> bool:
            pods = list(journey.api.items(paths.all_of("Pod", name)))
            states = [pod["status"].get("initContainerStatuses") or [{}] for pod in pods]
            return all("running" in (one[0].get("state") or {}) for one in states)

        journey.until(proxies, "sidecars that run")
        journey.fixed(name)


@step
def an_image_volume_is_diagnosed_by_its_own_image(journey: Journey) -> None:
    """The image that is missing is the volume's; the container's own is there."""
    journey.since(35, "image volumes")
    with journey.namespace("volume") as name:
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        missing = f"{journey.settings.registry_name}/nothing/here:1"
        app = {
            "name": "app",
            "image": journey.settings.image_reference,
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        volume = {"name": "data", "image": {"reference": missing}}
        journey.foreign(name, "", containers=[app], volumes=[volume])
        answer = journey.diagnosed(name, "repository-missing")
        assert answer.causes["repository-missing"]["images"] == [missing]


@step
def an_image_that_another_pod_pulled_is_not_there_for_one_that_never_pulls(
    journey: Journey,
) -> None:
    """Since 1.35 a pod with the policy Never needs the Secret that the image was pulled with."""
    journey.since(35, "the check of who may use an image")
    with journey.namespace("never") as name, journey.namespace("puller") as puller:
        image = journey.settings.image_reference
        journey.k8s("secret", f"--namespace={puller}", "--attach").want()
        journey.foreign(puller, image)
        journey.running(puller)
        app = {"name": "app", "image": image, "imagePullPolicy": "Never"}
        journey.foreign(name, "", containers=[app])
        journey.diagnosed(name, causes.NOT_FOR_THESE.code)
        journey.fixed(name)


@step
def a_kubelet_that_always_verifies_lets_no_preloaded_image_be_used(journey: Journey) -> None:
    """AlwaysVerify: what is told of a preloaded image, the cure as it is told, and our own pod."""
    journey.since(35, "the check of who may use an image")
    node, policy = journey.nodes()[0], "imagePullCredentialsVerificationPolicy"
    image = journey.built(f"{journey.settings.registry_name}/journey/preloaded:1")
    with (
        journey.kubelet(node, **{policy: "AlwaysVerify"}),
        journey.namespace("always") as name,
        journey.namespace("deployed") as deployed,
    ):
        journey.inv("nodes.preload", image, f"--hosts={node}").want(0)
        app = {"name": "app", "image": image, "imagePullPolicy": "Never"}
        journey.foreign(name, "", node=node, containers=[app])
        cause = journey.diagnosed(name, causes.ALWAYS_VERIFY.code, node).causes["always-verify"]
        assert f"on {node}: set {policy}: NeverVerifyPreloadedImages" in cause["cure"]
        journey.k8s("deploy", f"--namespace={deployed}", "--workload=daemonset").want()
        journey.kubelet_says(node, **{policy: "NeverVerifyPreloadedImages"})
        journey.running(name)


@variant
def diagnoses_a_secret_that_is_not_there(journey: Journey) -> None:
    """The pod names a Secret that is only in another namespace; --fix makes it here."""
    with ExitStack() as stack:
        names = ("here", "there", "busy-1", "busy-2", "busy-3")
        here, there, *busy = [stack.enter_context(journey.namespace(word)) for word in names]
        # Others hold a Secret for the registry too; this one is called as nobody else's is.
        journey.k8s("secret", f"--namespace={','.join(busy)}").want()
        journey.k8s("secret", f"--namespace={there}", f"--name={PREFIX}").want()
        journey.foreign(here, journey.settings.image_reference, secret=PREFIX)
        answer = journey.diagnosed(here, "secret-elsewhere")
        assert there in answer.causes["secret-elsewhere"]["cause"]
        journey.fixed(here)


@variant
def a_page_fixes_a_pod_whose_secret_was_removed(journey: Journey) -> None:
    """The Secret is removed; the page shows why its pods wait, asks, makes it, and they run."""
    secret = f"{PREFIX}-page"  # as no Secret elsewhere is called
    with journey.namespace("page") as name:
        journey.k8s("secret", f"--namespace={name}", f"--name={secret}", "--attach").want()
        journey.api.delete(paths.one("Secret", secret, name), "delete a Secret")
        journey.foreign(name, journey.settings.image_reference)
        journey.diagnosed(name, "secret-missing")
        words = ("--pods", "--actions", f"--kubeconfig={journey.kubeconfig}")
        with page.opened(journey.project, *words) as browser:
            link = journey.until(lambda: _fix_of(browser, name), "a fix on the page")
            question = browser.get(link)
            assert f"put the login into {name}<" in question
            form = page.Form(question)
            assert browser.send(form, Origin="http://evil.example") == 403
            assert browser.send(form.with_fields(token="0" * 64)) == 403
            assert journey.find("Secret", name, secret) is None
            began = time.time()
            assert browser.send(form) == 303
            journey.running(name)
            shown = journey.until(lambda: _done(browser), "the result on the page")
            assert "; the pods run<" in shown
        (log,) = [path for path in _logs(journey) if path.stat().st_mtime >= began]
        asked, *_, ended = log.read_text().splitlines()
        assert asked.startswith("inv k8s.diagnose ")
        assert " --fix # asked for on the page by " in asked
        assert "ended: 1 Secret holds the login; the pods run" in ended


def _fix_of(browser: page.Browser, namespace: str) -> str:
    """The link to the fix of what befell that namespace, "" while the page does not show it."""
    for one in browser.get("/section/pods").split("<li>")[1:]:
        pods = one.partition("<strong>")[2].partition(":")[0].split(", ")
        if any(pod.startswith(f"{namespace}/") for pod in pods):
            others = [pod for pod in pods if not pod.startswith(f"{namespace}/")]
            if others:
                raise NotHere(f"the page would fix {', '.join(others)} too")
            (link,) = page.Form(one).links
            return link
    return ""


def _done(browser: page.Browser) -> str:
    shown = browser.get("/section/actions")
    return "" if "under way" in shown else shown


def _logs(journey: Journey) -> list[Path]:
    return list((journey.settings.state / "log").glob("*-k8s.diagnose.log"))


@variant
def diagnoses_a_secret_that_nobody_names(journey: Journey) -> None:
    """The Secret is in the namespace, but the pod does not use it; --fix attaches it."""
    with journey.namespace("not-named") as name:
        journey.k8s("secret", f"--namespace={name}").want()
        journey.foreign(name, journey.settings.image_reference)
        journey.diagnosed(name, "secret-not-named")
        journey.fixed(name)


@variant
def diagnoses_a_secret_for_another_server(journey: Journey) -> None:
    """A Secret for another server; somebody else's, so --fix does not overwrite it."""
    with journey.namespace("server") as name:
        login = handed.made(journey.settings, [users.SECRETS])[users.SECRETS]
        journey.secret(name, "theirs", "other.example", login.user, login.password)
        journey.foreign(name, journey.settings.image_reference, secret="theirs")
        answer = journey.diagnosed(name, "secret-other-server")
        assert "other.example" in answer.causes["secret-other-server"]["cause"]
        refused = journey.k8s("diagnose", f"--namespace={name}", "--fix", "--yes").want(1)
        error = refused.document["fixes"][0]["error"]
        assert error["code"] == "secret-foreign"


@step
def diagnoses_a_wrong_password(journey: Journey) -> None:
    """Our own Secret with an old password; --fix renews it, and the pod runs."""
    with journey.namespace("password") as name:
        user = users.name_for(users.SECRETS)
        words = (f"--namespace={name}", "--credentials=-")
        journey.k8s("secret", *words, stdin=f"{user}:old-words\n").want()
        journey.foreign(name, journey.settings.image_reference, secret="my-registry")
        answer = journey.diagnosed(name, "secret-wrong-login")
        assert "another password" in answer.causes["secret-wrong-login"]["cause"]
        assert "old-words" not in answer.words + json.dumps(answer.document)
        journey.fixed(name)


@step
def diagnoses_a_missing_tag(journey: Journey) -> None:
    """A tag that is not there: the tags that are, are named."""
    with journey.namespace("tag") as name:
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        image = journey.settings.image_reference
        journey.foreign(name, f"{image.rpartition(':')[0]}:9.9.9")
        answer = journey.diagnosed(name, "tag-missing")
        assert journey.settings.image.tag in answer.causes["tag-missing"]["cause"]


@variant
def diagnoses_a_missing_repository(journey: Journey) -> None:
    """A repository that is not there is told apart from a missing tag."""
    with journey.namespace("repository") as name:
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        journey.foreign(name, f"{journey.settings.registry_name}/nothing/here:1")
        journey.diagnosed(name, "repository-missing")


@variant
def diagnoses_a_bad_image_name(journey: Journey) -> None:
    """What is no image name at all."""
    with journey.namespace("name") as name:
        journey.foreign(name, f"{journey.settings.registry_name}/Upper:1")
        journey.diagnosed(name, "bad-image-name")


@step
def diagnoses_a_registry_that_is_not_found(journey: Journey) -> None:
    """A name that resolves nowhere, of a registry that is not ours: no fix of ours is offered."""
    with journey.namespace("host") as name:
        journey.foreign(name, "registry.invalid/a:1")
        answer = journey.diagnosed(name, "name-unresolved")
        assert answer.causes["name-unresolved"]["fix"] == ""


@step
def diagnoses_trust_taken_away_on_one_node(journey: Journey) -> None:
    """The trust is gone from one node, each in turn: it is named, --fix brings the trust back."""
    nodes = journey.nodes()
    for place, node in enumerate(nodes):
        journey.on_node(node, "true")
        other = nodes[place - 1]
        with journey.namespace(f"trust-{place}") as name:
            journey.k8s("secret", f"--namespace={name}", "--attach").want()
            address = _address(journey, other)
            journey.inv("nodes.untrust", f"--hosts={node}").want()
            try:
                # The hosts entry alone is put back: what is missing is the trust.
                host = journey.settings.registry.host
                journey.on_node(node, f"echo {address} {host} >> /etc/hosts")
                time.sleep(HOSTS_FILE_AGE)
                journey.foreign(name, journey.settings.image_reference)
                journey.diagnosed(name, "x509-unknown-authority", node)
                drop = f"sed '/ {host}$/d' /etc/hosts > /tmp/h && cat /tmp/h > /etc/hosts"
                journey.on_node(node, drop)
                journey.fixed(name)
            finally:
                journey.trust(node)


def _address(journey: Journey, node: str) -> str:
    """This machine's address as a node knows it."""
    line = journey.on_node(node, f"getent hosts {journey.settings.registry.host}")
    return line.split()[0]


@variant
def diagnoses_a_missing_hosts_entry(journey: Journey) -> None:
    """Nodes without the hosts entry; --fix writes it."""
    nodes = journey.nodes()
    with journey.namespace("hosts") as name:
        host = journey.settings.registry.host.replace(".", r"\.")
        drop = f"sed '/{host}/d' /etc/hosts > /tmp/h && cat /tmp/h > /etc/hosts"
        try:
            for node in nodes:
                journey.by_hand(node, drop)
            journey.k8s("secret", f"--namespace={name}", "--attach").want()
            time.sleep(HOSTS_FILE_AGE)
            journey.foreign(name, journey.settings.image_reference)
            journey.diagnosed(name, "name-unresolved")
            journey.fixed(name)
        finally:
            journey.trust()


@variant
def diagnoses_a_configuration_that_ignores_the_trust(journey: Journey) -> None:
    """A colleague takes config_path out: the CA is there and is not read; --fix puts it back."""
    journey.trust()
    with journey.namespace("ignored") as name:
        file = "/etc/containerd/config.toml"
        try:
            for node in journey.nodes():
                journey.by_hand(
                    node, f"sed -i '/config_path/d' {file} && systemctl restart containerd"
                )
            journey.k8s("secret", f"--namespace={name}", "--attach").want()
            journey.foreign(name, journey.settings.image_reference)
            answer = journey.diagnosed(name, "config-path-ignored")
            said = answer.causes["config-path-ignored"]["cause"]
            assert f"{file} was changed since" in said
            journey.fixed(name)
        finally:
            journey.trust()


class _Refuses(socketserver.StreamRequestHandler):
    """A proxy that lets nobody through."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@variant
def diagnoses_a_proxy_in_between(journey: Journey) -> None:
    """A proxy refuses what a runtime asks it for, in words of a registry; --fix leads past it."""
    node, folder = journey.nodes()[0], "/run/systemd/system/containerd.service.d"
    again = "systemctl daemon-reload; systemctl restart containerd"
    address = _address(journey, node)
    with (
        journey.namespace("proxy") as name,
        socketserver.ThreadingTCPServer((address, 0), _Refuses) as proxy,
    ):
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        variable = f"HTTPS_PROXY=http://{address}:{proxy.server_address[1]}"
        unit = (
            f"mkdir -p {folder}; printf '[Service]\\nEnvironment={variable}\\n' > {folder}/p.conf"
        )
        journey.by_hand(node, f"{unit}; {again}")
        try:
            journey.foreign(name, journey.settings.image_reference, node=node)
            journey.diagnosed(name, "proxy", node)
            journey.fixed(name)
        finally:
            journey.by_hand(node, f"rm {folder}/p.conf; {again}")
            journey.inv("nodes.untrust", f"--hosts={node}").want()
            journey.trust()
            proxy.shutdown()


@variant
def diagnoses_a_registry_that_is_stopped(journey: Journey) -> None:
    """Nothing listens; --fix starts the registry."""
    with journey.namespace("stopped") as name:
        container = journey.front_container()
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        container.stop(timeout=2)
        try:
            journey.foreign(name, journey.settings.image_reference)
            journey.diagnosed(name, "registry-refused")
            journey.fixed(name)
        finally:
            journey.registry_up()


def _spoilt(journey: Journey, word: str, code: str, **wrong: Any) -> None:
    with journey.namespace(word) as name:
        journey.registry_container()
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        with spoilt.serving(journey, spoilt.leaf(journey.settings, **wrong)):
            journey.foreign(name, journey.settings.image_reference)
            journey.diagnosed(name, code)
            journey.fixed(name)


@step
def diagnoses_a_certificate_for_another_name(journey: Journey) -> None:
    """The certificate is for another name; --fix issues it again."""
    _spoilt(journey, "san", "x509-wrong-name", name="other.example")


@variant
def diagnoses_a_certificate_with_a_common_name_only(journey: Journey) -> None:
    """The old Common Name and no subject alternative name; --fix issues it again."""
    _spoilt(journey, "common-name", "x509-common-name", san=False)


@variant
def diagnoses_an_expired_certificate(journey: Journey) -> None:
    """Its time is over; --fix issues it again."""
    _spoilt(journey, "expired", "x509-expired", expired=True)


@step
def deploy_says_the_cause_instead_of_timing_out(journey: Journey) -> None:
    """A deploy that cannot pull ends with the diagnosis, long before its time-out."""
    with journey.namespace("trouble") as name:
        image = f"{journey.settings.registry_name}/nothing/here:1"
        answer = journey.k8s("deploy", f"--namespace={name}", f"--image={image}").want(1)
        assert answer.document["seconds"] < 150  # the time-out is 180
        codes = [cause["code"] for cause in answer.document["diagnosis"]["causes"]]
        assert codes == ["repository-missing"]


# -- agents ---------------------------------------------------------------------------------------


def _agents_in_grade_files(journey: Journey) -> None:
    """Agents stand in the grade files; where none does, nodes are bare but for a config_path."""
    if journey.agents_stand:
        return
    journey.alone()
    journey.trust()
    journey.k8s("agents", "--remove", "--yes").want()
    for node in journey.nodes():
        journey.wipe(node)
    journey.agents().want()
    journey.agents_stand = True


@step
def agents_write_the_trust_folders_and_no_more(journey: Journey) -> None:
    """Grade files: without capability, host PID or config.toml; each node proves it by a pull."""
    journey.alone()
    journey.trust()
    journey.k8s("agents", "--remove", "--yes").want()
    for node in journey.nodes():
        journey.wipe(node)
    config = "cat /etc/containerd/config.toml; systemctl show containerd -p InvocationID"
    before = {node: journey.on_node(node, config) for node in journey.nodes()}
    answer = journey.agents().want()
    journey.agents_stand = True
    assert {one["grade"] for one in answer.document["nodes"]} == {"files"}
    assert all(one["proven"] for one in answer.document["nodes"])
    assert before == {node: journey.on_node(node, config) for node in journey.nodes()}
    told = journey.k8s("nodes").want().document["nodes"]
    assert {one["by"] for one in told} == {"agent"}
    again = journey.agents().want()
    assert again.document["changed"] is False
    _require_metrics(journey)


def _require_metrics(journey: Journey) -> None:
    """Each agent's pod tells, on the port that Prometheus scrapes, that its node trusts."""
    namespace = journey.settings.kubernetes.agents_namespace
    registry = f'registry="{journey.settings.registry_name}"'
    for pod in journey.running(namespace):
        place = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        said = journey.api.text(f"{place}:{scrape.PORT}/proxy/metrics", "scrape an agent")
        told = [one for one in said.splitlines() if one.startswith("moorage_registry_trusted{")]
        node = f'node="{pod["spec"]["nodeName"]}"'
        assert any(node in one and registry in one and one.endswith(" 1") for one in told), said


@variant
def a_changed_plan_reaches_every_node_without_a_restart(journey: Journey) -> None:
    """The plan's Secret changes: every agent says so within seconds, and no pod is another."""
    _agents_in_grade_files(journey)
    namespace = journey.settings.kubernetes.agents_namespace
    pods = {one["metadata"]["uid"] for one in journey.running(namespace)}
    path = paths.one("Secret", "moorage-plan", namespace)
    plan = json.loads(base64.b64decode(journey.api.get(path)["data"]["plan.json"]))
    old = {node: journey.annotation(node)["plan"] for node in journey.nodes()}
    plan["options"]["lock_wait"] += 1
    text = base64.b64encode(json.dumps(plan).encode()).decode()
    journey.api.merge(path, {"data": {"plan.json": text}}, "change the plan")

    def arrived() -> bool:
        return all(journey.annotation(node)["plan"] != old[node] for node in old)

    journey.until(arrived, "word of the new plan", 60)
    assert pods == {one["metadata"]["uid"] for one in journey.running(namespace)}


@step
def a_node_that_joins_takes_pods_only_when_it_can_pull(journey: Journey) -> None:
    """A tainted, bare node: a pod waits, the agent trusts and lifts the taint, the pod runs."""
    _agents_in_grade_files(journey)
    node = journey.nodes()[-1]
    namespace = journey.settings.kubernetes.agents_namespace
    taint = {"key": "moorage.dev/untrusted", "effect": "NoSchedule"}
    with journey.namespace("joins") as name:
        journey.k8s("secret", f"--namespace={name}", "--attach").want()
        path = paths.one("Node", node)
        journey.api.merge(path, {"spec": {"taints": [taint]}}, "taint")
        try:
            journey.wipe(node)
            journey.foreign(name, journey.settings.image_reference, node=node)
            # What a node that joins gets from the DaemonSet is a pod of its own.
            for pod in journey.api.items(paths.all_of("Pod", namespace)):
                if pod["spec"].get("nodeName") == node:
                    journey.api.delete(paths.of({**pod, "kind": "Pod"}), "delete", grace=0)

            def lifted() -> bool:
                return journey.api.get(path)["spec"].get("taints") is None

            journey.until(lifted, "a node without our taint", 180)
            journey.running(name)
            events = journey.api.items(paths.all_of("Event", name))
            words = [one.get("message", "") for one in events]
            assert not [one for one in words if "Failed to pull" in one]
        finally:
            journey.api.merge(path, {"spec": {"taints": None}}, "lift the taint")


@step
def agents_put_back_what_drifted(journey: Journey) -> None:
    """Somebody deletes the trust on a node: the agent has it back within a minute."""
    _agents_in_grade_files(journey)
    node = journey.nodes()[0]
    folder = f"/etc/containerd/certs.d/{journey.settings.registry_name}"
    journey.by_hand(node, f"rm -r {folder}")
    there = f"test -f {folder}/hosts.toml && echo yes || echo no"
    journey.until(lambda: journey.on_node(node, there).strip() == "yes", "the trust", 120)


@variant
def agents_edit_the_configuration_where_that_is_needed(journey: Journey) -> None:
    """Grade full on nodes without a config_path, each told why; --untrust gives every byte back."""
    journey.alone()
    journey.trust()
    journey.k8s("agents", "--remove", "--yes").want()
    journey.agents_stand = False
    nodes = journey.nodes()
    journey.inv("nodes.untrust", f"--hosts={','.join(nodes)}").want()
    for node in nodes:
        journey.without_config_path(node)
    files = "cat /etc/containerd/config.toml /etc/hosts; ls /etc/containerd"
    before = {node: journey.on_node(node, files) for node in nodes}
    try:
        answer = journey.agents().want()
        assert {one["grade"] for one in answer.document["nodes"]} == {"full"}
        assert "config.toml has to be edited" in answer.words
        with journey.namespace("full") as name:
            journey.k8s("deploy", f"--namespace={name}", "--workload=daemonset").want()
        journey.k8s("agents", "--remove", "--untrust", "--yes", "--timeout=120").want()
        assert before == {node: journey.on_node(node, files) for node in nodes}
        annotations = [journey.annotation(node) for node in nodes]
        assert annotations == [{}] * len(nodes)
        told = journey.k8s("nodes").want().document["nodes"]
        assert {one["trusts"] for one in told if one["name"] in nodes} == {False}, told
        assert journey.api.find(paths.one("ClusterRole", "moorage-agent")) is None
    finally:
        journey.k8s("agents", "--remove", "--yes")
        journey.trust()


@step
def the_agent_s_container_does_on_containerd_2_in_the_grade_files(journey: Journey) -> None:
    """Containerd 2: the pod's containers, run without a kubelet, and CRI pulls between them."""
    with nodehalf.on(journey, "files") as half:
        journey.inv("nodes.trust", f"--hosts={half.node}", "--no-verify").want(3)
        journey.wipe(half.node)
        assert "pulled" not in half.pull()
        trust, _proof = half.pod["initContainers"]
        journey.on_node(half.node, half.command(trust, "trust", detached=False))
        assert half.said()["status"] == "trusted"
        assert half.said()["proven"] is False
        time.sleep(HOSTS_FILE_AGE)
        assert half.pull() == "pulled"
        agent = half.pod["containers"][0]
        journey.on_node(half.node, half.command(agent, "agent", detached=True))
        journey.until(lambda: half.said().get("proven"), "word of the proof", 90)
        assert half.live["spec"].get("taints") is None


@step
def the_agent_s_container_does_on_containerd_2_in_the_grade_full(journey: Journey) -> None:
    """Containerd 2: config.toml edited, containerd restarted, the pull made by the agent itself."""
    with nodehalf.on(journey, "full") as half:
        journey.inv("nodes.untrust", f"--hosts={half.node}")
        journey.without_config_path(half.node)
        assert "pulled" not in half.pull()
        agent = half.pod["containers"][0]
        journey.on_node(half.node, half.command(agent, "agent", detached=True))
        journey.until(lambda: half.said().get("proven"), "word of the proof", 120)
        assert half.live["spec"].get("taints") is None
        assert half.pull() == "pulled"


# -- another registry, by a cache ------------------------------------------------------------------


@variant
def an_unchanged_pod_runs_from_the_cache_of_docker_hub(journey: Journey) -> None:
    """`image: nginx` as it is, from ours: fetched once, and again while Docker Hub is away."""
    nodes = journey.nodes()
    hosts = f"--hosts={','.join(nodes)}"
    client = journey.registry_container().client
    image = journey.registry_container().image.tags[0]
    with _hub(journey, client, image) as (hub, digest), tempfile.TemporaryDirectory() as folder:
        ca = Path(folder, "hub.crt")
        ca.write_text(hub.authority.pem)
        try:
            journey.inv("registry.cache", "docker.io", f"--ca={ca}", "--open").want()
            _leads_to(client.containers.get(_cache(journey)), hub)
            journey.inv("nodes.trust", hosts, "--mirror=docker.io", "--no-verify").want(3)
            _runs(journey, "hub", digest)
            hub.container.stop(timeout=1)
            for node in nodes:
                journey.on_node(node, f"ctr -n k8s.io images rm {HUBS}")
            _runs(journey, "hub-away", digest)
        finally:
            journey.inv("registry.cache", "docker.io", "--remove", "--yes").want()
            journey.inv("nodes.untrust", hosts).want()
            journey.trust()


HUBS = "docker.io/library/nginx:latest"


@contextmanager
def _hub(journey: Journey, client: Any, image: str) -> Iterator[tuple[Registry, str]]:
    """Docker Hub's stand-in: a Distribution by its name that has an nginx. And its digest."""
    name = f"{PREFIX}-hub"
    hub = Registry(
        client, image, Authority("of the stand-in"), login=False, name="registry-1.docker.io",
        container=name,
    )  # fmt: skip
    pushed = f"127.0.0.1:{hub.port}/library/nginx"
    try:
        journey.built(f"{pushed}:latest")
        journey.until(lambda: "error" not in client.images.push(pushed, "latest"), "a push", 30)
        told = client.images.get(f"{pushed}:latest").attrs["RepoDigests"]
        (digest,) = [one.partition("@")[2] for one in told if one.startswith(pushed)]
        yield hub, digest
    finally:
        hub.container.remove(force=True, v=True)
        with suppress(ImageNotFound):
            client.images.remove(f"{pushed}:latest")


def _cache(journey: Journey) -> str:
    return caching.name(journey.settings, Upstream("docker.io"))


def _leads_to(cache: Any, hub: Registry) -> None:
    """The name of Docker Hub leads to its stand-in, in the cache's container alone."""
    with Path(cache.attrs["HostsPath"]).open("a") as hosts:
        hosts.write(f"{hub.address} {hub.name}\n")


def _runs(journey: Journey, word: str, digest: str) -> None:
    """A pod per node of an image that is named as everybody names it."""
    with journey.namespace(word) as name:
        journey.foreign(name, "nginx")
        for pod in journey.running(name):
            (found,) = pod["status"]["containerStatuses"]
            assert found["imageID"].endswith(digest), (found["imageID"], digest)


# -- removal --------------------------------------------------------------------------------------


@step
def rm_takes_ours_and_nothing_else(journey: Journey) -> None:
    """All that is ours goes; what is not ours stays."""
    with journey.namespace("rm") as name:
        journey.k8s("deploy", f"--namespace={name}").want()
        journey.k8s("deploy", f"--namespace={name}", "--workload=deployment", "--name=web").want()
        journey.secret(name, "theirs", "other.example", "u", "p")
        dry = journey.k8s("rm", f"--namespace={name}", "--dry-run").want()
        assert len(dry.document["actions"]) == 4
        journey.k8s("rm", f"--namespace={name}", "--yes").want()
        assert journey.find("Pod", name, "private-reg") is None
        assert journey.find("Deployment", name, "web") is None
        assert journey.find("Secret", name, "my-registry") is None
        assert journey.find("Secret", name, "theirs") is not None
        assert journey.k8s("rm", f"--namespace={name}", "--yes").want().document["actions"] == []
