from __future__ import annotations

import os
from pathlib import Path

import pytest

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.identity import Secret

PATH = ("providers", "openai", "api_key")

QUOTED = "the secret is in quotes; remove them (docker --env-file and systemd keep them as part of the value)"
NAMED = "the secret must be the value alone; remove the name and the = in front of it"


def resolve(folder: Path, reference: dict[str, object]) -> tuple[Secret | None, Findings]:
    file = str(folder / "proxy.yaml")
    document = Document(file, {"providers": {"openai": {"api_key": reference}}}, {("providers", "openai"): 3})
    findings = Findings()
    return read_secrets(document, (), findings).get(PATH), findings


def find_rule(folder: Path, reference: dict[str, object]) -> str:
    secret, findings = resolve(folder, reference)
    assert secret is None
    (fault,) = findings.faults
    assert (fault.file, fault.line, fault.key) == (f"{folder}/proxy.yaml", 3, "providers.openai.api_key")
    return fault.rule


def write_secret(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "openai.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_secret_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", " sk-1234 ")

    assert resolve(tmp_path, {"env": "SOME_KEY"}) == (Secret("sk-1234"), Findings())


def test_secret_is_read_from_a_file_relative_to_the_document(tmp_path: Path) -> None:
    write_secret(tmp_path, b"sk-1234\r\n")

    assert resolve(tmp_path, {"file": "openai.key"}) == (Secret("sk-1234"), Findings())


def test_absolute_path_is_used_unchanged(tmp_path: Path) -> None:
    path = write_secret(tmp_path, b"sk-1234\n")

    assert resolve(Path("/elsewhere"), {"file": str(path)}) == (Secret("sk-1234"), Findings())


def test_unset_variable_is_a_fault_with_its_name(tmp_path: Path) -> None:
    assert find_rule(tmp_path, {"env": "NO_SUCH_KEY"}) == "environment variable NO_SUCH_KEY is not set"


@pytest.mark.parametrize(("value", "rule"), [('"sk-1234"', QUOTED), ("ANTHROPIC_API_KEY=sk-ant-1", NAMED)])
def test_variable_with_more_than_the_key_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, rule: str
) -> None:
    monkeypatch.setenv("SOME_KEY", value)

    assert find_rule(tmp_path, {"env": "SOME_KEY"}) == rule


@pytest.mark.parametrize("value", ["ab_cd==", "a=b", "sk-proj_x-=", "'", '"x', "Zm9v_YmFy="])
def test_unusual_secret_is_used_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_KEY", value)

    assert resolve(tmp_path, {"env": "SOME_KEY"}) == (Secret(value), Findings())


def test_empty_variable_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "  \n")

    assert find_rule(tmp_path, {"env": "SOME_KEY"}) == "environment variable SOME_KEY is empty"


def test_secret_in_place_of_a_variable_name_is_not_shown(tmp_path: Path) -> None:
    rule = find_rule(tmp_path, {"env": "abcdef0123456789"})

    assert rule == "environment variable (name hidden: it could be a secret) is not set"


def test_secret_in_place_of_a_file_name_is_not_shown(tmp_path: Path) -> None:
    rule = find_rule(tmp_path, {"file": "sk-1234"})

    assert rule == f"the file cannot be read: No such file or directory (relative paths start at {tmp_path})"


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"\n \n", "the file is empty", id="blank"),
        pytest.param(b"sk-\xff", "the file must be UTF-8 text", id="binary"),
        pytest.param(b"sk-1\nsk-2\n", "the secret must be printable ASCII without spaces", id="two lines"),
        pytest.param(b"sk-1 # mine\n", "the secret must be printable ASCII without spaces", id="a comment"),
        pytest.param(b'"sk-1234"\n', QUOTED, id="double quotes"),
        pytest.param(b"'sk-1234'", QUOTED, id="single quotes"),
        pytest.param(b"OPENAI_API_KEY=sk-1234\n", NAMED, id="a line of an environment file"),
        pytest.param(b"my_key=sk-1234", NAMED, id="a name in small letters"),
        pytest.param("sk-é".encode(), "the secret must be printable ASCII without spaces", id="not ASCII"),
        pytest.param(b"s" * 65537, "the file must have at most 65536 bytes", id="too large"),
    ],
)
def test_file_without_a_valid_secret_is_a_fault(tmp_path: Path, content: bytes, rule: str) -> None:
    write_secret(tmp_path, content)

    assert find_rule(tmp_path, {"file": "openai.key"}) == rule


def test_world_writable_file_is_a_fault(tmp_path: Path) -> None:
    write_secret(tmp_path, b"sk-1234\n", 0o666)

    rule = find_rule(tmp_path, {"file": "openai.key"})

    assert rule == "the file is writable by every user of this machine; run chmod o-w on it"


def test_world_readable_file_is_used_with_a_warning(tmp_path: Path) -> None:
    write_secret(tmp_path, b"sk-1234\n", 0o644)

    secret, findings = resolve(tmp_path, {"file": "openai.key"})

    assert secret == Secret("sk-1234")
    assert findings.faults == []
    assert findings.warnings == [
        Fault(
            f"{tmp_path}/proxy.yaml",
            3,
            f"{'.'.join(PATH)}.file",
            "the file is readable by every user of this machine; run chmod o-r on it",
        )
    ]


def test_file_of_owner_and_group_is_used_without_a_warning(tmp_path: Path) -> None:
    write_secret(tmp_path, b"sk-1234\n", 0o640)

    assert resolve(tmp_path, {"file": "openai.key"}) == (Secret("sk-1234"), Findings())


def test_secret_is_read_from_a_pipe(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"sk-1234\n")
    os.close(write_end)
    try:
        assert resolve(tmp_path, {"file": f"/dev/fd/{read_end}"}) == (Secret("sk-1234"), Findings())
    finally:
        os.close(read_end)


def test_all_invalid_references_of_a_document_are_reported(tmp_path: Path) -> None:
    content = {"a": [{"secret": {"env": "NO_SUCH_KEY"}}, {"secret": {"env": "NO_SUCH_KEY_EITHER"}}], "api_key": "text"}
    findings = Findings()

    assert read_secrets(Document(str(tmp_path / "x.yaml"), content), (), findings) == {}

    assert [(fault.key, fault.rule) for fault in findings.faults] == [
        ("a[0].secret", "environment variable NO_SUCH_KEY is not set"),
        ("a[1].secret", "environment variable NO_SUCH_KEY_EITHER is not set"),
    ]


def test_reference_with_a_fault_is_not_resolved(tmp_path: Path) -> None:
    document = Document(str(tmp_path / "x.yaml"), {"api_key": {"env": "NO_SUCH_KEY", "file": "x"}})
    findings = Findings([document.fault(("api_key",), "must have at most 1 key")])

    assert read_secrets(document, (), findings) == {}
    assert len(findings.faults) == 1
