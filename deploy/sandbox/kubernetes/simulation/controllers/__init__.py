"""The controllers of kube-controller-manager that matter to workloads."""
