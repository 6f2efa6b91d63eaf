"""Who would be hurt if GPUs were handed out in another way."""

from budcluster.cluster.models import Cluster


def gpu_holders(cluster: Cluster) -> list[str]:
    """Pods that hold GPUs, as the profile last saw them: by name where HAMi tells, else as a count of the pool."""
    found: list[str] = []
    for node in (cluster.hardware_profile or {}).get("nodes", []):
        named = [f"{use['namespace']}/{use['pod']}" for gpu in node["gpus"] for use in gpu.get("used_by") or ()]
        held = sum(pool["requested"] for pool in node["pools"])
        found += named or ([f"{held} on node {node['name']}"] if held else [])
    return list(dict.fromkeys(found))[:50]
