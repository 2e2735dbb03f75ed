#!/bin/sh
# Prometheus 2.42.0 as Debian bookworm builds it (2.42.0+ds-5+deb12u1): service discovery by
# Kubernetes is left out, so a configuration with a `kubernetes_sd_configs` job that is valid for
# every upstream build is refused as a whole, jobs that have nothing to do with Kubernetes included.
# The words do not say that a feature is missing but that the field is unknown, as for a misspelling.
#
# dns_sd_configs over a headless Service reaches the same pods, needs no rights at the API server,
# and is built in: the last line shows it.
#
# Expected output:
#   kubernetes_sd_configs: field kubernetes_sd_configs not found in type config.ScrapeConfig
#   dns_sd_configs: valid
# Exits non-zero if that changes.
set -eu
version=2.42.0+ds-5+deb12u1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
curl -fsS -o prometheus.deb \
    "http://deb.debian.org/debian/pool/main/p/prometheus/prometheus_${version}_amd64.deb"
echo "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55  prometheus.deb" | sha256sum --check --quiet
dpkg-deb --extract prometheus.deb .

cat > kubernetes.yml <<'YAML'
scrape_configs:
  - job_name: node
    static_configs: [{targets: ["localhost:9100"]}]
  - job_name: pods
    kubernetes_sd_configs: [{role: pod}]
YAML
cat > dns.yml <<'YAML'
scrape_configs:
  - job_name: pods
    dns_sd_configs: [{names: [agents.monitoring.svc], type: A, port: 8080}]
YAML
told=$(./usr/bin/promtool check config kubernetes.yml 2>&1 | grep -o 'field kubernetes.*') || true
echo "kubernetes_sd_configs: $told"
test "$told" = "field kubernetes_sd_configs not found in type config.ScrapeConfig"
./usr/bin/promtool check config dns.yml > /dev/null
echo "dns_sd_configs: valid"
