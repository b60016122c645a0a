"""A browser for `tornado-proxy login`, with a person who does what the variable PERSON says: BROWSER='... %s'."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit, urlunsplit

import httpx2 as httpx

from tests.oauth.real_issuer import fill_in_pages


def main(url: str, person: str) -> None:
    if person == "leaves":
        return
    with httpx.Client() as browser:
        callback = fill_in_pages(_InOrigin(browser, url), browser.get(url), "ada", cancel=person == "cancels")  # type: ignore[arg-type]  # the three methods that it calls
        if person == "is attacked":
            forged = [
                (callback.replace("state=", "state=x"), {}),
                (callback.replace("iss=", "iss=x"), {}),
                (callback.partition("&iss=")[0], {}),
                (callback, {"Host": "evil.example"}),
            ]
            for target, headers in forged:
                assert browser.get(target, headers=headers).status_code == 400, target
        browser.get(callback).raise_for_status()


class _InOrigin:
    """Resolves the relative redirects of the issuer."""

    def __init__(self, browser: httpx.Client, url: str) -> None:
        self._browser = browser
        self._origin = urlunsplit((*urlsplit(url)[:2], "", "", ""))

    def get(self, url: str) -> httpx.Response:
        return self._browser.get(url if url.startswith("http") else self._origin + url)

    def post(self, url: str, data: dict[str, str]) -> httpx.Response:
        return self._browser.post(url if url.startswith("http") else self._origin + url, data=data)


if __name__ == "__main__":
    main(sys.argv[1], os.environ.get("PERSON", "logs in"))
