"""/v1/messages/batches and the paths below it.

A batch takes the simulator's `settle_s`.  Its results are made when it is created and hidden until it ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tornado_proxy.simulator.anthropic.message_plan import make_message_json
from tornado_proxy.simulator.anthropic.messages import MessagesHandler
from tornado_proxy.simulator.anthropic.prompt import read_messages_prompt
from tornado_proxy.simulator.handlers.provider_errors import ProviderError, make_anthropic_error
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_object, as_text, encode
from tornado_proxy.simulator.model.directives import read_directives
from tornado_proxy.simulator.object_stores import Batch

_DAY = timedelta(hours=24)


class BatchHandler(MessagesHandler):
    """The base class of the endpoints of message batches."""

    def find_batch(self, batch_id: str) -> Batch:
        """Return the batch.

        Raises:
            ProviderError: 404, it does not exist.
        """
        batch = self.simulator.batches.get(batch_id)
        if batch is None or batch.account != self.account:
            raise ProviderError(404, f"Message Batch {batch_id} not found.")
        return batch

    @property
    def account(self) -> str:
        """The account of the request's key."""
        return self.simulator.accounts.get(self.find_credential(), "")

    def batch_json(self, batch: Batch) -> Json:
        """Return the batch in its present state."""
        ended = time.monotonic() >= batch.ends_at
        kinds = [as_text(as_object(line["result"]).get("type")) for line in batch.results]
        # The provider counts nothing but `processing` until the whole batch has ended.
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
            # An absolute URL, which SDKs follow with the client's token: a proxy has to rewrite it.
            "results_url": f"{host}/v1/messages/batches/{batch.id}/results" if ended else None,
        }


class Batches(BatchHandler):
    """POST and GET /v1/messages/batches."""

    async def post(self) -> None:
        """Create a batch.

        The directives of its first request apply to this response too; those of each request apply to its result.
        """
        requests = [as_object(request) for request in as_list(self.read_json().get("requests"))]
        if not requests:
            raise ProviderError(400, "requests: at least one request is required")
        names = [as_text(request.get("custom_id")) for request in requests]
        if len(set(names)) < len(names):
            raise ProviderError(400, "requests: custom_id must be unique within a batch")
        first = read_messages_prompt(as_object(requests[0].get("params")))
        await self.apply_directives(first.user_text)
        now = datetime.now(UTC)
        settle_s = self.simulator.settle_s
        batch = Batch(
            id=self.simulator.new_id("msgbatch_"),
            created=now.isoformat(),
            expires=(now + _DAY).isoformat(),
            # Monotonic for the state, wall clock for the times that the client sees.
            ends_at=time.monotonic() + settle_s,
            ended=(now + timedelta(seconds=settle_s)).isoformat(),
            results=[self._make_line(request) for request in requests],
            account=self.account,
        )
        self.simulator.batches.put(batch.id, batch)
        await self.send_json(self.batch_json(batch))

    async def get(self) -> None:
        """Respond with a page of `limit` batches, newest first."""
        limit = as_count(int(self.get_query_argument("limit", "20")), 20)
        batches = [batch for batch in self.simulator.batches.newest_first() if batch.account == self.account]
        ids = [batch.id for batch in batches]
        after, before = self.get_query_argument("after_id", ""), self.get_query_argument("before_id", "")
        # `after_id` pages towards older batches, `before_id` towards newer ones.
        start = ids.index(after) + 1 if after in ids else 0
        end = ids.index(before) if before in ids else len(ids)
        page = batches[start:end][:limit]
        response: Json = {
            "data": [self.batch_json(batch) for batch in page],
            "has_more": start + len(page) < end,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
        await self.send_json(response)

    def _make_line(self, request: Mapping[str, object]) -> Json:
        """Return a line of the results."""
        params = as_object(request.get("params"))
        return {"custom_id": request.get("custom_id"), "result": self._make_result(params)}

    def _make_result(self, params: Mapping[str, object]) -> Json:
        model, prompt = as_text(params.get("model")), read_messages_prompt(params)
        directives = read_directives(prompt.user_text)
        # Errors of a single request end up in its result: the batch itself succeeds.
        if directives.status or not model or model.startswith("sim-missing") or "max_tokens" not in params:
            status, message = (directives.status, "simulated") if directives.status else (400, "invalid params")
            return {"type": "errored", "error": make_anthropic_error(status, message, self.request_id)}
        plan = self.plan_message(params, prompt, directives)
        return {"type": "succeeded", "message": make_message_json(replace(plan, tier="batch"))}


class BatchById(BatchHandler):
    """GET and DELETE /v1/messages/batches/{id}."""

    async def get(self, batch_id: str) -> None:
        """Respond with the batch in its present state."""
        await self.send_json(self.batch_json(self.find_batch(batch_id)))

    async def delete(self, batch_id: str) -> None:
        """Delete a batch that has ended."""
        if time.monotonic() < self.find_batch(batch_id).ends_at:
            raise ProviderError(400, f"Message Batch {batch_id} cannot be deleted while it is in progress.")
        self.simulator.batches.pop(batch_id)
        await self.send_json({"id": batch_id, "type": "message_batch_deleted"})


class CancelBatch(BatchHandler):
    """POST /v1/messages/batches/{id}/cancel."""

    async def post(self, batch_id: str) -> None:
        """Cancel the batch if it has not ended: all its requests, since they end together."""
        batch = self.find_batch(batch_id)
        if time.monotonic() < batch.ends_at and batch.cancel_initiated is None:
            batch.cancel_initiated = datetime.now(UTC).isoformat()
            for line in batch.results:
                line["result"] = {"type": "canceled"}
        await self.send_json(self.batch_json(batch))


class BatchResults(BatchHandler):
    """GET /v1/messages/batches/{id}/results."""

    async def get(self, batch_id: str) -> None:
        """Respond with the results, one JSON line each, in the reverse order of the requests.

        The provider promises no order either: clients must match results by `custom_id`.
        """
        batch = self.find_batch(batch_id)
        if time.monotonic() < batch.ends_at:
            raise ProviderError(404, f"Message Batch {batch_id} has no results yet.")
        lines = [encode(line) + b"\n" for line in reversed(batch.results)]
        await self.send_bytes(b"".join(lines), "application/x-jsonl")
