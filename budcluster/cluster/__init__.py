"""Cluster lifecycle."""
