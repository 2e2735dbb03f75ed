#!/bin/sh
# docker-registry 2.8.2 (Debian bookworm, Distribution): DELETE of a manifest answers 500 and deletes
# it all the same, if another tag of that repository is just being pushed; its own tags stay for ever.
#
# A DELETE takes the manifest's link away first, and then reads every tag of the repository to find
# those that named it. Tags are written in place: for an instant a tag's file is there and empty.
# A DELETE that meets one ends with 500 "unknown error". The manifest is gone, the tag that named
# it is still listed, and a second DELETE answers 404 before it comes to the tags: by no DELETE can
# it be taken away any more. Here two clients push tags, and a third pushes and deletes until it is
# seen (one in some dozens to some hundreds).
#
# Expected output:
#   DELETE: 500 (after N that answered 202), then GET by digest: 404
#   the tag is listed: True
#   DELETE again, with no push: 404
#   the tag is listed: True
#   GET by tag: 404
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pid" 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq docker-registry=2.8.2+ds1-1 2>/dev/null
dpkg-deb -x docker-registry_*.deb .
./usr/bin/docker-registry --version
python3 - <<'PROGRAM'
import hashlib
import itertools
import json
import pathlib
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with open("config.yml", "w") as file:
    file.write(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        "storage: {filesystem: {rootdirectory: ./data}, delete: {enabled: true}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
with open("log", "w") as log:
    served = subprocess.Popen(
        ["./usr/bin/docker-registry", "serve", "config.yml"], stdout=log, stderr=log
    )
pathlib.Path("pid").write_text(str(served.pid))
BASE = f"http://127.0.0.1:{port}/v2/app"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def ask(method, url, body=None, kind="application/octet-stream"):
    headers = {"Content-Type": kind, "Accept": MANIFEST}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.headers, problem.read()


for _ in range(100):
    try:
        ask("GET", f"http://127.0.0.1:{port}/v2/")
        break
    except (urllib.error.URLError, OSError):
        time.sleep(0.1)


def push(tag, config):
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    where = ask("POST", f"{BASE}/blobs/uploads/", b"")[1]["Location"]
    assert ask("PUT", f"{where}&digest={digest}", config)[0] == 201
    kind = "application/vnd.oci.image.config.v1+json"
    described = {"mediaType": kind, "digest": digest, "size": len(config)}
    content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    manifest = json.dumps(content).encode()
    assert ask("PUT", f"{BASE}/manifests/{tag}", manifest, MANIFEST)[0] == 201
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def tags():
    return sorted(json.loads(ask("GET", f"{BASE}/tags/list")[2])["tags"])


ended = threading.Event()


def keep_pushing(name):
    config = json.dumps({"architecture": name, "os": "linux"}).encode()
    for number in itertools.count():
        if ended.is_set():
            return
        push(f"{name}-{number % 50}", config)


others = [threading.Thread(target=keep_pushing, args=(name,)) for name in ("amd64", "arm64")]
for other in others:
    other.start()
for before in range(5000):
    first = push("one", b'{"architecture":"s390x","os":"linux"}')
    deleted = ask("DELETE", f"{BASE}/manifests/{first}")[0]
    if deleted != 202:
        break
ended.set()
for other in others:
    other.join()
got = ask("GET", f"{BASE}/manifests/{first}")[0]
print(f"DELETE: {deleted} (after {before} that answered 202), then GET by digest: {got}")
left = "one" in tags()
print("the tag is listed:", left)
again = ask("DELETE", f"{BASE}/manifests/{first}")[0]
print("DELETE again, with no push:", again)
still, by_tag = "one" in tags(), ask("GET", f"{BASE}/manifests/one")[0]
print("the tag is listed:", still)
print("GET by tag:", by_tag)
served.terminate()
served.wait()
assert (deleted, got, again, by_tag) == (500, 404, 404, 404), "it answers otherwise now"
assert left and still, "the tag goes now"
PROGRAM
