"""The dashboard in headless Chromium: without script, by keyboard, on a phone, light and dark, with axe-core."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from tests.dashboard.browsing import DESKTOP, PHONE, find_violations, running_browser, sign_in
from tests.dashboard.sample_ledger import LONGEST, NASTY
from tests.dashboard.sample_server import running_sample
from tests.harness import PROJECT, ProxyProcess

#: A page of each kind, below /dashboard/.
PAGES = (
    *("?range=today&group=participant", "?range=30d&group=day&subgroup=model", "none"),
    *("requests?range=today", "requests/req_nasty1", "now", "open", "budgets", "prices"),
)

#: The page of a request whose names are the longest ones.
LONGEST_REQUEST = f"requests/req_nasty{NASTY.index(LONGEST)}"

#: Pages with names that clients have chosen.
NAMES = (
    *(
        f"?range=7d&group={group}&subgroup=day"
        for group in ("model", "client", "end_user", "label.team", "annotation.env")
    ),
    *("?participant=" + quote(name, safe="") for name in NASTY),
    *(f"requests/req_nasty{number}" for number in range(len(NASTY))),
    *("requests?range=today", "open", "budgets"),
)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_sample(tmp_path_factory.mktemp("dashboard")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(proxy: ProxyProcess) -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def operator(browser: Browser, proxy: ProxyProcess) -> Iterator[Page]:
    """A page of the operator, which fails the test if a page asks another origin or breaks its own policy."""
    context = browser.new_context(viewport=DESKTOP)
    faults: list[str] = []
    context.on(
        "request", lambda request: None if request.url.startswith(proxy.admin_url) else faults.append(request.url)
    )
    context.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    context.on("weberror", lambda error: faults.append(str(error.error)))
    yield sign_in(context, proxy)
    context.close()
    assert [fault for fault in faults if not fault.startswith("data:,")] == []


def visit(page: Page, proxy: ProxyProcess, path: str) -> None:
    page.goto(f"{proxy.admin_url}/dashboard/{path}")


@pytest.mark.parametrize("path", PAGES)
def test_page_keeps_the_rules_of_accessibility_in_both_colours_and_on_a_phone(
    operator: Page, proxy: ProxyProcess, path: str
) -> None:
    for scheme, size in (("light", DESKTOP), ("dark", PHONE)):
        operator.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # a literal
        operator.set_viewport_size(size)  # type: ignore[arg-type]  # a dict of its members
        visit(operator, proxy, path)

        assert find_violations(operator) == []
        # No part of a page is wider than the phone; wide tables scroll in their own region.
        assert operator.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    operator.set_viewport_size(DESKTOP)  # type: ignore[arg-type]  # a dict of its members


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_longest_name_makes_no_page_wider_than_its_window(
    operator: Page, proxy: ProxyProcess, size: ViewportSize
) -> None:
    operator.set_viewport_size(size)

    for path in ("?range=today&group=participant", f"?participant={LONGEST}", "requests?range=today", LONGEST_REQUEST):
        visit(operator, proxy, path)

        assert LONGEST in operator.content(), path
        assert operator.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    operator.set_viewport_size(DESKTOP)


def test_names_that_clients_choose_run_nothing(operator: Page, proxy: ProxyProcess) -> None:
    for path in NAMES:
        visit(operator, proxy, path)
        operator.mouse.move(300, 500)

        assert operator.evaluate("window.hacked") is None, path
        assert operator.locator("main img, main script:not([src])").count() == 0, path
        links = operator.eval_on_selector_all("a", "all => all.map(link => link.href)")
        assert [link for link in links if not link.startswith(proxy.admin_url)] == [], path


def test_page_works_without_script(browser: Browser, proxy: ProxyProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = sign_in(context, proxy, "--project", PROJECT)

    page.locator("[name=group]").select_option("participant")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="bob").click()

    assert "participant=bob" in page.url
    assert page.locator("tfoot").inner_text().split()[1:3] == ["1", "0.002625"]
    page.get_by_role("button", name="Sign out").click()
    assert page.locator("h1").inner_text() == "Sign in"
    context.close()


def test_keyboard_alone_reaches_every_control_in_the_order_of_the_page(operator: Page, proxy: ProxyProcess) -> None:
    visit(operator, proxy, "?range=today&group=participant&top=2")
    operator.keyboard.press("Tab")
    assert operator.evaluate("document.activeElement.textContent") == "Skip to content"
    operator.keyboard.press("Enter")
    assert operator.url.endswith("#main")

    visit(operator, proxy, "?range=today&group=participant&top=2")
    controls = operator.locator("a, button, select, input:not([type=hidden]), [tabindex='0']")
    reached = []
    for _ in range(controls.count()):
        operator.keyboard.press("Tab")
        reached.append(operator.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        outline = operator.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    assert reached == sorted(set(reached))
    assert len(reached) == controls.count()

    operator.get_by_role("link", name="bob").focus()
    operator.keyboard.press("Enter")
    operator.wait_for_url("**participant=bob**")


def test_requests_of_a_bill_are_two_clicks_away(operator: Page, proxy: ProxyProcess) -> None:
    visit(operator, proxy, "?range=today&group=participant")
    operator.get_by_role("link", name="bob").click()
    operator.get_by_role("link", name="The requests of this bill").click()
    operator.get_by_role("link", name="req_bob").click()

    assert operator.locator("tfoot tr").last.inner_text().split() == ["Total", "USD", "0.002625"]


def test_chart_shows_the_figures_of_its_table(operator: Page, proxy: ProxyProcess) -> None:
    visit(operator, proxy, "?range=7d&group=participant")
    chart = operator.locator("#chart")
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    # The last bar is today's; half a bar of room is at its right.
    operator.mouse.move(box["x"] + box["width"] - 15, box["y"] + box["height"] / 2)
    legend = chart.locator(".u-legend")
    legend.get_by_text("0.0065625").wait_for()

    operator.get_by_text("Cost by day as a table").click()
    header, *_, today = operator.get_by_role("region", name="Cost by day").locator("tr").all_inner_texts()
    assert header.split("\t")[:3] == ["Day, UTC", "ada", "bob"]
    assert today.split("\t")[1:3] == ["0.006562500", "0.002625000"]
    assert legend.locator("img").count() == 0


def test_back_and_a_sent_url_show_the_same_page(operator: Page, proxy: ProxyProcess) -> None:
    visit(operator, proxy, "?range=today&group=participant")
    before = operator.get_by_role("region", name="Bill").inner_text()
    operator.get_by_role("link", name="Last month").click()
    operator.go_back()

    assert operator.get_by_role("region", name="Bill").inner_text() == before
