"""What holds for any configuration: once is enough, every byte comes back, only the trust differs.

On a stand-in that prints the file as its own dump, and, marked ``engine``, on the containerds of
all lab images, whose programs run on this machine.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.edit.toml import TomlError, parse
from agent.edit.toml_edit import release, set_value
from agent.formats.proposal import Proposal
from agent.runtimes.containerd import propose
from agent.runtimes.containerd.layers import says_nothing
from agent.wire.faults import RefusedError
from tests.agent.conftest import Box, facts

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/10-site.toml"
PREFIX = {1: "plugins.cri", 2: 'plugins."io.containerd.grpc.v1.cri"',
          3: "plugins.'io.containerd.cri.v1.images'"}  # fmt: skip
Files = dict[str, bytes]


@st.composite
def registry(draw: st.DrawFn, plugin: str, indent: str) -> list[list[str]]:
    """A registry table as any release of any tool may have left it, and CRI still loads."""
    table = f"{plugin}.registry"
    login = [f'[{table}.configs."auth.example".auth]', f'{indent}username = "u"']
    kind = draw(
        st.sampled_from(["none", "empty", "folder", "several", "mirrors", "tls", "headers"])
    )
    blocks = [login] if draw(st.booleans()) else []
    if kind in ("empty", "folder", "several"):
        path = {"empty": "", "folder": "/etc/containerd/certs.d", "several": "/a:/b"}[kind]
        quote = draw(st.sampled_from("'\""))
        blocks.append([f"[{table}]", f"{indent}config_path = {quote}{path}{quote} # site"])
    elif kind == "mirrors":
        blocks.append(
            [f'[{table}.mirrors."docker.io"]', f'{indent}endpoint = ["https://m.example"]']
        )
    elif kind == "tls":
        blocks.append([f'[{table}.configs."t.example".tls]', f'{indent}ca_file = "/t.pem"'])
    elif kind == "headers":
        blocks.append([f"[{table}.headers]", f'{indent}X-Site = ["quay"]'])
    return blocks


@st.composite
def configurations(draw: st.DrawFn, newest: int) -> Files:
    """config.toml, and maybe a file it imports: any version, indent, order, comments, line ends."""
    version = draw(st.sampled_from([None, *range(1, newest + 1)]))
    names = version or (1 if newest == 2 else 3)
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    indent = draw(st.sampled_from(["", "  ", "\t"]))
    plugin = PREFIX[names]
    blocks = draw(registry(plugin, indent))
    if names < 3 and draw(st.booleans()):
        blocks.append([f"[{plugin}]", f'{indent}sandbox_image = "pause:1" # ours'])
    if names < 3 and draw(st.booleans()):
        blocks.append([f"[{plugin}.containerd]", f"{indent}snapshotter = 'native'"])
    if names == 3 and draw(st.booleans()):
        blocks.append([f"[{plugin}]", f"{indent}snapshotter = 'native'"])
    if draw(st.booleans()):
        blocks.append(["[debug]", f'{indent}level = "info"'])
    head = [] if version is None else [f"version = {version}"]
    files: Files = {}
    if draw(st.booleans()):
        head.append('imports = ["conf.d/10-site.toml"]')
        inner = draw(registry(plugin, indent)) if draw(st.booleans()) else []
        lines = ["# site", *head[:-1], *(line for block in inner for line in block)]
        files[DROP_IN] = (newline.join(lines) + newline).encode()
    lines = draw(st.permutations(head))
    for block in draw(st.permutations(blocks)):
        lines = [*lines, *draw(st.sampled_from([[], [""], ["", "# a note"]])), *block]
    ending = draw(st.sampled_from(["", newline, newline * 2]))
    return {CONFIG: (newline.join(lines) + ending).encode(), **files}


def lay_out(box: Box, files: Files) -> None:
    for path in (CONFIG, DROP_IN):
        (box.root / path.lstrip("/")).unlink(missing_ok=True)
    for path, content in files.items():
        box.write(path, content)


def holds(box: Box, files: Files, dump: str | None) -> None:
    """Once, again, and back. ``dump`` is a real containerd's program."""
    lay_out(box, files)
    before = box.files()
    said = dumped(box, dump)
    first = box.apply()
    if first["code"] == "cri-down-already":  # a drop-in and the file together can do that
        assert box.files() == before
        return
    assert first["status"] == "changed", first["error"]
    told = dumped(box, dump)
    if said is not None and told is not None:
        from tests.field import verdict

        trust_taken_out = verdict.settings(said, True), verdict.settings(told, True)
        assert verdict.differences(*trust_taken_out) == []
    assert box.apply()["status"] == "unchanged"
    assert box.untrust()["status"] == "changed"
    assert box.files() == before


def dumped(box: Box, program: str | None) -> str | None:
    if program is None:
        return None
    config = str(box.root / CONFIG.lstrip("/"))
    return subprocess.run(
        [program, "--config", config, "config", "dump"],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip


@given(files=configurations(2))
@settings(max_examples=60)
def test_any_configuration_is_edited_once_and_given_back(box: Box, files: Files) -> None:
    content = files[CONFIG].replace(b"imports", b"# imports")  # the stand-in merges nothing
    assume(not says_nothing(parse(content)))  # nor does it tell a version that is not there
    box.with_containerd(None)
    holds(box, {CONFIG: content}, None)


@pytest.fixture(scope="session", params=["1.6", "1.7", "2"])
def program(request: pytest.FixtureRequest) -> Iterator[str]:
    """containerd's program out of a lab image."""
    docker = pytest.importorskip("docker")
    client = docker.from_env(timeout=120)
    tags = [tag for image in client.images.list() for tag in image.tags]
    ours = [tag for tag in tags if tag.startswith(f"moorage/lab:{request.param}-")]
    if not ours:
        pytest.skip(f"no lab image with containerd {request.param}; inv up builds one")
    made = client.containers.create(ours[0], labels={"io.moorage.part": "agentdev"})
    try:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder, "program.tar")
            stream, _ = made.get_archive("/usr/bin/containerd")
            bundle.write_bytes(b"".join(stream))
            subprocess.run(["tar", "-C", folder, "-xf", str(bundle)], check=True)
            yield str(Path(folder, "containerd"))
    finally:
        made.remove(force=True)


@pytest.mark.engine
@given(data=st.data())
@settings(max_examples=25)
def test_on_the_real_containerds_nothing_but_the_trust_differs(
    box: Box, program: str, data: st.DataObject
) -> None:
    files = data.draw(configurations(3 if "v2" in version_of(program) else 2))
    box.with_containerd(None)
    script = box.write("/usr/bin/containerd", f'#!/bin/sh\nexec {program} "$@"\n'.encode())
    script.chmod(0o755)
    holds(box, files, program)


def version_of(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout


@given(
    content=st.binary(max_size=200) | st.text("[]{}\"'#=.\n\\ab1, ", max_size=80).map(str.encode)
)
@settings(max_examples=300)
def test_any_bytes_in_place_of_a_configuration_are_taken_or_refused_by_name(
    box: Box, content: bytes
) -> None:
    lay_out(box, {CONFIG: content})
    merged = content
    try:
        parse(content)
    except TomlError:
        merged = b""
    try:
        assert isinstance(propose(facts(box.root, merged), box.plan(), {}), Proposal)
    except RefusedError as problem:
        assert problem.code
        assert problem.fault.cure


@given(content=st.binary(max_size=60))
@settings(max_examples=300)
def test_the_parser_raises_nothing_but_its_own_error(content: bytes) -> None:
    try:
        parse(content)
    except TomlError as problem:
        assert str(problem)


@given(files=configurations(3), literal=st.sampled_from(['"/x"', '["a", "b"]', "true"]))
@settings(max_examples=200)
def test_marks_alone_give_every_byte_back(files: Files, literal: str) -> None:
    for content in files.values():
        text = content.decode()
        edited = text
        for table in ((), ("plugins", "cri", "registry"), ("host", "https://a.example")):
            edited = set_value(edited, table, "ca", literal, "# ours")
        assert parse(edited.encode())["ca"] is not None
        assert release(edited, "# ours") == text
