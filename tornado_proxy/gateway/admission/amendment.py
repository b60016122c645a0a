"""Admits a form by its last fields, when those before its files have been admitted; its end has not been sent."""

from __future__ import annotations

from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody, RequestError
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.context import RequestContext, request_intent, start_request
from tornado_proxy.gateway.services import Services
from tornado_proxy.providers.contract import HttpEndpoint


async def amend(
    services: Services, admitted: AdmittedRequest, context: RequestContext[HttpEndpoint], facts: RequestFacts
) -> AdmittedRequest:
    """Return the request with the facts of its whole form, which the caller may cause as well.

    Raises:
        CallerError: as Admission.admit_request(), or a field refers to an object.
        LedgerUnavailable: the budgets or the intent cannot be written.
    """
    if facts == admitted.facts:
        return admitted
    try:
        if facts.references != admitted.facts.references:
            raise InvalidBody("a field after a file of the form refers to an object; send it before the files")
        services.admission.check_facts(context, facts)
        first = admitted.intent
        start, bound = start_request(context, facts, first.request_id, first.started_at), None
        if context.is_limited:
            bound = await services.budgets.reserve_again(context, admitted.access.tariff, facts, start)
        intent = request_intent(context, admitted.access, facts, start, bound)
        if bound is not None and bound != first.bound:
            # If this process dies, another one holds the bound that is in the ledger.
            await services.recorder.begin(intent)
    except RequestError as error:
        error.model = facts.model
        raise
    return replace(admitted, facts=facts, intent=intent)
