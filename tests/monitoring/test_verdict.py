"""What a look at a cluster says of its health, and when a change is shown."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from budcluster.cluster.models import ClusterHealth
from budcluster.monitoring.verdict import Sight, damped, verdict

NOW = datetime(2026, 11, 24, tzinfo=UTC)
WELL = Sight(inventory_as_of=NOW, nodes=3, gpus=8)
UNKNOWN, HEALTHY, DEGRADED, UNREACHABLE = (
    ClusterHealth.UNKNOWN,
    ClusterHealth.HEALTHY,
    ClusterHealth.DEGRADED,
    ClusterHealth.UNREACHABLE,
)


def test_a_cluster_without_any_reason_is_healthy() -> None:
    assert verdict(WELL, now=NOW) == (HEALTHY, ())


@pytest.mark.parametrize(
    ("sight", "health", "code"),
    [
        (replace(WELL, unreachable="gone", not_ready=["a"]), UNREACHABLE, "unreachable"),
        (replace(WELL, refused="unknown"), UNREACHABLE, "credential-refused"),
        (replace(WELL, not_ready=["a"]), DEGRADED, "nodes-not-ready"),
        (replace(WELL, pressed=["a"]), DEGRADED, "nodes-under-pressure"),
        (replace(WELL, nodes=0), DEGRADED, "no-nodes"),
        (replace(WELL, gpus_unhealthy=1), DEGRADED, "gpus-unhealthy"),
        (replace(WELL, nodes_with_fewer_gpus=["a"]), DEGRADED, "gpus-lost"),
        (replace(WELL, failing_addons=["hami does not run"]), DEGRADED, "add-on-failing"),
        (replace(WELL, inventory_as_of=NOW - timedelta(minutes=3)), DEGRADED, "inventory-old"),
        (replace(WELL, inventory_as_of=None), DEGRADED, "inventory-old"),
        (replace(WELL, credential_expires_at=NOW + timedelta(days=29)), HEALTHY, "credential-expires"),
        (replace(WELL, certificate_expires_at=NOW + timedelta(days=29)), HEALTHY, "certificate-expires"),
    ],
)
def test_each_fact_has_its_reason(sight: Sight, health: ClusterHealth, code: str) -> None:
    seen, reasons = verdict(sight, now=NOW)
    assert (seen, [reason.code for reason in reasons]) == (health, [code])


@pytest.mark.parametrize("sight", [Sight(unreachable="no answer"), Sight(refused="unknown account")])
def test_what_to_do_about_a_cluster_that_stays_away_is_told(sight: Sight) -> None:
    _, (reason,) = verdict(sight, now=NOW)
    assert "onboard it again" in reason.next_step
    assert "delete it here" in reason.next_step
    assert reason.as_json()["next_step"] == reason.next_step


def test_a_credential_or_certificate_that_lasts_is_not_mentioned() -> None:
    later = NOW + timedelta(days=31)
    assert verdict(replace(WELL, credential_expires_at=later, certificate_expires_at=later), now=NOW)[1] == ()


def test_long_lists_of_names_are_cut() -> None:
    _, (reason,) = verdict(replace(WELL, nodes=900, not_ready=[f"n{i}" for i in range(100, 900)]), now=NOW)
    assert reason.detail == "800 of 900 nodes are not ready: n100, n101, n102, n103, n104 and 795 more."


@pytest.mark.parametrize("shown", [UNKNOWN, HEALTHY, DEGRADED, UNREACHABLE])
@pytest.mark.parametrize("seen", [HEALTHY, DEGRADED, UNREACHABLE])
def test_a_change_is_shown_at_the_second_look_that_agrees(shown: ClusterHealth, seen: ClusterHealth) -> None:
    first = damped(shown, seen, times=1)
    assert first is (seen if (shown, seen) == (UNKNOWN, HEALTHY) else shown)
    assert damped(shown, seen, times=2) is seen
