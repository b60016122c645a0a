"""The order of the ledger and the listeners, and the log line of each end of a request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from msgspec.structs import replace

from tests.gateway.fakes import Gateway, make_snapshot, request_head
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable, NotFound
from tornado_proxy.domain.identity import KeyId, Secret
from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.gateway.recorder import FinishedRequest, Recorder, RecordListeners
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.wire.redaction import Redaction

INTENT = make_intent("req_1")
REDACTION = Redaction((Secret("sk-provider-key-0123"),))


class Trace:
    """A ledger and listeners that keep the order in which they are called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        listeners = RecordListeners(
            lambda *created: self.calls.append(("created", *created)),
            lambda object_id: self.calls.append(("requested", object_id)),
        )
        self.recorder = Recorder(self, listeners)

    async def begin(self, intent: RequestIntent) -> None:
        self.calls.append(("begin", intent))

    def write_ahead(self, record: RequestRecord) -> None:
        self.calls.append(("write ahead", record))

    def finish(self, record: RequestRecord) -> None:
        self.calls.append(("finish", record))


def test_intent_goes_to_the_ledger() -> None:
    trace = Trace()

    asyncio.run(trace.recorder.begin(INTENT))

    assert trace.calls == [("begin", INTENT)]


def test_failure_of_the_ledger_reaches_the_caller_of_begin() -> None:
    gateway = Gateway(make_snapshot())
    gateway.ledger.fail("the disk is full")

    with pytest.raises(LedgerUnavailable):
        asyncio.run(gateway.recorder.begin(INTENT))


KEY = KeyId("main", "0123456789ab")


def test_created_object_belongs_to_the_project_and_the_key_of_the_intent() -> None:
    trace = Trace()

    trace.recorder.created(replace(INTENT, key=KEY), "resp_1")

    assert trace.calls == [("created", "openai", "resp_1", "project-a", KEY)]


RECORD = make_record(INTENT)


@pytest.mark.parametrize(
    ("record", "requested", "calls"),
    [
        pytest.param(RECORD, None, [("finish", RECORD)], id="no object"),
        pytest.param(RECORD, "batch_1", [("finish", RECORD), ("requested", "batch_1")], id="object in the path"),
        pytest.param(
            replace(RECORD, object_id="resp_1"),
            None,
            [("created", "openai", "resp_1", "project-a", None), ("finish", replace(RECORD, object_id="resp_1"))],
            id="created object",
        ),
        pytest.param(
            replace(RECORD, object_id="resp_1", objects=("msg_1", "cntr_1")),
            "batch_1",
            [
                ("created", "openai", "resp_1", "project-a", None),
                ("created", "openai", "msg_1", "project-a", None),
                ("created", "openai", "cntr_1", "project-a", None),
                ("finish", replace(RECORD, object_id="resp_1", objects=("msg_1", "cntr_1"))),
                ("requested", "batch_1"),
            ],
            id="created object and its parts",
        ),
        pytest.param(
            replace(RECORD, objects=("msg_1",)),
            None,
            [("created", "openai", "msg_1", "project-a", None), ("finish", replace(RECORD, objects=("msg_1",)))],
            id="created part alone",
        ),
    ],
)
def test_objects_are_owned_before_the_record_is_written_and_polled_after_it(
    record: RequestRecord, requested: str | None, calls: list[tuple[Any, ...]]
) -> None:
    trace = Trace()

    trace.recorder.finish(FinishedRequest(record, 1, REDACTION, requested))

    assert trace.calls == calls


def test_key_that_a_provider_echoes_reaches_neither_the_ledger_nor_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trace = Trace()
    record = replace(
        RECORD,
        model="gpt-sk-provider-key-0123",
        usage=r'{"note":"sk\u002dprovider-key-0123"}',
        object_id="resp_SK-PROVIDER-KEY-0123",
        objects=("msg_sk%2dprovider-key-0123",),
        upstream_request_id="req-sk-provider-key-0123-7",
        faults=("the connection broke: sk-provider-key-0123",),
    )

    trace.recorder.finish(FinishedRequest(record, 1, REDACTION))

    (_, stored) = next(call for call in trace.calls if call[0] == "finish")
    assert (stored.model, stored.object_id) == ("gpt-********************", "resp_********************")
    assert stored.usage == '{"note":"*************************"}'
    assert stored.objects == ("msg_**********************",)
    assert stored.upstream_request_id == "req-********************-7"
    assert stored.faults == ("the connection broke: ********************",)
    assert stored.cost == record.cost
    assert "provider-key" not in str(trace.calls).lower() + str(vars(caplog.records[0])).lower()


def logged(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (line,) = caplog.records
    return {"message": line.getMessage(), **vars(line)}


def test_finished_request_has_one_line_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    Trace().recorder.finish(FinishedRequest(RECORD, 7, REDACTION))

    line = logged(caplog)
    assert (line["message"], line["request_id"], line["status"], line["outcome"]) == (
        "request",
        "req_1",
        200,
        "completed",
    )
    assert (line["total_usd"], line["config_generation"]) == ("0.002362500000", 7)


@pytest.mark.parametrize("known", [True, False], ids=["caller is known", "caller is not known"])
def test_rejected_request_is_logged_and_leaves_the_ledger_alone(caplog: pytest.LogCaptureFixture, known: bool) -> None:
    trace, gateway = Trace(), Gateway(make_snapshot())
    context = gateway.admission.authenticate(gateway.snapshot, request_head())
    caplog.set_level(logging.INFO)

    trace.recorder.reject("req_1", NotFound("resp_1 was not found"), context if known else None)

    line = logged(caplog)
    assert (line["message"], line["request_id"], line["status"], line["code"]) == (
        "request rejected",
        "req_1",
        404,
        "not_found",
    )
    assert (line["method"], line["path"], line["model"]) == ("", "unknown", None)
    shown = (line["participant"], line["provider"], line["endpoint"])
    assert shown == (("ada", "openai", "/v1/chat/completions") if known else (None, None, None))
    assert trace.calls == []


def test_rejected_request_is_logged_with_its_printable_model_and_without_its_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = Gateway(make_snapshot())
    context = gateway.admission.authenticate(gateway.snapshot, request_head())
    error = NotFound("no")
    error.model = f"gpt\x1b[2J\u202e {context.token.reveal()}{'x' * 300}"
    caplog.set_level(logging.INFO)

    Trace().recorder.reject("req_1", error, context, RequestLine("PATCH" * 9, "/v1/responses/{id}"))

    line = logged(caplog)
    assert (line["method"], line["path"]) == ("PATCHPATCHPATCHPATCH", "/v1/responses/{id}")
    assert line["model"].startswith("gpt?[2J? ****")
    assert (len(line["model"]), context.token.reveal()[:40] in line["model"]) == (200, False)


def test_record_written_ahead_is_masked_and_tells_no_listener() -> None:
    trace = Trace()
    record = replace(RECORD, object_id="resp_sk-provider-key-0123")

    trace.recorder.write_ahead(FinishedRequest(record, 1, REDACTION, "batch_1"))

    assert trace.calls == [("write ahead", replace(RECORD, object_id="resp_" + "*" * 20))]


def test_masked_record_that_was_written_ahead_is_the_final_one() -> None:
    trace = Trace()
    finished = FinishedRequest(replace(RECORD, object_id="resp_sk-provider-key-0123"), 1, REDACTION)

    trace.recorder.write_ahead(finished)
    trace.recorder.finish(finished)

    (_, ahead), (_, final) = [call for call in trace.calls if call[0] in ("write ahead", "finish")]
    assert final is ahead
    assert final.object_id == "resp_" + "*" * 20
