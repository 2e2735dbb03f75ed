#!/bin/sh
# tomlkit 0.15.2 (PyPI, TOML that keeps its style) refuses a configuration that containerd reads.
#
# TOML 1.0 lets a table be defined after its own sub-tables, as long as each is defined once. If a table's
# sub-table, the table, its parent and another sub-table follow in this order, tomlkit says that the table
# exists already. containerd (1.6.20, 1.7.24 and 2.1.9) takes every value, and so does Python's tomllib.
# A tool that edits /etc/containerd/config.toml by tomlkit stops at such a file.
#
# Expected output (containerd 1.6.20 of Debian bookworm, or the one installed):
#   containerd: config_path = "/etc/containerd/certs.d", bin_dir = "/opt/cni/bin"
#   tomllib:    reads it
#   tomlkit:    Key "io.containerd.grpc.v1.cri" already exists. at line 8 col 0
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! command -v containerd >/dev/null; then
    (cd "$folder" && apt-get download -qq containerd >/dev/null && dpkg -x containerd_*.deb .)
    PATH=$PATH:$folder/usr/bin
fi
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -qq --disable-pip-version-check tomlkit==0.15.2
cat > "$folder/config.toml" <<'CONFIG'
version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "my.registry.io/pause:3.9"
[plugins]
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
CONFIG
containerd --config "$folder/config.toml" config dump > "$folder/merged.toml"
FOLDER=$folder "$folder/env/bin/python" - <<'PROGRAM'
import os
import pathlib
import tomllib

import tomlkit

folder = pathlib.Path(os.environ["FOLDER"])
plugins = tomllib.loads((folder / "merged.toml").read_text())["plugins"]
cri = plugins.get("io.containerd.grpc.v1.cri") or {}
path = cri.get("registry", {}).get("config_path")
bin_dir = cri.get("cni", {}).get("bin_dir")
print(f'containerd: config_path = "{path}", bin_dir = "{bin_dir}"')
text = (folder / "config.toml").read_text()
tomllib.loads(text)
print("tomllib:    reads it")
try:
    tomlkit.parse(text)
    said = "reads it"
except tomlkit.exceptions.ParseError as problem:
    said = str(problem)
print(f"tomlkit:    {said}")
raise SystemExit(path != "/etc/containerd/certs.d" or "already exists" not in said)
PROGRAM
