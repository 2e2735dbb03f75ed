#!/bin/bash
# skopeo 1.9.3 (Debian bookworm, 1.9.3+ds1-1+b10): a mirror made by `skopeo sync` says of a signed image that
# nothing belongs to it, with --all as without, and the exit status is 0.
#
# A registry without the referrers API (Distribution 2.8 and 3) lists what belongs to an image, its
# signatures above all, in an index under the tag sha256-HEX (OCI Distribution Specification 1.1,
# "Referrers Tag Schema"). To skopeo this is an image for several platforms. Without --all it copies the
# first entry in its place, so that a manifest stands where the index is looked for (newer ones, 1.22
# included, do that too). With --all it writes the index again, without the artifactType that clients
# choose by (containers/image issue 2460, mended in July 2024: 1.18 of trixie keeps it).
# --preserve-digests makes 1.9.3 end with an error there.
#
# Expected output (what `oras discover` finds of notation's kind):
#   source: 1
#   skopeo sync: exit 0, 2 tags, found 0
#   skopeo sync --all: exit 0, 2 tags, found 0
#   skopeo sync --all --preserve-digests: exit 1
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pid" 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 docker-registry=2.8.2+ds1-1 libgpgme11 libdevmapper1.02.1 libassuan0 2>/dev/null
curl -fsS -o oras.deb http://deb.debian.org/debian/pool/main/o/oras/oras_1.2.0-1+b9_amd64.deb
echo "5f138419f0e4bc128ee4717b06190dc5770cf120ab7e3a991e5b3e9158f3189e  oras.deb" | sha256sum --check --quiet
for package in *.deb; do dpkg-deb -x "$package" root; done
LD_LIBRARY_PATH=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
export LD_LIBRARY_PATH HOME=$folder
PATH=$folder/root/usr/bin:$PATH
host=127.0.0.1:$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
cat > config.yml <<YAML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $folder/data}}
http: {addr: '$host'}
YAML
docker-registry serve config.yml > log 2>&1 &
echo $! > pid
for _ in $(seq 100); do curl -fs -o /dev/null "http://$host/v2/" && break || sleep 0.1; done

signature=application/vnd.cncf.notary.signature
image=application/vnd.oci.image
echo hello > file
tar -czf layer.tar.gz file
diff=$(gzip -cd layer.tar.gz | sha256sum | cut -c 1-64)
cat > config.json <<JSON
{"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:$diff"]}}
JSON
echo '{}' > signature.json
oras push --plain-http "$host/app:1" --config "config.json:$image.config.v1+json" \
    "layer.tar.gz:$image.layer.v1.tar+gzip" > /dev/null
oras attach --plain-http "$host/app:1" --artifact-type "$signature" signature.json:application/jose+json > /dev/null
amount() { python3 -c 'import json, sys; print(len(json.load(sys.stdin)[sys.argv[1]] or []))' "$1"; }
found() { oras discover --plain-http --artifact-type "$signature" --format json "$1" | amount manifests; }
{
    echo "source: $(found "$host/app:1")"
    number=0
    for options in "" " --all" " --all --preserve-digests"; do
        number=$((number + 1)) ended=0
        # shellcheck disable=SC2086
        skopeo --insecure-policy sync$options --src docker --dest docker --src-tls-verify=false \
            --dest-tls-verify=false "$host/app" "$host/mirror$number" > said 2>&1 || ended=$?
        printf 'skopeo sync%s: exit %s' "$options" "$ended"
        if [ "$ended" -ne 0 ]; then echo; continue; fi
        tags=$(curl -fsS "http://$host/v2/mirror$number/app/tags/list" | amount tags)
        echo ", $tags tags, found $(found "$host/mirror$number/app:1")"
    done
} > output
cat output
diff output - <<'EXPECTED'
source: 1
skopeo sync: exit 0, 2 tags, found 0
skopeo sync --all: exit 0, 2 tags, found 0
skopeo sync --all --preserve-digests: exit 1
EXPECTED
