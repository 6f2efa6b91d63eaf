"""What the Pod Security Standards forbid a pod, in the words of pod-security-admission of Kubernetes 1.36.

Each check names what it finds in one sentence. Left out are AppArmor, SELinux and Windows, and older versions of the
standards: the newest holds.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]

PRIVILEGED, BASELINE, RESTRICTED = LEVELS = ("privileged", "baseline", "restricted")

_DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_VOLUMES = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    }
)  # fmt: skip
_PROFILES = frozenset({"RuntimeDefault", "Localhost"})
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Violation:
    """One check that a pod fails, and what it found."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


def violations(spec: Obj, level: str) -> Iterator[Violation]:
    """What keeps a pod with this spec from that level, in the order of the real admission."""
    for reason, find in _CHECKS[level]:
        if detail := find(spec):
            yield Violation(reason, detail)


# -- baseline ----------------------------------------------------------------------------------------------------------


def _host_namespaces(spec: Obj) -> str:
    return ", ".join(f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field))


def _host_paths(spec: Obj) -> str:
    names = [volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath") is not None]
    return _named("volume", names) if names else ""


def _host_ports(spec: Obj) -> str:
    ports = {c["name"]: [p["hostPort"] for p in c.get("ports") or () if p.get("hostPort")] for c in _containers(spec)}
    names = [name for name, used in ports.items() if used]
    numbers = sorted({str(port) for used in ports.values() for port in used})
    noun = "hostPort" if len(numbers) == 1 else "hostPorts"
    return f"{_named('container', names)} {_uses(names)} {noun} {', '.join(numbers)}" if names else ""


def _probe_hosts(spec: Obj) -> str:
    hosts = {container["name"]: set(_hosts_asked(container)) for container in _containers(spec)}
    names = sorted(name for name, asked in hosts.items() if asked)
    asked = sorted(set().union(*hosts.values()))
    noun = _plural("probe or lifecycle host", asked)
    return f"{_named('container', names)} {_uses(names)} {noun} {_quoted(asked)}" if names else ""


def _hosts_asked(container: Obj) -> Iterator[str]:
    probes = [container.get(field) for field in ("livenessProbe", "readinessProbe", "startupProbe")]
    hooks = [(container.get("lifecycle") or {}).get(field) for field in ("postStart", "preStop")]
    for part in (*probes, *hooks):
        for way in ("httpGet", "tcpSocket"):
            if host := ((part or {}).get(way) or {}).get("host"):
                yield host


def _privileged(spec: Obj) -> str:
    names = [container["name"] for container in _containers(spec) if _context(container).get("privileged")]
    return f"{_named('container', names)} must not set securityContext.privileged=true" if names else ""


def _added_capabilities(spec: Obj, allowed: frozenset[str] = _DEFAULT_CAPABILITIES) -> str:
    added = {c["name"]: set(_capabilities(c).get("add") or ()) - allowed for c in _containers(spec)}
    names = [name for name, beyond in added.items() if beyond]
    beyond = _quoted(sorted(set().union(*added.values())))
    where = "securityContext.capabilities.add"
    return f"{_named('container', names)} must not include {beyond} in {where}" if names else ""


def _proc_mounts(spec: Obj) -> str:
    mounts = {c["name"]: _context(c).get("procMount") or "Default" for c in _containers(spec)}
    names = [name for name, mount in mounts.items() if mount != "Default"]
    kinds = _quoted(sorted({mounts[name] for name in names}))
    return f"{_named('container', names)} must not set securityContext.procMount to {kinds}" if names else ""


def _proc_mounts_on_host(spec: Obj) -> str:
    return "" if _has_own_users(spec) else _proc_mounts(spec)


def _bad_profiles(spec: Obj) -> str:
    setters = _setters(spec, lambda context: _profile(context) not in _PROFILES)
    bad = sorted({_profile(_context(part)) for part in (spec, *_containers(spec))} - _PROFILES)
    return f"{setters} must not set securityContext.seccompProfile.type to {_quoted(bad)}" if setters else ""


def _profile(context: Obj) -> str:
    """The type of the seccomp profile; where none is set, one that is not bad."""
    return str((context.get("seccompProfile") or {}).get("type", "RuntimeDefault"))


def _sysctls(spec: Obj) -> str:
    return ", ".join(each["name"] for each in _context(spec).get("sysctls") or () if each["name"] not in _SYSCTLS)


# -- restricted --------------------------------------------------------------------------------------------------------


def _escalation(spec: Obj) -> str:
    names = [c["name"] for c in _containers(spec) if _context(c).get("allowPrivilegeEscalation") is not False]
    return f"{_named('container', names)} must set securityContext.allowPrivilegeEscalation=false" if names else ""


def _kept_capabilities(spec: Obj) -> str:
    keeping = [c["name"] for c in _containers(spec) if "ALL" not in (_capabilities(c).get("drop") or ())]
    kept = f'{_named("container", keeping)} must set securityContext.capabilities.drop=["ALL"]' if keeping else ""
    return "; ".join(filter(None, (kept, _added_capabilities(spec, frozenset({"NET_BIND_SERVICE"})))))


def _volume_types(spec: Obj) -> str:
    kinds = {v["name"]: next((f for f in v if f != "name"), "unknown") for v in spec.get("volumes") or ()}
    names = [name for name, kind in kinds.items() if kind not in _VOLUMES]
    bad = sorted({kinds[name] for name in names})
    noun = _plural("restricted volume type", bad)
    return f"{_named('volume', names)} {_uses(names)} {noun} {_quoted(bad)}" if names else ""


def _may_be_root(spec: Obj) -> str:
    if _has_own_users(spec):
        return ""
    if setters := _setters(spec, lambda context: context.get("runAsNonRoot") is False):
        return f"{setters} must not set securityContext.runAsNonRoot=false"
    silent = _silent(spec, "runAsNonRoot")
    return f"pod or {_named('container', silent)} must set securityContext.runAsNonRoot=true" if silent else ""


def _is_root(spec: Obj) -> str:
    setters = "" if _has_own_users(spec) else _setters(spec, lambda context: context.get("runAsUser") == 0)
    return f"{setters} must not set runAsUser=0" if setters else ""


def _profiles(spec: Obj) -> str:
    if bad := _bad_profiles(spec):
        return bad
    silent = _silent(spec, "seccompProfile")
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"pod or {_named('container', silent)} {wanted}" if silent else ""


_Check = tuple[str, Callable[[Obj], str]]
_OF_BOTH: tuple[_Check, ...] = (
    ("host namespaces", _host_namespaces),
    ("hostPort", _host_ports),
    ("probe or lifecycle host", _probe_hosts),
    ("privileged", _privileged),
)
_CHECKS: dict[str, tuple[_Check, ...]] = {
    PRIVILEGED: (),
    BASELINE: (
        ("non-default capabilities", _added_capabilities),
        ("host namespaces", _host_namespaces),
        ("hostPath volumes", _host_paths),
        *_OF_BOTH[1:],
        ("procMount", _proc_mounts_on_host),
        ("seccompProfile", _bad_profiles),
        ("forbidden sysctls", _sysctls),
    ),
    RESTRICTED: (
        *_OF_BOTH,
        ("forbidden sysctls", _sysctls),
        ("allowPrivilegeEscalation != false", _escalation),
        ("unrestricted capabilities", _kept_capabilities),
        ("procMount", _proc_mounts),
        ("restricted volume types", _volume_types),
        ("runAsNonRoot != true", _may_be_root),
        ("runAsUser=0", _is_root),
        ("seccompProfile", _profiles),
    ),
}


# -- parts of a pod, and words for them --------------------------------------------------------------------------------


def _containers(spec: Obj) -> list[Obj]:
    return [c for field in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(field) or ()]


def _context(part: Obj) -> Obj:
    return part.get("securityContext") or {}


def _capabilities(container: Obj) -> Obj:
    return _context(container).get("capabilities") or {}


def _has_own_users(spec: Obj) -> bool:
    """Whether root in the pod is somebody else on the host."""
    return spec.get("hostUsers") is False


def _setters(spec: Obj, is_bad: Callable[[Obj], bool]) -> str:
    """Who has such a security context: `pod and containers "a", "b"`, or nothing."""
    found = ["pod"] if is_bad(_context(spec)) else []
    if names := [container["name"] for container in _containers(spec) if is_bad(_context(container))]:
        found.append(_named("container", names))
    return " and ".join(found)


def _silent(spec: Obj, field: str) -> list[str]:
    """The containers for which neither they nor the pod say anything."""
    if _context(spec).get(field) is not None:
        return []
    return [container["name"] for container in _containers(spec) if _context(container).get(field) is None]


def _named(noun: str, names: list[str]) -> str:
    return f"{_plural(noun, names)} {_quoted(names)}"


def _plural(noun: str, of: list[str]) -> str:
    return noun if len(of) == 1 else f"{noun}s"


def _uses(names: list[str]) -> str:
    return "uses" if len(names) == 1 else "use"


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
