"""The control socket of a node: what a verb asks (`client`), who is answered (`server`) and with what (`requests`)."""
