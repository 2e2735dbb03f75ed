#!/bin/sh
# paramiko 5.1.0 (PyPI, the SSH library): `SSHConfig.get_hostnames` raises KeyError('host') for every
# configuration that has a Match line, and names the words of a comment as hosts.
#
# Its documentation: "Return the set of literal hostnames defined in the SSH config (both explicit
# hostnames and wildcard entries)". Blocks of Match are kept in the same list as those of Host, and
# have no "host". `lookup` works on the same object. Comments behind `Host` are comments to OpenSSH
# 9.2.
#
# Expected output:
#   lookup: ops
#   get_hostnames: KeyError('host')
#   without the Match line: #, *, node1, rack, seven
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -qq --disable-pip-version-check paramiko==5.1.0
"$folder/env/bin/python" - <<'PROGRAM'
import paramiko

hosts = "Host node1 # rack seven\n  User ops\n"
config = paramiko.SSHConfig.from_text(hosts + "Match user nobody\n  Port 2222\n")
print("lookup:", config.lookup("node1")["user"])
try:
    print("get_hostnames:", config.get_hostnames())
    raise SystemExit(1)
except KeyError as problem:
    print("get_hostnames:", repr(problem))
names = paramiko.SSHConfig.from_text(hosts).get_hostnames()
print("without the Match line:", ", ".join(sorted(names)))
raise SystemExit(names != {"#", "*", "node1", "rack", "seven"})
PROGRAM
