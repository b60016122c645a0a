"""Opens pages of the dashboard in headless Chromium, driven by Playwright, and checks them with axe-core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser import find_chromium
from tests.harness import ROOT, ProxyProcess
from tornado_proxy.cli import main as command_line

AXE = ROOT / "tests" / "axe" / "node_modules" / "axe-core" / "axe.min.js"

#: A phone: 360 x 740 CSS pixels.
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run headless Chromium; skip the test if there is none, or fail it in CI."""
    program = find_chromium()
    with sync_playwright() as playwright:
        # As root it runs only without a sandbox, and the pages are ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def make_link(proxy: ProxyProcess, *options: str) -> str:
    """Return the link that `tornado-proxy dashboard` prints.  It runs in this process, which saves a second."""
    root = proxy.base_url if "--project" in options else proxy.admin_url
    command = ["dashboard", "--config", str(proxy.folder / "proxy.yaml"), "--url", root, *options]
    printed = CliRunner().invoke(command_line, command)
    assert printed.exit_code == 0, printed.output
    return printed.stdout.strip()


def sign_in(context: BrowserContext, proxy: ProxyProcess, *options: str) -> Page:
    """Return a page that has used a link: the bill."""
    page = context.new_page()
    page.goto(make_link(proxy, *options))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/dashboard/")
    return page


def find_violations(page: Page) -> list[Any]:
    """Return the rules of axe-core that the page breaks, with the places."""
    if not AXE.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("axe-core is not installed; run tests/setup with npm on the PATH")
        pytest.skip("axe-core is not installed; run tests/setup with npm on the PATH")
    # A world of its own: the page's policy allows no script of others in the page's.
    page.evaluate("() => { delete window.axe; }")
    session = page.context.new_cdp_session(page)
    session.send("Runtime.enable")
    session.send("Runtime.evaluate", {"expression": AXE.read_text("utf-8")})
    result = session.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run(document).then(found => JSON.parse(JSON.stringify(found.violations.map("
            "rule => [rule.id, rule.nodes.map(node => node.html)]))))",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    violations: list[Any] = result["result"]["value"]
    return violations
