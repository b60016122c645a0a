"""/v1/messages/batches and below.  A batch runs for the simulator's `settle_s`; its results are planned at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tornado_proxy.simulator.anthropic.message_plan import message_json
from tornado_proxy.simulator.anthropic.messages import AnthropicHandler, plan_message
from tornado_proxy.simulator.anthropic.prompt import messages_prompt
from tornado_proxy.simulator.handlers.provider_errors import ProviderFault, anthropic_error
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_object, as_text, encode
from tornado_proxy.simulator.model.directives import read_directives
from tornado_proxy.simulator.object_stores import Batch

_DAY = timedelta(hours=24)


class BatchHandler(AnthropicHandler):
    """What the endpoints of batches share."""

    def found(self, batch_id: str) -> Batch:
        """The batch of that id, or the provider's 404."""
        batch = self.simulator.batches.get(batch_id)
        if batch is None:
            raise ProviderFault(404, f"Message Batch {batch_id} not found.")
        return batch

    def batch_json(self, batch: Batch) -> Json:
        """The batch as it is now."""
        ended = time.monotonic() >= batch.ends_at
        kinds = [as_text(as_object(line["result"]).get("type")) for line in batch.results]
        counts = {kind: kinds.count(kind) if ended else 0 for kind in ("succeeded", "errored", "canceled", "expired")}
        host = f"{self.request.protocol}://{self.request.host}"
        running = "canceling" if batch.cancel_initiated else "in_progress"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else running,
            "request_counts": {"processing": 0 if ended else len(kinds), **counts},
            "ended_at": batch.ended if ended else None,
            "created_at": batch.created,
            "expires_at": batch.expires,
            "archived_at": None,
            "cancel_initiated_at": batch.cancel_initiated,
            "results_url": f"{host}/v1/messages/batches/{batch.id}/results" if ended else None,
        }


class Batches(BatchHandler):
    """POST and GET /v1/messages/batches."""

    async def post(self) -> None:
        """Create a batch; directives of its first request hold for this answer, those of each for its result."""
        requests = [as_object(request) for request in as_list(self.read_json().get("requests"))]
        if not requests:
            raise ProviderFault(400, "requests: at least one request is required")
        first = messages_prompt(as_object(requests[0].get("params")))
        await self.obey(first.user_text)
        now = datetime.now(UTC)
        settle_s = self.simulator.settle_s
        batch = Batch(
            id=self.simulator.new_id("msgbatch_"),
            created=now.isoformat(),
            expires=(now + _DAY).isoformat(),
            ends_at=time.monotonic() + settle_s,
            ended=(now + timedelta(seconds=settle_s)).isoformat(),
            results=[self._line(request) for request in requests],
        )
        self.simulator.batches.put(batch.id, batch)
        await self.send_json(self.batch_json(batch))

    async def get(self) -> None:
        """The batches, newest first, a page of `limit`."""
        limit = as_count(int(self.get_query_argument("limit", "20")), 20)
        batches = list(self.simulator.batches.newest_first())
        ids = [batch.id for batch in batches]
        after, before = self.get_query_argument("after_id", ""), self.get_query_argument("before_id", "")
        start = ids.index(after) + 1 if after in ids else 0
        end = ids.index(before) if before in ids else len(ids)
        page = batches[start:end][:limit]
        answer: Json = {
            "data": [self.batch_json(batch) for batch in page],
            "has_more": start + len(page) < end,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
        await self.send_json(answer)

    def _line(self, request: Mapping[str, object]) -> Json:
        """One line of the results."""
        params = as_object(request.get("params"))
        return {"custom_id": request.get("custom_id"), "result": self._result(params)}

    def _result(self, params: Mapping[str, object]) -> Json:
        model, prompt = as_text(params.get("model")), messages_prompt(params)
        asked = read_directives(prompt.user_text)
        if asked.status or not model or model.startswith("sim-missing") or "max_tokens" not in params:
            status, what = (asked.status, "simulated") if asked.status else (400, "invalid params")
            return {"type": "errored", "error": anthropic_error(status, what, self.request_id)}
        message_id = self.simulator.new_id("msg_")
        plan = plan_message(params, prompt, asked, self.simulator.prompt_cache, message_id, self.credential())
        return {"type": "succeeded", "message": message_json(replace(plan, tier="batch"))}


class OneBatch(BatchHandler):
    """GET and DELETE /v1/messages/batches/{id}."""

    async def get(self, batch_id: str) -> None:
        """The batch as it is now."""
        await self.send_json(self.batch_json(self.found(batch_id)))

    async def delete(self, batch_id: str) -> None:
        """Forget a batch that has ended."""
        if time.monotonic() < self.found(batch_id).ends_at:
            raise ProviderFault(400, f"Message Batch {batch_id} cannot be deleted while it is in progress.")
        self.simulator.batches.pop(batch_id)
        await self.send_json({"id": batch_id, "type": "message_batch_deleted"})


class CancelBatch(BatchHandler):
    """POST /v1/messages/batches/{id}/cancel."""

    async def post(self, batch_id: str) -> None:
        """Cancel what has not ended: every request of the batch, since they end together."""
        batch = self.found(batch_id)
        if time.monotonic() < batch.ends_at and batch.cancel_initiated is None:
            batch.cancel_initiated = datetime.now(UTC).isoformat()
            for line in batch.results:
                line["result"] = {"type": "canceled"}
        await self.send_json(self.batch_json(batch))


class BatchResults(BatchHandler):
    """GET /v1/messages/batches/{id}/results."""

    async def get(self, batch_id: str) -> None:
        """The results, a JSON line each, in the reverse order of the requests: clients must go by `custom_id`."""
        batch = self.found(batch_id)
        if time.monotonic() < batch.ends_at:
            raise ProviderFault(404, f"Message Batch {batch_id} has no results yet.")
        lines = [encode(line) + b"\n" for line in reversed(batch.results)]
        await self.send_bytes(b"".join(lines), "application/x-jsonl")
