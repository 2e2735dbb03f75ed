"""Completion in a shell: tasks, options, and the values that are known here without asking anyone.

The scripts pass the word under the cursor first, behind ``=`` so that an empty word stays one,
then the words before it. What comes back is a line per whole word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.configuration.profiles import DEFAULT, there
from moorage.errors import MoorageError
from moorage.output.typed import OPTION

if TYPE_CHECKING:
    from invoke.collection import Collection
    from invoke.parser.context import ParserContext

    from moorage.settings import Settings

_HOSTS = frozenset(("hosts", "host", "limit", "exclude"))

BASH = """\
_moorage() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \\t\\n'
    local current=${line##*[[:space:]]}
    local -a words=($line)
    local -a program=("${words[0]}")
    [ -n "$current" ] && unset "words[${#words[@]}-1]"
    if [ "${program[0]##*/}" = run ]; then
        [ "${words[1]}" = inv ] || return
        program+=(inv)
    fi
    local before=("${words[@]:${#program[@]}}")
    IFS=$'\\n'
    COMPREPLY=($("${program[@]}" --complete -- "=$current" "${before[@]}" 2>/dev/null))
    local kept=${current%"${current##*[=:]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    case ${COMPREPLY[0]} in *[=,@]) compopt -o nospace 2>/dev/null ;; esac
}
complete -o default -F _moorage inv run
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH
FISH = """\
function __moorage
    set -l words (commandline -opc)
    set -l program $words[1]
    set -l rest $words[2..]
    if test (basename $program) = run
        test "$rest[1]" = inv; or return
        set program $program inv
        set rest $rest[2..]
    end
    $program --complete -- "="(commandline -ct) $rest 2>/dev/null
end
complete -c inv -f -a '(__moorage)'
complete -c run -f -a '(__moorage)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def candidates(
    collection: Collection, line: Sequence[str], settings: Callable[[], Settings]
) -> list[str]:
    """Whole words that the word under the cursor can become.

    ``line``: that word behind ``=``, then the words before it.
    """
    current = line[0].removeprefix("=") if line else ""
    contexts = {str(one.name): one for one in collection.to_contexts()}
    context = next((contexts[word] for word in reversed(line[1:]) if word in contexts), None)
    before = line[-1] if len(line) > 1 else ""
    if current.startswith(f"{OPTION}=") or before == OPTION:
        typed = current.removeprefix(f"{OPTION}=")
        named = [name for name in _profiles(settings) if name.startswith(typed)]
        return [f"{current.removesuffix(typed)}{name}" for name in named]
    if context is not None and "=" in current and current.startswith("--"):
        flag, _, typed = current.partition("=")
        return [f"{flag}={one}" for one in _values(context, flag, typed, settings)]
    if context is not None and _takes_value(context, before):
        return _values(context, before, current, settings)
    if current.startswith("-"):
        flags = (
            _flags(context)
            if context is not None
            else ("--help", "--list", f"{OPTION}=", "--version")
        )
        return [flag for flag in flags if flag.startswith(current)]
    if context is not None and before == context.name and context.positional_args:
        word = _values(context, str(context.positional_args[0].name), current, settings)
        if word:
            return word
    return [name for name in contexts if name.startswith(current)]


def _takes_value(context: ParserContext, flag: str) -> bool:
    return flag in context.flags and bool(context.flags[flag].takes_value)


def _flags(context: ParserContext) -> list[str]:
    names = [flag for flag in context.flag_names() if flag.startswith("--")]
    whole = [f"{name}=" if _takes_value(context, name) else name for name in names]
    return [*whole, f"{OPTION}=", "--help"]


def _profiles(settings: Callable[[], Settings]) -> list[str]:
    try:
        return [*there(settings().root), DEFAULT]
    except (MoorageError, OSError):
        return []


def _values(
    context: ParserContext, flag: str, typed: str, settings: Callable[[], Settings]
) -> list[str]:
    """The values of an option that begin with what is typed; of a list, its last item counts."""
    name = flag.removeprefix("--").replace("-", "_")
    try:
        known = _known(name, settings)
    except (MoorageError, OSError):
        return []
    done, comma, last = typed.rpartition(",")
    given = done.split(",")
    return [f"{done}{comma}{one}" for one in known if one.startswith(last) and one not in given]


def _known(name: str, settings: Callable[[], Settings]) -> list[str]:
    if name in _HOSTS:
        return _hosts(settings())
    if name == "context":
        return _contexts(settings())
    if name == "workload":
        from moorage.cluster.api.manifests import WORKLOADS

        return list(WORKLOADS)
    if name == "parts":
        from agent.wire.plan import PARTS

        return sorted(PARTS)
    if name == "code":
        from moorage.explanations import explanations

        return list(explanations())
    return ["http"] if name == "insecure" else []


def _hosts(settings: Settings) -> list[str]:
    """Nodes of the settings, those with an agent that stays, the lab's; then the groups."""
    from moorage.pki.roster import Roster

    residents = Roster(settings).residents()
    nodes = [*settings.nodes.hosts, *(one.word(host) for host, one in residents.items())]
    groups = [f"@{group}" for group in settings.nodes.groups]
    return list(dict.fromkeys([*nodes, *groups]))


def _contexts(settings: Settings) -> list[str]:
    import yaml

    from moorage.cluster.login.access import kubeconfig_files

    files, _ = kubeconfig_files(settings)
    documents = (yaml.safe_load(file.read_bytes()) for file in files if _is_file(file))
    return [
        str(entry["name"])
        for document in documents
        if isinstance(document, dict)
        for entry in _entries(document.get("contexts"))
    ]


def _is_file(path: Path) -> bool:
    return path.is_file()


def _entries(value: object) -> Iterable[dict[str, object]]:
    found = value if isinstance(value, list) else []
    return [one for one in found if isinstance(one, dict) and "name" in one]
