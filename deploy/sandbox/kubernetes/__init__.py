"""A simulated Kubernetes API server: small enough for a test, faithful enough for kubectl and Helm."""
