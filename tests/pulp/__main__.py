"""Moorage against a registry that no one here wrote, Pulp: a node pulls from it by CRI.

Run by ``./run nox -s pulp``, as root; `-- --folder=F` keeps what was made there, `-- --earlier`
takes a release that sends a manifest's HEAD on to another program. Pulp, PostgreSQL, Redis and
nginx run below one folder, the node is a container of the lab's image. Moorage runs from an empty
checkout that reaches no engine and has no CA's key. Ends with
``pulp: N commands, pulled by CRI, N wrong``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import docker

from lab.machines import images as lab_images
from moorage.configuration import parsing
from moorage.docker import engine
from moorage.mix import LINES
from moorage.ui import UI
from tests.engine import bridge, running
from tests.images.saying import say, timed
from tests.images.upstream import environment, upstream
from tests.pulp import server
from tests.pulp.checks import CHECKS
from tests.pulp.operator import Operator
from tests.resident.lab import resident_node

NAMES = {"team/app": 1, "library/nginx": 1, "team/later": 1}
LINE = "2"


def main() -> int:
    """Returns the exit code."""
    words = _words()
    with ExitStack() as stack:
        made = words.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="pulp-"))
        folder = Path(made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(running())
        client = docker.from_env(timeout=120)
        address = bridge(client)
        image = timed("a node's image", _node_image, client)
        # Kubernetes' programs are kept below the home of before.
        os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        os.environ.update(environment(folder / "home"))
        there = stack.enter_context(upstream(folder / "up", folder / "home", NAMES))
        began = time.monotonic()
        lock = "earlier.lock" if words.earlier else "requirements.lock"
        pulp = stack.enter_context(server.serving(folder / "server", [address], lock))
        say(f"{pulp.versions()}: {time.monotonic() - began:.0f} s")
        (folder / "operator").mkdir()
        node = stack.enter_context(resident_node(client, folder / "operator", image=image))
        operator = Operator(folder, pulp, there, node, address)
        wrong = _checked(operator, words.only)
    say(f"pulp: {operator.checkout.commands} commands, pulled by CRI, {wrong} wrong")
    return 1 if wrong or not operator.pulled else 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="", help="where all is made, and kept")
    parser.add_argument("--earlier", action="store_true", help="Pulp 2.27: earlier.lock")
    parser.add_argument("--only", default="", help="the checks whose name has this word")
    return parser.parse_args()


def _checked(operator: Operator, only: str) -> int:
    """How many checks failed; each is said."""
    wrong = 0
    for check in CHECKS:
        if only not in check.__name__:
            continue
        title = (check.__doc__ or check.__name__).splitlines()[0]
        began = time.monotonic()
        try:
            left_out = check(operator)
        except Exception as problem:
            wrong += 1
            say(f"WRONG {title} [{check.__name__}]\n      {problem}")
            if not isinstance(problem, AssertionError):
                traceback.print_exc()
            continue
        said = f"left out: {left_out}" if left_out else f"{time.monotonic() - began:.1f} s"
        say(f"{'-' if left_out else 'right':5} {title} ({said})")
    return wrong


def _node_image(client: docker.DockerClient) -> str:
    """The lab's image of containerd 2, built where it is not there."""
    settings = parsing.parse({"engine": {"data": os.environ.get("INVOKE_ENGINE_DATA", "")}})
    line, ui = LINES[LINE], UI(yes=True)
    lab_images.bring(settings, client, [line], ui.progress)
    base = lab_images.base(settings, engine.connect(settings), ui.progress)
    lab_images.ensure(settings, client, [line], base)
    return lab_images.reference(settings, line)


if __name__ == "__main__":
    sys.exit(main())
