"""A provider is added by its folder and one line of the registry."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.harness import OPENAI_KEY, PROJECT, ROOT, SECRETS, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.providers.fake_provider.generate import GENERATE
from tests.providers.fake_provider.provider import FAKE
from tests.replay_provider import ProviderResponse, ReplayProvider, running_replay_provider
from tornado_proxy.config.files import read_document, read_documents
from tornado_proxy.domain.errors import ModelNotPriced
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.providers.shared.response_readers import make_usage_reader

PROGRAM = ROOT / "tornado_proxy"
NAMES = tuple(provider.name for provider in PROVIDERS)

PROVIDER_FOLDERS = {("providers", name) for name in NAMES}
NAMED = re.compile(rf"[\w./*-]*(?:{'|'.join(NAMES)})[\w./*-]*", re.IGNORECASE)

#: Words in code outside the registry that name a provider, with the reason.
NAMED_ELSEWHERE = {
    ("cli/projects/credentials.py", "openai/*"): "help: an example of a model pattern",
    ("config/reference.py", "openai"): "documentation: an example of a configuration",
    ("config/reference.py", "//api.openai.com"): "documentation: an example of a configuration",
    ("config/reference.py", "OPENAI_API_KEY"): "documentation: an example of a configuration",
    ("local/coding_tools.py", "OPENAI_BASE_URL"): "a variable that a coding tool reads",
    ("local/coding_tools.py", "ANTHROPIC_API_KEY"): "a variable that a coding tool reads",
    ("local/coding_tools.py", "ANTHROPIC_BASE_URL"): "a variable that a coding tool reads",
    ("wire/client_facts.py", "openai-safety-identifier"): "a header in the table of clients",
}

FOLDER = Path(__file__).parent / "fake_provider"
ROUTES = RouteTable((*PROVIDERS, FAKE))
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)

BODY = b'{"model":"parrot-1","prompt":"hello"}'
RESPONSE = b'{"id": "gen_1", "text": "hello", "units": {"read": 12, "written": 3}}'


@pytest.fixture(scope="module")
def prices() -> PriceBook:
    """The price book of the program with the fake provider's price file."""
    return PriceBook.from_documents([*read_documents(ROOT / "conf" / "prices"), read_document(FOLDER / "prices.yaml")])


def test_routes_of_an_added_provider_have_its_prefix() -> None:
    match = ROUTES.match_http("POST", "/fake/v1/generate?beta=1")

    assert (match.provider, match.upstream_target) == (FAKE, "/v1/generate?beta=1")
    assert match.endpoint.charged
    assert not ROUTES.match_http("GET", "/fake/v1/voices").endpoint.charged
    assert ROUTES.find_provider("/fake/v1/unknown") is FAKE


def test_usage_of_an_added_provider_is_rated_at_its_prices(prices: PriceBook) -> None:
    endpoint = ROUTES.match_http("POST", "/fake/v1/generate").endpoint
    tariff = Tariff(prices, FAKE.name, surcharge_rate=Decimal("0.05"))
    assert endpoint.parse is not None
    facts = endpoint.parse(RequestView(BODY, "application/json")).facts
    reader = make_usage_reader(endpoint, facts, ResponseHead(200, "application/json"))

    tariff.admit(endpoint.path, facts.spends[0], NOON)
    reader.feed(RESPONSE)
    reader.close(complete=True)
    cost = tariff.charge(reader.result(), facts.model, NOON).cost

    # 12 units at 2 USD and 3 at 10 USD per million, and 5 %
    assert cost.total == Decimal("0.0000567")
    assert cost.faults == ()


def test_a_model_of_an_added_provider_needs_a_price(prices: PriceBook) -> None:
    facts = GENERATE.parse(RequestView(b'{"model":"parrot-2"}')).facts  # type: ignore[misc]  # its parse is set

    with pytest.raises(ModelNotPriced, match="parrot-2"):
        Tariff(prices, FAKE.name, surcharge_rate=Decimal(0)).admit(GENERATE.path, facts.spends[0], NOON)


@pytest.fixture(scope="module")
def provider() -> Iterator[ReplayProvider]:
    """The fake provider's server."""
    with running_replay_provider() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The real server with the fake provider in its registry."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "prices").mkdir()
    for path in (*(ROOT / "conf" / "prices").glob("*.yaml"), FOLDER / "prices.yaml"):
        name = "fake.yaml" if path.parent == FOLDER else path.name
        (folder / "prices" / name).write_text(path.read_text())
    with running_proxy(
        folder,
        provider.url,
        program="tests.providers.fake_provider",
        providers={"fake": {"base_url": provider.url, "api_key": {"env": "TEST_OPENAI_KEY"}}},
        pricing={"path": "prices", "surcharge_rate": "0.05"},
    ) as running:
        yield running


def send(proxy: ProxyProcess, method: str, path: str, token: str, body: bytes | None = None) -> tuple[int, bytes, str]:
    """Send a request; return status, body and the proxy's request id."""
    headers = {"X-Fake-Key": token, "Content-Type": "application/json"}
    request = urllib.request.Request(proxy.base_url + path, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return response.status, response.read(), response.headers["Llm-Proxy-Request-Id"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["Llm-Proxy-Request-Id"]


def test_the_server_relays_and_bills_a_request_to_an_added_provider(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE[:20], RESPONSE[20:]))

    status, body, request_id = send(proxy, "POST", "/fake/v1/generate", mint(models=["fake/*"]), BODY)

    assert (status, body) == (200, RESPONSE)
    received = provider.requests[-1]
    assert (received.method, received.target, received.body) == ("POST", "/v1/generate", BODY)
    assert received.header("X-Fake-Key") == OPENAI_KEY
    record = proxy.read_record(request_id)
    assert (record["project_id"], record["provider"], record["model"]) == (PROJECT, "fake", "parrot-1")
    assert (record["basis"], record["outcome"], record["usage"]) == (
        "reported",
        "completed",
        {"read": 12, "written": 3},
    )
    assert Decimal(record["total"]) == Decimal("0.0000567")


def test_the_server_relays_a_free_request_to_an_added_provider(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(b'{"voices":[]}',))

    status, body, request_id = send(proxy, "GET", "/fake/v1/voices", mint())

    assert (status, body) == (200, b'{"voices":[]}')
    assert proxy.read_record(request_id)["basis"] == "free"


@pytest.mark.parametrize(
    ("token", "body", "status", "code"),
    [
        pytest.param("no-token", BODY, 401, "invalid_api_key", id="no valid token"),
        pytest.param(None, b"{}", 400, "invalid_body", id="no model"),
        pytest.param(None, b'{"model":"parrot-2"}', 400, "model_not_priced", id="no price"),
        pytest.param(mint(models=["openai/*"]), BODY, 403, "not_allowed", id="not granted"),
    ],
)
def test_the_server_rejects_requests_in_the_error_format_of_an_added_provider(
    proxy: ProxyProcess, provider: ReplayProvider, token: str | None, body: bytes, status: int, code: str
) -> None:
    received = len(provider.requests)

    found, text, request_id = send(proxy, "POST", "/fake/v1/generate", token or mint(), body)

    fault = json.loads(text)["fault"]
    assert (found, fault["code"], fault["request"]) == (status, code, request_id)
    assert len(provider.requests) == received


@pytest.mark.parametrize(
    ("command", "text"),
    [
        pytest.param(["check"], "", id="check"),
        pytest.param(["pricing", "list", "--provider", "fake"], "parrot-1", id="pricing list"),
        pytest.param(["pricing", "show", "fake/parrot-1"], "fake/parrot-1: active", id="pricing show"),
        pytest.param(["usage", "--provider", "fake", "--format", "jsonl"], '"provider": "fake"', id="usage"),
    ],
)
def test_commands_know_an_added_provider(proxy: ProxyProcess, command: list[str], text: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tests.providers.fake_provider", *command, "--config", str(proxy.folder / "proxy.yaml")],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **SECRETS},
    )

    assert printed.returncode == 0, printed.stdout + printed.stderr
    assert text in printed.stdout


def test_only_the_registry_names_a_provider() -> None:
    found = {
        (str(path.relative_to(PROGRAM)), word)
        for path in PROGRAM.rglob("*.py")
        if not belongs_to_a_provider(path)
        for word in find_provider_names(path.read_text())
    }

    assert found == NAMED_ELSEWHERE.keys()


def belongs_to_a_provider(path: Path) -> bool:
    """Return True if a file may name a provider.

    These are the registry, a provider's folder, the simulator of providers, and the helpers for the providers' SDKs.
    """
    parts = path.relative_to(PROGRAM).parts
    return parts[0] in ("simulator", "sdk") or parts == ("providers", "registry.py") or parts[:2] in PROVIDER_FOLDERS


def find_provider_names(source: str) -> set[str]:
    """Return the words with the name of a provider in identifiers and strings; docstrings and comments may name one."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {
        id(node.value) for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    code = (text for node in nodes if id(node) not in docstrings for text in read_strings(node))
    return {word for text in code for word in NAMED.findall(text)}


def read_strings(node: ast.AST) -> Iterator[str]:
    """Yield the identifiers and strings of one node."""
    for _, value in ast.iter_fields(node):
        for entry in value if isinstance(value, list) else (value,):
            if isinstance(entry, str):
                yield entry
