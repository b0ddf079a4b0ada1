Three examples join containers on two hosts by what `l2overlay attach` prints: `examples/lxc` with LXC, `examples/cni` with the real CNI
plugin `bridge`, and `examples/docker` with two Docker engines.
