"""The command line: `l2overlay VERB ...`, one module of this package per verb.

Order of a call: options before the verb, the verb's name, its module (imported only now, so that `--help`
stays quick), its options, its `run`. Whatever a verb raises ends here: an `L2OverlayError` as one line on stderr
and its exit code, an interrupt or a closed pipe in silence, anything else as one line that calls itself a bug
(`-v` shows the traceback).

A verb module has `add_arguments(parser)` and `run(args) -> int`; `-v` is taken by every parser. Only this package
prints.
"""

import argparse
import contextlib
import importlib
import importlib.util
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
    """A line of `l2overlay --help`, and where the rest of it is."""

    module: str
    help: str
    actions: tuple[str, ...] = ()
    """Words that may follow the verb (`peers add`); the first is meant when none of them does."""


VERBS: dict[str, Verb] = {
    "init": Verb("l2overlay.cli.init", "make this host's key and a peers.toml to start from"),
    "keygen": Verb("l2overlay.cli.keygen", "make a private key"),
    "pubkey": Verb("l2overlay.cli.pubkey", "show the public key of a private one"),
    "check": Verb("l2overlay.cli.check", "find every mistake in a peers.toml"),
    "schema": Verb("l2overlay.cli.schema", "print the JSON Schema of peers.toml"),
    "join": Verb("l2overlay.cli.join", "run this host's node: join the segment until stopped"),
    "attach": Verb("l2overlay.cli.attach", "connect a VM, a container or an interface to the segment"),
    "install-service": Verb("l2overlay.cli.install_service", "let systemd run this host's node from now on"),
    "status": Verb("l2overlay.cli.status", "what the node on this host does"),
    "peers": Verb("l2overlay.cli.peers", "list the peers; add or remove one", ("list", "add", "remove")),
    "fdb": Verb("l2overlay.cli.fdb", "which station is where"),
    "events": Verb("l2overlay.cli.events", "what happened; -f follows"),
    "reload": Verb("l2overlay.cli.reload", "make the node read its peers.toml again"),
    "leave": Verb("l2overlay.cli.leave", "make the node leave the segment"),
    "cleanup": Verb("l2overlay.cli.cleanup", "remove what a killed node left behind"),
    "filter": Verb(
        "l2overlay.cli.filter",
        "show, check or explain the filter's rules",
        ("show", "check", "explain", "reload"),
    ),
    "doctor": Verb("l2overlay.cli.doctor", "find out why frames do not arrive"),
    "demo": Verb("l2overlay.cli.demo", "three hosts as namespaces, one segment, guests that talk"),
}


class VerbModule(Protocol):
    """What a module of this package offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class VerbParser(argparse.ArgumentParser):
    """argparse that takes `-v`, knows no abbreviations, and raises UsageError with a suggestion."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
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
            self.error(f"{value!r} is not known here{hint}")

    def option_strings(self) -> Iterator[str]:
        """All options of this parser and of those below it."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    yield from cast(VerbParser, child).option_strings()


class ShowVersion(argparse.Action):
    """`--version`: looks the version up, which takes longer than most verbs, only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from l2overlay import __version__

        print(f"l2overlay {__version__}")
        parser.exit()


def main(argv: list[str] | None = None, *, interruptible: bool = False) -> int:
    """The command line: runs one verb and returns the exit code. Nothing escapes. With `interruptible` SIGINT becomes
    an exception here, where it is caught."""
    arguments = sys.argv[1:] if argv is None else argv
    verbose = any(a in ("-v", "--verbose") for a in arguments)
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _run(arguments)
        sys.stdout.flush()  # here, where a closed pipe is still ours to catch
    except SystemExit as stop:  # argparse after --help and --version
        return stop.code if isinstance(stop.code, int) else ExitCode.OK
    except BrokenPipeError:
        _discard_stdout()
        return ExitCode.RUNTIME
    except BaseException as error:  # noqa: BLE001 - the last line of defence decides what a person sees
        return _report(error, verbose)
    return code


def _run(arguments: Sequence[str]) -> int:
    place = next((i for i, a in enumerate(arguments) if not a.startswith("-")), len(arguments))
    top = _top_parser()
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
    verb = VERBS.get(name)
    if verb is None:
        raise UsageError(
            f"l2overlay: no verb {name!r}{suggestion(name, _present_verbs())}; see 'l2overlay --help'"
        )
    module = _load(name, verb)
    parser = VerbParser(prog=f"l2overlay {name}", description=f"{verb.help[0].upper()}{verb.help[1:]}.")
    parser.set_defaults(verbose=getattr(top_args, "verbose", False))
    module.add_arguments(parser)
    args, unknown = parser.parse_known_args(with_action(rest, verb.actions))
    _refuse_unknown(parser, unknown, verb.actions)
    return int(module.run(args))


def with_action(rest: Sequence[str], actions: tuple[str, ...]) -> list[str]:
    """`peers`, `peers lan` and `peers --json` mean `peers list ...`."""
    if not actions or (rest and (rest[0] in actions or rest[0] in ("-h", "--help"))):
        return list(rest)
    return [actions[0], *rest]


def _load(name: str, verb: Verb) -> VerbModule:
    try:
        return cast(VerbModule, importlib.import_module(verb.module))
    except ModuleNotFoundError as error:
        if error.name == verb.module:
            raise UsageError(
                f"l2overlay: this version has no {name!r} yet; see 'l2overlay --help'"
            ) from error
        raise L2OverlayError(
            f"the Python package {error.name!r} is missing; install l2overlay with all that it needs (pip install .)"
        ) from error


def _present_verbs() -> list[str]:
    """Looks for the modules' files without importing them."""
    return [name for name, verb in VERBS.items() if importlib.util.find_spec(verb.module)]


def _top_parser() -> VerbParser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {VERBS[name].help}" for name in _present_verbs())
    parser = VerbParser(
        prog="l2overlay",
        usage="l2overlay [-h] [--version] [-v] VERB ...",
        description="Join VMs, containers and LANs on different hosts into one encrypted layer-2 segment.",
        epilog=f"verbs:\n{verbs}\n\n'l2overlay VERB --help' tells more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version")
    return parser


def _refuse_unknown(parser: VerbParser, unknown: Sequence[str], actions: Sequence[str] = ()) -> None:
    if unknown:
        option = unknown[0].partition("=")[0]
        known = [*parser.option_strings(), *actions]
        what = "option" if option.startswith("-") else "argument"
        parser.error(f"no {what} {option!r} here{suggestion(option, known)}")


def _report(error: BaseException, verbose: bool) -> int:
    """Say what ended the program, and return the exit code for it."""
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
    """A trio nursery wraps what its tasks raise; a person wants what was inside."""
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
            named = str(error).startswith("l2overlay")  # argparse names verb and action too
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
    """Python flushes stdout at exit; let that go nowhere instead of into the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
