"""Checks a document against `config.tables`, and says in plain words what pydantic found wrong."""

import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from l2overlay.config.document import Document, Fault
from l2overlay.config.positions import Path
from l2overlay.config.tables import FileTables
from l2overlay.config.values import quote
from l2overlay.suggestion import suggestion


def check_tables(document: Document) -> tuple[FileTables | None, list[Fault]]:
    """The document as models, or None and the faults of its single keys and values."""
    try:
        return FileTables.model_validate(document), []
    except ValidationError as error:
        return None, [_fault(dict(details)) for details in error.errors(include_url=False)]


def _fault(details: dict[str, Any]) -> Fault:
    path: Path = tuple(part for part in details["loc"] if part != "[key]")
    label = next((part for part in reversed(path) if isinstance(part, str)), "the file")
    match details["type"]:
        case "extra_forbidden":
            return Fault(
                path, f"unknown key {quote(label)}{suggestion(label, _keys_at(path[:-1]))}", at_key=True
            )
        case "missing" if len(path) == 1:
            return Fault(path, f"the table [{label}] is missing")
        case "missing":
            return Fault(path, f"the key {label!r} is missing here", at_key=True)
        case "literal_error":
            return Fault(path, _choice_message(label, path, details["input"]))
        case "value_error":
            return Fault(path, str(details["ctx"]["error"]))
    return Fault(path, _plain_message(label, details))


_TYPES = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}
_LENGTHS = {
    "too_long": ("max_length", "at most"),
    "too_short": ("min_length", "at least"),
    "string_too_long": ("max_length", "at most"),
    "string_too_short": ("min_length", "at least"),
}


def _plain_message(label: str, details: dict[str, Any]) -> str:
    kind = details["type"]
    if kind in _TYPES:
        return f"{label} must be {_TYPES[kind]}, not {_describe(details['input'])}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{label} must be {words} {int(details['ctx'][key])}, not {_describe(details['input'])}"
    if kind in _LENGTHS:
        key, words = _LENGTHS[kind]
        unit = "characters" if kind.startswith("string") else "entries"
        return f"{label} must have {words} {details['ctx'][key]} {unit}"
    return f"{label}: {details['msg']}"


def _describe(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return quote(str(value))[1:-1] if abs(value) < 1e18 else "a huge number"
        case str():
            return f"the text {quote(value)}"
        case list():
            return "a list"
        case dict():
            return "a table"
    return f"a {type(value).__name__}"


def _choice_message(label: str, path: Path, value: object) -> str:
    choices = [str(choice) for choice in typing.get_args(_field_at(path).annotation)]
    listed = " or ".join(repr(choice) for choice in choices)
    hint = suggestion(value, choices) if isinstance(value, str) else ""
    return f"{label} must be {listed}, not {_describe(value)}{hint}"


def _keys_at(path: Path) -> list[str]:
    """The keys that the table at `path` may have."""
    return list(_model_at(path).model_fields)


def _field_at(path: Path) -> FieldInfo:
    names = [part for part in path if isinstance(part, str)]
    return _model_at(path[: path.index(names[-1])]).model_fields[names[-1]]


def _model_at(path: Path) -> type[BaseModel]:
    model: type[BaseModel] = FileTables
    for part in path:
        if isinstance(part, str) and (inner := _model_in(model.model_fields[part].annotation)):
            model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """`PeerTable` of `list[PeerTable] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)
