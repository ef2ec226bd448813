"""Folders of results: occupied, resumed, staged."""

from contextlib import suppress

import pytest

from energy_at.runs.result_folder import RECORD, ResultFolder


def fill(folder, **contents):
    with folder.staged() as part:
        for name, content in contents.items():
            (part / name).write_text(content)


def visible(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != RECORD}


def test_the_same_key_resumes_and_replaces(tmp_path):
    out = tmp_path / "deep" / "out"
    ResultFolder(out, "analysis", "a").claim()
    assert visible(out) == {}
    fill(ResultFolder(out, "analysis", "a"), table="1")
    fill(ResultFolder(out, "analysis", "a"), table="2")
    assert visible(out) == {"table": "2"}


@pytest.mark.parametrize(
    ("kind", "key"), [("analysis", "b"), ("evaluation", "a"), ("report", None)]
)
def test_another_result_is_refused_and_left_as_it_was(tmp_path, kind, key):
    fill(ResultFolder(tmp_path / "out", "analysis", "a"), table="1")
    with pytest.raises(ValueError, match="out holds another analysis: choose another out=FOLDER"):
        ResultFolder(tmp_path / "out", kind, key)
    assert visible(tmp_path / "out") == {"table": "1"}


def test_files_of_others_are_refused_where_a_key_is_given(tmp_path):
    (tmp_path / ".hidden").touch()
    ResultFolder(tmp_path, "analysis", "a")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="holds other files: choose another out=FOLDER"):
        ResultFolder(tmp_path, "analysis", "a")
    fill(ResultFolder(tmp_path, "report"), table="1")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match=r"cannot be made \(File exists\)"):
        ResultFolder(tmp_path / "out", "analysis", "a")


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(ValueError, match=r".result.json is damaged"):
        ResultFolder(tmp_path, "analysis", "a")


def test_nothing_appears_if_anything_is_raised(tmp_path):
    folder = ResultFolder(tmp_path / "out", "analysis", "a")
    with suppress(RuntimeError), folder.staged() as part:
        (part / "table").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_new_report_removes_what_only_the_old_one_has_written_unless_it_was_changed(tmp_path):
    out = tmp_path / "out"
    fill(ResultFolder(out, "report"), table="1", old="1", changed="1")
    (out / "changed").write_text("mine")
    (out / "mine").write_text("mine")
    fill(ResultFolder(out, "report"), table="2")
    assert visible(out) == {"table": "2", "changed": "mine", "mine": "mine"}
