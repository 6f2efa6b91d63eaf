"""Print the benchmarks' tables: all of them, or those that are named."""

import argparse
import importlib
import pkgutil
import sys
from types import ModuleType

import benchmarks


def available() -> dict[str, ModuleType]:
    """Every benchmark by its name."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}


def main() -> int:
    known = available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one or more of: {', '.join(known)}")
    wanted = parser.parse_args().names or list(known)
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(known)}")
    for name in wanted:
        for table in known[name].run():
            sys.stdout.write(f"{table}\n\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
