"""`tornado-proxy demo`: everything on one laptop, with real providers where there are keys, else with the simulator."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import yaml

from tornado_proxy import event_loop, snapshot
from tornado_proxy.app import Server
from tornado_proxy.auth import participant
from tornado_proxy.auth.api_key import format_api_key, generate, parse_api_key
from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.cli.serve import exit_with_words
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ApiKey
from tornado_proxy.observability import logs
from tornado_proxy.simulator import Simulator

#: provider -> the variable that holds its key, and where it is.
_PROVIDERS = {
    "openai": ("OPENAI_API_KEY", "https://api.openai.com"),
    "anthropic": ("ANTHROPIC_API_KEY", "https://api.anthropic.com"),
}
_KEY_FILE = "api_key"
_SIMULATOR_KEY_FILE = "simulator_key"
_TOKEN_LIFE = timedelta(days=7)


@click.command()
@click.option("--port", default=8080, show_default=True, help="Port for clients; 0 takes a free one.")
@click.option("--admin-port", default=8081, show_default=True, help="Port for metrics and health; 0 takes a free one.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("var/demo"),
    show_default=True,
    help="Where the demo keeps its key, configuration and ledger.",
)
def demo(port: int, admin_port: int, folder: Path) -> None:
    """Run the proxy with a project, a key and a token made on the spot.

    A provider whose key is in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY) is the real one; the others are
    played by the built-in simulator, which costs nothing.  A participant token there is not taken for a key.

    \b
    Example:
      tornado-proxy demo --port 8080
    """
    listener = logs.start("INFO")
    try:
        with exit_with_words(folder / "proxy.yaml"):
            event_loop.run(_run(folder, port, admin_port))
    finally:
        listener.stop()


async def _run(folder: Path, port: int, admin_port: int) -> None:
    simulator = Simulator()
    real = {name for name, (variable, _) in _PROVIDERS.items() if _is_provider_key(os.environ.get(variable, ""))}
    simulator_url = None if len(real) == len(_PROVIDERS) else f"http://127.0.0.1:{await simulator.start()}"
    try:
        key = _prepare(folder, port, admin_port, real, simulator_url)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; name another --dir") from None
    except ValueError as error:
        raise click.ClickException(f"{folder / _KEY_FILE}: {error}; remove it, and a new one is made") from None
    server = Server(folder / "proxy.yaml", snapshot.build(folder / "proxy.yaml", 1))
    await server.start()
    event_loop.freeze_startup_objects()
    server.handle_signals()
    _greet(f"http://127.0.0.1:{server.port}", _token(key), real, folder)
    await server.wait_stopped()
    await simulator.stop()


def _is_provider_key(text: str) -> bool:
    """Whether `text` may go to a provider: a shell that took our `export` lines holds a participant token there."""
    try:
        read_unverified(text)
    except NotAuthenticated:
        return bool(text.strip())
    return False


def _prepare(folder: Path, port: int, admin_port: int, real: set[str], simulator_url: str | None) -> ApiKey:
    """Write the demo's files; the key of an earlier run is kept, so that its tokens stay good."""
    folder.mkdir(parents=True, exist_ok=True)
    key_file = folder / _KEY_FILE
    if not key_file.exists():
        _write_secret(key_file, format_api_key(generate(str(uuid.uuid4()))).reveal())
    key = parse_api_key(key_file.read_text())
    _write_secret(folder / "signing_secret", key.secret.reveal())
    _write_secret(folder / _SIMULATOR_KEY_FILE, "simulator-needs-no-key")
    text = yaml.safe_dump(_config(key, port, admin_port, real, simulator_url), sort_keys=False)
    (folder / "proxy.yaml").write_text("# Written by `tornado-proxy demo` at each start.\n" + text)
    return key


def _config(key: ApiKey, port: int, admin_port: int, real: set[str], simulator_url: str | None) -> Mapping[str, object]:
    providers: dict[str, object] = {}
    for name, (variable, url) in _PROVIDERS.items():
        if name in real:
            providers[name] = {"base_url": url, "api_key": {"env": variable}}
        else:
            # Its prefix tells the simulator whose /v1/models is asked for, whatever headers a curl line leaves out.
            providers[name] = {"base_url": f"{simulator_url}/{name}", "api_key": {"file": _SIMULATOR_KEY_FILE}}
    return {
        "listen": {"host": "127.0.0.1", "port": port},
        "admin": {"host": "127.0.0.1", "port": admin_port},
        "providers": providers,
        "pricing": {"surcharge_rate": "0.05"},
        "ledger": {"url": "sqlite:///ledger.db"},
        "projects": [
            {
                "id": key.project_id,
                "name": "demo",
                "api_keys": [{"id": key.id, "secret": {"file": "signing_secret"}}],
            }
        ],
    }


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def _token(key: ApiKey) -> str:
    grants: list[dict[str, object]] = [
        {"name": "room", "scope": "demo"},
        {"name": "role", "scope": "user"},
        {"name": "api", "scope": {"llm": {}}},
    ]
    return participant.mint(key, "you", grants, datetime.now(UTC) + _TOKEN_LIFE)


def _greet(base_url: str, token: str, real: set[str], folder: Path) -> None:
    provider, model = ("anthropic", "claude-haiku-4-5") if real == {"anthropic"} else ("openai", "gpt-4o-mini")
    body = f'{{"model":"{model}","max_tokens":50,"messages":[{{"role":"user","content":"Say hello."}}]}}'
    path = "/anthropic/v1/messages" if provider == "anthropic" else "/openai/v1/chat/completions"
    played = sorted(set(_PROVIDERS) - real)
    if played:
        click.echo(f"No provider key in the environment for {' and '.join(played)}: the built-in simulator answers.")
    if real:
        click.echo(f"Calls to {' and '.join(sorted(real))} go to the real provider and cost money.")
    click.echo(f"\nexport OPENAI_BASE_URL={base_url}/openai/v1 ANTHROPIC_BASE_URL={base_url}/anthropic")
    click.echo(f"export OPENAI_API_KEY={token}")
    click.echo("export ANTHROPIC_API_KEY=$OPENAI_API_KEY\n")
    click.echo(f"curl {base_url}{path} -H {shlex.quote(f'Authorization: Bearer {token}')} \\")
    version = " -H 'anthropic-version: 2023-06-01'" if provider == "anthropic" else ""
    click.echo(f"  -H 'Content-Type: application/json'{version} -d {shlex.quote(body)}\n")
    click.echo(f"What it cost: {_program()} usage --config {shlex.quote(str(folder / 'proxy.yaml'))}")
    click.echo("Ctrl-C ends it.\n")


def _program() -> str:
    """How this program was called, for a line to paste."""
    by_module = Path(sys.argv[0]).name == "__main__.py"
    return f"{shlex.quote(sys.executable)} -m tornado_proxy" if by_module else shlex.quote(sys.argv[0])
