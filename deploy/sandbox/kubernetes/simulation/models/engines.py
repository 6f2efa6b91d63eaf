"""Model runtimes as programs: start-up lines, the moment they listen, what they answer, how they use memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from sandbox.kubernetes.simulation.models.answers import chat, completion, engine_metrics, error, model_list
from sandbox.kubernetes.simulation.models.failures import Failure, find_failure
from sandbox.kubernetes.simulation.models.situation import GIB, Situation, inspect, runtime_of
from sandbox.kubernetes.simulation.programs import Exit, Launch, Line, Program, Reply, Request, Usage

Obj = dict[str, Any]

_IMPORT_S, _CONFIG_S, _COMPILE_S, _CAPTURE_S = 8.0, 4.0, 25.0, 12.0
_STATS_S = 10.0
_CORE = "(EngineCore pid=212) INFO"


class Answer(Protocol):
    """Makes the body of a completion and its media type."""

    def __call__(self, case: Situation, asked: Obj, *, number: int, at: float) -> tuple[bytes, str]: ...


def runtime_program(launch: Launch) -> Program | None:
    """The program of a model runtime's container."""
    runtime = runtime_of(launch)
    if runtime is None:
        return None
    return {"vllm": Vllm, "sglang": Sglang, "trtllm": TensorRt}[runtime](inspect(launch, runtime))


class Engine(Program):
    """What the three have in common: import, download, load, compile, serve; or one failure on the way."""

    port = 8000

    def __init__(self, case: Situation) -> None:
        self.case = case
        settings = case.launch.world.settings
        size = case.model.weight_bytes if case.model else 0
        cached = f"model:{case.options.model}" in case.launch.machine.images
        self.downloaded_s = 0.5 if cached else size / (settings.network_mib_s * (1 << 20))
        self.loaded_s = size / (settings.disk_mib_s * (1 << 20)) + 1.0
        self.failure = find_failure(case)
        self.served = 0
        self.lines = tuple(self._with_failure(self.failure) if self.failure else self.startup())
        last = self.lines[-1].at
        self.settled = last + 1.0
        if self.failure is not None:
            self.exit = Exit(last + 0.5, self.failure.code, self.failure.reason)
        elif case.model is not None and self._keeps_files():
            case.launch.world.after(last, lambda: case.launch.machine.images.add(f"model:{case.options.model}"))

    def _keeps_files(self) -> bool:
        """Whether the download outlives the container: a claim or a host path is mounted."""
        volumes = self.case.launch.pod["spec"].get("volumes") or []
        return any("persistentVolumeClaim" in volume or "hostPath" in volume for volume in volumes)

    def startup(self) -> Iterator[Line]:
        """The lines of a good start, the last one when it listens."""
        raise NotImplementedError

    def _with_failure(self, failure: Failure) -> Iterator[Line]:
        until = _IMPORT_S + _CONFIG_S
        if failure.loaded:
            until += self.downloaded_s + self.loaded_s
        elif failure.code == 2:
            until = 2.0
        elif failure.reason == "OOMKilled":
            until += self.downloaded_s + 1.0
        if failure.code != 2:
            yield from (line for line in self.startup() if line.at < until)
        for number, text in enumerate(failure.lines):
            yield Line(until + number * 0.01, text)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return max(self.case.kv_room // self.case.kv_per_token // 16 * 16, 16)

    def listens(self, request: Request, at: float) -> bool:
        """Whether the API's socket is open for that request."""
        if self.failure is not None or at < self.settled - 1.0:
            return False
        wanted = self.case.options.number("port", default=self.port)
        return request.port == wanted and (request.local or self.reachable)

    @property
    def reachable(self) -> bool:
        """Whether the server binds more than the loopback address."""
        return self.case.options.text("host", default=self.default_host) not in ("127.0.0.1", "localhost", "::1")

    default_host = "0.0.0.0"

    def reply(self, request: Request, at: float) -> Reply | None:  # noqa: PLR0911 -- one return per endpoint
        """Common endpoints; each runtime adds its own."""
        if not self.listens(request, at):
            return None
        own = self.special(request, at)
        if own is not None:
            return own
        match request.method, request.path:
            case _, "/health" | "/ping":
                return Reply()
            case _, "/version":
                return _json({"version": self.version})
            case _, "/v1/models":
                return _json(model_list(self.case))
            case "POST", "/v1/chat/completions":
                return self._generate(request, at, chat)
            case "POST", "/v1/completions":
                return self._generate(request, at, completion)
            case _:
                return _json({"detail": "Not Found"}, 404)

    version = "0"

    def special(self, request: Request, at: float) -> Reply | None:  # noqa: ARG002 -- for subclasses
        """Endpoints of one runtime; None for the common ones."""
        return None

    def _generate(self, request: Request, at: float, make: Answer) -> Reply:
        try:
            asked = orjson.loads(request.body or b"{}")
        except orjson.JSONDecodeError:
            return _json(error(400, "Request body is not valid JSON."), 400)
        name = asked.get("model") if isinstance(asked, dict) else None
        if name not in (None, "", self.case.options.served_name):
            return _json(error(404, f"The model `{name}` does not exist."), 404)
        self.served += 1
        body, kind = make(self.case, asked, number=self.served, at=at)
        return Reply(200, body, kind, delay=0.2)

    def usage(self, at: float) -> Usage:
        """Busy while loading, then quiet; host memory holds the process and a part of the weights."""
        size = self.case.model.weight_bytes if self.case.model else 0
        staged = size if self.case.on_cpu else min(size, 2 * GIB)
        return Usage(4000 if at < self.settled else 900, 3 * GIB + staged)

    def load(self, at: float) -> float:
        """The share of the devices' time that is used, 0 to 1; a slow wave so that graphs show something."""
        return 0.0 if self.failure is not None or at < self.settled else 0.35 + 0.3 * (int(at // 60) % 5) / 5


class Vllm(Engine):
    """vLLM 0.33."""

    version = "0.33.0"

    def startup(self) -> Iterator[Line]:
        """See Engine."""
        case, name = self.case, self.case.options.model
        yield Line(_IMPORT_S, f"INFO 11-23 12:00:00 [api_server.py:1890] vLLM API server version {self.version}")
        yield Line(_IMPORT_S + 0.1, f"INFO 11-23 12:00:00 [utils.py:253] non-default args: {{'model_tag': '{name}'}}")
        start = _IMPORT_S + _CONFIG_S
        architecture = case.model.architecture if case.model else "UnknownForCausalLM"
        yield Line(start - 1, f"INFO 11-23 12:00:00 [model.py:547] Resolved architecture: {architecture}")
        yield Line(start - 0.5, f"INFO 11-23 12:00:00 [model.py:1510] Using max model len {case.max_length}")
        yield Line(start + 0.5, f"{_CORE} [core.py:77] Initializing a V1 LLM engine (v{self.version})")
        yield Line(start + 1, f"{_CORE} [gpu_model_runner.py:2602] Starting to load model {name}...")
        for part in range(1, 5):
            at = start + self.downloaded_s * part / 4
            yield Line(at, f"model-0000{part}-of-00004.safetensors: {part * 25}%")
        at = start + self.downloaded_s + self.loaded_s
        size, took = case.weights_per_device / GIB, f"{self.loaded_s:.2f} seconds"
        yield Line(at, f"{_CORE} [default_loader.py:267] Loading weights took {took}")
        yield Line(at, f"{_CORE} Loading model weights took {size:.2f} GiB and {took}")
        at += _COMPILE_S
        yield Line(at, f"{_CORE} [monitor.py:34] torch.compile takes {_COMPILE_S:.2f} s in total")
        yield Line(at, f"{_CORE} [gpu_worker.py:298] Available KV cache memory: {case.kv_room / GIB:.2f} GiB")
        tokens = self.kv_tokens
        yield Line(at, f"{_CORE} [kv_cache_utils.py:1087] GPU KV cache size: {tokens:,} tokens")
        many = tokens / max(case.max_length, 1)
        words = f"Maximum concurrency for {case.max_length:,} tokens per request: {many:.2f}x"
        yield Line(at, f"{_CORE} [kv_cache_utils.py:1091] {words}")
        at += _CAPTURE_S
        yield Line(at, f"{_CORE} [gpu_model_runner.py:3480] Graph capturing finished in 12 secs")
        yield Line(at + 0.5, "INFO:     Started server process [1]")
        yield Line(at + 0.6, "INFO:     Waiting for application startup.")
        yield Line(at + 0.7, "INFO:     Application startup complete.")

    def special(self, request: Request, at: float) -> Reply | None:
        """Prometheus metrics."""
        if request.path == "/metrics":
            return Reply(200, engine_metrics("vllm", self.case, self.served, self.load(at)))
        return None

    def later_lines(self, since: float, until: float) -> list[Line]:
        """Throughput now and then, as long as requests were served."""
        if self.failure is not None or not self.served:
            return []
        first = int(max(since, self.settled) // _STATS_S) + 1
        text = (
            "INFO 11-23 12:00:00 [loggers.py:127] Engine 000: Avg prompt throughput: 12.0 tokens/s, Avg generation "
            "throughput: 8.0 tokens/s, Running: 0 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.1%"
        )
        return [Line(count * _STATS_S, text) for count in range(first, int(until // _STATS_S) + 1)][-200:]


class Sglang(Engine):
    """SGLang 0.5: loopback by default, a slow /health, a quick /ready."""

    port = 30000
    version = "0.5.23"
    default_host = "127.0.0.1"

    def startup(self) -> Iterator[Line]:
        """See Engine."""
        case, name = self.case, self.case.options.model
        yield Line(_IMPORT_S, f"[2026-11-23 12:00:00] server_args=ServerArgs(model_path='{name}')")
        start = _IMPORT_S + _CONFIG_S
        yield Line(start, "[2026-11-23 12:00:00 TP0] Init torch distributed begin.")
        at = start + self.downloaded_s
        yield Line(at, f"[2026-11-23 12:00:00 TP0] Load weight begin. avail mem={case.device_memory / GIB:.2f} GB")
        at += self.loaded_s
        yield Line(at, f"[2026-11-23 12:00:00 TP0] Load weight end. mem usage={case.weights_per_device / GIB:.2f} GB.")
        yield Line(at + 1, f"[2026-11-23 12:00:00 TP0] KV Cache is allocated. #tokens: {self.kv_tokens}")
        yield Line(at + _CAPTURE_S, "[2026-11-23 12:00:00 TP0] Capture cuda graph end. Time elapsed: 12.00 s.")
        length = f"max_total_num_tokens={self.kv_tokens}, context_len={case.max_length}"
        yield Line(at + _CAPTURE_S + 1, f"[2026-11-23 12:00:00 TP0] {length}")
        yield Line(at + _CAPTURE_S + 2, "[2026-11-23 12:00:00] INFO:     Application startup complete.")
        yield Line(at + _CAPTURE_S + 5, "[2026-11-23 12:00:05] The server is fired up and ready to roll!")

    def special(self, request: Request, at: float) -> Reply | None:
        """Health generates a token, readiness does not; metrics only when asked for."""
        generates = self.case.launch.env.get("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "true") not in ("0", "false")
        match request.path:
            case "/health" | "/health_generate":
                return Reply(delay=1.05 if generates or request.path == "/health_generate" else 0.0)
            case "/ready":
                return Reply()
            case "/model_info" | "/get_model_info":
                return _json({"model_path": self.case.options.model, "is_generation": True})
            case "/server_info":
                return _json({"version": self.version, "max_total_num_tokens": self.kv_tokens})
            case "/metrics" if "enable-metrics" in self.case.options.values:
                return Reply(200, engine_metrics("sglang", self.case, self.served, self.load(at)))
            case _:
                return None


class TensorRt(Engine):
    """TensorRT-LLM 1.2: loopback by default, /metrics is a JSON array."""

    version = "1.2.1"
    default_host = "localhost"

    def startup(self) -> Iterator[Line]:
        """See Engine."""
        case = self.case
        yield Line(_IMPORT_S, f"[TensorRT-LLM] TensorRT LLM version: {self.version}")
        start = _IMPORT_S + _CONFIG_S
        yield Line(start, "[11/23/2026-12:00:00] [TRT-LLM] [I] Using LLM with PyTorch backend")
        at = start + self.downloaded_s
        yield Line(at, "Loading safetensors weights in parallel: 100%|##########| 4/4")
        at += self.loaded_s
        yield Line(at, f"[TRT-LLM] [I] Model init total -- {self.loaded_s:.2f}s")
        text = f"Allocated {case.kv_room / GIB:.2f} GiB for max tokens in paged KV cache ({self.kv_tokens})."
        yield Line(at + 2, f"[TRT-LLM] [I] {text}")
        yield Line(at + _COMPILE_S, "INFO:     Started server process [1]")
        yield Line(at + _COMPILE_S + 0.2, "INFO:     Application startup complete.")
        port = case.options.number("port", default=8000)
        host = case.options.text("host", default="localhost")
        running = f"INFO:     Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)"
        yield Line(at + _COMPILE_S + 0.3, running)

    def special(self, request: Request, at: float) -> Reply | None:
        """Iteration statistics as JSON; Prometheus lives elsewhere."""
        match request.path:
            case "/metrics":
                return _json([{"iter": self.served, "gpuMemUsage": self.case.device_memory, "numActiveRequests": 0}])
            case "/prometheus/metrics":
                return Reply(200, engine_metrics("trtllm", self.case, self.served, self.load(at)))
            case "/health_generate":
                return Reply(200, b"Generation health check OK", delay=0.5)
            case _:
                return None


def _json(value: object, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value), "application/json")
