"""The house as docs/architecture.md draws it: a file of the lower floors has its test, and none grows out of hand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.harness import ROOT

PACKAGE = ROOT / "tornado_proxy"

#: Floors 0 to 2, and metering, which counts money.
_ROOMS = ("domain", "wire", "auth", "config", "providers", "metrics.py", "tasks.py", "logs.py", "metering.py")

#: source -> the test that exercises it, where that is not the test of the same name.
_ELSEWHERE = {
    "auth/token_spec.py": "cli/test_credentials.py",
    "auth/unverified.py": "auth/test_participant.py",
    "config/bundled.py": "trips/test_wheel.py",
    "config/findings.py": "config/test_loading.py",
    "config/projects.py": "config/test_loading.py",
    "config/reference.py": "docs/test_pages.py",
    "domain/call.py": "domain/test_values.py",
    "domain/request.py": "domain/test_values.py",
    "domain/usage.py": "domain/test_values.py",
    "metrics.py": "docs/test_surface.py",
    "providers/endpoint.py": "providers/test_route_table.py",
    "providers/anthropic/batch_results.py": "providers/anthropic/test_batches.py",
    "providers/anthropic/complete.py": "providers/anthropic/test_message_request.py",
    "providers/anthropic/count_tokens.py": "providers/anthropic/test_message_request.py",
    "providers/anthropic/errors.py": "providers/anthropic/test_manners.py",
    "providers/anthropic/messages.py": "providers/anthropic/test_message_stream.py",
    "providers/anthropic/routes.py": "providers/anthropic/test_manners.py",
    "providers/openai/audio_length.py": "providers/openai/test_audio.py",
    "providers/openai/chat_reader.py": "providers/openai/test_chat.py",
    "providers/openai/errors.py": "providers/openai/test_manners.py",
    "providers/openai/media_readers.py": "providers/openai/test_audio.py",
    "providers/openai/modal_usage.py": "providers/openai/test_images.py",
    "providers/openai/response_reader.py": "providers/openai/test_responses.py",
    "providers/openai/response_tools.py": "providers/openai/test_responses.py",
    "providers/openai/routes.py": "providers/openai/test_manners.py",
    "providers/openai/speech.py": "providers/openai/test_audio_speech.py",
    "providers/openai/speech_audio.py": "providers/openai/test_audio_speech.py",
    "providers/openai/text_report.py": "providers/openai/test_chat.py",
    "providers/openai/thinning.py": "providers/openai/test_responses.py",
    "providers/openai/transcription.py": "providers/openai/test_audio.py",
    "providers/openai/transcription_models.py": "providers/openai/test_audio.py",
    "providers/openai/usage_report.py": "providers/openai/test_text_usage.py",
}

#: Words that say nothing of what a file is for.
_EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools"}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
LOWER = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in _ROOMS]


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("source", LOWER, ids=named)
def test_a_file_of_the_lower_floors_has_a_test(source: Path) -> None:
    place = source.relative_to(PACKAGE)
    mirror = ROOT / "tests" / place.parent / f"test_{place.name}"
    elsewhere = _ELSEWHERE.get(place.as_posix())

    assert mirror.exists() or elsewhere, f"{mirror.relative_to(ROOT)} is missing; write it, or a line in _ELSEWHERE"
    assert elsewhere is None or (ROOT / "tests" / elsewhere).exists()


def test_no_line_speaks_of_a_file_that_is_gone() -> None:
    assert set(_ELSEWHERE) - {named(source) for source in LOWER} == set()


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_a_file_says_what_it_is_for_in_few_lines_under_a_name_that_says_it_too(source: Path) -> None:
    text = source.read_text("utf-8")

    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)) or source.name == "__main__.py"
    assert not _EMPTY_NAMES.intersection(part.removesuffix(".py") for part in source.relative_to(PACKAGE).parts)
