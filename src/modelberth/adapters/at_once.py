"""Several questions at once, on threads that nobody has to wait for: a signal ends the waiting at once.

The pools of `concurrent.futures` are waited for at the end of the program, also by who was told to stop and whose
server says nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(run: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """What `run` says to each item, in their order; several run at a time.

    Raises:
        BaseException: the first that one of them ended with; the others are left to themselves.
    """
    if len(items) <= 1 or workers <= 1:
        return [run(each) for each in items]
    waiting = deque(enumerate(items))
    came: SimpleQueue[tuple[int, Result | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while True:
            try:
                number, item = waiting.popleft()
            except IndexError:
                return
            try:
                came.put((number, run(item), None))
            except BaseException as error:  # noqa: BLE001 - carried over to the thread that waits, and raised there
                came.put((number, None, error))

    for _ in range(min(workers, len(items))):
        Thread(target=work, name="at once", daemon=True).start()
    found: dict[int, Result] = {}
    for _ in items:
        number, result, error = came.get()
        if error is not None:
            waiting.clear()
            raise error
        found[number] = result  # type: ignore[assignment]
    return [found[number] for number in range(len(items))]
