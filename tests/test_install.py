"""`make install` where python3-venv is missing, as on a fresh Debian 12; python, pip and apt-get are stand-ins.

The name of the missing part is Debian's: python3 comes without ensurepip, and `python3 -m venv` fails with it.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PYTHON = """\
#!/bin/bash
case "$*" in
    *ensurepip*) [[ -e {there} ]] ;;
    "-m venv "*) [[ -e {there} ]] && mkdir -p "$3/bin" && cp {pip} "$3/bin/pip" ;;
    *) exec {python} "$@" ;;
esac
"""
PIP = """\
#!/bin/bash
echo "pip $*" >>{calls}
printf '#!/bin/bash\\necho l2overlay 1\\n' >"$(dirname "$0")/l2overlay"
chmod +x "$(dirname "$0")/l2overlay"
"""
APT_GET = """\
#!/bin/bash
echo "apt-get $*" >>{calls}
[[ "$*" != *python3-venv* ]] || touch {there}
"""
SUDO = """\
#!/bin/bash
exec "$@"
"""


def test_make_install_installs_python3_venv_where_it_is_missing(tmp_path: Path) -> None:
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    names = {"there": tmp_path / "there", "pip": programs / "pip", "calls": calls, "python": sys.executable}
    for name, text in {"python": PYTHON, "pip": PIP, "apt-get": APT_GET, "sudo": SUDO}.items():
        (programs / name).write_text(text.format(**names))
        (programs / name).chmod(0o755)
    (tmp_path / "bin").mkdir()
    places = [f"PREFIX={tmp_path}/opt", f"BINDIR={tmp_path}/bin", f"PYTHON={programs}/python"]
    done = subprocess.run(
        ["make", "install", *places],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installing Debian packages by apt-get: python3-venv" in done.stdout
    assert (tmp_path / "bin/l2overlay").resolve() == tmp_path / "opt/bin/l2overlay"
    assert calls.read_text().splitlines()[-1].endswith("install --quiet --disable-pip-version-check .")
