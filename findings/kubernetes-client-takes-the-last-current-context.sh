#!/bin/bash
# kubernetes 37.0.2 (PyPI, the Python client) and kubectl 1.36.4 (Debian sid, 1.36.4+ds-1): with two files in
# $KUBECONFIG they mean two clusters.
#
# Kubernetes' documentation ("Organizing Cluster Access Using kubeconfig Files") wants the context of the first
# file that sets current-context to be kept. kubectl does, and `kubectl config use-context` writes there.
# `load_kube_config` keeps the first of two entries of one name as well, but the last current-context: a
# script then works on production while kubectl, in the same shell, shows staging. A last file that sets it to
# "" leaves none at all, and that is what `kubectl config set-cluster` writes into a new file. Upstream's
# pull request 2386 of April 2025 names the order, and is open. Moorage finds the context itself and names
# it to the client (moorage/cluster/login/access.py).
#
# Expected output (whose server is meant):
#   staging, production: kubectl staging, Python production
#   production, staging: kubectl production, Python staging
#   staging, a new one: kubectl staging, Python ConfigException
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
curl -fsS -o kubectl.deb http://deb.debian.org/debian/pool/main/k/kubernetes/kubectl_1.36.4+ds-1_amd64.deb
echo "407dad9ec755a64ef8c96dd2f5c0c093f9d334193c91cc0ce8424928cd5734d3  kubectl.deb" | sha256sum --check --quiet
dpkg-deb -x kubectl.deb .
python3 -m venv env
env/bin/pip install -qq --disable-pip-version-check kubernetes==37.0.2
export HOME=$folder
kubectl=usr/bin/kubectl
for name in staging production; do
    for words in "set-cluster $name --server=http://$name.test" "set-credentials $name --token=$name" \
        "set-context $name --cluster=$name --user=$name" "use-context $name"; do
        # shellcheck disable=SC2086
        $kubectl --kubeconfig="$name" config $words > /dev/null
    done
done
$kubectl --kubeconfig=new config set-cluster new --server=http://new.test > /dev/null
cat > program.py <<'PROGRAM'
from kubernetes import client, config

try:
    config.load_kube_config()
    print(client.Configuration.get_default_copy().host)
except config.ConfigException as problem:
    print(type(problem).__name__)
PROGRAM
server() { sed 's,^http://,,; s,\.test$,,'; }
for files in staging:production production:staging staging:new; do
    export KUBECONFIG=$files
    words=${files/:/, }
    ours=$($kubectl config view --minify --output 'jsonpath={.clusters[0].cluster.server}' | server)
    theirs=$(env/bin/python program.py | server)
    echo "${words/%new/a new one}: kubectl $ours, Python $theirs"
done > output
cat output
diff output - <<'EXPECTED'
staging, production: kubectl staging, Python production
production, staging: kubectl production, Python staging
staging, a new one: kubectl staging, Python ConfigException
EXPECTED
