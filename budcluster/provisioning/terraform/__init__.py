"""Terraform: the gateway, its state, and one module a cloud."""
