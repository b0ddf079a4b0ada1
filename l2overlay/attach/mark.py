"""The alias of a link that `attach` made: `l2overlay attach SEGMENT KIND NAME`, and `made` if it made the namespace too.

`ip link` shows it. `detach` looks for it and for nothing else, so it needs no file and survives a restart of anything.
"""

from dataclasses import dataclass
from typing import Self

from l2overlay.linux.feature import ALIAS_PREFIX

KINDS = ("netns", "tap")
_PREFIX = f"{ALIAS_PREFIX}attach "
_MADE = "made"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a link was made for."""

    segment: str
    kind: str
    """One of `KINDS`."""
    name: str
    """Of the namespace or of the TAP."""
    made_namespace: bool = False

    @property
    def alias(self) -> str:
        words = [self.segment, self.kind, self.name, *([_MADE] if self.made_namespace else [])]
        return _PREFIX + " ".join(words)

    @classmethod
    def from_alias(cls, alias: str) -> Self | None:
        """The reverse; None for an alias of another kind."""
        words = alias.removeprefix(_PREFIX).split(" ") if alias.startswith(_PREFIX) else []
        if len(words) not in (3, 4) or words[1] not in KINDS or words[3:] not in ([], [_MADE]):
            return None
        return cls(words[0], words[1], words[2], made_namespace=len(words) == 4)
