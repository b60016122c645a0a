"""`GET /accounts/profiles/me` and `GET /accounts/whoami`: the user of the access token, as its issuer states it."""

from __future__ import annotations

from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.domain.identity import OAuthUser


class ProfileHandler(AccountsHandler):
    """The profile of the user."""

    async def get(self) -> None:
        """Respond with the profile."""
        self.respond(show_profile((await self.identify_user()).user))


class WhoamiHandler(AccountsHandler):
    """The identity of the user."""

    async def get(self) -> None:
        """Respond with the identity."""
        user = (await self.identify_user()).user
        self.respond({"id": user.subject, "email": user.email or "", "type": "user", "user": show_profile(user)})


def show_profile(user: OAuthUser) -> dict[str, object]:
    """Return the profile of a user; clients require `email`, so it is "" if the issuer has verified none."""
    return {
        "id": user.subject,
        "first_name": None,
        "last_name": None,
        "email": user.email or "",
        "metadata": {},
        "annotations": {},
    }
