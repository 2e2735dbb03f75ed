"""Settings of a project that lives in a temporary folder, for tests that write."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from moorage.settings import ROOT, CertsSettings, RegistrySettings, Settings
from tests.ports import free_port


def project(root: Path, **sections: Any) -> Settings:
    """Settings whose files are below ``root``; ``sections`` as for Settings."""

    class Elsewhere(Settings):
        @property
        def root(self) -> Path:
            return root

        @property
        def state(self) -> Path:
            return root / ".moorage"

        @property
        def certs_dir(self) -> Path:
            return root / self.certs.dir

        @property
        def registry_data(self) -> Path:
            return root / self.registry.data

    return Elsewhere(**sections)


def registry_project(root: Path, **registry: Any) -> Settings:
    """One whose registry has a container, ports and a name (localhost) of its own.

    Engines push to and pull from localhost without trust set up beforehand.
    """
    if not (root / "serve_hostname").exists():
        (root / "serve_hostname").symlink_to(ROOT / "serve_hostname")
    port, metrics_port = free_port(), free_port()
    chosen = RegistrySettings(
        host="localhost",
        port=port,
        metrics_port=metrics_port,
        container=f"moorage-registry-test-{port}",
    )
    return project(root, registry=replace(chosen, **registry))


def certs(root: Path, **certs: Any) -> Settings:
    return project(root, certs=CertsSettings(**certs))


def checkout(folder: Path) -> Path:
    """A copy, in ``folder``, of what `inv` needs, so that invoke.yaml can be broken."""
    for name in ("moorage", "agent"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, folder / name)
    return folder
