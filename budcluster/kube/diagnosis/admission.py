"""What the API server's refusal to make a pod says."""

import re
from typing import Final

from budcluster.kube.diagnosis.containers import explain_runtime
from budcluster.kube.diagnosis.finding import Finding, Weight

_POD_SECURITY: Final = re.compile(r'violates PodSecurity "(\w+):[^"]*"(?:: (.+))?', re.DOTALL)
_BEYOND_BASELINE: Final = re.compile(
    r"host namespaces|hostPath|hostPort|probe or lifecycle host|privileged \(|procMount|sysctls|AppArmor|seLinuxOptions"
    r"|hostProcess|must not include|must not set securityContext\.seccompProfile"
)
"""What the standard `baseline` forbids, too; the rest is asked for by `restricted` alone."""
_POLICY: Final = re.compile(
    r"(?:admission webhook|ValidatingAdmissionPolicy) ['\"]([^'\"]+)['\"].*denied (?:the )?request"
)
_MAX_SAID: Final = 600


def explain_refusal(message: str) -> Finding:
    """Why the cluster refuses to make a pod."""
    if "exceeded quota" in message:
        return Finding("quota", "The namespace's quota does not allow another pod.", "Raise the quota, or free some.",
                       Weight.CAUSE, lines=(message,))  # fmt: skip
    if found := _POD_SECURITY.search(message):
        return _insecure(message, level=found[1], said=(found[2] or "see the message below")[:_MAX_SAID])
    if "failed calling webhook" in message:
        return Finding("webhook", "An admission webhook of the cluster does not answer.",
                       "Repair or remove that webhook.", Weight.CAUSE, lines=(message,))  # fmt: skip
    if found := _POLICY.search(message):
        return Finding("policy", f"A policy of the cluster, {found[1]}, refuses the pod.",
                       "Exempt the namespace from it, or change what the message below names.", Weight.CAUSE,
                       lines=(message,))  # fmt: skip
    if "runtimeclass" in message.lower():
        return explain_runtime(message)
    return Finding("pod-refused", "The cluster refuses to make the pod.", "Read the message below.", Weight.LIKELY,
                   lines=(message,))  # fmt: skip


def _insecure(message: str, *, level: str, said: str) -> Finding:
    needed = "privileged" if level == "baseline" or _BEYOND_BASELINE.search(said) else "baseline"
    return Finding(
        "pod-security",
        f"The namespace takes only pods that meet the Pod Security Standard {level}; this one does not: {said}.",
        f"Label the namespace pod-security.kubernetes.io/enforce={needed}, which takes this pod, and try again; "
        "or use a runtime and an image that meet the standard.",
        Weight.CAUSE,
        lines=(message,),
    )
