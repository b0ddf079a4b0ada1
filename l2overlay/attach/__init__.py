"""How VMs, containers and lab tools join a segment. A tool is one module of `tools/`; its text is a pure function."""
