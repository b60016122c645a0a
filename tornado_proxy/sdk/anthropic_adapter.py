"""Streams the text of a model through the proxy, by Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import anthropic

from tornado_proxy.sdk.adapter import Adapter, read_text, read_text_async
from tornado_proxy.sdk.anthropic_clients import make_async_client, make_client
from tornado_proxy.sdk.connection import ANTHROPIC, Connection, find_model

if TYPE_CHECKING:
    import httpx2
    from anthropic.types import RawMessageStreamEvent

#: The API needs a limit (Anthropic's API reference, "Create a Message", max_tokens); every model allows this one.
DEFAULT_MAX_OUTPUT_TOKENS = 4096


class AnthropicMessagesAdapter(Adapter[anthropic.Anthropic, anthropic.AsyncAnthropic]):
    """Streams the text of a model's response to a prompt.

    Close it, or use it in `with` or `async with`: it closes the clients that it has made, not one that it was given.
    """

    variables = ANTHROPIC

    def __init__(
        self,
        model: str | None = None,
        *,
        client: anthropic.Anthropic | anthropic.AsyncAnthropic | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        """Read arguments and environment variables.

        Args:
            model: The model; default: ANTHROPIC_MODEL.
            client: The client to use; astream() needs an asynchronous one.  It excludes the next two arguments.
            base_url: As for get_anthropic_client().
            api_key: As for get_anthropic_client().
            max_output_tokens: The limit of a response; default: DEFAULT_MAX_OUTPUT_TOKENS.

        Raises:
            ValueError: There is no model, URL or credential, or an argument excludes another one.
        """
        super().__init__(client, base_url, api_key)
        self.model = find_model(ANTHROPIC, model)
        self.max_output_tokens = DEFAULT_MAX_OUTPUT_TOKENS if max_output_tokens is None else max_output_tokens

    def stream(self, prompt: str) -> Iterator[str]:
        """Yield the text of the response as it arrives.

        Raises:
            anthropic.APIError: The request failed, or the response ended with an error or before its end.
            TypeError: The client that was given is asynchronous.
        """
        with self._client.messages.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=self.max_output_tokens,
            stream=True,
        ) as events:
            yield from read_text(events, _TextReader(events.response.request))

    async def astream(self, prompt: str) -> AsyncIterator[str]:
        """Yield the text of the response as it arrives; the errors are those of stream()."""
        async with await self._async_client.messages.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=self.max_output_tokens,
            stream=True,
        ) as events:
            async for piece in read_text_async(events, _TextReader(events.response.request)):
                yield piece

    def _make_client(self, connection: Connection) -> anthropic.Anthropic:
        return make_client(connection)

    def _make_async_client(self, connection: Connection) -> anthropic.AsyncAnthropic:
        return make_async_client(connection)

    def _is_asynchronous(self, client: anthropic.Anthropic | anthropic.AsyncAnthropic) -> bool:
        return isinstance(client, anthropic.AsyncAnthropic)


class _TextReader:
    """Reads the text from the events of one message, and notices whether it has ended."""

    def __init__(self, request: httpx2.Request) -> None:
        self._request = request
        self._ended = False

    def read(self, event: RawMessageStreamEvent) -> Iterator[str]:
        """Yield the text of an event, if it has some."""
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            yield event.delta.text
        self._ended = self._ended or event.type == "message_stop"

    def require_end(self) -> None:
        """Raise anthropic.APIConnectionError if the response was cut off."""
        if not self._ended:
            raise self.broken_off()

    def broken_off(self) -> anthropic.APIConnectionError:
        """Return the error of a response that was cut off."""
        return anthropic.APIConnectionError(message="the response ended before its last event", request=self._request)
