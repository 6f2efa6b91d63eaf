"""The command line's entry point."""


def main() -> None:
    raise SystemExit("budcluster: nothing to run yet")
