"""Lets calls wait for a change of an instance. A change made by another replica is seen by looking again."""

import asyncio
from collections.abc import Callable
from typing import Final

_LOOK_AGAIN_S: Final = 2.0


class Subscription:
    """One call that waits for an instance."""

    __slots__ = ("changed", "status")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.status: int | None = None
        """The status that the last change brought, where it is known."""

    async def worth_a_look(self, is_reached: Callable[[int], bool]) -> None:
        """Return when the status may have been reached, and after two seconds at the latest."""
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                while True:
                    await self.changed.wait()
                    self.changed.clear()
                    if self.status is None or is_reached(self.status):
                        return
        except TimeoutError:
            return


class Watch:
    """Wakes those that wait for an instance."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Subscription]] = {}

    def notify(self, instance_id: str, status: int | None = None) -> None:
        """The instance has changed; to which status, where that is known."""
        for subscription in self._waiting.get(instance_id, ()):
            subscription.status = status
            subscription.changed.set()

    def subscribe(self, instance_id: str) -> Subscription:
        """Watch from now on; give it back with `unsubscribe`."""
        subscription = Subscription()
        self._waiting.setdefault(instance_id, set()).add(subscription)
        return subscription

    def unsubscribe(self, instance_id: str, subscription: Subscription) -> None:
        """Stop watching."""
        waiting = self._waiting.get(instance_id)
        if waiting is not None:
            waiting.discard(subscription)
            if not waiting:
                del self._waiting[instance_id]
