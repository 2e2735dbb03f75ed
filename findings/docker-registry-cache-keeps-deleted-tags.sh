#!/bin/bash
# docker-registry 2.8.2 (Debian bookworm, Distribution) as a pull-through cache: a tag that was deleted upstream
# is served on, while the cache lists it no more.
#
# The cache asks its upstream for the tag at each pull, so a tag that moved is seen at once. If the answer
# is any error, it gives the copy that it has, and a 404 is an error to it like a refused connection.
# Harbor decided the other way round (its issue 11868: what upstream has no more is not found, what it
# cannot be asked about is served). So the nodes behind the cache go on installing a release that was
# withdrawn, and the list of tags, which comes from upstream alone, does not show it.
#
# Expected output (manifest by tag, and the list of tags):
#   before: upstream 200 ['1'], cache 200 ['1']
#   moved upstream: the cache has the new one: True
#   deleted upstream: upstream 404 None, cache 200 None
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(cat "$folder"/pid.* 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq docker-registry=2.8.2+ds1-1 2>/dev/null
dpkg-deb -x docker-registry_*.deb .
cat > program.py <<'PROGRAM'
import hashlib
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(name, at, more=""):
    pathlib.Path(f"{name}.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: ./{name}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{at}'}}\n{more}"
    )
    argv = ["usr/bin/docker-registry", "serve", f"{name}.yml"]
    with open(f"{name}.log", "w") as log:
        made = subprocess.Popen(argv, stdout=log, stderr=log)
    pathlib.Path(f"pid.{name}").write_text(str(made.pid))
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", at), 1).close()
            return f"http://127.0.0.1:{at}/v2/app"
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{name} does not start")


def ask(method, url, body=None, kind="application/octet-stream"):
    headers = {"Content-Type": kind, "Accept": MANIFEST}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.headers, problem.read()


def push(author):
    config = json.dumps({"architecture": "amd64", "os": "linux", "author": author}).encode()
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    where = ask("POST", f"{upstream}/blobs/uploads/", b"")[1]["Location"]
    assert ask("PUT", f"{where}&digest={digest}", config)[0] == 201
    described = {"mediaType": CONFIG, "digest": digest, "size": len(config)}
    content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    assert ask("PUT", f"{upstream}/manifests/1", json.dumps(content).encode(), MANIFEST)[0] == 201


def told(base):
    return f"{ask('GET', f'{base}/manifests/1')[0]} {json.loads(ask('GET', f'{base}/tags/list')[2])['tags']}"


at = port()
upstream = start("upstream", at)
cache = start("cache", port(), f"proxy: {{remoteurl: 'http://127.0.0.1:{at}'}}\n")
push("old")
before = f"upstream {told(upstream)}, cache {told(cache)}"
print("before:", before)
push("new")
_, headers, new = ask("GET", f"{upstream}/manifests/1")
moved = ask("GET", f"{cache}/manifests/1")[2] == new
print("moved upstream: the cache has the new one:", moved)
assert ask("DELETE", f"{upstream}/manifests/{headers['Docker-Content-Digest']}")[0] == 202
after = f"upstream {told(upstream)}, cache {told(cache)}"
print("deleted upstream:", after)
assert before == "upstream 200 ['1'], cache 200 ['1']" and moved, "the cache does not work"
raise SystemExit(after != "upstream 404 None, cache 200 None")
PROGRAM
timeout 60 python3 program.py
