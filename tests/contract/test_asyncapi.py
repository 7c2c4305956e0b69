"""docs/asyncapi.yaml: what AsyncAPI allows, what the code makes, and what is really on the log."""

import json
from pathlib import Path
from typing import Any

import node
import pytest
import yaml
from conformance import check_schema
from jsonschema import Draft7Validator, ValidationError
from story import Story, order

from agents import builtin
from gateway import asyncapi
from streams import codec
from streams.messages import Progress, Result
from streams.records import Failure

HERE = Path(__file__).parent
FILE = HERE.parents[1] / "docs" / "asyncapi.yaml"


def test_it_is_a_valid_document_of_asyncapi() -> None:
    node.install(HERE)
    official = HERE / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
    validator = Draft7Validator(json.loads(official.read_text()))
    document = yaml.safe_load(FILE.read_text())
    validator.validate(document)
    del document["operations"]["sendTask"]["channel"]
    with pytest.raises(ValidationError):
        validator.validate(document)


def test_it_is_what_the_code_makes() -> None:
    assert FILE.read_text() == asyncapi.text(), "write it anew: make docs"


def test_every_reference_in_it_leads_somewhere() -> None:
    document = asyncapi.document()
    references = list(_references(document))
    assert len(references) > 50
    for reference in references:
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def _references(value: Any) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _references(each)


def test_the_decisions_of_a_run_are_as_it_says() -> None:
    steps = [{"id": name, "agent": "x", "action": "y"} for name in ("a", "b")]
    story = Story({"name": "two", "nodes": steps}).start().answer("a", {"x": 1}).fail("b")
    kinds = set()
    for decision in (*story.decisions, *order().decisions):
        value = json.loads(codec.encode(decision))
        check_schema("Decision", value)
        kinds |= {event["type"] for event in value["events"]}
    assert kinds >= {"run.started", "node.approvalRequested", "node.succeeded", "node.failed"}
    value["events"][0]["type"] = "node.invented"
    with pytest.raises(ValidationError):
        check_schema("Decision", value)


@pytest.mark.parametrize(
    "record",
    [
        Result(
            run="r", node="n", attempt=1, started_at=1, finished_at=2,
            failure=Failure(kind="timeout", message="late"),
        ),
        Progress(run="r", node="n", attempt=1, item=3, percent=2.5, message="on it"),
    ],
)  # fmt: skip
def test_what_a_worker_writes_is_as_it_says(record: Result | Progress) -> None:
    value = json.loads(codec.encode(record))
    check_schema(type(record).__name__, value)
    for needed in ("v", "run", "node", "attempt"):
        with pytest.raises(ValidationError):
            check_schema(type(record).__name__, {k: v for k, v in value.items() if k != needed})


def test_the_built_in_agents_describe_themselves_as_it_says() -> None:
    for agent in builtin():
        check_schema("AgentDescriptor", agent.descriptor())
