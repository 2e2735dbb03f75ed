"""A real containerd before a real registry that asks its clients for a certificate.

By this machine's containerd, in namespaces of its own: no Docker engine is needed, but root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("cryptography")

from agent.wire.plan import Registry
from agent.wire.troubles.told import classify
from tests.agent.own_containerd import NAME
from tests.debian import program

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
    pytest.mark.skipif(not shutil.which("containerd"), reason="there is no containerd here"),
    pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare here"),
]


@pytest.mark.parametrize("style", ["folders", "tables"])
def test_containerd_pulls_with_the_pair_and_without_it_says_what_is_wanted(style: str) -> None:
    program("docker-registry")  # unpacked where there is a network
    words = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc"]
    words += [sys.executable, "-m", "tests.agent.own_containerd", style]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        one = json.loads(line)
        told[one["step"]] = one
    assert not [one for one in told.values() if one.get("agent", {}).get("shown")]

    assert told["asked beforehand"]["agent"]["code"] == "client-wanted"
    assert told["asked beforehand"]["same"]
    assert told["without"]["agent"]["code"] == "client-wanted"
    said = told["by itself"]["said"]
    assert classify(said, Registry(NAME, 1)).code == "client-wanted", said
    assert told["taken away"]["same"]

    keys = {path: mode for path, mode in told["with"]["modes"].items() if path.endswith(".key")}
    assert set(keys.values()) == {"0o600"}
    if style == "folders":  # else it is read at the start of containerd alone
        assert told["with"]["agent"]["verified"] is True
    assert told["proven"]["agent"] == {
        "status": "unchanged", "verified": True, "code": "", "shown": [],
    }  # fmt: skip
    assert told["proven"]["said"] == ""
    assert told["again"]["agent"]["status"] == "unchanged"

    assert told["another's"]["agent"]["code"] == "client-refused"
    assert told["another's"]["said"] != ""
    assert told["right again"]["agent"]["verified"] is True
    assert told["at last"]["same"]
    assert told["at last"]["kept"] == []
