#!/bin/sh
# HAProxy 2.6.12 (Debian bookworm, 2.6.12-1+deb12u3): `retries` to a server behind a Unix socket are
# made without the pause that the manual gives them, so they do not bridge a server's restart.
#
# configuration.html 2.6, `retries`: "a turn-around timer of min("timeout connect", one second) is
# applied before a retry occurs." By TCP that holds: four retries to a closed port take four seconds.
# A Unix socket that is missing fails in connect(2) itself, and all retries are spent at once.
#
# Expected output:
#   a closed TCP port: 503 after 4 retries, at least 4 seconds: yes
#   a missing Unix socket: 503 after 4 retries, at least 4 seconds: no
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'kill "$program" 2>/dev/null || true; rm -rf "$folder"' EXIT
program=
cd "$folder"
apt-get -qq download haproxy=2.6.12-1+deb12u3 liblua5.3-0 libopentracing1 libopentracing-c-wrapper0 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" .; done
LD_LIBRARY_PATH=$(find "$folder/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
export LD_LIBRARY_PATH
port=$(python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[one.getsockname()[1] for one in held])')
listen=${port% *} closed=${port#* }
cat > haproxy.cfg <<CFG
global
    log stdout format raw local0 info
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    retries 4
frontend front
    bind 127.0.0.1:$listen
    log-format '%HP %ST %rc %Ta'
    use_backend unix if { path /unix }
    default_backend tcp
backend unix
    server one unix@$folder/none.sock
backend tcp
    server one 127.0.0.1:$closed
CFG
usr/sbin/haproxy -db -f haproxy.cfg > log 2>&1 &
program=$!
sleep 1
for path in tcp unix; do
    curl -s -o /dev/null "http://127.0.0.1:$listen/$path"
done
sleep 1
told() {
    awk -v path="$1" '$1 == path {
        print $2 " after " $3 " retries, at least 4 seconds: " ($4 >= 4000 ? "yes" : "no") }' log
}
tcp=$(told /tcp) unix=$(told /unix)
echo "a closed TCP port: $tcp"
echo "a missing Unix socket: $unix"
[ "$tcp" = "503 after 4 retries, at least 4 seconds: yes" ]
[ "$unix" = "503 after 4 retries, at least 4 seconds: no" ]
