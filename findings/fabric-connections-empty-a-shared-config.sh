#!/bin/bash
# Fabric 3.2.3 with Invoke 2.2.1 (PyPI): making a Connection empties the Config that is given to it for a
# moment, so that of Connections made in several threads from one Config some fail with AttributeError.
#
# A Connection keeps `inline_ssh_env`, which is no attribute of its class: its setting goes through
# Invoke's DataProxy into the Config, where setting any value clears the merged values and merges all
# levels again. Another thread that reads `config.forward_agent` or `config.user` meanwhile finds none. The
# documentation shows one Config for many hosts, and ThreadingGroup makes its Connections before its
# threads; whoever makes them in threads has now and then a host that was never tried. One Config each
# (`config.clone()`, or a new one: 0.14 ms) helps.
#
# Expected output (the numbers differ, 0 and not 0 do not):
#   one Config for all: some of 3200 fail, with AttributeError alone
#   one Config each: 0 of 3200 fail
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -qq --disable-pip-version-check fabric==3.2.3 invoke==2.2.1 paramiko==5.1.0
cat > program.py <<'PROGRAM'
import sys
import threading

from fabric import Config, Connection
from paramiko import SSHConfig

sys.setswitchinterval(1e-6)  # what a busy machine does now and then


def failed(config):
    """What 16 threads meet that make 200 Connections each, of which none is opened."""
    met = []

    def work():
        for _ in range(200):
            try:
                Connection("192.0.2.1", user="root", port=22, config=config())
            except Exception as problem:
                met.append(type(problem).__name__)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return met


shared = Config(ssh_config=SSHConfig())
together = failed(lambda: shared)
apart = failed(lambda: Config(ssh_config=SSHConfig()))
kinds = ", ".join(sorted(set(together)))
print(f"one Config for all: {'some' if together else 'none'} of 3200 fail, with {kinds} alone")
print(f"one Config each: {len(apart)} of 3200 fail")
raise SystemExit((kinds, apart) != ("AttributeError", []))
PROGRAM
timeout 120 env/bin/python program.py
