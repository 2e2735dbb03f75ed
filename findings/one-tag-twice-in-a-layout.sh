#!/bin/bash
# skopeo 1.9.3 and umoci 0.4.7 (Debian bookworm) and oras 1.2.0 (trixie): an OCI layout whose index.json has one
# tag twice is another image to each of them: the first one, an error, the last one.
#
# The image specification lets org.opencontainers.image.ref.name occur again (its issue 581, which asks for
# unique ones, has been open since 2017). `ctr images export` of app:1.0 and db:1.0 writes such an index, the
# whole names in an annotation of containerd's own; a tool that appends where a tag gets another image does
# so too. Then the one image is pushed or the other, by the tool that pushes: skopeo and oras exit with 0 and
# say nothing. Moorage goes by the archive's manifest.json then, or refuses (moorage/images/sources.py).
#
# Expected output (of "1.0", first the old one in the file, then the new one):
#   skopeo: old
#   oras: new
#   umoci: tag is ambiguous: 1.0
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 umoci=0.4.7+ds-3+b7 libgpgme11 libdevmapper1.02.1 libassuan0 2>/dev/null
curl -fsS -o oras.deb http://deb.debian.org/debian/pool/main/o/oras/oras_1.2.0-1+b9_amd64.deb
echo "5f138419f0e4bc128ee4717b06190dc5770cf120ab7e3a991e5b3e9158f3189e  oras.deb" | sha256sum --check --quiet
for package in *.deb; do dpkg-deb -x "$package" root; done
LD_LIBRARY_PATH=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
export LD_LIBRARY_PATH HOME=$folder
cat > layout.py <<'PROGRAM'
import hashlib
import json
import pathlib

blobs = pathlib.Path("layout/blobs/sha256")
blobs.mkdir(parents=True)


def blob(kind, said):
    content = json.dumps(said).encode()
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    kind = f"application/vnd.oci.image.{kind}.v1+json"
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(content)}


listed = []
for age in ("old", "new"):
    files = {"type": "layers", "diff_ids": []}
    config = blob("config", {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": files})
    whole = {"schemaVersion": 2, "config": config, "layers": [], "annotations": {"age": age}}
    tag = {"org.opencontainers.image.ref.name": "1.0"}
    listed.append({**blob("manifest", whole), "annotations": tag})
index = {"schemaVersion": 2, "manifests": listed}
pathlib.Path("layout/index.json").write_text(json.dumps(index))
pathlib.Path("layout/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
PROGRAM
python3 layout.py
age() { python3 -c 'import json, sys; print(json.load(sys.stdin)["annotations"]["age"])'; }
{
    echo "skopeo: $(root/usr/bin/skopeo inspect --raw oci:layout:1.0 | age)"
    echo "oras: $(root/usr/bin/oras manifest fetch --oci-layout layout:1.0 | age)"
    echo "umoci: $(root/usr/bin/umoci stat --image layout:1.0 2>&1 | grep -o 'tag is ambiguous: 1.0')"
} > output
cat output
diff output - <<'EXPECTED'
skopeo: old
oras: new
umoci: tag is ambiguous: 1.0
EXPECTED
