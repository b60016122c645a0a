"""The dashboard, key by key, in Textual's own terminal."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Callable, Coroutine
from decimal import Decimal

import pytest
from textual.binding import Binding

from tests.harness import ROOT
from tests.local.dashboard.samples import AT, INTRODUCTION, busy_update, finished, running, update
from tests.local.dashboard.shown import Shown, shown_dashboard
from tornado_proxy.local.dashboard.main_screen import MainScreen
from tornado_proxy.local.dashboard.messages import (
    MAX_ERRORS,
    MAX_RECENT,
    ModelSums,
    Refused,
    Sums,
    Update,
    decode,
    encode,
)


@pytest.fixture(autouse=True)
def time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    for name in ("NO_COLOR", "COLORFGBG", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def with_dashboard(
    use: Callable[[Shown], Coroutine[object, object, None]],
    width: int = 80,
    height: int = 24,
    *,
    announcing: bool = False,
) -> None:
    """Run `use` with a dashboard of that size."""

    async def run() -> None:
        async with shown_dashboard(width, height, announcing=announcing) as shown:
            await use(shown)

    asyncio.run(run())


def test_80_by_24_shows_everything_with_whole_column_titles() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(busy_update())

        lines = shown.lines
        assert lines[0].startswith("http://127.0.0.1:8766 to https://llm.example.c")
        assert lines[0].endswith("1 unsettled (!)  1 refused here")
        assert lines[1] == "Requests In flight Errors  Tokens      Subtotal     Surcharge    Total"
        # 3.7202 + 0.1127 + 0.01014, 0.18601 + 0.005635 + 0.000507, and their sum; 2,102,542 + 18,204 + 2,810 tokens.
        assert lines[2] == "350      3         2       ~2,123,556  ~$3.843040   ~$0.192152   ~$4.035192"
        assert lines[3] == "Spend a minute, last 80 minutes: now $0.008000, highest $0.013250"
        assert set("".join(lines[4:6])) <= set(" ▁▂▃▄▅▆▇█")
        assert lines[6:10] == [
            "In flight (3)        Request                        Age     Tokens         Cost",
            "claude-opus-4-8      POST /v1/messages            12.3s     18,204   ~$0.118335",
            "gpt-5.4              POST /v1/responses            3.1s      2,810   ~$0.010647",
            "text-embedding-3-sm… POST /v1/embeddings           0.2s          -            -",
        ]
        assert lines[11:15] == [
            "Time     Status Model                First byte Duration    Tokens         Cost",
            "10:14:23 200    gpt-5.4                   286ms    9.42s     5,010    $0.028901",
            "10:14:22 200    claude-sonnet-5           412ms    1.83s       744    $0.001764",
            "10:14:21 101 x  gpt-realtime              412ms    1.83s         0   !$0.000000",
        ]
        assert lines[23] == "⏎ Details q Quit / Filter p Pause s Set-up c Copy e Errors m Models t Theme"

    with_dashboard(use)


def test_140_by_40_shows_models_and_errors_too() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(busy_update())

        assert "Model                     Requests      Tokens        Total" in shown.text
        assert "claude-sonnet-5                212   1,403,118    $2.520000" in shown.text
        assert "10:14:12 401    invalid_local_bearer: missing or invalid b…" in shown.text

    with_dashboard(use, 140, 40)


def test_resize_fits_every_column_to_the_new_width() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(busy_update())

        await shown.pilot.resize_terminal(140, 40)
        await shown.pilot.pause(0.2)
        assert "claude-sonnet-5                212   1,403,118    $2.520000" in shown.text

        await shown.pilot.resize_terminal(60, 20)
        await shown.pilot.pause(0.2)
        assert "Time     Status Model       Duration    Tokens         Cost" in shown.text
        assert shown.lines[1:3] == ["Requests Errors  Tokens      Total", "350      2       ~2,123,556  ~$4.035192"]
        assert all(len(line) <= 60 for line in shown.lines)

        await shown.pilot.resize_terminal(80, 24)
        await shown.pilot.pause(0.2)
        assert shown.lines[11] == "Time     Status Model                First byte Duration    Tokens         Cost"

    with_dashboard(use)


def test_totals_and_requests_in_flight_rise_until_the_request_has_ended() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(running=(running(tokens=10, total=Decimal("0.000021"), age_ms=1_000),)))
        assert "claude-opus-4-8      POST /v1/messages             1.0s         10   ~$0.000021" in shown.text
        assert shown.lines[2].startswith("0        1         0       ~10")

        await shown.send(update(running=(running(tokens=20, total=Decimal("0.000042"), age_ms=75_000),)))
        assert "claude-opus-4-8      POST /v1/messages            1m15s         20   ~$0.000042" in shown.text
        assert shown.lines[2].endswith("~$0.000042")

        await shown.send(update(finished(model="claude-opus-4-8")))
        assert shown.lines[2] == "1        0         0       744         $0.001680    $0.000084    $0.001764"
        assert "In flight            Request" in shown.text
        assert "10:14:04 200    claude-opus-4-8           412ms    1.83s       744    $0.001764" in shown.text

    with_dashboard(use)


def test_estimate_and_unknown_cost_have_marks() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(
            update(
                finished(1, basis="estimated", total=Decimal("0.0000004")),
                finished(2, basis="unsettled", total=Decimal(0)),
            )
        )

        assert [line.split()[-1] for line in shown.lines[12:14]] == ["!$0.000000", "~<$0.000001"]

    with_dashboard(use)


def test_enter_shows_the_bill_of_the_selected_request_line_by_line() -> None:
    async def use(shown: Shown) -> None:
        note = "the client left; the output was counted"
        await shown.send(
            update(finished(1), finished(2, basis="estimated", notes=(note,), session="ses_1"), finished(3))
        )

        await shown.press("down", "enter")

        assert shown.lines[1:20] == [
            "request    req_00000000000000000000000000000002",
            "session    ses_1",
            "ended      10:14:05 after 1.83s",
            "first byte 412ms",
            "sent       POST /v1/messages (anthropic)",
            "status     200 (completed)",
            "model      claude-sonnet-5",
            "tokens     744",
            "basis      ~estimated",
            "",
            "input_tokens",
            "    720 x 2 per million tokens = $0.001440",
            "output_tokens",
            "    24 x 10 per million tokens = $0.000240",
            "subtotal   $0.001680",
            "surcharge  $0.000084 (0.05 of the subtotal)",
            "total      ~$0.001764",
            "",
            f"  {note}",
        ]
        await shown.press("escape")
        assert shown.lines[1].startswith("Requests")

    with_dashboard(use)


def test_cursor_stays_at_its_request_while_others_end() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(*(finished(number) for number in range(1, 31))))
        await shown.press(*["down"] * 15)

        await shown.send(update(*(finished(number) for number in range(31, 41))))
        await shown.press("enter")

        assert f"request    req_{15:032x}" in shown.text

    with_dashboard(use)


def test_requests_that_the_server_gave_one_id_are_shown_apart() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(*(finished(number, request_id="same", tokens=number) for number in (1, 2))))

        await shown.press("down", "enter")

        assert "tokens     1" in shown.text

    with_dashboard(use)


def test_filter_shows_matching_requests_until_escape() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(finished(1), finished(2, model="gpt-5.4", status=429, is_error=True, message="slow")))

        await shown.press("slash", *"GPT 429", "enter")
        assert "gpt-5.4" in shown.text
        assert "claude-sonnet-5" not in shown.text
        assert shown.lines[0].endswith("filter: GPT 429")

        await shown.press("slash", *"x")
        assert "No recent request matches the filter. Press / and escape to show all." in shown.text

        await shown.press("escape")
        assert "claude-sonnet-5" in shown.text
        assert "filter" not in shown.lines[0]

    with_dashboard(use)


def test_pause_keeps_the_screen_and_loses_nothing() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(finished(1)))
        await shown.press("p")

        await shown.send(update(finished(2, model="gpt-5.4")))
        assert shown.lines[0].endswith("PAUSED")
        assert "gpt-5.4" not in shown.text

        await shown.press("p")
        assert "gpt-5.4" in shown.text
        assert "PAUSED" not in shown.text

    with_dashboard(use)


def test_errors_have_their_whole_messages() -> None:
    async def use(shown: Shown) -> None:
        long_message = "the model is overloaded; " * 5 + "try again"
        await shown.send(
            update(
                finished(1, status=529, is_error=True, message=long_message),
                refused=(Refused(AT, 403, "GET", "/v1/models", "foreign_host", "Host evil.test is not this proxy"),),
            ),
            update(refused=(Refused(AT, 0, "", "", "tornado_proxy.ledger", "the ledger is busy"),)),
        )

        await shown.press("e")

        text = " ".join(line.strip() for line in shown.lines)
        assert "10:14:03 log tornado_proxy.ledger the ledger is busy" in text
        assert "10:14:04 529 POST /v1/messages claude-sonnet-5 the model is overloaded;" in text
        assert "overloaded; try again" in text
        assert "10:14:03 403 GET /v1/models foreign_host Host evil.test is not this proxy" in text

    with_dashboard(use)


def test_refusal_of_the_local_proxy_is_announced_with_its_message() -> None:
    async def use(shown: Shown) -> None:
        login = Refused(AT, 401, "POST", "/v1/responses", "login_required", "run [bold]tornado-proxy login")
        await shown.send(update(refused=(login,)), update(refused=(login,)))

        assert shown.text.count("login_required: run") == 1
        assert "[bold]tornado-proxy login" in shown.text

    with_dashboard(use, announcing=True)


def test_each_key_of_the_footer_is_documented() -> None:
    page = (ROOT / "docs" / "local.md").read_text("utf-8")
    keys = {binding.key_display or binding.key for binding in MainScreen.BINDINGS if isinstance(binding, Binding)}

    assert len(keys) == 8
    assert {key for key in keys if f"| `{key}`" not in page and f", `{key}`" not in page} == set()


def test_models_view_has_the_sums_of_each_model_and_follows_them() -> None:
    async def use(shown: Shown) -> None:
        await shown.press("m")
        sums = Sums(212, 1_403_118, Decimal("2.4"), Decimal("0.12"), Decimal("2.52"))

        await shown.send(update(models=(ModelSums("anthropic", "claude-sonnet-5", sums),)))

        assert shown.lines[1] == "Model                 Requests      Tokens    Subtotal   Surcharge        Total"
        assert shown.lines[2] == "claude-sonnet-5            212   1,403,118   $2.400000   $0.120000    $2.520000"

    with_dashboard(use)


def test_setup_block_is_copied_over_the_terminal_in_an_ssh_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    written: list[str] = []

    async def use(shown: Shown) -> None:
        await shown.press("s")
        assert shown.lines[1:6] == list(INTRODUCTION.variables)
        driver = shown.app._driver
        assert driver is not None
        monkeypatch.setattr(driver, "write", written.append)

        await shown.press("c")
        await shown.pilot.pause(0.2)

    with_dashboard(use)

    block = base64.b64encode(("\n".join(INTRODUCTION.variables) + "\n").encode()).decode()
    assert f"\x1b]52;c;{block}\a" in written


@pytest.mark.parametrize(("keys", "status"), [(["q", "y"], 10), (["q", "enter"], 10), (["ctrl+c", "y"], 10)])
def test_quit_asks_while_requests_run(keys: list[str], status: int) -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(running=(running(),)))

        await shown.press(keys[0])
        assert "1 request is in flight. Quit and break it off?" in shown.text
        await shown.press("escape")
        assert "Quit and break" not in shown.text
        assert shown.app.return_code is None
        await shown.press(*keys)

        assert shown.app.return_code == status

    with_dashboard(use)


def test_quit_does_not_ask_when_nothing_runs() -> None:
    async def use(shown: Shown) -> None:
        await shown.send(update(finished()))

        await shown.press("q")

        assert shown.app.return_code == 0

    with_dashboard(use)


def test_dashboard_ends_with_its_relay() -> None:
    async def use(shown: Shown) -> None:
        shown.relay.close()
        await shown.pilot.pause(0.2)

        assert shown.app.return_code == 11

    with_dashboard(use)


EVIL = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07 \u202eabc\nforged\u2028line"


def test_names_and_messages_cannot_format_text_or_command_the_terminal() -> None:
    async def use(shown: Shown) -> None:
        evil = finished(
            1, model=EVIL, path=EVIL, provider=EVIL, message=EVIL, notes=(EVIL,), is_error=True, session=EVIL
        )
        await shown.send(
            update(
                evil,
                running=(running(model=EVIL, path=EVIL, method=EVIL),),
                refused=(Refused(AT, 403, EVIL, EVIL, EVIL, EVIL),),
                models=(ModelSums(EVIL, EVIL, Sums(1)),),
            )
        )
        for key in ("", "enter", "e", "m"):
            if key:
                await shown.press(key)
            assert "[bold red]x" in shown.text, key
            assert all(character.isprintable() for line in shown.lines for character in line), key
            if key:
                await shown.press("escape")

    with_dashboard(use, 140, 40)


def test_memory_is_bounded() -> None:
    async def use(shown: Shown) -> None:
        for start in range(0, MAX_RECENT + 300, 100):
            requests = [finished(start + number, is_error=True, message="no") for number in range(100)]
            await shown.send(update(*requests))

        state = shown.app._state
        assert (len(state.recent), len(state.problems)) == (MAX_RECENT, MAX_ERRORS)
        assert state.recent[0].request_id == f"req_{MAX_RECENT + 299:032x}"

    with_dashboard(use)


@pytest.mark.parametrize(
    ("colours", "theme"), [("15;0", "textual-dark"), ("0;15", "textual-light"), ("", "textual-dark")]
)
def test_theme_follows_the_terminal_and_a_key(colours: str, theme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFGBG", colours)

    async def use(shown: Shown) -> None:
        assert shown.app.theme == theme
        await shown.press("t")
        assert shown.app.theme != theme

    with_dashboard(use)


def test_relay_does_not_import_textual() -> None:
    source = "import sys, tornado_proxy.cli, tornado_proxy.cli.local.local; print('textual' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_update_that_is_sent_is_the_one_that_is_read() -> None:
    sent = busy_update()

    assert isinstance(sent, Update)
    assert decode(encode(sent)) == sent
