from collections.abc import Iterator

import anthropic
import openai
import pytest

from tornado_proxy.simulator import Simulator, running_simulator


@pytest.fixture
def simulator() -> Simulator:
    return Simulator(record=True, settle_s=0.05)


@pytest.fixture
def base_url(simulator: Simulator) -> Iterator[str]:
    with running_simulator(simulator) as url:
        yield url


@pytest.fixture
def openai_client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def anthropic_client(base_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=base_url, api_key="sk-ant-test", max_retries=0, timeout=10) as client:
        yield client
