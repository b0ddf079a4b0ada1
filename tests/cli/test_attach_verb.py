"""`attach` without a node: what peers.toml and this host's key say."""

import json
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.cli import target
from l2overlay.cli.main import main
from l2overlay.control import run_dir
from tests.cli.calling import Call

SEGMENT = 'mtu = 9000\naddresses = { alpha = ["10.9.0.1/24"] }\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without a node; /etc/l2overlay is this directory."""
    monkeypatch.setattr(keys, "CONFIGURATION_DIR", tmp_path)
    for module in (target, run_dir):
        monkeypatch.setattr(module, "RUN_ROOT", tmp_path / "run")
    return tmp_path


def configure(here: Path, name: str, segment: str = SEGMENT, *, own: str = "beta") -> None:
    """A peers.toml of alpha and beta, and the key of `own`."""
    text = f'[segment]\nname = "{name}"\n{segment}'
    for peer in ("alpha", "beta"):
        secret = keys.generate()
        if peer == own:
            keys.save(here / f"{name}.key", secret)
        text += f'[[peers]]\nname = "{peer}"\npublic_key = "{format_key(keys.public_key(secret))}"\n'
        text += f'endpoint = "192.0.2.{len(text) % 200}:7470"\n'
    (here / f"{name}.toml").write_text(text)


def test_without_a_node_a_recipe_follows_peers_toml_and_says_how_to_start_one(call: Call, here: Path) -> None:
    configure(here, "lan")
    code, out, err = call("attach", "docker")
    assert (code, err) == (0, "")
    assert "# note: no node of lan runs: start it with 'l2overlay join lan'" in out
    assert "com.docker.network.driver.mtu=9000" in out
    assert "--ip-range 10.9.0.64/28" in out  # beta's: the second slice that no host has an address in


def test_without_subnet_or_key_a_tool_that_hands_out_addresses_says_what_it_needs(
    call: Call, here: Path
) -> None:
    configure(here, "lan", "")
    code, _, err = call("attach", "docker")
    assert (code, err.count("\n")) == (2, 1)
    assert "lan has no IPv4 `addresses` in peers.toml: give --subnet, the same on every host" in err
    assert call("attach", "docker", "--subnet", "10.8.0.0/16")[0] == 0
    (here / "lan.key").unlink()
    code, _, err = call("attach", "docker", "--subnet", "10.8.0.0/16")
    assert code == 2
    assert "which of alpha, beta this host is only its key tells" in err
    assert call("attach", "qemu")[0] == 0


def test_with_several_segments_one_has_to_be_named(call: Call, here: Path) -> None:
    configure(here, "dmz")
    configure(here, "lan")
    code, out, err = call("attach", "qemu")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "this host has several segments: dmz, lan; name one with --segment" in err
    assert "br-dmz" in call("attach", "qemu", "--segment", "dmz")[1]


def test_without_node_and_peers_toml_the_way_to_start_is_told(call: Call, here: Path) -> None:
    code, _, err = call("attach", "qemu")
    assert (code, err.count("\n")) == (3, 1)
    assert "no node runs on this host; start one with 'l2overlay join SEGMENT'" in err


def test_a_static_mac_of_peers_toml_is_not_given_out(
    call: Call, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(here, "lan")
    mac = json.loads(call("attach", "qemu", "vm1", "--json")[1])["mac"]
    file = here / "lan.toml"
    file.write_text(file.read_text() + f'macs = ["{mac}"]\n')
    assert main(["attach", "qemu", "vm1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mac"] != mac


def test_the_list_of_tools_needs_no_segment(call: Call, here: Path) -> None:
    code, out, _ = call("attach")
    assert code == 0
    assert "qemu-bridge" in out
    assert len(json.loads(call("attach", "--json")[1])["tools"]) == len(out.splitlines()) - 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["detach", "qemu"], "attach changed nothing for qemu but its TAP"),
        (["detach", "netsn", "web"], "no kind 'netsn' (did you mean 'netns'?)"),
        (["detach", "netns"], "which one? 'l2overlay detach netns NAME'"),
        (["attach", "netns", "--create"], "which namespace?"),
        (["attach", "qmeu"], "no tool 'qmeu' (did you mean 'qemu'?)"),
        (["attach", "docker", "--apply"], "--apply makes a TAP, and docker needs none"),
        (["attach", "qemu", "--create"], "--create is for netns, not for qemu"),
        (["attach", "qemu", "vm1;reboot"], "'vm1;reboot' is not a name"),
        (["attach", "netns", "web", "--address", "10.9.0.33"], "write it as 10.9.0.33/24"),
        (["attach", "cni", "--subnet", "10.9.0.1/24"], "has host bits set; write it as 10.9.0.0/24"),
    ],
)
def test_what_does_not_fit_together_is_one_line(call: Call, here: Path, argv: list[str], text: str) -> None:
    code, out, err = call(*argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err
