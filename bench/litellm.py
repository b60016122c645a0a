"""LiteLLM's proxy in a virtual environment of its own, because it is large and pins other versions."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from bench.processes import ROOT

MASTER_KEY = "sk-litellm-benchmark"

VERSION = "1.110.2"

#: Its routes in Rust where it has them, which in this version is /v1/messages; the router is always in Rust.
ENVIRONMENT = {"LITELLM_RUST": "1"}

_FOLDER = ROOT / "var" / "bench" / f"litellm-{VERSION}"

#: The packages that the program imports at its start.  The extra `proxy` of this version names unpublished ones.
_PROXY_PACKAGES = (
    "apscheduler>=3.11.2,<4", "azure-identity", "azure-storage-blob", "backoff", "backports-zstd",
    "cryptography>=49,<51", "expression>=5.6", "fastapi>=0.136.3,<1", "fastapi-sso", "granian>=2.7.4,<3",
    "gunicorn>=23,<24", "hiredis>=3",
    "httpx2>=2.10,<3", "inquirerpy", "litellm-enterprise", "litellm-proxy-extras", "mcp>=2.3,<3", "orjson>=3.11.6,<4",
    "polars", "pyjwt>=2.13", "pynacl", "pyroscope-io", "python-multipart", "restrictedpython>=8.5", "rich>=13.9.4,<14",
    "rq>=2.7", "semver", "soundfile", "tomlkit", "uvicorn<1", "uvloop>=0.22.1,<1", "websockets>=15.0.1,<16",
)  # fmt: skip

#: With a master key it checks the caller; without a database it has no ledger.
_CONFIG = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{provider}/v1", api_key: sk-provider-of-the-benchmark}}
  - model_name: {claude}
    litellm_params: {{model: anthropic/{claude}, api_base: "{provider}", api_key: sk-provider-of-the-benchmark}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false}}
"""


def install() -> None:
    """Create the environment if it does not exist, which takes minutes."""
    if not (_FOLDER / "bin" / "litellm").exists():
        print(f"installing litellm {VERSION} into {_FOLDER}", file=sys.stderr)
        venv.create(_FOLDER, with_pip=True, clear=True)
        pip = (_FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet")
        subprocess.run([*pip, f"litellm=={VERSION}", *_PROXY_PACKAGES], check=True)


def command(folder: Path, port: int, provider: str, claude: str) -> list[str]:
    """Write the configuration into `folder` and return the command that starts the proxy.

    Args:
        folder: Where litellm.yaml is written.
        port: Its port.
        provider: The base URL of both providers.
        claude: The model of requests for messages.
    """
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(provider=provider, key=MASTER_KEY, claude=claude))
    program = str(_FOLDER / "bin" / "litellm")
    return [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
