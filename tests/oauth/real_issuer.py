"""oidc-provider, a real identity provider, as a child process; and logins as a person and a program do them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import jwt
import pytest

from tests.oauth.tokens import SigningKey, ec_key, ed_key, rsa_key

FOLDER = Path(__file__).parent / "oidc_provider"
REDIRECT_URI = "http://127.0.0.1:7777/callback"
SCOPE = "openid offline_access llm_proxy"


def require_node() -> str:
    """Return the program node; skip the test if it or the package is missing, or fail it if CI is `true`."""
    node = shutil.which("node")
    if node is not None and (FOLDER / "node_modules" / "oidc-provider").exists():
        return node
    reason = "node or oidc-provider is not installed; run tests/setup"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def private_jwk(key: SigningKey) -> dict[str, Any]:
    members = json.loads(jwt.get_algorithm_by_name(key.algorithm).to_jwk(key.private))
    members.pop("key_ops", None)
    return {**members, "kid": key.kid, "use": "sig", "alg": key.algorithm}


@dataclass
class RealIssuer:
    """A running identity provider."""

    url: str
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """End the process: the issuer is unreachable."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process = None

    def start(self, *keys: SigningKey) -> None:
        """Start the process at the same address with these keys."""
        port = urlsplit(self.url).port or 0
        chosen = keys or (rsa_key(), ec_key(), ed_key())
        arguments = [require_node(), "server.mjs", str(port), json.dumps([private_jwk(key) for key in chosen])]
        self._process = subprocess.Popen(
            arguments, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        # The first lines can be warnings about the version of node.
        self.url = next(line.strip() for line in self._process.stdout if line.startswith("http"))

    def log_in(self, user: str = "ada", *, resource: str = "urn:RS256", scope: str = SCOPE) -> dict[str, Any]:
        """Return the tokens of a login by code and PKCE, for a person who fills in the pages of the provider."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": "cli",
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": scope,
            "resource": resource,
            "prompt": "consent",
            "state": "a state",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        with httpx.Client(base_url=self.url) as browser:
            callback = fill_in_pages(browser, browser.get("/auth", params=query), user)
        answer = {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}
        assert answer["iss"] == self.url, answer
        return self.request_token(
            grant_type="authorization_code",
            code=answer["code"],
            code_verifier=verifier,
            redirect_uri=REDIRECT_URI,
            resource=resource,
        ).json()

    def log_in_on_device(self, user: str = "ada", *, resource: str = "urn:RS256") -> dict[str, Any]:
        """Return the tokens of a device login, whose page a person opens in a browser."""
        started = httpx.post(
            f"{self.url}/device/auth", data={"client_id": "cli", "scope": "openid llm_proxy", "resource": resource}
        ).json()
        poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": started["device_code"]}
        assert self.request_token(**poll).json()["error"] == "authorization_pending"
        self.confirm_device(started["verification_uri_complete"], user)
        return self.request_token(**poll).json()

    def confirm_device(self, url: str, user: str = "ada") -> None:
        """Log in as a person does on the page of a device login."""
        with httpx.Client(base_url=self.url) as browser:
            page = browser.get(url)
            # The page of oidc-provider sends its form by a script.
            form = dict(re.findall(r'name="(xsrf|user_code)" value="([^"]*)"', page.text))
            confirmed = browser.post("/device", data=form)
            if confirmed.status_code == 200:
                again = dict(re.findall(r'name="(xsrf|user_code|confirm)" value="([^"]*)"', confirmed.text))
                confirmed = browser.post("/device", data={**again, "confirm": "yes"})
            fill_in_pages(browser, confirmed, user)

    def request_token(self, **form: str) -> httpx.Response:
        return httpx.post(f"{self.url}/token", data={"client_id": "cli", **form})

    def count_refreshes(self) -> tuple[int, int]:
        """Return how many refreshes have succeeded and failed since the start."""
        grants = httpx.get(f"{self.url}/_grants").json()
        return grants.get("refresh_token", 0), grants.get("failed refresh_token", 0)

    def revoke(self, token: str) -> None:
        httpx.post(f"{self.url}/token/revocation", data={"client_id": "cli", "token": token}).raise_for_status()


def fill_in_pages(browser: httpx.Client, response: httpx.Response, user: str, *, cancel: bool = False) -> str:
    """Log in and consent, or cancel; return the URL of the callback, or of the last page."""
    for _ in range(12):
        if response.is_redirect:
            target = response.headers["Location"]
            if urlsplit(target).path == urlsplit(REDIRECT_URI).path:
                return str(target)
            response = browser.get(target)
        elif "/interaction/" in str(response.url) and cancel:
            response = browser.get(f"{response.url}/abort")
        elif "/interaction/" in str(response.url) and response.request.method == "GET":
            prompt = "login" if 'name="login"' in response.text else "consent"
            response = browser.post(str(response.url), data={"prompt": prompt, "login": user, "password": "x"})
        else:
            assert response.status_code == 200, response.text
            return str(response.url)
    raise AssertionError(f"the login does not end: {response.url}")


@contextlib.contextmanager
def running_real_issuer() -> Iterator[RealIssuer]:
    issuer = RealIssuer("http://127.0.0.1:0")
    issuer.start()
    try:
        yield issuer
    finally:
        issuer.stop()
