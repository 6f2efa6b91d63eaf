"""References of container images, taken apart."""

import re
from dataclasses import dataclass
from typing import Final

PATTERN: Final = (
    r"(?P<repository>[a-z0-9][a-z0-9.-]{0,200}(:[0-9]{1,5}(?=/))?(/[a-z0-9][a-z0-9._-]{0,127}){0,8})"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_VERSION: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?![0-9])", re.ASCII)
_CUDA_12: Final = re.compile(r"cu(da)?-?12", re.ASCII)

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """One image; it has a tag, a digest, or both."""

    repository: str
    tag: str
    """Empty where only the digest names it."""
    digest: str

    @property
    def version(self) -> Version | None:
        """Of the runtime inside, where the tag begins with it (`v0.33.0`, `v0.5.19-cu129`); None: nobody knows."""
        found = _VERSION.match(self.tag)
        return tuple(int(part) for part in found.groups()) if found else None

    @property
    def has_cuda_12(self) -> bool:
        """Whether the tag says that it was built for CUDA 12, whose drivers are older."""
        return _CUDA_12.search(self.tag) is not None


def image_of(reference: str) -> Image:
    """Take a reference apart. Raises ValueError for one that names neither tag nor digest."""
    found = re.fullmatch(PATTERN, reference)
    if found is None or not (found["tag"] or found["digest"]):
        raise ValueError("must be repository:tag, repository@sha256:… or both")
    return Image(found["repository"], found["tag"] or "", found["digest"] or "")
