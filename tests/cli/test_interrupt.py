"""Ctrl-C while the command line is being loaded, and after."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPT_DURING_IMPORT = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
sys.argv = ["l2overlay", "schema"]
from l2overlay.__main__ import run
sys.exit(run())
"""


@pytest.mark.parametrize(
    "name",
    [
        "l2overlay.cli",
        "l2overlay.cli.main",
        "l2overlay.cli.output",
        "l2overlay.errors",
        "l2overlay.cli.schema",
    ],
)
def test_an_interrupt_while_modules_are_loaded_ends_it_in_silence(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT_DURING_IMPORT.format(name=name)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode in (-signal.SIGINT, 1)


def test_a_background_job_that_ignores_interrupts_goes_on() -> None:
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{INTERRUPT_DURING_IMPORT}"
    done = subprocess.run(
        [sys.executable, "-c", code.format(name="l2overlay.cli.output")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout[:1]) == (0, "{")
