"""/v1/chat/completions: parses requests and chooses the usage reader and the edit of a response.

A stream states usage only if the request asks for it, so the proxy asks (docs/decisions/0001), and usage_hider.py
removes the usage that the client did not ask for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits, limit_work
from tornado_proxy.domain.terms import make_terms
from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.providers.contract import (
    HttpEndpoint,
    ParsedRequest,
    RequestView,
    ResponseEdit,
    ResponseEdits,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.chat.reader import ChatStreamReader
from tornado_proxy.providers.openai.chat.usage_hider import UsageHider
from tornado_proxy.providers.openai.request_members import CONTENT
from tornado_proxy.providers.openai.shared.text_usage import estimate_text, report_text
from tornado_proxy.providers.shared.json_body import (
    find_content,
    has_escaped_letters,
    read_count,
    read_described,
    read_flag,
    read_limit,
    read_list,
    read_members,
    read_model,
    read_option,
    read_raw,
    read_text,
)
from tornado_proxy.providers.shared.json_edit import edit_member, insert_first
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP, Shape
from tornado_proxy.providers.shared.json_values import as_object, as_objects
from tornado_proxy.providers.shared.response_readers import JsonReader, choose_edit, choose_reader

#: The members that limit the output tokens of each choice; the older one is ignored beside the newer.
OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")

#: Members that say who the request is made for (OpenAI API reference, "Safety best practices").
_DESCRIBED = ("safety_identifier", "user")

_MEMBERS = (
    "model",
    "stream",
    "stream_options",
    "service_tier",
    "modalities",
    "web_search_options",
    "prompt_cache_options",
    *OUTPUT_LIMITS,
    "n",
    *_DESCRIBED,
)

#: The type of a message part that contains audio.  Quotation marks inside JSON text are escaped, so this matches a
#: member or a value, never text of a prompt (OpenAI API reference, chat `messages`).
_AUDIO_PART = b"input_audio"

#: Types of message parts whose tokens are not in the body as text.
_MEDIA_PARTS = (b"image_url", _AUDIO_PART, b"file")

#: The members of a response that are read.  Log probabilities repeat each token many times and are no output tokens.
_MESSAGE: Mapping[str, Shape] = {
    **dict.fromkeys(("content", "refusal", "reasoning", "reasoning_content"), COUNT),
    "tool_calls": {"function": {"name": COUNT, "arguments": COUNT}, "custom": {"name": COUNT, "input": COUNT}},
    "function_call": {"name": COUNT, "arguments": COUNT},
    "audio": {"transcript": COUNT},
}
_RESPONSE_SHAPE: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "model", "service_tier", "usage"), KEEP),
    "choices": {"message": _MESSAGE},
}

#: The meters of each request.
_TEXT_METERS = frozenset({Meter.INPUT, Meter.OUTPUT})

_STREAM_OPTIONS = b'{"include_usage":true}'
_STREAM_OPTIONS_MEMBER = b'"stream_options":' + _STREAM_OPTIONS

#: Chat models that search the web once for each request; usage does not state it.
#: Source: OpenAI guide "Web search", "Chat Completions".
_SEARCH_MODEL = re.compile(r"-search-(?:preview|api)(?:-\d{4}-\d{2}-\d{2})?")
_ONE_SEARCH = Quantity(Meter.WEB_SEARCHES, Decimal(1))


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a chat request, and its body; a stream's body asks for usage.

    Raises:
        InvalidBody: a member is missing, repeated or of the wrong type.
    """
    body = request.body
    members = read_members(body, _MEMBERS)
    model = read_model(members)
    stream = read_flag(members, "stream")
    options = read_raw(body, "stream_options") if stream else None
    sent = _ask_for_usage(body, options) if stream else body
    cache_ttl = read_option(body, members, "prompt_cache_options", "ttl") if "prompt_cache_options" in members else None
    terms = make_terms(read_text(members, "service_tier"), cache_ttl=cache_ttl)
    searches = "web_search_options" in members or _SEARCH_MODEL.search(model) is not None
    media = find_content(body, _MEDIA_PARTS, partial(_list_schemas, body))
    is_plain = not (searches or media or "modalities" in members)
    meters = _TEXT_METERS if is_plain else _list_meters(members, media, searches=searches)
    # A search adds what it has found to the prompt, and no other tool runs at the provider.
    text_only = not (searches or media or has_escaped_letters(body))
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, meters, terms=terms),),
        stream=stream,
        terms=terms,
        body_bytes=len(body) if options is None else _count_prompt_bytes(body, options),
        usage_injected=sent is not body,
        inferred=(_ONE_SEARCH,) if searches else (),
        work=_read_work(members, text_only=text_only),
        described=read_described(members, _DESCRIBED),
    )
    return ParsedRequest(facts, sent)


def _list_schemas(body: bytes) -> list[object]:
    """Return the schemas of the functions among the tools; none if `tools` is repeated: all names are content then."""
    try:
        tools = as_objects(read_members(body, ("tools",)).get("tools"))
    except InvalidBody:  # which tools count is not known; a body without such names is relayed too
        return []
    return [as_object(tool.get("function")).get("parameters") for tool in tools if tool.get("type") == "function"]


def _read_work(members: Mapping[str, Any], *, text_only: bool) -> WorkLimits:
    choices = read_count(members["n"]) if "n" in members else 1
    limiting = next(filter(members.__contains__, OUTPUT_LIMITS), None)
    limit = None if limiting is None else read_limit(members, limiting)
    return limit_work(None if limit is None else limit * choices, 0, choices, text_only)


def _list_meters(members: Mapping[str, Any], media: Collection[bytes], *, searches: bool) -> frozenset[Meter]:
    meters = set()
    if "modalities" in members and "audio" in read_list(members, "modalities"):
        meters.add(Meter.OUTPUT_AUDIO)
    if _AUDIO_PART in media:
        meters.add(Meter.INPUT_AUDIO)
    if searches:
        meters.add(Meter.WEB_SEARCHES)
    return _TEXT_METERS | meters


def _count_prompt_bytes(body: bytes, options: bytes) -> int:
    """Return the bytes of `body` without its `stream_options`.

    They are no part of the prompt, and without them an estimate is the same whether the client, another proxy or this
    one has added them.
    """
    return len(body) - len(b'"stream_options":,') - len(options)


def _ask_for_usage(body: bytes, options: bytes | None) -> bytes:
    """Return `body`, whose `stream_options` are `options`, with `include_usage`; the same object if it has it."""
    if options is None:
        return insert_first(body, _STREAM_OPTIONS_MEMBER)
    if options == b"null":
        return edit_member(body, "stream_options", lambda _: _STREAM_OPTIONS)
    if not options.startswith(b"{"):
        raise InvalidBody('"stream_options" must be an object', param="stream_options")
    # Parse the options alone: read_members rejects repeated members at the top level only, and a second
    # `include_usage` could turn usage off at the provider.
    if read_flag(read_members(options, ("include_usage",)), "include_usage"):
        return body
    return edit_member(body, "stream_options", _include_usage)


def _include_usage(options: bytes) -> bytes:
    if read_raw(options, "include_usage") is None:
        return insert_first(options, b'"include_usage":true')
    return edit_member(options, "include_usage", lambda _: b"true")


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the usage reader of a response."""
    return choose_reader(
        facts,
        head,
        lambda: ChatStreamReader(facts),
        partial(JsonReader, _RESPONSE_SHAPE, partial(report_text, facts), partial(estimate_text, facts)),
    )


def make_edit(facts: RequestFacts, head: ResponseHead) -> ResponseEdit | None:
    """Return an edit that removes the usage that only the proxy asked for; None if there is none to remove."""
    return choose_edit(facts, head, UsageHider) if facts.usage_injected else None


CHAT_ENDPOINTS = (
    HttpEndpoint(
        "POST",
        "/v1/chat/completions",
        parse=parse,
        reader=make_reader,
        response_edits=ResponseEdits(body=make_edit),
        content_members=CONTENT,
    ),
)
