"""The tests, one session a concern. ``./run nox`` runs the default ones, in this order.

Every session but ``agent`` uses the environment that ``./run`` made from develop.lock, so what
is tested is what is pinned.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "none"
nox.options.sessions = [
    *("engine", "lint", "types", "audit", "unit", "docs"),
    *("ahead", "image", "k8s", "faults", "agent", "e2e"),
]
nox.options.stop_on_first_error = False

ROOT = Path(__file__).resolve().parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
OLDEST_AGENT_PYTHON: str = PROJECT["tool"]["moorage"]["oldest-agent-python"]
# An engine that the tests have to start keeps its data apart: what another checkout left in the
# machine's own, a registry that starts with it and takes the port among it, does not count here.
os.environ.setdefault(
    "INVOKE_ENGINE_DATA",
    f"/var/lib/moorage-tests/{hashlib.sha256(bytes(ROOT)).hexdigest()[:12]}",
)
PYTEST = ("python", "-m", "pytest", "--durations=12")
# The agent's tests that are skipped on its oldest Python, for want of PyYAML, jsonschema or ours.
ABOVE_OLDEST = [
    f"tests/agent/test_{name}.py" for name in ("declared", "hosts", "openapi", "plan", "rancher")
]
# Tests that share nothing: two a core, for many wait for programs that they have started; each
# worker takes what another has not begun.
SPREAD = (f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=worksteal")
# Tests that wait more than they compute; those of a file share containers.
APART = ("--numprocesses=2", "--dist=loadfile")
# What the session ahead has begun, and where its words go.
AHEAD: list[tuple[subprocess.Popen[bytes], Path]] = []
# What needs a real API server, which the session k8s brings.
API_SERVER = "tests/unit/cluster/test_server.py"


@nox.session
def engine(session: nox.Session) -> None:
    """An engine for the sessions that follow; Kubernetes is built in it meanwhile, where needed."""
    session.run("python", "-m", "tests.engine", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Format and lint, by ruff."""
    session.run("ruff", "format", "--check", ".", external=True)
    session.run("ruff", "check", ".", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Types, by mypy --strict; the agent once more as its oldest Python sees it."""
    session.run("mypy", external=True)


@nox.session
def unit(session: nox.Session) -> None:
    """The operator's side without an engine."""
    rooms = ("tests/unit", "tests/registry", f"--ignore={API_SERVER}")
    session.run(*PYTEST, *SPREAD, *rooms, "-m", "not engine", *session.posargs, external=True)


@nox.session
def registry(session: nox.Session) -> None:
    """Collections amid pushes, deletes and kills, then rotations of the CA and restores; by hand.

    `-- --full`: 10,000 of them; `-- --resume` goes on where a run was stopped.
    """
    session.run("python", "-m", "tests.registry", *session.posargs, external=True)


@nox.session
def rotations(session: nox.Session) -> None:
    """The CA rotated over 64 lab nodes, killed at 100 instants, under pulls; by hand, as root.

    `-- --hosts=N --kills=N` for so many.
    """
    session.run("python", "-m", "tests.rotations", *session.posargs, external=True)


@nox.session
def images(session: nox.Session) -> None:
    """Many images mirrored, killed on the way, beside skopeo sync; by hand, `-- --images=20`."""
    session.run("python", "-m", "tests.images", *session.posargs, external=True)


@nox.session
def bundle(session: nox.Session) -> None:
    """From a bare Debian without a route to images pulled by CRI; by hand, as root.

    `-- --folder=F` keeps what was made there, `-- --folder=F --there` takes bundles that are there,
    `-- --user` is somebody who is not root, without sudo and with it.
    """
    session.run("python", "-m", "tests.bundle", *session.posargs, external=True)


@nox.session
def pulp(session: nox.Session) -> None:
    """A registry of somebody else's, Pulp, from an empty checkout to a CRI pull; by hand, as root.

    `-- --folder=F` keeps what was made there, `-- --earlier` takes its release 2.27.
    """
    session.run("python", "-m", "tests.pulp", *session.posargs, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation in both languages, built strictly, every link in it followed."""
    session.run("python", "-m", "tests.docs", external=True)


@nox.session
def image(session: nox.Session) -> None:
    """What needs a Docker engine: the demo image, the registry, the lab's parts, SSH."""
    rooms = ("tests/unit", "tests/registry")
    session.run(*PYTEST, *APART, *rooms, "-m", "engine", *session.posargs, external=True)


@nox.session
def ahead(session: nox.Session) -> None:
    """Begins the session agent, which computes, beside the next ones, which wait for daemons."""
    log = Path("build", "agent.log")
    log.parent.mkdir(exist_ok=True)
    words = ["nice", "-n", "10", "python", "-m", "nox", "--session", "agent"]
    if session.posargs:
        words += ["--", *session.posargs]
    with log.open("wb") as output:
        begun = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    atexit.register(_end, begun)  # who stops nox, or wants this session alone, leaves nothing
    AHEAD.append((begun, log))
    session.log(f"begun; its words are in {log}")


def _end(begun: subprocess.Popen[bytes]) -> None:
    if begun.poll() is None:
        os.killpg(begun.pid, signal.SIGTERM)


@nox.session
def agent(session: nox.Session) -> None:
    """The agent's tests on the oldest Python it promises, or here; `-- --both`: on both."""
    if AHEAD:
        begun, log = AHEAD.pop()
        code = begun.wait()
        session.log(log.read_text(errors="replace"))
        if code:
            session.error(f"it ended with {code}")
        return
    words = [word for word in session.posargs if word != "--both"]
    mine = (*SPREAD, "tests/agent", "-m", "not engine", *words)
    python = _python(OLDEST_AGENT_PYTHON)
    if python is None:
        session.warn(f"no Python {OLDEST_AGENT_PYTHON} on this machine: its run is left out")
    if python is None or "--both" in session.posargs:
        session.run(*PYTEST, *mine, external=True)
    else:
        # What needs PyYAML and others that the oldest Python's lock leaves out is skipped there.
        session.run(*PYTEST, *SPREAD, *ABOVE_OLDEST, "-m", "not engine", external=True)
    if python is not None:
        lock = ROOT / "agent" / "test-requirements.lock"
        there = _environment(session, f"agent-{OLDEST_AGENT_PYTHON}", python, lock) / "python"
        # The engine's tests drive moorage as well, which wants a newer Python.
        session.run(str(there), *PYTEST[1:], *mine, external=True)


@nox.session
def nodes(session: nox.Session) -> None:
    """The agent on real nodes, and on Docker and Podman of their own; by hand, it builds images."""
    session.run(*PYTEST, "tests/agent", "-m", "engine", *session.posargs, external=True)


@nox.session
def field(session: nox.Session) -> None:
    """Configurations as tools leave them, each applied, pulled with and given back; by hand."""
    session.run("python", "-m", "tests.field", *session.posargs, external=True)


@nox.session
def resident(session: nox.Session) -> None:
    """The agent that stays, on a real node with systemd and SSH; by hand, on the lab's images."""
    session.run(*PYTEST, "tests/resident", *session.posargs, external=True)


@nox.session
def attacks(session: nox.Session) -> None:
    """Every way into a running agent or page that we know: each refused, and without effect."""
    session.run("python", "-m", "tests.attacks", external=True)


@nox.session
def openapi(session: nox.Session) -> None:
    """A running agent tried by its own OpenAPI document, with Schemathesis; `-- EXAMPLES`."""
    session.run("python", "-m", "tests.openapi", *session.posargs, external=True)


@nox.session
def fleet(session: nox.Session) -> None:
    """A rollout over many nodes, each hurt in its own way, and the operator killed; by hand.

    `-- --real=N --simulated=N` for so many; else as many real ones as the machine carries.
    """
    session.run("python", "-m", "tests.fleet", *session.posargs, external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """The plan parser and the TOML edit against Hypothesis: four minutes, or `-- SECONDS`."""
    session.run("python", "-m", "tests.fuzz", *session.posargs, external=True)


@nox.session
def web(session: nox.Session) -> None:
    """The page in headless Chromium, by keyboard and by axe-core; `-- --write`: screenshots."""
    session.run("python", "-m", "tests.web", *session.posargs, external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Known advisories about every lock, by pip-audit, where the index tells them."""
    lock = ROOT / "tests" / "audit" / "requirements.lock"
    programs = _environment(session, "audit", "python", lock)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    session.run("python", "-m", "tests.audit", env={"PATH": path}, external=True)


@nox.session
def inventories(session: nox.Session) -> None:
    """Our reading of Ansible's inventories beside its own; by hand, it installs ansible-core."""
    lock = ROOT / "tests" / "bench" / "peers" / "requirements.lock"
    programs = _environment(session, "peers", "python", lock)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    session.run(
        *PYTEST, "tests/unit/fleet/inventory/test_ansible.py", env={"PATH": path}, external=True
    )


@nox.session
def e2e(session: nox.Session) -> None:
    """The main job on real daemons: up, again, pulled, refused, untrusted, down."""
    session.run(*PYTEST, "tests/e2e/test_1_journey.py", *session.posargs, external=True)


@nox.session
def stopped(session: nox.Session) -> None:
    """Killed at ten places, and stopped politely: up and down work again. Slow; by hand."""
    session.run(*PYTEST, "tests/e2e/test_2_stopped.py", *session.posargs, external=True)


@nox.session
def faults(session: nox.Session) -> None:
    """The agent hurt at work on real nodes: a short form; `-- --full` for every step, by hand."""
    session.run("python", "-m", "tests.faults", *session.posargs, external=True)


@nox.session
def k8s(session: nox.Session) -> None:
    """The Kubernetes journey, a step of each kind; `-- --full`: all, `--kubeconfig FILE`: yours."""
    session.run("python", "-m", "tests.k8s", *session.posargs, external=True)
    if not session.posargs:
        session.run(*PYTEST, API_SERVER, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Each figure beside its peer in the same run; writes build/bench.json."""
    session.run("python", "-m", "tests.bench", *session.posargs, external=True)


@nox.session
def coverage(session: nox.Session) -> None:
    """What the tests without an engine cover, build/coverage.txt; by hand, a third slower."""
    rooms = ("tests/unit", "tests/registry", "tests/agent")
    measured = (*PYTEST, "--cov", "--cov-report=", *SPREAD, *rooms, "-m", "not engine")
    session.run(*measured, *session.posargs, external=True)
    Path("build").mkdir(exist_ok=True)
    with Path("build/coverage.txt").open("w") as report:
        session.run("coverage", "report", external=True, stdout=report)
    lines = Path("build/coverage.txt").read_text().splitlines()
    total = next((line for line in lines if line.startswith("TOTAL")), "nothing")
    session.log(f"coverage: {total.split()[-1]} (build/coverage.txt)")


def _environment(session: nox.Session, name: str, python: str, lock: Path) -> Path:
    """The programs of an environment of ``python`` with what ``lock`` pins, made anew with it."""
    folder = Path(session.create_tmp()) / name
    made_from = folder / "made-from.lock"
    if not made_from.exists() or made_from.read_bytes() != lock.read_bytes():
        session.run(python, "-m", "venv", "--clear", str(folder), external=True)
        pip = (str(folder / "bin" / "python"), "-m", "pip", "-qq", "install")
        session.run(*pip, "--require-hashes", "-r", str(lock), external=True)
        shutil.copy(lock, made_from)
    return folder / "bin"


def _python(version: str) -> str | None:
    """A working interpreter of exactly ``version`` (major.minor), or None."""
    pyenv = Path.home() / ".pyenv" / "versions"
    candidates = [f"python{version}", *map(str, pyenv.glob(f"{version}.*/bin/python"))]
    wanted = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in candidates:
        if shutil.which(candidate) is None:
            continue
        if subprocess.run([candidate, "-c", wanted], capture_output=True, check=False).returncode:
            continue
        return candidate
    return None
