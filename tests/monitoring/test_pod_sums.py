"""What pods ask for, followed as they come and go."""

from budcluster.hardware.inventory_store import Load
from budcluster.monitoring.pod_sums import PodSums, Request

GIB = 2**30


def test_what_is_counted_on_a_node_follows_its_pods_copies_apart_by_deployment() -> None:
    sums = PodSums()
    sums.see(("a", "foreign"), Request(1500, 2 * GIB, "node"))
    for name in ("one", "two"):
        sums.see(("a", name), Request(250, GIB, "node", "an-id"))
    assert sums.take({"node"}) == {"node": Load(2.0, 4 * GIB, {"an-id": (0.5, 2 * GIB)})}
    assert sums.take({"node"}) == {}
    sums.see(("a", "one"), Request(1000, GIB, "node", "another"))
    sums.see(("a", "foreign"), None)
    copies = {"an-id": (0.25, GIB), "another": (1.0, GIB)}
    assert sums.take({"node"}) == {"node": Load(1.25, 2 * GIB, copies)}
    assert (sums.cpu_cores, sums.memory_bytes) == (1.25, 2 * GIB)


def test_nothing_is_kept_of_nodes_and_pods_that_are_gone() -> None:
    sums = PodSums()
    for number in range(10):
        pod = ("a", f"pod-{number}")
        sums.see(pod, Request(100, GIB, f"node-{number}", "an-id"))
        sums.take({f"node-{number}"})
        sums.see(pod, None)
    assert sums.take({"node-9"}) == {"node-9": Load(0.0, 0)}
    assert vars(sums) == vars(PodSums())
