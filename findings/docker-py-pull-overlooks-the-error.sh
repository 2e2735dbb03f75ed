#!/bin/sh
# docker 7.2.0 (PyPI, the Python SDK): `client.images.pull` returns an image although the engine
# reported that the pull failed.
#
# The engine answers POST /images/create with status 200 and then sends JSON lines; a failure after
# the first byte is a line with `error` (Docker Engine API, ImageCreate). `images.pull` reads these
# lines only to keep the connection alive, and then looks the name up among the local images. If an
# older copy is there, that copy is returned as if it had been pulled. `images.load` and
# `images.build` of the same package do raise. The engine here is a stand-in on loopback that sends
# the lines that Docker 20.10.24 sent for a wrong login.
#
# Expected output:
#   engine: unauthorized: incorrect username or password
#   images.pull returned sha256:1111
#   images.load raised ImageLoadError
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
from docker.errors import ImageLoadError

WORDS = "unauthorized: incorrect username or password"
LINES = [
    {"status": "Pulling from app", "id": "1"},
    {"errorDetail": {"message": WORDS}, "error": WORDS},
]


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.begin("Transfer-Encoding", "chunked")
        for line in LINES:
            body = json.dumps(line).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        body = json.dumps({"Id": "sha256:1111", "RepoTags": ["reg.test/app:1"]}).encode()
        self.begin("Content-Length", str(len(body)))
        self.wfile.write(body)

    def begin(self, *header):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header(*header)
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = docker.DockerClient(f"tcp://127.0.0.1:{server.server_address[1]}", version="1.41")

said = [line for line in client.api.pull("reg.test/app", tag="1", stream=True, decode=True)]
print("engine:", said[-1]["error"])
image = client.images.pull("reg.test/app", tag="1")
print("images.pull returned", image.id)
try:
    client.images.load(b"")
    print("images.load raised nothing")
    raise SystemExit(1)
except ImageLoadError:
    print("images.load raised ImageLoadError")
raise SystemExit(image.id != "sha256:1111")
PROGRAM
