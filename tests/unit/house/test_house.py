"""The house holds: no circle of files or of folders, and each room keeps to what it alone does.

Only imports that run when a module is loaded or called count; those for the type checker do not.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PRODUCTS = ("agent", "moorage", "lab")
Graph = Mapping[str, frozenset[str]]


@functools.cache
def modules() -> Mapping[str, Path]:
    """Every product module's file, by its dotted name."""
    found = {}
    for path in (path for top in PRODUCTS for path in (ROOT / top).rglob("*.py")):
        words = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def imported(source: str, known: Mapping[str, Path]) -> frozenset[str]:
    """The modules among ``known`` that this source imports when it runs."""
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    return frozenset(
        name
        for node in ast.walk(tree)
        if id(node) not in typing_only
        for name in _names(node, known)
        if name in known
    )


def _names(node: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in known else node.module


@functools.cache
def files() -> Graph:
    known = modules()
    return {name: imported(path.read_text(), known) - {name} for name, path in known.items()}


def package_of(name: str) -> str:
    return name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]


def folders() -> Graph:
    """Which folders import which; a folder and what is in its own folders are two."""
    found: dict[str, set[str]] = {}
    for name, others in files().items():
        own = package_of(name)
        found.setdefault(own, set()).update({package_of(other) for other in others} - {own})
    return {name: frozenset(others) for name, others in found.items()}


def circle(graph: Graph) -> list[str]:
    """One circle of the graph; nothing if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as problem:
        return list(reversed(problem.args[1]))
    return []


@pytest.mark.parametrize("graph", [files, folders])
def test_nothing_imports_itself_by_way_of_others(graph: Callable[[], Graph]) -> None:
    assert circle(graph()) == []  # nor by way of another product: the lab uses moorage, and is used


def test_a_circle_is_found() -> None:
    assert circle({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a")})[0] in "abc"
    assert circle({"a": frozenset("b"), "b": frozenset()}) == []


@pytest.mark.parametrize(
    "source", ["import a.b", "from a import b", "from a.b import c", "def f():\n    import a.b"]
)
def test_every_way_to_import_is_seen(source: str) -> None:
    assert imported(source, {"a.b": Path("a/b.py")}) == {"a.b"}


def test_an_import_for_the_type_checker_is_not_counted() -> None:
    source = "if TYPE_CHECKING:\n    import a.b"
    assert imported(source, {"a.b": Path("a/b.py")}) == frozenset()


# Who alone runs programs, who alone writes files, and who does it all the same and why.
RUNS = {
    "agent.node.host": "the room that does",
    "agent.clients.programs": "a client inherits the memory that its login is in",
    "agent.resident.upgrade": "an archive that is not this one, by this very Python",
    "agent.resident.start": "stands alone beside the archive and becomes it",
    "moorage.commands": "the room that does",
    "moorage.archive": "compiles the agent by another Python, where nothing else can",
}
WRITES = {
    "agent.node.disk": "the room that does",
    "agent.bootstrap": "unpacks the archive before anything can be imported from it",
    "agent.wire.regenerate": "runs in a checkout, on no node",
    "agent.clients.programs": "a folder whose only file leads to the memory that a login is in",
    "agent.journal.blobs": "bytes are kept under their digests, and let go",
    "agent.journal.boot": "a link to a unit, and both taken away",
    "agent.journal.transaction": "the order of renames and removals is the journal itself",
    "agent.journal.lock": "a lock is a file that is opened, and has no content to lose",
    "agent.journal.desired": "takes its own file away",
    "agent.resident.keys": "takes its own files away",
    "agent.resident.residence": "takes its own folder away",
    "agent.resident.service": "takes the service's file away",
    "agent.resident.settling": "takes its own notes away",
    "agent.resident.upgrade": "takes its own file away",
    "agent.resident.start": "stands alone beside the archive",
    "moorage.files": "the room that does",
    "moorage.commands": "a program's words go to a log as they come",
    "moorage.lock": "a lock is a file that is opened, and has no content to lose",
    "moorage.archive": "a folder of its own in which the agent is packed",
    "moorage.walk.down": "takes everything away",
    "moorage.images.wheels": "pip fills a folder that is renamed when it is whole",
    "moorage.docker.apt": "takes its own record away",
    "moorage.docker.building": "a tar in memory",
    "moorage.docker.debian": "mmdebstrap fills a file that is taken away",
    "moorage.docker.dockerd": "dockerd's own files, taken away after it",
    "moorage.pki.folder": "a pair comes by two renames, in an order that survives a crash",
    "moorage.pki.succession": "takes the folder of the CA to come away",
    "moorage.rotation.kept": "takes its own file away",
    "moorage.registry": "takes the registry's data away",
    "moorage.backup.freeze": "hard links of a moment, in a folder that is taken away",
    "moorage.backup.taking": "takes its own folders away",
    "moorage.backup.giving_back": "whole folders are renamed into their place",
    "moorage.registry.storage.setting_aside": "the order of renames is what loses no image",
    "moorage.registry.caches.upstreams": "takes away what is remembered of an upstream",
    "moorage.registry.logins.users": "takes a kept password away",
    "moorage.registry.service": "a configuration gets its name once HAProxy has read it",
    "moorage.fleet.errand.bootstrap": "runs on a node, before the agent is there",
    "moorage.fleet.openssh.memory": "takes what is old away",
    "moorage.fleet.report.logbook": "takes what is old away",
    "moorage.fleet.rollout.preload": "an image of gigabytes is streamed into a draft",
    "lab.kubernetes.containerd": "a tar in memory",
    "lab.kubernetes.lifecycle": "takes the cluster's folder away",
    "lab.kubernetes.programs.shipping": "a tar that is streamed to a node",
    "lab.machines.access": "OpenSSH's files of the lab; takes them away",
    "lab.machines.limits": "takes its own record away",
}
RUNNERS = ("exec", "spawn", "posix_spawn", "system", "popen", "create_subprocess_")
WRITERS = frozenset(
    {"write_text", "write_bytes", "touch", "truncate", "chmod", "chown", "extract", "extractall"}
    | {"mkdir", "makedirs", "mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile"}
    | {"rename", "renames", "move", "link", "hardlink_to", "symlink", "symlink_to"}
    | {"copy", "copy2", "copyfile", "copytree", "unlink", "rmdir", "removedirs", "rmtree"}
)
OPENED_TO_WRITE = frozenset({"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"})
MODULES_THAT_WRITE = frozenset({"os", "shutil", "tempfile"})
MEMORY_ONLY = frozenset({"copy", "link", "move", "extract"})  # of other objects too


def runs_programs(source: str) -> bool:
    """Whether a module can start another program."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if {"subprocess", "pty"} & {name.split(".")[0] for name in names}:
            return True
        if isinstance(node, ast.Attribute) and _is_runner(node):
            return True
    return False


def _is_runner(node: ast.Attribute) -> bool:
    of = node.value.id if isinstance(node.value, ast.Name) else ""
    return of in ("os", "asyncio") and node.attr.startswith(RUNNERS)


def writes_files(source: str) -> bool:
    """Whether a module makes, changes, renames or removes a file or a folder."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(_writes(node) or _opens_to_write(node) for node in calls)


def _writes(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return isinstance(call.func, ast.Name) and call.func.id in WRITERS - MEMORY_ONLY
    name, of = call.func.attr, call.func.value
    by_module = isinstance(of, ast.Name) and of.id in MODULES_THAT_WRITE
    if name in ("replace", "remove"):  # of a path by its module, of a Path by one argument
        return by_module or (name == "replace" and len(call.args) == 1 and not call.keywords)
    return name in WRITERS and (by_module or name not in MEMORY_ONLY)


def _opens_to_write(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = [inner for value in [*call.args, *call.keywords] for inner in ast.walk(value)]
    named = {word.attr for word in words if isinstance(word, ast.Attribute)}
    texts = {word.value for word in words if isinstance(word, ast.Constant)}
    modes = {text for text in texts if isinstance(text, str) and set(text) <= set("rwxabt+")}
    if name != "open" or "devnull" in named:
        return False
    return bool(named & OPENED_TO_WRITE) or any(set(mode) & set("wxa+") for mode in modes)


@pytest.mark.parametrize(("does", "allowed"), [(runs_programs, RUNS), (writes_files, WRITES)])
def test_each_room_keeps_to_what_it_alone_does(
    does: Callable[[str], bool], allowed: Mapping[str, str]
) -> None:
    found = {name for name, path in modules().items() if does(path.read_text())}
    assert found == set(allowed)


def looks_for_a_home(source: str) -> bool:
    """Whether a module expands a ``~``: of a user or a home that is unknown, pathlib makes a
    RuntimeError."""
    return any(
        isinstance(node, ast.Attribute)
        and (node.attr == "expanduser" or (node.attr == "home" and _is_path(node.value)))
        for node in ast.walk(ast.parse(source))
    )


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "Path"


def test_one_module_alone_expands_what_a_user_wrote() -> None:
    found = {name for name, path in modules().items() if looks_for_a_home(path.read_text())}
    assert found == {"moorage.files"}


# How much a reader has to hold in mind: files in a folder, lines in a file.
MOST_FILES, MOST_LINES = 12, 450


def test_no_folder_holds_more_than_one_looks_over() -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in modules().values())
    assert not [name for name, count in counts.items() if count > MOST_FILES]


# A function that takes a UI prints or asks: pure ones return values (moorage/output), and one that
# only shows how far it is takes `progress`.
MOST_THAT_SPEAK = 50


def speaking(source: str) -> list[str]:
    """The functions that take a UI."""
    found = ast.walk(ast.parse(source))
    functions = (one for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return [one.name for one in functions if "ui" in _parameters(one.args)]


def _parameters(of: ast.arguments) -> set[str]:
    return {one.arg for one in (*of.posonlyargs, *of.args, *of.kwonlyargs)}


def test_few_functions_take_a_ui() -> None:
    found = {name: speaking(path.read_text()) for name, path in modules().items()}
    assert sum(map(len, found.values())) <= MOST_THAT_SPEAK, found


def test_a_function_that_takes_a_ui_is_seen() -> None:
    source = "def f(ui): ...\nclass A:\n    async def g(self, *, ui=None): ...\ndef h(guide): ..."
    assert speaking(source) == ["f", "g"]


# Tests stand in rooms of the same names, so that whoever knows a module knows where its tests are.
TESTS = ROOT / "tests" / "unit"
OF_THE_WHOLE = "house"
MOST_TEST_FILES = 16


def room_tested(folder: Path) -> Path:
    """The product's folder that a folder of tests is about."""
    inner = folder.relative_to(TESTS)
    return ROOT / inner if inner.parts[:1] == ("lab",) else ROOT / "moorage" / inner


def test_the_tests_mirror_the_rooms() -> None:
    folders = {path.parent for path in TESTS.rglob("*.py")} - {TESTS / OF_THE_WHOLE}
    assert {folder for folder in folders if not (room_tested(folder) / "__init__.py").exists()} == (
        set()
    )


def test_no_folder_of_tests_holds_more_than_one_looks_over() -> None:
    counts = Counter(path.parent for path in TESTS.rglob("*.py"))
    assert {folder for folder, count in counts.items() if count > MOST_TEST_FILES} == set()


def test_no_file_is_longer_than_one_reads() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_text().count("\n") for path in modules().values()
    }
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set()


# Who may import whom: of the agent, the operator's side and the lab know the wire alone.
PACKER = "moorage.archive"  # what packs the agent may look into it


def strangers(name: str, others: Iterable[str]) -> set[str]:
    """What a module of this name may not import."""
    if name.startswith("agent"):
        return {other for other in others if not other.startswith("agent")}
    packs = name == PACKER
    return {
        other
        for other in others
        if other.split(".")[0] == "agent" and not other.startswith("agent.wire") and not packs
    }


def test_no_product_imports_more_of_another_than_it_may() -> None:
    found = {name: strangers(name, others) for name, others in files().items()}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_an_import_of_a_strangers_room_is_seen() -> None:
    assert strangers("agent.node.disk", ["moorage.files", "agent.wire"]) == {"moorage.files"}
    assert strangers("moorage.fleet", ["agent.node.disk", "agent.wire.plan"]) == {"agent.node.disk"}
    assert strangers("lab.kubernetes", ["agent.bytecode"]) == {"agent.bytecode"}
    assert strangers(PACKER, ["agent.bytecode"]) == set()


@pytest.mark.parametrize(
    "source",
    ["import subprocess", "from subprocess import run", "os.execv(a, b)", "os.posix_spawn(a, b, c)",
     "def f():\n    import subprocess", "asyncio.create_subprocess_exec(a)", "os.system(a)"],
)  # fmt: skip
def test_a_run_of_a_program_is_seen(source: str) -> None:
    assert runs_programs(source)


@pytest.mark.parametrize(
    "source",
    ["path.write_text(a)", "open(a, 'w')", "path.open('ab')", "open(a, mode='x')",
     "os.replace(a, b)", "path.replace(b)", "os.open(a, os.O_RDWR | os.O_CREAT)",
     "shutil.move(a, b)", "path.unlink()", "os.remove(a)", "tempfile.mkdtemp()",
     "with TemporaryDirectory() as a:\n    pass"],
)  # fmt: skip
def test_a_write_is_seen(source: str) -> None:
    assert writes_files(source)


@pytest.mark.parametrize(
    "source",
    ["open(a)", "open(a, 'rb')", "text.replace(a, b)", "listed.remove(a)",
     "os.open(a, os.O_RDONLY)", "os.open(os.devnull, os.O_WRONLY)", "table.copy()"],
)  # fmt: skip
def test_a_look_is_no_write(source: str) -> None:
    assert not writes_files(source) and not runs_programs(source)
