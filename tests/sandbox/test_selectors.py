"""Label and field selectors."""

import pytest

from sandbox.kubernetes.errors import BadRequest
from sandbox.kubernetes.selectors import FieldSelector, LabelSelector


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {"a": "1"}, True),
        ("a=1", {"a": "1"}, True),
        ("a==1,b=2", {"a": "1"}, False),
        ("a!=1", {}, True),
        ("a in (1, 2)", {"a": "2"}, True),
        ("a notin (1,2),b", {"a": "2", "b": ""}, False),
        ("a notin (1)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a>3", {"a": "10"}, True),
        ("a<3", {"a": "x"}, False),
        ("nvidia.com/gpu.present=true", {"nvidia.com/gpu.present": "true"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_a_label_selector_matches(text: str, labels: dict[str, str], matches: bool) -> None:
    assert LabelSelector.parse(text).matches(labels) is matches


def test_a_selector_object_needs_labels_and_expressions_alike() -> None:
    selector = LabelSelector.from_object(
        {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}
    )
    assert selector.matches({"a": "1"})
    assert not selector.matches({"a": "1", "b": "2"})


@pytest.mark.parametrize("text", ["a in 1", "=b", "a b"])
def test_a_label_selector_is_refused_when_malformed(text: str) -> None:
    with pytest.raises(BadRequest):
        LabelSelector.parse(text)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("status.phase=Running", True),
        ("status.phase!=Running", False),
        ("spec.nodeName=", True),
        ("spec.unschedulable=false", True),
        ("metadata.name=a,status.phase=Pending", False),
    ],
)
def test_a_field_selector_matches(text: str, matches: bool) -> None:
    obj = {"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Running"}}
    assert FieldSelector.parse(text).matches(obj) is matches
