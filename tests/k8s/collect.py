"""Collects what real daemons say of pulls that fail, into ``messages.json`` beside this file.

    python -m tests.k8s.collect lab1,lab2,lab3     nodes of the lab, one a containerd version
    python -m tests.k8s.collect --docker           this machine's engine as well

A registry that is wrong in one way each listens on this machine's bridge address (a stand-in: the
daemons are real, and only their words are kept). Run it again when a runtime changes its words.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import json
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moorage import archive, settings
from moorage.configuration import parsing

HERE = Path(__file__).resolve().parent / "messages.json"
BRIDGE = "172.17.0.1"
NAME = "reg.test"
DAY = datetime.timedelta(days=1)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PULL = """
import sys
sys.path.insert(0, '/tmp/moorage-collect.pyz')
from agent.clients.cri_calls import Cri
from agent.clients.failures import CriError
from agent.wire.plan import Verify
image, login = sys.argv[1:]
user, _, password = login.partition(':')
with Cri('/run/containerd/containerd.sock') as cri:
    try:
        cri.pull(Verify(image, user or None, password or None), 90)
        print('pulled')
    except CriError as problem:
        print(problem.message)
"""


@dataclass(frozen=True)
class Case:
    """One way to be wrong. ``code``: what it has to be called; ``files``: of the certs.d folder."""

    code: str
    port: int
    handler: Handler | None = None
    certificate: str = "good"
    trusted: bool = True
    tls: bool = True
    hosts: bool = True
    hosts_toml: str = ""
    login: str = ""
    address: str = BRIDGE
    docker: bool = True
    silent: bool = False
    # The runtime is told of a proxy on that port, of the bridge's address …
    proxy: int = 0
    # … and its images are kept on a disk of 2 MiB.
    small: bool = False

    @property
    def real_port(self) -> int:
        return self.port or project().registry.port


def project() -> settings.Settings:
    """The settings of the project in the current folder."""
    found = Path.cwd() / "invoke.yaml"
    return parsing.parse(yaml.safe_load(found.read_text()) or {} if found.exists() else {})


def answering(status: int, body: dict[str, Any] | None = None, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        del request
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return web.json_response(body or {}, status=status, headers=named)

    return handler


def failing(status: int, code: str, message: str, **headers: str) -> Handler:
    return answering(status, {"errors": [{"code": code, "message": message}]}, **headers)


async def other_platform(request: web.Request) -> web.Response:
    """An index with an image for a mainframe alone."""
    if request.path == "/v2/":
        return web.json_response({})
    kind = "application/vnd.oci.image.index.v1+json"
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:" + "0" * 64,
        "size": 7,
        "platform": {"architecture": "s390x", "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
    return web.Response(body=json.dumps(index).encode(), content_type=kind)


async def large(request: web.Request) -> web.Response:
    """An image with a layer of 8 MiB."""
    kind = "application/vnd.oci.image."

    def described(content: bytes, what: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return {"mediaType": f"{kind}{what}", "digest": digest, "size": len(content)}

    layer = b"\0" * (8 << 20)
    inside = {"type": "layers", "diff_ids": [described(layer, "")["digest"]]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": inside}).encode()

    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}manifest.v1+json",
        "config": described(config, "config.v1+json"),
        "layers": [described(layer, "layer.v1.tar")],
    }
    body = json.dumps(manifest).encode()
    for content in (layer, config):
        if described(content, "")["digest"] in request.path:
            return web.Response(body=content)
    return web.Response(body=body, content_type=f"{kind}manifest.v1+json")


BASIC = {"WWW_Authenticate": 'Basic realm="moorage"'}
CASES = (
    Case("x509-unknown-authority", 17001, answering(200), trusted=False),
    Case("x509-wrong-name", 17002, answering(200), certificate="name"),
    Case("x509-common-name", 17003, answering(200), certificate="common-name", docker=False),
    Case("x509-expired", 17004, answering(200), certificate="expired"),
    Case("x509-not-yet-valid", 17005, answering(200), certificate="early"),
    Case("plain-http", 17006, answering(200), tls=False),
    # Go's own TLS server has its own words for this, so it is the real registry that is asked.
    Case("plain-to-https", 0, hosts_toml="http", docker=False),
    Case("registry-refused", 17008),
    Case("name-unresolved", 17009, hosts=False),
    Case("login-refused", 17010, failing(401, "UNAUTHORIZED", "authentication required", **BASIC)),
    Case(
        "login-refused",
        17011,
        failing(401, "UNAUTHORIZED", "authentication required", **BASIC),
        login="user:wrong",
    ),
    Case("access-denied", 17012, failing(403, "DENIED", "requested access is denied")),
    Case("image-missing", 17013, failing(404, "MANIFEST_UNKNOWN", "manifest unknown")),
    Case("image-missing", 17014, failing(404, "NAME_UNKNOWN", "repository name not known")),
    Case("rate-limit", 17015, failing(429, "TOOMANYREQUESTS", "You have reached your limit")),
    Case("registry-timeout", 17016, answering(503)),
    Case("wrong-platform", 17017, other_platform),
    Case("ca-unreadable", 17018, answering(200), hosts_toml="no-ca", docker=False),
    Case("no-route", 17019, address="10.255.255.254", docker=False),
    Case("registry-timeout", 17020, silent=True),
    Case("proxy", 17021, answering(200), proxy=17030, docker=False),
    Case("proxy", 17022, answering(200), proxy=17031, docker=False),
    Case("proxy", 17023, answering(200), proxy=17032, docker=False),
    Case("proxy", 17024, answering(200), proxy=17033, docker=False),
    Case("disk-full", 17025, large, small=True, docker=False),
)
# What those proxies answer; nothing listens on 17030.
PROXIES = {
    17031: "403 Forbidden",
    17032: "407 Proxy Authentication Required",
    17033: "503 Service Unavailable",
}
_STORE = "/var/lib/containerd/io.containerd.content.v1.content"
_UNIT = "/run/systemd/system/containerd.service.d"


def certificates(folder: Path) -> None:
    """A CA and a leaf for each way to be wrong."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "collect")])

    def signed(subject: x509.Name, key: Any, begins: int, ends: int, *more: Any) -> bytes:
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
        )
        for extension, critical in more:
            made = made.add_extension(extension, critical)
        return made.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca = (x509.BasicConstraints(ca=True, path_length=0), True)
    (folder / "ca.crt").write_bytes(signed(name, ca_key, -9, 9, ca))
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    own: list[x509.GeneralName] = [
        x509.DNSName(NAME),
        x509.IPAddress(ipaddress.ip_address(BRIDGE)),
    ]
    other: list[x509.GeneralName] = [x509.DNSName("other.test")]
    rows = (
        ("good", -3, 3, own),
        ("name", -3, 3, other),
        ("common-name", -3, 3, None),
        ("expired", -3, -1, own),
        ("early", 1, 3, own),
    )
    for word, begins, ends, names in rows:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        more = [] if names is None else [(x509.SubjectAlternativeName(names), False)]
        (folder / f"{word}.pem").write_bytes(pem + signed(subject, key, begins, ends, *more))


async def _say_nothing(*streams: Any) -> None:
    del streams
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(600)


def _refusing(answer: str) -> Callable[[Any, Any], Awaitable[None]]:
    async def refuse(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return refuse


async def serve(folder: Path) -> list[web.AppRunner]:
    runners = []
    for port, answer in PROXIES.items():
        await asyncio.start_server(_refusing(answer), BRIDGE, port)
    for case in CASES:
        if case.silent:
            await asyncio.start_server(_say_nothing, BRIDGE, case.port)
        if case.handler is None:
            continue
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", case.handler)
        runner = web.AppRunner(app)
        await runner.setup()
        context = None
        if case.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / f"{case.certificate}.pem")
        await web.TCPSite(runner, BRIDGE, case.port, ssl_context=context).start()
        runners.append(runner)
    return runners


class Node:
    """A node of the lab, by ssh."""

    def __init__(self, name: str) -> None:
        config = Path.cwd() / ".moorage" / "lab" / "ssh_config"
        self._ssh = ["ssh", "-F", str(config), name]
        self._address = ""

    def run(self, words: str, stdin: bytes = b"") -> str:
        done = subprocess.run([*self._ssh, words], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode().strip()

    def prepare(self, folder: Path, pyz: bytes) -> str:
        self.run("cat > /tmp/moorage-collect.pyz", pyz)
        ca = (folder / "ca.crt").read_bytes()
        for case in CASES:
            place = f"/etc/containerd/certs.d/{NAME}:{case.real_port}"
            if case.trusted:
                self.run(f"mkdir -p {place}; cat > {place}/ca.crt", ca)
            if case.hosts_toml == "http":
                url = f"http://{NAME}:{case.real_port}"
                self.run(f'printf \'server = "{url}"\\n[host."{url}"]\\n\' > {place}/hosts.toml')
            if case.hosts_toml == "no-ca":
                self.run(
                    f'printf \'server = "https://{NAME}:{case.real_port}"\\nca = "/no/ca.crt"\\n\''
                    f" > {place}/hosts.toml; rm {place}/ca.crt"
                )
        return self.run("containerd --version").split()[2].lstrip("v").split("~")[0].split("+")[0]

    def pull(self, case: Case) -> str:
        self._resolve(case.address if case.hosts else "")
        if case.code == "no-route":
            self.run(f"ip route replace unreachable {case.address}")
        image = f"{NAME}:{case.real_port}/app:1"
        if case.proxy:
            self._proxied(f"HTTPS_PROXY=http://{BRIDGE}:{case.proxy}")
        if case.small:
            self.run(f"mount -t tmpfs -o size=2m tmpfs {_STORE} && mkdir {_STORE}/ingest")
        try:
            return self.run(f"python3 - {image} '{case.login}'", PULL.encode())
        finally:
            if case.proxy:
                self._proxied("")
            if case.small:
                self.run(f"umount {_STORE}")
            if case.code == "no-route":
                self.run(f"ip route del unreachable {case.address}")

    def _proxied(self, variable: str) -> None:
        place = f"{_UNIT}/collect.conf"
        unit = f"mkdir -p {_UNIT}; printf '[Service]\\nEnvironment={variable}\\n' > {place}"
        again = "systemctl daemon-reload; systemctl restart containerd"
        self.run(f"{unit if variable else f'rm {place}'}; {again}")

    def _resolve(self, address: str) -> None:
        if address == self._address:
            return
        self._address = address
        drop = f"sed '/ {NAME}$/d' /etc/hosts > /tmp/h; cat /tmp/h > /etc/hosts"
        self.run(drop + (f"; echo {address} {NAME} >> /etc/hosts" if address else ""))
        # Go reads the hosts file again only after five seconds (net/hosts.go, cacheMaxAge).
        time.sleep(6)

    def clean(self) -> None:
        self._resolve("")
        self.run(f"rm -rf /tmp/moorage-collect.pyz /etc/containerd/certs.d/{NAME}:*")


def pull_by_docker(case: Case, folder: Path) -> str:
    """By this machine's engine, from the bridge's address: its hosts file is left alone."""
    import docker

    host = BRIDGE if case.hosts else "registry.invalid"
    host = case.address if case.address != BRIDGE else host
    name = f"{host}:{case.port}"
    place = Path("/etc/docker/certs.d") / name
    made = case.trusted and case.hosts
    if made:
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
    try:
        user, _, password = case.login.partition(":")
        auth = {"username": user, "password": password} if user else None
        client = docker.from_env(timeout=90).api
        lines = client.pull(f"{name}/app", tag="1", auth_config=auth, stream=True, decode=True)
        return next((line["error"] for line in lines if "error" in line), "pulled")
    except docker.errors.APIError as problem:
        return str(problem.explanation)
    finally:
        if made:
            (place / "ca.crt").unlink()
            place.rmdir()


def told(words: str) -> str:
    """The same from run to run: times, ports of this side and ids are made plain."""
    words = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-01-01T00:00:00Z", words)
    words = re.sub(r"(?<=:)\d{5}(?=->)", "40000", words)
    return re.sub(r"\d+\.\d+\.\d+\.\d+:53\b", "192.0.2.53:53", words)


async def main(nodes: list[str], with_docker: bool) -> None:
    found = json.loads(HERE.read_text()) if HERE.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        certificates(folder)
        runners = await serve(folder)
        built = archive.agent_archive(settings.Settings().state)
        pyz = built.path.read_bytes()
        for name in nodes:
            node = Node(name)
            version = await asyncio.to_thread(node.prepare, folder, pyz)
            rows = found[f"containerd {version}"] = []
            for case in CASES:
                words = await asyncio.to_thread(node.pull, case)
                code = case.code
                if code == "ca-unreadable" and version.startswith("1."):
                    code = "x509-unknown-authority"  # it says so in its log alone
                rows.append({"code": code, "words": told(words)})
            await asyncio.to_thread(node.clean)
        if with_docker:
            version = (await asyncio.to_thread(docker_version)).strip()
            rows = found[f"docker {version}"] = []
            for case in CASES:
                if case.docker:
                    words = await asyncio.to_thread(pull_by_docker, case, folder)
                    rows.append({"code": case.code, "words": told(words)})
        for runner in runners:
            await runner.cleanup()
    HERE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def docker_version() -> str:
    import docker

    return str(docker.from_env().version()["Version"]).split("+")[0]


if __name__ == "__main__":
    words = sys.argv[1:]
    names = [name for word in words if not word.startswith("--") for name in word.split(",")]
    asyncio.run(main(names, "--docker" in words))
