"""A function in other processes: as many at once as there are cores, or on a cluster of machines, by Dask.

A task that fails is an outcome, and so is one whose process dies, as by a system that runs out of memory; the others
are carried out as if it were not there.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import logging
import os
import pickle
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Future
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

from flowsim.extras import needed
from flowsim.messages import first_line
from flowsim.threads import one_thread

if TYPE_CHECKING:
    import distributed

Item = TypeVar("Item")

TOPIC = "flowsim"
"""What workers tell goes under this name."""

LOST = "the connection to the scheduler was lost"

LOGGERS = "distributed", "distributed.client", "tornado.application"
"""Those of Dask that write by handlers of their own."""

LOOK_EVERY = 0.5
"""Seconds between looks at how many workers there are."""

PATIENCE_WITH_DASK = 10.0
"""Seconds in which its processes are gone."""

SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # what dies is tried again here, alone
    "distributed.scheduler.worker-ttl": None,  # a long call into compiled code is not a death
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.multiprocessing-method": "forkserver",  # what all import is imported once
    "distributed.nanny.pre-spawn-environ": {},  # it would be this process's environment, too
    "distributed.admin.large-graph-warning-threshold": "1TB",  # few tasks are in flight
}
"""Of Dask, for a cluster of this machine's own."""


PATHS = "PYTHONPATH", "PYTHONSAFEPATH"
"""Where Python imports from, in the environment of what it starts."""

LARGE = "torch", "flowsim.solving"
"""What takes long to import; a process that has it needs it for what it has others do."""


class ProcessDiedError(RuntimeError):
    """The process of a task died twice, the second time while it was the only task."""


class EndedError(BaseException):
    """A task is to end, and may save where it is on the way: nothing that catches errors catches this."""


def cores() -> int:
    """The number of cores that this process may use; that of the machine, where the system does not say.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def execute(
    function: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    patience: float = 0.0,
    told: Callable[[Item, float], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, Future[Any]]]:
    """Call a function in other processes: each item with what it returned or raised for it, whichever ends first.

    Each process has one thread, and one task at a time. Items are taken from the iterable when their turn comes. A task
    whose process dies is tried again when all others are done, alone. Whoever stops taking results, as for Ctrl-C, ends
    the processes.

    Args:
        function: of one item; like the items and what it returns it travels between processes.
        items: what it is called with.
        workers: processes on this machine, one for each core if not given; not more than there are items, if these have
            a length.
        scheduler: the address of a Dask scheduler whose workers are used instead, such as "tcp://10.0.0.1:8786".
        patience: seconds that tasks on this machine have to save where they are, if they are ended: `EndedError` is
            raised in them.
        told: called with an item and a number whenever its task calls `tell`.
        on_wait: called now and then as long as there is no worker that could take a task.

    Raises:
        ImportError: if Dask is not installed.
        ValueError: if the scheduler cannot be reached.
        ConnectionError: if the connection to it is lost.
        RuntimeError: if processes cannot start.

    >>> def half(x: float) -> float:
    ...     return x / 2
    >>> sorted(future.result() for _, future in execute(half, [1.0, 3.0], workers=1))
    [0.5, 1.5]
    """
    died: list[Item] = []
    count = workers or cores()
    if isinstance(items, Sized):
        count = min(count, len(items))
    if scheduler is not None:
        patience = 0.0  # others may have tasks there
    with _client(function, count, scheduler) as client, _ending(client, patience), _news(client) as news:
        for item, future in _as_they_end(client, function, items, news, told, on_wait):
            if isinstance(future.exception(), ProcessDiedError):
                died.append(item)
            else:
                yield item, future
        for item in died:
            yield from _as_they_end(client, function, [item], news, told, on_wait)


def execute_here(function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Future[Any]]]:
    """The same in this process, one after the other: what is short is done before others have started.

    >>> [future.result() for _, future in execute_here(abs, [-1, 2])]
    [1, 2]
    """
    for item in items:
        with one_thread():
            try:
                found = function(item), None
            except Exception as error:
                found = None, error
        yield item, _settled(*found)


def tell(share: float) -> None:
    """Tell whoever carries out tasks how far this one is; for functions that are called in a worker."""
    from distributed import get_worker  # noqa: PLC0415, optional

    worker = get_worker()
    worker.log_event(TOPIC, (worker.get_current_task(), share))


# --- in this process ---


def _as_they_end(
    client: distributed.Client,
    function: Callable[[Item], Any],
    items: Iterable[Item],
    news: queue.SimpleQueue[Any],
    told: Callable[[Item, float], None] | None,
    on_wait: Callable[[], None] | None,
) -> Iterator[tuple[Item, Future[Any]]]:
    waiting, flying = iter(items), {}
    while True:
        threads = _threads(client)
        free = max(1, sum(threads.values())) - len(flying)
        for item in itertools.islice(waiting, max(0, free)):
            submitted = client.submit(_called, function, item, pure=False)
            submitted.add_done_callback(news.put)
            flying[submitted.key] = item
        if not flying:
            return
        if not threads and on_wait is not None:
            on_wait()
        with contextlib.suppress(queue.Empty):  # there may be more workers by now
            new = news.get(timeout=LOOK_EVERY)
            if not isinstance(new, tuple):
                yield flying.pop(new.key), _outcome(new)
            elif told is not None and new[0] in flying:
                told(flying[new[0]], new[1])


def _threads(client: distributed.Client) -> dict[str, int]:
    """How many threads each worker has.

    Raises:
        ConnectionError: if the scheduler does not answer.
    """
    try:
        threads: Any = client.nthreads()
    except OSError:
        raise ConnectionError(LOST) from None
    return threads


def _outcome(submitted: distributed.Future) -> Future[Any]:
    """What a task came to, as Dask has it."""
    from distributed import KilledWorker  # noqa: PLC0415, optional

    try:
        result, error = pickle.loads(submitted.result())
    except KilledWorker:
        result, error = None, ProcessDiedError("its process died; the system may have run out of memory")
    except CancelledError:
        raise ConnectionError(LOST) from None
    except Exception as stop:  # of what could not be sent
        result, error = None, stop
    return _settled(result, error)


def _settled(result: Any, error: BaseException | None) -> Future[Any]:
    outcome: Future[Any] = Future()
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)
    return outcome


@contextlib.contextmanager
def _news(client: distributed.Client) -> Iterator[queue.SimpleQueue[Any]]:
    """Futures that are done, and what tasks tell."""
    news: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.subscribe_topic(TOPIC, lambda event: news.put(tuple(event[1])))
    yield news


@contextlib.contextmanager
def _client(function: Callable[[Item], Any], workers: int, scheduler: str | None) -> Iterator[distributed.Client]:
    """The client of processes on this machine, which end with it, or of a scheduler's.

    They are forked from one that has imported what the function needs, and stays as long as this process: the next are
    there at once.

    Ctrl-C is for this process to act on: it never gets to processes and threads that are started here.
    """
    with needed("work in several processes", "processes"):
        from dask import config  # noqa: PLC0415, optional
        from distributed import Client, LocalCluster  # noqa: PLC0415, optional

    with _quiet(), contextlib.ExitStack() as stack:
        if scheduler is not None:
            refused = ""
            try:
                client = stack.enter_context(Client(scheduler))
            except (OSError, ValueError, TypeError) as error:
                client, refused = None, first_line(error)
            if client is None:
                # else it may be collected while Dask holds the lock that a client asks for at its end: nothing goes on
                gc.collect()
                raise ValueError(f"scheduler {scheduler} cannot be reached: {refused}")
            yield client
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        stack.enter_context(config.set({**SETTINGS, "temporary-directory": folder}))
        resource_tracker.ensure_running()  # whoever starts it lets Ctrl-C in again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _imports_as_here():
                forkserver.set_forkserver_preload(_needed_by(function))
                forkserver.ensure_running()
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=None,
                # one thread of torch, also where a task is the first to import it; else the environment is as here
                env={"OMP_NUM_THREADS": "1", **{name: os.environ.get(name, "") for name in PATHS}},
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                security=True, silence_logs=logging.CRITICAL,
            )  # fmt: skip
            stack.enter_context(cluster)
            stack.callback(_kill, cluster)
            client = stack.enter_context(Client(cluster))
        except RuntimeError:
            raise RuntimeError(
                "processes cannot start: each imports the script that starts them, which must be a file and do so "
                "under if __name__ == '__main__':"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield client


@contextlib.contextmanager
def _imports_as_here() -> Iterator[None]:
    """Python that is started here imports from where this one does: it would from the current directory first."""
    before = {name: os.environ.pop(name, None) for name in PATHS}
    os.environ.update(PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path), PYTHONSAFEPATH="1")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _needed_by(function: Callable[[Item], Any]) -> list[str]:
    """What the process imports that others are forked from, where it finds it: no script, which may do more then."""
    module = getattr(function, "func", function).__module__  # that of a partial function is functools
    large = [name for name in LARGE if name in sys.modules]
    return ["flowsim.preload", "distributed", *large, *([] if module == "__main__" else [module])]


def _kill(cluster: distributed.LocalCluster) -> None:
    """End the processes at once, whatever they do, also one that is only starting: to ask them takes seconds."""
    nannies = list(cluster.workers.values())
    for nanny in nannies:
        nanny.close_gracefully()  # without a process in the place of the one that is killed
    deadline = time.monotonic() + PATIENCE_WITH_DASK
    while time.monotonic() < deadline and any(nanny.status.name != "closed" for nanny in nannies):
        for nanny in nannies:
            with contextlib.suppress(ProcessLookupError, TypeError):  # it has none at the moment
                os.kill(nanny.pid, signal.SIGKILL)
        time.sleep(0.01)


@contextlib.contextmanager
def _ending(client: distributed.Client, patience: float) -> Iterator[None]:
    """Let tasks save where they are if this process goes on to something else before they end."""
    try:
        yield
    except BaseException:
        if patience > 0:
            with contextlib.suppress(Exception):  # of workers that are gone: what goes on here matters more
                _end(client, patience)
        raise


def _end(client: distributed.Client, patience: float) -> None:
    client.run(_end_tasks)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        processing: Any = client.processing()
        if not any(processing.values()):
            return
        time.sleep(0.02)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What Dask would log comes back as outcomes, or as an error."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


# --- in the other processes ---


def _called(function: Callable[[Item], Any], item: Item) -> bytes:
    """What the function returns, and what it raises: Dask cuts long errors."""
    import cloudpickle  # noqa: PLC0415, optional
    from tblib import pickling_support  # noqa: PLC0415, optional

    try:
        with one_thread() if "torch" in sys.modules else contextlib.nullcontext():
            found = function(item), None
    except Exception as error:
        pickling_support.install(error)  # with its traceback
        found = None, error
    return cloudpickle.dumps(found)


def _end_tasks(dask_worker: distributed.Worker) -> None:
    """Raise `EndedError` in the threads of tasks."""
    for thread in list(dask_worker.active_threads):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(EndedError))
