"""What takes the changes of a node back, and its form as JSON in the run directory."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from l2overlay.errors import HostSetupError
from l2overlay.linux import changes
from l2overlay.linux.changes import MAX_INDEX, Change, is_link_name
from l2overlay.linux.features import FEATURES

UNDO_SCHEMA = "l2overlay.undo/1"
UNDO_KINDS: dict[str, type[Change]] = {
    kind.__name__: kind for kinds in (changes.UNDO_KINDS, *(f.undo_kinds for f in FEATURES)) for kind in kinds
}
"""By name in the file. A file of an earlier version must still be read: keep the names of the kinds and their fields."""
_FIELD_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    str | None: (str, type(None)),
    int | None: (int, type(None)),
    bool | None: (bool, type(None)),
}


@dataclass(frozen=True, slots=True)
class Undo:
    """Changes that take others back, in the order in which to make them."""

    changes: tuple[Change, ...] = ()

    @classmethod
    def of(cls, changes: Sequence[Change]) -> Self:
        """The inverses of `changes`, last first. They are known, and can be on disk, before the first is made."""
        return cls(tuple(i for i in (c.inverse for c in reversed(changes)) if i is not None))

    def after(self, earlier: "Undo") -> "Undo":
        """This one and then an earlier one. Where both restore the same thing, the earlier knows how it was at first."""
        known = {change.target for change in earlier.changes}
        return Undo((*(c for c in self.changes if c.target not in known), *earlier.changes))

    def without(self, done: Sequence[Change]) -> "Undo":
        """This one without what `done` has taken back. A change of `done` that has an inverse stays: both cancel out."""
        gone = [change for change in done if change.inverse is None]
        return Undo(tuple(change for change in self.changes if change not in gone))

    def to_json(self) -> str:
        """For a file in the run directory."""
        changes = [{"change": type(c).__name__, **dataclasses.asdict(c)} for c in self.changes]
        return json.dumps({UNDO_SCHEMA: changes}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: Any) -> Self:
        """The reverse. Raises HostSetupError for anything that `to_json` did not write."""
        try:
            document = json.loads(text)
            return cls(tuple(_change(entry) for entry in document[UNDO_SCHEMA]))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise HostSetupError(f"not a list of host changes to undo ({error!r:.200})") from None


def _change(entry: dict[str, Any]) -> Change:
    kind = UNDO_KINDS[entry["change"]]
    values = {name: value for name, value in entry.items() if name != "change"}
    for known in dataclasses.fields(kind):
        if type(values[known.name]) not in _FIELD_TYPES[known.type]:
            raise TypeError(f"{known.name} of {kind.__name__} is {values[known.name]!r:.60}")
    change = kind(**values)
    if not _is_of_ours(change):
        raise ValueError(f"{change!r:.120} is no change of ours")
    return change


def _is_of_ours(change: Change) -> bool:
    """Whether a node could have written it. The file is carried out as root, and may be damaged or forged."""
    return is_link_name(change.link) and 0 <= change.index < MAX_INDEX and change.is_plausible
