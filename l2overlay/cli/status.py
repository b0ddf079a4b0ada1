"""`l2overlay status`: the state of the node on one screen. The exit code is 4 if something is degraded."""

import argparse
from typing import Any

from l2overlay.cli import output
from l2overlay.cli.output import ago, duration, peer_state, print_answer, short_time, size
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.control import client
from l2overlay.errors import ExitCode
from l2overlay.observe.status import KERNEL_LOSSES

EXAMPLES = (
    "l2overlay status",
    "l2overlay status lan --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    status = client.ask(chosen_run_dir(args).socket, "status")
    if args.json:
        print_answer(status)
    else:
        print(*status_lines(status, verbose=args.verbose), sep="\n")
    return ExitCode.OK if status["state"] == "ok" else ExitCode.DEGRADED


def status_lines(status: dict[str, Any], *, verbose: bool) -> list[str]:
    """The lines of the screen, made from the node's answer."""
    return [
        *_head_lines(status),
        *(_inner_lines(status) if verbose else ()),
        *(f"  degraded   {output.paint(trouble, 'yellow')}" for trouble in status["degraded"]),
        *(f"  refused    {entry['text']} ({ago(entry['age'])})" for entry in status.get("refused", ())),
        "",
        *peer_lines(status["peers"], verbose=verbose),
        "",
        *_counter_lines(status, verbose=verbose),
    ]


def peer_lines(peers: list[dict[str, Any]], *, verbose: bool) -> list[str]:
    """One line per peer. Unless `verbose`, silent peers without an endpoint are only counted."""
    shown = [
        p for p in peers if verbose or p["up"] or p["configured_endpoint"] or p["last_heard"] is not None
    ]
    rows = [
        (
            peer["name"],
            peer["endpoint"],
            peer_state(peer),
            short_time(peer["rtt"]) if peer["up"] else "-",
            size(peer["counters"]["rx_bytes"]),
            size(peer["counters"]["tx_bytes"]),
            peer["stations"],
            ago(peer["last_heard"]),
        )
        for peer in shown
    ]
    lines = output.table(("PEER", "ENDPOINT", "STATE", "RTT", "RX", "TX", "STATIONS", "LAST HEARD"), rows)
    hidden = len(peers) - len(shown)
    return [*lines, f"and {hidden} more that may call this host (-v shows them)"] if hidden else lines


def _head_lines(status: dict[str, Any]) -> list[str]:
    tap, bridge, underlay = (status[k] for k in ("tap", "bridge", "underlay"))
    state = output.paint(status["state"], "green" if status["state"] == "ok" else "yellow")
    peers = f"{status['peers_up']}/{status['peers_total']} peers up"
    awaited = status.get("peers_awaited", 0)
    peers += f", waiting for {awaited} to call" * bool(awaited)
    return [
        f"segment {status['segment']}  node {status['node']}  {state}  {peers}, running for {duration(status['uptime'])}",
        f"  bridge     {bridge['name']}  ports {' '.join(bridge['ports']) or 'none'}",
        f"  tap        {tap['name']}  {tap['mac']}  mtu {status['mtu']}  offload {_on(tap['offload'])}"
        + ("" if tap["present"] else "  GONE"),
        f"  underlay   UDP port {underlay['port']}  gso {_on(underlay['gso'])}  gro {_on(underlay['gro'])}",
    ]


def _inner_lines(status: dict[str, Any]) -> list[str]:
    """Details for developers, and for diagnosing a slow host."""
    lag, linger = status["loop_lag"], status["linger"]
    return [
        f"  suite      {status['suite']}",
        f"  loop lag   p50 {short_time(lag['p50'])}  p99 {short_time(lag['p99'])}",
        f"  linger     {linger['seconds']:g} s after a lone frame, {linger['rehearsals']} rehearsals",
    ]


def _counter_lines(status: dict[str, Any], *, verbose: bool) -> list[str]:
    c = status["counters"]
    lines = [
        f"received   {c['rx_frames']} frames, {size(c['rx_bytes'])}, in {c['rx_datagrams']} datagrams",
        f"sent       {c['tx_frames']} frames, {size(c['tx_bytes'])}, in {c['tx_datagrams']} datagrams",
    ]
    drops = {reason: count for reason, count in status["drops"].items() if count or verbose}
    lines.append(
        "dropped    " + (", ".join(f"{count} {reason}" for reason, count in drops.items()) or "nothing")
    )
    losses = status.get("kernel_losses", {})
    for name, why in KERNEL_LOSSES.items():
        if losses.get(name) or (verbose and name in losses):
            lines.append(f"kernel     {losses[name]} {name} ({why})")
    return lines


def _on(value: bool) -> str:
    return "on" if value else "off"
