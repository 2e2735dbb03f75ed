#!/bin/sh
# docker 7.2.0 (PyPI, the Python SDK): `client.images.list` fails if one of the images is removed
# between the engine's list and the question for that image.
#
# The engine answers GET /images/json with one row per image, names included (Docker Engine API,
# ImageList). `images.list` then asks GET /images/ID/json for each row, and the 404 of one image
# that is gone by then ends the whole list as ImageNotFound. `containers.list` works in the same
# way and has an option against it, `ignore_removed`; `images.list` has none. The low-level
# `client.api.images` asks once and is not concerned. The engine here is a stand-in on loopback that
# lists two images and has one of them.
#
# Expected output:
#   images.list raised ImageNotFound
#   api.images lists 2
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -qq --disable-pip-version-check docker==7.2.0
"$folder/env/bin/python" - <<'PROGRAM'
import http.server
import json
import threading

import docker
from docker.errors import ImageNotFound

THERE, GONE = "sha256:" + "1" * 64, "sha256:" + "2" * 64


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = 200
        if "/images/json" in self.path:
            said = [{"Id": one, "RepoTags": [f"reg.test/app:{one[7]}"]} for one in (THERE, GONE)]
        elif THERE in self.path:
            said = {"Id": THERE, "RepoTags": ["reg.test/app:1"]}
        else:
            status, said = 404, {"message": f"No such image: {GONE}"}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = docker.DockerClient(f"tcp://127.0.0.1:{server.server_address[1]}", version="1.41")
try:
    found = client.images.list()
except ImageNotFound:
    print("images.list raised ImageNotFound")
else:
    raise SystemExit(f"images.list now returns {found}")
rows = client.api.images()
print(f"api.images lists {len(rows)}")
raise SystemExit(len(rows) != 2)
PROGRAM
