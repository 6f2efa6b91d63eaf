"""Model runtimes on clusters."""
