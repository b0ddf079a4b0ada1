"""What one broadcast costs a node with many peers: a hundred real sessions, no sockets."""


def flooding_time(peers: int) -> float:
    """Median seconds from one broadcast frame to the bursts for every peer."""
    raise NotImplementedError
