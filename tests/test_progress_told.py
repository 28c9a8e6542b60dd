"""What long work tells of itself: a tokenizer's training, and a process that is waited for."""

import subprocess

from toy_screens import Clock

from duo.data import prepare
from duo.leaderboard.sealed import process
from duo.progress import watching, work
from duo.progress.shown import Lines, tell_share


def test_a_tokenizer_is_said_to_be_trained_when_all_documents_are_read(monkeypatch):
    class Shelf:
        def texts(self, name):
            return iter(["a text", "another"])

        def count(self, name):
            return 2

    def train(texts, vocabulary):
        assert [*texts] == ["a text", "another"]
        return [part.name for part in work._parts]

    monkeypatch.setattr(prepare, "train_tokenizer", train)
    with watching(Lines(Clock())):
        assert prepare._train_tokenizer(Shelf(), 300) == ["training the tokenizer"]


def test_what_a_process_imports_says_nothing_of_how_long_the_rest_takes(monkeypatch, tmp_path):
    clock, said, shares = Clock(), [], iter([0.0, 0.005, 0.255])

    class Told:
        now = clock

        def look(self, parts):
            said.append(tell_share(parts, clock()))

        def rest(self):
            pass

    class Child:
        seconds = iter([60, 10, 10])

        def wait(self, timeout):
            if (passed := next(self.seconds, None)) is None:
                return 0
            clock.seconds += passed
            raise subprocess.TimeoutExpired("child", timeout)

    monkeypatch.setattr(process, "read_share", lambda folder: next(shares))
    with watching(Told()):
        assert process._wait(Child(), tmp_path, until=float("inf")) == 0
    assert said == ["0%, 1:00 so far", "0%, 0:00 so far", "26%, 0:30 left"]
