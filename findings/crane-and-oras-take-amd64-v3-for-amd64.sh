#!/bin/bash
# crane 0.20.7 (Debian sid, 0.20.7+ds1-5) and oras 1.2.0 (trixie, 1.2.0-1+b9): asked for linux/amd64, they take
# the image for amd64/v3, if the index lists it before the one for every amd64.
#
# The image specification wants the first entry taken that meets what is asked for, and calls an entry's
# platform "the minimum runtime requirements of the image". What meets linux/amd64 is read in two ways.
# containerd 1.6.20 and skopeo 1.9.3 (both bookworm) mean what every amd64 runs, and v7 by linux/arm, and find that
# entry wherever it stands. To crane and oras a variant that was not named may be any: they take the first
# entry of the architecture, say nothing, and exit with 0. So whoever copies one platform into a private
# registry has an image there that these nodes would not have chosen, and that an older CPU cannot run.
#
# Expected output (which entry is fetched):
#   linux/amd64 of amd64/v3, amd64: containerd amd64, skopeo amd64, crane amd64/v3, oras amd64/v3
#   linux/amd64 of amd64, amd64/v3: containerd amd64, skopeo amd64, crane amd64, oras amd64
#   linux/arm of arm/v6, arm/v7: containerd arm/v7, skopeo arm/v7, crane arm/v6, oras arm/v6
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pid" 2>/dev/null) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq containerd=1.6.20~ds1-1+deb12u3 skopeo=1.9.3+ds1-1+b10 \
    libgpgme11 libdevmapper1.02.1 libassuan0 2>/dev/null
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
cat > config.toml <<TOML
version = 2
root = "$folder/kept"
state = "$folder/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$folder/sock"
[ttrpc]
address = "$folder/ttrpc"
TOML
root/usr/bin/containerd --config config.toml > log 2>&1 &
echo $! > pid
cat > program.py <<'PROGRAM'
import hashlib
import http.server
import json
import pathlib
import subprocess
import threading
import time

KIND = "application/vnd.oci.image."
held, names, asked = {}, {}, []


def hold(kind, said):
    content = json.dumps(said).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    held[digest] = (f"{KIND}{kind}.v1+json", content)
    return {"mediaType": held[digest][0], "digest": digest, "size": len(content)}


def image(name, number):
    platform = dict(zip(("os", "architecture", "variant"), f"linux/{name}".split("/"), strict=False))
    config = hold("config", {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
    manifest = {"schemaVersion": 2, "mediaType": f"{KIND}manifest.v1+json", "config": config, "layers": []}
    # Each index has its own: containerd fetches nothing twice.
    row = hold("manifest", {**manifest, "annotations": {"of": str(number)}})
    names[row["digest"]] = name
    return {**row, "platform": platform}


class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        what = self.path.rpartition("/")[2]
        found = tags.get(what, what)
        kind, content = held.get(found, ("application/json", b"{}"))
        if found in names:
            asked.append(names[found])
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", found)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"127.0.0.1:{server.server_address[1]}"
ROWS = [("amd64", "amd64/v3", "amd64"), ("amd64", "amd64", "amd64/v3"), ("arm", "arm/v6", "arm/v7")]
tags = {}
for number, (_, *listed) in enumerate(ROWS):
    rows = [image(name, number) for name in listed]
    index = {"schemaVersion": 2, "mediaType": f"{KIND}index.v1+json", "manifests": rows}
    tags[str(number)] = hold("index", index)["digest"]
socket = pathlib.Path("sock").resolve()
while not socket.exists():
    time.sleep(0.1)
output = []
for number, (wanted, *listed) in enumerate(ROWS):
    app, took = f"{host}/app:{number}", []
    for command in (
        f"ctr --address {socket} content fetch --plain-http --platform linux/{wanted} {app}",
        f"skopeo --override-os linux --override-arch {wanted} inspect --no-tags --tls-verify=false docker://{app}",
        f"crane manifest --platform linux/{wanted} {app}",
        f"oras manifest fetch --plain-http --platform linux/{wanted} {app}",
    ):
        asked.clear()
        argv = f"root/usr/bin/{command}".split()
        subprocess.run(argv, capture_output=True, timeout=60, check=True)
        took.append(f"{argv[0][13:].replace('ctr', 'containerd')} {' or '.join(sorted(set(asked)))}")
    output.append(f"linux/{wanted} of {', '.join(listed)}: {', '.join(took)}\n")
    print(output[-1], end="", flush=True)
pathlib.Path("output").write_text("".join(output))
PROGRAM
timeout 120 python3 program.py
diff output - <<'EXPECTED'
linux/amd64 of amd64/v3, amd64: containerd amd64, skopeo amd64, crane amd64/v3, oras amd64/v3
linux/amd64 of amd64, amd64/v3: containerd amd64, skopeo amd64, crane amd64, oras amd64
linux/arm of arm/v6, arm/v7: containerd arm/v7, skopeo arm/v7, crane arm/v6, oras arm/v6
EXPECTED
