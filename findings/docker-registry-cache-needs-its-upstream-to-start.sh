#!/bin/sh
# docker-registry 2.8.2 (Debian bookworm, Distribution) as a pull-through cache: it serves what it has while
# its upstream is away, and yet cannot be started again before the upstream is back.
#
# A cache is there for the hours in which its upstream is not. One that runs answers a tag it has pulled
# once, whether the upstream refuses connections or not. But at its start it asks the upstream's /v2/
# once, for how to log in, and ends in a panic if no answer comes: after a reboot without a network
# everything it holds is out of reach.
#
# Expected output:
#   upstream there: 200
#   upstream away, cache running: 200
#   upstream away, cache started again: exit 2, panic: Get "http://127.0.0.1:PORT/v2/": dial tcp ...
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'kill $(cat "$folder"/pid.* 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq docker-registry=2.8.2+ds1-1 2>/dev/null
dpkg-deb -x docker-registry_*.deb .
./usr/bin/docker-registry --version
python3 - <<'PROGRAM'
import hashlib
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(name, at, more=""):
    pathlib.Path(f"{name}.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: ./{name}}}}}\nhttp: {{addr: '127.0.0.1:{at}'}}\n{more}"
    )
    with open(f"{name}.log", "w") as log:
        made = subprocess.Popen(
            ["./usr/bin/docker-registry", "serve", f"{name}.yml"], stdout=log, stderr=log
        )
    pathlib.Path(f"pid.{name}").write_text(str(made.pid))
    for _ in range(100):
        if made.poll() is not None:
            return made
        try:
            socket.create_connection(("127.0.0.1", at), 1).close()
            return made
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{name} does not start")


def ask(method, url, body=None, kind="application/octet-stream"):
    headers = {"Content-Type": kind, "Accept": MANIFEST}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as problem:
        return problem.code, problem.headers


up, near = port(), port()
upstream = start("upstream", up)
base, config = f"http://127.0.0.1:{up}/v2/app", b"{}"
digest = "sha256:" + hashlib.sha256(config).hexdigest()
where = ask("POST", f"{base}/blobs/uploads/", b"")[1]["Location"]
assert ask("PUT", f"{where}&digest={digest}", config)[0] == 201
kind = "application/vnd.oci.image.config.v1+json"
described = {"mediaType": kind, "digest": digest, "size": len(config)}
content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
assert ask("PUT", f"{base}/manifests/1", json.dumps(content).encode(), MANIFEST)[0] == 201

proxy = f"proxy: {{remoteurl: 'http://127.0.0.1:{up}'}}\n"
cache = start("cache", near, proxy)
pulled = f"http://127.0.0.1:{near}/v2/app/manifests/1"
there = ask("GET", pulled)[0]
print("upstream there:", there)
upstream.terminate()
upstream.wait()
away = ask("GET", pulled)[0]
print("upstream away, cache running:", away)
cache.terminate()
cache.wait()
again = start("cache", near, proxy)
words = pathlib.Path("cache.log").read_text()
panic = next((line for line in words.splitlines() if line.startswith("panic")), "no panic")
print(f"upstream away, cache started again: exit {again.poll()}, {panic[:60]}")
ended = again.poll()
if ended is None:
    again.terminate()
assert (there, away, ended) == (200, 200, 2), "it goes otherwise now"
assert "/v2/" in panic, "it ends for another reason now"
PROGRAM
