"""`gradient completion`: the scripts for the shells, and the words that they offer."""

from typing import Annotated

from gradient.cli import COMMANDS, GROUPS, _out, load
from gradient.cli._params import Argument, Option, parameters
from gradient.cli._session import Session
from gradient.errors import GradientError, InvalidInputError

_BASH = """\
# Completion of gradient for bash. Put into ~/.bashrc: eval "$(gradient completion bash)"
_gradient_completion() {
    local line=${COMP_LINE:0:COMP_POINT} words word
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <("${words[0]}" completion words -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _gradient_completion gradient
"""

_ZSH = """\
#compdef gradient
# Completion of gradient for zsh. Put into ~/.zshrc, after compinit: eval "$(gradient completion zsh)"
_gradient() {
    local -a offered
    offered=("${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$offered" ]]; then
        compadd -a offered
    else
        _files
    fi
}
compdef _gradient gradient
"""

_FISH = """\
# Completion of gradient for fish. Put into ~/.config/fish/config.fish: gradient completion fish | source
function __gradient_complete
    set -l tokens (commandline -opc) (commandline -ct)
    $tokens[1] completion words -- $tokens[2..-1] 2>/dev/null
end
complete -c gradient -a "(__gradient_complete)"
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

# Where arguments are refs.
_TAKE_REFS = {"resume", "fork", "log", "show", "diff", "branch", "checkout", "tag"}


def completion(
    _session: Session,
    shell: Annotated[str, Argument("bash|zsh|fish", "The shell")],
    words: Annotated[list[str] | None, Argument("", "", hidden=True)] = None,
) -> None:
    """Complete on the command line.

    The script's first line says where it belongs. It offers commands, options, branches and tags.
    """
    if shell == "words":
        offered = candidates(words or [""])
        if offered:
            _out.data("\n".join(offered))
    elif shell in SCRIPTS and not words:
        _out.data(SCRIPTS[shell])
    else:
        hint = "one of: " + ", ".join(SCRIPTS)
        raise InvalidInputError(f"no completion for {_out.one_line(shell)}", code="usage", hint=hint)


def candidates(words: list[str]) -> list[str]:
    """Return what may stand in the place of the last word, given those before it; the program's name left out."""
    *before, last = words
    if "--" in before:
        return []
    # Options before the command, and the folder and repository that they mean, stay as they are.
    while before and before[0].startswith("-"):
        before = before[2:] if before[0] in ("-C", "--repo") else before[1:]
    if not before:
        offered = ["-C", "--repo", *dict.fromkeys(name.split()[0] for name in COMMANDS)]
    elif before[0] in GROUPS and len(before) == 1:
        offered = [name.split()[1] for name in COMMANDS if name.startswith(before[0] + " ")]
    else:
        name = before[0] if before[0] in COMMANDS else " ".join(before[:2])
        if name not in COMMANDS:
            return []
        if last.startswith("-"):
            offered = _options(name)
        elif name == "completion":
            offered = list(SCRIPTS)
        else:
            offered = _refs() if name in _TAKE_REFS else []
    # Options are offered to those who began one.
    return sorted(word for word in offered if word.startswith(last) and (last or not word.startswith("-")))


def _options(name: str) -> list[str]:
    declared = [one.declared for one in parameters(load(COMMANDS[name]))]
    return [option for one in declared if isinstance(one, Option) for option in one.names]


def _refs() -> list[str]:
    from gradient import workspace

    try:
        with workspace.open_repo() as repo:
            return [*repo.branches(), *repo.tags(), "HEAD", "latest"]
    except (GradientError, OSError):
        # A Tab key is no place for errors.
        return []
