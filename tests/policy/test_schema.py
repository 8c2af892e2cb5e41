"""The exported JSON Schemas accept the templates and refuse what the loader refuses."""

import json
import re

import pytest

from guardrail.policy.schema import json_schema
from guardrail.policy.suite_schema import suite_json_schema
from guardrail.policy.template import FAMILIES, template
from guardrail.policy.yaml_source import read_document

TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, (list, tuple)),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "null": lambda v: v is None,
}
CHECKS = {
    "type": lambda want, v, s, root: TYPES[want](v),
    "const": lambda want, v, s, root: v == want,
    "enum": lambda want, v, s, root: v in want,
    "$ref": lambda want, v, s, root: valid(v, root["$defs"][want.removeprefix("#/$defs/")], root),
    "anyOf": lambda want, v, s, root: any(valid(v, option, root) for option in want),
    "oneOf": lambda want, v, s, root: sum(valid(v, option, root) for option in want) == 1,
    "required": lambda want, v, s, root: not isinstance(v, dict) or set(want) <= v.keys(),
    "minimum": lambda want, v, s, root: not TYPES["number"](v) or v >= want,
    "maximum": lambda want, v, s, root: not TYPES["number"](v) or v <= want,
    "exclusiveMinimum": lambda want, v, s, root: not TYPES["number"](v) or v > want,
    "exclusiveMaximum": lambda want, v, s, root: not TYPES["number"](v) or v < want,
    "minLength": lambda want, v, s, root: not isinstance(v, str) or len(v) >= want,
    "maxLength": lambda want, v, s, root: not isinstance(v, str) or len(v) <= want,
    "pattern": lambda want, v, s, root: not isinstance(v, str) or re.search(want, v),
    "minItems": lambda want, v, s, root: not TYPES["array"](v) or len(v) >= want,
    "maxItems": lambda want, v, s, root: not TYPES["array"](v) or len(v) <= want,
    "minProperties": lambda want, v, s, root: not isinstance(v, dict) or len(v) >= want,
    "maxProperties": lambda want, v, s, root: not isinstance(v, dict) or len(v) <= want,
    "items": lambda want, v, s, root: not TYPES["array"](v) or all(valid(item, want, root) for item in v),
    "properties": lambda want, v, s, root: (
        not isinstance(v, dict) or all(valid(v[k], sub, root) for k, sub in want.items() if k in v)
    ),
    "patternProperties": lambda want, v, s, root: (
        not isinstance(v, dict)
        or all(valid(x, sub, root) for p, sub in want.items() for k, x in v.items() if re.search(p, str(k)))
    ),
    "additionalProperties": lambda want, v, s, root: (
        not isinstance(v, dict)
        or all(want is True or (want is not False and valid(v[k], want, root)) for k in extra(v, s))
    ),
}
ANNOTATIONS = {"title", "description", "default", "discriminator", "propertyNames", "$schema", "$id", "$defs"}


def extra(value, schema):
    patterns = schema.get("patternProperties", {})
    return [
        k for k in value if k not in schema.get("properties", {}) and not any(re.search(p, str(k)) for p in patterns)
    ]


def valid(value, schema, root):
    """The part of JSON Schema 2020-12 that the exported schemas use; an unknown keyword is an error."""
    assert schema.keys() <= CHECKS.keys() | ANNOTATIONS, schema.keys() - CHECKS.keys() - ANNOTATIONS
    return all(CHECKS[key](want, value, schema, root) for key, want in schema.items() if key in CHECKS)


def data(text):
    return read_document(text, "d.yaml").root.data()


@pytest.mark.parametrize("schema", [json_schema(), suite_json_schema()], ids=["policy", "suite"])
def test_it_says_what_it_is(schema):
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith("urn:guardrail:v1:")
    assert schema["title"]
    assert all("description" in definition for definition in schema["$defs"].values())
    json.dumps(schema)


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_are_valid(family):
    files = template("my-policy", family)
    assert valid(data(files["policy.yaml"]), json_schema(), json_schema())
    assert valid(data(files["suite.yaml"]), suite_json_schema(), suite_json_schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: ratio", "kind: rato"),
        ("delta: 0.05", "delta: 1.5"),
        ("name: p", "name: P"),
        ("bound:", "boud:"),
        ("decide: reject", "decide: accept"),
        ("count: integer", "count: int"),
        ("  dry: bool", "  1dry: bool"),
        ("points: 11, sd: 1", "points: 11, sd: 1, x: 1"),
    ],
)
def test_what_the_loader_refuses_is_invalid(documents, edited, old, new):
    schema = json_schema()
    assert valid(data(documents["logistic"]), schema, schema)
    assert not valid(data(edited("logistic", (old, new))), schema, schema)
