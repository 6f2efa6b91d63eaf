"""Health and resource usage of many clusters."""
