"""Price files are parsed and checked once for each text that they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.conftest import PRICES
from tornado_proxy.config.price_files import list_valid_documents, read_price_files
from tornado_proxy.domain.errors import ConfigError

CHANGED = PRICES.replace("gpt-4o-mini", "gpt-4o")


def test_unchanged_file_is_not_parsed_again(tmp_path: Path) -> None:
    (tmp_path / "openai.yaml").write_text(PRICES)

    (first,) = read_price_files(tmp_path)
    (tmp_path / "openai.yaml").write_text(PRICES)
    (second,) = read_price_files(tmp_path)

    assert second is first


def test_changed_file_is_read_and_so_is_its_earlier_text_when_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "openai.yaml"

    found = []
    for text in (PRICES, CHANGED, PRICES):
        path.write_text(text)
        (file,) = read_price_files(path)
        found.append(list(file.document.content["models"]))  # type: ignore[index]  # the content is a mapping

    assert found == [["gpt-4o-mini"], ["gpt-4o"], ["gpt-4o-mini"]]


def test_same_text_in_another_file_has_faults_of_that_file(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("provider: openai\nmodels: {}\n")

    with pytest.raises(ConfigError) as raised:
        list_valid_documents(read_price_files(tmp_path))

    assert [(Path(fault.file).name, fault.line, fault.rule) for fault in raised.value.faults] == [
        ("a.yaml", 2, "must have at least 1 key"),
        ("b.yaml", 2, "must have at least 1 key"),
    ]
