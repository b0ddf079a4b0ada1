"""README.md and docs/ against the code: what a document states and the code knows must be the same.

Constants, layouts, record kinds, drop reasons, events, files, verbs, links. A document that falls behind fails here.
"""

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

import l2overlay
from l2overlay.cli.main import VERBS, main
from l2overlay.config.limits import DEFAULT_PORT
from l2overlay.config.read import load_config, parse_config
from l2overlay.config.types import Suite
from l2overlay.controlplane import cookie, events, handshake, noise
from l2overlay.counters import DropReason
from l2overlay.dataplane import wire
from l2overlay.errors import ExitCode

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("**/*.md")])
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))

CONSTANT_MODULES = (
    "controlplane.dialling",
    "controlplane.paths",
    "controlplane.peer",
    "controlplane.liveness",
    "controlplane.path_mtu",
    "controlplane.membership",
    "controlplane.local",
    "controlplane.cookie",
    "controlplane.reception",
    "controlplane.roaming",
    "dataplane.inbox",
    "dataplane.link",
    "dataplane.outbox",
    "dataplane.replay",
    "dataplane.session",
    "dataplane.train",
    "dataplane.waiting",
    "dataplane.wire",
    "config.limits",
)
"""Where a name of the protocol's tables is looked up."""

UNITS = {
    "s": 1.0,
    "ms": 1e-3,
    "a second": 1.0,
    "bytes": 1.0,
    "KiB": 1024.0,
    "": 1.0,
}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"l2overlay.{name}")


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row of a document; a `|` in a cell is written `\\|`."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s-]+", line):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(text: str, title: str) -> str:
    """From a heading to the next one of the same level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section {title!r}"
    return found[2]


def stated_constants() -> dict[str, list[float]]:
    rows = table_rows(section(PROTOCOL, "Timers and limits"))
    return {cells[0].strip("`"): numbers(cells[1]) for cells in rows if cells[0].startswith("`")}


def numbers(cell: str) -> list[float]:
    """`120 s`, `1, 1, 1, 2 s`, `128 KiB`, `2^60`."""
    found = re.fullmatch(r"([0-9.,^ ]+?) ?(s|ms|a second|bytes|KiB|)", cell)
    assert found, cell
    values = (part.strip().split("^") for part in found[1].split(","))
    return [float(int(v[0]) ** int(v[1]) if len(v) == 2 else float(v[0])) * UNITS[found[2]] for v in values]


def known_constants(name: str) -> list[float]:
    values = [getattr(m, name) for m in map(module, CONSTANT_MODULES) if hasattr(m, name)]
    assert values, f"no constant {name}"
    assert all(value == values[0] for value in values)
    (value, *_) = values
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
    return [float(part) for part in parts]


@pytest.mark.parametrize("name", stated_constants())
def test_a_constant_of_the_protocol_has_the_value_that_the_document_states(name: str) -> None:
    assert stated_constants()[name] == known_constants(name)


NOT_IN_TABLES = {
    "COMMON_SIZES": "stands in the text",
    "COOKIE_LEN": "a length of the drawings",
    "LENGTHS": "lengths of the drawings",
    "MAX_FRAME_LEN": "a default that no node uses",
    "MAX_BODY_LEN": "what a u16 can say",
}


@pytest.mark.parametrize(
    "name",
    [name for name in CONSTANT_MODULES if re.search("peer|dial|live|path|memb|local|box|link|waiting", name)],
)
def test_every_timer_and_limit_of_the_core_is_in_the_document(name: str) -> None:
    source = Path(str(module(name).__file__)).read_text()
    own = set(re.findall(r"^([A-Z][A-Z_]+)(?:: Final)? = ", source, re.MULTILINE)) - set(NOT_IN_TABLES)
    assert own <= set(stated_constants())


def test_the_sizes_that_are_probed_are_those_of_the_document() -> None:
    listed = ", ".join(map(str, module("controlplane.path_mtu").COMMON_SIZES))
    assert listed in " ".join(section(PROTOCOL, "Path MTU").split())


@pytest.mark.parametrize(
    ("title", "phrase", "value"),
    [
        ("Liveness", "last PING to this peer was {} s ago", module("controlplane.liveness").PING_INTERVAL),
        ("Liveness", "then nothing for {} s", module("controlplane.liveness").QUIET_TIME),
        ("Liveness", "then every {} s until one", module("controlplane.liveness").PING_RETRY),
        ("Liveness", "When that has lasted {} s", module("controlplane.dialling").SILENCE_TIME),
        ("Liveness", "every {} s, then", module("controlplane.dialling").FIRST_RETRY),
        ("Liveness", "{} of them every", module("controlplane.dialling").FIRST_RETRIES),
        ("Liveness", "then every {} s, both", module("controlplane.dialling").LATER_RETRY),
        ("Liveness", "last {} INITs", module("controlplane.dialling").MAX_PENDING),
        ("Liveness", "stay below {} a second", module("controlplane.local").INIT_RATE),
        ("Sessions", "is dead {} s after", module("dataplane.session").REJECT_TIME),
        ("Sessions", "when it is {} s old, the responder", module("controlplane.dialling").REKEY_TIME),
        ("Sessions", "when it is {} s old and that", module("controlplane.dialling").RESPONDER_REKEY_TIME),
        ("Sessions", "answered no PING for {} s, and", module("controlplane.dialling").DOWN_TIME),
        ("Sessions", "answered no PING for {} s either", module("controlplane.peer").UNHEARD_TIME),
        ("Sessions", "and no INIT for {} s;", module("controlplane.dialling").ASK_TIME),
        ("Sessions", "that slept asks for {} s", module("controlplane.dialling").SILENCE_TIME),
        ("Cookie", "that change after {} s", cookie.COOKIE_LIFETIME),
        ("Cookie", "under a secret for {} s", cookie.SECRET_LIFETIME),
        ("Roaming", "once per {} s", module("controlplane.roaming").CHALLENGE_INTERVAL),
        ("Path MTU", "A path carries {} bytes", module("dataplane.wire").BASE_SIZE),
        ("Path MTU", "probed {} s after", module("controlplane.path_mtu").VERIFY_TIME),
        ("Path MTU", "{} s after a search", module("controlplane.path_mtu").RAISE_TIME),
        ("Fragments", "keeps {} frames per peer", module("dataplane.inbox").MAX_REASSEMBLIES),
        ("Data", "holds the last {} counters", module("dataplane.replay").WINDOW_SIZE),
        ("Words", "UDP port is {}", DEFAULT_PORT),
        ("Records", "up to {} bytes of padding", module("dataplane.outbox").MAX_PADDING),
    ],
)
def test_a_number_in_the_text_is_that_of_the_code(title: str, phrase: str, value: float) -> None:
    assert phrase.format(f"{value:g}") in " ".join(section(PROTOCOL, title).split())


def drawn_offsets(name: str) -> list[int | str]:
    """The offsets above the drawing of a datagram; `n` stands for its length."""
    found = re.search(rf"^offset (.*)\n(?:.*\n)(?:{name}) ", PROTOCOL, re.MULTILINE)
    assert found, f"no drawing of {name}"
    return [int(part) if part.isdigit() else part for part in re.findall(r"n - \d+|\w+", found[1])]


def test_init_is_drawn_as_it_is() -> None:
    head = handshake._INIT_HEAD.size
    static = head + noise.DH_LEN
    payload = static + noise.DH_LEN + noise.TAG_LEN
    mac1 = payload + handshake._INIT_PAYLOAD.size + noise.TAG_LEN
    end = mac1 + cookie.MACS_LEN
    assert end == handshake.INIT_LEN
    assert drawn_offsets("INIT") == [0, 1, 2, 4, head, static, payload, mac1, mac1 + cookie.MAC_LEN, end]


def test_resp_is_drawn_as_it_is() -> None:
    head = handshake._RESP_HEAD.size
    payload = head + noise.DH_LEN
    mac1 = payload + handshake._RESP_PAYLOAD.size + noise.TAG_LEN
    end = mac1 + cookie.MACS_LEN
    assert end == handshake.RESP_LEN
    assert drawn_offsets("RESP") == [0, 1, 2, 4, 8, head, payload, mac1, mac1 + cookie.MAC_LEN, end]


def test_cookie_is_drawn_as_it_is() -> None:
    assert drawn_offsets("COOKIE") == [0, 1, 4, 8, cookie._COOKIE_HEAD.size, cookie.COOKIE_LEN]


def test_data_is_drawn_as_it_is() -> None:
    assert drawn_offsets("DATA") == [0, 1, 2, 4, 8, wire.DATA_HEADER_LEN, f"n - {wire.TAG_LEN}", "n"]
    assert drawn_offsets("record") == [0, 1, 2, wire.RECORD_LEN]


SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "0": 1, "0 u32": 4}


def drawn_size(line: str) -> int:
    """Bytes of `id u32 | gso_type u8 | 0 | ...` up to the first field without a size of its own."""
    total = 0
    for field in (part.strip() for part in line.split("|")):
        size = SIZES.get(field) or SIZES.get(field.rsplit(" ", 1)[-1])
        if size is None:
            return total
        total += size
    return total


@pytest.mark.parametrize(
    ("label", "size"),
    [
        ("payload of INIT:", handshake._INIT_PAYLOAD.size),
        ("payload of RESP:", handshake._RESP_PAYLOAD.size),
        ("template:   ", wire.TEMPLATE_LEN),
        ("FRAGMENT body:", wire.PART_LEN - wire.RECORD_LEN + wire.FRAGMENT_LEN),
        ("SLICE body:", wire.PART_LEN - wire.RECORD_LEN),
    ],
)
def test_a_layout_in_one_line_has_the_size_of_its_struct(label: str, size: int) -> None:
    (line,) = (text for text in PROTOCOL.splitlines() if text.startswith(label))
    assert drawn_size(line.removeprefix(label)) == size


def test_the_datagram_types_are_those_of_the_code() -> None:
    rows = (cells for cells in table_rows(section(PROTOCOL, "Pieces")) if cells[0].isdigit())
    stated = {name: (number, length) for number, name, length in rows}
    assert len(stated) == 5
    assert stated["INIT"] == (str(handshake.INIT_TYPE), str(handshake.INIT_LEN))
    assert stated["RESP"] == (str(handshake.RESP_TYPE), str(handshake.RESP_LEN))
    assert stated["COOKIE"] == (str(cookie.COOKIE_TYPE), str(cookie.COOKIE_LEN))
    assert stated["DATA"] == (str(wire.DATA_TYPE), f"{wire.DATA_OVERHEAD} or more")
    assert stated["TRAIN"] == (str(wire.TRAIN_TYPE), f"{wire.DATA_HEADER_LEN + 1} or more")


def test_the_noise_names_and_the_prologue_are_those_of_the_code() -> None:
    for suite, protocol in handshake._PROTOCOLS.items():
        assert f"| protocol name, suite {suite.value} | `{protocol.name.decode()}` |" in PROTOCOL
    prologue = handshake.HandshakeContext.create(bytes(range(32)), Suite.AESGCM, "lan").prologue
    assert prologue == b"l2overlay" + bytes((1, Suite.AESGCM)) + b"lan"
    assert f"version u8, which is {handshake.PROTOCOL_VERSION}" in PROTOCOL


def test_the_record_kinds_are_those_of_the_code() -> None:
    rows = [c for c in table_rows(section(PROTOCOL, "Records")) if len(c) == 4 and c[0].isdigit()]
    assert {cells[1]: int(cells[0]) for cells in rows} == {r.name: r.value for r in wire.Record}
    lengths = {cells[1]: cells[2] for cells in rows}
    for kind, length in wire.CONTROL_BODY_LEN.items():
        assert lengths[kind.name] == str(length)


def test_the_table_of_drop_reasons_is_the_code_s() -> None:
    rows = table_rows(section(ARCHITECTURE, "Counters and drop reasons"))
    assert [cells[0].strip("`") for cells in rows if cells[0].startswith("`")] == [
        r.value for r in DropReason
    ]


def test_each_drop_reason_has_a_meaning_and_a_remedy() -> None:
    rows = [c for c in table_rows(section(ARCHITECTURE, "Counters and drop reasons")) if c[0][:1] == "`"]
    assert len(rows) == len(DropReason)
    for reason, meaning, remedy in rows:
        assert len(meaning.split()) > 2, reason
        assert remedy, reason


def test_the_comment_beside_a_drop_reason_begins_its_meaning_in_the_document() -> None:
    rows = table_rows(section(ARCHITECTURE, "Counters and drop reasons"))
    meanings = {cells[0].strip("`"): cells[1] for cells in rows if cells[0].startswith("`")}
    source = (ROOT / "l2overlay" / "counters.py").read_text()
    comments = dict(re.findall(r'^    [A-Z0-9_]+ = "(\w+)"  # (.*?)(?: \([^)]*\))?$', source, re.MULTILINE))
    assert comments.keys() >= {"runt_frame", "send_failed"}
    assert {name: text for name, text in comments.items() if not meanings[name].startswith(text)} == {}


def test_the_exit_codes_are_those_of_the_code() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    table = operations.partition("Exit codes")[2].partition("###")[0]
    assert [int(cells[0]) for cells in table_rows(table) if cells[0].isdigit()] == list(ExitCode)


def test_the_table_of_events_is_the_code_s() -> None:
    rows = table_rows(section(ARCHITECTURE, "Events"))
    stated = {cells[0].strip("`") for cells in rows if cells[0].startswith("`")}
    assert stated == {kind.__name__ for kind in get_args(events.Event)}


def files_of_the_program() -> set[str]:
    """Relative to l2overlay/; without those that somebody has begun and not yet committed."""
    package = ROOT / "l2overlay"
    present = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.stat().st_size}
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(package), "ls-files"]
    listed = subprocess.run(git, capture_output=True, text=True, check=False)
    return present & set(listed.stdout.split()) if listed.returncode == 0 else present


def test_every_file_of_the_program_has_its_line_and_no_line_is_without_its_file() -> None:
    rooms = re.split(r"^`l2overlay/", section(ARCHITECTURE, "Rooms"), flags=re.MULTILINE)[1:]
    stated = {
        f"{room.partition('`')[0]}{name}" for room in rooms for name in re.findall(r"`(\w+\.py)`", room)
    }
    present = files_of_the_program()
    shared = {"cli/main.py", "cli/target.py", "cli/output.py", "cli/peers_edit.py"}
    verbs = {f"cli/{name.replace('-', '_')}.py" for name in VERBS}
    ignored = {path for path in present if path.endswith(("__init__.py", "__main__.py"))} | (verbs - shared)
    assert stated == present - ignored


@cache
def classes() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for info in pkgutil.walk_packages(l2overlay.__path__, "l2overlay."):
        if info.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, type):
                found.setdefault(name, []).append(value)
    return found


def has_attribute(owner: Any, name: str) -> bool:
    return hasattr(owner, name) or name in Path(sys.modules[owner.__module__].__file__ or "").read_text()


@every_document
def test_every_method_that_a_document_names_is_there(document: Path) -> None:
    for owner, name in re.findall(r"`([A-Z]\w*[a-z]\w*)\.(\w+)(?:\(.*?\))?`", document.read_text()):
        assert any(has_attribute(found, name) for found in classes().get(owner, [])), f"{owner}.{name}"


def code_of(document: Path) -> str:
    """What stands between backticks, one span or block a line."""
    text = document.read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join([*blocks, *spans])


@every_document
def test_every_verb_that_a_document_shows_is_there(document: Path) -> None:
    shown = set(re.findall(r"\bl2overlay ([a-z]+(?:-[a-z]+)*)\b", code_of(document)))
    assert shown <= set(VERBS)


@every_document
def test_every_make_target_that_a_document_shows_is_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|\s)make ([a-z]+)", code_of(document), re.MULTILINE)) <= targets


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@every_document
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    named = re.findall(r"`((?:tests|docs|examples|l2overlay|newsfragments)/[\w./-]+)`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_s_peers_toml_is_good_and_has_ten_lines() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(text.splitlines()) == 10
    assert [peer.name for peer in parse_config(text, "README.md", base_dir=None).peers] == ["alpha", "beta"]


def test_the_readme_s_first_steps_work_as_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of "First steps" up to `join`, with /etc/l2overlay and the second host's key in a directory here."""
    steps = section((ROOT / "README.md").read_text(), "First steps")
    commands = re.findall(r"^(?:alpha|beta)#\s+l2overlay (.*?)(?:  +#.*)?$", steps, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["init", "keygen", "peers", "check"]
    beta_key, file = str(tmp_path / "beta.key"), str(tmp_path / "lan.toml")
    for command in commands:
        printed = capsys.readouterr().out.split()
        here = command.replace("/etc/l2overlay/lan.key", beta_key).replace("/etc/l2overlay/lan.toml", file)
        here = here.replace("init lan", f"init lan --dir {tmp_path}").replace("--file lan", f"--file {file}")
        here = here.replace("check lan", f"check {file}")
        assert main(here.replace("KEY", printed[0] if printed else "").split()) == 0
    made = load_config(tmp_path / "lan.toml")
    (shown,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    wanted = parse_config(shown, "README.md", base_dir=None)
    assert made.segment == wanted.segment
    assert [(p.name, p.endpoint) for p in made.peers] == [(p.name, p.endpoint) for p in wanted.peers]


FRAGMENT_NAME = re.compile(r"\d+\.[a-z0-9-]+\.(feature|bugfix|doc|removal|misc)")


def test_news_fragments_are_named_by_issue_slug_and_type_and_say_something() -> None:
    for path in (ROOT / "newsfragments").iterdir():
        if path.name != "README.md":
            assert FRAGMENT_NAME.fullmatch(path.name), path.name
            assert path.read_text().strip(), f"{path.name} is empty"


def test_the_changelog_names_issues_by_their_number() -> None:
    towncrier = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0"]
    draft = subprocess.run(towncrier, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    fragments = [path for path in (ROOT / "newsfragments").iterdir() if path.name != "README.md"]
    assert len(re.findall(r"\(issue \d+\)$", draft, re.MULTILINE)) == len(fragments)


def test_the_import_contracts_that_contributing_explains_are_those_of_the_project() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    stated = [
        cells[0]
        for cells in table_rows(
            section((ROOT / "docs" / "contributing.md").read_text(), "The import contracts")
        )
    ][1:]
    assert len(stated) == len(contracts)
    for words, contract in zip(stated, contracts, strict=True):
        assert contract["name"].startswith(words)
