"""Lets calls wait for a change of an instance. A change made by another replica is seen by looking again."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

Change = dict[str, Any]
"""New values by column; `status` and `execution_id` are always among them."""

_LOOK_AGAIN_S: Final = 2.0


class Subscription:
    """One call that waits for an instance."""

    __slots__ = ("change", "changed")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.change: Change | None = None
        """What the last change brought, where it is known."""

    async def worth_a_look(self, is_reached: Callable[[int], bool]) -> None:
        """Return when the status may have been reached, and after two seconds at the latest."""
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                while True:
                    await self.changed.wait()
                    self.changed.clear()
                    if self.change is None or is_reached(self.change["status"]):
                        return
        except TimeoutError:
            return


class Watch:
    """Wakes those that wait for an instance."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Subscription]] = {}

    def notify(self, instance_id: str, change: Change | None = None) -> None:
        """The instance has changed; in which columns and to which values, where that is known."""
        for subscription in self._waiting.get(instance_id, ()):
            subscription.change = change
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
