#!/bin/sh
# docker-registry 2.8.2 (Debian bookworm, Distribution): GET /v2/NAME/tags/list gives tags in the
# order in which the file system lists a folder, not sorted.
#
# The OCI Distribution Specification 1.1 wants "the tags in lexical (ASCII) order". With the
# filesystem driver the registry reads _manifests/tags and gives the names as readdir gave them, so
# the order differs from one file system to the next, `last` has no meaning, and "the last eight
# tags" are eight at random. (`n` is ignored as well: all tags come in one answer.)
#
# Expected output (the first line's order is the file system's):
#   listed: [...]
#   all 12 tags, not in lexical order
#   n=3 gives 12 tags
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
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with open("config.yml", "w") as file:
    file.write(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ./data}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
served = subprocess.Popen(["./usr/bin/docker-registry", "serve", "config.yml"])
open("pid", "w").write(str(served.pid))
BASE = f"http://127.0.0.1:{port}/v2/app"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# Neither this order nor its reverse is sorted.
TAGS = "1.10 1.2 latest 1.9 2.0 1.1 1.20 edge 1.3 1.0 1.4 stable".split()


def ask(method, url, body=None, kind="application/octet-stream"):
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
    return urllib.request.urlopen(request, timeout=10)


for _ in range(100):
    try:
        ask("GET", f"http://127.0.0.1:{port}/v2/").close()
        break
    except (urllib.error.URLError, OSError):
        time.sleep(0.1)


def push(content):
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    where = ask("POST", f"{BASE}/blobs/uploads/", b"").headers["Location"]
    ask("PUT", f"{where}&digest={digest}", content).close()
    return {"digest": digest, "size": len(content)}


config = push(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')
manifest = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [],
    }
).encode()
for tag in TAGS:
    ask("PUT", f"{BASE}/manifests/{tag}", manifest, MANIFEST).close()
listed = json.load(ask("GET", f"{BASE}/tags/list"))["tags"]
few = json.load(ask("GET", f"{BASE}/tags/list?n=3"))["tags"]
served.terminate()
served.wait()
print("listed:", listed)
assert sorted(listed) == sorted(TAGS), "some tags are missing"
assert listed != sorted(listed), "they are sorted now"
print(f"all {len(listed)} tags, not in lexical order")
assert len(few) == len(TAGS), "n is heeded now"
print(f"n=3 gives {len(few)} tags")
PROGRAM
