"""The root URL of each kind of request, and redirects of a provider turned to it."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from tests.gateway.fakes import PROVIDER_URL, Gateway, make_request, make_snapshot, request_head
from tornado_proxy.config.settings import PublicSettings
from tornado_proxy.gateway.http.public_url import own_base_url, own_location, own_root
from tornado_proxy.http_server.incoming_request import IncomingRequest

TRUSTED = PublicSettings(trusted_proxies=(IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")))
HOST = ("Host", "llm.example.com")
HTTPS = ("X-Forwarded-Proto", "https")


def head(*headers: tuple[str, str], peer: str = "10.1.2.3", scheme: str = "http") -> IncomingRequest:
    request = make_request("/", *headers)
    request.receive(peer, scheme)
    return request


@pytest.mark.parametrize(
    ("request_of_client", "root"),
    [
        pytest.param(head(HOST), "http://llm.example.com", id="no header of a proxy"),
        pytest.param(head(HOST, HTTPS), "https://llm.example.com", id="scheme"),
        pytest.param(head(HOST, HTTPS, peer="fd00::7"), "https://llm.example.com", id="proxy at an IPv6 address"),
        pytest.param(head(HOST, HTTPS, peer="::ffff:10.1.2.3"), "https://llm.example.com", id="IPv4 in IPv6"),
        pytest.param(head(HOST, HTTPS, peer="192.0.2.1"), "http://llm.example.com", id="not a trusted proxy"),
        pytest.param(head(HOST, HTTPS, peer=""), "https://llm.example.com", id="Unix socket"),
        pytest.param(head(HOST, ("X-Forwarded-Proto", "https, http")), "https://llm.example.com", id="two proxies"),
        pytest.param(head(HOST, ("X-Forwarded-Proto", "gopher")), "http://llm.example.com", id="unknown scheme"),
        pytest.param(
            head(("Host", "backend:8080"), HTTPS, ("X-Forwarded-Host", "a.example"), ("X-Forwarded-Prefix", "/llm/")),
            "https://a.example/llm",
            id="host and prefix",
        ),
        pytest.param(
            head(HOST, HTTPS, ("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "8443")),
            "https://a.example:8443",
            id="port",
        ),
        pytest.param(
            head(HOST, HTTPS, ("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "443")),
            "https://a.example",
            id="the scheme's own port",
        ),
        pytest.param(
            head(HOST, ("Forwarded", 'for="[2001:db8::1]";proto=HTTPS;host="b.example:444", for=10.0.0.1;host=c')),
            "https://b.example:444",
            id="Forwarded",
        ),
        pytest.param(
            head(HOST, ("X-Forwarded-Host", 'evil"/x'), ("X-Forwarded-Prefix", "/../x")),
            "http://llm.example.com",
            id="values that fit no URL",
        ),
        pytest.param(head(("Host", "my_host:80")), "http://my_host:80", id="underscore, as containers have"),
        pytest.param(head(("Host", 'a"b')), "", id="no host"),
        pytest.param(head(HOST, scheme="https"), "https://llm.example.com", id="TLS"),
    ],
)
def test_root_url_is_stated_by_trusted_proxies_alone(request_of_client: IncomingRequest, root: str) -> None:
    assert own_root(request_of_client, TRUSTED) == root


def test_public_url_is_the_root_whatever_a_request_states() -> None:
    public = PublicSettings(url="https://llm.example.com/ai", trusted_proxies=TRUSTED.trusted_proxies)

    assert own_root(head(("Host", "other.example"), HTTPS), public) == "https://llm.example.com/ai"


BATCHES = "/anthropic/v1/messages/batches"
OWN = "/v1/messages/batches/b1"


def location(value: str, target: str = BATCHES, base_url: str = PROVIDER_URL, **config: Any) -> str | None:
    gateway = Gateway(make_snapshot(**config))
    context = gateway.admission.authenticate(
        gateway.snapshot, request_head(target, method="GET", headers=(("Host", "me.example"),))
    )
    return own_location(context, base_url, value)


@pytest.mark.parametrize(
    ("value", "own"),
    [
        pytest.param(OWN, f"/anthropic{OWN}", id="path"),
        pytest.param("batches/b1?a=1#x", f"/anthropic{OWN}?a=1#x", id="relative path"),
        pytest.param(PROVIDER_URL + OWN, f"http://me.example/anthropic{OWN}", id="the provider's own address"),
        pytest.param(PROVIDER_URL.upper() + OWN, f"http://me.example/anthropic{OWN}", id="in capitals"),
        pytest.param("http://provider.test@evil.example/", None, id="the provider's name as a user"),
        pytest.param(f"http://me@provider.test:9{OWN}", None, id="a user"),
        pytest.param(f"http://provider.test:91{OWN}", None, id="another port that starts alike"),
        pytest.param(f"http://provider.test{OWN}", None, id="the default port"),
        pytest.param(f"https://provider.test:9{OWN}", None, id="another scheme"),
        pytest.param(f"http://provider.test.evil.example:9{OWN}", None, id="a host that starts alike"),
        pytest.param("//evil.example/v1", None, id="no scheme"),
        pytest.param(r"/\evil.example/v1", None, id="backslash"),
        pytest.param("http://[::1/v1", None, id="invalid"),
        pytest.param("javascript:alert(1)", None, id="another kind of URL"),
    ],
)
def test_location_leads_to_the_proxy_or_nowhere(value: str, own: str | None) -> None:
    assert location(value) == own


def test_location_keeps_the_client_s_prefix() -> None:
    call = "/v1/realtime/calls/rtc_1"

    assert location(call, "/openai/v1/models") == f"/openai{call}"
    assert location(call, "/v1/models") == call


def test_location_keeps_path_prefixes_of_both_sides() -> None:
    base = "https://gateway.example/team"
    public = {"url": "https://llm.example.com/ai"}

    assert location(f"/team{OWN}", base_url=base, public=public) == f"/ai/anthropic{OWN}"
    assert location(f"{base}{OWN}", base_url=base, public=public) == f"https://llm.example.com/ai/anthropic{OWN}"
    assert location("/teams/v1/models", base_url=base, public=public) is None
    assert location("/team/../admin", base_url=base, public=public) is None


def test_base_url_is_a_path_if_no_header_states_a_host() -> None:
    gateway = Gateway(make_snapshot())
    context = gateway.admission.authenticate(gateway.snapshot, request_head(BATCHES, method="GET"))

    assert own_base_url(context) == "/anthropic"
