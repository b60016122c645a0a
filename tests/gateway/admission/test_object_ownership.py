"""Objects of other projects are not found; memory bridges the time until the ledger knows an object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests import harness
from tests.gateway.fakes import Gateway, make_project, make_snapshot, own_keys, request_head
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.domain.identity import Caller, KeyId, Secret, fingerprint_key
from tornado_proxy.gateway.admission import object_ownership
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.upstream.credentials import project_access

OWN = ("openai", "resp_own", harness.PROJECT)
FOREIGN = ("openai", "resp_foreign", harness.OTHER_PROJECT)
RESPONSES = "/openai/v1/responses"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


def context_of(gateway: Gateway, target: str = RESPONSES, method: str = "POST") -> RequestContext[Any]:
    return gateway.admission.authenticate(gateway.snapshot, request_head(target, method=method))


async def store_object(ledger: Ledger, provider: str, object_id: str, project: str, endpoint: str = "/v1/x") -> None:
    intent = make_intent(f"req_{object_id}", provider=provider, endpoint=endpoint, caller=Caller(project))
    await ledger.begin(intent)
    await ledger.finish(make_record(intent, object_id=object_id))


def is_own(gateway: Gateway, context: RequestContext[Any], *references: str) -> bool:
    try:
        asyncio.run(gateway.ownership.require_own(context, references))
    except NotFound:
        return False
    return True


@pytest.mark.parametrize("written", [True, False], ids=["known to the ledger", "in memory only"])
@pytest.mark.parametrize(
    ("references", "own"),
    [
        pytest.param((), True, id="no reference"),
        pytest.param(("resp_own",), True, id="own object"),
        pytest.param(("resp_foreign",), False, id="object of another project"),
        pytest.param(("resp_unknown",), False, id="object of unknown origin"),
        pytest.param(("resp_own", "resp_foreign"), False, id="one of several"),
    ],
)
def test_only_own_objects_are_found(gateway: Gateway, references: tuple[str, ...], own: bool, written: bool) -> None:
    for known in (OWN, FOREIGN):
        if written:
            asyncio.run(store_object(gateway.ledger, *known))
        else:
            gateway.ownership.remember(*known)

    assert is_own(gateway, context_of(gateway), *references) is own


@pytest.mark.parametrize(("object_id", "own"), [("resp_own", True), ("resp_foreign", False)])
def test_object_in_the_path_is_checked(gateway: Gateway, object_id: str, own: bool) -> None:
    for known in (OWN, FOREIGN):
        gateway.ownership.remember(*known)

    assert is_own(gateway, context_of(gateway, f"{RESPONSES}/{object_id}", "GET")) is own


def test_model_in_the_path_is_no_object(gateway: Gateway) -> None:
    assert is_own(gateway, context_of(gateway, "/openai/v1/models/gpt-4o-mini", "GET"))


def test_object_of_another_provider_with_the_same_id_is_not_found(gateway: Gateway) -> None:
    gateway.ownership.remember("anthropic", "resp_1", harness.PROJECT)

    assert not is_own(gateway, context_of(gateway), "resp_1")


@pytest.mark.parametrize(
    ("project", "own"),
    [
        pytest.param(make_project(allowed_objects=frozenset({"resp_foreign"})), True, id="allowed object"),
        pytest.param(make_project(providers=own_keys(openai="sk-own")), True, id="own key separates"),
        pytest.param(make_project(providers=own_keys(anthropic="sk-own")), False, id="own key for another one"),
    ],
)
def test_allowed_objects_and_own_keys_replace_the_check(project: Any, own: bool) -> None:
    gateway = Gateway(make_snapshot(projects=[project]))
    gateway.ownership.remember(*FOREIGN)

    assert is_own(gateway, context_of(gateway), "resp_foreign") is own


def test_message_repeats_the_start_of_a_long_id_only(gateway: Gateway) -> None:
    with pytest.raises(NotFound) as caught:
        asyncio.run(gateway.ownership.require_own(context_of(gateway), ["x" * 500]))

    assert caught.value.message == f"{'x' * 100} was not found"


@pytest.mark.parametrize("written", [True, False], ids=["known to the ledger", "in memory only"])
def test_first_owner_keeps_an_id_that_the_provider_repeats(gateway: Gateway, written: bool) -> None:
    if written:
        asyncio.run(store_object(gateway.ledger, *FOREIGN))
    else:
        gateway.ownership.remember(*FOREIGN)

    gateway.ownership.remember("openai", "resp_foreign", harness.PROJECT)

    assert not is_own(gateway, context_of(gateway), "resp_foreign")


def test_memory_holds_a_bounded_number_of_owners_and_drops_the_oldest(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_ownership, "MAX_REMEMBERED", 3)
    for number in range(4):
        gateway.ownership.remember("openai", f"resp_{number}", harness.PROJECT)

    own = [is_own(gateway, context_of(gateway), f"resp_{number}") for number in range(4)]

    assert own == [False, True, True, True]


BATCHES = "/v1/messages/batches"


@pytest.mark.parametrize(
    ("project", "target", "visible"),
    [
        pytest.param(make_project(), BATCHES, frozenset({"batch_own"}), id="list of own objects"),
        pytest.param(
            make_project(allowed_objects=frozenset({"batch_9"})),
            BATCHES,
            frozenset({"batch_own", "batch_9"}),
            id="and allowed ones",
        ),
        pytest.param(make_project(providers=own_keys(anthropic="k")), BATCHES, None, id="own key separates"),
        pytest.param(make_project(), f"{BATCHES}/batch_own", None, id="one object"),
        pytest.param(make_project(), "/v1/models", None, id="list of no objects"),
    ],
)
def test_list_shows_objects_of_the_project_that_its_endpoint_created(
    project: Any, target: str, visible: frozenset[str] | None
) -> None:
    gateway = Gateway(make_snapshot(projects=[project]))
    context = context_of(gateway, f"/anthropic{target}", "GET")

    async def run() -> frozenset[str] | None:
        await store_object(gateway.ledger, "anthropic", "batch_own", harness.PROJECT, BATCHES)
        await store_object(gateway.ledger, "anthropic", "batch_foreign", harness.OTHER_PROJECT, BATCHES)
        await store_object(gateway.ledger, "anthropic", "msg_own", harness.PROJECT, "/v1/messages")
        access = project_access(gateway.snapshot, context.provider, harness.PROJECT)
        return await gateway.ownership.visible_objects(context, access)

    assert asyncio.run(run()) == visible


@pytest.mark.parametrize(
    ("query", "own"),
    [
        ("after_id=batch_own", True),
        ("limit=5&before_id=batch_own", True),
        ("after_id=batch_foreign", False),
        ("before_id=batch_unknown", False),
        ("after_id=batch_own&after_id=batch_foreign", False),
        ("after%5Fid=batch_foreign", False),
    ],
)
def test_list_continues_at_own_objects_only(gateway: Gateway, query: str, own: bool) -> None:
    gateway.ownership.remember("anthropic", "batch_own", harness.PROJECT)
    gateway.ownership.remember("anthropic", "batch_foreign", harness.OTHER_PROJECT)

    assert is_own(gateway, context_of(gateway, f"/anthropic/v1/messages/batches?{query}", "GET")) is own


SHARED_KEY = KeyId("default", fingerprint_key(Secret(harness.OPENAI_KEY)))
OWN_KEY = KeyId("default", fingerprint_key(Secret("sk-own")), own=True)


@pytest.mark.parametrize(
    ("references", "own"),
    [
        pytest.param(("resp_shared",), True, id="made in the shared account"),
        pytest.param(("resp_shared", "resp_foreign"), False, id="and one of another project there"),
        pytest.param(("resp_shared", "resp_unknown"), False, id="and one of unknown origin"),
        pytest.param(("resp_shared", "resp_own"), False, id="and one that the own account has stated"),
        pytest.param(("resp_own", "resp_unknown"), True, id="in the own account"),
    ],
)
def test_project_with_an_own_account_reaches_its_own_objects_in_the_shared_one(
    references: tuple[str, ...], own: bool
) -> None:
    gateway = Gateway(make_snapshot(projects=[make_project(providers=own_keys(openai="sk-own"))]))
    gateway.ownership.remember(*FOREIGN)
    gateway.ownership.remember("openai", "resp_shared", harness.PROJECT, SHARED_KEY)
    gateway.ownership.remember("openai", "resp_own", harness.PROJECT, OWN_KEY)

    assert is_own(gateway, context_of(gateway), *references) is own
