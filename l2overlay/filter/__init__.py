"""The filter without a kernel: its rules, what it reads of a frame, and which rule decides."""
