"""The share of a processor, in processes of their own: this one keeps its own."""

import os
import subprocess
import sys

import pytest

from l2overlay.linux.priority import AUTOGROUP, NICE

CLAIM = """
import os, sys
if os.geteuid() == 0:
    os.setpriority(os.PRIO_PROCESS, 0, int(sys.argv[1]))
from l2overlay.linux.priority import claim_processor
print(claim_processor(), os.getpriority(os.PRIO_PROCESS, 0))
print(open("/proc/self/autogroup").read() if os.path.exists("/proc/self/autogroup") else "")
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")


def claim(*, own_session: bool, user: int | None = None, nice: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, str(nice)],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=own_session,
        user=user,
    )
    said, _, group = done.stdout.partition("\n")
    return said, group.strip()


@pytest.mark.parametrize("own_session", [True, False])
def test_node_goes_ahead_of_the_programs_that_it_serves(own_session: bool) -> None:
    assert claim(own_session=own_session)[0] == f"True {NICE}"


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="a kernel without autogroups")
def test_session_of_its_own_gets_the_share_and_the_session_of_a_shell_does_not() -> None:
    before = AUTOGROUP.read_text()
    assert claim(own_session=True)[1].endswith(f" nice {NICE}")
    assert claim(own_session=False)[1] == before.strip()


def test_who_may_not_goes_on_without() -> None:
    assert claim(own_session=True, user=65534)[0].startswith("False ")


def test_share_that_somebody_chose_stays() -> None:
    assert claim(own_session=True, nice=3)[0] == "False 3"
