"""Pulp as its makers ship it, below one folder: PostgreSQL, Redis, its three programs, and nginx.

Pulp comes from PyPI by requirements.lock, the rest from Debian's packages, unpacked; nginx includes
the two files that Pulp ships for it. All of it ends, by process id, with the block.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.agent.authority import Authority
from tests.debian import unpacked
from tests.environment import environment
from tests.ports import free_port

HOST = "pulp.example.test"
ADMIN = "admin"
_PACKAGES = (
    *("postgresql-15", "libllvm14", "libicu72", "libxml2", "libxslt1.1", "libldap-2.5-0", "libpq5"),
    *("libsasl2-2", "libz3-4", "libedit2", "libbsd0", "libmd0", "tzdata"),
    *("redis-server", "redis-tools", "libjemalloc2", "libatomic1", "liblua5.1-0", "liblzf1"),
    *("lua-bitop", "lua-cjson", "libhiredis0.14"),
    *("nginx", "libpcre2-8-0"),
)
# PostgreSQL does not run as root; in such a namespace it is somebody else with root's own files.
_NOT_ROOT = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
_SETTINGS = """\
SECRET_KEY = {secret!r}
CONTENT_ORIGIN = "https://{name}"
TOKEN_SERVER = "https://{name}/token/"
TOKEN_SIGNATURE_ALGORITHM = "ES256"
PUBLIC_KEY_PATH = "{folder}/token.pub"
PRIVATE_KEY_PATH = "{folder}/token.key"
DB_ENCRYPTION_KEY = "{folder}/fields.key"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "postgres",
    "USER": "nobody", "HOST": "{folder}/run", "PORT": "{database}"}}}}
CACHE_ENABLED = True
REDIS_HOST, REDIS_PORT = "127.0.0.1", {redis}
DEPLOY_ROOT = "{folder}/pulp"
MEDIA_ROOT, STATIC_ROOT = "{folder}/pulp/media", "{folder}/pulp/assets"
WORKING_DIRECTORY = FILE_UPLOAD_TEMP_DIR = "{folder}/pulp/tmp"
ANALYTICS = False
"""
_NGINX = """\
daemon off;
error_log {folder}/nginx.log;
pid {folder}/nginx.pid;
user root;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/run/body; proxy_temp_path {folder}/run/proxy;
    fastcgi_temp_path {folder}/run/f; uwsgi_temp_path {folder}/run/u; scgi_temp_path {folder}/run/s;
    upstream pulp-content {{ server 127.0.0.1:{content}; }}
    upstream pulp-api {{ server 127.0.0.1:{api}; }}
    server {{
        {listen}
        ssl_certificate {folder}/tls.crt;
        ssl_certificate_key {folder}/tls.key;
        client_max_body_size 0;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Host $http_host;
        proxy_redirect off;
        location /pulp/content/ {{ proxy_pass http://pulp-content; }}
        location /pulp/api/v3/ {{ proxy_pass http://pulp-api; }}
        include {snippets};
    }}
}}
"""


@dataclass
class Pulp:
    """It runs. ``password`` is the administrator's; ``ca`` its root in PEM."""

    folder: Path
    port: int
    ca: str
    password: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{HOST}:{self.port}"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def asked(self) -> list[str]:
        """What clients have asked for so far, as ``GET /v2/ 401``."""
        rows = [line.split('"') for line in self.log("access").splitlines()]
        return [f"{row[1].rpartition(' ')[0]} {row[2].split()[0]}" for row in rows if len(row) > 2]

    def api(self, method: str, path: str, document: object = None) -> Any:
        """One call of Pulp's own API as the administrator. Raises HTTPError."""
        word = base64.b64encode(f"{ADMIN}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {word}", "Content-Type": "application/json"}
        body = None if document is None else json.dumps(document).encode()
        # Its certificate has the address too; a name would want this machine's hosts file.
        url = f"https://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, body, headers, method=method)
        context = ssl.create_default_context(cadata=self.ca)
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def versions(self) -> str:
        """What runs, as Pulp itself names it."""
        found = self.api("GET", "/pulp/api/v3/status/")["versions"]
        rows = {one["component"]: one["version"] for one in found}
        return ", ".join(f"{name} {rows[name]}" for name in ("core", "container"))

    def user(self, name: str, password: str, *roles: tuple[str, str]) -> None:
        """A login; ``roles``: of what (an href), each."""
        made = self.api("POST", "/pulp/api/v3/users/", {"username": name, "password": password})[
            "pulp_href"
        ]
        for role, of in roles:
            wanted = {"role": role, "content_object": of, "domain": None}
            self.api("POST", f"{made}roles/", wanted)

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """The object of that kind and name."""
        (found,) = self.api("GET", f"/pulp/api/v3/{kind}/?name={name}")["results"]
        return dict(found)

    def wait(self, task: str, seconds: float = 60) -> None:
        """Until a task of Pulp's is done."""
        until = time.monotonic() + seconds
        while (state := self.api("GET", task)["state"]) in ("waiting", "running"):
            assert time.monotonic() < until, f"{task} is {state}"
            time.sleep(0.2)
        assert state == "completed", self.api("GET", task)["error"]


@contextmanager
def serving(folder: Path, addresses: Sequence[str], lock: str) -> Iterator[Pulp]:
    """Pulp as ``lock`` pins it, below ``folder``, at ``addresses`` and one port, by TLS."""
    folder.mkdir()
    path = Path(__file__).with_name(lock)
    programs = environment(f"pulp-{path.stem}", path) / "bin"
    root = unpacked("pulp", *_PACKAGES)
    authority = Authority("Pulp's root")
    between = authority.intermediate()
    made = Pulp(folder, free_port(), authority.pem, secrets.token_urlsafe(16))
    ports = {name: free_port() for name in ("database", "redis", "api", "content")}
    _prepare(made, authority, between, ports, addresses, _snippet(programs))
    words = _environment(root, folder, programs)
    postgres = f"{root}/usr/lib/postgresql/15/bin"
    try:
        _run([*_NOT_ROOT, f"{postgres}/initdb", "-D", f"{folder}/db", "-A", "trust",
              "-U", "nobody", "--locale=C.UTF-8", "-E", "UTF8"], words)  # fmt: skip
        _start(made, words, "postgres", *_NOT_ROOT, f"{postgres}/postgres", "-D", f"{folder}/db",
               "-k", f"{folder}/run", "-p", str(ports["database"]), "-h", "",
               "-c", "jit=off", "-c", "fsync=off")  # fmt: skip
        _start(made, words, "redis", f"{root}/usr/bin/redis-server", "--bind", "127.0.0.1",
               "--port", str(ports["redis"]), "--save", "", "--dir", str(folder))  # fmt: skip
        _until(made, (folder / f"run/.s.PGSQL.{ports['database']}").exists, "postgres")
        _run(["pulpcore-manager", "migrate", "--noinput"], words)
        _run(["pulpcore-manager", "reset-admin-password", "--password", made.password], words)
        for name in ("api", "content"):
            _start(made, words, name, f"pulpcore-{name}", "--bind", f"127.0.0.1:{ports[name]}",
                   "--workers", "1", "--timeout", "90")  # fmt: skip
        _start(made, words, "worker", "pulpcore-worker")
        nginx = (f"{root}/usr/sbin/nginx", "-p", str(folder), "-c", f"{folder}/nginx.conf")
        _start(made, words, "nginx", *nginx, "-e", f"{folder}/nginx.log")
        _until(made, partial(_answers, made), "api")
        yield made
    finally:
        for name, process in reversed(made.running.items()):
            # PostgreSQL takes the polite word for "once all have left", and this one for "now".
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _prepare(
    made: Pulp,
    authority: Authority,
    between: Authority,
    ports: Mapping[str, int],
    addresses: Sequence[str],
    snippets: str,
) -> None:
    folder = made.folder
    for name in ("run", "pulp/media", "pulp/tmp", "pulp/assets"):
        (folder / name).mkdir(parents=True)
    leaf, key = between.issue(HOST, "127.0.0.1")
    signing = subprocess.run(
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    public = subprocess.run(
        ["openssl", "ec", "-pubout"], input=signing, check=True, capture_output=True
    ).stdout
    values = {**ports, "folder": folder, "name": made.name, "secret": secrets.token_hex(25)}
    listen = [f"listen {address}:{made.port} ssl;" for address in ("127.0.0.1", *addresses)]
    files = {
        "tls.crt": leaf + between.pem.encode() + authority.pem.encode(),
        "tls.key": key,
        "token.key": signing,
        "token.pub": public,
        "fields.key": base64.urlsafe_b64encode(secrets.token_bytes(32)) + b"\n",
        "settings.py": _SETTINGS.format_map(values).encode(),
        "nginx.conf": _NGINX.format_map(
            {**values, "listen": "\n        ".join(listen), "snippets": snippets}
        ).encode(),
    }
    for name, content in files.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)


def _snippet(programs: Path) -> str:
    """What Pulp's container plugin ships for nginx."""
    where = "lib/python*/site-packages/pulp_container/app/webserver_snippets/nginx.conf"
    (found,) = programs.parent.glob(where)
    return str(found)


def _environment(root: Path, folder: Path, programs: Path) -> dict[str, str]:
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PULP_SETTINGS": f"{folder}/settings.py",
        "DJANGO_SETTINGS_MODULE": "pulpcore.app.settings",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }


def _run(argv: Sequence[str], words: Mapping[str, str]) -> None:
    done = subprocess.run(
        argv, env=dict(words), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{argv[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def _start(made: Pulp, words: Mapping[str, str], name: str, *argv: str) -> None:
    with (made.folder / f"{name}.log").open("wb") as log:
        made.running[name] = subprocess.Popen(
            argv, env=dict(words), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def _until(made: Pulp, look: Callable[[], bool], name: str, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not look():
        for one, process in made.running.items():
            assert process.poll() is None, f"{one} ended: {made.log(one)[-3000:]}"
        assert time.monotonic() < until, f"{name} does not answer: {made.log(name)[-3000:]}"
        time.sleep(0.2)


def _answers(made: Pulp) -> bool:
    try:
        found = made.api("GET", "/pulp/api/v3/status/")
    except (OSError, ValueError):
        return False
    return bool(found["online_workers"] and found["online_content_apps"])
