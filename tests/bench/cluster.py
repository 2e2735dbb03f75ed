"""The figures of the Kubernetes rooms, against a stand-in API server (tests/k8s/standin.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moorage.settings import ROOT
from tests.bench.measure import Row, limited
from tests.k8s import standin
from tests.k8s.standin import Standin

_INV = str(Path(sys.executable).with_name("inv"))
_NAMESPACES = 500
_PODS = 5000


@contextmanager
def _cluster(server: Standin) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, standin.serving(server) as url:
        yield str(standin.kubeconfig(Path(folder), url))


def secret_500_namespaces() -> Row:
    """`inv k8s.secret --all` over 500 namespaces, 20 ms a request: within ten seconds."""
    spent = []
    for _ in range(3):
        server = Standin(delay=0.02)
        server.lists["/api/v1/namespaces"] = [
            {"metadata": {"name": f"ns-{number}"}, "status": {"phase": "Active"}}
            for number in range(_NAMESPACES)
        ]
        with _cluster(server) as config:
            words = [_INV, "k8s.secret", "--all", "--credentials=-", f"--kubeconfig={config}"]
            began = time.monotonic()
            done = subprocess.run(
                [*words, "--json"],
                input="bench:words\n",
                capture_output=True,
                text=True,
                cwd=ROOT,
                check=True,
            )
            spent.append(time.monotonic() - began)
        made = [one["status"] for one in json.loads(done.stdout)["secrets"]]
        if made != ["created"] * _NAMESPACES:
            raise RuntimeError(f"not every Secret was made: {made[:5]}")
    name = f"k8s.secret, {_NAMESPACES} namespaces, 20 ms a request"
    return limited(name, spent, 10, "s")


def diagnose_5000_pods() -> Row:
    """`inv k8s.diagnose` over 5,000 pods, 12 KB of JSON each as on a managed cluster: 200 MiB."""
    server = Standin()
    server.lists["/api/v1/pods"] = standin.many_pods(_PODS, 200, padding=12_000)
    with _cluster(server) as config:
        words = [_INV, "k8s.diagnose", f"--kubeconfig={config}", "--json"]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
        ) as program:
            assert program.stdout is not None
            document: dict[str, Any] = json.loads(program.stdout.read())
            _, status, usage = os.wait4(program.pid, 0)
            program.returncode = os.waitstatus_to_exitcode(status)
    if (document["pods_seen"], document["pods_stuck"]) != (_PODS, 200):
        raise RuntimeError(f"not every pod was seen: {document}")
    pages = server.asked["GET /api/v1/pods"]
    if pages < _PODS / 500:
        raise RuntimeError(f"the list came in {pages} pages")
    return Row(f"k8s.diagnose, {_PODS} pods, peak memory", usage.ru_maxrss / 1024, 200, "MiB", 1)
