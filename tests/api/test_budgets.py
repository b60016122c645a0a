"""The changes of budgets that documents and parameters ask for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tornado_proxy.api.budgets import BudgetUpdate, Request, read_lift, read_setting
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.errors import BadRequest, NotFound

NOW = datetime(2026, 3, 14, 10, 30, tzinfo=UTC)
MONTHLY = Budget(CounterKind(Scope.PROJECT, Period.MONTH), Decimal(5))
LIMITS = BudgetLimits({"p": (MONTHLY,), "q": (MONTHLY,)})

OPERATOR = Request("admin", NOW, {"p": "first", "q": "second"})
PROJECT_ADMIN = Request("user:ada", NOW, {"p": "first"}, "p")


def lift(request: Request, **project: str) -> BudgetUpdate:
    return read_lift({"period": "month", **project}, LIMITS, request)


@pytest.mark.parametrize("project", ["q", "second"])
def test_operator_names_a_project_by_its_id_or_name(project: str) -> None:
    body = json.dumps({"project": project, "period": "month", "limit": "7"}).encode()

    assert read_setting(body, LIMITS, OPERATOR).change.project_id == "q"
    assert lift(OPERATOR, project=project).change.project_id == "q"


def test_operator_must_name_a_configured_project() -> None:
    with pytest.raises(NotFound, match="no project has the id or name 'third'"):
        lift(OPERATOR, project="third")


@pytest.mark.parametrize("members", [{}, {"project": "p"}, {"project": "first"}])
def test_project_admin_changes_the_project_of_the_path(members: dict[str, str]) -> None:
    assert lift(PROJECT_ADMIN, **members).change.project_id == "p"


@pytest.mark.parametrize("project", ["q", "second", "third"])
def test_project_admin_cannot_name_another_project(project: str) -> None:
    with pytest.raises(BadRequest, match="project must be the project of the path; omit it"):
        lift(PROJECT_ADMIN, project=project)
