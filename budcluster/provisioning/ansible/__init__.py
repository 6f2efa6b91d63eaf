"""Ansible: onboarding of existing clusters."""
