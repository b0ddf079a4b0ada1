"""`python packaging/man_pages.py FOLDER`: l2overlay.1 and a page for each verb, from the parsers of the command line."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from argparse_manpage.manpage import Manpage

from l2overlay import __version__
from l2overlay.cli.main import VERBS, VerbParser, load_verb, top_parser, verb_parser
from l2overlay.errors import ExitCode

MEANINGS = {
    ExitCode.OK: "Success.",
    ExitCode.RUNTIME: "Failure while running; the last line says what and where.",
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.NO_DAEMON: "No node answers.",
    ExitCode.DEGRADED: "status: something is degraded. doctor: something was found.",
    ExitCode.PERMISSION: "More privilege is needed; the line names the command.",
    ExitCode.CONFIGURATION: "peers.toml or a key cannot be used; there is a line for every mistake.",
}
FILES = {
    "/etc/l2overlay/SEGMENT.toml": "The segment's peers.toml, the same on every host.",
    "/etc/l2overlay/SEGMENT.key": "This host's private key, mode 0600.",
    "/run/l2overlay/SEGMENT/": "The run directory: lock, control socket, and what undoes the changes on this host.",
}


def pages() -> Iterator[tuple[str, str]]:
    """Each page's file name and text."""
    names = [f"l2overlay-{name}" for name in VERBS]
    yield "l2overlay.1", page(top_parser(), "joins hosts into one layer-2 segment", [], names)
    for name, verb in VERBS.items():
        module = load_verb(name)
        parser = verb_parser(name, module)
        parser.prog = f"l2overlay {name}"
        text = page(parser, verb.help, module.EXAMPLES, ["l2overlay"])
        yield f"l2overlay-{name}.1", text


def page(parser: VerbParser, short: str, examples: Sequence[str], related: Sequence[str]) -> str:
    """The page of one parser, in roff."""
    parser.epilog = None
    for child in parser.children().values():
        child.epilog = None
    made = Manpage(parser, {"project_name": "l2overlay", "version": __version__, "manual_title": "l2overlay"})
    made.description = short
    title = parser.prog.replace(" ", "-")
    if not examples:
        made.add_section("verbs", "<", _definitions({name: verb.help for name, verb in VERBS.items()}))
        made.add_section("files", "<", _definitions(FILES))
    else:
        made.add_section("examples", "<", ".nf\n" + "\n".join(map(_escape, examples)) + "\n.fi")
    made.add_section("exit status", "<", _definitions({str(int(c)): MEANINGS[c] for c in ExitCode}))
    made.add_section("see also", "<", ", ".join(f".BR {name} (1)" for name in related).replace(", ", ",\n"))
    text = str(made).replace(f".TH {_upper(parser.prog)} ", f".TH {_upper(title)} ", 1)
    text = text.replace(f".SH NAME\n{_escape(parser.prog)} ", f".SH NAME\n{_escape(title)} ", 1)
    return re.sub(r"^(\./|')", r"\\&\1", text, flags=re.MULTILINE)  # would be taken for a request


def _upper(text: str) -> str:
    return _escape(text.upper())


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("-", "\\-").replace("'", "\\(aq")


def _definitions(entries: dict[str, str]) -> str:
    return "\n".join(f".TP\n.B {_escape(name)}\n{_escape(text)}" for name, text in entries.items())


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
