#!/bin/bash
# crane 0.20.7 (Debian sid, 0.20.7+ds1-5) and oras 1.2.0 (trixie, 1.2.0-1+b9): of two logins that
# `podman login` keeps for two paths of one registry, each run takes either one, by chance.
#
# By containers-auth.json(5) a key may name a path of a registry, and the longest that fits counts: skopeo
# takes team-a's for team-a/app. crane reads the same file, XDG_RUNTIME_DIR/containers/auth.json, and
# --registry-config hands it to oras. Both look for the registry's own key (crane for the image's before);
# where there is none, each key is cut down to its host, which is meant for Docker's "https://host/v1/", and
# the first that fits is taken. They walk through a Go map, whose order is another one in each run. So now
# and then a command has the other team's rights: a 403 that goes away when one tries again.
#
# Expected output (whose login team-a/app was asked with, in up to 400 runs):
#   skopeo 1.9.3: team-a
#   crane 0.20.7: team-a, team-b
#   oras 1.2.0: team-a, team-b
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 libgpgme11 libdevmapper1.02.1 libassuan0 2>/dev/null
pool=http://deb.debian.org/debian/pool/main
curl -fsS -o crane.deb "$pool/g/go-containerregistry/crane_0.20.7+ds1-5_amd64.deb"
curl -fsS -o oras.deb "$pool/o/oras/oras_1.2.0-1+b9_amd64.deb"
sha256sum --check --quiet <<'SUMS'
2d4bdb12724eda42214bb8957aecc472e561317938da3c95402a9ee30c73fa3b  crane.deb
5f138419f0e4bc128ee4717b06190dc5770cf120ab7e3a991e5b3e9158f3189e  oras.deb
SUMS
for package in *.deb; do dpkg-deb -x "$package" root; done
LD_LIBRARY_PATH=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
export LD_LIBRARY_PATH HOME="$folder/home" XDG_RUNTIME_DIR="$folder/run"
unset DOCKER_CONFIG REGISTRY_AUTH_FILE
cat > program.py <<'PROGRAM'
import base64
import http.server
import json
import pathlib
import subprocess
import threading

users = []
KIND = "application/vnd.oci.image.manifest.v1+json"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2}
CONFIG["digest"] = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": KIND, "config": CONFIG, "layers": []}).encode()


class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        login = self.headers.get("Authorization", "")
        self.send_response(200 if login else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.send_header("Content-Type", KIND)
        self.send_header("Content-Length", str(len(MANIFEST)))
        self.end_headers()
        self.wfile.write(MANIFEST)
        if login and "/manifests/" in self.path:
            users.append(base64.b64decode(login.split()[1]).decode().partition(":")[0])

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"127.0.0.1:{server.server_address[1]}"
file = pathlib.Path("run/containers/auth.json")
file.parent.mkdir(parents=True)
words = {team: base64.b64encode(f"{team}:secret".encode()).decode() for team in ("team-a", "team-b")}
file.write_text(json.dumps({"auths": {f"{host}/{team}": {"auth": words[team]} for team in words}}))
image = f"{host}/team-a/app:1"
PROGRAMS = {
    "skopeo 1.9.3": (25, f"skopeo inspect --raw --tls-verify=false docker://{image}"),
    "crane 0.20.7": (400, f"crane manifest {image}"),
    "oras 1.2.0": (400, f"oras manifest fetch --plain-http --registry-config {file} {image}"),
}
found = []
for name, (most, command) in PROGRAMS.items():
    users.clear()
    for _ in range(most):
        argv = f"root/usr/bin/{command}".split()
        subprocess.run(argv, capture_output=True, timeout=60, check=True)
        if len(set(users)) == 2:
            break
    found.append(", ".join(sorted(set(users))))
    print(f"{name}: {found[-1]}")
raise SystemExit(found != ["team-a", "team-a, team-b", "team-a, team-b"])
PROGRAM
python3 program.py
