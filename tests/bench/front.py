"""What a login costs: manifests per second, of the front, of htpasswd as it was, and of no login.

By hand, `nox -s bench -- --front`: real HAProxy and docker-registry on loopback, in turns of two
seconds, so that a busy machine is as busy for each. Load: one process, four connections. A layer of
500 MB goes both ways, on loopback, where client, front and registry share the processors, and over
a link of 1 Gbit/s (`python -m tests.bench.front` in a network of its own; needs root). And how long
`inv images.list` takes, the whole command, of a registry with 10,000 tags.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import bcrypt

from moorage.registry.logins.credentials import credentials
from moorage.registry.storage.layout import Layout
from moorage.settings import ROOT
from tests.bench.measure import Row, limited, paired
from tests.loopback import Loopback, basic, loopback, programs
from tests.ports import free_port
from tests.registry.program import put_many
from tests.unit.elsewhere import registry_project

ROUNDS, SECONDS, CONNECTIONS = 7, 2.0, 4
TAGS = 10_000
BYTES = 500_000_000
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = """\
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
  secret: 0123456789
  tls: {{certificate: {certs}/registry.crt, key: {certs}/registry.key, minimumtls: tls1.2}}
{auth}"""


# Both ways of the network's one device: what a node or an operator has to the registry's machine.
_GIGABIT = (
    "ip link set lo up && tc qdisc add dev lo root tbf rate 1gbit burst 512kb latency 20ms "
    '&& exec "$@"'
)


@contextmanager
def _both(folder: Path) -> Iterator[tuple[Loopback, dict[str, int]]]:
    """The front, and the ports of all three: ``front``, ``plain`` and ``before``.

    The peers are the Distribution with TLS, without a login and with htpasswd, over the same data.
    """
    with loopback(registry_project(folder)) as front:
        ports = {"front": front.settings.registry.port, "plain": free_port(), "before": free_port()}
        htpasswd, own = folder / "htpasswd", credentials(front.settings)
        hashed = bcrypt.hashpw(own.password.encode(), bcrypt.gensalt(5)).decode()
        htpasswd.write_text(f"{own.user}:{hashed}\n")
        auth = f"auth:\n  htpasswd: {{realm: Moorage, path: {htpasswd}}}\n"
        others = [_serve(front, ports["plain"], ""), _serve(front, ports["before"], auth)]
        try:
            yield front, ports
        finally:
            for one in others:
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()


def rows() -> list[Row]:
    """Measures all of them."""
    with tempfile.TemporaryDirectory() as folder:
        with _both(Path(folder)) as (front, ports):
            found = _rows(front, ports)
            moved = _moved(front, ports)
        words = ["unshare", "--net", "sh", "-c", _GIGABIT, "sh", sys.executable, "-m"]
        done = subprocess.run([*words, "tests.bench.front"], capture_output=True, check=True)
        slowed = json.loads(done.stdout)
        return [
            *found,
            paired("500 MB pushed and pulled, 1 Gbit/s", slowed[0], slowed[1], "s", 1.05),
            paired("500 MB pushed and pulled, loopback", *moved, "s", 1.05),
            _listed(Path(folder, "many")),
        ]


def _rows(front: Loopback, ports: Mapping[str, int]) -> list[Row]:
    context, login = front.context(), basic(credentials(front.settings))
    path = _pushed(context, ports["front"], login)
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            rates[name].append(_rate(context, port, path, {} if name == "plain" else login))
    each = {name: 1000 / statistics.median(found) for name, found in rates.items()}
    return [
        Row("a manifest with a login, beside htpasswd", each["front"], each["before"], "ms", 0.5),
        Row("a manifest with a login, beside none", each["front"], each["plain"], "ms", 1 / 0.85),
    ]


def _listed(data: Path) -> Row:
    """Medians of five, after one to warm up."""
    put_many(Layout(data), TAGS)
    spent = []
    for _ in range(6):
        began = time.perf_counter()
        words = [str(Path(sys.executable).with_name("inv")), "images.list", "--json"]
        environment = {**os.environ, "INVOKE_REGISTRY_DATA": str(data)}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=True)
        spent.append(time.perf_counter() - began)
        assert len(json.loads(done.stdout)["images"]) == TAGS
    return limited(f"inv images.list of {TAGS:,} tags", spent[1:], 2, "s")


def _serve(front: Loopback, port: int, auth: str) -> subprocess.Popen[bytes]:
    """A Distribution with TLS of its own, over the same data."""
    config = front.settings.state / f"{port}.yml"
    settings = front.settings
    config.write_text(
        _CONFIG.format(data=settings.registry_data, port=port, certs=settings.certs_dir, auth=auth)
    )
    made = subprocess.Popen(
        [programs()[0], "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(1)
    return made


def _pushed(context: ssl.SSLContext, port: int, login: Mapping[str, str]) -> str:
    """The path of a manifest that all of them serve."""
    config = _put_blob(context, port, login, "small", b"{}")
    part = {"mediaType": "application/octet-stream", "digest": config, "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": [part]}
    body = json.dumps(document).encode()
    line = http.client.HTTPSConnection("localhost", port, context=context)
    line.request("PUT", "/v2/small/manifests/1", body, {**login, "Content-Type": MANIFEST})
    answer = line.getresponse()
    assert answer.status == 201, answer.read()
    return f"/v2/small/manifests/{answer.headers['Docker-Content-Digest']}"


def _put_blob(
    context: ssl.SSLContext, port: int, login: Mapping[str, str], name: str, content: bytes
) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    line = http.client.HTTPSConnection("localhost", port, context=context)
    line.request("POST", f"/v2/{name}/blobs/uploads/", headers=login)
    answer = line.getresponse()
    answer.read()
    place = answer.headers["Location"].partition(f":{port}")[2]
    line.request("PUT", f"{place}&digest={digest}", content, dict(login))
    answer = line.getresponse()
    assert answer.status == 201, answer.read()
    line.close()
    return digest


def _rate(context: ssl.SSLContext, port: int, path: str, login: Mapping[str, str]) -> float:
    """Answers per second."""
    counts, end = [0] * CONNECTIONS, time.monotonic() + SECONDS

    def load(number: int) -> None:
        line = http.client.HTTPSConnection("localhost", port, context=context)
        while time.monotonic() < end:
            line.request("GET", path, headers={**login, "Accept": MANIFEST})
            answer = line.getresponse()
            answer.read()
            assert answer.status == 200
            counts[number] += 1
        line.close()

    loads = [threading.Thread(target=load, args=(number,)) for number in range(CONNECTIONS)]
    for one in loads:
        one.start()
    for one in loads:
        one.join()
    return sum(counts) / SECONDS


def _moved(front: Loopback, ports: Mapping[str, int]) -> tuple[list[float], list[float]]:
    """Seconds to push and pull a layer of 500 MB, by the front and before; each of other bytes."""
    context, login = front.context(), basic(credentials(front.settings))
    spent: dict[str, list[float]] = {"front": [], "before": []}
    for turn in range(ROUNDS):
        for name in sorted(spent, reverse=turn % 2 == 0):
            digest, seconds = _moved_once(context, ports[name], login)
            spent[name].append(seconds)
            Layout(front.settings.registry_data).blob(digest).unlink()
    return spent["front"], spent["before"]


def _moved_once(context: ssl.SSLContext, port: int, login: Mapping[str, str]) -> tuple[str, float]:
    """The layer's digest, and the seconds."""
    content = os.urandom(1_000_000) * (BYTES // 1_000_000)
    started = time.monotonic()
    digest = _put_blob(context, port, login, "large", content)
    line = http.client.HTTPSConnection("localhost", port, context=context)
    line.request("GET", f"/v2/large/blobs/{digest}", headers=dict(login))
    answer, got = line.getresponse(), 0
    while chunk := answer.read(1 << 20):
        got += len(chunk)
    assert got == len(content)
    return digest, time.monotonic() - started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, _both(Path(place)) as (running, by_name):
        sys.stdout.write(json.dumps(_moved(running, by_name)))
