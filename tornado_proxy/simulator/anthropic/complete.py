"""POST /v1/complete, Anthropic's legacy API."""

from __future__ import annotations

from collections.abc import Iterator

from tornado_proxy.simulator.anthropic.message_plan import make_failure_events
from tornado_proxy.simulator.handlers.provider_handler import AnthropicHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, encode
from tornado_proxy.simulator.model.output import Finish, ModelOutput, encode_piece, plan_output
from tornado_proxy.simulator.openai.prompt import make_text_prompt


class Complete(AnthropicHandler):
    """POST /v1/complete.  Its responses never state usage."""

    async def post(self) -> None:
        """Respond with a completion or a stream of completion events."""
        body = self.read_json()
        model = self.check_model(body.get("model"))
        prompt = make_text_prompt(str(body.get("prompt") or ""))
        directives = await self.apply_directives(prompt.user_text)
        limit = as_count(body.get("max_tokens_to_sample"), 256)
        output = plan_output(directives, limit=limit, credential=self.find_credential())
        members: Json = {"type": "completion", "id": self.simulator.new_id("compl_"), "model": model}
        # The legacy API repeats the id under this name.
        members["log_id"] = members["id"]
        if body.get("stream") is True:
            await self.send_events(_make_completion_events(members, output), make_failure_events)
        else:
            await self.send_json({**members, "completion": output.text, **_make_stop_members(output)})


def _make_completion_events(members: Json, output: ModelOutput) -> Iterator[Event]:
    head = encode({**members, "stop_reason": None, "stop": None})[:-1] + b',"completion":'
    for piece in output.pieces:
        yield "completion", head + encode_piece(piece) + b"}"
    yield "ping", b'{"type":"ping"}'
    yield "completion", encode({**members, "completion": "", **_make_stop_members(output)})


def _make_stop_members(output: ModelOutput) -> Json:
    if output.finish is Finish.LENGTH:
        return {"stop_reason": "max_tokens", "stop": None}
    return {"stop_reason": "stop_sequence", "stop": "\n\nHuman:"}
