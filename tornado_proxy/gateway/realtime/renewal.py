"""Lets an open session follow the configuration.

A session can last for hours.  Each request in it is admitted, reserved and charged with the configuration of the moment
at which it begins, as a request of its own would be; requests that run keep the one with which they began.  The
connection to the provider, its key and its region stay.
"""

from __future__ import annotations

from dataclasses import replace

from tornado_proxy.domain.errors import ModelNotPriced, RequestError
from tornado_proxy.gateway.admission.admitted import AdmittedSession
from tornado_proxy.gateway.context import renew_context
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.credentials import renew_prices


def renew_session(session: AdmittedSession, snapshot: Snapshot) -> AdmittedSession:
    """Return a session whose next requests have the models, prices, budgets and limits of `snapshot`."""
    context = renew_context(session.context, snapshot)
    return replace(session, context=context, access=renew_prices(session.access, snapshot))


def describe_recheck(error: RequestError) -> str:
    """Return why a session ends that has failed Admission.recheck()."""
    if isinstance(error, ModelNotPriced):
        return error.message
    return f"the credential is no longer valid: {error.message}"
