"""The Responses API over HTTP: create (JSON, stream, background), read, resume, cancel, delete, compact, count."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_object, as_text
from tornado_proxy.simulator.model.catalog import count_reasoning_tokens
from tornado_proxy.simulator.model.output import plan_output
from tornado_proxy.simulator.model.prompt import Prompt, Segment
from tornado_proxy.simulator.model.structured_output import make_structured_output
from tornado_proxy.simulator.object_stores import StoredResponse
from tornado_proxy.simulator.openai.prompt import read_responses_prompt
from tornado_proxy.simulator.openai.responses.events import make_failure_events, make_response_events
from tornado_proxy.simulator.openai.responses.plan import ENCRYPTED_CONTENT, ResponsePlan, make_responses_usage


class ResponsesHandler(ProviderHandler):
    """The base class of the endpoints of the Responses API."""

    def read_history(self, body: Json) -> tuple[Segment, ...]:
        """Return the turns before `previous_response_id` and its own; they count as input again.

        Raises:
            ProviderError: 400, the response does not exist.
        """
        previous = body.get("previous_response_id")
        if not isinstance(previous, str):
            return ()
        stored = self.find_previous(previous)
        if stored is None:
            message = f"Previous response with id '{previous}' not found."
            raise ProviderError(400, message, code="previous_response_not_found", param="previous_response_id")
        output = stored.plan.output
        # The output of a response is input of the next one, tool calls included.
        tool_calls = (Segment(f"{call.name} {call.arguments}") for call in output.tool_calls)
        return (*stored.history, Segment(output.text), *tool_calls)

    def find_previous(self, response_id: str) -> StoredResponse | None:
        """Return the earlier response, or None."""
        return self.simulator.responses.get(response_id)

    async def plan_response(self, body: Json) -> tuple[ResponsePlan, Prompt]:
        """Apply the directives of the prompt; return the response and the prompt."""
        model = self.check_model(body.get("model"))
        prompt = read_responses_prompt(body, self.read_history(body))
        directives = await self.apply_directives(prompt.user_text, tools_answered=prompt.tools_answered)
        limit = body.get("max_output_tokens")
        output = plan_output(
            directives,
            limit=None if limit is None else as_count(limit),
            thoughts=count_reasoning_tokens(model, as_object(body.get("reasoning")).get("effort")),
            credential=self.find_credential(),
            structured_text=make_structured_output(as_object(body.get("text")).get("format")),
        )
        input_tokens = self.simulator.prompt_cache.split_openai(model, prompt)
        response_id = self.simulator.new_id("resp_")
        plan = ResponsePlan(response_id, model, int(time.time()), body, output, input_tokens, not directives.no_usage)
        return plan, prompt

    def store_response(self, plan: ResponsePlan, prompt: Prompt) -> None:
        """Store the response, unless `store` is false; a background one is done after the simulator's `settle_s`."""
        # A background response is always stored: there is no other way to read it.
        background = plan.body.get("background") is True
        if plan.body.get("store") is False and not background:
            return
        ready_at = time.monotonic() + (self.simulator.settle_s if background else 0)
        stored = StoredResponse(plan, _make_input_items(plan), prompt.conversation, ready_at)
        self.simulator.responses.put(plan.id, stored)

    def find_stored(self, response_id: str) -> StoredResponse:
        """Return the stored response.

        Raises:
            ProviderError: 404, it does not exist.
        """
        stored = self.simulator.responses.get(response_id)
        if stored is None:
            raise ProviderError(404, f"Response with id '{response_id}' not found.")
        return stored


class Responses(ResponsesHandler):
    """POST /v1/responses."""

    async def post(self) -> None:
        """Respond with a JSON body, a stream, or a queued response."""
        body = self.read_json()
        plan, prompt = await self.plan_response(body)
        self.store_response(plan, prompt)
        if body.get("stream") is True:
            await self.send_events(make_response_events(plan), lambda sent: make_failure_events(plan, sent))
        elif body.get("background") is True:
            # Clients poll it until it is completed.
            await self.send_json(plan.response_json("queued"))
        else:
            await self.send_json(plan.response_json(plan.status, output=plan.output_items()))


class ResponseById(ResponsesHandler):
    """GET and DELETE /v1/responses/{id}."""

    async def get(self, response_id: str) -> None:
        """Respond with the response in its present status, or with its events after number `starting_after`."""
        stored = self.find_stored(response_id)
        if self.get_query_argument("stream", "false") != "true":
            await self.send_json(_make_state_json(stored))
            return
        after = self.get_query_argument("starting_after", "")
        if (remaining_s := stored.ready_at - time.monotonic()) > 0:
            await self.pause(remaining_s * 1000)
        # Replayed from the plan: a resumed stream has the same bytes as the first one.
        events = _generate_events_after(stored.plan, int(after) if after.isdigit() else -1)
        await self.send_events(events, lambda sent: make_failure_events(stored.plan, sent))

    async def delete(self, response_id: str) -> None:
        """Delete the response."""
        self.find_stored(response_id)
        self.simulator.responses.pop(response_id)
        await self.send_json({"id": response_id, "object": "response", "deleted": True})


class CancelResponse(ResponsesHandler):
    """POST /v1/responses/{id}/cancel."""

    async def post(self, response_id: str) -> None:
        """Cancel a background response that is in progress; one that is done stays done."""
        stored = self.find_stored(response_id)
        if stored.plan.body.get("background") is not True:
            raise ProviderError(400, "Cannot cancel a synchronous response.")
        # No usage is stated for a cancelled response.
        if time.monotonic() < stored.ready_at:
            stored.cancelled = True
        await self.send_json(_make_state_json(stored))


class ResponseInputItems(ResponsesHandler):
    """GET /v1/responses/{id}/input_items."""

    async def get(self, response_id: str) -> None:
        """Respond with the input items, newest first unless `order=asc`."""
        items = self.find_stored(response_id).input_items
        if self.get_query_argument("order", "desc") != "asc":
            items = items[::-1]
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        page: Json = {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": False}
        await self.send_json(page)


class CompactResponse(ResponsesHandler):
    """POST /v1/responses/compact."""

    async def post(self) -> None:
        """Respond with the user's messages and an opaque compaction item.

        The response names no model, as the provider's does not.
        """
        body = self.read_json()
        plan, _ = await self.plan_response(body)
        user_items = [item for item in _make_input_items(plan) if item.get("role") == "user"]
        compaction: Json = {"id": plan.item_id("cmp_"), "type": "compaction", "encrypted_content": ENCRYPTED_CONTENT}
        response: Json = {
            "id": plan.id,
            "object": "response.compaction",
            "created_at": plan.created,
            "output": [*user_items, compaction],
        }
        if plan.usage:
            response["usage"] = make_responses_usage(plan.input_tokens, plan.output)
        await self.send_json(response)


class CountInputTokens(ResponsesHandler):
    """POST /v1/responses/input_tokens."""

    async def post(self) -> None:
        """Respond with the number of tokens of the prompt."""
        body = self.read_json()
        self.check_model(body.get("model"))
        prompt = read_responses_prompt(body, self.read_history(body))
        await self.apply_directives(prompt.user_text)
        await self.send_json({"object": "response.input_tokens", "input_tokens": prompt.tokens})


def _make_state_json(stored: StoredResponse) -> Json:
    if stored.cancelled:
        return stored.plan.response_json("cancelled")
    if time.monotonic() < stored.ready_at:
        return stored.plan.response_json("in_progress")
    return stored.plan.response_json(stored.plan.status, output=stored.plan.output_items())


def _generate_events_after(plan: ResponsePlan, sequence: int) -> Iterator[Event]:
    for number, event in enumerate(make_response_events(plan)):
        if number > sequence:
            yield event


def _make_input_items(plan: ResponsePlan) -> list[Json]:
    input_ = plan.body.get("input")
    items = [{"role": "user", "content": input_}] if isinstance(input_, str) else map(as_object, as_list(input_))
    return [_make_input_item(plan, index, dict(item)) for index, item in enumerate(items)]


def _make_input_item(plan: ResponsePlan, index: int, item: Json) -> Json:
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        item["content"] = [{"type": kind, "text": content}]
    kind = as_text(item.setdefault("type", "message"))
    prefix = "msg_" if kind == "message" else "item_"
    return {"id": plan.item_id(prefix, 16 + index), "status": "completed", **item}
