"""What a cluster shows of its deployments, and what that means for their status."""
