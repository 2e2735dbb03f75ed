"""The Kubernetes journey: one PASS or FAIL line a step, and last ``N passed, N failed``.

nox -s k8s                          on a cluster of the lab's; made first, and taken down again
nox -s k8s -- --full                every step; without it, one of each kind
nox -s k8s -- --kubeconfig FILE     on yours: in namespaces of its own, touching nothing else
nox -s k8s -- --only secret         the steps whose name has that word
nox -s k8s -- --as-is               on the lab's cluster as it stands, nothing made first
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from invoke.config import Config
from invoke.context import Context

from moorage import settings
from moorage.cluster.api import paths
from moorage.cluster.diagnosis.nodes import from_document
from moorage.cluster.login import access
from moorage.program.reading import settings_of
from tests.k8s import theirs  # noqa: F401 - its steps come after the others
from tests.k8s.journey import Journey, NotHere
from tests.k8s.steps import STEPS, VARIANTS


def main() -> int:
    options = _options()
    journey = _journey(options)
    began_all = time.monotonic()
    stood = _stand_up(journey) if journey.ours and not options.as_is else True
    say(f"      {_described(journey)} ({time.monotonic() - began_all:.0f} s)")
    journey.clean_up()
    passed = failed = skipped = left = 0
    for step in STEPS:
        if options.only not in step.__name__:
            continue
        if step in VARIANTS and not (options.full or options.only):
            left += 1
            continue
        began = time.monotonic()
        title = (step.__doc__ or step.__name__).splitlines()[0]
        try:
            step(journey)
        except NotHere as why:
            skipped += 1
            say(f"SKIP  {title} ({why})")
            continue
        except Exception as problem:
            failed += 1
            say(f"FAIL  {title} [{step.__name__}]")
            say("      " + str(problem).replace("\n", "\n      "))
            if options.trace:
                traceback.print_exc()
            continue
        passed += 1
        say(f"PASS  {title} ({time.monotonic() - began:.1f} s)")
    journey.clean_up()
    if not stood:
        say("      inv down")
        journey.inv("down").want(0)
    say(f"      {time.monotonic() - began_all:.0f} s in all")
    if skipped:
        say(f"{skipped} skipped: this cluster cannot show them")
    if left:
        say(f"{left} left to a run by hand: nox -s k8s -- --full")
    say(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s k8s --", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="the cluster to use; else the lab's")
    parser.add_argument("--agent-image", default="", help="an image with Python for the agents")
    parser.add_argument("--only", default="", help="steps whose name has this word")
    parser.add_argument("--full", action="store_true", help="the variants of each kind too")
    parser.add_argument("--as-is", action="store_true", help="the lab's cluster stands already")
    parser.add_argument("--trace", action="store_true", help="where a step failed, in full")
    return parser.parse_args()


def _journey(options: argparse.Namespace) -> Journey:
    project = Path.cwd()
    # The project that is tested may be another folder than the one this file is in.
    settings.ROOT = project
    config = Config(defaults=settings.defaults(), project_location=project)
    config.load_project()
    config.load_shell_env()
    parsed = settings_of(Context(config))
    lab = access.lab_kubeconfig(parsed)
    given = options.kubeconfig.resolve() if options.kubeconfig else lab
    ours = given == lab.resolve()
    return Journey(parsed, given, ours, options.agent_image, project=project)


def _stand_up(journey: Journey) -> bool:
    """A cluster of the lab's with a registry that its nodes trust. Whether it stood before."""
    stood = journey.kubeconfig.exists()
    say("      inv up --kubernetes --yes")
    journey.inv("up", "--kubernetes", "--yes", timeout=1800).want(0)
    return stood


def _described(journey: Journey) -> str:
    nodes = [from_document(one) for one in journey.api.items(paths.all_of("Node"))]
    return ", ".join(f"{one.name}: kubelet {one.kubelet}, {one.runtime}" for one in nodes)


if __name__ == "__main__":
    sys.exit(main())
