"""The version of a tool, out of what the tools really print."""

from collections.abc import Mapping, Sequence

import pytest

from l2overlay.attach.programs import Program, Run, Version, version_of
from l2overlay.attach.tools import TOOLS

PRINTED = {
    "qemu": ("QEMU emulator version 9.2.1 (Debian 1:9.2.1+ds-1)\nCopyright (c) 2003-2024", (9, 2, 1)),
    "libvirt": ("10.0.0\n", (10, 0, 0)),
    "lxc": ("5.0.2\n", (5, 0, 2)),
    "incus": ("6.0.1\n", (6, 0, 1)),
    "nspawn": ("systemd 252 (252.39-1~deb12u2)\n+PAM +AUDIT +SELINUX", (252,)),
    "docker": ("29.0.1\n", (29, 0, 1)),
    "podman": ("podman version 4.3.1\n", (4, 3, 1)),
    "cni": ('{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.4.0","1.0.0"]}\n', (1, 0, 0)),
    "containerlab": ("  ____ ___\n |10|\n    version: 0.60.1\n     commit: 95e2e4c1\n", (0, 60, 1)),
    "proxmox": ("pve-manager/8.2.4/faa83925c9641325 (running kernel: 6.8.8-2-pve)\n", (8, 2, 4)),
    "firecracker": ("Firecracker v1.7.0\n\n2024-03-18T12:00:00 Firecracker exiting", (1, 7, 0)),
    "cloud-hypervisor": ("cloud-hypervisor v40.0.0\n", (40, 0, 0)),
    "gns3": ("2.2.46\n", (2, 2, 46)),
}


def program_of(tool: str) -> Program:
    program = TOOLS[tool].program
    assert program is not None
    return program


def prints(answers: Mapping[str, str]) -> Run:
    return lambda argv, environment: answers.get(" ".join(argv), "")


@pytest.mark.parametrize("tool", PRINTED)
def test_the_version_is_read_from_what_the_tool_prints(tool: str) -> None:
    text, numbers = PRINTED[tool]
    program = program_of(tool)
    version = version_of(program, prints({" ".join(program.asked[0]): text}))
    assert (version.numbers, version.installed) == (numbers, True)


def test_every_tool_with_a_program_has_its_sample() -> None:
    assert {name for name, tool in TOOLS.items() if tool.program} - {"qemu-bridge", "multus"} == set(PRINTED)


def test_a_tool_that_is_not_there_or_prints_no_number_has_the_assumed_version() -> None:
    program = program_of("docker")
    for answers in ({}, {"docker --version": "Cannot connect"}):
        assert version_of(program, prints(answers)) == Version(program.assumed, installed=False)


def test_the_second_way_to_ask_counts_when_the_first_has_no_answer() -> None:
    answers = {"docker --version": "Docker version 20.10.24, build 297e128\n"}
    assert version_of(program_of("docker"), prints(answers)).numbers == (20, 10, 24)


def test_the_backend_is_asked_of_the_installed_program_only() -> None:
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str], _: Mapping[str, str]) -> str:
        asked.append(argv)
        return {"podman --version": "podman version 5.4.0", "podman info": "netavark\n"}.get(
            " ".join(argv[:2]), ""
        )

    assert version_of(program_of("podman"), run).detail == "netavark"
    assert version_of(program_of("docker"), run).detail == ""
    assert ("docker", "info", "--format", "{{.FirewallBackend.Driver}}") not in asked


def test_versions_compare_by_number_and_not_by_text() -> None:
    assert Version((9, 10)) >= (9, 2)
    assert Version((2, 9)) < (2, 10)


def test_a_program_that_fails_or_hangs_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l2overlay.attach.programs.ASK_TIMEOUT", 0.05)
    for argv in (("sleep", "5"), ("false",), ("/no/such/program",)):
        assert version_of(Program("it", (argv,), assumed=(7,))) == Version((7,), installed=False)
