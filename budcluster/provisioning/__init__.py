"""Preparing infrastructure: what a cluster must allow and have, and the playbook that makes it ours."""
