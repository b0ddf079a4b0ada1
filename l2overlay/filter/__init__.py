"""The filter without a kernel: what a frame is, and which rule would decide about it."""
