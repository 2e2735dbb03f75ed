#!/bin/bash
# containerd 1.6.20 (Debian bookworm, 1.6.20~ds1-1+deb12u3) and 2.1.9 (sid, 2.1.9+ds1-5): a registry that
# answers 429 with `Retry-After: 2` is asked six times within that time, and then the pull has failed.
#
# Five retries are there for 429 and 408 (pull request 3382 of 2019). Neither is the header read nor is
# there a pause, so they are over within milliseconds and bridge nothing, while a limit that counts
# requests is hit six times as hard. Upstream's issue 10447 has said so of pushes since 2024; pulls are
# no better. skopeo of the same bookworm waits as it was told, and has the image. A proxy in front of a
# registry had better make nodes wait than turn them away.
#
# Expected output:
#   containerd 1.6.20: 6 requests, failed
#   containerd 2.1.9: 6 requests, failed
#   skopeo 1.9.3: 2 requests, has it
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(cat "$folder"/*/pid 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq containerd=1.6.20~ds1-1+deb12u3 2>/dev/null
dpkg-deb -x containerd_*.deb 1.6.20
curl -fsS -o newer.deb http://deb.debian.org/debian/pool/main/c/containerd/containerd_2.1.9+ds1-5_amd64.deb
echo "2dda86ce7033fd612fc50e136679d8174ccad680eb29cd4611e0d2a1b84cf591  newer.deb" | sha256sum --check --quiet
dpkg-deb -x newer.deb 2.1.9
mkdir skopeo
(cd skopeo && apt-get download -qq skopeo=1.9.3+ds1-1+b10 libgpgme11 libdevmapper1.02.1 libassuan0 2>/dev/null)
for package in skopeo/*.deb; do dpkg-deb -x "$package" skopeo; done
for version in 1.6.20 2.1.9; do
    cat > $version/config.toml <<TOML
version = 2
root = "$folder/$version/root"
state = "$folder/$version/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
address = "$folder/$version/sock"
[ttrpc]
address = "$folder/$version/ttrpc"
TOML
    $version/usr/bin/containerd --config $version/config.toml > $version/log 2>&1 &
    echo $! > $version/pid
done
LD_LIBRARY_PATH=$(find "$folder/skopeo" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
export LD_LIBRARY_PATH
cat > program.py <<'PROGRAM'
import hashlib
import http.server
import json
import pathlib
import subprocess
import threading
import time

asked = []
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
KIND = "application/vnd.oci.image.manifest.v1+json"


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


told = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(CONFIG)}
told["digest"] = digest(CONFIG)
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": KIND, "config": told, "layers": []}).encode()


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers 429 for two seconds from the first question for the tag on."""

    def do_GET(self):
        body, status = (MANIFEST if "/manifests/" in self.path else CONFIG), 200
        if self.path.endswith("/manifests/1"):
            asked.append(time.monotonic())
            status = 429 if asked[-1] < asked[0] + 1.9 else 200
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "2")
        self.send_header("Content-Type", KIND if body is MANIFEST else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
threading.Thread(target=server.serve_forever, daemon=True).start()
image = f"127.0.0.1:{server.server_address[1]}/app:1"
fetch = f"usr/bin/ctr --address {pathlib.Path.cwd()}/{{0}}/sock content fetch --plain-http {image}"
PROGRAMS = {
    "containerd 1.6.20": f"1.6.20/{fetch.format('1.6.20')}",
    "containerd 2.1.9": f"2.1.9/{fetch.format('2.1.9')}",
    "skopeo 1.9.3": f"skopeo/usr/bin/skopeo inspect --raw --tls-verify=false docker://{image}",
}
found = []
for name, command in PROGRAMS.items():
    while name.startswith("containerd") and not pathlib.Path(name.split()[1], "sock").exists():
        time.sleep(0.1)
    asked.clear()
    done = subprocess.run(command.split(), capture_output=True, timeout=60)
    found.append((len(asked), done.returncode == 0))
    print(f"{name}: {len(asked)} requests, {'failed' if done.returncode else 'has it'}")
raise SystemExit(found != [(6, False), (6, False), (2, True)])
PROGRAM
timeout 60 python3 program.py
