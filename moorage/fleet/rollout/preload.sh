# Loads an image into the runtimes of this node, as root. $1: look or load; $2: the image's name;
# $3: its id, sha256:… of its configuration. With load, the archive comes on standard input.
set -u
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
image=$2 id=$3

# Where pods and people find images: containerd where it serves CRI (Docker's own does not, and k3s
# has one of its own), Docker, Podman (which CRI-O shares its images with).
ctr_of() {
    case $1 in
        k3s) shift && k3s ctr --namespace k8s.io "$@" ;;
        containerd) shift && ctr --namespace k8s.io "$@" ;;
    esac
}
serves() { ctr_of "$1" plugins ls 2>/dev/null | grep -Eq "^io.containerd.grpc.v1 +cri .* ok *$"; }
runtimes=
command -v k3s >/dev/null && serves k3s && runtimes="$runtimes k3s"
command -v ctr >/dev/null && serves containerd && runtimes="$runtimes containerd"
docker version >/dev/null 2>&1 && runtimes="$runtimes docker"
podman version >/dev/null 2>&1 && runtimes="$runtimes podman"

has() {
    case $1 in
        docker | podman)
            found=$("$1" image inspect --format "{{.Id}}" "$image" 2>/dev/null) || return 1
            [ "sha256:${found#sha256:}" = "$id" ]
            ;;
        *)
            # The manifest names the configuration, whose digest is what an engine calls the id.
            digest=$(ctr_of "$1" images ls "name==$image" 2>/dev/null | awk "NR == 2 { print \$3 }")
            [ -n "$digest" ] && ctr_of "$1" content get "$digest" 2>/dev/null | grep -q "$id"
            ;;
    esac
}
lacking=
for runtime in $runtimes; do has "$runtime" || lacking="$lacking $runtime"; done
echo "{\"event\": \"runtimes\", \"all\": \"${runtimes# }\", \"lacking\": \"${lacking# }\"}"
[ "$1" = load ] || exit 0

load() {
    case $1 in
        docker | podman) "$1" load --quiet ;;
        *) ctr_of "$1" images import - ;;
    esac
}
set -- $lacking
if [ $# -eq 1 ]; then
    load "$1" >/dev/null || exit 1
elif [ $# -gt 1 ]; then
    archive=$(mktemp -p /var/tmp moorage-preload.XXXXXX) || exit 1
    trap "rm -f $archive" EXIT
    trap "exit 1" HUP INT TERM
    cat >"$archive" || exit 1
    for runtime in "$@"; do load "$runtime" <"$archive" >/dev/null || exit 1; done
fi
for runtime in "$@"; do
    has "$runtime" && continue
    echo "$runtime took the archive, and does not know $image by it" >&2
    exit 1
done
echo "{\"event\": \"loaded\"}"
