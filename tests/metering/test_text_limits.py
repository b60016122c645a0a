from __future__ import annotations

import msgspec

from tornado_proxy.domain.usage import Basis, UsageItem, UsageReport
from tornado_proxy.metering.text_limits import cut_name, limit_names

LONG = "m" * 513
FAULT = "the response has a name of 513 characters, which is not kept"


def test_names_of_a_real_response_are_kept() -> None:
    report = UsageReport((UsageItem((), model="m" * 512),), Basis.PENDING, model="gpt-5.4", object_id="resp_1")

    assert limit_names(report) is report


def test_name_that_is_too_long_is_missing_and_a_fault_says_so() -> None:
    report = UsageReport((UsageItem((), model=LONG),), Basis.REPORTED, model=LONG, objects=("item_1", LONG))

    limited = limit_names(report)

    assert limited == UsageReport((UsageItem(()),), Basis.REPORTED, objects=("item_1",), faults=(FAULT,))


def test_pending_usage_of_an_object_that_cannot_be_named_is_unsettled() -> None:
    limited = limit_names(UsageReport(basis=Basis.PENDING, object_id=LONG))

    assert limited == msgspec.structs.replace(UsageReport(), basis=Basis.UNSETTLED, faults=(FAULT,))


def test_request_id_of_a_provider_is_cut() -> None:
    assert (cut_name(LONG), cut_name("req_1"), cut_name(None)) == ("m" * 512, "req_1", None)
