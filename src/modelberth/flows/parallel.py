"""Many transfers at a time: workers take tasks until none is left; the first failure, or a signal, stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable

from modelberth.adapters.transport import Cancelled

Task = Callable[[], None]


def run_parallel(next_task: Callable[[], Task | None], workers: int, stop: Callable[[], None]) -> None:
    """Run tasks until `next_task` gives none.

    Args:
        next_task: gives a task, or None when none is left; called by one thread at a time.
        workers: threads.
        stop: ends what the threads wait for (connections); called once when something failed.

    Raises:
        BaseException: the first failure of a task, or what was raised in this thread: a signal.
    """
    crew = _Crew(next_task)
    threads = [threading.Thread(target=crew.work, name=f"transfer {number}", daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        with crew.changed:
            while crew.failure is None and crew.idle < workers:
                crew.changed.wait()
    finally:
        ended_well = crew.failure is None and crew.idle == workers
        crew.stopping = True
        if not ended_well:
            stop()
        for thread in threads:
            thread.join()
    ended_by = crew.failure or crew.cancelled
    if ended_by is not None:
        raise ended_by


class _Crew:
    """What the workers share."""

    def __init__(self, next_task: Callable[[], Task | None]) -> None:
        self._next_task = next_task
        self.changed = threading.Condition()
        self.failure: BaseException | None = None
        self.cancelled: Cancelled | None = None
        self.idle = 0
        self.stopping = False

    def work(self) -> None:
        """Take tasks until there are none, or something failed."""
        try:
            while not self.stopping:
                with self.changed:
                    task = self._next_task() if self.failure is None else None
                if task is None:
                    return
                task()
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that waits, and raised there
            with self.changed:
                # Who was cancelled failed because of another's failure; where there is none, it still is no success.
                if isinstance(error, Cancelled):
                    self.cancelled = error
                elif self.failure is None:
                    self.failure = error
        finally:
            with self.changed:
                self.idle += 1
                self.changed.notify_all()
