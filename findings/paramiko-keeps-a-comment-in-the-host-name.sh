#!/bin/sh
# paramiko 5.1.0 (PyPI, the SSH library): an OpenSSH configuration that `ssh` reads gives other values.
#
# OpenSSH 9.2 takes `#` after a value for the beginning of a comment, and single quotes for quotes
# (argv_split in its misc.c). `SSHConfig.lookup` keeps both in the value, so that the host's name becomes "10.0.0.7 # rack 7",
# which nothing resolves, and a key's file begins with a quote. In a ProxyCommand, `%%` stays two
# signs where OpenSSH makes one of it.
#
# Expected output (openssh-client of Debian bookworm, 9.2p1):
#   hostname      ssh: 10.0.0.7              paramiko: 10.0.0.7 # rack 7
#   identityfile  ssh: /keys/of node1        paramiko: '/keys/of node1'
#   proxycommand  paramiko: proxy node1 --tag=100%%
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
command -v ssh >/dev/null || { echo "first: apt-get install openssh-client"; exit 2; }
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -qq --disable-pip-version-check paramiko==5.1.0
cat > "$folder/config" <<'CONFIG'
Host node1
  HostName 10.0.0.7 # rack 7
  IdentityFile '/keys/of node1'
Host node2
  ProxyCommand proxy node1 --tag=100%%
CONFIG
FOLDER=$folder "$folder/env/bin/python" - <<'PROGRAM'
import os
import subprocess

import paramiko

path = os.environ["FOLDER"] + "/config"
argv = ["ssh", "-T", "-G", "-F", path, "node1"]
said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
ssh = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
config = paramiko.SSHConfig.from_path(path)
found = config.lookup("node1")
ours = {"hostname": found["hostname"], "identityfile": found["identityfile"][0]}
for key in ours:
    print(f"{key:13} ssh: {ssh[key]:20}  paramiko: {ours[key]}")
command = config.lookup("node2")["proxycommand"]
print(f"{'proxycommand':13} paramiko: {command}")
same = (ssh["hostname"], ssh["identityfile"]) == ("10.0.0.7", "/keys/of node1")
other = ours == {"hostname": "10.0.0.7 # rack 7", "identityfile": "'/keys/of node1'"}
raise SystemExit(not (same and other and command.endswith("100%%")))
PROGRAM
