"""Model runtimes and the hub they load from."""
