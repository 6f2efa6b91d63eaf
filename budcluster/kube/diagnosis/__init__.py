"""Why a pod does not run: from its object, its events and the end of its log to a cause and what to do. Pure.

Conditions and events come first, then how the last container ended, then its log. Texts are those of Kubernetes 1.36,
containerd, HAMi 2.10, vLLM 0.33, SGLang 0.5.23, TensorRT-LLM 1.2, transformers and Hugging Face; patterns are loose
where versions differ in punctuation.
"""

from budcluster.kube.diagnosis.classify import PodEvidence, diagnose
from budcluster.kube.diagnosis.finding import Finding

__all__ = ["Finding", "PodEvidence", "diagnose"]
