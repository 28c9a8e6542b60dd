"""Folders named by their content, wherever they are."""

import contextlib
import json
import subprocess
import sys

import pytest
import servers

from duo.storage.scales import Scales
from duo.storage.shared import find
from duo.storage.store import HEADS, Store, Unfinished, Unreachable, sha256

FILES = {"recipe.yaml": b"a: 1\n", "router.safetensors": b"\0\1" * 1000}

ADDING = """
import sys
from duo.storage.store import Store
store = Store(sys.argv[1])
for number in range(50):
    store.add("entries", {"who": sys.argv[2], "number": number}, {"recipe.yaml": b"same"})
"""


@pytest.fixture(scope="module")
def ftp(tmp_path_factory):
    with servers.ftp(tmp_path_factory.mktemp("remote")) as location:
        yield location


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    with servers.sftp(tmp_path_factory.mktemp("remote")) as location:
        yield location


@pytest.fixture(scope="module")
def s3():
    with pytest.MonkeyPatch.context() as patch, servers.s3(patch) as location:
        yield location


@pytest.fixture(params=["local", "memory", "ftp", "sftp", "s3"])
def place(request, tmp_path):
    """Where no store is yet, of every kind."""
    here = {"local": f"{tmp_path}/board", "memory": f"memory://{tmp_path}/board"}
    return here.get(request.param) or f"{request.getfixturevalue(request.param)}/{tmp_path.name}"


def test_what_is_added_is_found_by_its_digest_and_read_as_it_was(place):
    store = Store(place)
    assert store.digests("entries") == []
    digest = store.add("entries", {"name": "ours", "loss": 4.25}, FILES)
    assert store.add("entries", {"name": "ours", "loss": 4.25}, FILES) == digest
    assert store.digests("entries") == [digest]
    assert find(store, digest[:4], "entries") == ("entries", digest)
    head = store.head("entries", digest)
    assert (head["name"], head["loss"], {*head["files"]}) == ("ours", 4.25, {*FILES})
    assert {name: store.file("entries", digest, name, head) for name in FILES} == FILES
    assert [store.holds("entries", digest, name) for name in (*FILES, "other.yaml")] == [True, True, False]
    assert not store.holds("entries", "0" * 64, "recipe.yaml")
    other = store.add("entries", {"name": "theirs", "loss": 4.25}, FILES)
    assert store.digests("entries") == sorted([digest, other])


@pytest.mark.parametrize("place", ["local", "ftp", "sftp", "s3"], indirect=True)  # memory is of one process alone
def test_two_processes_that_add_at_the_same_time_lose_nothing(place):
    processes = [subprocess.Popen([sys.executable, "-c", ADDING, place, who]) for who in ("one", "two")]
    assert [process.wait() for process in processes] == [0, 0]
    store = Store(place)
    found = {(head["who"], head["number"]) for head in (store.head("entries", d) for d in store.digests("entries"))}
    assert found == {(who, number) for who in ("one", "two") for number in range(50)}


def test_a_changed_byte_anywhere_is_found(tmp_path):
    store = Store(str(tmp_path))
    digest = store.add("entries", {"name": "ours"}, FILES)
    for name in (*FILES, HEADS["entries"]):
        path = tmp_path / "entries" / digest / name
        before = path.read_bytes()
        for place in {0, len(before) // 2, len(before) - 1}:
            path.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
            with pytest.raises(ValueError, match=rf"{name} was changed"):
                [store.file("entries", digest, file, store.head("entries", digest)) for file in FILES]
        path.write_bytes(before[:-1])
        with pytest.raises(ValueError, match=rf"{name} was changed"):
            [store.file("entries", digest, file, store.head("entries", digest)) for file in FILES]
        path.unlink()
        with pytest.raises(ValueError, match=f"{name} is missing"):
            [store.file("entries", digest, file, store.head("entries", digest)) for file in FILES]
        path.write_bytes(before)


def test_a_folder_of_another_store_is_copied_to_the_last_byte_and_once(place, tmp_path):
    source, store = Store(f"{tmp_path}/source"), Store(place)
    head = b'{"files": {"recipe.yaml": "%s"},   "spaces": 1.50}' % sha256(b"a: 1").encode()  # as nobody here writes it
    folder = tmp_path / "source" / "backbones" / sha256(head)
    folder.mkdir(parents=True)
    (folder / "backbone.json").write_bytes(head)
    (folder / "recipe.yaml").write_bytes(b"a: 1")
    store.copy("backbones", sha256(head), source)
    assert store.file("backbones", sha256(head), "recipe.yaml", store.head("backbones", sha256(head))) == b"a: 1"
    (folder / "recipe.yaml").write_bytes(b"a: 2")
    store.copy("backbones", sha256(head), source)  # it is there
    with pytest.raises(ValueError, match="recipe.yaml was changed"):
        Store(f"{tmp_path}/other").copy("backbones", sha256(head), source)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["../evil.json", "/etc/passwd", "a/b.json", "..", "router.pkl", "x.py"])
def test_no_file_leaves_its_folder(tmp_path, name):
    head = json.dumps({"files": {name: sha256(b"")}}).encode()
    folder = tmp_path / "entries" / sha256(head)
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes(head)
    with pytest.raises(ValueError, match="does not list its files"):
        Store(str(tmp_path)).head("entries", sha256(head))


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"[]", b"\xff", b'{"files": 3}', b'{"files": {}, "loss": NaN}', b'{"files": {}, "loss": 1e999}', b"",
        b'{"files": {}, "deep": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_head_is_refused(tmp_path, content):
    folder = tmp_path / "entries" / sha256(content)
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"{sha256(content)[:12]}/result.json (is no JSON|does not list its files)"):
        Store(str(tmp_path)).head("entries", sha256(content))


def test_a_disk_that_fills_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.add("entries", {"name": "whole"}, FILES)
    write, written = type(store._files).pipe_file, []

    def full(self, path, value, **options):
        if len(written) == room:
            write(self, path, value[: len(value) // 2], **options)
            raise OSError(28, "No space left on device")
        written.append(path)
        write(self, path, value, **options)

    monkeypatch.setattr(type(store._files), "pipe_file", full)
    for room in range(3):
        written.clear()
        with pytest.raises(ValueError, match=r"leaderboard.store=.* cannot be written: No space left"):
            store.add("entries", {"name": "half", "room": room}, FILES)
        for digest in store.digests("entries"):
            with contextlib.suppress(Unfinished):
                assert store.head("entries", digest)["name"] == "whole"
        assert not [*tmp_path.rglob("*.part")]


def test_one_who_fails_leaves_what_another_wrote(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    digest = store.add("entries", {"name": "both"}, FILES)
    monkeypatch.setattr(type(store._files), "mv", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(ValueError, match="broken"):
        store.add("entries", {"name": "both"}, FILES)
    assert store.head("entries", digest)["name"] == "both"


def test_folders_that_another_makes_at_the_same_time_are_no_error(ftp, monkeypatch):
    store, other = Store(f"{ftp}/crowded"), Store(f"{ftp}/crowded")
    make = type(store._files).mkdir

    def crowded(self, path, **options):
        if not path.endswith("crowded"):
            return make(self, path, **options)
        monkeypatch.setattr(type(self), "mkdir", make)
        other.add("entries", {"name": "theirs"}, FILES)
        return self.ftp.mkd(path)  # which is there by now

    monkeypatch.setattr(type(store._files), "mkdir", crowded)
    store.add("entries", {"name": "ours"}, FILES)
    assert len(store.digests("entries")) == 2


def test_a_writer_that_is_killed_leaves_no_entry_behind(tmp_path):
    script = "import os, sys\nfrom duo.storage.store import Store\nimport fsspec.implementations.local as local\n"
    script += "move = local.LocalFileSystem.mv\ncount = [0]\n"
    script += "def mv(self, *paths, **options):\n    count[0] += 1\n    move(self, *paths, **options)\n"
    script += "    count[0] == 2 and os._exit(9)\nlocal.LocalFileSystem.mv = mv\n"
    script += "Store(sys.argv[1]).add('entries', {}, {'recipe.yaml': b'a', 'router.safetensors': b'b'})"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    store = Store(str(tmp_path))
    (half,) = store.digests("entries")
    with pytest.raises(ValueError, match="result.json is missing"):
        store.head("entries", half)
    assert store.add("entries", {}, {"recipe.yaml": b"a", "router.safetensors": b"b"}) == half
    assert store.head("entries", half)


def test_a_store_that_cannot_be_reached_or_written_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"leaderboard.store=nosuch://x cannot be reached"):
        Store("nosuch://x")
    with pytest.raises(ValueError, match=r"leaderboard.store=ftp://127.0.0.1:9/x cannot be reached: .*refused"):
        Store("ftp://127.0.0.1:9/x").digests("entries")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match=r"leaderboard.store=.*file cannot be written"):
        Store(str(tmp_path / "file")).add("entries", {}, {})


@pytest.mark.parametrize("secret", ["duo:pass", "duo:pa/ss", "duo:p@ss"])
def test_a_password_is_not_shown(secret):
    with pytest.raises(Unreachable, match=r"leaderboard.store=nosuch://127.0.0.1/x cannot") as found:
        Store(f"nosuch://{secret}@127.0.0.1/x")
    assert secret[4:] not in str(found.value)


def test_a_link_out_of_a_folder_and_a_folder_in_place_of_a_file_are_refused(tmp_path):
    store = Store(str(tmp_path / "board"))
    digest = store.add("entries", {}, FILES)
    head, path = store.head("entries", digest), tmp_path / "board" / "entries" / digest / "recipe.yaml"
    path.rename(tmp_path / "secret.yaml")
    path.symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(ValueError, match=r"recipe.yaml is a link"):
        store.file("entries", digest, "recipe.yaml", head)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"entries/{digest[:12]}/recipe.yaml cannot be read: Is a directory"):
        store.file("entries", digest, "recipe.yaml", head)


def test_a_read_only_store_is_read_and_named(ftp):
    digest = Store(ftp).add("entries", {"name": "ours"}, FILES)
    guest = Store(ftp.replace("duo:", "guest:"))
    assert guest.file("entries", digest, "recipe.yaml", guest.head("entries", digest)) == FILES["recipe.yaml"]
    with pytest.raises(ValueError, match=r"leaderboard.store=.* cannot be written: .*(privileges|denied|permission)"):
        guest.add("entries", {"name": "theirs"}, FILES)
    assert guest.digests("entries") == [digest]


def test_a_beginning_that_fits_none_or_several_is_an_error(tmp_path):
    store = Store(str(tmp_path))
    for number in range(20):
        store.add("marks", {"number": number}, {})
    with pytest.raises(ValueError, match="is no digest of marks"):
        store.head("marks", "../../secret")
    with pytest.raises(ValueError, match=r"0 marks begin with 'xyz'"):
        find(store, "xyz", "marks")
    with pytest.raises(ValueError, match=r"marks begin with ''"):
        find(store, "", "marks")


def test_scales_read_like_the_store_and_weigh_what_it_would_write(tmp_path):
    store, scales = Store(str(tmp_path)), Scales(str(tmp_path))
    first = store.add("entries", {"name": "first"}, {"recipe.yaml": b"seed: 0"})
    assert scales.head("entries", first) == store.head("entries", first)
    second = scales.add("entries", {"name": "second"}, {"recipe.yaml": b"seed: 1"})
    assert store.digests("entries") == [first]
    assert store.add("entries", {"name": "second"}, {"recipe.yaml": b"seed: 1"}) == second
    written = sum(path.stat().st_size for path in (tmp_path / "entries" / second).iterdir())
    assert scales.weights == {("entries", second): written}


@pytest.mark.parametrize("beginning", ["abcd", "abcde", "abc", "", "0123", "zz"])
def test_a_beginning_means_one_digest_or_names_those_that_are_there(tmp_path, beginning):
    digests = ["abcd" + "0" * 60, "abcde" + "1" * 59, "ef01" + "2" * 60]
    for digest in digests:
        (tmp_path / "backbones" / digest).mkdir(parents=True)
    store = Store(str(tmp_path))
    if beginning == "abcde":
        assert find(store, beginning, "backbones") == ("backbones", digests[1])
        return
    with pytest.raises(ValueError, match=f"backbones begin with '{beginning}'") as error:
        find(store, beginning, "backbones")
    named = [digest for digest in digests if digest.startswith(beginning)] or digests
    assert all(digest[:12] in str(error.value) for digest in named)
    assert len(str(error.value).splitlines()) == 1
