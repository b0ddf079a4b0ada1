"""Draws the topology of the demo as text."""

DRAWN_HOSTS = 4
"""How many hosts fit into 80 columns. With more, only the first two and the last are drawn."""
WIDTH = 19


def drawing(hosts: int) -> list[str]:
    """Lines of at most 80 columns: the underlay on top, then a column for each host with its guest below."""
    drawn = range(1, hosts + 1) if hosts <= DRAWN_HOSTS else [1, 2, hosts]
    columns = [column(number) for number in drawn]
    if hosts > DRAWN_HOSTS:
        columns.insert(2, ["", "", "", "  ...", "", "", "", "", ""])
    title = " underlay 10.77.0.0/24 fd77::/64 "
    wire = f"=={title}".ljust(WIDTH * len(columns), "=")
    rows = ["".join(cell.ljust(WIDTH) for cell in row).rstrip() for row in zip(*columns, strict=True)]
    return [wire, *rows]


def column(number: int) -> list[str]:
    """One host with its guest."""
    return [
        "       |",
        f"  under0 .{number}",
        f" +-----+------+ h{number}",
        " | node  UDP  |",
        " |  tap       |",
        " |  br-demo   |",
        " +-----+------+",
        "       |",
        f"  g{number} 10.9.0.{number}",
    ]
