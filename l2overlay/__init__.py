"""l2overlay: VMs, containers and LANs on different hosts as one layer-2 segment.

A node opens a TAP in a Linux bridge, learns which station (MAC) lives behind which peer, and carries whole Ethernet
frames to the other nodes in encrypted UDP datagrams. Read `overlay.py` first: it is one node without I/O, and a frame
can be followed from there. docs/architecture.md has the map.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    """`__version__` is looked up when it is asked for: reading the metadata takes longer than most verbs."""
    if name != "__version__":
        raise AttributeError(f"module 'l2overlay' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("l2overlay")
    except PackageNotFoundError:  # a checkout that nobody has installed
        return "0+unknown"
