"""Stand-ins for the world: a Kubernetes cluster and, later, clouds. They know nothing of the service."""
