"""Which cluster is meant, and the credentials for it: kubeconfig, context, or the pod's own.

In this order: what the command or the settings name, $KUBECONFIG, the lab's cluster where it
stands, ~/.kube/config, the service account of the pod we run in. The lab's comes before the
user's own: acting on the lab by mistake harms nobody, the reverse might.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError, Refused
from moorage.files import user_home, user_path

if TYPE_CHECKING:
    from kubernetes.client import Configuration

    from moorage.cluster.api.client import Api
    from moorage.settings import Settings

IN_CLUSTER = "in-cluster"
# Where kubectl looks by itself.
ENVIRONMENT, HOME = "$KUBECONFIG", "the home folder"
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def connect(settings: Settings, *, kubeconfig: str = "", context: str = "") -> Api:
    """A connection to the cluster that is meant; ``where`` of it says which one it is.

    ``kubeconfig`` and ``context`` come before the settings'. Raises Refused if there is none,
    the context is unknown, or its credentials are of no use; ApiError where it does not answer.
    """
    from moorage.cluster.api.client import Api
    from moorage.cluster.api.where import Where

    files, origin = kubeconfig_files(settings, kubeconfig)
    wanted = context or settings.kubernetes.context
    configuration, name = _load(files, wanted, settings, origin)
    flags = "".join(
        f" --{option}={shlex.quote(value)}"
        for option, value in (("kubeconfig", kubeconfig), ("context", context))
        if value
    )
    kubectl = _kubectl(settings, files, origin, wanted)
    api = Api(configuration, Where(configuration.host, name, kubectl, flags))
    try:
        api.get("/version", "reach the cluster")
    except MoorageError as problem:
        if problem.code in ("unauthorized", "client-certificate"):
            raise _expired(configuration, api.where.context) or problem from None
        raise
    return api


def leading_to(settings: Settings, server: str, kubeconfig: str = "") -> list[str]:
    """The contexts whose API server has this URL, the current one first; [] without a kubeconfig
    that can be read."""
    try:
        merged = [_read(file) for file in kubeconfig_files(settings, kubeconfig)[0]]
    except Refused:
        return []
    clusters = {
        one["name"]
        for document in merged
        for one in document.get("clusters") or ()
        if (one.get("cluster") or {}).get("server") == server
    }
    found = [
        str(one["name"])
        for document in merged
        for one in document.get("contexts") or ()
        if (one.get("context") or {}).get("cluster") in clusters
    ]
    current = {document.get("current-context") for document in merged}
    return sorted(found, key=lambda name: name not in current)


def kubeconfig_files(settings: Settings, given: str = "") -> tuple[list[Path], str]:
    """The kubeconfig files to read, and who named them; [] stands for the pod's own account.

    Raises Refused if a named one is not there, or none is anywhere.
    """
    named = (
        (given, "--kubeconfig"),
        (settings.kubernetes.kubeconfig, "kubernetes.kubeconfig in invoke.yaml"),
        (os.environ.get("KUBECONFIG", ""), ENVIRONMENT),
    )
    for text, origin in named:
        files = [user_path(part, origin) for part in text.split(os.pathsep) if part]
        there = [file for file in files if file.is_file()]
        if there:
            return there, origin
        if files:
            raise Refused(
                "no-kubeconfig",
                f"there is no kubeconfig {' or '.join(map(str, files))}",
                cause=f"{origin} names it",
                cure=f"correct {origin}",
                path=str(files[0]),
            )
    lab = lab_kubeconfig(settings)
    for file, origin in ((lab, "the lab"), (user_home() / ".kube" / "config", HOME)):
        if file.is_file():
            return [file], origin
    if os.environ.get("KUBERNETES_SERVICE_HOST") and _TOKEN.is_file():
        return [], IN_CLUSTER
    raise Refused(
        "no-kubeconfig",
        "there is no kubeconfig, so it is unknown which cluster is meant",
        cause="neither --kubeconfig, $KUBECONFIG, a lab cluster nor ~/.kube/config is there",
        cure="give --kubeconfig FILE, or start a cluster in the lab: inv lab.up --kubernetes",
    )


def _kubectl(settings: Settings, files: list[Path], origin: str, context: str) -> str:
    """How to type kubectl so that it means the same cluster; on the lab's, one that is here."""
    words = ["kubectl"]
    if len(files) == 1 and origin not in (ENVIRONMENT, HOME):
        words.append(f"--kubeconfig={files[0]}")
    if context:
        words.append(f"--context={context}")
    if files == [lab_kubeconfig(settings)] and shutil.which("kubectl") is None:
        from lab.kubernetes.programs import binaries

        words[0] = str(binaries.kubectl(settings) or words[0])
    return shlex.join(words)


@contextmanager
def typed_for(api: Api) -> Iterator[None]:
    """Around what is done in a cluster: the cure of an error is typed so that it reaches it."""
    try:
        yield
    except MoorageError as problem:
        problem.with_cure(api.where.typed(problem.cure))
        raise


def lab_kubeconfig(settings: Settings) -> Path:
    """Where the lab's cluster leaves its admin's kubeconfig."""
    return settings.state / "lab" / "kubernetes" / "admin.kubeconfig"


def _load(
    files: list[Path], context: str, settings: Settings, origin: str
) -> tuple[Configuration, str]:
    from kubernetes.client import Configuration
    from kubernetes.config import load_incluster_config, load_kube_config
    from kubernetes.config.config_exception import ConfigException

    configuration = Configuration()
    if not files:
        if context:
            raise Refused(
                "unknown-context",
                f"there is no context {context}: a pod's own account has none",
                cause="there is no kubeconfig, and we run in a pod",
                cure="leave --context out, or give --kubeconfig FILE",
            )
        load_incluster_config(client_configuration=configuration)
        return configuration, IN_CLUSTER
    merged = [_read(file) for file in files]
    name = _context(merged, context, files, origin)
    # The library writes keys out into files for OpenSSL; they belong into a folder of ours (0700).
    keys = settings.state / "kubernetes"
    try:
        with _heard() as complaints:
            load_kube_config(
                config_file=os.pathsep.join(map(str, files)),
                context=name,
                client_configuration=configuration,
                persist_config=False,
                temp_file_path=str(keys),
            )
        _check_plugin(merged, name, configuration, complaints)
    except (ConfigException, KeyError, TypeError, ValueError, AttributeError, OSError) as problem:
        # Its last line names the entry and what is missing there; values are not in it.
        raise _unusable(files, f"{type(problem).__name__}: {problem}".splitlines()[0]) from None
    return configuration, name


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as problem:
        # Not the library's own text: it quotes the line, and that may be a token.
        line = problem.problem_mark.line + 1 if problem.problem_mark else 0
        raise _unusable([file], f"line {line}: {problem.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise _unusable([file], f"{type(problem).__name__}: {_brief(problem)}") from None
    if not isinstance(document, dict):
        raise _unusable([file], "it is empty, or no mapping of keys")
    for key in ("clusters", "contexts", "users"):
        entries = document.get(key) or []
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            raise _unusable([file], f"{key} is not a list of entries with names")
    return document


def _is_entry(entry: Any) -> bool:
    """One of a kubeconfig's entries: a name, and a mapping under the key that lists it."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and all(isinstance(value, dict | None) for key, value in entry.items() if key != "name")
    )


def _brief(problem: Exception) -> str:
    return problem.strerror or "" if isinstance(problem, OSError) else "it is not UTF-8 text"


def _context(merged: list[dict[str, Any]], wanted: str, files: list[Path], origin: str) -> str:
    """The context's name: the wanted one, else the current one."""
    known: list[str] = []
    for document in merged:
        for entry in document.get("contexts") or ():
            known.append(entry["name"])
    current = [d["current-context"] for d in merged if d.get("current-context")]
    name = wanted or (str(current[0]) if current else "")
    if name in known:
        return name
    where = ", ".join(map(str, files))
    if not name:
        raise Refused(
            "unknown-context",
            f"{where} has no current context, so it is unknown which cluster is meant",
            cause=f"it has: {', '.join(known) or 'no context at all'}",
            cure="name one with --context, or: kubectl config use-context NAME",
        )
    raise Refused(
        "unknown-context",
        f"there is no context {name} in {where} (from {origin})",
        cause=f"it has: {', '.join(known) or 'no context at all'}",
        cure="name one of these with --context",
    )


@contextmanager
def _heard() -> Iterator[list[str]]:
    """The library logs a credential plugin's failure, and goes on without credentials."""
    words: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words.append(record.getMessage())

    root, ear = logging.getLogger(), Ear(logging.ERROR)
    root.addHandler(ear)
    try:
        yield words
    finally:
        root.removeHandler(ear)


def _check_plugin(
    merged: list[dict[str, Any]], context: str, configuration: Configuration, words: list[str]
) -> None:
    plugin = _plugin(merged, context)
    if not plugin or configuration.api_key or configuration.cert_file:
        return
    raise Refused(
        "no-credentials",
        f"the credential plugin of context {context} gave no credentials",
        cause=" ".join(words)[:300] or f"{plugin} failed",
        cure=f"run it by hand to see why: {plugin}",
    )


def _plugin(merged: list[dict[str, Any]], context: str) -> str:
    user = ""
    for document in merged:
        for entry in document.get("contexts") or ():
            if entry.get("name") == context and not user:
                user = str((entry.get("context") or {}).get("user", ""))
    for document in merged:
        for entry in document.get("users") or ():
            if entry.get("name") == user:
                return str(((entry.get("user") or {}).get("exec") or {}).get("command", ""))
    return ""


def _unusable(files: list[Path], why: str) -> Refused:
    names = ", ".join(map(str, files))
    return Refused(
        "bad-kubeconfig",
        f"the kubeconfig {names} cannot be used",
        cause=re.sub(r"\s+", " ", why),
        cure="compare it with: kubectl config view; or fetch it again",
        path=str(files[0]),
    )


def _expired(configuration: Configuration, context: str) -> Refused | None:
    """A better word than "401" where it is the client certificate that has ended."""
    import datetime

    from cryptography import x509

    if not configuration.cert_file:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(Path(configuration.cert_file).read_bytes())
    except (OSError, ValueError):
        return None
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins <= now <= ends:
        return None
    said = f"ended on {ends:%Y-%m-%d %H:%M} UTC" if now > ends else f"begins only on {begins} UTC"
    return Refused(
        "client-certificate-expired",
        f"the client certificate of context {context} {said}",
        cause=f"here it is {now:%Y-%m-%d %H:%M} UTC",
        cure="fetch a new kubeconfig (kubeadm: kubeadm certs renew admin.conf; lab: inv lab.up"
        " --kubernetes)",
    )
