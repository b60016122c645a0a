"""The Responses API: create (JSON, stream, background), read, resume, cancel, delete, compact, count."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tornado_proxy.simulator.handlers.provider_errors import ProviderFault
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_object, as_text
from tornado_proxy.simulator.model.catalog import reasoning_tokens
from tornado_proxy.simulator.model.output import plan_answer
from tornado_proxy.simulator.model.prompt import Prompt, Segment
from tornado_proxy.simulator.model.structured_output import openai_answer
from tornado_proxy.simulator.object_stores import StoredResponse
from tornado_proxy.simulator.openai.prompt import responses_prompt
from tornado_proxy.simulator.openai.responses.events import failure_events, response_events
from tornado_proxy.simulator.openai.responses.plan import ENCRYPTED, ResponsePlan, responses_usage


class ResponsesHandler(ProviderHandler):
    """What the endpoints of the Responses API share."""

    def history(self, body: Json) -> tuple[Segment, ...]:
        """The turns that `previous_response_id` stands for; they count as input again."""
        previous = body.get("previous_response_id")
        if not isinstance(previous, str):
            return ()
        stored = self.remembered(previous)
        if stored is None:
            message = f"Previous response with id '{previous}' not found."
            raise ProviderFault(400, message, code="previous_response_not_found", param="previous_response_id")
        answer = stored.plan.answer
        calls = (Segment(f"{call.name} {call.arguments}") for call in answer.calls)
        return (*stored.history, Segment(answer.text), *calls)

    def remembered(self, response_id: str) -> StoredResponse | None:
        """The earlier response of that id."""
        return self.simulator.responses.get(response_id)

    async def plan(self, body: Json) -> tuple[ResponsePlan, Prompt]:
        """Obey the prompt and decide on the answer."""
        model = self.required_model(body.get("model"))
        prompt = responses_prompt(body, self.history(body))
        asked = await self.obey(prompt.user_text, answering=not prompt.tools_answered)
        limit = body.get("max_output_tokens")
        answer = plan_answer(
            asked,
            limit=None if limit is None else as_count(limit),
            thoughts=reasoning_tokens(model, as_object(body.get("reasoning")).get("effort")),
            secret=self.credential(),
            text=openai_answer(as_object(body.get("text")).get("format")),
        )
        counted = self.simulator.prompt_cache.split_openai(model, prompt)
        response_id = self.simulator.new_id("resp_")
        plan = ResponsePlan(response_id, model, int(time.time()), body, answer, counted, not asked.no_usage)
        return plan, prompt

    def keep(self, plan: ResponsePlan, prompt: Prompt) -> None:
        """Store the response, unless `store` is false; a background one is done after the simulator's `settle_s`."""
        background = plan.body.get("background") is True
        if plan.body.get("store") is False and not background:
            return
        ready_at = time.monotonic() + (self.simulator.settle_s if background else 0)
        stored = StoredResponse(plan, _input_items(plan), prompt.conversation, ready_at)
        self.simulator.responses.put(plan.id, stored)

    def stored(self, response_id: str) -> StoredResponse:
        """The response of that id, or the provider's 404."""
        stored = self.simulator.responses.get(response_id)
        if stored is None:
            raise ProviderFault(404, f"Response with id '{response_id}' not found.")
        return stored


class Responses(ResponsesHandler):
    """POST /v1/responses."""

    async def post(self) -> None:
        """Answer with one JSON body, a stream, or a queued response."""
        body = self.read_json()
        plan, prompt = await self.plan(body)
        self.keep(plan, prompt)
        if body.get("stream") is True:
            await self.send_events(response_events(plan), lambda sent: failure_events(plan, sent))
        elif body.get("background") is True:
            await self.send_json(plan.response_json("queued"))
        else:
            await self.send_json(plan.response_json(plan.status, output=plan.output()))


class OneResponse(ResponsesHandler):
    """GET and DELETE /v1/responses/{id}."""

    async def get(self, response_id: str) -> None:
        """The response as it is now, or its events again, after `starting_after`."""
        stored = self.stored(response_id)
        if self.get_query_argument("stream", "false") != "true":
            await self.send_json(_state(stored))
            return
        after = self.get_query_argument("starting_after", "")
        if (left := stored.ready_at - time.monotonic()) > 0:
            await self.pause(left * 1000)
        events = _events_after(stored.plan, int(after) if after.isdigit() else -1)
        await self.send_events(events, lambda sent: failure_events(stored.plan, sent))

    async def delete(self, response_id: str) -> None:
        """Forget the response."""
        self.stored(response_id)
        self.simulator.responses.pop(response_id)
        await self.send_json({"id": response_id, "object": "response", "deleted": True})


class CancelResponse(ResponsesHandler):
    """POST /v1/responses/{id}/cancel."""

    async def post(self, response_id: str) -> None:
        """Cancel a background response that still runs; one that is done stays as it is."""
        stored = self.stored(response_id)
        if stored.plan.body.get("background") is not True:
            raise ProviderFault(400, "Cannot cancel a synchronous response.")
        if time.monotonic() < stored.ready_at:
            stored.cancelled = True
        await self.send_json(_state(stored))


class ResponseInputItems(ResponsesHandler):
    """GET /v1/responses/{id}/input_items."""

    async def get(self, response_id: str) -> None:
        """The input, newest first unless `order=asc`."""
        items = self.stored(response_id).input_items
        if self.get_query_argument("order", "desc") != "asc":
            items = items[::-1]
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        page: Json = {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": False}
        await self.send_json(page)


class CompactResponse(ResponsesHandler):
    """POST /v1/responses/compact."""

    async def post(self) -> None:
        """The user's messages and one opaque compaction item; names no model, as the provider's answer does not."""
        body = self.read_json()
        plan, _ = await self.plan(body)
        users = [item for item in _input_items(plan) if item.get("role") == "user"]
        compaction: Json = {"id": plan.item_id("cmp_"), "type": "compaction", "encrypted_content": ENCRYPTED}
        answer: Json = {
            "id": plan.id,
            "object": "response.compaction",
            "created_at": plan.created,
            "output": [*users, compaction],
        }
        if plan.usage:
            answer["usage"] = responses_usage(plan.counted, plan.answer)
        await self.send_json(answer)


class CountInputTokens(ResponsesHandler):
    """POST /v1/responses/input_tokens."""

    async def post(self) -> None:
        """How many tokens the body's prompt has."""
        body = self.read_json()
        self.required_model(body.get("model"))
        prompt = responses_prompt(body, self.history(body))
        await self.obey(prompt.user_text)
        await self.send_json({"object": "response.input_tokens", "input_tokens": prompt.tokens})


def _state(stored: StoredResponse) -> Json:
    if stored.cancelled:
        return stored.plan.response_json("cancelled")
    if time.monotonic() < stored.ready_at:
        return stored.plan.response_json("in_progress")
    return stored.plan.response_json(stored.plan.status, output=stored.plan.output())


def _events_after(plan: ResponsePlan, sequence: int) -> Iterator[Event]:
    for number, event in enumerate(response_events(plan)):
        if number > sequence:
            yield event


def _input_items(plan: ResponsePlan) -> list[Json]:
    given = plan.body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else map(as_object, as_list(given))
    return [_input_item(plan, index, dict(item)) for index, item in enumerate(items)]


def _input_item(plan: ResponsePlan, index: int, item: Json) -> Json:
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        item["content"] = [{"type": kind, "text": content}]
    kind = as_text(item.setdefault("type", "message"))
    prefix = "msg_" if kind == "message" else "item_"
    return {"id": plan.item_id(prefix, 16 + index), "status": "completed", **item}
