from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_proxy.config.files import read_document, read_documents
from tornado_proxy.domain.errors import ConfigError


def read(folder: Path, text: str | bytes) -> object:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(path).content


def find_faults(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return [str(fault).removeprefix(f"{folder}/") for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("0.1", Decimal("0.1"), id="a number with a decimal point is an exact decimal"),
        pytest.param("-2.50", Decimal("-2.50"), id="its digits are kept"),
        pytest.param("8080", 8080, id="an integer"),
        pytest.param("-7", -7, id="a negative number"),
        pytest.param("2026-03-05", "2026-03-05", id="a date stays text"),
        pytest.param("2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z", id="a time stays text"),
        pytest.param("12:30:45", "12:30:45", id="no number to the base of 60"),
        pytest.param("1_000", "1_000", id="no grouped digits"),
        pytest.param("0x1F", "0x1F", id="no hexadecimal number"),
        pytest.param("1.5e+3", "1.5e+3", id="no exponent"),
        pytest.param(".nan", ".nan", id="not a number stays text"),
        pytest.param("9" * 5000, "9" * 5000, id="no integer with thousands of digits"),
        pytest.param('"0.05"', "0.05", id="quoted is text"),
        pytest.param("true", True, id="true"),
        pytest.param("~", None, id="null"),
        pytest.param("[a, {b: 1}]", ["a", {"b": 1}], id="lists and mappings"),
        pytest.param("{on: 1, 5: 2}", {"on": 1, "5": 2}, id="keys are text"),
        pytest.param("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}, id="a block"),
    ],
)
def test_value_has_the_written_type(tmp_path: Path, text: str, value: object) -> None:
    content = read(tmp_path, text)

    assert content == value
    assert type(content) is type(value)


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n") == {"a": 1}


def test_each_key_and_item_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("# a comment\na:\n  b: 1\n\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n")

    assert read_document(path).lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 5,
        ("a", "c", 0): 6,
        ("a", "c", 1): 7,
        ("a", "c", 1, "d"): 7,
        ("a", "c", 1, "e"): 8,
    }


@settings(deadline=None)
@given(names=st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), unique=True, min_size=1), gaps=st.data())
def test_lines_are_right_with_comments_and_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], gaps: st.DataObject
) -> None:
    lines: list[str] = []
    expected = {}
    for name in names:
        lines += gaps.draw(st.lists(st.sampled_from(["", "# a: comment", "   "]), max_size=3))
        expected[name,] = len(lines) + 1
        lines.append(f"'{name}': [1]")
    path = tmp_path_factory.mktemp("lines") / "file.yaml"
    path.write_text("\n".join(lines))

    found = read_document(path).lines

    assert {key: line for key, line in found.items() if len(key) == 1} == expected


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        pytest.param("", ["file.yaml: is empty"], id="empty"),
        pytest.param("# nothing\n", ["file.yaml: is empty"], id="only a comment"),
        pytest.param(b"a: \xff\n", ["file.yaml: must be UTF-8 text"], id="not UTF-8"),
        pytest.param(
            "a: 1\nb: [1\nc: 2\n", ["file.yaml:3: invalid YAML: expected ',' or ']', but got ':'"], id="syntax"
        ),
        pytest.param(
            "a: 1\n\tb: 2\n", ["file.yaml:2: invalid YAML: found character '\\t' that cannot start any token"], id="tab"
        ),
        pytest.param(
            "a: 1\n---\nb: 2\n", ["file.yaml:2: invalid YAML: but found another document"], id="two documents"
        ),
        pytest.param(
            "a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n",
            [
                'file.yaml:3: duplicate key "a", first on line 1; remove one',
                'file.yaml:4: duplicate key "d", first on line 4; remove one',
            ],
            id="all duplicate keys",
        ),
        pytest.param(
            "a: 1\nb: \x07\n",
            ["file.yaml: invalid YAML: unacceptable character #x0007: special characters are not allowed"],
            id="a bell",
        ),
        pytest.param("? [a]\n: 1\n", ["file.yaml:1: a key must be printable text"], id="a list as key"),
        pytest.param('"a\\eb": 1\n', ["file.yaml:1: a key must be printable text"], id="a control character in a key"),
        pytest.param(
            "a: 1\n<<: {b: 1}\n",
            ["file.yaml:2: merge keys (<<) are not supported; write the members out"],
            id="merge key",
        ),
        pytest.param('a: "\\0"\n', ["file.yaml:1: must not contain NUL or a lone surrogate"], id="NUL"),
        pytest.param('a: "\\ud800"\n', ["file.yaml:1: must not contain NUL or a lone surrogate"], id="surrogate"),
    ],
)
def test_invalid_yaml_is_rejected_with_its_line(tmp_path: Path, text: str | bytes, faults: list[str]) -> None:
    assert find_faults(tmp_path, text) == faults


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        pytest.param("a: 1\nb: &x 1\n", "anchors", id="anchor"),
        pytest.param("a: 1\nb: *x\n", "anchors", id="alias"),
        pytest.param("a: 1\nb: !!python/name:os.system 1\n", "tags", id="tag"),
        pytest.param("a: 1\nb: !!int '5'\n", "tags", id="a known tag too"),
        pytest.param("a: 1\nb: " + "[" * 5000, "lists and mappings must be nested at most 50 levels deep", id="deep"),
    ],
)
def test_anchor_tag_or_deep_nesting_is_rejected(tmp_path: Path, text: str, rule: str) -> None:
    (fault,) = find_faults(tmp_path, text)

    assert fault.startswith("file.yaml:2: invalid YAML: ")
    assert rule in fault


@pytest.mark.parametrize(
    "text",
    ["a: sk-secret-1: b: c", "a: [sk-secret-1", "a: *sk-secret-1", "a: !sk-secret-1!x y", "sk-secret-1: &b\n- *c"],
)
def test_fault_repeats_no_text_of_the_file(tmp_path: Path, text: str) -> None:
    assert "secret" not in "".join(find_faults(tmp_path, text))


def test_missing_file_message_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: does not exist; create it or name another file$"):
        read_document(tmp_path / "none.yaml")


def test_folder_in_place_of_a_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_document(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/zero")
def test_endless_file_is_rejected() -> None:
    with pytest.raises(ConfigError, match="must have at most 8388608 bytes"):
        read_document(Path("/dev/zero"))


def test_folder_is_read_in_order_of_file_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "c.txt"):
        (tmp_path / name).write_text(f"name: {name}\n")

    assert [document.content for document in read_documents(tmp_path)] == [{"name": "a.yaml"}, {"name": "b.yaml"}]


def test_faults_of_all_files_of_a_folder_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "b.yaml").write_text("")
    (tmp_path / "c.yaml").write_text("a: 1\n")

    with pytest.raises(ConfigError) as caught:
        read_documents(tmp_path)

    assert [(Path(fault.file).name, fault.line) for fault in caught.value.faults] == [("a.yaml", 2), ("b.yaml", 0)]


def test_folder_without_yaml_files_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contains no \*\.yaml file"):
        read_documents(tmp_path)
