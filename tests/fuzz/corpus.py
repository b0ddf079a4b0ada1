"""Valid peers.toml files, for the two of `tests/dataplane/insider.py`, and what it means that a node works."""

from tests.dataplane.insider import INSIDER_KEY, NODE_KEY, Meeting
from tests.dataplane.test_inbox import frame_record
from tests.stanzas import example_key, stanza

HERE, THERE = bytes.fromhex("52540000bb01"), bytes.fromhex("52540000bb02")
"""Stations of no mutated frame: what one of those has done to its own station is no fault."""
GOOD = HERE + THERE + b"\x08\x00" + b"a good frame".ljust(46)
PLAIN = '[segment]\nname = "lan"\n' + stanza("node", NODE_KEY) + stanza("insider", INSIDER_KEY)

RICH = """\
[segment]
name = "lan"
bridge = "br-lan"
tap = "tap-lan"
mtu = 1500
ageing_time = 300
listen = 7470
suite = "aes-gcm"
addresses = { node = ["10.9.0.1/24", "fd00:9::1/64"], insider = ["10.9.0.2/24"] }

""" + "\n".join(
    (
        stanza("node", NODE_KEY, 'endpoint = "192.0.2.1:7470"', 'macs = ["52:54:00:00:aa:01"]'),
        stanza(
            "insider",
            INSIDER_KEY,
            'endpoint = "[2001:db8::1]:7470"',
            'learn = "locked"',
            "max_macs = 100",
            "persistent_keepalive = 0",
        ),
        stanza("third", example_key(3), 'macs = ["52:54:00:00:aa:03", "52-54-00-00-aa-04"]', 'learn = "off"'),
    )
)

PROTECTED = (
    PLAIN
    + """
[protect]
arp_spoof_guard = "on"
bpdu = "drop"
lldp = "pass"
dhcp_servers = ["node", "52:54:00:00:aa:07"]
router_advertisements = ["insider"]
isolation = ["52:54:00:00:aa:01", "52:54:00:00:aa:02"]
ethertypes_deny = ["pppoe", 35020, "0x88f7"]
loop_guard = "off"
storm_control = "on"

[protect.bindings]
"52:54:00:00:aa:01" = ["10.9.0.7", "fd00::7"]

[protect.storm]
broadcast = { frames = 5000, burst = 1.5 }
multicast = { bytes = 125000 }
unknown_unicast = { frames = 2000, bytes = 250000 }
"""
)

FILTERED = (
    RICH
    + """
[filter]
default_in = "drop"
default_out = "accept"
tagged = "drop"

[filter.groups]
admins = ["10.9.0.0/28", "fd09::1", "52:54:00:12:34:56", "insider"]
web = ["10.9.0.80/32"]
boxes = ["52:54:00:00:aa:01"]

[[filter.rules]]
direction = "in"
action = "accept"
protocol = "tcp"
source = ["@admins", "third"]
destination = "@web"
ports = [22, "8000-8010"]
source_ports = "1024-65535"
state = "new"
comment = "from the admins"

[[filter.rules]]
direction = "in"
action = "log"
protocol = "icmp"
icmp_types = ["echo-request", "packet-too-big"]
rate = "10/s"
burst = 20

[[filter.rules]]
direction = "out"
action = "reject"
protocol = 89
destination = "fd00::/8"

[[filter.security_groups]]
name = "guests"
stations = ["@boxes", "52:54:00:00:aa:09"]
default_out = "drop"

[[filter.security_groups.rules]]
direction = "in"
remote = "@admins"
protocol = "udp"
ports = 53
"""
)

FILES = (PLAIN, RICH, PROTECTED, FILTERED)


def working(meeting: Meeting) -> bool:
    """Whether a frame still goes through in either direction."""
    meeting.settle()
    if meeting.say(frame_record(GOOD)) != [[bytes(10) + GOOD]]:
        return False
    meeting.sent()
    meeting.read_from_tap(bytes(10) + THERE + HERE + GOOD[12:])
    return any(GOOD[12:] in plaintext for plaintext in meeting.opened())
