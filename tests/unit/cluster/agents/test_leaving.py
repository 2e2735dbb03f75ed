"""Agents that are to take the trust away: what they are told first; the API server is a mock."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from moorage.cluster.agents import leaving
from moorage.errors import Refused
from moorage.settings import Settings
from moorage.ui import UI


@pytest.mark.parametrize("data", [None, {}, {"plan.json": "no base64"}, {"plan.json": "e30="}])
def test_a_plan_that_no_agent_can_read_is_not_sent_on(data: dict[str, str] | None) -> None:
    api = Mock()
    api.find.return_value = {"metadata": {"name": "moorage-plan"}, "data": data}
    with pytest.raises(Refused) as refused:
        leaving.take_trust_away(api, Settings(), UI(as_json=True), 5)
    assert refused.value.code == "agents-plan-unreadable"
    api.apply.assert_not_called()
