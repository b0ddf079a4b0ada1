"""`l2overlay detach KIND NAME`: removes what `attach netns NAME`, `attach tap NAME` or `--apply` made, and nothing else.

It finds it by the alias of the link, so it needs no running node. A namespace that `attach --create` made goes too, unless
a process or another link is in it.
"""

import argparse
from typing import TYPE_CHECKING

from l2overlay.attach.mark import KINDS
from l2overlay.attach.tools import TOOLS
from l2overlay.cli import output
from l2overlay.cli.attach import require_privileges
from l2overlay.cli.target import known_segments
from l2overlay.errors import ExitCode, NoDaemonError, UsageError
from l2overlay.suggestion import suggestion

if TYPE_CHECKING:
    from l2overlay.attach.plan import Attachment

EXAMPLES = (
    "l2overlay detach",
    "l2overlay detach netns web",
    "l2overlay detach tap vm1",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "kind", nargs="?", metavar="KIND", help="netns or tap; omit it to list what is attached"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="as it was given to attach")
    parser.add_argument("--segment", help="of this segment, if NAME is attached to several")
    parser.add_argument("--force", action="store_true", help="remove a TAP that a VM still uses")
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """List, or remove and tell."""
    from l2overlay.attach.observe import look
    from l2overlay.attach.plan import attachments, plan_detach
    from l2overlay.linux.apply import undo
    from l2overlay.linux.undo import Undo

    _check(args)
    host = look(args.name if args.kind == "netns" else None)
    _require_segment(args.segment, [a.mark.segment for a in attachments(host)])
    if args.kind is None:
        _list(attachments(host), args.segment, args.json)
        return ExitCode.OK
    plan = plan_detach(args.kind, args.name, args.segment, host, force=args.force)
    require_privileges("detach")
    undone = undo(Undo(plan.changes))
    if args.json:
        data = {"undone": list(undone.lines), "kept": plan.kept or None, "changed": bool(undone.lines)}
        output.print_json("detach/1", data)
        return ExitCode.OK
    print(*(f"undone: {line}" for line in undone.lines), *([plan.kept] if plan.kept else []), sep="\n")
    return ExitCode.OK


def _require_segment(segment: str | None, attached: list[str]) -> None:
    """A segment that is configured, or runs, or has something attached. Raises NoDaemonError for any other."""
    known = [*attached, *known_segments()] if segment is not None else []
    if segment is not None and segment not in known:
        raise NoDaemonError(f"this host knows no segment {segment}{suggestion(segment, known)}")


def _check(args: argparse.Namespace) -> None:
    if args.kind is None:
        return
    if args.kind not in KINDS:
        if args.kind in TOOLS:
            raise UsageError(
                f"l2overlay detach: attach changed nothing for {args.kind} but its TAP, if --apply made one "
                f"('detach tap NAME'); 'l2overlay attach {args.kind}' prints what undoes the rest"
            )
        raise UsageError(f"l2overlay detach: no kind {args.kind!r}{suggestion(args.kind, KINDS)}; {_usage()}")
    if args.name is None:
        raise UsageError(f"l2overlay detach {args.kind}: which one? {_usage()}")


def _usage() -> str:
    return "'l2overlay detach netns NAME', 'l2overlay detach tap NAME', or 'l2overlay detach' for a list"


def _list(attached: "list[Attachment]", segment: str | None, as_json: bool) -> None:
    found = [a for a in attached if segment in (None, a.mark.segment)]
    if as_json:
        rows = [
            {"kind": a.mark.kind, "name": a.mark.name, "segment": a.mark.segment, "link": a.link.name}
            for a in found
        ]
        output.print_json("detach/1", {"attached": rows, "changed": False})
    elif found:
        output.print_table(
            ("KIND", "NAME", "SEGMENT", "LINK", "BRIDGE"),
            [(a.mark.kind, a.mark.name, a.mark.segment, a.link.name, a.link.master or None) for a in found],
        )
    else:
        print("nothing is attached that 'l2overlay attach' made")
