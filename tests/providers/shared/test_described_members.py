from __future__ import annotations

from typing import Any

import pytest

from tornado_proxy.providers.shared.described_members import read_described

NAMES = ("user", "metadata")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({}, (), id="nothing"),
        pytest.param({"user": "u-1", "other": "x"}, (("user", "u-1"),), id="text"),
        pytest.param({"metadata": {"user_id": "m-1", "n": 7}}, (("metadata.user_id", "m-1"),), id="text in an object"),
        pytest.param({"user": 7, "metadata": ["x"]}, (), id="another type says nothing"),
        pytest.param({"user": "", "metadata": {"user_id": "x" * 16_385}}, (), id="empty or too long says nothing"),
    ],
)
def test_texts_are_returned_by_their_path(members: dict[str, Any], expected: tuple[tuple[str, str], ...]) -> None:
    assert read_described(members, NAMES) == expected


def test_first_32_members_of_an_object_are_read() -> None:
    found = read_described({"metadata": {f"k{number}": "v" for number in range(40)}}, NAMES)

    assert [name for name, _ in found] == [f"metadata.k{number}" for number in range(32)]
