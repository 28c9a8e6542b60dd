"""Files are whole or not there, whoever else writes them and whatever happens meanwhile."""

import contextlib
import errno
import os
import re
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import toy_backbone
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import nn

from duo.evaluation.format import save_struct
from duo.evaluation.intervals import Estimate
from duo.storage.files import LEFT_OVER, naming, replacing
from duo.storage.weights import load_weights, round_to_bfloat16, save_weights, weights_digest


def test_many_writers_of_one_file_never_break_one_another(tmp_path):
    path = tmp_path / "file"

    def write(number):
        with replacing(path) as temporary:
            temporary.write_text(f"{number} " * 1000)
        return {*path.read_text().split()}

    with ThreadPoolExecutor(8) as pool:
        seen = [*pool.map(write, range(400))]
    assert all(len(numbers) == 1 for numbers in seen)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), OSError("no number")])
def test_an_error_or_interrupt_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_killed_writer_left_goes_with_the_next_one_but_nobodys_who_still_writes(tmp_path):
    path = tmp_path / "a[1].json"
    for _ in range(2):
        if not (child := os.fork()):
            with replacing(path) as temporary:
                temporary.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    old, young = tmp_path.iterdir()
    assert not path.exists()
    long_ago = time.time() - LEFT_OVER - 1
    os.utime(old, (long_ago, long_ago))
    other = tmp_path / f".b.json.{'0' * 32}.part"
    other.touch()
    os.utime(other, (long_ago, long_ago))
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert {*tmp_path.iterdir()} == {path, young, other}


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append(("sync", os.fstat(number).st_size)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("name"), replace(*paths)))
    with replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"12345")
    assert done == [("sync", 5), "name"]


def test_what_cannot_be_written_is_named_and_not_its_temporary_name(tmp_path):
    (tmp_path / "way").write_text("a file")
    with pytest.raises(OSError, match=re.escape(f"{tmp_path}/way")), replacing(tmp_path / "way" / "file"):
        pass
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as found, replacing(tmp_path / "folder") as temporary:
        temporary.touch()
    assert found.value.filename == str(tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"way", "folder"}
    with pytest.raises(FileNotFoundError, match="another"), replacing(tmp_path / "file"):
        open(tmp_path / "another")  # noqa: SIM115
    with pytest.raises(RuntimeError, match="^shape 3$"), naming(tmp_path / "file"):
        raise RuntimeError("shape 3")


@contextlib.contextmanager
def no_file_larger_than(size):
    """As on a disk that is full: whatever would be longer cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_while_weights_or_numbers_are_written_is_told_and_leaves_nothing(tmp_path):
    for name, write in (
        ("backbone.safetensors", lambda: save_weights(toy_backbone(), tmp_path / "backbone.safetensors")),
        ("row.json", lambda: save_struct(Estimate(1.0, None), tmp_path, "row.json")),
    ):
        with no_file_larger_than(20), pytest.raises(OSError, match="File too large") as found:
            write()
        assert (found.value.errno, found.value.filename) == (errno.EFBIG, f"{tmp_path}/{name}")
        assert name not in str([*tmp_path.iterdir()])


def test_what_libraries_in_rust_say_of_the_system_is_understood(tmp_path):
    tokenizer = Tokenizer(BPE({f"word{number}": number for number in range(9)}, []))
    with no_file_larger_than(20), pytest.raises(OSError, match="File too large") as found, naming(tmp_path / "a"):
        tokenizer.save(str(tmp_path / "a"))
    assert (found.value.errno, found.value.filename) == (errno.EFBIG, f"{tmp_path}/a")


def test_a_folder_in_the_place_of_weights_is_named(tmp_path):
    (tmp_path / "weights" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory") as found:
        save_weights(toy_backbone(), tmp_path / "weights")
    assert found.value.filename == f"{tmp_path}/weights"


def test_weights_that_are_saved_and_loaded_are_the_same_to_the_last_bit(tmp_path):
    ours, theirs = toy_backbone(0), toy_backbone(1)
    save_weights(ours, tmp_path / "weights")
    load_weights(theirs, tmp_path / "weights")
    assert weights_digest(theirs) == weights_digest(ours)
    with torch.no_grad():
        next(theirs.parameters()).view(-1)[0] += 1
    assert weights_digest(theirs) != weights_digest(ours)


def test_weights_of_16_bits_take_16_and_come_back_in_32_also_where_two_modules_share_them(tmp_path):
    shared = [nn.Linear(64, 64) for _ in range(2)]
    ours, theirs = (nn.ModuleDict({"own": nn.Linear(8, 8), "one": one, "two": one}) for one in shared)
    round_to_bfloat16(ours)
    save_weights(ours, tmp_path / "weights")
    saved = load_file(tmp_path / "weights")
    assert {name: value.dtype for name, value in saved.items() if name.startswith("own")} == dict.fromkeys(
        ("own.weight", "own.bias"), torch.bfloat16
    )
    assert len(saved) == 4  # what is shared is saved once
    load_weights(theirs, tmp_path / "weights")
    assert weights_digest(theirs) == weights_digest(ours)
    assert theirs["own"].weight.dtype == torch.float32


@pytest.mark.parametrize("value", [1 + 2**-8, float("inf"), 1e-40, 16_777_217.0])
def test_no_bit_of_weights_is_lost_unasked(tmp_path, value):
    ours, theirs = nn.Linear(4, 1), nn.Linear(4, 1)
    ours.register_buffer("kept", torch.tensor([value]))
    theirs.register_buffer("kept", torch.zeros(1))
    save_weights(ours, tmp_path / "weights")
    load_weights(theirs, tmp_path / "weights")
    assert weights_digest(theirs) == weights_digest(ours)
