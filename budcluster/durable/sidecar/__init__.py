"""The embedded sidecar: serves the workflow protocol of Dapr from the service's own PostgreSQL."""
