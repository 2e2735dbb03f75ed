"""The field cases on real nodes: a row a case, last ``field: N cases, N pulled, 0 harmed``.

nox -s field                    every case in tests/field/cases, on the images that `inv up` builds
nox -s field -- --only eks,gke  the cases whose name has one of those words
nox -s field -- --keep          leave the nodes and registries for a look
nox -s field -- --image 2.3=TAG a node's image for a line of containerd that Debian does not carry

A case is *pulled* when the agent took the strategy it names, restarted or not as it says, and the
kubelet's own call pulled from the registry afterwards; a second apply changed nothing; and untrust
gave every byte back. It is *harmed* when any setting but the trust differs in `config dump`, when
another registry that pulled before does not any more, or when bytes are not given back. A case that
must be refused counts as *refused* where it is, with its code.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import docker
from rich.console import Console
from rich.markup import escape

from moorage.archive import agent_archive
from tests.agent.authority import Authority
from tests.agent.real import LAB, NAME, PASSWORD, REGISTRY, USER, Node, Registry, images, plan, put
from tests.engine import running
from tests.field import case as cases
from tests.field.verdict import OTHER, Verdict, verdict

PROGRAM = Path("/bin/true")
WIDTHS = (42, 4, 16, 7, 5)


def main() -> int:
    options = _options()
    console = Console(soft_wrap=True)
    further = dict(one.split("=", 1) for one in options.image)
    known = {*cases.DEBIANS, *further}
    everything = cases.read_all(options.only)
    wanted = [one for one in everything if one.line in known]
    client = docker.from_env(timeout=300)
    images = _images(client, {one.line for one in wanted}, further)
    began = time.monotonic()
    stand = Stand(client, images)
    try:
        verdicts = [_tell(console, one) for one in stand.run(wanted)]
    finally:
        if not options.keep:
            stand.remove()
    good = sum(one.pulled for one in verdicts)
    refused = sum(one.pulled and bool(one.case.refused) for one in verdicts)
    harmed = sum(bool(one.harm) for one in verdicts)
    console.print(f"{time.monotonic() - began:.0f} seconds", style="dim")
    if passed_over := len(everything) - len(wanted):
        console.print(f"{passed_over} not tried: no node of their line (--image)", style="dim")
    console.print(
        f"field: {len(verdicts)} cases, {good - refused} pulled, {refused} refused, {harmed} harmed"
    )
    return 0 if verdicts and good == len(verdicts) == len(wanted) and not harmed else 1


class Stand:
    """Two registries that do not know of each other, and one node for each line of containerd."""

    def __init__(self, client: docker.DockerClient, images: dict[str, str]) -> None:
        self._client = client
        self._made: list[Any] = []
        self.nodes: dict[str, Node] = {}
        try:
            self._stand_up(images)
        except BaseException:
            self.remove()
            raise

    def _stand_up(self, images: dict[str, str]) -> None:
        ours, theirs = Authority("ours"), Authority("theirs")
        self.other_ca = theirs.pem
        registry = images.pop("registry")
        self.ours = self._kept(Registry(self._client, registry, ours))
        self.theirs = self._kept(Registry(self._client, registry, theirs, name=OTHER))
        self.image = self.ours.push(self._client, PROGRAM)
        self.other = self.theirs.push(self._client, PROGRAM)
        self.theirs.push(self._client, PROGRAM, "library/probe:1")
        with tempfile.TemporaryDirectory() as folder:
            archive = agent_archive(Path(folder)).path
            for line, image in images.items():
                node = self._kept(Node(self._client, image))
                node.start(archive)
                self.nodes[line] = node
        for node in self.nodes.values():
            hosts = (node.read("/etc/hosts") or b"").decode()
            # No case leaves this machine: what is not ours is refused at once.
            node.write_hosts(
                f"{hosts}{self.ours.address} {NAME}\n{self.theirs.address} {OTHER}\n"
                "127.0.0.1 registry-1.docker.io mirror.gcr.io\n".encode()
            )
            put(node.container, "/root", {"onnode.py": _here("onnode.py").read_bytes()})
            node.sh("python3 /root/agent.pyz facts")  # unpacks it

    def run(self, wanted: list[cases.Case]) -> Any:
        """The verdicts as they come; the nodes work side by side, each at one case a time."""
        told: queue.Queue[Verdict | BaseException | None] = queue.Queue()

        def work(line: str) -> None:
            try:
                for one in wanted:
                    if one.line == line:
                        told.put(self._try(one))
            except BaseException as problem:
                told.put(problem)
            told.put(None)

        for line in self.nodes:
            threading.Thread(target=work, args=(line,), daemon=True).start()
        open_lines = len(self.nodes)
        while open_lines:
            got = told.get()
            if isinstance(got, BaseException):
                raise got
            if got is None:
                open_lines -= 1
            else:
                yield got

    def remove(self) -> None:
        for one in self._made:
            if isinstance(one, Node):
                one.remove()
            else:
                one.container.remove(force=True, v=True)

    def _try(self, one: cases.Case) -> Verdict:
        node = self.nodes[one.line]
        login = [USER, PASSWORD]
        others = [(self.other, login), (self.other, None)]
        if "docker.io" in "".join([*one.files, *one.files.values()]):
            others.append(("docker.io/library/probe:1", login))
        document = {
            "path": one.path,
            "unit": one.unit,
            "files": {
                path: text.replace("@OTHER_CA@\n", self.other_ca)
                for path, text in one.files.items()
            },
            "links": one.links,
            "added": one.added,
            "socket": one.socket,
            "flags": one.flags,
            "plan": {**plan(self.ours, self.image), "parts": list(one.parts)},
            "image": self.image,
            "login": login,
            "others": others,
        }
        put(node.container, "/root", {"case.json": json.dumps(document).encode()})
        code, said = node.sh(
            "PYTHONPATH=$(echo /var/lib/moorage/agent/*) python3 /root/onnode.py < /root/case.json"
        )
        try:
            return verdict(one, json.loads(said.splitlines()[-1]))
        except (ValueError, IndexError):
            return Verdict(one, False, "", f"it ended with {code}: {said[-2000:]}")

    def _kept(self, made: Any) -> Any:
        self._made.append(made)
        return made


def _tell(console: Console, one: Verdict) -> Verdict:
    good = one.pulled and not one.harm
    words = (one.case.name, one.case.line, one.case.strategy,
             "restart" if one.case.restart else "", f"{one.seconds:.1f} s")  # fmt: skip
    row = " ".join(word.ljust(width) for word, width in zip(words, WIDTHS, strict=True))
    done = "refused" if one.case.refused else "pulled"
    mark = f"[green]{done}[/]" if good else "[red]harmed[/]" if one.harm else "[red]failed[/]"
    console.print(f"{mark} {escape(row)}", highlight=False)
    for line in (one.harm, one.why):
        if line and not good:
            console.print("       " + escape(line.replace("\n", "\n       ")), highlight=False)
    return one


def _images(
    client: docker.DockerClient, lines: set[str], further: dict[str, str]
) -> dict[str, str]:
    """The newest lab image for each line, and the registry's; ``further``: images by line."""
    found = {"2.1" if line == "2" else line: tag for line, tag in images(client, LAB).items()}
    found |= further
    for tag in images(client, REGISTRY).values():
        found["registry"] = tag
    missing = {*lines, "registry"} - set(found)
    if missing:
        raise SystemExit(f"no image for {', '.join(sorted(missing))}: run `inv up` first")
    return {line: tag for line, tag in found.items() if line in {*lines, "registry"}}


def _here(name: str) -> Path:
    return Path(__file__).parent / name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s field --", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--image", action="append", default=[], metavar="LINE=TAG")
    return parser.parse_args()


if __name__ == "__main__":
    with running():
        code = main()
    sys.exit(code)
