"""`l2overlay completion SHELL`: a script for bash, zsh or fish that completes verbs, options, segments and peers.

The scripts know nothing themselves. They call `l2overlay completion words WORD ...`, which reads the same parsers as the
command line and, for names, the files and the nodes of this host. So a new verb needs no script.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from l2overlay.cli import main, output
from l2overlay.cli.target import known_segments, segment_run_dir
from l2overlay.errors import L2OverlayError

EXAMPLES = (
    "l2overlay completion bash > /etc/bash_completion.d/l2overlay",
    "l2overlay completion zsh > /usr/share/zsh/vendor-completions/_l2overlay",
    "l2overlay completion fish > /etc/fish/completions/l2overlay.fish",
)

BASH = """\
_l2overlay() {
    local IFS=$'\\n'
    COMPREPLY=($(l2overlay completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _l2overlay l2overlay
"""
ZSH = """\
#compdef l2overlay
_l2overlay() {
    local -a found
    found=("${(@f)$(l2overlay completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -Q -a found; else _files; fi
}
if [[ "$funcstack[1]" = _l2overlay ]]; then _l2overlay "$@"; else compdef _l2overlay l2overlay; fi
"""
FISH = """\
function __l2overlay_words
    set -l words (commandline -opc) (commandline -ct)
    l2overlay completion words -- $words[2..-1] 2>/dev/null
end
complete -c l2overlay -a '(__l2overlay_words)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "shell", choices=[*SCRIPTS, "words"], help="the shell; `words` is what the scripts use"
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="with `words`: what was typed; the last is completed"
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print a script, or the words."""
    if args.shell != "words":
        if args.json:
            output.print_json("completion/1", {"script": SCRIPTS[args.shell]})
        else:
            print(SCRIPTS[args.shell], end="")
        return 0
    found = sorted(candidates(args.words or [""]))
    if args.json:
        output.print_json("completion/1", {"words": found})
    else:
        print(*found, sep="\n")
    return 0


def candidates(words: Sequence[str]) -> set[str]:
    """What the last word may become, after the words before it. Empty also where a file name belongs."""
    *before, typed = words
    return {found for found in _candidates(before, typed) if found.startswith(typed)}


def _candidates(before: Sequence[str], typed: str) -> Iterable[str]:
    verb = next((word for word in before if not word.startswith("-")), None)
    if verb is None:
        return main.top_parser().option_strings() if typed.startswith("-") else main.VERBS
    if verb not in main.VERBS:
        return ()
    rest = list(before[before.index(verb) + 1 :])
    parser = main.verb_parser(verb, main.load_verb(verb))
    children = parser.children()
    if not children:
        return _follows(parser, rest, typed)
    if rest and rest[0] in children:
        return _follows(children[rest[0]], rest[1:], typed)
    default = children[main.VERBS[verb].actions[0]]
    return [*_follows(default, rest, typed), *(() if rest else children)]


def _follows(parser: main.VerbParser, rest: Sequence[str], typed: str) -> Iterator[str]:
    """Options, or what the option before or the next positional argument takes."""
    options = {name: action for action in parser._actions for name in action.option_strings}
    if typed.startswith("-"):
        yield from options
        return
    asking = options.get(rest[-1]) if rest else None
    if asking is not None and asking.nargs != 0:
        yield from _values(asking, rest)
        return
    positional = [action for action in parser._actions if not action.option_strings]
    taken = sum(not word.startswith("-") for word in rest)
    yield from _values(positional[min(taken, len(positional) - 1)], rest) if positional else ()


def _values(action: argparse.Action, rest: Sequence[str]) -> Iterable[str]:
    if isinstance(action.choices, Sequence):
        return map(str, action.choices)
    source = SOURCES.get(action.dest)
    if source is None or action.type is Path:
        return ()
    with contextlib.suppress(L2OverlayError, OSError):
        return source(rest)
    return ()


def _segments(_: Sequence[str]) -> list[str]:
    return known_segments()


def _peers(rest: Sequence[str]) -> list[str]:
    """The names of the peers in the file that is named, or in all files in the default place."""
    from l2overlay import keys
    from l2overlay.config.read import load_config

    named = [name for name in known_segments() if name in rest]
    paths = [keys.CONFIGURATION_DIR / f"{name}.toml" for name in named or known_segments()]
    return [peer.name for path in paths if path.exists() for peer in load_config(path).peers]


def _stations(_: Sequence[str]) -> list[str]:
    """The MAC addresses that the nodes on this host know."""
    from l2overlay.control import client

    answers = [client.ask(segment_run_dir(name).socket, "fdb") for name in known_segments()]
    return [station["mac"] for answer in answers for station in answer["stations"]]


SOURCES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "segment": _segments,
    "file": _segments,
    "peer": _peers,
    "station": _stations,
}
"""Where the values of an argument come from, by its `dest`."""
