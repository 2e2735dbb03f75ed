#!/bin/bash
# containerd 2.1.9 (Debian sid, 2.1.9+ds1-5) passes over the mirrors of a hosts.toml that containerd 1.6.20
# (bookworm, 1.6.20~ds1-1+deb12u3) asks first, and says nothing.
#
# docs/hosts.md wants a table per host, and to TOML 1.0 a header, a dotted key and an inline table are
# three ways to write the same table. containerd tries hosts in the order of the file, which a TOML
# library's map does not keep. 1.6 sorts them by the line on which the library met them; 2.x takes the
# order from lines of the form [host."..."] alone, and a host that is written in another way is never
# tried. With it go its `ca`, its client's pair and its headers. Nothing is logged: after an upgrade all
# pulls go past the mirror, or meet a CA that is not known.
#
# Expected output (who is asked first for a tag):
#   containerd 1.6.20: header: mirror, dotted key: mirror, inline table: mirror
#   containerd 2.1.9: header: mirror, dotted key: server, inline table: server
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
cat > program.py <<'PROGRAM'
import http.server
import pathlib
import subprocess
import threading
import time

asked = []


def serve(name):
    class Registry(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(name)
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


mirror, server = serve("mirror"), serve("server")
WAYS = {
    "header": f'[host."{mirror}"]\ncapabilities = ["pull", "resolve"]\n',
    "dotted key": f'host."{mirror}".capabilities = ["pull", "resolve"]\n',
    "inline table": f'[host]\n"{mirror}" = {{ capabilities = ["pull", "resolve"] }}\n',
}
place = pathlib.Path("certs.d/registry.test")
place.mkdir(parents=True)
found = {}
for version in ("1.6.20", "2.1.9"):
    while not pathlib.Path(version, "sock").exists():
        time.sleep(0.1)
    for way, text in WAYS.items():
        (place / "hosts.toml").write_text(f'server = "{server}"\n{text}')
        asked.clear()
        fetch = ["content", "fetch", "--hosts-dir", "certs.d", "registry.test/app:1"]
        socket = str(pathlib.Path(version, "sock").resolve())
        argv = [f"{version}/usr/bin/ctr", "--address", socket, *fetch]
        subprocess.run(argv, capture_output=True, timeout=60)  # 404 everywhere: it fails
        found[version, way] = asked[0]
    print(f"containerd {version}:", ", ".join(f"{way}: {found[version, way]}" for way in WAYS))
skipped = [key for key, first in found.items() if first == "server"]
raise SystemExit(skipped != [("2.1.9", "dotted key"), ("2.1.9", "inline table")])
PROGRAM
timeout 60 python3 program.py
