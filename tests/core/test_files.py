"""Atomic files, staged folders, JSON, digests."""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest

from energy_at.core.files import (
    digest,
    read_json,
    remove_empty,
    replacing,
    staged,
    write_atomic,
    write_error,
)
from energy_at.core.lock import locked
from tests.helpers.running import everything


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("data", ["naïve\n", b"\x00\xff"])
def test_a_file_is_replaced_as_a_whole(tmp_path, data):
    path = tmp_path / "new" / "file"
    for _ in range(2):
        write_atomic(path, data)
        assert path.read_bytes() == (data if isinstance(data, bytes) else data.encode())
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with suppress(RuntimeError), replacing(path) as part:
        part.write_text("new")
        raise RuntimeError
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file": "old"}


def test_what_a_killed_process_has_left_is_removed_and_that_of_others_stays(tmp_path):
    path, host = tmp_path / "a[1].json", platform.node()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [f".a[1].json.{host}-{gone.pid}.part", f".a[1].json.{host}-{os.getppid()}.part",
            f".a[1].json.elsewhere-{gone.pid}.part", f".b.json.{host}-{gone.pid}.part"]  # fmt: skip
    for name in left:
        (tmp_path / name).touch()
    write_atomic(path, "1")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, *left[1:]}


def test_an_error_names_the_target(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_atomic(tmp_path / "folder", "text")
    assert caught.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_digest_depends_on_values_and_not_on_their_order():
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])


@pytest.mark.parametrize("content", ["no json", "[1]", "{", b"\xff"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"file.json is damaged"):
        read_json(path)


def test_staged_files_appear_together_and_others_stay(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    (tmp_path / "out/a").write_text("old")
    with staged(tmp_path / "out") as part:
        (part / "sub").mkdir()
        (part / "a").write_text("new")
        (part / "sub/b").write_text("b")
        assert (tmp_path / "out/a").read_text() == "old"
    found = {path.relative_to(tmp_path).as_posix(): path.read_text()
             for path in tmp_path.rglob("*") if path.is_file()}  # fmt: skip
    assert found == {"out/a": "new", "out/sub/b": "b", "out/mine": "mine"}


def test_a_failed_stage_leaves_nothing(tmp_path):
    before = everything()
    with suppress(RuntimeError), staged(tmp_path / "deep" / "out") as part:
        (part / "a").write_text("a")
        raise RuntimeError
    assert everything() == before


def test_staged_replaces_nothing_where_a_folder_has_the_name_of_a_file(tmp_path):
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "a").write_text("old")

    def write():
        with staged(tmp_path / "out") as part:
            (part / "a").write_text("new")
            (part / "b").write_text("new")

    with pytest.raises(IsADirectoryError, match="out/b"):
        write()
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_staged_refuses_a_file(tmp_path):
    (tmp_path / "out").write_text("text")
    with (
        pytest.raises(ValueError, match="cannot be made"),
        staged(tmp_path / "out"),
    ):
        pass


def test_empty_folders_are_removed_up_to_the_first_that_is_not(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/file").touch()
    remove_empty(tmp_path / "a/b/c")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_two_that_ask_whether_they_can_write_to_a_new_folder_do_not_hinder_each_other(tmp_path):
    folder = tmp_path / "new" / "deep"
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: write_error(folder), range(2000)))
    assert set(found) == {None}


def lock_in(folder):
    with locked(folder / ".lock", folder):
        pass


def write_in(folder):
    write_atomic(folder / "file", "new")
    (folder / "file").unlink()


def stage_in(folder):
    with staged(folder / "out") as part:
        (part / "file").write_text("new")
    shutil.rmtree(folder / "out")


@pytest.mark.parametrize("make", [lock_in, write_in, stage_in])
def test_one_that_asks_whether_it_can_write_to_a_new_folder_hinders_no_writer(tmp_path, make):
    folder = tmp_path / "new" / "deep"
    done = Event()

    def ask():
        while not done.is_set():
            assert write_error(folder) is None
            with suppress(OSError):  # a writer has just made something in it
                folder.rmdir()
                folder.parent.rmdir()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            for _ in range(100):
                make(folder)
        finally:
            done.set()
        asking.result()


def test_an_error_below_a_file_names_the_target(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error:  # noqa: PT011 - which one it is depends on the system
        write_atomic(tmp_path / "file" / "below", "new")
    assert error.value.filename == str(tmp_path / "file" / "below")
