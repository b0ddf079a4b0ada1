"""Fuzzing: mutated input for what reads input that is not ours (`python -m tests.fuzz --help`)."""
