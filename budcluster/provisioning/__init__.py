"""Making infrastructure: contracts, preflight, Terraform and Ansible."""
