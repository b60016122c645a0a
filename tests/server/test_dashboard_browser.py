"""The dashboard in headless Chromium: without script, by keyboard, on a phone, light and dark, with axe-core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.dashboard.browsing import DESKTOP, PHONE, find_violations, running_browser, sign_in
from tests.dashboard.sample_ledger import NASTY
from tests.dashboard.sample_server import running_sample
from tests.harness import PROJECT, ProxyProcess

#: The pages, below /dashboard/.
PAGES = (
    *("?range=today&group=participant", "?range=30d&group=day&subgroup=model", "?group=label.team", "none"),
    *("requests?range=today", "requests/req_ada1", *(f"requests/req_nasty{number}" for number in range(len(NASTY)))),
    *("now", "open", "budgets", "prices"),
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


@pytest.mark.parametrize("path", PAGES)
def test_names_that_clients_choose_run_nothing(operator: Page, proxy: ProxyProcess, path: str) -> None:
    visit(operator, proxy, path)
    operator.mouse.move(300, 500)

    assert operator.evaluate("window.hacked") is None
    assert operator.locator("main img, main script:not([src])").count() == 0
    links = operator.eval_on_selector_all("a", "all => all.map(link => link.href)")
    assert [link for link in links if not link.startswith(proxy.admin_url)] == []


def test_page_works_without_script(browser: Browser, proxy: ProxyProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = sign_in(context, proxy, "--project", PROJECT)

    page.get_by_label("By").select_option("participant")
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

    assert operator.locator("tfoot tr").last.inner_text().split() == ["Total,", "USD", "0.002625"]


def test_back_and_a_sent_url_show_the_same_page(operator: Page, proxy: ProxyProcess) -> None:
    visit(operator, proxy, "?range=today&group=participant")
    before = operator.locator("table").inner_text()
    operator.get_by_role("link", name="Last month").click()
    operator.go_back()

    assert operator.locator("table").inner_text() == before
