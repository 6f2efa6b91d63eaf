"""Logs of a deployment: of copies that run, and of attempts that failed."""
