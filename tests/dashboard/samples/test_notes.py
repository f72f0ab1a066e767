"""Notes on samples: the last one counts, and nothing else in the file can take it away."""

import json

from perpo_dashboard.samples.notes import NOTES_FILE, Note, read_notes, write_note


def write(folder, key, flagged, text):
    write_note(folder, key, Note(flagged, text), task="boxes", runs=["run-a", "run-b"])


def test_the_last_note_on_a_sample_counts(tmp_path):
    write(tmp_path, "k1", True, "")
    write(tmp_path, "k2", False, "two\nlines </script> ")
    write(tmp_path, "k1", True, "a box of another thing")
    expected = {"k1": Note(True, "a box of another thing"), "k2": Note(False, "two\nlines </script>")}
    assert read_notes(tmp_path) == (expected, 0)
    rows = [json.loads(line) for line in (tmp_path / NOTES_FILE).read_text().splitlines()]
    assert [row["sample_key"] for row in rows] == ["k1", "k2", "k1"]
    assert (rows[0]["task"], rows[0]["runs"]) == ("boxes", ["run-a", "run-b"])
    assert rows[0]["utc"].endswith("+00:00")


def test_an_empty_note_clears_what_was(tmp_path):
    write(tmp_path, "k1", True, "look again")
    write(tmp_path, "k1", False, " ")
    assert read_notes(tmp_path) == ({}, 0)


def test_lines_of_others_are_counted_and_lose_nothing(tmp_path):
    (tmp_path / NOTES_FILE).write_text('{"sample_key": 7, "flagged": true, "note": ""}\nnot JSON\n')
    write(tmp_path, "k1", True, "")
    assert read_notes(tmp_path) == ({"k1": Note(True, "")}, 2)


def test_no_file_holds_no_notes(tmp_path):
    assert read_notes(tmp_path) == ({}, 0)
