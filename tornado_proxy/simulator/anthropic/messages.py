"""POST /v1/messages, /v1/messages/count_tokens and the legacy /v1/complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tornado_proxy.simulator.anthropic.message_plan import MessagePlan, failure_events, message_events, message_json
from tornado_proxy.simulator.anthropic.prompt import messages_prompt
from tornado_proxy.simulator.handlers.provider_errors import ProviderFault
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_object, encode
from tornado_proxy.simulator.model.catalog import thinking_tokens
from tornado_proxy.simulator.model.directives import Directives
from tornado_proxy.simulator.model.output import Answer, Finish, piece_json, plan_answer
from tornado_proxy.simulator.model.prompt import Prompt
from tornado_proxy.simulator.model.prompt_cache import PromptCache
from tornado_proxy.simulator.model.structured_output import schema_answer
from tornado_proxy.simulator.openai.prompt import text_prompt


class AnthropicHandler(ProviderHandler):
    """An endpoint of Anthropic's API."""

    anthropic = True


class Messages(AnthropicHandler):
    """POST /v1/messages."""

    async def post(self) -> None:
        """Answer with one JSON message or a stream of events."""
        body = self.read_json()
        self.check_message(body)
        prompt = messages_prompt(body)
        asked = await self.obey(prompt.user_text, answering=not prompt.tools_answered)
        secret = self.credential()
        plan = plan_message(body, prompt, asked, self.simulator.prompt_cache, self.simulator.new_id("msg_"), secret)
        if body.get("stream") is True:
            await self.send_events(message_events(plan), failure_events)
        else:
            await self.send_json(message_json(plan))

    def check_message(self, body: Mapping[str, object]) -> None:
        """Refuse what the provider refuses in any message: no model, no messages, no `max_tokens`."""
        self.required_model(body.get("model"))
        if not as_list(body.get("messages")):
            raise ProviderFault(400, "messages: at least one message is required")
        if not isinstance(body.get("max_tokens"), int):
            raise ProviderFault(400, "max_tokens: Field required")


def plan_message(
    body: Mapping[str, object], prompt: Prompt, asked: Directives, cache: PromptCache, message_id: str, secret: str
) -> MessagePlan:
    """Decide on the answer to a message."""
    model = str(body["model"])
    format_ = as_object(as_object(body.get("output_config")).get("format") or body.get("output_format"))
    answer = plan_answer(
        asked,
        limit=as_count(body["max_tokens"]),
        thoughts=thinking_tokens(body),
        secret=secret,
        text=schema_answer(format_.get("schema")) if format_.get("type") == "json_schema" else None,
    )
    counted = cache.split_anthropic(model, prompt)
    return MessagePlan(message_id, model, body, answer, counted, usage=not asked.no_usage)


class CountTokens(AnthropicHandler):
    """POST /v1/messages/count_tokens."""

    async def post(self) -> None:
        """How many tokens the prompt has, cached or not."""
        body = self.read_json()
        self.required_model(body.get("model"))
        prompt = messages_prompt(body)
        await self.obey(prompt.user_text)
        await self.send_json({"input_tokens": prompt.tokens})


class Complete(AnthropicHandler):
    """POST /v1/complete: the legacy API, which never states usage."""

    async def post(self) -> None:
        """Answer with one completion or a stream of them."""
        body = self.read_json()
        model = self.required_model(body.get("model"))
        prompt = text_prompt(str(body.get("prompt") or ""))
        asked = await self.obey(prompt.user_text)
        answer = plan_answer(asked, limit=as_count(body.get("max_tokens_to_sample"), 256), secret=self.credential())
        members: Json = {"type": "completion", "id": self.simulator.new_id("compl_"), "model": model}
        members["log_id"] = members["id"]
        if body.get("stream") is True:
            await self.send_events(_completion_events(members, answer), failure_events)
        else:
            await self.send_json({**members, "completion": answer.text, **_stop(answer)})


def _completion_events(members: Json, answer: Answer) -> Iterator[Event]:
    head = encode({**members, "stop_reason": None, "stop": None})[:-1] + b',"completion":'
    for piece in answer.pieces:
        yield "completion", head + piece_json(piece) + b"}"
    yield "ping", b'{"type":"ping"}'
    yield "completion", encode({**members, "completion": "", **_stop(answer)})


def _stop(answer: Answer) -> Json:
    if answer.finish is Finish.LENGTH:
        return {"stop_reason": "max_tokens", "stop": None}
    return {"stop_reason": "stop_sequence", "stop": "\n\nHuman:"}
