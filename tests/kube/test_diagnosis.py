"""Why a pod does not run, from recorded texts of schedulers, kubelets and runtimes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from budcluster.kube.diagnosis import PodEvidence, diagnose
from budcluster.kube.diagnosis.finding import Weight
from budcluster.kube.diagnosis.logs import explain_log
from budcluster.kube.diagnosis.scheduling import Reason, explain, parse


def _pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "bud-llama-0"}, "spec": {"nodeName": "n1"}, "status": status}


def _unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Pending", "conditions": [condition]}}


def _waiting(reason: str, message: str = "") -> dict[str, Any]:
    return _pod(containerStatuses=[{"name": "runtime", "state": {"waiting": {"reason": reason, "message": message}}}])


def _crashed(exit_code: int, *, reason: str = "Error", message: str = "") -> dict[str, Any]:
    ended = {"exitCode": exit_code, "reason": reason, "message": message}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}
    status = {"name": "runtime", "state": {"waiting": waiting}, "lastState": {"terminated": ended}}
    return _pod(containerStatuses=[status])


def test_a_scheduling_message_is_taken_apart_and_preemption_is_no_reason() -> None:
    message = (
        "0/7 nodes are available: pod has unbound immediate PersistentVolumeClaims. 2 Insufficient cpu, 3 node(s) had "
        "untolerated taint(s), 2 Insufficient nvidia.com/gpu. preemption: 0/7 nodes are available: 7 No preemption "
        "victims found for incoming pod."
    )
    assert parse(message) == [
        Reason(None, "pod has unbound immediate PersistentVolumeClaims"),
        Reason(2, "Insufficient cpu"),
        Reason(3, "node(s) had untolerated taint(s)"),
        Reason(2, "Insufficient nvidia.com/gpu"),
    ]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "gpu-full"),
        ("0/3 nodes are available: 3 Insufficient amd.com/gpu.", "gpu-full"),
        ("0/3 nodes are available: 3 Insufficient memory.", "memory-full"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "cpu-full"),
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpumem.", "hami-scheduler-missing"),
        ("0/3 nodes are available: 3 Too many pods.", "pod-slots-full"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint(s).", "taint"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: true}.", "taint"),
        ("0/3 nodes are available: 3 node(s) had taint {k: v}, that the pod didn't tolerate.", "taint"),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "no-matching-node"),
        ("0/3 nodes are available: 3 node(s) were unschedulable.", "nodes-cordoned"),
        ("0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints.", "spread"),
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "volume-unbound"),
        ('0/3 nodes are available: persistentvolumeclaim "x" not found.', "volume-missing"),
        ("0/3 nodes are available: 3 node(s) had volume node affinity conflict.", "volume-elsewhere"),
        ("0/3 nodes are available: 3 node(s) exceed max volume count.", "volume-limit"),
        ("0/3 nodes are available: 3 node(s) had unknown conditions.", "nodes-not-ready"),
        ("0/3 nodes are available: 3 node(s) didn't match pod affinity rules.", "pod-affinity"),
        ("0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.", "pod-anti-affinity"),
        ("0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports.", "port-taken"),
        ("0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.", "volume-unbound"),
        ("0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity.", "volume-elsewhere"),
        ("0/3 nodes are available: 3 node(s) did not have enough free storage.", "storage-full"),
        ("0/3 nodes are available: 3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access "
         "mode already in-use by another pod.", "volume-in-use"),
        ('running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded', "volume-unbound"),
        ("0/3 nodes are available: cannot allocate all claims.", "device-claims"),
        ("0/3 nodes are available: 3 cannot allocate all claims.", "device-claims"),
        # Several reasons: the pod's own, then what concerns most nodes, of equals the accelerator.
        ("0/4 nodes are available: 1 Insufficient cpu, 3 Insufficient nvidia.com/gpu.", "gpu-full"),
        ("0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient nvidia.com/gpu.", "gpu-full"),
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu, 3 Insufficient nvidia.com/gpumem.",
         "hami-scheduler-missing"),
        ("0/7 nodes are available: 1 Insufficient cpu, 6 node(s) had untolerated taint(s).", "taint"),
        ("0/4 nodes are available: 1 Insufficient nvidia.com/gpu, 3 node(s) were unschedulable.", "nodes-cordoned"),
        ("0/7 nodes are available: pod has unbound immediate PersistentVolumeClaims. 7 Insufficient cpu. preemption: "
         "0/7 nodes are available: 7 No preemption victims found for incoming pod.", "volume-unbound"),
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/3 nodes "
         "are available: 3 Preemption is not helpful for scheduling.", "gpu-full"),
        # Nodes of other kinds than the pod asks for are no reason where there are some of the right kind.
        ("0/7 nodes are available: 1 Insufficient memory, 6 node(s) didn't match Pod's node affinity/selector.",
         "memory-full"),
        ("no nodes available to schedule pods", "unschedulable"),
    ],
)  # fmt: skip
def test_what_the_scheduler_says_becomes_a_cause(message: str, kind: str) -> None:
    assert explain(message).type == kind
    found = diagnose(PodEvidence(_unscheduled(message)))
    assert found is not None
    assert (found.type, found.pod) == (kind, "p")
    assert found.fix


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('Failed to pull image "x": rpc error: code = NotFound desc = failed to resolve reference: x: not found',
         "image-not-found"),
        ("failed to authorize: 401 Unauthorized", "registry-denied"),
        ("pull access denied, repository does not exist or may require authorization", "registry-denied"),
        ("429 Too Many Requests - toomanyrequests: You have reached your pull rate limit", "registry-rate-limit"),
        ("dial tcp: lookup registry.example on 10.0.0.10:53: no such host", "registry-unreachable"),
        ('failed to do request: Head "https://r:4290/v2/x": dial tcp 10.0.0.1:4290: i/o timeout',
         "registry-unreachable"),
        ('failed to resolve reference "r.example:429/x@sha256:ab429cd": r.example:429/x@sha256:ab429cd: not found',
         "image-not-found"),
        ("unexpected status code 429 from GET request to https://r.example/v2/x/manifests/1", "registry-rate-limit"),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", "registry-unreachable"),
        ("unexpected status from HEAD request to https://r.example/v2/x/manifests/1: 403 Forbidden", "registry-denied"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "registry-certificate"),
        ("write /var/lib/containerd/x: no space left on device", "image-disk-full"),
        ("no match for platform in manifest: not found", "image-platform"),
        ("reading manifest 9.9 in registry.example/x: manifest unknown", "image-not-found"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_pulled_names_the_reason(message: str, kind: str) -> None:
    found = diagnose(PodEvidence(_waiting("ErrImagePull", message)))
    assert found is not None
    assert (found.type, found.container) == (kind, "runtime")


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("ErrImageNeverPull", 'Container image "x" is not present with pull policy of Never', "image-absent"),
        ("ImageInspectError", 'Failed to inspect image "x": rpc error: code = Unknown desc = x', "image-broken"),
        ("SignatureValidationFailed", "image signature validation failed for x", "image-signature"),
        ("RegistryUnavailable", "registry is not available", "registry-unreachable"),
        ("RegistryUnavailable", "x509: certificate has expired", "registry-certificate"),
        ("ImagePullBackOff", 'Back-off pulling image "x"', "image-pull"),
    ],
)
def test_other_ways_to_be_without_an_image_have_causes_of_their_own(reason: str, message: str, kind: str) -> None:
    found = diagnose(PodEvidence(_waiting(reason, message)))
    assert found is not None
    assert (found.type, found.container, found.lines) == (kind, "runtime", (message,))


def test_the_event_of_a_failed_pull_outweighs_the_bare_back_off() -> None:
    event = {"reason": "Failed", "message": 'Failed to pull image "x": x: not found'}
    found = diagnose(PodEvidence(_waiting("ImagePullBackOff", 'Back-off pulling image "x"'), [event]))
    assert found is not None
    assert found.type == "image-not-found"


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["ValueError: User-specified max_model_len (40000) is greater than the derived max_model_len "
          "(max_position_embeddings=32768 or model_max_length=None in model's config.json)."], "context-too-long"),
        (["ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is "
          "needed, which is larger than the available KV cache memory (9.12 GiB). Based on the available memory, the "
          "estimated maximum model length is 74752. Try increasing `gpu_memory_utilization`"], "kv-cache-too-small"),
        (["ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"],
         "weights-too-large"),
        (["ValueError: Free memory on device cuda:0 (12.3/79.1 GiB) on startup is less than desired GPU memory "
          "utilization (0.92, 72.8 GiB)."], "gpu-in-use"),
        (["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."], "gpu-memory"),
        (["RuntimeError: HIP out of memory."], "gpu-memory"),
        (["Total number of attention heads (28) must be divisible by tensor parallel size (8)."], "parallelism"),
        (["World size (8) is larger than the number of available GPUs (4) in this node."], "parallelism"),
        (["Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has 7.5."],
         "dtype-unsupported"),
        (["The quantization method fp8 is not supported for the current GPU. Minimum capability: 89."],
         "quantization-unsupported"),
        (["Model architectures ['X'] are not supported for now. Supported architectures: ..."],
         "architecture-unsupported"),
        (["consider setting `trust_remote_code=True` in LLM or using the `--trust-remote-code` flag"], "remote-code"),
        (["huggingface_hub.errors.GatedRepoError: 401 Client Error.",
          "Cannot access gated repo for url https://hub.example/resolve/main/config.json."], "model-gated"),
        (["You are trying to access a gated repo.", "401 Client Error. (Request ID: Root=1-6)"], "model-gated"),
        (["Cannot access gated repo for url https://hub.example/x.", "OSError: 401 Client Error: Unauthorized for url"],
         "model-gated"),
        (["Repository Not Found for url: https://hub.example/api/models/x."], "model-not-found-or-private"),
        (["huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-6)",
          "Repository Not Found for url: https://hub.example/api/models/x.", "Invalid username or password."],
         "model-not-found-or-private"),
        (["OSError: x is not a local folder and is not a valid model identifier listed on 'https://huggingface.co'"],
         "model-not-found-or-private"),
        (["Invalid repository ID or local directory specified: 'x'"], "model-not-found-or-private"),
        (["requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://hub.example"], "model-token"),
        (["429 Client Error: Too Many Requests for url: https://hub.example"], "hub-rate-limit"),
        (["huggingface_hub.errors.LocalEntryNotFoundError: cannot find the file"], "hub-unreachable"),
        (["OSError: We couldn't connect to 'https://huggingface.co' to load the files"], "hub-unreachable"),
        (["RuntimeError: The NVIDIA driver on your system is too old (found version 12080)."], "driver-too-old"),
        (["CUDA error: no kernel image is available for execution on the device"], "gpu-generation"),
        (["Error 802: system not yet initialized"], "fabric-manager"),
        (["RuntimeError: No CUDA GPUs are available"], "gpu-not-visible"),
        (["Error while creating shared memory segment /dev/shm/nccl-abc (size 9637888), error: No space left on device"
          " (28)"], "shared-memory"),
        (["ncclInvalidUsage ... Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 18000"], "gpu-shared"),
        (["torch.distributed.DistBackendError: NCCL error in: ../ProcessGroupNCCL.cpp:77, unhandled system error"],
         "nccl"),
        (["ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error."],
         "nccl"),
        (["Error while creating shared memory segment /dev/shm/nccl-abc (size 9637888), error: No space left on device",
          "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error."],
         "shared-memory"),
        (["ncclUnhandledCudaError: Call to CUDA function failed."], "nccl"),
        (["ncclInternalError: Internal check failed."], "nccl"),
        (["ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."],
         "nccl"),
        (["[PG ID 0 PG GUID 0 Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4"], "nccl"),
        (["Bootstrap : no socket interface found"], "nccl"),
        (["Executor creation failed with NCCL error: unhandled cuda error"], "nccl"),
        (["[HAMI-core ERROR (pid:7 thread=1 multiprocess_memory_limit.c:320)]: Illegal device id: 1"],
         "hami-multi-gpu"),
        (["[HAMI-core ERROR (pid:7 thread=1 allocator.c:54)]: Device 0 OOM 8589934592 / 8053063680",
          "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."], "gpu-share-too-small"),
        (["ValueError: VLLM_PORT 'tcp://10.0.0.1:80' appears to be a URI. This may be caused by a Kubernetes service"],
         "service-links"),
        (["vllm: error: unrecognized arguments: --foo"], "unknown-flag"),
        (["vllm serve: error: argument --dtype: invalid choice: 'int3' (choose from 'auto', 'half')"],
         "bad-flag-value"),
        (["launch_server.py: error: argument --tp-size: invalid int value: 'two'"], "bad-flag-value"),
        (["LoRA rank 64 is greater than max_lora_rank 16."], "lora-rank"),
        (["OSError: [Errno 28] No space left on device"], "disk-full"),
        (["RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."], "weights-too-large"),
        (["RuntimeError: Executor creation failed due to insufficient GPU memory."], "weights-too-large"),
        (["CUDA out of memory occurred when warming up sampler with 1024 dummy requests."], "gpu-memory-warm-up"),
        (["Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token."],
         "weights-too-large"),
        (["The model's max seq len (9000) is larger than the maximum number of tokens that can be stored in KV cache "
          "(8000)."], "kv-cache-too-small"),
        (["Pipeline parallelism is not supported for this model. Supported models implement the `SupportsPP`"],
         "parallelism"),
        (["tp_size must be divisible by number of nodes"], "parallelism"),
        (["torch.float16 is not supported for quantization method awq. Supported dtypes: [torch.bfloat16]"],
         "quantization-unsupported"),
        (["The checkpoint you are trying to load has model type `x` but Transformers does not recognize this "
          "architecture."], "architecture-unsupported"),
        (["CUDA driver version is insufficient for CUDA runtime version"], "driver-too-old"),
        (["Error 803: system has unsupported display driver / cuda driver combination"], "driver-too-old"),
        (["ImportError: libcuda.so.1: cannot open shared object file"], "gpu-not-visible"),
        (["Failed to infer device type, please set the environment variable"], "gpu-not-visible"),
        (["No GPU devices found on the node"], "gpu-not-visible"),
        (["User-specified context_length (9000) is greater than the derived context_length (8192)."],
         "context-too-long"),
        (["The memory capacity is unbalanced. Some GPUs may be occupied by other processes."], "gpu-in-use"),
        (["Prefill out of memory. Try to lower your batch size."], "gpu-memory"),
        (["Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB.",
          "1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)"], "gpu-memory"),
        (["Exception: Capture cuda graph failed: CUDA error: an illegal memory access was encountered",
          "1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)"], "graph-capture"),
        (["Health check failed. Server couldn't get a response from detokenizer for last 20 seconds."],
         "engine-hangs"),
        (["RuntimeError: Failed to bind socket to 0.0.0.0:8000"], "port-in-use"),
        (["Worker proc VllmWorker-1 died unexpectedly (exit code: -9)"], "host-memory"),
        (["Rank 0 scheduler died during initialization (exit code: -9)."], "host-memory"),
    ],
)  # fmt: skip
def test_a_crash_names_the_cause_that_stands_above_the_generic_lines(lines: list[str], kind: str) -> None:
    generic = [
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "Received sigquit from a child process. It usually means the child failed.",
    ]
    found = diagnose(PodEvidence(_crashed(1), logs={"runtime": ["INFO loading", *lines, *generic]}))
    assert found is not None
    assert (found.type, found.exit_code) == (kind, 1)
    assert lines[-1] in found.lines or lines[0] in found.lines


def test_the_largest_context_that_fits_is_suggested() -> None:
    found = explain_log(["... the estimated maximum model length is 74752. Try increasing"])
    assert found is not None
    assert found.suggestion == {"max_model_len": 74752}


def test_the_termination_message_serves_where_there_is_no_log() -> None:
    found = diagnose(PodEvidence(_crashed(1, message="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")))
    assert found is not None
    assert found.type == "gpu-memory"


@pytest.mark.parametrize(
    ("exit_code", "reason", "kind"),
    [
        (137, "OOMKilled", "host-memory"), (137, "Error", "killed"), (139, "Error", "segmentation-fault"),
        (132, "Error", "illegal-instruction"), (127, "Error", "bad-command"), (126, "Error", "bad-command"),
        (128, "StartError", "bad-command"), (143, "Error", "terminated"), (1, "Error", "crash"),
    ],
)  # fmt: skip
def test_the_way_it_ended_serves_where_the_log_says_nothing(exit_code: int, reason: str, kind: str) -> None:
    found = diagnose(PodEvidence(_crashed(exit_code, reason=reason), logs={"runtime": ["INFO fine so far"]}))
    assert found is not None
    assert found.type == kind


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("CreateContainerConfigError", 'secret "hf-token" not found', "secret-missing"),
        ("CreateContainerConfigError", "couldn't find key token in Secret ns/hf-token", "secret-missing"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "runs-as-root"),
        ("CreateContainerError", "nvidia-container-cli: initialization error: nvml error", "gpu-runtime-broken"),
        ("RunContainerError", "unresolvable CDI devices nvidia.com/gpu=0", "gpu-runtime-broken"),
        ("RunContainerError", 'failed to create shim task: exec: "vlm": executable file not found in $PATH: unknown',
         "bad-command"),
        ("InvalidImageName", "couldn't parse image name", "image-name"),
    ],
)  # fmt: skip
def test_a_container_that_cannot_be_made_names_what_is_missing(reason: str, message: str, kind: str) -> None:
    found = diagnose(PodEvidence(_waiting(reason, message)))
    assert found is not None
    assert found.type == kind


def test_hami_that_finds_no_share_is_told_apart_from_a_full_cluster() -> None:
    pod = _unscheduled("")
    pod["status"]["conditions"] = []
    event = {"reason": "FilteringFailed", "message": "no available node, 3 nodes do not meet"}
    found = diagnose(PodEvidence(pod, [event]))
    assert found is not None
    assert found.type == "gpu-share-full"


def test_an_evicted_pod_and_a_lost_gpu_are_told() -> None:
    evicted = diagnose(PodEvidence(_pod(reason="Evicted", message="The node was low on resource: ephemeral-storage.")))
    lost = diagnose(PodEvidence(_pod(reason="UnexpectedAdmissionError", message="Allocate failed")))
    assert evicted is not None
    assert lost is not None
    assert (evicted.type, lost.type) == ("evicted", "gpu-lost")


@pytest.mark.parametrize("reason", ["OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfnvidia.com/gpu", "NodeAffinity"])
def test_a_node_that_turns_a_placed_pod_away_is_told(reason: str) -> None:
    found = diagnose(
        PodEvidence(_pod(phase="Failed", reason=reason, message="Pod was rejected: Node didn't have enough"))
    )
    assert found is not None
    assert found.type == "node-turned-away"
    assert reason in found.detail


def test_what_the_container_runtime_says_of_a_start_outweighs_its_exit_code() -> None:
    said = "OCI runtime create failed: nvidia-container-cli: initialization error: load library failed"
    found = diagnose(PodEvidence(_crashed(128, reason="StartError", message=said)))
    assert found is not None
    assert (found.type, found.exit_code) == ("gpu-runtime-broken", 128)


def test_a_runtime_that_hangs_in_nccl_is_a_symptom_once_it_has_lasted() -> None:
    began = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    running = {"name": "runtime", "state": {"running": {"startedAt": began.isoformat()}}}
    logs = {"runtime": ["INFO loading", "INFO 11-24 [pynccl.py:113] vLLM is using nccl==2.27.3"]}
    pod = _pod(containerStatuses=[running])
    assert diagnose(PodEvidence(pod, logs=logs, at=began + timedelta(minutes=1))) is None
    hangs = diagnose(PodEvidence(pod, logs=logs, at=began + timedelta(minutes=6)))
    killed = diagnose(PodEvidence(_crashed(137), logs=logs))
    assert hangs is not None
    assert killed is not None
    assert (hangs.type, killed.type) == ("nccl-hang", "nccl-hang")
    assert hangs.weight is Weight.SYMPTOM


def test_a_pod_that_is_well_has_no_cause_even_with_old_failures() -> None:
    ended = {"exitCode": 1, "reason": "Error"}
    pod = _pod(
        phase="Running",
        conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=[{"name": "runtime", "ready": True, "state": {}, "lastState": {"terminated": ended}}],
    )
    event = {"reason": "Unhealthy", "message": "Startup probe failed: connection refused"}
    assert diagnose(PodEvidence(pod, [event])) is None


def test_a_pod_that_waits_for_its_image_normally_has_no_cause() -> None:
    assert diagnose(PodEvidence(_waiting("ContainerCreating"))) is None


def test_secrets_in_the_evidence_are_masked() -> None:
    lines = ["HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz012345 OutOfMemoryError: CUDA out of memory"]
    found = diagnose(PodEvidence(_crashed(1), logs={"runtime": lines}))
    assert found is not None
    assert "hf_abcdef" not in repr(found)


@pytest.mark.parametrize("pod", [{}, {"status": {"containerStatuses": [{}]}}, {"status": {"conditions": [{}]}}])
def test_a_pod_without_the_usual_fields_has_no_cause(pod: dict[str, Any]) -> None:
    assert diagnose(PodEvidence(pod, [{}, {"reason": "Failed"}])) is None
