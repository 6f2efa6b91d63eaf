"""How far a copy is, from its pod and its log."""

import pytest

from budcluster.deployment.watching.progress import (
    PLACED,
    PULLING,
    QUEUED,
    READY,
    STARTED,
    Progress,
    progress_of,
    together,
)

READY_POD = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
PLACED_POD = {"status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}}
RUNNING_POD = {"status": {"containerStatuses": [{"state": {"running": {}}}]}}


def test_a_pod_moves_from_the_queue_over_the_pull_to_serving() -> None:
    pulling = [{"reason": "Pulling"}]
    seen = [progress_of({}, (), ()), progress_of(PLACED_POD, (), ()), progress_of(PLACED_POD, pulling, ())]
    seen += [progress_of(RUNNING_POD, (), ()), progress_of(READY_POD, (), ())]
    assert seen == [QUEUED, PLACED, PULLING, STARTED, READY]


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("model-00002-of-00004.safetensors: 50%", 45),
        ("Loading safetensors checkpoint shards:  50% Completed | 2/4", 68),
        ("Loading safetensors checkpoint shards:   0%| | 0/9\rLoading safetensors checkpoint shards:  75% | 6/9\r", 72),
        ("model.safetensors:   1%| | 9M/1G\rmodel.safetensors:  90%| | 900M/1G\r\x1b[A", 57),
        ("Initializing a V1 LLM engine (v0.33.0) with config: compilation_config={'mode': 'torch.compile takes'}", 28),
        ("non-default args: {'compilation_config': 'torch.compile', 'load_format': 'safetensors'}", 28),
        ("torch.compile takes 25.00 s in total", 80),
        ("GPU KV cache size: 643,232 tokens", 86),
        ("Capturing CUDA graphs: 50%|#####     | 3/6", 91),
        ("The server is fired up and ready to roll!", 97),
    ],
)
def test_log_lines_of_the_runtimes_tell_how_far_they_are(line: str, percent: float) -> None:
    assert progress_of(RUNNING_POD, (), ["an older line", line]).percent == percent


def test_copies_together_are_their_average_and_the_words_of_the_slowest() -> None:
    both = together([READY, Progress(50, "Loading weights")], 2)
    assert both == Progress(75, "1 of 2 copies serve; loading weights")
    assert together([], 2).percent == 0
