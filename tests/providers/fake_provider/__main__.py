"""The tornado-proxy command with the fake provider in the registry."""

from __future__ import annotations

from tests.providers.fake_provider.provider import FAKE
from tornado_proxy.providers import registry

registry.PROVIDERS += (FAKE,)
registry.PROVIDER_NAMES += (FAKE.name,)  # computed from PROVIDERS before FAKE was in it

# Modules take PROVIDERS when they are imported, so the command comes after the registry is complete.
from tornado_proxy.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
