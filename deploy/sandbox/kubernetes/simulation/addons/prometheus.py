"""Exporters and a Prometheus that knows a fixed set of expressions (those of dashboards for nodes, GPUs and engines).

There is no PromQL here: an expression is recognised by the metric names in it, an unknown one gives an empty vector.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

from sandbox.kubernetes.simulation.addons.telemetry import DeviceLoad, NodeLoad, Telemetry
from sandbox.kubernetes.simulation.programs import Launch, Maker, Program, Reply, Request
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]
Row = tuple[dict[str, str], float]


def exporter_programs(world: World, telemetry: Telemetry) -> Maker:
    """Programs of the images prometheus, node-exporter and dcgm-exporter."""

    def make(launch: Launch) -> Program | None:
        image, node = launch.image, launch.machine.name
        if "dcgm-exporter" in image:
            return Exporter(9400, lambda: dcgm_text(telemetry.devices(node)))
        if "node-exporter" in image:
            return Exporter(9100, lambda: node_text(telemetry.node(node)))
        if re.search(r"/prometheus(:|@|$)", image):
            return Prometheus(world, telemetry)
        return None

    return make


class Exporter(Program):
    """Serves one text at /metrics of one port."""

    def __init__(self, port: int, text: Callable[[], str]) -> None:
        self._port = port
        self._text = text

    def reply(self, request: Request, at: float) -> Reply | None:
        """See the class."""
        if request.port != self._port:
            return None
        if request.path == "/metrics":
            return Reply(200, self._text().encode())
        return super().reply(request, at)


class Prometheus(Program):
    """The query endpoint of the HTTP API, and readiness."""

    def __init__(self, world: World, telemetry: Telemetry) -> None:
        self._world = world
        self._telemetry = telemetry

    def reply(self, request: Request, at: float) -> Reply | None:  # noqa: ARG002 -- loads are those of now
        """`/api/v1/query` by GET or form POST; other API paths are 404."""
        if request.path in ("/-/ready", "/-/healthy"):
            return Reply(200, b"Prometheus Server is Ready.\n")
        if request.path != "/api/v1/query":
            return Reply(404, b"404 page not found\n")
        text = request.query or request.body.decode(errors="replace")
        query = parse_qs(text).get("query", [""])[0]
        if not query:
            body: Obj = {"status": "error", "errorType": "bad_data", "error": 'invalid parameter "query": unknown'}
            return Reply(400, orjson.dumps(body), "application/json")
        now = self._world.driver.seconds()
        result = [{"metric": labels, "value": [now, f"{value:g}"]} for labels, value in self.evaluate(query)]
        data = {"resultType": "vector", "result": result}
        return Reply(200, orjson.dumps({"status": "success", "data": data}), "application/json")

    def evaluate(self, query: str) -> list[Row]:
        """The rows of a known expression."""
        if "DCGM_FI_DEV" in query:
            return self._devices(query)
        if "node_cpu" in query or "node_memory" in query:
            return self._nodes(query)
        if re.search(r"(vllm|sglang):", query):
            return self._engines(query)
        return []

    def _devices(self, query: str) -> list[Row]:
        telemetry = self._telemetry
        loads = [load for node in telemetry.nodes_with("dcgm-exporter") for load in telemetry.devices(node)]
        if not loads:
            return []
        if "GPU_UTIL" in query:
            if "max_over_time" in query:
                idle = sum(load.utilisation == 0 for load in loads)
                return [({}, float(idle))] if idle else []
            values = [(load, load.utilisation) for load in loads]
        elif "FB_USED" in query and "/" in query:
            used, free = sum(load.used_mib for load in loads), sum(load.free_mib for load in loads)
            return [({}, 100 * used / (used + free))]
        elif "FB_USED" in query or "FB_FREE" in query:
            values = [(load, float(load.used_mib if "FB_USED" in query else load.free_mib)) for load in loads]
        elif "XID_ERRORS" in query:
            values = [(load, 0.0) for load in loads]
        else:
            return []
        if re.match(r"\s*(avg|sum)\s*\(", query) and " by" not in query:
            whole = sum(value for _, value in values) / (100 if query.endswith("/ 100") else 1)
            return [({}, whole / len(values) if query.lstrip().startswith("avg") else whole)]
        return [(_device_labels(load), value) for load, value in values]

    def _nodes(self, query: str) -> list[Row]:
        loads = [self._telemetry.node(node) for node in self._telemetry.nodes_with("node-exporter")]
        if not loads:
            return []
        is_cpu = "node_cpu" in query
        if re.match(r"sum\((max by \([a-z, ]+\) \()?rate\(node_cpu_seconds_total", query):
            return [({}, sum(load.busy * load.cores for load in loads))]
        if re.match(r"sum\((max by \(instance\) \()?node_memory_MemTotal_bytes", query) and "/" not in query:
            return [({}, float(sum(load.memory - load.available for load in loads)))]
        factor = 100 if "100" in query else 1
        if re.search(r"(instance|node):node_", query):
            return [({"instance": load.node}, factor * _share([load], is_cpu=is_cpu)) for load in loads]
        return [({}, factor * _share(loads, is_cpu=is_cpu))]

    def _engines(self, query: str) -> list[Row]:
        rows: list[Row] = []
        for namespace, pod, engine, age in self._telemetry.engines():
            for key, factor in (("running", 4.0), ("cache_usage", 1.0), ("token_usage", 1.0), ("waiting", 0.0)):
                if key in query and engine.case.options.runtime in query:
                    labels = {"namespace": namespace, "pod": pod, "model_name": engine.case.options.served_name}
                    rows.append((labels, engine.load(age) * factor))
                    break
        if query.lstrip().startswith("sum") and rows:
            return [({}, sum(value for _, value in rows))]
        return rows


def _share(loads: list[NodeLoad], *, is_cpu: bool) -> float:
    if is_cpu:
        return sum(load.busy * load.cores for load in loads) / sum(load.cores for load in loads)
    return 1 - sum(load.available for load in loads) / sum(load.memory for load in loads)


def _device_labels(load: DeviceLoad) -> dict[str, str]:
    labels = {
        "gpu": str(load.device.index),
        "UUID": load.device.uuid,
        "pci_bus_id": load.device.bus,
        "device": f"nvidia{load.device.index}",
        "modelName": load.device.model.name,
        "hostname": load.node,
    }
    if load.pod is not None:
        labels |= {"exported_namespace": load.pod[0], "exported_pod": load.pod[1]}
    return labels


def dcgm_text(loads: list[DeviceLoad]) -> str:
    """The exporter's text (4.6: the label is `hostname`)."""
    lines = []
    for load in loads:
        labels = ",".join(f'{key}="{value}"' for key, value in _device_labels(load).items())
        values = {
            "GPU_UTIL": load.utilisation, "FB_USED": load.used_mib, "FB_FREE": load.free_mib,
            "GPU_TEMP": 34 + load.utilisation // 3, "POWER_USAGE": 70 + load.utilisation * 4, "XID_ERRORS": 0,
        }  # fmt: skip
        lines += [f"DCGM_FI_DEV_{name}{{{labels}}} {value:g}" for name, value in values.items()]
    return "\n".join([*lines, ""])


def node_text(load: NodeLoad) -> str:
    """The few series of node-exporter that dashboards start from."""
    return (
        f"node_memory_MemTotal_bytes {load.memory}\nnode_memory_MemAvailable_bytes {load.available}\n"
        f"node_load1 {load.busy * load.cores:.2f}\n"
    )
