"""The OpenAPI 3.1 description of the control socket, made from the operations themselves."""

from collections.abc import Mapping
from typing import Any

from l2overlay.control.client import ERROR_SCHEMA
from l2overlay.control.requests import EVENT_STREAM, JSON, Operation, Parameter

PREFIX = "/v1/"
ERRORS = {
    "400": "An argument does not fit.",
    "403": "This user may read, but not change something.",
    "404": "There is nothing at this path.",
    "405": "Another method is needed; `Allow` names it.",
    "409": "The node or the host refuses; the text says why.",
    "500": "The node failed; the text names the place. This is a bug.",
    "503": "Too many clients; try again.",
}


def document(operations: Mapping[str, Operation]) -> dict[str, Any]:
    """What `/v1/openapi.json` answers."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "l2overlay",
            "version": "1",
            "description": "One node. Bytes are integers, times are seconds, ages count from now.",
        },
        "paths": {f"{PREFIX}{name}": _path(name, operation) for name, operation in operations.items()},
        "components": {"schemas": {"Error": _ERROR}},
    }


_ERROR = {
    "type": "object",
    "required": ["schema", "error"],
    "properties": {
        "schema": {"const": ERROR_SCHEMA},
        "error": {"type": "string"},
        "status": {"type": "integer"},
    },
}


def _path(name: str, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": name.replace("/", "_"),
        "summary": operation.summary,
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {operation.media: {"schema": _answer(operation)}},
            }
        }
        | {status: _error(text) for status, text in ERRORS.items()},
    }
    if operation.changes:
        described["requestBody"] = {"content": {JSON: {"schema": _arguments(operation)}}}
        return {"post": described}
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    return {"get": described}


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.media != JSON:
        about = (
            "Each event's `data` is one JSON object."
            if operation.media == EVENT_STREAM
            else operation.summary
        )
        return {"type": "string", "description": about}
    return {"type": "object", "required": ["schema"], "properties": {"schema": {"const": operation.schema}}}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _type(parameter: Parameter) -> dict[str, Any]:
    return {"type": "boolean" if parameter.kind is bool else "string"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.summary,
        "schema": _type(parameter),
    }


def _arguments(operation: Operation) -> dict[str, Any]:
    properties = {p.name: {**_type(p), "description": p.summary} for p in operation.parameters}
    return {"type": "object", "properties": properties, "additionalProperties": False}
