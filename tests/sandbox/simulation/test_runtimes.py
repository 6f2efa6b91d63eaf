"""Model runtimes come up like themselves, and fail like themselves."""

from __future__ import annotations

import orjson
import pytest

from sandbox.kubernetes.simulation.models.hub import Hub
from tests.sandbox.simulation.objects import container, pod
from tests.sandbox.simulation.releases import install_gpu_operator, install_hami, install_nfd, label

VLLM, SGLANG, TRT = "vllm/vllm-openai:v0.33.0", "lmsysorg/sglang:v0.5.23", "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
SHM = {"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}]}
MOUNTS = [{"name": "shm", "mountPath": "/dev/shm"}]


def ready_cluster(make_cluster, nodes):
    cluster = make_cluster(f"{nodes},cpu:1")
    install_nfd(cluster)
    install_gpu_operator(cluster)
    return cluster


def serve(cluster, args, *, image=VLLM, gpus=1, port=8000, env=(), memory="16Gi", mounts=MOUNTS, **spec):
    """Run one runtime and let half an hour pass."""
    limits = {"nvidia.com/gpu": str(gpus), "memory": memory} if gpus else {"memory": memory}
    probe = {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 10, "timeoutSeconds": 5}
    one = container(
        image, limits=limits, args=args, ports=[{"containerPort": port}], readinessProbe=probe, volumeMounts=mounts,
        env=[{"name": key, "value": value} for key, value in env], terminationMessagePolicy="FallbackToLogsOnError",
    )  # fmt: skip
    tolerations = [{"operator": "Exists"}]
    cluster.create(pod("llm", one, tolerations=tolerations, enableServiceLinks=False, **SHM, **spec))
    cluster.advance(1800)


def is_ready(cluster):
    return cluster.pod("llm")["status"]["containerStatuses"][0]["ready"]


def last_words(cluster):
    status = cluster.pod("llm")["status"]["containerStatuses"][0]
    return (status["lastState"] or status["state"])["terminated"]


async def ask(cluster, method, path, body=None, port="8000"):
    content = orjson.dumps(body) if body else b""
    return await cluster.simulation.kubelets.proxy("default", cluster.pod("llm"), port, method, path, "", {}, content)


@pytest.mark.parametrize(
    ("image", "port", "args", "marker"),
    [
        (VLLM, 8000, ["Qwen/Qwen3-8B", "--max-model-len", "8192"], "Application startup complete."),
        (SGLANG, 30000, ["python3", "-m", "sglang.launch_server", "--model-path", "Qwen/Qwen3-8B", "--host", "0.0.0.0"],
         "The server is fired up and ready to roll!"),
        (TRT, 8000, ["trtllm-serve", "Qwen/Qwen3-8B", "--host", "0.0.0.0"], "Application startup complete."),
    ],
)  # fmt: skip
async def test_a_runtime_says_its_own_lines_and_answers(make_cluster, image, port, args, marker):
    cluster = ready_cluster(make_cluster, "a10g:1")
    serve(cluster, args, image=image, port=port)
    assert marker in cluster.log("llm")
    assert is_ready(cluster)
    models = orjson.loads((await ask(cluster, "GET", "/v1/models", port=str(port))).body)
    assert models["data"][0]["id"] == "Qwen/Qwen3-8B"
    question = {"model": "Qwen/Qwen3-8B", "messages": [{"role": "user", "content": "Hello"}]}
    answer = orjson.loads((await ask(cluster, "POST", "/v1/chat/completions", question, port=str(port))).body)
    assert answer["choices"][0]["message"]["content"]


def test_a_runtime_on_loopback_never_becomes_ready(make_cluster):
    cluster = ready_cluster(make_cluster, "a10g:1")
    serve(
        cluster, ["python3", "-m", "sglang.launch_server", "--model-path", "Qwen/Qwen3-0.6B"], image=SGLANG, port=30000
    )
    assert "ready to roll" in cluster.log("llm")
    assert not is_ready(cluster)
    assert any("connection refused" in message for message in cluster.events("Unhealthy"))


@pytest.mark.parametrize(
    ("nodes", "args", "options", "said"),
    [
        ("a10g:1", ["Qwen/Qwen3-8B", "--no-such-flag"], {}, "vllm: error: unrecognized arguments: --no-such-flag"),
        (
            "a10g:1",
            ["Qwen/Qwen3-8B", "--max-model-len", "50000"],
            {},
            "(50000) is greater than the derived",
        ),
        ("a10g:1", ["Qwen/Qwen3-32B"], {}, "CUDA out of memory"),
        (
            "a10g:1",
            ["Qwen/Qwen3-8B", "--gpu-memory-utilization", "0.7"],
            {},
            "No available memory for the cache",
        ),
        ("a10g:1", ["Qwen/Qwen3-8B"], {}, "estimated maximum model length is"),
        ("h100x8:1", ["Qwen/Qwen2.5-7B-Instruct", "-tp", "8"], {"gpus": 8}, "heads (28) must be divisible by tensor"),
        ("a10g:1", ["Qwen/Qwen3-8B", "-tp", "4"], {}, "World size (4) is larger than the number of available GPUs (1)"),
        ("t4:1", ["Qwen/Qwen3-0.6B", "--dtype", "bfloat16"], {}, "Your Tesla T4 GPU has compute capability 7.5"),
        ("a10g:1", ["meta-llama/Llama-3.1-8B-Instruct"], {}, "You are trying to access a gated repo."),
        ("a10g:1", ["no/such-model"], {}, "is not a valid model identifier"),
        ("l4-old-driver:1", ["Qwen/Qwen3-0.6B"], {}, "The NVIDIA driver on your system is too old"),
        ("a10g:1", ["Qwen/Qwen3-0.6B"], {"env": [("VLLM_PORT", "tcp://10.96.1.1:80")]}, "appears to be a URI"),
        ("h100x8:1", ["Qwen/Qwen3-8B", "-tp", "2"], {"gpus": 2, "mounts": []}, "ncclSystemError"),
        ("cpu:1", ["Qwen/Qwen3-8B"], {"gpus": 0}, "Failed to infer device type"),
    ],
)
def test_a_start_fails_with_the_words_of_the_runtime(make_cluster, nodes, args, options, said):
    cluster = ready_cluster(make_cluster, nodes)
    serve(cluster, args, **options)
    assert said in last_words(cluster)["message"]


@pytest.mark.parametrize(
    ("nodes", "image", "resource"),
    [
        ("mi300x:1", "vllm/vllm-openai-rocm:v0.33.0", "amd.com/gpu"),
        ("cpu-amx:1", "vllm/vllm-openai-cpu:v0.33.0-x86_64", ""),
    ],
)
def test_other_hardware_serves_with_its_own_image(make_cluster, nodes, image, resource):
    cluster = make_cluster(nodes)
    limits = {"memory": "64Gi", **({resource: "1"} if resource else {})}
    args = ["Qwen/Qwen3-8B", "--max-model-len", "8192"]
    cluster.create(pod("llm", container(image, limits=limits, args=args), enableServiceLinks=False))
    cluster.advance(600)
    assert "Application startup complete." in cluster.log("llm")


def test_tensor_parallel_over_hami_slices_crashes(make_cluster):
    cluster = make_cluster("a100x8:1,cpu:1")
    label(cluster, "a100x8-1", gpu="on")
    install_hami(cluster)
    args = ["Qwen/Qwen3-8B", "-tp", "2", "--max-model-len", "8192"]
    limits = {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "40000", "memory": "64Gi"}
    one = container(VLLM, limits=limits, args=args, volumeMounts=MOUNTS)
    cluster.create(pod("llm", one, tolerations=[{"operator": "Exists"}], enableServiceLinks=False, **SHM))
    cluster.advance(300)
    assert "Illegal device id" in cluster.log("llm", previous=True)


async def test_previous_log_is_there_while_the_container_backs_off(make_cluster):
    cluster = ready_cluster(make_cluster, "a10g:1")
    serve(cluster, ["Qwen/Qwen3-8B", "--no-such-flag"])
    waiting = cluster.pod("llm")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "CrashLoopBackOff"
    options = {"container": None, "follow": False, "since_seconds": None, "since_time": None, "limit_bytes": None}
    for previous in (True, False):
        lines = cluster.simulation.kubelets.logs(
            cluster.pod("llm"), previous=previous, tail_lines=1, timestamps=False, **options
        )
        assert b"unrecognized arguments" in b"".join([part async for part in lines])


def test_too_little_host_memory_ends_with_137(make_cluster):
    cluster = ready_cluster(make_cluster, "a10g:1")
    serve(cluster, ["Qwen/Qwen3-8B", "--max-model-len", "8192"], memory="4Gi")
    assert (last_words(cluster)["reason"], last_words(cluster)["exitCode"]) == ("OOMKilled", 137)


def test_an_unknown_tag_of_a_runtime_is_not_found(make_cluster):
    cluster = ready_cluster(make_cluster, "a10g:1")
    serve(cluster, ["Qwen/Qwen3-8B"], image="vllm/vllm-openai:v9.9.9")
    waiting = cluster.pod("llm")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert any("vllm-openai:v9.9.9: not found" in message for message in cluster.events("Failed"))


def test_the_hub_guards_gated_models():
    hub = Hub()
    name = "meta-llama/Llama-3.1-8B-Instruct"
    assert hub.answer(f"/{name}/resolve/main/config.json", "")[0] == 401
    status, body, _ = hub.answer(f"/{name}/raw/main/config.json", "Bearer hf_abc")
    assert (status, orjson.loads(body)["num_hidden_layers"]) == (200, 32)
    assert orjson.loads(hub.answer(f"/api/models/{name}", "")[1])["gated"] == "manual"
    assert hub.answer("/api/models/no/such", "")[2]["x-error-code"] == "RepoNotFound"
