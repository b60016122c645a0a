"""Conventions of a provider beside its HTTP API: WebSocket subprotocols, SDK variables, usage, public price lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tornado_proxy.domain.usage import Meter


@dataclass(frozen=True, slots=True)
class WebSocketConvention:
    """How browsers, which cannot set headers, use subprotocols of a provider's WebSockets.

    `token_prefix` begins the subprotocol that carries the token.  Those that begin with one of `private_prefixes` carry
    credentials or choose an account and are never forwarded.  `default` is selected if the provider selects none.
    """

    token_prefix: str
    private_prefixes: tuple[str, ...]
    default: str


@dataclass(frozen=True, slots=True)
class SdkVariables:
    """The environment variables that the provider's SDKs read.

    `base_path` follows the host in the base URL of the SDKs: "/v1" if their own paths do not begin with it.
    `other_credentials` are variables from which they take a second credential, or another one than `api_key`.
    """

    api_key: str
    base_url: str
    base_path: str = ""
    other_credentials: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExampleRequest:
    """The path and model of a cheap request for one message of text, which `tornado-proxy demo` shows."""

    path: str
    model: str


@dataclass(frozen=True, slots=True)
class UsageConvention:
    """The members of usage that the readers of a provider know.

    `counts` are the names of all numbers, those that are parts of others too.  `objects` contain counts, `texts` none;
    usage with a member that is none of these is searched for numbers.
    """

    counts: frozenset[str] = frozenset()
    objects: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


NO_USAGE = UsageConvention()


@dataclass(frozen=True, slots=True)
class PriceListConvention:
    """How public price lists describe the models of a provider.

    `names` are the lists' names of the provider.  `cache_write` is the meter of cache writes without a stated lifetime.
    `endpoints` serve every model of the provider, empty if they differ by model.  `regional_hosts` are hosts of the
    public API that have prices of their own, with their region.
    """

    names: frozenset[str]
    cache_write: Meter = Meter.CACHE_WRITE
    endpoints: tuple[str, ...] = ()
    regional_hosts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """Options of a configuration that the endpoints of a provider can depend on.

    `exact_speech`: request usage from the provider if a speech response does not state it.
    """

    exact_speech: bool = True
