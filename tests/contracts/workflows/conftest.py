"""Workflow backends, for the tests in this folder only: importing the SDK takes most of a second."""

from tests.fixtures.workflows import backend, session_database_url

__all__ = ["backend", "session_database_url"]
