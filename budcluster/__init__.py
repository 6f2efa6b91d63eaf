"""budcluster: control plane for GPU Kubernetes clusters and the LLM runtimes on them."""

__version__ = "0.1.0"
