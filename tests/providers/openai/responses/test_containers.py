"""The time of code containers: charged once, at the minimum, and never `reported`."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from tests.providers.openai.costs import subtotal
from tests.providers.openai.reports import amounts, undated
from tests.providers.openai.responses.bodies import FACTS, JSON, SSE, report_json, request, response
from tests.providers.reading import read, read_three_ways
from tests.providers.recorded import expected_lines, lines, response_body
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import RequestView
from tornado_proxy.providers.openai.responses.endpoint import make_reader, parse

FREE_TOKENS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def code_call(container_id: str) -> dict[str, Any]:
    return {"type": "code_interpreter_call", "id": "ci_1", "container_id": container_id, "code": "1 + 1"}


def shell_call(container_id: str) -> dict[str, Any]:
    return {"type": "shell_call", "id": "sh_1", "environment": {"container_id": container_id}}


def interpreter(**members: Any) -> dict[str, Any]:
    return {"type": "code_interpreter", "container": {"type": "auto"} | members}


def shell(**members: Any) -> dict[str, Any]:
    return {"type": "shell", "environment": {"type": "container_auto"} | members}


@pytest.mark.parametrize(
    ("tools", "output", "usd"),
    [
        # Five minutes at 0.0015, 0.006, 0.024 and 0.096 USD a minute.
        pytest.param([interpreter()], [code_call("cntr_1")], "0.0075", id="1g"),
        pytest.param([interpreter(memory_limit="4g")], [code_call("cntr_1")], "0.03", id="4g"),
        pytest.param([shell(memory_limit="16g")], [shell_call("cntr_1")], "0.12", id="16g, shell"),
        pytest.param([interpreter(memory_limit="64g")], [code_call("cntr_1")], "0.48", id="64g"),
        pytest.param([interpreter()], [code_call("cntr_1")] * 3, "0.0075", id="several runs in one container"),
        pytest.param([interpreter()], [code_call("cntr_1"), code_call("cntr_2")], "0.015", id="two containers"),
        pytest.param(
            [interpreter(memory_limit="4g"), shell(memory_limit="64g")],
            [code_call("cntr_1"), shell_call("cntr_2")],
            "0.51",
            id="each tool has its own memory",
        ),
        pytest.param([{"type": "code_interpreter"}], [code_call("cntr_1")], "0.0075", id="no memory is echoed: 1g"),
        pytest.param(
            [{"type": "namespace", "tools": [interpreter(memory_limit="64g")]}],
            [code_call("cntr_1")],
            "0.48",
            id="the tool of a namespace",
        ),
    ],
)
def test_new_container_is_charged_its_minimum_once(tools: list[Any], output: list[Any], usd: str) -> None:
    report = report_json(response(tools=tools, output=output, usage=FREE_TOKENS))

    assert subtotal(report, FACTS) == Decimal(usd)
    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "container_minimum")


@pytest.mark.parametrize(
    ("facts", "members"),
    [
        pytest.param(FACTS, {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, id="the tool names it"),
        pytest.param(
            FACTS,
            {"tools": [shell(type="container_reference", container_id="cntr_1")]},
            id="the shell names it",
        ),
        pytest.param(replace(FACTS, references=("cntr_1",)), {"tools": [interpreter()]}, id="the input names it"),
        pytest.param(FACTS, {"tools": [interpreter()], "previous_response_id": "resp_0"}, id="an earlier response"),
        pytest.param(FACTS, {"tools": [interpreter()], "conversation": {"id": "conv_1"}}, id="a conversation"),
        pytest.param(replace(FACTS, references=("ci_0",)), {"tools": [interpreter()]}, id="an item of an earlier one"),
    ],
)
def test_container_of_an_earlier_request_is_not_charged_twice_and_the_record_is_a_lower_bound(
    facts: Any, members: dict[str, Any]
) -> None:
    report = report_json(response(output=[code_call("cntr_1"), shell_call("cntr_1")], **members), facts)

    assert amounts(report) == {"input_tokens": 10, "output_tokens": 5}
    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "container_minimum")
    (note,) = report.faults
    assert "cntr_1" in note
    assert "its time is not in this record" in note


def test_files_of_a_new_container_do_not_make_it_an_old_one() -> None:
    report = report_json(
        response(tools=[interpreter()], output=[code_call("cntr_1")]), replace(FACTS, references=("file-1",))
    )

    assert amounts(report)["container_seconds"] == 1


def test_memory_that_the_response_does_not_echo_is_that_of_the_request() -> None:
    facts = parse(RequestView(request(tools=[interpreter(memory_limit="64g")]), "")).facts

    report = report_json(response(output=[code_call("cntr_1")], usage=FREE_TOKENS), facts)

    assert facts.spends[1:] == (Spend("gpt-4o", frozenset({Meter.CONTAINER_SECONDS}), terms=Terms(memory_limit="64g")),)
    assert subtotal(report, facts) == Decimal("0.48")


def test_stream_is_charged_as_a_json_response() -> None:
    done = response(
        tools=[interpreter(memory_limit="4g")], output=[shell_call("cntr_2"), code_call("cntr_1")], usage=FREE_TOKENS
    )
    event = b"data: " + json.dumps({"type": "response.completed", "response": done}).encode() + b"\n\n"

    report = read_three_ways(lambda: make_reader(FACTS, SSE), event)

    # The shell's container has the default memory, because no shell is among the tools.
    assert subtotal(report, FACTS) == Decimal("0.0375")
    assert report.basis is Basis.ESTIMATED


def test_recorded_container_is_charged_and_named_in_a_note() -> None:
    report = read(make_reader(FACTS, JSON), [response_body("responses-code-interpreter")])

    (note,) = report.faults
    assert note.startswith("container cntr_6903bf2c0470819090b2b1e63e0b66800c139a5d654a42ec is charged its minimum")
    tokens = ("gpt-5-nano", "input_tokens", Decimal(2283)), ("gpt-5-nano", "output_tokens", Decimal(1928))
    assert undated(lines([report])) == [("gpt-5-nano", "container_seconds", Decimal(1)), *tokens]
    assert list(tokens) == expected_lines("responses-code-interpreter")


def test_compaction_repeats_the_runs_of_its_request_and_runs_nothing() -> None:
    report = report_json(response(object="response.compaction", output=[code_call("cntr_1")]))

    assert (report.basis, amounts(report)) == (Basis.REPORTED, {"input_tokens": 10, "output_tokens": 5})


def test_broken_stream_is_charged_the_container_that_ran() -> None:
    created = response(status="in_progress", usage=None, output=[], tools=[interpreter(memory_limit="64g")])
    events = (
        {"type": "response.created", "response": created},
        {"type": "response.output_item.done", "output_index": 0, "item": code_call("cntr_1")},
        {"type": "response.output_text.delta", "delta": "4"},
    )
    sent = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)

    report = read_three_ways(lambda: make_reader(FACTS, SSE), sent)

    assert (report.basis, amounts(report)["container_seconds"]) == (Basis.ESTIMATED, 1)
    assert report.faults[-1].startswith("container cntr_1 is charged its minimum")


def test_response_that_ran_no_code_is_reported() -> None:
    report = report_json(response(tools=[interpreter(memory_limit="64g")], output=[{"type": "message", "id": "msg_1"}]))

    assert (report.basis, report.estimate_method, report.faults) == (Basis.REPORTED, None, ())
