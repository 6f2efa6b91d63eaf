"""Measured ratios against the obvious alternatives: `python -m benchmarks [name…]`.

Every module here that has a `NAME` and a `run()` is a benchmark; `run` returns tables. Nothing leaves the machine.
"""
