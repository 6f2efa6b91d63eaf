"""`budcluster clusters nodes|gpus|hardware|addons|usage`: what clusters have, what is free, what is used."""

from itertools import islice
from typing import Annotated, Any

import typer

from budcluster.cli.client import Api
from budcluster.cli.clusters import NameOrId, app
from budcluster.cli.output import Json, Limit, age, print_facts, print_json, print_table

__all__ = ["app"]

_NOTHING = "Nothing was found; if the cluster has just become READY, its inventory follows within seconds."


@app.command()
def nodes(
    cluster: NameOrId,
    model: Annotated[str | None, typer.Option(help="Only nodes with this GPU.")] = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List nodes with their GPUs and what is free of them."""
    api = Api()
    path = f"/clusters/{api.find('clusters', cluster)['id']}/nodes"
    found = list(islice(api.pages(path, gpu_model=model, limit=limit), limit))
    if json:
        return print_json(found)
    return print_table(
        found,
        [
            ("NAME", lambda n: n["name"]),
            ("READY", lambda n: "yes" if n["ready"] else "no"),
            ("CORES", lambda n: f"{n['cpu']['cores']:g}"),
            ("MEMORY", lambda n: _gib(n["memory_bytes"])),
            ("GPUS", lambda n: len(n["gpus"])),
            ("MODEL", lambda n: n["gpus"][0]["model"] if n["gpus"] else None),
            ("FREE", lambda n: sum(pool["free"] for pool in n["pools"]) if n["pools"] else None),
            ("WHY NOT", lambda n: ", ".join(n["reasons"])),
        ],
        empty=_NOTHING,
    )


@app.command()
def gpus(cluster: NameOrId, limit: Limit = 100, json: Json = False) -> None:
    """List physical GPUs with what is free of each."""
    api = Api()
    path = f"/clusters/{api.find('clusters', cluster)['id']}/gpus"
    found = list(islice(api.pages(path, limit=limit), limit))
    if json:
        return print_json(found)
    return print_table(
        found,
        [
            ("NODE", lambda g: g["node"]),
            ("GPU", lambda g: g["position"]),
            ("MODEL", lambda g: g["gpu"]["model"]),
            ("MEMORY", lambda g: _mib(g["gpu"]["memory_mib"])),
            ("FREE", lambda g: _mib(g["gpu"]["free_memory_mib"])),
            ("HEALTHY", lambda g: "yes" if g["gpu"]["healthy"] else "no"),
            ("PODS", _pods),
        ],
        empty=_NOTHING,
    )


@app.command()
def addons(cluster: NameOrId, json: Json = False) -> None:
    """List what serves GPUs and measurements, whose it is, and how it does."""
    api = Api()
    found = api.get(f"/clusters/{api.find('clusters', cluster)['id']}/addons")["items"]
    if json:
        return print_json(found)
    return print_table(
        found,
        [
            ("NAME", lambda a: a["name"]),
            ("OWNER", lambda a: a["owner"].lower()),
            ("STATE", lambda a: a["state"]),
            ("CHART", lambda a: a["chart"]),
            ("RELEASE", lambda a: f"{a['namespace']}/{a['release']}" if a["release"] else None),
            ("DETAIL", lambda a: a["detail"]),
        ],
        empty="Nothing is known to be installed; onboarding looks and installs.",
    )


@app.command()
def hardware(cluster: NameOrId, json: Json = False) -> None:
    """Show what a cluster has and what is free of it."""
    api = Api()
    found = api.get(f"/clusters/{api.find('clusters', cluster)['id']}/hardware")
    if json:
        return print_json(found)
    now = found["now"] or {}
    print_facts(
        [
            ("Detected", f"{age(found['detected_at'])} ago"),
            ("As of", found["as_of"]),
            ("Stale because", found["stale_because"]),
            ("Nodes", f"{now['nodes_schedulable']} of {now['nodes']} take pods" if now else found["detected"]["nodes"]),
            ("GPUs", f"{now['gpus_healthy']} of {now['gpus']} are healthy" if now else found["detected"]["gpus"]),
        ]
    )
    return print_table(
        (now or found["detected"])["by_model"],
        [
            ("MODEL", lambda m: m["model"]),
            ("MEMORY", lambda m: _mib(m["memory_mib"])),
            ("NODES", lambda m: m["nodes"]),
            ("GPUS", lambda m: m["physical"]),
            ("OFFERED", lambda m: m["advertised"]),
            ("FREE", lambda m: m["free"]),
        ],
        empty="The cluster has no GPUs.",
    )


@app.command()
def usage(cluster: NameOrId, json: Json = False) -> None:
    """Show what is asked for, used and there."""
    api = Api()
    found = api.get(f"/clusters/{api.find('clusters', cluster)['id']}/usage")
    if json:
        return print_json(found)
    print_facts(
        [("Source", " ".join(filter(None, (found["source"], found["witness"])))), ("Notes", " ".join(found["notes"]))]
    )
    rows = [{"name": title, "unit": unit, **found[key]} for title, key, unit in _AMOUNTS]
    return print_table(
        rows,
        [
            ("", lambda row: row["name"]),
            ("REQUESTED", lambda row: _amount(row["requested"], row["unit"])),
            ("USED", lambda row: _amount(row["used"], row["unit"])),
            ("ALLOCATABLE", lambda row: _amount(row["allocatable"], row["unit"])),
        ],
        empty="",
    )


def _pods(found: Any) -> str:
    """On the device where that is told; else those of the node's devices of its kind, in brackets."""
    own = found["gpu"]["used_by"]
    names = ", ".join(f"{use['namespace']}/{use['pod']}" for use in (found["pool_used_by"] if own is None else own))
    return f"({names})" if names and own is None else names


_AMOUNTS = (
    ("CPU cores", "cpu_cores", 1),
    ("Memory GiB", "memory_bytes", 1 << 30),
    ("GPUs", "gpus", 1),
    ("GPU memory GiB", "gpu_memory_mib", 1 << 10),
)


def _amount(value: float | None, unit: int) -> str | None:
    return None if value is None else f"{value / unit:.1f}"


def _gib(amount: Any) -> str:
    return f"{amount / (1 << 30):.0f} GiB"


def _mib(amount: Any) -> str | None:
    return None if amount is None else f"{amount / 1024:.0f} GiB"
