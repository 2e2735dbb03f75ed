"""pyinfra 3: the same end state as `inv nodes.trust`, as its documentation would have it done.

Source: https://docs.pyinfra.com/en/3.x/operations/files.html and …/systemd.html
"""

from __future__ import annotations

import os
from io import StringIO

from pyinfra.operations import files, systemd

name, address, ca = (os.environ[key] for key in ("BENCH_NAME", "BENCH_ADDRESS", "BENCH_CA"))
folder = f"/etc/containerd/certs.d/{name}"

files.line(
    name="hosts entry",
    path="/etc/hosts",
    line=rf"^.*\s{name}$",
    replace=f"{address} {name}",
)
files.put(name="CA", src=ca, dest=f"{folder}/ca.crt", mode="644", create_remote_dir=True)
files.put(
    name="hosts.toml",
    src=StringIO(f'server = "https://{name}"\nca = "{folder}/ca.crt"\n'),
    dest=f"{folder}/hosts.toml",
    mode="644",
)
config = files.block(
    name="config_path",
    path="/etc/containerd/config.toml",
    content=[
        '[plugins."io.containerd.grpc.v1.cri".registry]',
        '  config_path = "/etc/containerd/certs.d"',
    ],
)
systemd.service(name="restart", service="containerd", restarted=True, _if=config.did_change)
