"""Where Invoke's edges are wrapped: held against the installed Invoke, by its real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.elsewhere import checkout

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return checkout(tmp_path)


def inv(project: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_unknown_flag_is_wrong_use(project: Path) -> None:
    done = inv(project, "certs.show", "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_task_is_wrong_use(project: Path) -> None:
    done = inv(project, "nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_wrong_use_with_json_is_one_document(project: Path) -> None:
    done = inv(project, "certs.show", "--nonsense", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "wrong-use"


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("registry.logs", "--tail", "abc"), "--tail"),
        (("registry.logs", "--tail=4.5"), "--tail"),
        (("k8s.deploy", "--replicas="), "--replicas"),
    ],
)
def test_a_number_that_is_none_is_wrong_use(
    project: Path, words: tuple[str, ...], flag: str
) -> None:
    done = inv(project, *words, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "wrong-use"
    assert flag in error["message"]


@pytest.mark.parametrize(
    "words",
    [("web/shop", "--fix"), ("--fix", "web/shop"), ("--pod", "web/shop"), ("--pod=web/shop",)],
)
def test_a_pod_is_named_without_a_flag_too(project: Path, words: tuple[str, ...]) -> None:
    done = inv(project, "k8s.diagnose", *words, KUBECONFIG="/nowhere/kubeconfig")
    assert "there is no kubeconfig /nowhere" in done.stderr
    bad = inv(project, "k8s.diagnose", *(word.replace("shop", "Shop") for word in words))
    assert bad.returncode == 2
    assert "'Shop' cannot be the name of a pod" in bad.stderr


def test_a_task_that_takes_many_words_gets_them_all(project: Path) -> None:
    done = inv(project, "image.push", "one:1", "two:2", "--target=x:1", "--json")
    assert done.returncode == 2
    assert "not 2" in json.loads(done.stdout)["error"]["message"], done.stderr


def test_an_unknown_platform_is_named_before_anything_is_made(project: Path) -> None:
    done = inv(project, "image.build", "--platform=linux/amd64,linux/arm65", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["cause"]) == ("wrong-use", "did you mean linux/arm64?")
    assert not (project / ".moorage" / "image").exists()


def test_a_bad_line_of_a_list_is_named_before_anything_is_asked(project: Path) -> None:
    (project / "images.txt").write_text("nginx:1\nno such image\n")
    done = inv(project, "image.mirror", "images.txt", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "bad-reference"
    assert "images.txt, line 2" in error["message"]
    assert not (project / ".moorage" / "images").exists()


def test_a_wrong_option_is_told_once_and_in_words(project: Path) -> None:
    done = inv(project, "up", "--made-up")
    assert done.returncode == 2
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("--made-up") == 1


@pytest.mark.parametrize("word", ["-", "/nowhere/list"])
def test_a_list_that_cannot_be_read_is_named(project: Path, word: str) -> None:
    done = inv(project, "image.mirror", word, "--yes", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "unreadable-list"), done.stderr


NOBODYS = "~no-such-user/file"
OUTSIDE = {"INVOKE_REGISTRY_EXTERNAL": "true", "INVOKE_REGISTRY_CA": NOBODYS}


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (("-f", NOBODYS, "doctor"), {}),
        (("nodes.status", f"--inventory={NOBODYS}"), {}),
        (("nodes.status", "--from-cluster"), {"INVOKE_KUBERNETES_KUBECONFIG": NOBODYS}),
        (("k8s.diagnose",), {"KUBECONFIG": NOBODYS}),
        (("monitoring.setup", f"--to={NOBODYS}"), {}),
        (("bundle.show", NOBODYS), {}),
        (("image.mirror", NOBODYS, "--yes"), {}),
        (("image.mirror", "alpine:3", f"--authfile={NOBODYS}", "--yes"), {}),
        (("registry.cache", "quay.io", f"--ca={NOBODYS}", "--yes"), {}),
        (("registry.ca",), OUTSIDE),
    ],
)
def test_a_home_folder_of_nobody_is_refused(
    project: Path, words: tuple[str, ...], variables: dict[str, str]
) -> None:
    done = inv(project, *words, "--json", **variables)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "no-home"), done.stderr
    assert "no user no-such-user" in error["cause"]


def test_an_optional_word_is_taken_once_and_is_no_task(project: Path) -> None:
    twice = inv(project, "k8s.diagnose", "web/shop", "web/other")
    assert twice.returncode == 2
    assert "web/other" in twice.stderr
    then = inv(project, "k8s.diagnose", "certs.show", KUBECONFIG="/nowhere/kubeconfig")
    assert "there is no kubeconfig /nowhere" in then.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"registry: {", "invoke.yaml cannot be read"),
        (b"registry: 5\n", "a section of keys was expected"),
        (b"\xff\xfe\x00", "invoke.yaml cannot be read"),
        (b"registri: {}\n", "did you mean registry?"),
        (b"registry: {hots: a.io}\n", "did you mean registry.host?"),
        (b"image: {tag: 1.0}\n", "in quotes"),
        (b"registry: {host: 'https://a.io'}\n", "without the scheme"),
    ],
)
def test_broken_settings_get_a_sentence(project: Path, content: bytes, words: str) -> None:
    (project / "invoke.yaml").write_bytes(content)
    done = inv(project, "certs.show")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "certs").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("INVOKE_REGISTRY_PORT", "many"), ("INVOKE_REGISTRY_HOST", "https://a.io")],
)
def test_variable_with_a_wrong_value_is_named(project: Path, variable: str, value: str) -> None:
    done = inv(project, "certs.show", **{variable: value})
    assert done.returncode == 2
    assert variable in done.stderr
    assert value in done.stderr
    assert "Traceback" not in done.stderr


def test_every_task_has_a_sentence_an_example_and_json(project: Path) -> None:
    listing = json.loads(inv(project, "--list", "--list-format=json").stdout)
    names = [task["name"] for task in listing["tasks"]]
    for namespace in listing["collections"]:
        names += [f"{namespace['name']}.{task['name']}" for task in namespace["tasks"]]
    assert {"up", "down", "doctor", "nodes.trust"} <= set(names)
    for name in names:
        page = inv(project, "--help", name).stdout
        assert "Example" in page, name
        assert "--json" in page, name


def test_listing_loads_nothing_heavy(project: Path) -> None:
    probe = (
        "import sys, runpy; sys.argv = ['inv', '--list']\n"
        "try: runpy.run_module('invoke', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'docker', 'fabric', 'paramiko', 'cryptography', 'rich', 'aiohttp'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def unread(project: Path, *argv: str, **variables: str) -> tuple[int, str]:
    """(exit code, words) of a command whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, *argv], cwd=project, stdin=subprocess.DEVNULL, stdout=writing,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env={**os.environ, **variables},
        )  # fmt: skip
    finally:
        os.close(writing)
    return done.returncode, done.stderr


TABLE = "from moorage.ui import UI; UI().table(['a'], [['b']]); print('never', flush=True)"
LINE = "from moorage.ui import UI; UI(as_lines=True).event({}); print('never', flush=True)"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "argv",
    [
        ("-m", "invoke", "--list"), ("-m", "invoke", "--help", "nodes.trust"),
        ("-m", "invoke", "certs.show", "--json"), ("-c", TABLE), ("-c", LINE),
    ],
)  # fmt: skip
def test_who_reads_no_further_ends_it_quietly_as_any_tool(
    project: Path, argv: tuple[str, ...], unbuffered: str
) -> None:
    code, words = unread(project, *argv, PYTHONUNBUFFERED=unbuffered)
    assert code == 128 + signal.SIGPIPE
    assert "Traceback" not in words
    assert "BrokenPipe" not in words


def test_bytecode_is_kept_as_python_is_told_to(project: Path, tmp_path: Path) -> None:
    for told, kept in (("1", False), ("", True)):
        folder = tmp_path / f"kept-{told}"
        switches = {"PYTHONPYCACHEPREFIX": str(folder), "PYTHONDONTWRITEBYTECODE": told}
        done = inv(project, "config.check", **switches)
        assert done.returncode == 0
        names = {path.name.partition(".")[0] for path in folder.rglob("*.pyc")}
        # What comes before Invoke, what it loads as tasks, and what the task loads.
        assert {one in names for one in ("edges", "tasks", "checking")} == {kept}


def test_the_start_of_run_keeps_bytecode_of_what_a_task_loads(
    project: Path, tmp_path: Path
) -> None:
    start = [sys.executable, "-P", str(project / "moorage" / "program" / "start.py")]
    switches = {"PYTHONPYCACHEPREFIX": str(tmp_path / "kept"), "PYTHONDONTWRITEBYTECODE": ""}
    words = [*start, "config.check"]
    subprocess.run(words, cwd=project, env={**os.environ, **switches}, check=True)
    names = {path.name.partition(".")[0] for path in (tmp_path / "kept").rglob("*.pyc")}
    assert {"edges", "tasks", "checking"} <= names


def test_the_parser_knows_what_the_words_name_and_no_other_task() -> None:
    program = (
        "from invoke.main import program\n"
        "from invoke.program import Program\n"
        "from moorage.program import edges\n"
        "edges.install()\n"
        "Program.execute = lambda self: print(sorted(self.parser.contexts))\n"
        "program.run(['inv', 'certs.show', 'nodes.status', '--json'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['certs.show', 'nodes.status']\n"
