#!/bin/sh
# containerd 2.1.9 (Debian sid, 2.1.9+ds1-5): a drop-in of version 3 silently ends all CRI settings
# of a main file of version 2, and `containerd config migrate` writes the loss down.
#
# The drop-in says nothing of CRI; it sets the log's level. containerd keeps one version for all
# files, the last one told, so the tables of version 2 are no longer migrated: the pause image and
# the registries' folder fall back to their defaults. The exit status is 0; the only sign are
# warnings about unknown keys. `config migrate`, which containerd's own log recommends, loads the
# drop-ins as well ("does not migrate subconfig files", says its help) and writes a file of version 3
# with the defaults. containerd 2.3 refuses to start with such a pair.
#
# Expected output:
#   version 2 alone: registry.example/pause:3.9, /etc/containerd/certs.d
#   with a drop-in of version 3: registry.k8s.io/pause:3.10, none
#   config migrate: registry.k8s.io/pause:3.10, none
# Exits non-zero if that changes.
set -eu
version=2.1.9+ds1-5
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
curl -fsS -o containerd.deb \
    "http://deb.debian.org/debian/pool/main/c/containerd/containerd_${version}_amd64.deb"
echo "2dda86ce7033fd612fc50e136679d8174ccad680eb29cd4611e0d2a1b84cf591  containerd.deb" | sha256sum --check --quiet
dpkg-deb --extract containerd.deb .
mkdir conf.d
cat > alone.toml <<'TOML'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:3.9"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
TOML
{ echo "imports = [\"$folder/conf.d/*.toml\"]"; cat alone.toml; } > main.toml
printf 'version = 3\n[debug]\n  level = "info"\n' > conf.d/log.toml

told() {
    python3 -c '
import sys, tomllib
images = tomllib.load(sys.stdin.buffer)["plugins"]["io.containerd.cri.v1.images"]
print(images["pinned_images"]["sandbox"], images["registry"]["config_path"] or "none", sep=", ")'
}
containerd=usr/bin/containerd
{
    printf 'version 2 alone: '
    $containerd --config alone.toml config dump 2>/dev/null | told
    printf 'with a drop-in of version 3: '
    $containerd --config main.toml config dump 2>/dev/null | told
    printf 'config migrate: '
    $containerd --config main.toml config migrate 2>/dev/null | told
} > output
cat output
diff output - <<'EXPECTED'
version 2 alone: registry.example/pause:3.9, /etc/containerd/certs.d
with a drop-in of version 3: registry.k8s.io/pause:3.10, none
config migrate: registry.k8s.io/pause:3.10, none
EXPECTED
