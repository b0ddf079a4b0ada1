`l2overlay init`, `keygen`, `pubkey`, `peers add`, `peers remove` and `check` make, edit and check keys and peers.toml without a running node.
