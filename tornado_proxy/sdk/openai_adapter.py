"""Streams the text of a model through the proxy, by OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import openai

from tornado_proxy.sdk.adapter import Adapter, read_text, read_text_async
from tornado_proxy.sdk.connection import OPENAI, Connection, find_model
from tornado_proxy.sdk.openai_clients import make_async_client, make_client

if TYPE_CHECKING:
    import httpx2
    from openai.types.responses import ResponseStreamEvent


class OpenAIResponsesAdapter(Adapter[openai.OpenAI, openai.AsyncOpenAI]):
    """Streams the text of a model's response to a prompt.

    Close it, or use it in `with` or `async with`: it closes the clients that it has made, not one that it was given.
    """

    variables = OPENAI

    def __init__(
        self,
        model: str | None = None,
        *,
        client: openai.OpenAI | openai.AsyncOpenAI | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        """Read arguments and environment variables.

        Args:
            model: The model; default: OPENAI_MODEL.
            client: The client to use; astream() needs an asynchronous one.  It excludes the next two arguments.
            base_url: As for get_openai_client().
            api_key: As for get_openai_client().
            max_output_tokens: The limit of a response; default: that of the model.

        Raises:
            ValueError: There is no model, URL or credential, or an argument excludes another one.
        """
        super().__init__(client, base_url, api_key)
        self.model = find_model(OPENAI, model)
        self.max_output_tokens = max_output_tokens

    def stream(self, prompt: str) -> Iterator[str]:
        """Yield the text of the response as it arrives.

        Raises:
            openai.APIError: The request failed, or the response ended with an error or before its end.
            TypeError: The client that was given is asynchronous.
        """
        with self._client.responses.create(
            model=self.model, input=prompt, stream=True, max_output_tokens=self.max_output_tokens
        ) as events:
            yield from read_text(events, _TextReader(events.response.request))

    async def astream(self, prompt: str) -> AsyncIterator[str]:
        """Yield the text of the response as it arrives; the errors are those of stream()."""
        async with await self._async_client.responses.create(
            model=self.model, input=prompt, stream=True, max_output_tokens=self.max_output_tokens
        ) as events:
            async for piece in read_text_async(events, _TextReader(events.response.request)):
                yield piece

    def _make_client(self, connection: Connection) -> openai.OpenAI:
        return make_client(connection)

    def _make_async_client(self, connection: Connection) -> openai.AsyncOpenAI:
        return make_async_client(connection)

    def _is_asynchronous(self, client: openai.OpenAI | openai.AsyncOpenAI) -> bool:
        return isinstance(client, openai.AsyncOpenAI)


class _TextReader:
    """Reads the text from the events of one response, and notices whether it has ended."""

    def __init__(self, request: httpx2.Request) -> None:
        self._request = request
        self._ended = False

    def read(self, event: ResponseStreamEvent) -> Iterator[str]:
        """Yield the text of an event, if it has some.

        Raises:
            openai.APIError: The event says that the response failed.
        """
        if event.type in ("response.output_text.delta", "response.refusal.delta"):
            yield event.delta
        elif event.type == "error":
            raise openai.APIError(event.message, self._request, body=event.model_dump())
        elif event.type == "response.failed":
            error = event.response.error
            message = error.message if error else "the response failed"
            raise openai.APIError(message, self._request, body=error.model_dump() if error else None)
        self._ended = self._ended or event.type in ("response.completed", "response.incomplete")

    def require_end(self) -> None:
        """Raise openai.APIConnectionError if the response was cut off."""
        if not self._ended:
            raise self.broken_off()

    def broken_off(self) -> openai.APIConnectionError:
        """Return the error of a response that was cut off."""
        return openai.APIConnectionError(message="the response ended before its last event", request=self._request)
