"""What `attach TOOL` prints, as data: steps, the pitfall, the check, and what undoes the steps.

Printed, a recipe is a shell script: prose is comments, and a file is a here-document. So it can be read, pasted or run.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.segment import Guest, Segment

WIDTH = 110
"""Of a comment, in characters."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: a command, or a file to write."""

    why: str
    run: str = ""
    """Lines of shell; with `file` nothing."""
    file: str = ""
    text: str = ""
    """Of the file, with a newline at its end."""
    append: bool = False
    """The file has other content already."""

    @property
    def script(self) -> str:
        """The step as lines of shell."""
        if not self.file:
            return self.run
        write = f"cat >>{self.file}" if self.append else f"install -D -m 644 /dev/stdin {self.file}"
        return f"{write} <<'END'\n{self.text}END"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one tool joins one segment."""

    steps: tuple[Step, ...]
    pitfall: str
    """What goes wrong most often, in a sentence or two."""
    checks: tuple[str, ...]
    """Commands that show that it works."""
    undo: tuple[str, ...]
    """Commands that take the steps back."""

    def script(self, head: Sequence[str] = ()) -> str:
        """The whole as a shell script; `head` comes first, as comments."""
        lines = [*(f"# {line}" for line in head)]
        for step in self.steps:
            lines += ["", f"# {step.why}", step.script]
        lines += ["", *_comment("pitfall:", self.pitfall)]
        lines += [f"# check:   {command}" for command in self.checks]
        lines += [f"# undo:    {command}" for command in self.undo]
        return "\n".join(lines)


def _comment(label: str, text: str) -> list[str]:
    indent = "# " + " " * (len(label) + 1)
    return textwrap.wrap(
        f"# {label} {text}", WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


Maker = Callable[[Segment, Guest, Version], Recipe]


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that can join a segment."""

    name: str
    """As the command line has it."""
    title: str
    make: Maker
    guest: str
    """The name of a guest if the caller gives none."""
    program: Program | None = None
    """Whose version decides about the options; None if no version matters."""
    makes_tap: bool = False
    """Its guest is behind a TAP of its own name: `--apply` makes the TAP."""
    needs_slice: bool = False
    """It cannot do without an IPv4 subnet."""
