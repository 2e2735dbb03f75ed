#!/bin/bash
# podman 5.8.0 (PyPI, the Python client of Podman): `images.get_registry_data` asks no registry. It gives the local
# image's ID, so that whoever looks for a newer image by it never finds one.
#
# Its documentation: "Returns registry data for an image", for compatibility with docker (PyPI, the Python SDK),
# whose method has the registry asked and gives the digest there as `id`. podman's reads
# /libpod/images/NAME/json, which is the local storage: an image that moved in the registry is the old one
# still, and one that is there alone raises ImageNotFound. `pull` of the object asks for a tag that is the
# image's ID, which no registry has. That is no exception either (its issue 301 of 2023: the service tells the
# failure in a line, as Podman 4.3.1 of bookworm does): an image without a name is returned. The service here
# is a stand-in on loopback.
#
# Expected output (the image of ID 1111 is here; in the registry its tag has moved to 2222):
#   docker 7.2.0: 2222, from /distribution/reg.test/app:1/json
#   podman 5.8.0: 1111, from /libpod/images/reg.test/app:1/json
#   podman 5.8.0, pull: asks for reg.test/app:1111, returns <Image: ''>
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -qq --disable-pip-version-check docker==7.2.0 podman==5.8.0
cat > program.py <<'PROGRAM'
import http.server
import json
import re
import threading
import urllib.parse

import docker
import podman

NAME = "reg.test/app:1"
HERE, THERE = "1" * 64, "2" * 64
PLATFORM = {"architecture": "amd64", "os": "linux"}
IMAGE = {"Id": HERE, "RepoTags": [NAME], "Os": "linux", "Architecture": "amd64"}
MOVED = {"Descriptor": {"digest": f"sha256:{THERE}"}, "Platforms": [PLATFORM]}
UNKNOWN = {"error": f"reading manifest {HERE} in reg.test/app: manifest unknown"}
asked = []


class Service(http.server.BaseHTTPRequestHandler):
    def answer(self, said):
        path, _, query = self.path.partition("?")
        asked.append((re.sub(r"^/v[\d.]+", "", urllib.parse.unquote(path)), query))
        content = json.dumps(said).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.answer(MOVED if "/distribution/" in self.path else IMAGE)

    def do_POST(self):
        self.answer(UNKNOWN)

    def log_message(self, *args):
        pass


def short(word):
    return re.sub(r"(?:sha256:)?(\d{4})\d{60}", r"\1", word)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"tcp://127.0.0.1:{server.server_address[1]}"
for title, client in (
    ("docker 7.2.0", docker.DockerClient(base_url=url, version="1.41")),
    ("podman 5.8.0", podman.PodmanClient(base_url=url)),
):
    asked.clear()
    found = client.images.get_registry_data(NAME)
    print(f"{title}: {short(found.id)}, from {' and '.join(path for path, _ in asked)}")
asked.clear()
image = found.pull()
wanted = urllib.parse.parse_qs(asked[0][1])["reference"][0]
print(f"{title}, pull: asks for {short(wanted)}, returns {image!r}")
PROGRAM
timeout 60 env/bin/python program.py > output
cat output
diff output - <<'EXPECTED'
docker 7.2.0: 2222, from /distribution/reg.test/app:1/json
podman 5.8.0: 1111, from /libpod/images/reg.test/app:1/json
podman 5.8.0, pull: asks for reg.test/app:1111, returns <Image: ''>
EXPECTED
