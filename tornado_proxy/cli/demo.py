"""`tornado-proxy demo`: runs the proxy on one machine, with real providers if their keys are set, else simulated."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import jwt
import yaml

from tornado_proxy import event_loop, snapshot
from tornado_proxy.app import Server
from tornado_proxy.auth import participant
from tornado_proxy.auth.api_key import format_api_key, generate, parse_api_key
from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.cli.serve import exit_on_startup_errors
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ApiKey
from tornado_proxy.observability import logs
from tornado_proxy.providers.registry import PROVIDER_NAMES, PROVIDERS
from tornado_proxy.simulator import Simulator

_KEY_FILE = "api_key"
_SIMULATOR_KEY_FILE = "simulator_key"
_ADMIN_TOKEN_FILE = "admin_token"  # noqa: S105  # the name of a file
_TOKEN_FILE = "token"  # noqa: S105  # the name of a file
_LOCK_FILE = "lock"
_HOST = "127.0.0.1"
#: Long enough for an evaluation, short enough for a token in a shell history.
_TOKEN_LIFETIME = timedelta(days=7)
#: A start with a token that expires earlier makes a new one, so that a token lasts for a day's work at least.
_MIN_TOKEN_REST = timedelta(days=1)


@click.command()
@click.option("--port", default=8080, show_default=True, help="Port for clients; 0 selects a free port.")
@click.option(
    "--admin-port", default=8081, show_default=True, help="Port for metrics and health; 0 selects a free port."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("var/demo"),
    show_default=True,
    help="The folder for the demo's key, configuration and ledger.",
)
def demo(port: int, admin_port: int, folder: Path) -> None:
    """Run the proxy with a new project, key and token.

    A provider whose key is in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY) is the real one.  The others are
    simulated, which costs nothing.  A participant token in such a variable is ignored.

    \b
    Example:
      tornado-proxy demo --port 8080
    """
    listener = logs.start("INFO")
    try:
        with exit_on_startup_errors(folder / "proxy.yaml"):
            event_loop.run(_run(folder, port, admin_port))
    finally:
        listener.stop()


async def _run(folder: Path, port: int, admin_port: int) -> None:
    # Before anything is written: a demo that cannot run must not change the files of one that does.
    for number in (port, admin_port):
        _check_port(number)
    with _lock(folder):
        await _serve(folder, port, admin_port)


async def _serve(folder: Path, port: int, admin_port: int) -> None:
    simulator = Simulator()
    real = {
        provider.name for provider in PROVIDERS if _is_provider_key(os.environ.get(provider.sdk_variables.api_key, ""))
    }
    simulator_url = None if len(real) == len(PROVIDERS) else f"http://127.0.0.1:{await simulator.start()}"
    try:
        key = _prepare(folder, port, admin_port, real, simulator_url)
        token = keep_token(folder / _TOKEN_FILE, key, datetime.now(UTC))
    except OSError as error:
        raise _unusable_folder(error) from None
    except ValueError as error:
        raise click.ClickException(f"{folder / _KEY_FILE}: {error}; remove the file to get a new key") from None
    server = Server(folder / "proxy.yaml", snapshot.build(folder / "proxy.yaml", 1))
    await server.start()
    event_loop.freeze_startup_objects()
    server.handle_signals()
    click.echo(_describe_admin_port(f"http://127.0.0.1:{server.admin_port}", folder))
    _print_instructions(f"http://127.0.0.1:{server.port}", token, real, folder)
    await server.wait_stopped()
    await simulator.stop()


def _check_port(port: int) -> None:
    """Raise ClickException if the demo cannot listen on `port`; 0 is always free."""
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {_HOST}:{port}: {error.strerror}; name free ports with --port and --admin-port "
            "(0 for any)"
        ) from None


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the demo's folder.  The kernel releases it when the process ends.

    Raises:
        ClickException: another demo holds it, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK_FILE).open("w")
    except OSError as error:
        raise _unusable_folder(error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise click.ClickException(f"another demo runs in {folder}; stop it, or name another --dir") from None
        yield


def _unusable_folder(error: OSError) -> click.ClickException:
    return click.ClickException(f"{error.filename}: {error.strerror}; name another --dir")


def _is_provider_key(text: str) -> bool:
    """Return True if `text` may be sent to a provider.

    After the `export` lines of an earlier demo the variable contains a participant token, which must not leave.
    """
    try:
        read_unverified(text)
    except NotAuthenticated:
        return bool(text.strip())
    return False


def _prepare(folder: Path, port: int, admin_port: int, real: set[str], simulator_url: str | None) -> ApiKey:
    """Write the demo's files and return its key.  The key of an earlier run is kept, so that its tokens stay valid."""
    key_file = folder / _KEY_FILE
    # A new key at each start would end the tokens of the last one.
    if not key_file.exists():
        _write_secret(key_file, format_api_key(generate(str(uuid.uuid4()))).reveal())
    key = parse_api_key(key_file.read_text())
    _write_secret(folder / "signing_secret", key.secret.reveal())
    _write_secret(folder / _SIMULATOR_KEY_FILE, "simulator-needs-no-key")
    if not (folder / _ADMIN_TOKEN_FILE).exists():
        _write_secret(folder / _ADMIN_TOKEN_FILE, secrets.token_urlsafe(32))
    text = yaml.safe_dump(_make_config(key, port, admin_port, real, simulator_url), sort_keys=False)
    (folder / "proxy.yaml").write_text("# Written by `tornado-proxy demo` at each start.\n" + text)
    return key


def _make_config(
    key: ApiKey, port: int, admin_port: int, real: set[str], simulator_url: str | None
) -> Mapping[str, object]:
    providers: dict[str, object] = {}
    for provider in PROVIDERS:
        if provider.name in real:
            variable = provider.sdk_variables.api_key
            providers[provider.name] = {"base_url": provider.default_base_url, "api_key": {"env": variable}}
        else:
            # The path prefix tells the simulator which provider is meant: a curl line can omit the headers that do.
            base_url = f"{simulator_url}/{provider.name}"
            providers[provider.name] = {"base_url": base_url, "api_key": {"file": _SIMULATOR_KEY_FILE}}
    return {
        "listen": {"host": _HOST, "port": port},
        "admin": {"host": _HOST, "port": admin_port, "token": {"file": _ADMIN_TOKEN_FILE}},
        "providers": providers,
        # Above zero, so that the surcharge line appears in the first bill.
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
    # Create the file with its mode first: written first, the secret would be readable for a moment.
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def keep_token(file: Path, key: ApiKey, now: datetime) -> str:
    """Return the token of an earlier start, or a new one if that expires soon or another key signed it."""
    try:
        token = file.read_text().strip()
        claims = jwt.decode(token, key.secret.reveal(), [participant.ALGORITHM], options={"verify_exp": False})
        if claims["exp"] >= (now + _MIN_TOKEN_REST).timestamp():
            return token
    except (OSError, ValueError, KeyError, TypeError, jwt.InvalidTokenError):
        pass  # no token yet, or one that a person has changed
    token = _mint_token(key, now + _TOKEN_LIFETIME)
    _write_secret(file, token)
    return token


def _describe_end(token: str) -> str:
    end = datetime.fromtimestamp(int(str(read_unverified(token).claims["exp"])), UTC)
    return f"The token is valid until {end:%Y-%m-%d %H:%M} UTC; a start on its last day makes a new one."


def _mint_token(key: ApiKey, expires_at: datetime) -> str:
    grants: list[dict[str, object]] = [
        {"name": "room", "scope": "demo"},
        {"name": "role", "scope": "user"},
        {"name": "api", "scope": {"llm": {}}},
    ]
    return participant.mint(key, "you", grants, expires_at)


def _print_instructions(base_url: str, token: str, real: set[str], folder: Path) -> None:
    simulated = sorted(set(PROVIDER_NAMES) - real)
    if simulated:
        click.echo(
            f"No provider key in the environment for {' and '.join(simulated)}: the built-in simulator responds."
        )
    if real:
        click.echo(f"Requests to {' and '.join(sorted(real))} go to the real provider and cost money.")
    click.echo(f"\n{_export_lines(base_url, token)}\n")
    click.echo(f"{_describe_end(token)}\n")
    click.echo(f"{_example_request(base_url, token, real)}\n")
    click.echo(f"What it cost: {_program()} usage --config {shlex.quote(str(folder / 'proxy.yaml'))}")
    click.echo(f"A link to pages about it: {_program()} dashboard --config {shlex.quote(str(folder / 'proxy.yaml'))}")
    click.echo("Stop with Ctrl-C.\n")


def _describe_admin_port(admin_url: str, folder: Path) -> str:
    file = shlex.quote(str(folder / _ADMIN_TOKEN_FILE))
    return f'Metrics: curl -H "Authorization: Bearer $(cat {file})" {admin_url}/metrics'


def _export_lines(base_url: str, token: str) -> str:
    """Return shell lines that point the SDKs of all providers to the proxy."""
    variables = [provider.sdk_variables for provider in PROVIDERS]
    base_urls = [
        f"{provider.sdk_variables.base_url}={base_url}/{provider.prefix}{provider.sdk_variables.base_path}"
        for provider in PROVIDERS
    ]
    # One token for all providers: the shell copies it into the other variables.
    first, *others = [names.api_key for names in variables]
    keys = [f"export {first}={token}", *(f"export {name}=${first}" for name in others)]
    return "\n".join([f"export {' '.join(base_urls)}", *keys])


def _example_request(base_url: str, token: str, real: set[str]) -> str:
    """Return a curl command for the first real provider, else for the first simulated one."""
    provider = next((provider for provider in PROVIDERS if provider.name in real), PROVIDERS[0])
    message = {"role": "user", "content": "Say hello."}
    body = {"model": provider.example.model, "max_tokens": 50, "messages": [message]}
    headers = [("Content-Type", "application/json"), *provider.own_headers]
    header_options = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers)
    return (
        f"curl {base_url}/{provider.prefix}{provider.example.path} "
        f"-H {shlex.quote(f'Authorization: Bearer {token}')} \\\n"
        f"  {header_options} -d {shlex.quote(json.dumps(body, separators=(',', ':')))}"
    )


def _program() -> str:
    """Return the command that started this program, to be pasted into a shell."""
    by_module = Path(sys.argv[0]).name == "__main__.py"
    return f"{shlex.quote(sys.executable)} -m tornado_proxy" if by_module else shlex.quote(sys.argv[0])
