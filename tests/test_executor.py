"""The executor: what fails or dies is an outcome, what it stood beside is not touched, and nothing is left behind."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import psutil
import pytest
import torch
from dask import config
from distributed import Client, LocalCluster

from flowsim.executor import LARGE, ProcessDiedError, _needed_by, execute, execute_here, tell


def job(item: Any) -> Any:
    """In another process: what the item says."""
    kind, more = item
    if kind == "raise":
        raise ValueError(more)
    if kind == "unsendable":
        return threading.Lock()
    if kind == "die":
        with open(more, "a") as file:
            file.write("died ")
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "tell":
        tell(more)
    if kind == "garbage":
        return gc.isenabled(), gc.get_freeze_count()
    return more, os.getpid(), torch.get_num_threads()


def test_what_a_function_returns_or_raises_comes_back_and_items_are_taken_when_their_turn_comes() -> None:
    """One that cannot be sent is an error of its task; the loggers are afterwards as they were."""
    asked, told, found = [], [], {}
    logger = logging.getLogger("distributed")
    before = logger.handlers, logger.propagate

    def items() -> Iterator[tuple[str, Any]]:
        for item in [("tell", 0.25), ("raise", "of its own"), ("unsendable", 0), *(("value", n) for n in range(5))]:
            asked.append(item)
            yield item

    for item, future in execute(job, items(), workers=1, told=lambda item, share: told.append((item, share))):
        assert len(asked) <= len(found) + 1
        found[item] = future
    assert list(found) == asked
    assert told == [(("tell", 0.25), 0.25)]
    values = [found["value", n].result() for n in range(5)]
    assert [value for value, _, _ in values] == list(range(5))
    ((process, threads),) = {rest for _, *rest in values for rest in [tuple(rest)]}
    assert process != os.getpid() and threads == 1
    error = found["raise", "of its own"].exception()
    assert repr(error) == "ValueError('of its own')"
    assert "raise ValueError(more)" in "".join(traceback.format_exception(error))
    assert isinstance(found["unsendable", 0].exception(), TypeError)
    assert (logger.handlers, logger.propagate) == before


def test_a_task_whose_process_dies_is_tried_again_alone_and_then_given_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were beside it lose nothing, nobody hears of Dask, and no files or processes are left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    list(execute(job, [("value", 0)], workers=1))  # then there is the process that others are forked from
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    death = ("die", str(tmp_path / "deaths"))
    items = [death, *(("value", n) for n in range(3))]
    before = set(psutil.Process().children(recursive=True))
    found = dict(execute(job, items, workers=2))
    assert set(found) == set(items)
    assert isinstance(found[death].exception(), ProcessDiedError)
    assert Path(death[1]).read_text() == "died died "
    assert {item: found[item].result()[0] for item in items[1:]} == {(kind, more): more for kind, more in items[1:]}
    assert list(found)[-1] == death
    assert capfd.readouterr() == ("", "")
    assert not list(folder.iterdir())
    assert set(psutil.Process().children(recursive=True)) <= before


def test_processes_share_what_all_import_and_look_for_garbage_elsewhere() -> None:
    """Of what is large only what this one has, too."""
    ((_, future),) = execute(job, [("garbage", 0)], workers=1)
    enabled, shared = future.result()
    assert enabled and shared > 100_000
    script = FunctionType(job.__code__, {"__name__": "__main__"})
    for large in [], ["torch"], ["torch", "flowsim.solving"]:
        with pytest.MonkeyPatch.context() as patch:
            for name in LARGE:
                patch.delitem(sys.modules, name, raising=False)
            for name in large:
                patch.setitem(sys.modules, name, torch)
            assert _needed_by(script) == ["flowsim.preload", "distributed", *large]
            assert _needed_by(partial(job)) == ["flowsim.preload", "distributed", *large, __name__]


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from flowsim.executor import execute
def endless(folder):
    if folder is None:
        os.kill(os.getpid(), signal.SIGKILL)
    loaded = "torch" in sys.modules, Path("flowsim").resolve() in Path(sys.modules["flowsim"].__file__).parents
    environment = [os.environ[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH", "PYTHONSAFEPATH")]
    Path(folder, f"{os.getpid()} {loaded} {environment}").touch()
    time.sleep(1000)
if __name__ == "__main__":
    try:
        list(execute(endless, [None, sys.argv[1]], workers=1))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them_and_say_nothing(ending: signal.Signals, tmp_path: Path) -> None:
    """After Ctrl-C, which a terminal sends to all of them; and after its death; and nothing of one that died before.

    Torch is loaded for no task that does without; should one load it, it has one thread. Nothing is imported from the
    current directory.
    """
    script, folder = tmp_path / "script.py", tmp_path / "pids"
    folder.mkdir()
    (tmp_path / "here" / "flowsim").mkdir(parents=True)
    (tmp_path / "here" / "flowsim" / "__init__.py").write_text("import os; os.kill(os.getppid(), 9)")
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], stderr=subprocess.PIPE, text=True, start_new_session=True,
        cwd=tmp_path / "here", env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": "none"},
    )  # fmt: skip
    wait_for(lambda: any(folder.iterdir()) or process.poll() is not None)
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if ending == signal.SIGINT else -ending)
    if ending == signal.SIGINT:  # else Python's own keeper of semaphores says that it had to tidy up
        assert errors == ""
    assert "distributed" not in errors and "Traceback" not in errors
    for path in folder.iterdir():
        pid, _, said = path.name.partition(" ")
        assert said == "(False, False) ['1', 'none', '']"
        wait_for(lambda pid=pid: not psutil.pid_exists(int(pid)))


def test_ctrl_c_while_processes_start_is_as_quiet(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    started: set[int] = set()

    def one_starts() -> bool:
        started.update(each.pid for each in psutil.Process(process.pid).children(recursive=True))
        return len(started) >= 3  # one keeps semaphores, another is the one that others are forked from

    wait_for(one_starts)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    for pid in started:
        wait_for(lambda pid=pid: not psutil.pid_exists(pid))


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_workers_of_a_scheduler_are_used_and_stay() -> None:
    started = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0")
    with started:
        for _ in range(2):
            found = dict(execute(job, [("value", 1), ("raise", "own")], scheduler=started.scheduler_address))
            assert found["value", 1].result()[1] == os.getpid()  # its worker is here
            assert isinstance(found["raise", "own"].exception(), ValueError)


def test_while_a_scheduler_has_no_workers_that_is_said() -> None:
    started = LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=":0")
    waits: list[str] = []

    def bring_one() -> None:
        waits.append("waits")
        started.scale(1)

    with started:
        found = dict(execute(job, [("value", 1)], scheduler=started.scheduler_address, on_wait=bring_one))
        assert waits and found["value", 1].result()[0] == 1
        assert not list(execute(job, [], scheduler=started.scheduler_address, on_wait=lambda: waits.append("again")))
    assert "again" not in waits


def test_a_scheduler_that_is_lost_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen([*command, "--scheduler-file", str(file)], stderr=subprocess.DEVNULL)
    wait_for(file.exists)

    def killing() -> Iterator[tuple[str, int]]:
        scheduler.kill()
        scheduler.wait()
        yield "value", 1

    with (
        config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ConnectionError, match=r"^the connection to the scheduler was lost$"),
    ):
        list(execute(job, killing(), scheduler=json.loads(file.read_text())["address"]))
    assert not caplog.records


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "ftp://x"])
def test_a_scheduler_that_is_not_there_is_one_line(address: str) -> None:
    with (
        config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ValueError, match=f"^scheduler {address} cannot be reached: .+$") as refused,
    ):
        list(execute(job, [("value", 1)], scheduler=address))
    assert "\n" not in str(refused.value)


def test_a_client_that_was_refused_is_gone_before_another_starts() -> None:
    """Collected while Dask starts another one, holding a lock, its end would wait for that lock for ever."""
    gc.disable()
    try:
        with config.set({"distributed.comm.timeouts.connect": "0.2s"}), pytest.raises(ValueError, match="reached"):
            list(execute(job, [("value", 1)], scheduler="nowhere"))
        assert not [one for one in gc.get_objects() if type(one) is Client and one.status != "closed"]
    finally:
        gc.enable()


def test_without_dask_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    missing = r"^work in several processes needs dask: pip install '\.\[processes\]'$"
    with pytest.raises(ImportError, match=missing):
        list(execute(job, [("value", 1)]))


def test_here_the_same_comes_back_one_after_the_other_with_one_thread() -> None:
    torch.set_num_threads(2)
    found = dict(execute_here(job, [("value", 1), ("raise", "own")]))
    assert found["value", 1].result() == (1, os.getpid(), 1)
    assert isinstance(found["raise", "own"].exception(), ValueError)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
