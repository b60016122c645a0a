"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.anthropic.message_plan import (
    MessagePlan,
    make_failure_events,
    make_message_events,
    make_message_json,
)
from tornado_proxy.simulator.anthropic.prompt import read_messages_prompt
from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.provider_handler import AnthropicHandler
from tornado_proxy.simulator.json_values import as_count, as_list, as_object
from tornado_proxy.simulator.model.catalog import count_thinking_tokens
from tornado_proxy.simulator.model.directives import Directives
from tornado_proxy.simulator.model.output import plan_output
from tornado_proxy.simulator.model.prompt import Prompt
from tornado_proxy.simulator.model.structured_output import make_schema_output


class MessagesHandler(AnthropicHandler):
    """The base class of the endpoints that make messages."""

    def plan_message(self, body: Mapping[str, object], prompt: Prompt, directives: Directives) -> MessagePlan:
        """Return the message for the request `body`, which has a model and `max_tokens`."""
        message_id, model = self.simulator.new_id("msg_"), str(body["model"])
        # `output_format` is the name of the member in the beta of structured output.
        format_ = as_object(as_object(body.get("output_config")).get("format") or body.get("output_format"))
        output = plan_output(
            directives,
            limit=as_count(body["max_tokens"]),
            thoughts=count_thinking_tokens(body),
            credential=self.find_credential(),
            structured_text=make_schema_output(format_.get("schema")) if format_.get("type") == "json_schema" else None,
        )
        input_tokens = self.simulator.prompt_cache.split_anthropic(model, prompt)
        return MessagePlan(message_id, model, body, output, input_tokens, usage=not directives.no_usage)


class Messages(MessagesHandler):
    """POST /v1/messages."""

    async def post(self) -> None:
        """Respond with a message or a stream of events."""
        body = self.read_json()
        self._check_message(body)
        prompt = read_messages_prompt(body)
        directives = await self.apply_directives(prompt.user_text, tools_answered=prompt.tools_answered)
        plan = self.plan_message(body, prompt, directives)
        if body.get("stream") is True:
            await self.send_events(make_message_events(plan), make_failure_events)
        else:
            await self.send_json(make_message_json(plan))

    def _check_message(self, body: Mapping[str, object]) -> None:
        """Check the members that every message needs.

        Raises:
            ProviderError: no model, no messages or no `max_tokens`.
        """
        self.check_model(body.get("model"))
        if not as_list(body.get("messages")):
            raise ProviderError(400, "messages: at least one message is required")
        # Anthropic requires it, OpenAI does not: code that is ported from OpenAI often lacks it.
        if not isinstance(body.get("max_tokens"), int):
            raise ProviderError(400, "max_tokens: Field required")


class CountTokens(AnthropicHandler):
    """POST /v1/messages/count_tokens."""

    async def post(self) -> None:
        """Respond with the number of tokens of the prompt, cached or not."""
        body = self.read_json()
        self.check_model(body.get("model"))
        prompt = read_messages_prompt(body)
        await self.apply_directives(prompt.user_text)
        await self.send_json({"input_tokens": prompt.tokens})
