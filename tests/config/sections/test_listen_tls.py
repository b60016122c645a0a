"""The certificate and the key of the client port: faults of the files are faults of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.harness import SECRETS, write_config
from tornado_proxy.config.loading import load_settings
from tornado_proxy.config.sections.listen_tls import TlsFiles
from tornado_proxy.domain.errors import ConfigError

FILES = {"certificate": "server.pem", "key": "server.key"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def write_files(folder: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    (folder / "server.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (folder / "server.key").write_bytes(issued.private_key_pem.bytes())


def load(folder: Path, tls: object) -> TlsFiles | None:
    listen = {"host": "127.0.0.1", "port": 0, "tls": tls}
    return load_settings(write_config(folder, "http://127.0.0.1:1", listen=listen)).settings.listen.tls


def find_faults(folder: Path, tls: object) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder, tls)
    return [f"{fault.key}: {fault.rule}" for fault in raised.value.faults]


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    write_files(tmp_path)

    assert load(tmp_path, FILES) == TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")


def test_file_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "server.key").unlink()

    (fault,) = find_faults(tmp_path, FILES)
    assert fault.startswith("listen.tls.key: ")
    assert str(tmp_path / "server.key") in fault


def test_key_is_required(tmp_path: Path) -> None:
    write_files(tmp_path)

    (fault,) = find_faults(tmp_path, {"certificate": "server.pem"})
    assert "key" in fault


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_file_that_is_no_pem_is_a_fault(name: str, tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / name).write_text("not PEM")

    (fault,) = find_faults(tmp_path, FILES)
    assert fault.startswith("listen.tls: must be a PEM certificate and its private key without a password")


def test_key_of_another_certificate_is_a_fault(tmp_path: Path) -> None:
    write_files(tmp_path)
    other = trustme.CA().issue_cert("127.0.0.1").private_key_pem
    (tmp_path / "server.key").write_bytes(other.bytes())

    assert find_faults(tmp_path, FILES) == [
        "listen.tls: must be a PEM certificate and its private key without a password: key values mismatch"
    ]
