#!/bin/bash
# umoci 0.4.7 (Debian bookworm, 0.4.7+ds-3+b7): `umoci gc` removes the configuration and the layers of a
# tagged image, if its manifest is of Docker's media type, and exits 0.
#
# An OCI layout may hold such a manifest: buildx writes it with oci-mediatypes=false, and
# `ctr images export` for what was pulled so. umoci-gc(1) promises to take away what no tag leads to. It
# looks for references in manifests of OCI's media types alone (a kind that it does not know has been
# passed over since its pull request 211 of 2017), so what Docker's manifest names is taken for garbage.
# The manifest and its tag stay, `umoci list` shows them still, and whoever copies the image meets a
# layer that is gone. umoci 0.6.0 of Debian sid does the same.
#
# Expected output:
#   before: 6 blobs
#   after gc, exit 0: 4 blobs, tags docker oci
#   oci: config, layer
#   docker: neither
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq umoci=0.4.7+ds-3+b7 2>/dev/null
dpkg-deb -x umoci_*.deb .
cat > layout.py <<'PROGRAM'
import gzip
import hashlib
import io
import json
import pathlib
import tarfile

blobs = pathlib.Path("layout/blobs/sha256")
blobs.mkdir(parents=True)


def blob(kind, content):
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return {"mediaType": f"application/vnd.{kind}", "digest": f"sha256:{name}", "size": len(content)}


def image(tag, manifest, config, layer):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(tag))
    told = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar.getvalue()).hexdigest()]}
    said = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": told}).encode()
    parts = blob(config, said), blob(layer, gzip.compress(tar.getvalue(), mtime=0))
    whole = {"schemaVersion": 2, "mediaType": f"application/vnd.{manifest}"}
    whole |= {"config": parts[0], "layers": [parts[1]]}
    pathlib.Path(tag).write_text("\n".join(part["digest"][7:] for part in parts))
    name = {"org.opencontainers.image.ref.name": tag}
    return {**blob(manifest, json.dumps(whole).encode()), "annotations": name}


oci, docker = "oci.image.", "docker."
listed = [
    image("oci", f"{oci}manifest.v1+json", f"{oci}config.v1+json", f"{oci}layer.v1.tar+gzip"),
    image(
        "docker",
        f"{docker}distribution.manifest.v2+json",
        f"{docker}container.image.v1+json",
        f"{docker}image.rootfs.diff.tar.gzip",
    ),
]
index = {"schemaVersion": 2, "manifests": listed}
pathlib.Path("layout/index.json").write_text(json.dumps(index))
pathlib.Path("layout/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
PROGRAM
python3 layout.py
count() { find layout/blobs -type f | wc -l; }
left() { # what is left of an image: its configuration and its layer
    { read -r config; read -r layer; } < <(cat "$1"; echo)
    said=""
    if [ -e "layout/blobs/sha256/$config" ]; then said="config"; fi
    if [ -e "layout/blobs/sha256/$layer" ]; then said="${said:+$said, }layer"; fi
    echo "$1: ${said:-neither}"
}
{
    echo "before: $(count) blobs"
    usr/bin/umoci gc --layout layout
    echo "after gc, exit 0: $(count) blobs, tags $(usr/bin/umoci list --layout layout | sort | paste -sd' ')"
    left oci
    left docker
} > output
cat output
diff output - <<'EXPECTED'
before: 6 blobs
after gc, exit 0: 4 blobs, tags docker oci
oci: config, layer
docker: neither
EXPECTED
