"""The bytes of the mock provider's responses, events and messages."""

from __future__ import annotations

import os

from bench.frames import make_text_frame

# The shapes are those of the providers' APIs, so that the server meters them as it does in production.
_USAGE = (
    '{"prompt_tokens":19,"completion_tokens":120,"total_tokens":139,'
    '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,'
    '"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
_COMPLETION = (
    '{"id":"chatcmpl-{id}","object":"chat.completion","created":1764000000,"model":"gpt-4o-mini-2024-07-18",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"'
    + "All work and no play. "
    * 18
    + '","refusal":null,'
    '"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":' + _USAGE + ',"service_tier":"default",'
    '"system_fingerprint":"fp_bench"}'
).encode()
_MESSAGE = (
    '{"id":"msg_{id}","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"text",'
    '"text":"' + "All work and no play. " * 18 + '"}],"stop_reason":"end_turn","stop_sequence":null,'
    '"usage":{"input_tokens":19,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":'
    '{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":120,"service_tier":"standard"}}'
).encode()
#: The two places of an id, in the head and in the body, and its bytes.
_ID, _ID_BYTES = b"{id}", 16

#: Spreads consecutive numbers over all ids (Knuth, The Art of Computer Programming, volume 3, section 6.4).
_ID_FACTOR, _ID_LIMIT = 0x9E3779B97F4A7C15, 1 << 64


class CannedResponse:
    """A response whose ids differ each time, as a provider's do: the ledger's indexes cost more with such ids."""

    def __init__(self, body: bytes, request_id_header: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%b: req_{id}\r\ncontent-length: %d\r\n\r\n" % (
            request_id_header,
            len(body) - len(_ID) + _ID_BYTES,
        )
        self._first, self._second, self._third = (head + body).split(_ID)
        # The processes of the provider count from different numbers.
        self._number = int.from_bytes(os.urandom(8))

    def make(self) -> bytes:
        """Return the response with the next id."""
        self._number += 1
        name = b"%016x" % (self._number * _ID_FACTOR % _ID_LIMIT)
        return b"%b%b%b%b%b" % (self._first, name, self._second, name, self._third)


COMPLETION_RESPONSE = CannedResponse(_COMPLETION, b"x-request-id")
MESSAGE_RESPONSE = CannedResponse(_MESSAGE, b"request-id")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1764000000,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_bench",'
    b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]%b}\n\n'
)
_USAGE_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1764000000,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_bench","choices":[],"usage":'
    + _USAGE.encode()
    + b"}\n\n"
)


def encode_chunk(data: bytes) -> bytes:
    """Return `data` as a chunk of HTTP's chunked coding (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def make_event(content: bytes) -> bytes:
    """Return a chunk with an event of a chat completion's stream."""
    return encode_chunk(_EVENT % (b'{"content":"%b"}' % content, b"null", b',"usage":null'))


#: The end of a stream: the finish reason, the usage, `[DONE]` and the last chunk.
LAST_EVENTS = b"".join(
    (
        encode_chunk(_EVENT % (b"{}", b'"stop"', b',"usage":null')),
        encode_chunk(_USAGE_EVENT),
        encode_chunk(b"data: [DONE]\n\n"),
        b"0\r\n\r\n",
    )
)

_REALTIME_USAGE = (
    b'{"total_tokens":150,"input_tokens":30,"output_tokens":120,"input_token_details":{"text_tokens":30,'
    b'"audio_tokens":0,"image_tokens":0,"cached_tokens":0,"cached_tokens_details":{"text_tokens":0,"audio_tokens":0,'
    b'"image_tokens":0}},"output_token_details":{"text_tokens":20,"audio_tokens":100}}'
)

#: The first message of a realtime session.
SESSION_CREATED = make_text_frame(
    b'{"type":"session.created","event_id":"event_bench","session":{"type":"realtime","object":"realtime.session",'
    b'"id":"sess_bench","model":"gpt-realtime-2025-08-28","output_modalities":["audio"],"instructions":"",'
    b'"tools":[],"tool_choice":"auto","max_output_tokens":"inf","prompt":null,"expires_at":1900000000}}'
)


def make_message(content: bytes) -> bytes:
    """Return a WebSocket message of a realtime response."""
    return make_text_frame(
        b'{"type":"response.output_audio.delta","event_id":"event_bench","response_id":"resp_bench",'
        b'"item_id":"item_bench","output_index":0,"content_index":0,"delta":"%b"}' % content
    )


LAST_MESSAGE = make_text_frame(
    b'{"type":"response.done","event_id":"event_bench","response":{"object":"realtime.response","id":"resp_bench",'
    b'"status":"completed","status_details":null,"output":[],"conversation_id":"conv_bench",'
    b'"output_modalities":["audio"],"max_output_tokens":"inf","usage":' + _REALTIME_USAGE + b',"metadata":null}}'
)
