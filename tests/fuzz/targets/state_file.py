"""The state file of a run directory, which `cleanup` and the next `join` carry out: changes to undo, or nothing."""

import contextlib
import json
import random
from collections.abc import Callable

from l2overlay.control.run_dir import RunDir
from l2overlay.errors import HostSetupError
from l2overlay.linux.changes import (
    AddAddress,
    Change,
    RemoveAddress,
    SetMac,
    SetMaster,
    SetMtu,
    SetSysctl,
    SetUp,
)
from l2overlay.linux.features.bridge import RemoveBridge
from l2overlay.linux.features.netfilter import RemoveFilter, SetBridgeFlag
from l2overlay.linux.undo import Undo
from l2overlay.node.attachment import load_undo
from tests.fuzz.mutation import SCALARS, mutate_bytes, mutate_tree
from tests.fuzz.scratch import scratch_folder

CHANGES = (
    RemoveBridge("br-lan", "fe:54:00:00:00:01", "l2overlay lan"),
    SetMac("br-lan", "fe:54:00:00:00:01", None),
    SetMtu("br-lan", 1500, 9000),
    SetUp("br-lan", False, True),
    SetMaster("tap-lan", "br-lan", None),
    SetSysctl("br-lan", "ipv6/conf/br-lan/disable_ipv6", "1", "0"),
    AddAddress("br-lan", "10.9.0.1/24"),
    RemoveAddress("br-lan", "fd00::1/64"),
    SetBridgeFlag("br-lan", "nf_call_iptables", True, False),
    RemoveFilter("br-lan", "lan", ""),
)
NESTINGS = ("[", '{"a":', '[{"a":', '{"undo":[')


def make(chance: random.Random) -> Callable[[], None]:
    """Write a mutated file, read it as the node does, and describe what would be undone."""
    run_dir = RunDir(scratch_folder())

    def iterate() -> None:
        run_dir.state.write_bytes(_file(chance))
        undo = None
        with contextlib.suppress(HostSetupError):
            undo = load_undo(run_dir)
        if undo is not None:
            assert all(isinstance(change, Change) and change.line for change in undo.changes)
            assert Undo.from_json(undo.to_json()) == undo
            undo.after(undo)

    return iterate


def _file(chance: random.Random) -> bytes:
    undo = Undo(tuple(chance.sample(CHANGES, chance.randint(1, 4)))).to_json()
    state = {"pid": 1234, "segment": "lan", "undo": undo}
    match chance.randrange(5):
        case 0:
            return mutate_bytes(chance, json.dumps(state).encode())
        case 1:
            return _nested(chance)
        case 2:
            state["undo"] = _nested(chance).decode()
        case 3:
            state["undo"] = mutate_bytes(chance, undo.encode()).decode(errors="replace")
        case _:
            tree = json.loads(undo)
            for _ in range(chance.randint(1, 3)):
                tree = mutate_tree(chance, tree)
            state["undo"] = chance.choice((json.dumps(tree), json.dumps(tree), tree, *SCALARS))
    return json.dumps(mutate_tree(chance, state) if chance.random() < 0.1 else state).encode()


def _nested(chance: random.Random) -> bytes:
    return (chance.choice(NESTINGS) * chance.choice((10, 500, 2000, 20_000))).encode()
