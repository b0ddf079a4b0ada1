`receive_overflow` among the drops: datagrams that the UDP socket had no room for, because the node read too slowly.
