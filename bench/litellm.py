"""LiteLLM's proxy in a virtual environment of its own, because it is large and pins other versions."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from bench.processes import ROOT

MASTER_KEY = "sk-litellm-benchmark"

_FOLDER = ROOT / "var" / "bench" / "litellm"

#: With a master key it checks the caller; without a database it has no ledger.
_CONFIG = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{provider}/v1", api_key: sk-provider-of-the-benchmark}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false}}
"""


def install() -> None:
    """Create the environment if it does not exist, which takes minutes."""
    if not (_FOLDER / "bin" / "litellm").exists():
        print(f"installing litellm[proxy] into {_FOLDER}", file=sys.stderr)
        venv.create(_FOLDER, with_pip=True, clear=True)
        subprocess.run([_FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "litellm[proxy]"], check=True)


def command(folder: Path, port: int, provider: str) -> list[str]:
    """Write the configuration into `folder` and return the command that starts the proxy."""
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(provider=provider, key=MASTER_KEY))
    program = str(_FOLDER / "bin" / "litellm")
    return [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
