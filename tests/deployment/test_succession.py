"""How a new revision takes the place of the old one."""

from dataclasses import replace

import pytest

from budcluster.deployment.fitting.demands import Demand, ProcessorDemand
from budcluster.deployment.fitting.model_facts import read_config
from budcluster.deployment.fitting.placing import Stock
from budcluster.deployment.fitting.rooms import Room, Share, rooms_of
from budcluster.deployment.fitting.sizing import Shape
from budcluster.deployment.succession import Chances, chances_of, choose_rollout, is_no_larger, takes_the_place
from budcluster.deployment.values import Rollout
from budcluster.hardware.reading.reader import read_cluster
from tests.deployment import models
from tests.hardware import nodes

SMALL = read_config(models.LLAMA_8B | {"num_hidden_layers": 4})
ONE = Demand(Shape(), facts=SMALL, resource="nvidia.com/gpu")


def _rooms(node: nodes.Node, *, held: int = 0) -> list[Room]:
    pods = [nodes.pod(node, nvidia_com__gpu=str(held))] if held else []
    return rooms_of(read_cluster([node], pods=pods).nodes)


def _chosen(new: Demand, old: Demand, *, others: int = 0, exclusive: bool = False) -> Rollout:
    """For copies of `old` on a machine of eight GPUs, of which others hold some."""
    own = new.replicas * old.shape.devices
    beside, freed = (_rooms(nodes.a100x8(), held=held) for held in (others + own, others))
    chances = chances_of(new, old, beside=beside, waiting=[], own=freed)
    return choose_rollout(replicas=new.replicas, chances=chances, exclusive_cache=exclusive)


def test_the_new_copy_comes_first_where_a_whole_one_fits_beside_the_old_ones() -> None:
    assert _chosen(replace(ONE, replicas=3), ONE) is Rollout.SURGE
    assert _chosen(replace(ONE, replicas=3), ONE, others=5) is Rollout.DRAIN_ONE
    assert _chosen(ONE, ONE, others=7) is Rollout.RECREATE
    assert _chosen(replace(ONE, replicas=3), ONE, exclusive=True) is Rollout.RECREATE


@pytest.mark.parametrize(
    "new",
    [
        replace(ONE, shape=Shape(tensor_parallel=4)),
        replace(ONE, gpu_model="NVIDIA-H100-80GB-HBM3"),
        replace(ONE, min_driver_major=700),
        replace(ONE, resource="nvidia.com/mig-3g.40gb"),
    ],
    ids=["more devices", "other devices", "newer driver", "slices"],
)
def test_all_go_first_where_one_old_copy_does_not_free_what_a_new_one_needs(new: Demand) -> None:
    assert _chosen(replace(new, replicas=2), ONE, others=6) is Rollout.RECREATE


def test_growing_copies_come_first_only_if_all_of_them_fit_beside() -> None:
    wide = replace(ONE, shape=Shape(tensor_parallel=2), replicas=2)
    assert _chosen(wide, ONE) is Rollout.SURGE
    # One pair fits beside the old two, and what one of those frees is not enough for the other pair.
    assert _chosen(wide, ONE, others=4) is Rollout.RECREATE


def test_a_share_takes_the_place_of_one_that_is_as_large() -> None:
    rooms = _rooms(nodes.hami())
    old = replace(ONE, share=Share(20_000, 50))
    assert takes_the_place(replace(ONE, share=Share(20_000, 50)), old, rooms)
    assert not takes_the_place(replace(ONE, share=Share(24_000, 50)), old, rooms)
    assert not takes_the_place(replace(ONE, share=Share(20_000, 60)), old, rooms)
    assert not takes_the_place(ONE, old, rooms)
    assert takes_the_place(old, ONE, rooms)


def test_nothing_is_replaced_in_place_on_a_node_that_takes_no_pods() -> None:
    node = nodes.a100x8()
    node["spec"]["unschedulable"] = True
    assert not takes_the_place(ONE, ONE, _rooms(node))


def test_without_gpus_a_larger_copy_waits_until_the_old_ones_are_gone() -> None:
    old = ProcessorDemand(cores=8, memory_gib=32)
    assert is_no_larger(old, old)
    assert not is_no_larger(replace(old, memory_gib=33), old)
    assert not is_no_larger(old, ONE)
    assert choose_rollout(replicas=2, chances=Chances(0, in_place=False), exclusive_cache=False) is Rollout.RECREATE


def test_a_promise_to_larger_copies_holds_beside_the_ones_that_stand_yet() -> None:
    """Four GPUs are held by an old copy whose successor needs all eight: nobody else gets the other four."""
    now, gone = _rooms(nodes.a100x8(), held=4), _rooms(nodes.a100x8())
    later = Stock(gone)
    later.place(replace(ONE, shape=Shape(tensor_parallel=8)))
    both = [room.least(then) for room, then in zip(now, later.rooms(), strict=True)]
    assert [room.whole_devices for room in now + both] == [4, 0]
