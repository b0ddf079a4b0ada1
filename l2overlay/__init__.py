"""l2overlay joins VMs, containers and LANs on different hosts into one layer-2 segment.

A node puts a TAP into a Linux bridge, learns which station (MAC address) is behind which peer, and carries whole Ethernet
frames to the other nodes in encrypted UDP datagrams. Read `overlay.py` first: it is one node without I/O, and you can follow
a frame from there. docs/architecture.md lists all files.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    """Look up `__version__` only on demand, because reading the metadata takes longer than most verbs."""
    if name != "__version__":
        raise AttributeError(f"module 'l2overlay' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("l2overlay")
    except PackageNotFoundError:  # a checkout that nobody has installed
        return "0+unknown"
