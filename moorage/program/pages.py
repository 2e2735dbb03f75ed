"""Help as pages: what there is, grouped, and what each task takes. Pure: text in, text out.

Invoke's own help lists its twenty core options and the tasks' options in one alphabet; these pages
show what a user of Moorage may type. :mod:`moorage.program.edges` decides when to show which.
"""

from __future__ import annotations

import difflib
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from invoke.collection import Collection
    from invoke.parser.argument import Argument
    from invoke.parser.context import ParserContext
    from invoke.tasks import Task

# The overview's groups, in the order of a first hour: title -> tasks and namespaces.
GROUPS: dict[str, tuple[str, ...]] = {
    "Start here": ("up", "tutorial", "doctor", "explain", "support", "down"),
    "Settings": ("config",),
    "Nodes": ("nodes", "web", "monitoring"),
    "Registry": ("registry", "users", "certs", "upkeep"),
    "Images": ("image", "images"),
    "No network": ("bundle",),
    "Kubernetes": ("k8s",),
    "Lab: throw-away nodes": ("lab",),
}

# A task's options by what they are about; whatever stands in none is the task's own subject.
_NODES = ("hosts", "host", "inventory", "from_cluster", "selector", "limit", "exclude", "offline")
_SSH = ("learn_host_keys", "ask_sudo_password")
_CLUSTER = ("kubeconfig", "context", "namespace", "all")
_ROLLOUT = ("canary", "waves", "max_failures", "resume")
_OUTPUT = ("json", "json_lines", "report", "v")
WHAT = "What"
SECTIONS: dict[str, tuple[str, ...]] = {
    "Which nodes": _NODES,
    "Which cluster": _CLUSTER,
    WHAT: (),
    "SSH": _SSH,
    "Rollout": _ROLLOUT,
    "Output": _OUTPUT,
}

# What stands for the value of an option or a positional argument.
VALUES: dict[str, str] = {
    "at_once": "N",
    "authfile": "FILE",
    "from_manifests": "FILE",
    "names": "NAME ...",
    "platform": "OS/ARCH",
    "references": "LIST",
    "target": "NAME:TAG",
    "role": "ROLE",
    "repositories": "A,B/**",
    "expires": "90d",
    "agent_image": "IMAGE",
    "ca": "FILE",
    "canary": "N",
    "code": "CODE",
    "command": "'COMMAND'",
    "container": "NAME",
    "context": "NAME",
    "credentials": "FILE",
    "every": "SECONDS",
    "exclude": "HOSTS",
    "file": "FILE",
    "fingerprint": "SHA256",
    "grace": "DURATION",
    "grade": "GRADE",
    "host": "HOST",
    "hosts": "HOSTS",
    "image": "IMAGE",
    "images": "LIST",
    "insecure": "http",
    "inventory": "FILE",
    "keep": "N",
    "keep_aside": "DURATION",
    "kubeconfig": "FILE",
    "listen": "ADDRESS:PORT",
    "limit": "HOSTS",
    "login": "FILE",
    "max_failures": "N|SHARE",
    "max_unavailable": "N|SHARE",
    "mirror": "REGISTRIES",
    "name": "NAME",
    "namespace": "NAMES",
    "node": "NODE",
    "nodes": "NODES",
    "older_than": "DURATION",
    "parts": "PARTS",
    "passphrase_file": "FILE",
    "pod": "POD",
    "port": "PORT",
    "protect": "PATTERNS",
    "reference": "IMAGE",
    "replicas": "N",
    "report": "PATH",
    "repository": "REPOSITORY",
    "selector": "LABELS",
    "service_accounts": "NAMES",
    "since": "FILE",
    "snapshot": "ID",
    "source": "PLACE",
    "tail": "N",
    "timeout": "SECONDS",
    "to": "FOLDER",
    "upstreams": "UPSTREAM ...",
    "user": "NAME",
    "waves": "SHARES",
    "without": "NAMES",
    "workload": "KIND",
}

CORE = (
    ("TASK --help", "the task's options, with examples"),
    ("NAMESPACE", "the tasks of a namespace, such as: nodes"),
    ("--list", "all tasks, a line per task (--list-format=json for programs)"),
    ("-f FILE", "settings from FILE, over those of invoke.yaml"),
    ("--profile=NAME", "another registry: settings from invoke.NAME.yaml, state of its own"),
    ("--print-completion-script=SHELL", "completion for bash, zsh or fish"),
    ("--version", "Moorage's version"),
)
_INDENT = "  "


class Words(NamedTuple):
    """A task's docstring, taken apart."""

    summary: str
    text: str
    examples: tuple[str, ...]


def width() -> int:
    """Columns of the terminal, at most 100: longer lines are hard to read."""
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def words_of(task: Task[Any]) -> Words:
    """The first line of a task's docstring, its further text, and its examples."""
    lines = (inspect.getdoc(task) or "").splitlines()
    examples = tuple(
        line.strip().removeprefix("Example: ") for line in lines if line.startswith("Example: ")
    )
    text = [line for line in lines if not line.startswith("Example: ")]
    return Words(text[0] if text else "", "\n".join(text[1:]).strip(), examples)


def overview(collection: Collection, version: str, width: int) -> str:
    """All tasks, grouped."""
    lines = [
        f"Moorage {version}: a private TLS registry, and every node that trusts it and pulls from",
        "it.",
        "",
        "Usage: inv TASK [OPTIONS] [TASK ...]",
    ]
    for title, names in GROUPS.items():
        rows = [row for name in names for row in _rows(collection, name)]
        lines += ["", title, *columns(rows, width)]
    lines += ["", "After inv", *columns(CORE, width)]
    return "\n".join(lines)


def namespace(collection: Collection, name: str, width: int) -> str:
    """The tasks of one namespace."""
    inner = collection.collections[name]
    title = next((title for title, names in GROUPS.items() if name in names), name)
    first = next(iter(inner.task_names))
    lines = [title, *columns(_rows(collection, name), width)]
    return "\n".join([*lines, "", f"Options and examples: inv {name}.{first} --help"])


def task_page(name: str, task: Task[Any], context: ParserContext, width: int) -> str:
    """One task: usage, text, options by group, examples."""
    said = words_of(task)
    given = "".join(f" {_positional(one)}" for one in context.positional_args)
    lines = [f"Usage: inv {name}{given} [OPTIONS]", "", *textwrap.wrap(said.summary, width)]
    if said.text:
        lines += ["", *_paragraphs(said.text, width)]
    if context.positional_args:
        rows = [(value(one), one.help or "") for one in context.positional_args]
        lines += ["", "Arguments", *columns(rows, width)]
    for title, options in sections(context):
        rows = [row(one) for one in options]
        lines += ["", title, *columns(rows, width)]
    lines += ["", "Examples", *(f"{_INDENT}{example}" for example in said.examples)]
    return "\n".join(lines)


def sections(context: ParserContext) -> Iterator[tuple[str, list[Argument]]]:
    """The options of a task by group, without those that are positional."""
    options = list(dict.fromkeys(one for one in context.args.values() if not one.positional))
    named = {name: title for title, names in SECTIONS.items() for name in names}
    if not any(_attribute(one) == "hosts" for one in options):
        # Without nodes to choose, a selector and the like choose what the cluster holds.
        named = {
            name: "Which cluster" if title == "Which nodes" else title
            for name, title in named.items()
        }
    for title in SECTIONS:
        found = [one for one in options if named.get(_attribute(one), WHAT) == title]
        if found:
            yield title, found


def value(argument: Argument) -> str:
    """What stands for the value of an argument, such as HOSTS."""
    return VALUES.get(_attribute(argument), "VALUE")


def row(argument: Argument) -> tuple[str, str]:
    """An option as it is typed, and its text."""
    return _spelt(argument), _described(argument)


def nearest(word: str, known: Iterable[str]) -> str:
    """The name that was most likely meant, or nothing."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    ends = [name for name in names if name.rpartition(".")[2] == word]
    return ends[0] if len(ends) == 1 else ""


def _rows(collection: Collection, name: str) -> list[tuple[str, str]]:
    if name in collection.collections:
        inner = collection.collections[name]
        return [(f"{name}.{one}", words_of(inner[one]).summary) for one in inner.task_names]
    return [(name, words_of(collection[name]).summary)]


def _attribute(argument: Argument) -> str:
    return str(argument.attr_name or argument.name).replace("-", "_")


def _positional(argument: Argument) -> str:
    optional = argument.default is not None
    return f"[{value(argument)}]" if optional else value(argument)


def _spelt(argument: Argument) -> str:
    if len(_attribute(argument)) == 1:
        return f"-{_attribute(argument)}"
    flag = f"--{_attribute(argument).replace('_', '-')}"
    return f"{flag}={value(argument)}" if argument.takes_value else flag


def _described(argument: Argument) -> str:
    text = argument.help or ""
    default = argument.default
    if not argument.takes_value or not default:
        return text
    return f"{text} (default: {default})"


def columns(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Two columns; a name too long for its column stands on a line of its own."""
    column = min(max((len(name) for name, _ in rows), default=0), 26)
    start = f"{_INDENT}{'':{column}}  "
    lines: list[str] = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(width - len(start), 20)) or [""]
        if len(name) > column:
            lines += [f"{_INDENT}{name}", *(f"{start}{line}" for line in wrapped)]
            continue
        lines.append(f"{_INDENT}{name:{column}}  {wrapped[0]}".rstrip())
        lines += [f"{start}{line}" for line in wrapped[1:]]
    return lines


def _paragraphs(text: str, width: int) -> list[str]:
    blocks = [" ".join(block.split()) for block in text.split("\n\n")]
    wrapped = [textwrap.wrap(block, width) for block in blocks]
    return [
        line for index, block in enumerate(wrapped) for line in (["", *block] if index else block)
    ]


def named(words: Sequence[str], tasks: Mapping[str, Any], namespaces: Iterable[str]) -> list[str]:
    """The tasks and namespaces that a command line names, in its order, each once."""
    known = {*tasks, *namespaces}
    spelt = (word.replace("_", "-") for word in words)
    return list(dict.fromkeys(word for word in spelt if word in known))
