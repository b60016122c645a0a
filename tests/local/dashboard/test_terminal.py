"""`tornado-proxy local` in a real terminal: the dashboard, with streams of the simulator."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import ProxyProcess, mint, read_usage, running_proxy
from tests.local.machine import Machine
from tests.local.terminal import Terminal, in_terminal
from tornado_proxy.simulator import running_simulator

TITLES = "Requests In flight Errors  Tokens      Subtotal     Surcharge    Total"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator() as upstream,
        running_proxy(
            # A drained stream that a test breaks off would delay the end of the server.
            tmp_path_factory.mktemp("hosted"),
            upstream,
            streams={"on_client_disconnect": "cancel"},
        ) as running,
    ):
        yield running


@contextlib.contextmanager
def dashboard(proxy: ProxyProcess, folder: Path, *arguments: str, **settings: Any) -> Iterator[Terminal]:
    """Run `local` in a terminal until its dashboard is shown."""
    options = ("local", "--port", "0", "--upstream", proxy.base_url, *arguments)
    with in_terminal(Machine(folder), *options, **{"MESHAGENT_TOKEN": mint(), **settings}) as terminal:
        # The screen comes in pieces, from its first line to its last tables.
        terminal.wait_for(lambda text: f"to {proxy.base_url}" in text and "Time     Status" in text)
        yield terminal


def post(terminal: Terminal, folder: Path, prompt: str, bearer: str = "", **members: Any) -> httpx.Response:
    match = re.search(r"http://127\.0\.0\.1:\d+", terminal.lines[0])
    assert match is not None
    bearer = bearer or (folder / "tornado-proxy" / "local_bearer").read_text().strip()
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], **members}
    headers = {"Authorization": f"Bearer {bearer}"}
    return httpx.post(f"{match[0]}/v1/chat/completions", json=body, headers=headers, timeout=30)


@contextlib.contextmanager
def streaming(terminal: Terminal, folder: Path, prompt: str) -> Iterator[threading.Thread]:
    """Read a stream in a thread, whole or until it breaks."""

    def read() -> None:
        with contextlib.suppress(httpx.TransportError):
            post(terminal, folder, prompt, stream=True)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)


def find_child(pid: int) -> int:
    """Return the id of the only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def read_total(text: str) -> Decimal:
    return Decimal(text.splitlines()[2].split()[-1].strip("~$"))


def test_totals_rise_while_a_stream_runs_and_end_exactly(proxy: ProxyProcess, tmp_path: Path) -> None:
    with dashboard(proxy, tmp_path) as terminal:
        assert terminal.lines[1] == TITLES
        assert terminal.lines[11] == "Time     Status Model                First byte Duration    Tokens         Cost"
        assert all(len(line) <= 80 for line in terminal.lines)

        with streaming(terminal, tmp_path, "[[sim tokens=100 delay-ms=50]]"):
            first = terminal.wait_for(lambda text: re.search(r"gpt-4o-mini .*~\$0\.0000", text))
            assert "In flight (1)" in first
            later = terminal.wait_for(lambda text: read_total(text) > read_total(first))
            assert re.search(r"POST /v1/chat/completions +\d\.\ds +\d+ +~\$0\.0000\d\d", later)
        # 13 tokens of prompt at 0.15, 100 at 0.60 per million: 0.00006195, and 5 % of that.
        totals = "1        0         0       113         $0.000062    $0.000003    $0.000065"
        row = re.compile(r"\d\d:\d\d:\d\d 200    gpt-4o-mini .* 113 +\$0\.000065")
        terminal.wait_for(lambda text: totals in text and row.search(text))

        terminal.press("q")
        assert terminal.wait_end() == 0

    assert terminal.output.rstrip().endswith(
        b"1 request, $0.00006195 subtotal, $0.0000030975 surcharge, $0.0000650475 total"
    )
    # The terminal is back: its own screen, a cursor, no mouse reports.
    assert terminal.output.rindex(b"\x1b[?1049l") < terminal.output.rindex(b"\x1b[?25h")


def test_quit_asks_while_a_stream_runs_and_breaks_it_off(proxy: ProxyProcess, tmp_path: Path) -> None:
    with (
        dashboard(proxy, tmp_path) as terminal,
        streaming(terminal, tmp_path, "[[sim tokens=2000 delay-ms=20]]") as stream,
    ):
        terminal.wait_for(lambda text: "In flight (1)" in text)

        terminal.press("q")
        terminal.wait_for(lambda text: "1 request is in flight. Quit and break it off?" in text)
        terminal.press("\x1b")
        terminal.wait_for(lambda text: "Quit and break" not in text)
        assert stream.is_alive()

        terminal.press("q")
        terminal.wait_for(lambda text: "Quit and break" in text)
        terminal.press("y")
        assert terminal.wait_end() == 0

    assert not stream.is_alive()
    assert re.search(rb"~\$[\d.]+ \d+ms\r\n1 request, ", terminal.output)


def test_signal_ends_the_dashboard_first_and_then_the_requests(proxy: ProxyProcess, tmp_path: Path) -> None:
    with dashboard(proxy, tmp_path) as terminal, streaming(terminal, tmp_path, "[[sim tokens=40 delay-ms=50]]"):
        terminal.wait_for(lambda text: "In flight (1)" in text)

        terminal.child.kill(signal.SIGTERM)
        assert terminal.wait_end() == 0

    ending = terminal.output[terminal.output.rindex(b"\x1b[?1049l") :]
    assert b"waiting for 1 request; stop again to abort them" in ending
    assert re.search(rb" 200 POST /v1/chat/completions gpt-4o-mini 53 \$[\d.]+ \d+ms\r\n1 request, ", ending)


def test_dashboard_that_dies_gives_the_terminal_back_and_requests_have_lines(
    proxy: ProxyProcess, tmp_path: Path
) -> None:
    with dashboard(proxy, tmp_path) as terminal:
        response = post(terminal, tmp_path, "hi")
        assert response.status_code == 200
        terminal.wait_for(lambda text: TITLES in text)
        os.kill(find_child(terminal.child.pid), signal.SIGKILL)
        terminal.wait_for(lambda _: b"the dashboard has failed; requests are shown as lines" in terminal.output)

        terminal.child.kill(signal.SIGINT)
        assert terminal.wait_end() == 0

    assert b"1 request, " in terminal.output


def test_records_are_kept_when_the_terminal_is_closed(proxy: ProxyProcess, tmp_path: Path) -> None:
    with dashboard(proxy, tmp_path) as terminal, streaming(terminal, tmp_path, "[[sim tokens=20 delay-ms=50]]"):
        terminal.wait_for(lambda text: "In flight (1)" in text)
        terminal.hang_up()

    (record,) = read_usage(f"sqlite:///{tmp_path}/tornado-proxy/ledger.db")
    assert (record["status"], record["outcome"]) == (200, "completed")


def test_errors_of_the_server_and_refusals_of_the_local_proxy_are_told_apart(
    proxy: ProxyProcess, tmp_path: Path
) -> None:
    with dashboard(proxy, tmp_path) as terminal:
        assert post(terminal, tmp_path, "hi", model="no-such-model").status_code == 400
        assert post(terminal, tmp_path, "hi", bearer="another").status_code == 401
        terminal.wait_for(lambda text: "1 refused here" in text and re.search(r"400 x  no-such-model", text))

        terminal.press("e")
        shown = terminal.wait_for(lambda text: "Errors, the newest first" in text and "has no price" in text)

    assert re.search(r"401 POST /v1/chat/completions \w+\n +missing or invalid bearer of the local proxy", shown)
    assert re.search(r"400 POST /v1/chat/completions no-such-model\n +.*no-such-model", shown)


def test_resize_in_a_terminal_whose_shell_exports_its_first_size(proxy: ProxyProcess, tmp_path: Path) -> None:
    with dashboard(proxy, tmp_path, COLUMNS="80", LINES="24") as terminal:
        terminal.resize(140, 40)
        terminal.wait_for(lambda text: "Model                     Requests      Tokens        Total" in text)

        terminal.resize(80, 24)
        terminal.wait_for(
            lambda text: "Time     Status Model                First byte Duration    Tokens         Cost" in text
        )


def test_no_color_is_obeyed(proxy: ProxyProcess, tmp_path: Path) -> None:
    with dashboard(proxy, tmp_path, NO_COLOR="1") as terminal:
        terminal.wait_for(lambda text: "No requests yet" in text)

    styles = set(re.findall(rb"\x1b\[([\d;]*)m", terminal.output))
    numbers = {number for style in styles for number in style.split(b";") if number}
    # Bold, dim, reverse, and the terminal's own colours; no other one.
    assert {b"1", b"7"} <= numbers <= {b"0", b"1", b"2", b"7", b"39", b"49"}


@pytest.mark.parametrize("options", [["--no-tui"], ["--log", "text"]])
def test_lines_in_a_terminal_on_request(options: list[str], proxy: ProxyProcess, tmp_path: Path) -> None:
    arguments = ("local", "--port", "0", "--upstream", proxy.base_url, *options)
    with in_terminal(Machine(tmp_path), *arguments, MESHAGENT_TOKEN=mint()) as terminal:
        terminal.wait_for(lambda text: "unset ANTHROPIC_AUTH_TOKEN" in text)
        terminal.child.kill(signal.SIGINT)
        assert terminal.wait_end() == 0

    assert b"\x1b" not in terminal.output


def test_dumb_terminal_gets_lines(proxy: ProxyProcess, tmp_path: Path) -> None:
    arguments = ("local", "--port", "0", "--upstream", proxy.base_url)
    with in_terminal(Machine(tmp_path), *arguments, MESHAGENT_TOKEN=mint(), TERM="dumb") as terminal:
        terminal.wait_for(lambda text: "unset ANTHROPIC_AUTH_TOKEN" in text)
        terminal.child.kill(signal.SIGINT)
        assert terminal.wait_end() == 0

    assert b"\x1b" not in terminal.output
