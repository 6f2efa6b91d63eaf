"""Does it fit without GPUs?"""

from dataclasses import replace

from budcluster.deployment.fitting.demands import ProcessorDemand
from budcluster.deployment.fitting.fit import Verdict
from budcluster.deployment.fitting.processors import check_processors
from budcluster.deployment.fitting.rooms import Asked
from budcluster.deployment.fitting.sizing import GIB
from budcluster.hardware.reading.profile import NodeProfile
from budcluster.hardware.reading.reader import read_cluster
from tests.hardware import nodes

COPY = ProcessorDemand(cores=8, memory_gib=32, architecture="amd64", needs_vectors=True)


def _node(name: str = "node-0", *, cpu: str = "32", memory: str = "128Gi") -> NodeProfile:
    node = nodes.sapphire_rapids()
    node["metadata"]["name"] = name
    node["status"]["allocatable"] |= {"cpu": cpu, "memory": memory}
    return read_cluster([node]).nodes[0]


def test_each_node_takes_as_many_copies_as_its_processors_and_memory_allow() -> None:
    fit = check_processors(replace(COPY, replicas=6), [_node("a"), _node("b", memory="64Gi")])
    assert (fit.verdict, fit.nodes) == (Verdict.YES, ("a",) * 4 + ("b",) * 2)
    seven = check_processors(replace(COPY, replicas=7), [_node("a"), _node("b", memory="64Gi")])
    assert (seven.verdict, seven.nearest) == (Verdict.NO, ("with 6 replicas it fits",))


def test_copies_of_others_take_their_place_first() -> None:
    fit = check_processors(COPY, [_node()], waiting=[replace(COPY, replicas=4)])
    assert fit.verdict is Verdict.NO
    assert "asks for 8 processors and 32 GiB of memory" in fit.reasons[0].reasons[0]


def test_what_pods_ask_for_is_looked_at_in_sum_and_the_answer_says_so() -> None:
    busy = check_processors(COPY, [_node()], asked=Asked(cores=26.0, memory_bytes=8 * GIB))
    assert "of the whole cluster 6 and 120 GiB are not asked for" in busy.reasons[0].reasons[0]
    fit = check_processors(COPY, [_node()], asked=Asked(cores=20.0, memory_bytes=8 * GIB))
    assert fit.verdict is Verdict.YES
    assert "not known yet" in fit.warnings[0]


def test_what_other_pods_ask_of_a_node_is_not_given_away_again() -> None:
    by_node = {"a": Asked(cores=28.0, memory_bytes=8 * GIB), "b": Asked(cores=1.5, memory_bytes=100 * GIB)}
    full = check_processors(COPY, [_node("a"), _node("b")], by_node=by_node)
    assert full.verdict is Verdict.NO
    assert "a node has 4 and 120 GiB that nobody else has or is to get" in full.reasons[0].reasons[0]
    unseen = check_processors(COPY, [_node("a"), _node("b"), _node("c")], by_node=by_node)
    assert (unseen.verdict, unseen.nodes) == (Verdict.YES, ("c",))
    assert "not known yet" in unseen.warnings[0]
    seen = check_processors(COPY, [_node("a"), _node("b"), _node("c")], by_node=by_node | {"c": Asked(0.0, 0)})
    assert (seen.verdict, seen.nodes, seen.warnings) == (Verdict.YES, ("c",), ())


def test_a_copy_may_take_exactly_what_is_left_whatever_fractions_others_ask_for() -> None:
    wide, asked = replace(COPY, cores=16), Asked(cores=16.98, memory_bytes=0)
    node = _node(cpu="32980m")
    assert check_processors(wide, [node], by_node={node.name: asked}).verdict is Verdict.YES
    assert check_processors(wide, [node], asked=asked).verdict is Verdict.YES


def test_an_unknown_model_is_never_yes() -> None:
    assert check_processors(replace(COPY, doubts=("its size is not known",)), [_node()]).verdict is Verdict.UNKNOWN


def test_nodes_that_cannot_run_it_say_why() -> None:
    node = _node()
    cases = {
        "keeps out pods that ask for no GPU": check_processors(COPY, [node], kept=frozenset({node.name})),
        "each of 64 parts wants a NUMA node": check_processors(replace(COPY, processes=64), [node]),
        "made for amd64": check_processors(COPY, [replace(node, architecture="arm64")]),
        "neither AVX2 nor AVX-512": check_processors(
            COPY, [replace(node, cpu=replace(node.cpu, features=("AMXTILE",)))]
        ),
        "is cordoned": check_processors(COPY, [replace(node, reasons=("is cordoned",))]),
    }
    for reason, fit in cases.items():
        assert fit.verdict is Verdict.NO
        assert reason in fit.reasons[0].reasons[0]
    assert check_processors(replace(COPY, processes=2), [replace(node, numa_nodes=2)]).verdict is Verdict.YES
