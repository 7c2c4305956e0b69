"""JSON Schemas of the records on the log, made from their types (`streams.records`).

Rules:
- Draft 7, as AsyncAPI 3.0 has it. A record is a component of its class's name, its docstring the
  description.
- Payloads are any JSON. Readers ignore fields that they do not know, so none are refused. A field
  that has no value is left out.
- Every record that has a format version has to say it, although readers take the one they know
  where it is missing.
"""

import re
from collections.abc import Iterable
from inspect import cleandoc
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, UNSET, inspect

REF: Final = "#/components/schemas/"

_PLAIN: Final[dict[type[inspect.Type], dict[str, Any]]] = {
    inspect.NoneType: {"type": "null"},
    inspect.BoolType: {"type": "boolean"},
    inspect.IntType: {"type": "integer"},
    inspect.FloatType: {"type": "number"},
    inspect.StrType: {"type": "string"},
    inspect.BytesType: {"type": "string", "contentEncoding": "base64"},
    inspect.DecimalType: {"type": "string", "format": "decimal"},
    inspect.RawType: {},
    inspect.AnyType: {},
}


def record_schemas(records: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    """The schema of each record, and of what they consist of, by name."""
    schemas: dict[str, Any] = {}
    for record in records:
        _schema(inspect.type_info(record), schemas)
    return dict(sorted(schemas.items()))


def _schema(found: inspect.Type, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; what it names is added to `schemas`."""
    match found:
        case inspect.Metadata(type=inner):
            return _schema(inner, schemas)
        case inspect.StructType(cls=record):
            if record.__name__ not in schemas:
                schemas[record.__name__] = {}  # first: it may contain itself
                schemas[record.__name__] = _object(found, schemas)
            return {"$ref": REF + record.__name__}
        case inspect.EnumType(cls=words):
            schemas[words.__name__] = {
                "type": "string",
                "enum": [str(word.value) for word in words],
                "description": _text(words),
            }
            return {"$ref": REF + words.__name__}
        case inspect.LiteralType(values=(value,)):
            return {"const": value}
        case inspect.LiteralType(values=values):
            return {"enum": list(values)}
        case inspect.UnionType(types=types):
            some = [each for each in types if not isinstance(each, inspect.NoneType)]
            parts = [_schema(each, schemas) for each in some]
            return parts[0] if len(parts) == 1 else {"oneOf": parts}
        case inspect.VarTupleType(item_type=item):
            return {"type": "array", "items": _schema(item, schemas)}
        case inspect.TupleType(item_types=items):
            size = len(items)
            parts = [_schema(each, schemas) for each in items]
            return {"type": "array", "items": parts, "minItems": size, "maxItems": size}
    return dict(_PLAIN[type(found)])


def _object(record: inspect.StructType, schemas: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in record.fields:
        if field.encode_name == "v":
            continue
        schema = _schema(field.type, schemas)
        if not field.required and field.default not in (UNSET, None, NODEFAULT):
            schema = _with_default(schema, field.default)
        properties[field.encode_name] = schema
        if field.required:
            required.append(field.encode_name)
    if record.tag_field is not None:
        properties = {record.tag_field: {"const": record.tag}, **properties}
        required.insert(0, record.tag_field)
    if any(field.encode_name == "v" for field in record.fields):
        properties = {"v": {"const": 1, "description": "The format version."}, **properties}
        required.insert(0, "v")
    names = {field.name: field.encode_name for field in record.fields}
    return {
        "type": "object",
        "description": re.sub(
            r"`(\w+)`", lambda word: f"`{names.get(word[1], word[1])}`", _text(record.cls)
        ),
        "properties": properties,
        "required": required,
    }


def _with_default(schema: dict[str, Any], default: Any) -> dict[str, Any]:
    if isinstance(default, msgspec.Raw):
        default = msgspec.json.decode(default)
    return {**schema, "default": list(default) if isinstance(default, tuple) else default}


def _text(documented: type) -> str:
    """The docstring as one line of prose for each paragraph."""
    paragraphs = cleandoc(documented.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
