"""What a port may send: `[protect]` as code. The switch asks these before it forwards a frame."""
