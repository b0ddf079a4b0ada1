Two examples join containers on two hosts by what `l2overlay attach` prints: `examples/lxc` with LXC, and `examples/cni` with the real CNI
plugin `bridge`.
