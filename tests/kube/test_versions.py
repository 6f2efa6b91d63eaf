import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budcluster.kube.versions import (
    Minor,
    Support,
    UnreadableVersion,
    Version,
    judge_kubelet,
    judge_server,
)


def version(text: str) -> Version:
    return Version.parse(text)


@pytest.mark.parametrize(
    ("text", "minor", "patch"),
    [
        ("v1.33.5-eks-3025e55", (1, 33), 5),
        ("v1.37.0", (1, 37), 0),
        ("1.29.15+k3s1", (1, 29), 15),
        ("v1.32.4-gke.1106006", (1, 32), 4),
        ("v1.36.0-rc.1", (1, 36), 0),
        ("1.33", (1, 33), 0),
        ("1.32+", (1, 32), 0),
    ],
)
def test_versions_are_read_whatever_the_vendor_adds(text: str, minor: tuple[int, int], patch: int) -> None:
    assert version(text) == Version(Minor(*minor), patch)


@pytest.mark.parametrize("text", ["", "v", "latest", "1", "1.2.3.4", "v1.٣.0", "1.33 ", "x1.33.0", "1." + "9" * 200])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UnreadableVersion):
        version(text)


def test_the_servers_answer_is_read_by_its_best_part() -> None:
    assert Version.of_server({"gitVersion": "v1.33.5-eks-1", "major": "1", "minor": "32+"}) == version("1.33.5")
    assert Version.of_server({"major": "1", "minor": "32+"}) == version("1.32")
    assert Version.of_server({"gitVersion": None, "major": "1", "minor": "32"}) == version("1.32")
    for answer in ({}, {"major": "1"}, {"major": "1", "minor": "x"}, {"gitVersion": 5}):
        with pytest.raises(UnreadableVersion):
            Version.of_server(answer)


@pytest.mark.parametrize(
    ("text", "support", "says"),
    [
        ("1.24.17", Support.REFUSED, "too old"),
        ("0.9.0", Support.REFUSED, "too old"),
        ("1.25.0", Support.UNTESTED, "older than what is tested"),
        ("1.32.9", Support.UNTESTED, "upgrade"),
        ("1.33.0", Support.SUPPORTED, ""),
        ("1.37.2", Support.SUPPORTED, ""),
        ("1.38.0", Support.UNTESTED, "newer"),
        ("2.0.0", Support.REFUSED, "major"),
    ],
)
def test_servers_are_judged(text: str, support: Support, says: str) -> None:
    verdict = judge_server(version(text))
    assert verdict.support is support
    assert says in verdict.sentence


@pytest.mark.parametrize(
    ("kubelet", "support"),
    [
        ("1.35.9", "SUPPORTED"),
        ("1.32.0", "SUPPORTED"),
        ("1.31.9", "REFUSED"),
        ("1.36.0", "REFUSED"),
        ("2.0.0", "REFUSED"),
    ],
)
def test_kubelets_may_be_three_older_and_never_newer(kubelet: str, support: str) -> None:
    assert judge_kubelet(version(kubelet), server=version("1.35.0")).support == support


@given(st.text())
def test_any_text_is_a_version_or_refused(text: str) -> None:
    with contextlib.suppress(UnreadableVersion):
        assert Version.parse(text).patch >= 0
