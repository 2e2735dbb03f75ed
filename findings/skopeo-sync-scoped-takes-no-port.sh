#!/bin/sh
# Debian bookworm, skopeo 1.9.3: `skopeo sync --scoped` copies from a registry at port 443 alone. With any other
# port it puts the colon into the path of the destination and ends with "invalid reference format", although
# skopeo-sync(1) documents --scoped for any source ("prefix using the full source image path as scope").
# Moorage writes the colon as `_` for that reason (moorage/images/references.py).
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

# No registry is needed: the destination's name is made before anything is asked for.
cat > images.yml <<END
localhost:1:
  images:
    team/app: ["1"]
END
said=$($skopeo --insecure-policy sync --scoped --dry-run --src yaml --dest docker images.yml localhost:2/mirror 2>&1) && ended=0 || ended=$?
printf '%s\n' "$said" | tail -1
[ "$ended" -ne 0 ]
printf '%s' "$said" | grep -q 'localhost:2/mirror/localhost:1/team/app:1.*invalid reference format'
echo "seen: a source with a port cannot be scoped"
