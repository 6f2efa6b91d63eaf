"""What `--nodes` accepts, and what a node shows before any agent ran on it."""

from __future__ import annotations

import pytest

from sandbox.kubernetes.simulation.machines import make_machines
from sandbox.kubernetes.simulation.nodes import node_object
from sandbox.kubernetes.simulation.profiles import PROFILES, UnknownProfile, parse_nodes


def test_counts_default_to_one():
    wanted = parse_nodes("h100x8:2, l40s ,a100x8-mig:1")
    assert [(profile.name, count) for profile, count in wanted] == [("h100x8", 2), ("l40s", 1), ("a100x8-mig", 1)]


@pytest.mark.parametrize(
    ("text", "said"), [("h1000:1", "known ones: a100x8"), ("l4:two", "whole number"), ("cpu:99999", "at most 20000")]
)
def test_wrong_text_is_refused_with_what_would_be_right(text, said):
    with pytest.raises(UnknownProfile, match=said):
        parse_nodes(text)


def test_the_same_seed_gives_the_same_devices():
    first, again = (make_machines(parse_nodes("h100x8:2"), seed=7) for _ in range(2))
    other = make_machines(parse_nodes("h100x8:2"), seed=8)
    uuids = [[device.uuid for machine in machines for device in machine.devices] for machines in (first, again, other)]
    assert uuids[0] == uuids[1] != uuids[2]
    assert len(set(uuids[0])) == 16


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_fresh_node_shows_no_feature_that_only_an_agent_knows(name):
    node = node_object(make_machines([(PROFILES[name], 1)], seed=1)[0], now="2026-11-23T12:00:00Z")
    assert not [key for key in node["metadata"]["labels"] if key.startswith(("feature.node", "nvidia.com"))]
    assert "nvidia.com/gpu" not in node["status"]["allocatable"]
    assert {"cpu", "memory", "pods", "ephemeral-storage"} <= set(node["status"]["capacity"])


def test_other_vendors_devices_are_allocatable_at_once():
    node = node_object(make_machines(parse_nodes("mi300x"), seed=1)[0], now="2026-11-23T12:00:00Z")
    assert node["status"]["allocatable"]["amd.com/gpu"] == "8"
