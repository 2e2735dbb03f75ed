"""``invoke.yaml`` and ``INVOKE_*`` through Invoke's own configuration -> frozen dataclasses.

The dataclasses below are the reference for every key, its type and its default. What a value may
be stands in :mod:`moorage.configuration.allowed`; :mod:`moorage.configuration.parsing` makes them.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage.output.typed import file_of

ROOT = Path(__file__).resolve().parent.parent

# https://github.com/distribution/reference: path-component and tag.
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class EngineSettings:
    """The Docker engine, if none answers and Moorage starts one by hand."""

    # Where that one keeps its data (dockerd --data-root); empty: where dockerd itself would.
    data: str = ""


@dataclass(frozen=True)
class RegistrySettings:
    """The registry: its name, where it listens and where it keeps its data."""

    host: str = "my.registry.io"
    port: int = 443
    # The address nodes use. "auto": for each node, this machine's own address on the way to it.
    address: str = "auto"
    # Addresses the registry listens on.
    listen: str = "0.0.0.0"  # noqa: S104 - nodes have to reach it; TLS and login guard it
    # A reference of an image of the CNCF Distribution; "auto": Docker Hub's, else built here.
    image: str = "auto"
    user: str = "moorage"
    # Relative to the project's folder.
    data: str = ".moorage/registry/data"
    metrics_port: int = 5001
    # The container's name; two checkouts on one machine need two (and two ports).
    container: str = "moorage-registry"
    # Somebody else runs it (Harbor, Nexus, GitLab, ...): nodes trust it, and it is never stood up.
    # `host` may then be its URL, as https://harbor.example.com:8443/.
    external: bool = False
    # The CA of such a one: a PEM file; empty: what `inv registry.ca` has stored.
    ca: str = ""
    # PEM files of the certificate that this machine and the nodes present to such a one if it asks
    # its clients for one, and of the key, which nobody else may read.
    client_cert: str = ""
    client_key: str = ""


@dataclass(frozen=True)
class CertsSettings:
    """Keys and certificates. Names beyond ``registry.host`` go into ``names``."""

    dir: str = "certs"
    key: str = "ec-p256"  # or rsa-4096
    days: int = 365
    ca_days: int = 3650
    renew_before: int = 30
    names: tuple[str, ...] = ()
    name_constraints: bool = False


@dataclass(frozen=True)
class ImageSettings:
    """The demo image."""

    name: str = "serve_hostname"
    tag: str = "0.0.1"
    base: str = "auto"
    # As linux/amd64, linux/arm64: an index of them, made without an engine; empty: this machine's
    # alone, made by its engine.
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabSettings:
    """Throw-away nodes: a comma-separated list of containerd lines, `2*3` for three of them."""

    nodes: str = "1.6,1.7,2"
    # What nodes are called: lab1, lab2, … Two checkouts on one engine need two names.
    prefix: str = "lab"
    # A Debian mirror for the packages of the lab; "auto": the one this machine uses.
    mirror: str = "auto"
    # The cluster of `inv lab.up --kubernetes`. 1.20.2 is what Debian bookworm carries as source,
    # so it can be had where nothing else is reachable.
    kubernetes_version: str = "1.20.2"
    # A folder with kube-apiserver, kubelet, …; empty: the user's cache, else downloaded or built.
    kubernetes_binaries: str = ""
    # Where the project's own releases are, as VERSION/bin/linux/ARCH below it; empty: not asked.
    kubernetes_release: str = "https://dl.k8s.io/release"


@dataclass(frozen=True)
class NodesSettings:
    """How nodes are reached over SSH; what is not said here, ~/.ssh/config says."""

    hosts: tuple[str, ...] = ()
    user: str = ""
    ssh_config: str = ""
    known_hosts: str = ""
    connect_timeout: int = 10
    parallel: int = 16
    # Whether it is asked before nodes change, and before running containers on nodes are stopped;
    # false: as with --yes.
    confirm: bool = True
    # Further attempts at a host whose connection broke.
    retries: int = 2
    # What of a node is set up, as docker,containerd; empty: every runtime that is there.
    parts: tuple[str, ...] = ()
    # Registries whose images nodes ask of ours first, as docker.io,quay.io …
    mirrors: tuple[str, ...] = ()
    # … and whether they ask those themselves for what ours does not have.
    mirror_fallback: bool = True
    # Where their images lie in ours, below which path; {registry} is the other registry's name.
    # Empty: under the same path, so two registries can meet.
    mirror_path: str = "{registry}"
    # Further names of the registry that nodes are to know; its certificate must have them.
    names: tuple[str, ...] = ()
    # "http": the registry that nodes ask has no TLS.
    insecure: str = ""
    # The host's own trust store too: every program on the node trusts the CA then.
    system_store: bool = False
    # Add the registry to NO_PROXY of runtimes that ask a proxy for it.
    fix_proxy: bool = False
    # Groups for --hosts=@web: a name -> a list of hosts, ranges and other groups.
    groups: Mapping[str, str] = field(default_factory=dict)
    # Whether the agent stays on a node after nodes.trust, and keeps its trust right …
    resident: bool = True
    # … and where it listens.
    agent_port: int = 7443


@dataclass(frozen=True)
class KubernetesSettings:
    """The cluster, and how our objects in it are called."""

    # Files, separated by ':'. "": $KUBECONFIG, the lab's cluster, ~/.kube/config, or the pod's own.
    kubeconfig: str = ""
    context: str = ""
    namespaces: tuple[str, ...] = ("default",)
    secret: str = "my-registry"  # noqa: S105 - the name of one
    pod: str = "private-reg"
    # Where the agents live, and an image with Python 3.9 or later for them; "auto":
    # python:3.13-slim, from Docker Hub.
    agents_namespace: str = "moorage-system"
    agent_image: str = "auto"


@dataclass(frozen=True)
class UpkeepSettings:
    """What `inv upkeep` does beside renewing and collecting, and when a timer has it done."""

    # The prune policy, as the options of `inv images.prune`; with none of the first three set,
    # nothing is pruned. keep: 0 says nothing.
    keep: int = 0
    older_than: str = ""
    untagged: bool = False
    protect: tuple[str, ...] = ()
    without_nodes: bool = False
    # No blob is collected that was pushed less long ago.
    grace: str = "1h"
    # Where backups go, as `inv registry.backup` takes it; empty: none are made.
    backup: str = ""
    passphrase_file: str = ""
    # What node_exporter's textfile collector is to read; empty: nothing.
    textfile: str = ""
    # The time of the day, by this machine's clock.
    at: str = "03:17"


@dataclass(frozen=True)
class Settings:
    """All settings of one run. ``profile``: whose they are; empty for ``invoke.yaml``."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    certs: CertsSettings = field(default_factory=CertsSettings)
    image: ImageSettings = field(default_factory=ImageSettings)
    lab: LabSettings = field(default_factory=LabSettings)
    nodes: NodesSettings = field(default_factory=NodesSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    profile: str = ""

    @property
    def root(self) -> Path:
        """The project's folder."""
        return ROOT

    @property
    def home(self) -> Path:
        """Where this profile's state and certificates are: the project's folder, or one in it."""
        return home_of(self.root, self.profile)

    @property
    def file(self) -> Path:
        """The file of these settings."""
        return self.root / file_of(self.profile)

    @property
    def state(self) -> Path:
        """What Moorage remembers between runs; git-ignored, 0700."""
        return self.home / ".moorage"

    @property
    def certs_dir(self) -> Path:
        return self.home / self.certs.dir

    @property
    def ca_file(self) -> Path:
        """The CA that nodes are to trust (PEM): ours, or that of a registry of somebody else's."""
        registry = self.registry
        if not registry.external:
            return self.certs_dir / "ca.crt"
        if registry.ca:
            return self.root / registry.ca
        # By its name: another registry.host in invoke.yaml never meets the CA of the one before.
        return self.certs_dir / "external" / f"{self.registry_name}.crt"

    @property
    def registry_data(self) -> Path:
        return self.home / self.registry.data

    @property
    def registry_hosts(self) -> tuple[str, ...]:
        """The registry's own names, the first one first; a client's certificate is for these."""
        return self.registry.host, *self.nodes.names

    @property
    def registry_name(self) -> str:
        """``host`` or ``host:port``: how images, folders and logins name the registry."""
        registry = self.registry
        return registry.host if registry.port == 443 else f"{registry.host}:{registry.port}"

    @property
    def image_reference(self) -> str:
        return f"{self.registry_name}/{self.image.name}:{self.image.tag}"


def sections() -> dict[str, Any]:
    """The sections of settings -> their dataclasses."""
    hints = typing.get_type_hints(Settings)
    return {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}


def home_of(root: Path, profile: str) -> Path:
    """Where a profile's state and certificates are; ``profile``: a checked name, or empty."""
    return root / "profiles" / profile if profile else root


def defaults(profile: str = "") -> dict[str, Any]:
    """Every key with its default, for Invoke: it reads ``INVOKE_*`` only for keys it knows.

    Lists are written as comma-separated strings, the one form an environment variable can carry.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return ",".join(value) if isinstance(value, tuple) else value

    tree: dict[str, Any] = plain(dataclasses.asdict(Settings()))
    del tree["profile"]
    for section, names in names_of(profile).items():
        tree[section] |= names
    return tree


def names_of(profile: str) -> dict[str, dict[str, str]]:
    """What is called by a name of its own in each profile, so that two never meet."""
    if not profile:
        return {}
    return {
        "registry": {"container": f"moorage-registry-{profile}"},
        "lab": {"prefix": f"{profile}-lab"},
        "kubernetes": {
            "secret": f"my-registry-{profile}",
            "pod": f"private-reg-{profile}",
            "agents_namespace": f"moorage-system-{profile}",
        },
    }
