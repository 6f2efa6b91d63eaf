"""Extra arguments of a caller, checked against what the pinned version of a runtime knows.

Only flags that are known and harmless pass. A flag that the service sets itself, that carries a secret, opens files or
runs code is refused with the reason; so is one that the runtime does not have, before it dies of it with exit code 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_ARGS: Final = 64
MAX_LENGTH: Final = 1024


class FlagRefused(ValueError):
    """An extra argument that may not be used; the message says why."""


@dataclass(frozen=True, slots=True)
class FlagRules:
    """The flags of one runtime."""

    runtime: str
    with_value: frozenset[str]
    switches: frozenset[str] = field(default_factory=frozenset)
    owned: Mapping[str, str] = field(default_factory=dict)
    """Flags that the service sets -> the config key to use instead."""
    dangerous: Mapping[str, str] = field(default_factory=dict)
    """Flags that are refused -> why."""

    def check(self, args: Sequence[str]) -> None:
        """Raises FlagRefused for the first argument that may not be used."""
        if len(args) > MAX_ARGS:
            raise FlagRefused(f"there are {len(args)} extra arguments, and at most {MAX_ARGS} are taken")
        expects: str | None = None
        for argument in args:
            if len(argument) > MAX_LENGTH or not argument.isprintable():
                raise FlagRefused(f"an extra argument is longer than {MAX_LENGTH} characters or not printable")
            if expects is not None and not argument.startswith("--"):
                expects = None
                continue
            if expects is not None:
                raise FlagRefused(f"{expects} needs a value")
            expects = self._check_flag(argument)
        if expects is not None:
            raise FlagRefused(f"{expects} needs a value")

    def _check_flag(self, argument: str) -> str | None:
        """The flag when its value must follow as the next argument."""
        name, equals, _ = argument.partition("=")
        if not name.startswith("--"):
            raise FlagRefused(f"{argument[:60]!r} is not a flag; extra arguments start with --")
        if name in self.owned:
            raise FlagRefused(f"{name} is set by the service; use {self.owned[name]} instead")
        if name in self.dangerous:
            raise FlagRefused(f"{name} is refused: {self.dangerous[name]}")
        if name in self.switches:
            if equals:
                raise FlagRefused(f"{name} takes no value")
            return None
        if name not in self.with_value:
            raise FlagRefused(f"{name[:60]} is not a flag that {self.runtime} is known to have")
        return None if equals else name
