`[segment] tos = "dscp"` copies the DSCP of the guests' packets to the outer IP header; `tos = "copy"` copies ECN as well and
brings congestion marks of the underlay back to the guests (RFC 6040). The default is `"off"`.
