#!/bin/bash
# python-dxf 12.1.1 (PyPI, a client for registries) and docker-registry 2.8.2 (Debian bookworm): of the two
# attestations of an image for two platforms, `DXF.del_alias` and `DXF.get_alias` name one.
#
# buildx writes one attestation per platform into an image's index, each for the platform unknown/unknown;
# what it is about stands in an annotation. python-dxf gives the parts of an index as a dict by platform,
# where the second takes the first one's place. del_alias deletes the index and returns that dict, for
# its caller to delete each part in turn, as its documentation asks. One attestation stays for good: nothing names
# it any more, and Distribution keeps an untagged manifest, with its layers, until somebody deletes it by digest.
#
# Expected output:
#   the index lists 4 manifests
#   del_alias returned 3: linux/amd64, linux/arm64, unknown/unknown
#   after deleting each: 1 of 4 is left
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pid" 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq docker-registry=2.8.2+ds1-1 2>/dev/null
dpkg-deb -x docker-registry_*.deb .
python3 -m venv env
env/bin/pip install -qq --disable-pip-version-check python-dxf==12.1.1
port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
cat > config.yml <<YAML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: ./data}, delete: {enabled: true}}
http: {addr: '127.0.0.1:$port'}
YAML
usr/bin/docker-registry serve config.yml > log 2>&1 &
echo $! > pid
for _ in $(seq 100); do curl -fs -o /dev/null "http://127.0.0.1:$port/v2/" && break || sleep 0.1; done
cat > program.py <<'PROGRAM'
import hashlib
import json
import sys

import dxf
import requests

host = f"127.0.0.1:{sys.argv[1]}"
base = f"http://{host}/v2/app"
client = dxf.DXF(host, "app", insecure=True)
OCI = "application/vnd.oci.image."


def part(platform, about=""):
    """A manifest with a configuration of its own, as the index lists it."""
    config = json.dumps({**platform, "author": about}).encode()
    digest = client.push_blob(data=iter([config]), digest=dxf.hash_bytes(config))
    described = {"mediaType": f"{OCI}config.v1+json", "digest": digest, "size": len(config)}
    found = put(f"{OCI}manifest.v1+json", {"config": described, "layers": []})
    if about:
        kind = {"vnd.docker.reference.type": "attestation-manifest"}
        found["annotations"] = {**kind, "vnd.docker.reference.digest": about}
    return {**found, "platform": platform}


def put(kind, said, tag=""):
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, **said}).encode()
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    url, headers = f"{base}/manifests/{tag or digest}", {"Content-Type": kind}
    requests.put(url, body, headers=headers, timeout=10).raise_for_status()
    return {"mediaType": kind, "digest": digest, "size": len(body)}


images = [part({"os": "linux", "architecture": one}) for one in ("amd64", "arm64")]
unknown = {"os": "unknown", "architecture": "unknown"}
parts = images + [part(unknown, one["digest"]) for one in images]
put(f"{OCI}index.v1+json", {"manifests": parts}, "1")
print(f"the index lists {len(parts)} manifests")
named = client.del_alias("1")
print(f"del_alias returned {len(named)}: {', '.join(sorted(named))}")
for digest in named.values():
    client.del_alias(digest)
there = {"Accept": f"{OCI}manifest.v1+json"}
answers = [requests.get(f"{base}/manifests/{one['digest']}", headers=there, timeout=10) for one in parts]
left = [answer.status_code for answer in answers].count(200)
print(f"after deleting each: {left} of {len(parts)} is left")
raise SystemExit((len(named), left) != (3, 1))
PROGRAM
timeout 60 env/bin/python program.py "$port"
