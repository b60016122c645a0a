"""The client port with a certificate of its own: requests, WebSockets, a renewed certificate."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from tests.harness import ProxyProcess, mint, running_proxy
from tests.replay_provider import ProviderResponse, ReplayProvider

BODY = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'


def write_certificate(folder: Path, authority: trustme.CA, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
    issued = authority.issue_cert("127.0.0.1", key_type=key_type)
    (folder / "server.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    (folder / "server.key").write_bytes(issued.private_key_pem.bytes())
    (folder / "server.key").chmod(0o600)


def post_chat(proxy: ProxyProcess, authority: trustme.CA) -> tuple[int, bytes]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    host = proxy.base_url.removeprefix("https://")
    connection = http.client.HTTPSConnection(host, context=context, timeout=20)
    try:
        headers = {"Authorization": f"Bearer {mint()}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", BODY, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def connect_with(proxy: ProxyProcess, key_type: str) -> bytes:
    """Connect with TLS 1.2, which chooses the type of the certificate's key; return the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"ECDHE+AESGCM+a{key_type}")
    host, port = proxy.base_url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain, context.wrap_socket(plain) as secure:
        certificate = secure.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_renewed_certificate_with_another_type_of_key_replaces_the_old_one(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    authority = trustme.CA()
    write_certificate(tmp_path, authority, trustme.KeyType.RSA)
    listen = {"host": "127.0.0.1", "port": 0, "tls": {"certificate": "server.pem", "key": "server.key"}}

    with running_proxy(tmp_path, provider.url, listen=listen) as proxy:
        assert connect_with(proxy, "RSA")

        write_certificate(tmp_path, authority, trustme.KeyType.ECDSA)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log('"config_generation":2')

        assert connect_with(proxy, "ECDSA")
        with pytest.raises(ssl.SSLError):
            connect_with(proxy, "RSA")


def test_clients_speak_tls_and_a_reload_reads_a_renewed_certificate(provider: ReplayProvider, tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    body = json.dumps({"id": "c1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
    provider.response = ProviderResponse(chunks=(body,))
    write_certificate(tmp_path, first)
    listen = {"host": "127.0.0.1", "port": 0, "tls": {"certificate": "server.pem", "key": "server.key"}}

    with running_proxy(tmp_path, provider.url, listen=listen) as proxy:
        assert proxy.base_url.startswith("https://")
        assert post_chat(proxy, first) == (200, body)

        write_certificate(tmp_path, second)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log('"config_generation":2')
        assert post_chat(proxy, second) == (200, body)

        (tmp_path / "server.key").write_text("no key")
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("listen.tls: must be a PEM certificate and its private key without a password")
        assert post_chat(proxy, second) == (200, body)
        assert {record["outcome"] for record in proxy.read_records(count=3)} == {"completed"}
