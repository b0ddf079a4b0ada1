"""What shortens the round trip of a frame that comes alone. Everything here can be left out without a loss but time."""
