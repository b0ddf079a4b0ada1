"""The way from `l2overlay VERB ...` to the module of the verb, and the end of every call.

Order of a call: the options before the verb, the name of the verb, its module (imported only now, which keeps `--help`
quick), its options, its `run`. Every exception ends here. An `L2OverlayError` becomes one line on stderr and its exit code;
an interrupt or a closed pipe ends the program silently; anything else is reported as a bug (`-v` shows the traceback).

The module of a verb has `EXAMPLES` (command lines for its `--help`), `add_arguments(parser)` and `run(args) -> int`.
Every parser takes `-v`.
"""

import argparse
import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

from l2overlay.cli import output
from l2overlay.errors import ConfigError, ExitCode, L2OverlayError, UsageError
from l2overlay.suggestion import suggestion


@dataclass(frozen=True, slots=True)
class Verb:
    """What `l2overlay --help` says about a verb. The module of the verb has its name, with `_` for `-`."""

    help: str
    actions: tuple[str, ...] = ()
    """Words that may follow the verb (`peers add`). The first is the default."""


VERBS: dict[str, Verb] = {
    "init": Verb("make this host's key and a first peers.toml"),
    "keygen": Verb("make a private key"),
    "pubkey": Verb("show the public key of a private key"),
    "check": Verb("find every mistake in a peers.toml"),
    "schema": Verb("print the JSON Schema of peers.toml"),
    "join": Verb("run this host's node: join the segment until stopped"),
    "install-service": Verb("let systemd run this host's node from now on"),
    "status": Verb("show what the node on this host does"),
    "peers": Verb("list the peers; add or remove one", ("list", "add", "remove")),
    "fdb": Verb("show which station is behind which peer"),
    "events": Verb("show recent events; -f follows"),
    "reload": Verb("make the node read its peers.toml again"),
    "leave": Verb("make the node leave the segment"),
    "cleanup": Verb("remove what a killed node left behind"),
    "attach": Verb("let a VM, a container or a lab tool join the segment; without a tool, list them"),
    "detach": Verb("remove a namespace's link or a TAP that attach made"),
    "filter": Verb("show, check or explain the filter's rules", ("show", "check", "explain", "reload")),
    "doctor": Verb("find out why frames do not arrive"),
    "completion": Verb("print a completion script for bash, zsh or fish"),
    "demo": Verb("show three hosts as namespaces, joined by one segment"),
}


class VerbModule(Protocol):
    """What the module of a verb offers."""

    EXAMPLES: tuple[str, ...]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions, but leaves the lines of the examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class VerbParser(argparse.ArgumentParser):
    """An argparse parser that takes `-v`, accepts no abbreviations, and raises UsageError with a suggestion."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(*args, **kwargs)
        self.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="say more; show tracebacks",
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see '{self.prog} --help'")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(c) for c in action.choices]
            hint = suggestion(str(value), choices) or f" (choose from {', '.join(choices)})"
            self.error(f"unknown value {value!r}{hint}")

    def children(self) -> "dict[str, VerbParser]":
        """The parsers of the actions, by name."""
        return {
            name: cast(VerbParser, child)
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, child in action.choices.items()
        }

    def option_strings(self) -> Iterator[str]:
        """All options of this parser and of its children."""
        for action in self._actions:
            yield from action.option_strings
        for child in self.children().values():
            yield from child.option_strings()

    def show_examples(self, examples: Sequence[str]) -> None:
        """Put the examples that begin with this command below its help; each child gets those of its own."""
        own = [line for line in examples if f"{line} ".startswith(f"{self.prog} ")]
        self.epilog = "\n  ".join(["examples:", *own])
        for child in self.children().values():
            child.show_examples(examples)


class ShowVersion(argparse.Action):
    """`--version`. Looks the version up only when it is asked for, because that takes longer than most verbs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from l2overlay import __version__

        print(f"l2overlay {__version__}")
        parser.exit()


def main(argv: list[str] | None = None, *, interruptible: bool = False) -> int:
    """Run one verb and return the exit code; no exception escapes. With `interruptible`, SIGINT raises an exception here,
    where it is caught."""
    arguments = sys.argv[1:] if argv is None else argv
    verbose = any(a in ("-v", "--verbose") for a in arguments)
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _run(arguments)
        sys.stdout.flush()  # here, where a closed pipe can still be caught
    except SystemExit as stop:  # argparse raises it after --help and --version
        return stop.code if isinstance(stop.code, int) else ExitCode.OK
    except BrokenPipeError:
        _discard_stdout()
        return ExitCode.RUNTIME
    except BaseException as error:  # noqa: BLE001 - the outermost handler decides what a person sees
        return _report(error, verbose)
    return code


def _run(arguments: Sequence[str]) -> int:
    place = next((i for i, a in enumerate(arguments) if not a.startswith("-")), len(arguments))
    top = top_parser()
    args, unknown = top.parse_known_args(arguments[:place])
    _refuse_unknown(top, unknown)
    if place == len(arguments):
        sys.stderr.write(top.format_help())
        return ExitCode.USAGE
    name = arguments[place]
    if name == "help":
        return _run([*arguments[place + 1 :][:1], "--help"])
    return _run_verb(name, arguments[place + 1 :], args)


def _run_verb(name: str, rest: Sequence[str], top_args: argparse.Namespace) -> int:
    if name not in VERBS:
        raise UsageError(f"l2overlay: no verb {name!r}{suggestion(name, VERBS)}; see 'l2overlay --help'")
    actions = VERBS[name].actions
    module = load_verb(name)
    parser = verb_parser(name, module)
    parser.set_defaults(verbose=getattr(top_args, "verbose", False))
    args, unknown = parser.parse_known_args(with_action(rest, actions))
    _refuse_unknown(parser, unknown, actions)
    return int(module.run(args))


def verb_parser(name: str, module: VerbModule) -> VerbParser:
    """The parser of a verb, with everything that its help shows."""
    text = VERBS[name].help
    parser = VerbParser(prog=f"l2overlay {name}", description=f"{text[0].upper()}{text[1:]}.")
    module.add_arguments(parser)
    parser.show_examples(module.EXAMPLES)
    return parser


def with_action(rest: Sequence[str], actions: tuple[str, ...]) -> list[str]:
    """Insert the default action: `peers`, `peers lan` and `peers --json` mean `peers list ...`."""
    if not actions or (rest and (rest[0] in actions or rest[0] in ("-h", "--help"))):
        return list(rest)
    return [actions[0], *rest]


def load_verb(name: str) -> VerbModule:
    """Import the module of a verb. Raises L2OverlayError if a package that it needs is missing."""
    try:
        return cast(VerbModule, importlib.import_module(f"l2overlay.cli.{name.replace('-', '_')}"))
    except ModuleNotFoundError as error:
        raise L2OverlayError(
            f"the Python package {error.name!r} is missing; install l2overlay with its dependencies (pip install .)"
        ) from error


def top_parser() -> VerbParser:
    """The parser of the options before the verb; its help lists the verbs."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {VERBS[name].help}" for name in VERBS)
    parser = VerbParser(
        prog="l2overlay",
        usage="l2overlay [-h] [--version] [-v] VERB ...",
        description="Join VMs, containers and LANs on different hosts into one encrypted layer-2 segment.",
        epilog=f"verbs:\n{verbs}\n\n'l2overlay VERB --help' describes a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version")
    return parser


def _refuse_unknown(parser: VerbParser, unknown: Sequence[str], actions: Sequence[str] = ()) -> None:
    if unknown:
        option = unknown[0].partition("=")[0]
        known = [*parser.option_strings(), *actions]
        what = "option" if option.startswith("-") else "argument"
        parser.error(f"unknown {what} {option!r}{suggestion(option, known)}")


def _report(error: BaseException, verbose: bool) -> int:
    """Print what ended the program, and return the exit code for it."""
    if verbose:
        traceback.print_exception(error)
    leaves = list(_leaves(error))
    for leaf in leaves:
        for line in _lines_about(leaf):
            output.print_error(line)
    return next(
        (int(leaf.exit_code) for leaf in leaves if isinstance(leaf, L2OverlayError)), ExitCode.RUNTIME
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside exception groups: a trio nursery wraps what its tasks raise."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _lines_about(error: BaseException) -> list[str]:
    match error:
        case ConfigError():
            return error.lines()
        case UsageError():
            named = str(error).startswith("l2overlay")  # the parser's errors begin with the command
            return [str(error) if named else f"l2overlay: {error}"]
        case L2OverlayError():
            return [f"l2overlay: {error}"]
        case KeyboardInterrupt() | BrokenPipeError():
            return []
        case OSError(strerror=str() as reason):
            where = f"{error.filename}: " if error.filename else ""
            return [f"l2overlay: {where}{reason}"]
        case _:
            text = " ".join(str(error).split())
            return [f"l2overlay: {type(error).__name__}: {text} (this is a bug; -v shows where)"]


def _discard_stdout() -> None:
    """Redirect stdout to /dev/null, because Python flushes it at exit and the pipe is closed."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
