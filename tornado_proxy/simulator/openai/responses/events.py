"""The events of a response in the order in which the Responses API streams them.

    created (queued) in_progress
      output_item.added  reasoning   [summary part added, text deltas, text done, part done]   output_item.done
      output_item.added  message     content_part.added, deltas, done, content_part.done       output_item.done
      output_item.added  call        arguments deltas, arguments done                          output_item.done
    completed | incomplete

`sequence_number` counts all events from 0.  The stream has no `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, encode
from tornado_proxy.simulator.model.directives import ToolCall
from tornado_proxy.simulator.model.output import Finish, encode_piece, split_arguments
from tornado_proxy.simulator.openai.responses.plan import ResponsePlan


def make_response_events(plan: ResponsePlan) -> Iterator[Event]:
    """Generate all events of the response."""
    return _EventSource(plan).generate()


def make_failure_events(plan: ResponsePlan, sent: int) -> list[Event]:
    """Return the events that replace the rest of a stream when the provider fails after `sent` events."""
    # `error` reports the failure of the stream, `response.failed` that of the response; clients may read either.
    error: Json = {"type": "server_error", "code": "server_error", "message": "simulated failure", "param": None}
    failed = plan.response_json("failed", error={"code": "server_error", "message": "simulated failure"})
    return [
        ("error", encode({"type": "error", "sequence_number": sent, "error": error})),
        ("response.failed", encode({"type": "response.failed", "sequence_number": sent + 1, "response": failed})),
    ]


class _EventSource:
    """Generates the events; `_index` is the output index of the present item."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._plan = plan
        self._sequence = count()
        self._index = 0

    def generate(self) -> Iterator[Event]:
        plan = self._plan
        # Only background responses are ever queued.
        opening = ["created", "queued", "in_progress"] if plan.body.get("background") else ["created", "in_progress"]
        for kind in opening:
            status = "queued" if kind == "queued" else "in_progress"
            yield self._make_event(f"response.{kind}", response=plan.response_json(status))
        if plan.output.thoughts:
            yield from self._generate_reasoning()
        if plan.output.pieces:
            yield from self._generate_message()
        for index, call in enumerate(plan.output.tool_calls):
            yield from self._generate_call(call, index)
        yield self._make_event(
            f"response.{plan.status}", response=plan.response_json(plan.status, output=plan.output_items())
        )

    def _make_event(self, kind: str, **members: object) -> Event:
        return kind, encode({"type": kind, "sequence_number": next(self._sequence), **members})

    def _make_deltas(self, kind: str, item_id: str, pieces: Iterator[bytes], extra: bytes) -> Iterator[Event]:
        """Generate deltas.  They are most of a stream, so they are joined from bytes, without an encoder."""
        head = b'{"type":"%b","item_id":"%b","output_index":%d,' % (kind.encode(), item_id.encode(), self._index)
        for piece in pieces:
            # Members in the order in which they are cheapest to join; JSON objects have none.
            yield kind, head + b'"sequence_number":%d,"delta":%b%b}' % (next(self._sequence), piece, extra)

    def _make_item_added(self, item: Json) -> Event:
        return self._make_event("response.output_item.added", output_index=self._index, item=item)

    def _make_item_done(self, item: Json) -> Event:
        event = self._make_event("response.output_item.done", output_index=self._index, item=item)
        self._index += 1
        return event

    def _generate_reasoning(self) -> Iterator[Event]:
        plan = self._plan
        yield self._make_item_added(plan.reasoning_item(done=False))
        if plan.has_summary:
            position: Json = {"item_id": plan.item_id("rs_"), "output_index": self._index, "summary_index": 0}
            text, kind = "".join(plan.output.thoughts), "response.reasoning_summary"
            yield self._make_event(f"{kind}_part.added", **position, part={"type": "summary_text", "text": ""})
            pieces = map(encode_piece, plan.output.thoughts)
            yield from self._make_deltas(f"{kind}_text.delta", plan.item_id("rs_"), pieces, b',"summary_index":0')
            yield self._make_event(f"{kind}_text.done", **position, text=text)
            yield self._make_event(f"{kind}_part.done", **position, part={"type": "summary_text", "text": text})
        yield self._make_item_done(plan.reasoning_item())

    def _generate_message(self) -> Iterator[Event]:
        plan, text = self._plan, self._plan.output.text
        refused = plan.output.finish is Finish.REFUSAL
        kind = "response.refusal" if refused else "response.output_text"
        position: Json = {"item_id": plan.item_id("msg_"), "output_index": self._index, "content_index": 0}
        yield self._make_item_added(plan.message_item("in_progress", []))
        yield self._make_event("response.content_part.added", **position, part=plan.content_part(""))
        # A refusal has no log probabilities.
        extra = b',"content_index":0' if refused else b',"content_index":0,"logprobs":[]'
        yield from self._make_deltas(
            f"{kind}.delta", plan.item_id("msg_"), map(encode_piece, plan.output.pieces), extra
        )
        ended: Json = {"refusal": text} if refused else {"text": text, "logprobs": []}
        yield self._make_event(f"{kind}.done", **position, **ended)
        yield self._make_event("response.content_part.done", **position, part=plan.content_part(text))
        yield self._make_item_done(plan.message_item("completed", [plan.content_part(text)]))

    def _generate_call(self, call: ToolCall, index: int) -> Iterator[Event]:
        plan, custom = self._plan, self._plan.is_custom(call)
        item_id = plan.item_id("ctc_" if custom else "fc_", index)
        kind = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
        yield self._make_item_added(plan.call_item(call, index, done=False))
        yield from self._make_deltas(f"{kind}.delta", item_id, map(encode, split_arguments(call.arguments)), b"")
        ended: Json = {"input": call.arguments} if custom else {"arguments": call.arguments, "name": call.name}
        yield self._make_event(f"{kind}.done", item_id=item_id, output_index=self._index, **ended)
        yield self._make_item_done(plan.call_item(call, index, done=True))
