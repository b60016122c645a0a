from __future__ import annotations

import json

import pytest

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.contract import RequestView
from tornado_proxy.providers.openai.realtime.http import (
    parse_call,
    parse_secret,
    parse_transcription,
    parse_translation_secret,
    seal_secrets,
)

SDP = "v=0\r\n"


def spends(body: object) -> list[tuple[str, str | None]]:
    facts = parse_secret(RequestView(json.dumps({"session": body}).encode(), "application/json")).facts
    return [(spend.model, spend.role) for spend in facts.spends]


def test_each_model_of_a_session_is_a_spend() -> None:
    transcription = {"input": {"transcription": {"model": "whisper-1"}}}

    assert spends({"type": "realtime", "model": "gpt-realtime", "audio": transcription}) == [
        ("gpt-realtime", None),
        ("whisper-1", "input_transcription"),
    ]


def test_transcription_models_of_both_formats_are_spends() -> None:
    session = {
        "model": "gpt-realtime",
        "audio": {"input": {"transcription": {"model": "whisper-1"}}},
        "input_audio_transcription": {"model": "gpt-4o-transcribe"},
    }

    assert [model for model, _ in spends(session)] == ["gpt-realtime", "whisper-1", "gpt-4o-transcribe"]


def test_the_websocket_query_follows_the_session() -> None:
    conversation = parse_secret(
        RequestView(b'{"session":{"type":"realtime","model":"gpt-realtime"}}', "application/json")
    ).facts
    transcription = parse_transcription(
        RequestView(b'{"input_audio_transcription":{"model":"whisper-1"}}', "application/json")
    ).facts

    assert conversation.session_query == "model=gpt-realtime"
    assert transcription.session_query == "intent=transcription"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="no session"),
        pytest.param(b'{"session":{}}', id="no model"),
        pytest.param(b'{"session":{"model":5}}', id="a model that is not text"),
        pytest.param(
            b'{"session":{"audio":{"input":{"transcription":{"model":"whisper-1"}}}}}', id="a transcription model alone"
        ),
        pytest.param(b'{"session":{"model":"a","model":"b"}}', id="two models"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b"{", id="no JSON"),
    ],
)
def test_a_session_that_does_not_name_its_model_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        parse_secret(RequestView(body, "application/json"))


def test_a_call_reads_its_session_from_the_form_of_its_offer() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="sdp"\r\n\r\nv=0\r\n'
        b'--b\r\nContent-Disposition: form-data; name="session"\r\n\r\n{"model":"gpt-realtime"}\r\n--b--\r\n'
    )

    facts = parse_call(RequestView(body, "multipart/form-data; boundary=b")).facts

    assert [spend.model for spend in facts.spends] == ["gpt-realtime"]
    assert facts.session_query == "model=gpt-realtime"


def test_an_offer_alone_has_no_spends() -> None:
    assert parse_call(RequestView(SDP.encode(), "application/sdp")).facts.spends == ()


def test_stated_keys_are_replaced_and_any_other_key_is_masked() -> None:
    body = (
        b'{"value":"ek_abcdefgh1234","expires_at":1700000600,"again":"ek_abcdefgh1234","other":"ek_ijklmnop5678",'
        b'"session":{"instructions":"week_abcdefgh1234 stays"}}'
    )

    edited = seal_secrets(body, lambda key, until: f"sealed({key},{until})")

    assert edited == (
        b'{"value":"sealed(ek_abcdefgh1234,1700000600)","expires_at":1700000600,'
        b'"again":"sealed(ek_abcdefgh1234,1700000600)","other":"***",'
        b'"session":{"instructions":"week_abcdefgh1234 stays"}}'
    )


def test_the_key_of_the_beta_format_is_replaced() -> None:
    body = b'{"client_secret":{"value":"ek_abcdefgh1234","expires_at":7}}'

    assert seal_secrets(body, lambda key, until: "ours") == b'{"client_secret":{"value":"ours","expires_at":7}}'


@pytest.mark.parametrize("body", [b'no json "ek_abcdefgh1234"', b'["ek_abcdefgh1234"]', b'{"value":"ek_abcdefgh1234"}'])
def test_a_response_of_another_shape_reveals_no_key(body: bytes) -> None:
    assert b"ek_" not in seal_secrets(body, lambda key, until: "ours")


@pytest.mark.parametrize(
    "stated",
    [
        pytest.param('"secret.of/another+kind"', id="another format"),
        pytest.param('"\\u0065k_abcdefgh1234"', id="escaped"),
        pytest.param('"ek_short"', id="short"),
    ],
)
def test_an_escaped_or_unusual_key_is_replaced(stated: str) -> None:
    body = f'{{"value":{stated},"expires_at":7,"client_secret":{{"value":{stated},"expires_at":7}}}}'.encode()

    edited = json.loads(seal_secrets(body, lambda key, until: f"sealed-{until}"))

    assert edited == {
        "value": "sealed-7",
        "expires_at": 7,
        "client_secret": {"value": "sealed-7", "expires_at": 7},
    }


def test_a_translation_session_spends_on_its_model_and_transcription() -> None:
    audio = {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}
    body = json.dumps({"session": {"model": "gpt-realtime-translate", "audio": audio}}).encode()

    facts = parse_translation_secret(RequestView(body, "application/json")).facts

    assert [(spend.model, spend.role) for spend in facts.spends] == [
        ("gpt-realtime-translate", None),
        ("gpt-realtime-whisper", "input_transcription"),
    ]
    assert facts.session_query == "model=gpt-realtime-translate"


@pytest.mark.parametrize("body", [b"{}", b'{"session":{}}', b'{"session":{"model":5}}'])
def test_a_translation_session_without_a_model_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        parse_translation_secret(RequestView(body, "application/json"))
