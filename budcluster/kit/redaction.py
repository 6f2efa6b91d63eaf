"""Three nets that keep secrets out of logs, stored lines and error texts.

1. Known values: what the caller says is secret, also base64, URL-encoded and JSON-escaped.
2. Shapes: tokens that anybody would recognise (`hf_…`, `Bearer …`, JWTs, private keys, `password=…`, URL passwords).
3. Names: in nested structures, what stands under a key such as `clientSecret`.

All nets look at the original text and their finds are merged before anything is replaced, so that two overlapping
secrets cannot leave a piece of each other behind.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

MASK: Final = "***"
_SHORTEST: Final = 6
"""Characters. Shorter values occur in ordinary words; masking them would destroy the text and hide nothing."""
_SHORTEST_LINE: Final = 12
"""Characters of one line of a secret with several lines: `kind: Config` is no secret, a line of a key is."""
_DEEPEST: Final = 64
"""Levels of a nested structure; what lies deeper is masked as a whole."""

Span = tuple[int, int]

# Each shape: substrings of the lower-cased text without which the pattern cannot match, and the pattern. Group 1 is
# what gets masked.
_SHAPES: Final[tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]] = (
    (
        ("private key-----",),
        re.compile(r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z))", re.DOTALL),
    ),
    (("bearer ", "basic "), re.compile(r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/=-]{6,})")),
    (("eyj",), re.compile(r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?)")),
    (
        ("hf_", "sk-", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "nvapi-", "xox", "bud_"),
        re.compile(
            r"(?<![A-Za-z0-9])((?:bud_|hf_|sk-|gh[pos]_|github_pat_|glpat-|nvapi-|xox[abp]-)[A-Za-z0-9_-]{16,})",
        ),
    ),
    (("akia", "asia"), re.compile(r"(?<![A-Za-z0-9])((?:AKIA|ASIA)[0-9A-Z]{16})(?![0-9A-Z])")),
    # The last @ before the path ends the userinfo: a password may itself hold one.
    (("://",), re.compile(r"://[^/\s:@\"'<>]*:([^/\s\"'<>]+)@")),
    (("://",), re.compile(r"://([^/\s:@\"'<>]{16,})@")),
    (
        ("pass", "pwd"),
        re.compile(
            r"(?i)(?:password|passwd|passphrase|pwd)\\?[\"']?\s*[=:]\s*"
            r"(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\\\".*?\\\"|[^\s,;&\"'{}\[\])]+)",
        ),
    ),
    (
        ("token", "secret", "key", "sig", "credential"),
        re.compile(
            r"(?i)(?:token|secret|secret_?key|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|signature|\bsig"
            r"|x-amz-credential)(?:=|\\?[\"']\s*[=:])\s*\\?[\"']?([^\s,;&\"'{}\[\]()\\]{6,})",
        ),
    ),
)

_SECRET_NAME: Final = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|pwd|secret|token|api_?key|access_?key|secret_?key|account_?key|private_?key"
    r"|client_key_data|encryption_?key|credentials?|kubeconfig|authorization|cookie|connection_string|database_url)$",
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PRIVATE_KEY_BEGINS: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_PRIVATE_KEY_ENDS: Final = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY-----")


def names_a_secret(name: str) -> bool:
    """Whether a value under this key or environment variable should be kept from view: `HF_TOKEN`, `clientSecret`.

    Names of secrets (`secretName`, `access_key_id`) and counts (`max_tokens`) are not.
    """
    return _SECRET_NAME.search(_CAMEL.sub("_", name).replace("-", "_").replace(".", "_").lower()) is not None


class Redactor:
    """Masks secrets in text and in structures. Immutable; cheap enough for every line of a tool's output."""

    __slots__ = ("_needles",)

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        """`secrets` are values to mask wherever they occur; those shorter than 6 characters are ignored."""
        forms: set[str] = set()
        for secret in secrets:
            forms.update(_forms(secret.decode("utf-8", "replace") if isinstance(secret, bytes) else secret))
        self._needles = tuple(sorted(forms, key=len, reverse=True))

    def mask(self, text: str) -> str:
        """The text with every secret that any net finds replaced by `***`."""
        spans = sorted([*self._known(text), *_shaped(text)])
        if not spans:
            return text
        pieces: list[str] = []
        position = 0
        for start, end in _merged(spans):
            pieces += (text[position:start], MASK)
            position = end
        return "".join((*pieces, text[position:]))

    def lines(self) -> "LineRedactor":
        """A redactor for one stream of lines: remembers that it is inside a private key."""
        return LineRedactor(self)

    def scrub(self, value: Any) -> Any:
        """A copy of a nested structure with strings masked, and with values under secret names replaced.

        Knows the shape of container environments, `{"name": "HF_TOKEN", "value": "…"}`. Booleans and None stay: they
        say whether something is set.
        """
        return self._scrub(value, depth=0)

    def _known(self, text: str) -> Iterator[Span]:
        for needle in self._needles:
            start = text.find(needle)
            while start >= 0:
                yield start, start + len(needle)
                start = text.find(needle, start + 1)

    def _scrub(self, value: Any, *, depth: int) -> Any:
        if depth > _DEEPEST:
            return MASK
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, bytes | bytearray):
            return self.mask(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            names_secret = isinstance(value.get("name"), str) and names_a_secret(value["name"])
            return {
                self.mask(key) if isinstance(key, str) else key: MASK
                if _hides(key, item, named=names_secret)
                else self._scrub(item, depth=depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._scrub(item, depth=depth + 1) for item in value]
        return value

    def __repr__(self) -> str:
        return f"Redactor({len(self._needles)} forms)"


class LineRedactor:
    """Masks line by line. A private key that spans lines is masked from its first line to its last."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._inside_key = False

    def mask(self, line: str) -> str:
        """The line without its secrets. Lines must come in order."""
        if self._inside_key:
            ends = _PRIVATE_KEY_ENDS.search(line)
            if ends is None:
                return MASK
            self._inside_key = False
            return MASK + self.mask(line[ends.end() :])
        begun = list(_PRIVATE_KEY_BEGINS.finditer(line))
        self._inside_key = bool(begun) and _PRIVATE_KEY_ENDS.search(line, begun[-1].end()) is None
        return self._redactor.mask(line)


def _hides(key: object, value: object, *, named: bool) -> bool:
    if value is None or isinstance(value, bool):
        return False
    return isinstance(key, str) and (names_a_secret(key) or (named and key == "value"))


def _forms(secret: str) -> Iterator[str]:
    """Every way in which a secret may be written in the output of a tool."""
    if len(secret) < _SHORTEST:
        return
    parts = [line.strip() for line in secret.splitlines()] if len(secret.splitlines()) > 1 else []
    for value in (secret, secret.strip(), *(part for part in parts if len(part) >= _SHORTEST_LINE)):
        if len(value) < _SHORTEST:
            continue
        yield value
        yield quote(value, safe="", errors="replace")
        yield quote_plus(value, errors="replace")
        yield json.dumps(value)[1:-1]
        yield json.dumps(value, ensure_ascii=False)[1:-1]
        yield from _base64_forms(value.encode("utf-8", "replace"))


def _base64_forms(value: bytes) -> Iterator[str]:
    """The secret inside a base64 text, at each of the three places where a byte may start in a group of four letters.

    Letters that also depend on the neighbouring bytes are left out.
    """
    yield base64.b64encode(value).decode().rstrip("=")
    yield base64.urlsafe_b64encode(value).decode().rstrip("=")
    for before in range(3):
        padded = b"\0" * before + value
        first, last = -(-8 * before // 6), 8 * len(padded) // 6
        yield base64.b64encode(padded).decode()[first:last]
        yield base64.urlsafe_b64encode(padded).decode()[first:last]


def _shaped(text: str) -> Iterator[Span]:
    lowered = text.lower()
    # Lower-casing may change the length of rare letters; it serves only to ask whether a shape is worth a look.
    for hints, pattern in _SHAPES:
        if any(hint in lowered for hint in hints):
            for found in pattern.finditer(text):
                yield found.span(1)


def _merged(spans: list[Span]) -> Iterator[Span]:
    start, end = spans[0]
    for next_start, next_end in spans[1:]:
        if next_start > end:
            yield start, end
            start, end = next_start, next_end
        else:
            end = max(end, next_end)
    yield start, end
