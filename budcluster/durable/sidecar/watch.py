"""Lets calls wait for a change of an instance. A change made by another replica is seen by looking again."""

import asyncio
from typing import Final

_LOOK_AGAIN_S: Final = 2.0


class Watch:
    """Wakes those that wait for an instance."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, instance_id: str) -> None:
        """The instance has changed."""
        for event in self._waiting.get(instance_id, ()):
            event.set()

    def subscribe(self, instance_id: str) -> asyncio.Event:
        """An event that is set by every change from now on; give it back with `unsubscribe`."""
        event = asyncio.Event()
        self._waiting.setdefault(instance_id, set()).add(event)
        return event

    def unsubscribe(self, instance_id: str, event: asyncio.Event) -> None:
        """Stop watching."""
        waiting = self._waiting.get(instance_id)
        if waiting is not None:
            waiting.discard(event)
            if not waiting:
                del self._waiting[instance_id]

    async def changed(self, event: asyncio.Event) -> None:
        """Return after a change, and after two seconds at the latest."""
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await event.wait()
        except TimeoutError:
            pass
        event.clear()
