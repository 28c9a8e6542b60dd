"""The queue of a sweep: what waits, how many run at once, and what a process is given."""

from pathlib import Path

import pytest
from test_sweep import Toy

from duo.sweep.machine import Call, Task, devices_of, threads_of
from duo.sweep.queue import End, work_off


def task(name, after=(), status=0):
    return Task(name, lambda arguments: status, (), Path("nowhere"), 1, after)


def test_what_waits_for_a_task_that_failed_fails_with_it_and_the_others_go_on():
    toy, ends = Toy(killed=["first"]), []
    work_off([task("first"), task("second", ("first",)), task("third")], toy, 1, ends.append)
    assert toy.done == ["first", "third"]
    failed = {end.task.name: end.failed for end in ends if isinstance(end, End)}
    assert failed["second"].startswith("first failed: it ended without a word")
    assert failed["third"] is None


def test_no_more_run_at_once_than_was_said_and_an_end_stops_them():
    class Slow(Toy):
        def start(self, task, slot):
            job = super().start(task, slot)
            job.done = lambda: False
            return job

    def stop(event):
        if event.name == "second":
            raise KeyboardInterrupt

    toy = Slow()
    with pytest.raises(KeyboardInterrupt):
        work_off([task("first"), task("second"), task("third")], toy, 2, stop)
    assert toy.done == ["first", "second"]
    assert len(toy.stopped) == 2


def test_the_reason_of_a_failure_is_the_last_error_of_its_log(tmp_path):
    (tmp_path / "log").write_text("error: an old one\nhello\nerror: budget.big=9 is too much\n")
    ends = []
    work_off([task("first", status=1)._replace(folder=tmp_path)], Toy(), 1, ends.append)
    assert ends[-1].failed == f"budget.big=9 is too much (log: {tmp_path}/log)"


def test_threads_and_devices_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8), raising=False)
    assert [threads_of(parallel, 12) for parallel in (1, 2, 3, 100)] == [8, 4, 2, 1]
    assert threads_of(8, 2) == 4
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices_of(2, {}) == ["0", "1", "2", "3"]
    assert devices_of(1, {}) is devices_of(2, {"devices": 2}) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert devices_of(2, {}) == ["5", "7"]


def test_a_process_has_the_variables_that_it_was_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seen = []
    look = lambda arguments: seen.append(__import__("os").environ.get("CUDA_VISIBLE_DEVICES")) or 0  # noqa: E731
    for value in ("3", None):
        assert Call(look, {"CUDA_VISIBLE_DEVICES": value})(()) == 0
    assert seen == ["3", None]


@pytest.mark.parametrize("tasks", [[task("a"), task("b", ("a",))], [task("b", ("a",)), task("a")]])
def test_a_task_begins_when_what_it_needs_is_there(tasks):
    toy = Toy()
    work_off(tasks, toy, 2, lambda event: None)
    assert toy.done == ["a", "b"]
