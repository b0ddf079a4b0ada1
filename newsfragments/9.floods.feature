Under a flood of datagrams that no peer sealed, the kernel drops them by a filter on the socket; the node tells when that begins and ends, and counts them as `flood_filtered`.
