"""Doors to a cluster: kubeconfig rules, API client, Helm, Ansible playbooks, quantities, diagnosis."""
