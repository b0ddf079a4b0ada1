"""`l2overlay filter`: show the rules, check a file, explain a decision, load new rules.

show       the rules as text, with the frames that they have matched, both address families together
check      like `l2overlay check`, and says how many rules of the kernel `[filter]` becomes
explain    which rule decides about a frame: asks the node, or reads a file with --peers and --node
reload     like `l2overlay reload`; established connections go on
"""

import argparse
from pathlib import Path
from typing import Any

from l2overlay.cli import output, reload
from l2overlay.cli.output import print_answer, size
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.config.read import load_config
from l2overlay.config.types import Config
from l2overlay.control import client
from l2overlay.errors import ConfigError, ExitCode, UsageError
from l2overlay.filter.model import Direction
from l2overlay.filter.rules import is_active
from l2overlay.filter.words import explain_text
from l2overlay.linux.iptables import FAMILIES, FilterSpec, render
from l2overlay.suggestion import suggestion

EXPLAIN_SCHEMA = "l2overlay.filter_explain/1"


EXAMPLES = (
    "l2overlay filter show lan",
    "l2overlay filter check ./peers.toml",
    "l2overlay filter explain 'tcp 10.9.0.2:1234 > 10.9.0.1:22 from beta'",
    "l2overlay filter explain --peers ./peers.toml --node alpha 'udp [fd09::2]:53 > [fd09::1]:4000 in'",
    "l2overlay filter reload lan",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in _HELP.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        output.add_json_option(action)
        if name == "check":
            action.add_argument("file", metavar="FILE", type=Path, help="the peers.toml")
        elif name == "explain":
            _add_explain_arguments(action)
        else:
            add_node_arguments(action)


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return {"show": _show, "check": _check, "explain": _explain, "reload": reload.run}[args.action](args)


_HELP = {
    "show": "show the rules as text, with the frames that they have matched",
    "check": "find every mistake in a peers.toml",
    "explain": "say which rule decides about a frame, without sending it",
    "reload": "make the node read its peers.toml again; established connections go on",
}


def _add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "frame", nargs="+", help="'tcp 10.9.0.1:1234 > 10.9.0.2:80 from beta', or a frame in hex"
    )
    parser.add_argument("--segment", help="of the node to ask; omit it if only one node runs here")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the node keeps its socket")
    parser.add_argument(
        "--peers", type=Path, metavar="FILE", help="use this peers.toml instead of asking a node"
    )
    parser.add_argument("--node", metavar="NAME", help="with --peers: the host that sees the frame")


# show


def _show(args: argparse.Namespace) -> int:
    answer = client.ask(chosen_run_dir(args).socket, "filter")
    if args.json:
        print_answer(answer)
    elif not answer["active"]:
        print(f"segment {answer['segment']}: nothing is filtered")
    else:
        _print_rules(answer)
    return ExitCode.DEGRADED if answer.get("problems") else ExitCode.OK


def _print_rules(answer: dict[str, Any]) -> None:
    print(f"segment {answer['segment']}, node {answer['node']}: filtered by iptables ({answer['variant']})")
    if answer["stations"]:
        print(
            "followed: "
            + ", ".join(f"{n} of {peer}" for peer, n in answer["stations"].items())
            + " (stations)"
        )
    for direction in Direction:
        rules = [rule for rule in answer["rules"] if rule["direction"] == direction]
        if rules:
            print(f"\n{_HEADINGS[direction]}")
            output.print_table(("RULE", "DOES", "IPV4", "IPV6", "BYTES"), map(_row, rules))
    for problem in answer["problems"]:
        output.print_error(problem)


_HEADINGS = {
    Direction.IN: "in: from the overlay to this host's guests",
    Direction.OUT: "out: from this host's guests to the overlay",
}


def _row(rule: dict[str, Any]) -> tuple[object, ...]:
    comment = f"  # {rule['comment']}" if rule["comment"] else ""
    v4, v6 = rule["ipv4"], rule["ipv6"]
    return rule["label"], rule["rule"] + comment, v4["frames"], v6["frames"], size(v4["bytes"] + v6["bytes"])


# check


def _check(args: argparse.Namespace) -> int:
    try:
        config = load_config(args.file)
    except ConfigError as error:
        if not args.json:
            raise
        problems = [{"line": p.line, "column": p.column, "message": p.message} for p in error.problems]
        output.print_json("filter_check/1", {"file": str(args.file), "ok": False, "problems": problems})
        return int(error.exit_code)
    sizes = {peer.name: _kernel_rules(config, peer.name) for peer in config.peers}
    rules = len(config.filter.rules) if config.filter is not None else 0
    groups = len(config.filter.security_groups) if config.filter is not None else 0
    if args.json:
        found = {"rules": rules, "security_groups": groups, "kernel_rules": sizes, "problems": []}
        output.print_json("filter_check/1", {"file": str(args.file), "ok": True, **found})
        return ExitCode.OK
    print(f"{args.file}: good: {_summary(config, rules, groups, sizes)}")
    return ExitCode.OK


def _summary(config: Config, rules: int, groups: int, sizes: dict[str, int]) -> str:
    if config.filter is None:
        return "no [filter]; nothing is filtered"
    if not any(is_active(config.filter, side) for side in Direction):
        return "[filter] accepts everything; nothing is filtered"
    counts = f"{rules} rule{'s' * (rules != 1)}, {groups} security group{'s' * (groups != 1)}"
    low, high = min(sizes.values()), max(sizes.values())
    return f"{counts}; {low if low == high else f'{low} to {high}'} rules of the kernel on each host"


def _kernel_rules(config: Config, own: str) -> int:
    if config.filter is None:
        return 0
    segment = config.segment
    spec = FilterSpec(segment.name, segment.tap, segment.bridge, own, config.filter)
    if not spec.directions:
        return 0
    return sum(len(rules) for v in FAMILIES for rules in render(spec, {}, v).chains.values())


# explain


def _explain(args: argparse.Namespace) -> int:
    frame = " ".join(args.frame)
    if args.peers is not None:
        answer = _explain_by_file(args, frame)
    else:
        answer = client.ask(chosen_run_dir(args).socket, "filter/explain", frame=frame)
    if args.json:
        print_answer(answer)
        return ExitCode.OK
    for verdict in answer["verdicts"]:
        _print_verdict(answer["node"], verdict)
    return ExitCode.OK


def _explain_by_file(args: argparse.Namespace, frame: str) -> dict[str, Any]:
    config = load_config(args.peers)
    names = tuple(peer.name for peer in config.peers)
    if args.node not in names:
        hint = suggestion(args.node or "", names) or f" (there are {', '.join(names)})"
        raise UsageError(f"name the host with --node{hint}")
    if config.filter is None:
        raise UsageError(f"{args.peers} has no [filter]: nothing is filtered")
    behind = {mac: peer.name for peer in config.peers for mac in peer.macs if peer.name != args.node}
    verdicts = explain_text(config.filter, args.node, frame, names, behind.get)
    return {"schema": EXPLAIN_SCHEMA, "node": args.node, "verdicts": verdicts}


def _print_verdict(node: str, verdict: dict[str, Any]) -> None:
    if verdict["frame"]:
        print(f"{verdict['frame']}, on {node}:")
    for step in verdict["steps"]:
        print(f"  {step}")
    action = output.paint(verdict["action"], "green" if verdict["action"] == "accept" else "red")
    print(f"  {action}, by {verdict['label']}: {verdict['rule']}")
