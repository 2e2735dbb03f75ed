"""Completion, by a real shell: tasks, options and values, after ``inv`` and after ``./run inv``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import tasks
from moorage.configuration.parsing import parse
from moorage.program import completion
from moorage.settings import Settings

ROOT = Path(__file__).resolve().parents[3]

KUBECONFIG = """
contexts:
- {name: production, context: {cluster: a, user: b}}
- {name: staging, context: {cluster: a, user: b}}
"""

# What bash does on the tab key, for a line of which the cursor stands at the end.
PRESSED = """
compopt() { :; }
eval "$({program} --print-completion-script=bash)"
COMP_LINE=$1 COMP_POINT=${{#1}}
_moorage
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def known(tmp_path: Path) -> Settings:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    return parse(
        {
            "nodes": {"hosts": "node1,node2,other", "groups": {"web": "node[1-2]"}},
            "kubernetes": {"kubeconfig": str(tmp_path / "kubeconfig")},
        }
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["=nodes.t"], ["nodes.trust"]),
        (["=--ver"], ["--version"]),
        (["=--dry", "nodes.trust"], ["--dry-run"]),
        (["=--can", "nodes.trust"], ["--canary="]),
        (["=--hosts=no", "nodes.trust"], ["--hosts=node1", "--hosts=node2"]),
        (["=--hosts=node1,n", "nodes.trust"], ["--hosts=node1,node2"]),
        (["=--hosts=@", "nodes.trust"], ["--hosts=@web"]),
        (["=o", "nodes.trust", "--hosts"], ["other"]),
        (["=--context=", "k8s.nodes"], ["--context=production", "--context=staging"]),
        (["=--workload=d", "k8s.deploy"], ["--workload=deployment", "--workload=daemonset"]),
        (["=--parts=do", "nodes.trust"], ["--parts=docker"]),
        (["=port-t", "explain"], ["port-taken"]),
        (["=up", "explain"], ["upgrade-not-taken"]),
        (["=doc", "explain", "port-taken"], ["doctor"]),
        (["=--report=x", "nodes.trust"], []),
        (["=registry.s", "nodes.trust", "--dry-run"], ["registry.status"]),
    ],
)
def test_a_word_becomes_what_may_stand_there(
    known: Settings, line: list[str], expected: list[str]
) -> None:
    assert completion.candidates(tasks.namespace, line, lambda: known) == expected


def test_what_cannot_be_read_completes_to_nothing(tmp_path: Path) -> None:
    settings = parse({"kubernetes": {"kubeconfig": str(tmp_path / "nothing")}})
    line = ["=--context=", "k8s.nodes"]
    assert completion.candidates(tasks.namespace, line, lambda: settings) == []


def pressed(program: str, line: str) -> list[str]:
    script = PRESSED.replace("{program}", program).replace("{{", "{").replace("}}", "}")
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("program", ["./run inv", ".venv/bin/inv"])
def test_bash_completes_tasks_options_and_values(program: str) -> None:
    assert pressed(program, f"{program} registry.stat") == ["registry.status"]
    assert pressed(program, f"{program} nodes.trust --dry") == ["--dry-run"]
    # The line breaks at `=`: what bash puts in is what follows it.
    assert pressed(program, f"{program} k8s.deploy --workload=dae") == ["daemonset"]
    assert "up" in pressed(program, f"{program} ")


def test_run_with_another_command_is_left_to_the_shell() -> None:
    assert pressed("./run inv", "./run nox -s un") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_its_shell_can_read(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    (tmp_path / "script").write_text(completion.SCRIPTS[shell])
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
