"""A stage is done once, and is refused when it was made of something else."""

import json
import os
import re
import time

import pytest

from perpo.errors import PerpoError
from perpo_eval.recipes.stage import Stage


@pytest.fixture
def stage(tmp_path):
    """Makes the stage sft/train, which notes each time it works; `key` is what it depends on."""

    def make(key, work=None):
        folder = tmp_path / "sft" / "train"

        def write():
            with (folder / "log").open("a") as file:
                file.write("worked\n")
            return {"record": "there"}

        return Stage("train", tmp_path, "sft/train", lambda: key, work or write)

    return make


def test_what_is_done_is_not_done_again(stage, capsys):
    first = stage({"beta": 0.1, "tasks": ["a", "b"], "adapter": None})
    assert first.done() is None
    first.do()
    assert "sft: train took" in capsys.readouterr().err
    done = first.done()
    assert (done["stage"], done["record"]) == ("train", "there")
    again = stage({"beta": 0.1, "tasks": ["a", "b"], "adapter": None})
    again.do()
    assert again.done() == done
    assert (again.folder / "log").read_text() == "worked\n"
    assert capsys.readouterr().err == ""


def test_what_was_made_of_something_else_is_refused_by_name(stage):
    stage({"beta": 0.1, "model": "1234", "seed": 0}).do()
    other = stage({"beta": 0.2, "model": "5678", "seed": 0})
    assert other.changes() == ["beta", "model"]
    with pytest.raises(PerpoError, match=re.escape(f"{other.folder} was made with another beta, model than")) as error:
        other.do()
    assert f"delete {other.output / 'sft'}" in error.value.hint
    assert (other.folder / "log").read_text() == "worked\n"


def test_a_stage_without_a_key_is_of_another_version(stage):
    one = stage({"beta": 0.1})
    one.do()
    done = one.done()
    del done["key"]
    (one.folder / "stage.json").write_text(json.dumps(done))
    with pytest.raises(PerpoError, match="another beta"):
        one.check()


def test_the_seconds_of_attempts_that_were_cut_off_count(stage):
    def fail():
        raise KeyboardInterrupt

    attempt = stage({}, fail)
    # Two attempts, which wrote their last files 30 and 12 seconds after they had begun.
    for lasted in (30, 12):
        with pytest.raises(KeyboardInterrupt):
            attempt.do()
        begun = attempt.folder / "stage.begun"
        now = time.time()
        os.utime(begun, (now - 100, now - 100))
        journal = attempt.folder / "journal"
        journal.touch()
        os.utime(journal, (now - 100 + lasted, now - 100 + lasted))
    last = stage({})
    last.do()
    assert last.done()["seconds"] == pytest.approx(42, abs=2)
    assert not (last.folder / "stage.begun").exists()
