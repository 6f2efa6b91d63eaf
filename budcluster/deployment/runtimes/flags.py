"""Extra arguments of a caller, checked against what the pinned version of a runtime knows.

Only flags that are known and harmless pass. The folder `known` has every flag that a version's own parser declares
(vLLM: engine/arg_utils.py and entrypoints/common/cli_args.py; SGLang: srt/arg_groups/fields and srt/server_args.py);
which of them the service sets itself, and which are dangerous, is decided by hand where the runtime is described. Those
are refused with the reason; so is a flag that the runtime does not have, before it dies of it with exit code 2.

Which flags leave alone what a device must hold is decided by hand as well. Whoever uses another one is told that nobody
knows whether it fits: a flag of a new version is in doubt until somebody has looked at it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Final

_NO_UNITS: Final[Mapping[str, int]] = MappingProxyType({})
MAX_ARGS: Final = 64
MAX_LENGTH: Final = 1024


_KNOWN: Final = Path(__file__).with_name("known")
_NUMBER: Final = {False: r"[0-9]{1,9}", True: r"[0-9]{1,9}(\.[0-9]{1,9})?"}
"""By whether a decimal unit follows, which takes parts."""
_OPTION: Final = re.compile(r"--|-[A-Za-z]")
"""What argparse takes for an option and not for a value: -1 is a number, -dp is short for a long one."""

CODE: Final = "it makes the server run code that is named, or sent by callers"
FILES: Final = "it opens or writes files of the container that the caller names"
HOSTS: Final = "it makes the server speak to other hosts, or open ports to them"
KEYS: Final = "a secret does not belong on a command line; put a gateway with authentication before the runtime"
GROUPS: Final = "it multiplies the GPUs or hosts of a copy behind the fit check's back; use replicas instead"
SIZE: Final = "it changes what a device must hold in a way that the fit check cannot follow"
SERVER: Final = "it changes what the server answers, or where: the probes and the first prompt would find nothing"
TRUST: Final = "it lets callers send what the server should not take from them"
REMOTE_CODE: Final = "it runs code from the model's repository; set trust_remote_code if that is meant"
NOWHERE: Final = "nothing"


class FlagRefused(ValueError):
    """An extra argument that may not be used; the message says why."""


@dataclass(frozen=True, slots=True)
class KnownFlags:
    """Every flag that one version of a runtime declares."""

    with_value: frozenset[str]
    with_values: frozenset[str]
    switches: frozenset[str]


def known_flags(name: str) -> KnownFlags:
    """Those of a file in `known`."""
    found = json.loads((_KNOWN / f"{name}.json").read_text())
    return KnownFlags(**{kind: frozenset(found[kind]) for kind in ("with_value", "with_values", "switches")})


def spelled_out(meanings: Mapping[str, str]) -> dict[str, str]:
    """From meaning -> names to flag -> meaning."""
    return {f"--{name}": meaning for meaning, names in meanings.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class FlagRules:
    """The flags of one runtime."""

    runtime: str
    with_value: frozenset[str]
    with_values: frozenset[str] = field(default_factory=frozenset)
    """Flags that take one value and more."""
    switches: frozenset[str] = field(default_factory=frozenset)
    owned: Mapping[str, str] = field(default_factory=dict)
    """Flags that the service sets -> the config key to use instead."""
    dangerous: Mapping[str, str] = field(default_factory=dict)
    """Flags that are refused -> why."""
    steady: frozenset[str] = field(default_factory=frozenset)
    """Flags with which a device holds no more than is counted, be it that they are counted."""
    growing: frozenset[str] = field(default_factory=frozenset)
    """Flags with which it holds what is counted, and more."""

    def check(self, args: Sequence[str]) -> None:
        """Raises FlagRefused for the first argument that may not be used."""
        if len(args) > MAX_ARGS:
            raise FlagRefused(f"there are {len(args)} extra arguments, and at most {MAX_ARGS} are taken")
        expects: str | None = None
        takes_more = False
        for argument in args:
            if len(argument) > MAX_LENGTH or not argument.isprintable():
                raise FlagRefused(f"an extra argument is longer than {MAX_LENGTH} characters or not printable")
            if (expects is not None or takes_more) and not _OPTION.match(argument):
                expects = None
                continue
            if expects is not None:
                raise FlagRefused(f"{expects} needs a value")
            expects = self._check_flag(argument)
            takes_more = expects in self.with_values
        if expects is not None:
            raise FlagRefused(f"{expects} needs a value")

    def doubtful(self, args: Sequence[str]) -> tuple[str, ...]:
        """Those of the arguments that change what a device must hold by an amount that nobody has counted."""
        names = dict.fromkeys(argument.partition("=")[0] for argument in args if _OPTION.match(argument))
        return tuple(name for name in names if not self._is_steady(name))

    def _is_steady(self, name: str) -> bool:
        # Without what may take more is the usual state.
        without = name.removeprefix("--no-")
        return name in self.steady or (without != name and f"--{without}" in self.steady | self.growing)

    def _check_flag(self, argument: str) -> str | None:
        """The flag when its value must follow as the next argument."""
        name, equals, _ = argument.partition("=")
        if not name.startswith("--"):
            raise FlagRefused(f"{argument[:60]!r} is not a flag; extra arguments start with --")
        if name in self.owned:
            instead = self.owned[name]
            hint = "" if instead == NOWHERE else f"; use {instead} instead"
            raise FlagRefused(f"{name} is set by the service{hint}")
        if name in self.dangerous:
            raise FlagRefused(f"{name} is refused: {self.dangerous[name]}")
        if name in self.switches:
            if equals:
                raise FlagRefused(f"{name} takes no value")
            return None
        if name not in self.with_value | self.with_values:
            raise FlagRefused(f"{name[:60]} is not a flag that {self.runtime} is known to have")
        return None if equals else name


def named(names: str) -> frozenset[str]:
    """Flags by their names."""
    return frozenset(f"--{name}" for name in names.split())


def starting(flags: Iterable[str], *starts: str) -> frozenset[str]:
    """Those of the flags that start with any of these words."""
    return frozenset(flag for flag in flags if flag.startswith(tuple(f"--{start}" for start in starts)))


def value_of(args: Sequence[str], *names: str) -> str | None:
    """The value of a flag under any of its names, the last one as argparse takes it; None where it is not given."""
    found = None
    for position, argument in enumerate(args):
        name, equals, value = argument.partition("=")
        if name in names:
            found = value if equals else next(iter(args[position + 1 : position + 2]), None)
    return found


def fraction_of(args: Sequence[str], *names: str) -> float | None:
    """The same for a flag that takes a part of the whole. Raises FlagRefused."""
    text = value_of(args, *names)
    if text is None:
        return None
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise FlagRefused(f"{names[0]} takes a number above 0 and at most 1")
    return fraction


def count_of(args: Sequence[str], *names: str, units: Mapping[str, int] = _NO_UNITS) -> int | None:
    """The same for a flag that takes a number of things, with one of these units behind it. Raises FlagRefused."""
    text = value_of(args, *names)
    if text is None:
        return None
    unit = units.get(text[-1:])
    number = text if unit is None else text[:-1]
    has_part = text[-1:].islower()
    count = Decimal(number) * (unit or 1) if re.fullmatch(_NUMBER[has_part], number) else None
    if count is None or (unit and count < 1):
        or_units = f", or one with a unit behind it: {', '.join(units)}" if units else ""
        raise FlagRefused(f"{names[0]} takes a whole number{or_units}")
    return int(count)
