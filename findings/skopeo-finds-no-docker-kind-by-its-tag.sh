#!/bin/sh
# Debian bookworm, skopeo 1.9.3: an OCI layout whose index.json lists an image of Docker's media type, as buildx
# writes it with oci-mediatypes=false and `ctr images export` for what was pulled so, is read without a tag alone.
# By its tag, the only one there, skopeo says "no descriptor found for reference". Nothing in
# containers-transports(5) says that `oci:path:reference` counts OCI's media types alone.
# Moorage leaves the tag out of its word for such a layout (moorage/images/sources.py).
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -q download skopeo libgpgme11 libdevmapper1.02.1 libassuan0 golang-github-containers-common >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
LD_LIBRARY_PATH=$(find "$work/root" -name '*.so*' -printf '%h:' | tr -s :)
export LD_LIBRARY_PATH
skopeo=root/usr/bin/skopeo
$skopeo --version

mkdir -p layout/blobs/sha256
blob() {
    sum=$(sha256sum "$1" | cut -c 1-64)
    cp "$1" "layout/blobs/sha256/$sum"
    printf '"digest": "sha256:%s", "size": %s' "$sum" "$(wc -c <"$1")"
}
echo hello > file
tar --sort=name --mtime=@0 --owner=0 --group=0 -cf layer.tar file
gzip -nk layer.tar
printf '{"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
    "$(sha256sum layer.tar | cut -c 1-64)" > config
docker=application/vnd.docker
cat > manifest <<END
{"schemaVersion": 2, "mediaType": "$docker.distribution.manifest.v2+json",
 "config": {"mediaType": "$docker.container.image.v1+json", $(blob config)},
 "layers": [{"mediaType": "$docker.image.rootfs.diff.tar.gzip", $(blob layer.tar.gz)}]}
END
echo '{"imageLayoutVersion": "1.0.0"}' > layout/oci-layout
cat > layout/index.json <<END
{"schemaVersion": 2, "manifests": [{"mediaType": "$docker.distribution.manifest.v2+json", $(blob manifest),
  "annotations": {"org.opencontainers.image.ref.name": "1.0"}}]}
END

$skopeo --insecure-policy copy --quiet oci:layout dir:copied
[ -s copied/manifest.json ]
said=$($skopeo --insecure-policy copy --quiet oci:layout:1.0 dir:again 2>&1) && ended=0 || ended=$?
printf '%s\n' "$said" | tail -1
[ "$ended" -ne 0 ]
printf '%s' "$said" | grep -q 'no descriptor found for reference'
echo "seen: found without its tag, and not by it"
