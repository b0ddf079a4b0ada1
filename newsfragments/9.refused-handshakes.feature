A node now says why a handshake comes to nothing (another key, psk, suite, segment name, a clock that is behind): as an
event, in `status` and in `doctor`, with the stanza to paste for an unknown key. It also says when a peer's MTU differs.
