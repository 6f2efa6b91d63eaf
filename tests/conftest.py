"""Options and fixtures that every test may use."""

pytest_plugins = ["tests.fixtures.app", "tests.fixtures.database", "tests.fixtures.tools"]
