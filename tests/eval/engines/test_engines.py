"""--engine lmms:<model>: models of lmms-eval's answer the same questions, and nothing of theirs is lost either."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import lmms_eval
import pytest
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.models.registry_v2 import ModelManifest

from perpo.errors import PerpoError
from perpo.records.store import Run, read_run
from perpo_eval.arguments import EvalArguments, JudgeFlags
from perpo_eval.cli.eval import main
from perpo_eval.cli.show import show
from perpo_eval.engines.choice import check_engine, load_engine
from perpo_eval.engines.failures import read_answer
from perpo_eval.evaluate import run as runner
from perpo_eval.evaluate.run import evaluate
from perpo_eval.wanted import EngineWanted, Reading


class Scripted(lmms):
    """A model that says a box made of the picture's width and the question's length, and may fail on the way."""

    asked: list[int] = []  # noqa: RUF012  (of all objects: the program makes them)
    fails_at = 10**6

    def __init__(self, pretrained: str, batch_size: int = 1, tone: str = "") -> None:
        super().__init__()
        self.tone = tone

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """An answer to each request."""
        if sum(self.asked) >= self.fails_at:
            raise ConnectionError("the server went away")
        self.asked.append(len(requests))
        return [self._say(*self._look(request.args)) for request in requests]

    def _say(self, width: int, question: str) -> Any:
        return f"[0.{width}, 0.10, 0.9, 0.{len(question)}]{self.tone}"

    def _look(self, args: tuple) -> tuple[int, str]:
        context, settings, doc_to_visual, doc_id, task, split = args
        (image,) = doc_to_visual(self.task_dict[task][split][doc_id])
        assert (settings["max_new_tokens"], settings["do_sample"]) == (64, False)
        return image.width, context

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> Any:
        raise NotImplementedError


class Chatting(Scripted):
    """The same in the form that takes messages, and counts its tokens."""

    is_simple = False

    def _say(self, width: int, question: str) -> Any:
        return GenerationResult(super()._say(width, question), TokenCounts(output_tokens=width))

    def _look(self, args: tuple) -> tuple[int, str]:
        context, doc_to_messages, settings, doc_id, task, split = args
        (message,) = doc_to_messages(self.task_dict[task][split][doc_id])
        image, text = message["content"]
        assert (message["role"], image["type"], text["type"]) == ("user", "image", "text")
        assert text["text"] == context
        assert settings["max_new_tokens"] == 64
        return image["url"].width, text["text"]


class Silent(Scripted):
    """One that fails as some of lmms-eval's do: without a word."""

    def _say(self, width: int, question: str) -> Any:
        return "" if width == 160 else super()._say(width, question)


class Short(Scripted):
    """One that loses an answer."""

    def generate_until(self, requests: list[Any]) -> list[Any]:
        return super().generate_until(requests)[1:]


@pytest.fixture(autouse=True)
def models(monkeypatch) -> None:
    """Make the models above known to lmms-eval, for one test."""
    module = ModuleType("scripted_models")
    for kind in (Scripted, Chatting, Silent, Short, Remote):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "asked", [])
        monkeypatch.setattr(kind, "fails_at", 10**6)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for table in ("_manifests", "_alias_to_model_id"):
        monkeypatch.setattr(MODEL_REGISTRY_V2, table, dict(getattr(MODEL_REGISTRY_V2, table)))
    for kind in (Scripted, Silent, Short, Remote):
        path = f"{module.__name__}.{kind.__name__}"
        MODEL_REGISTRY_V2.register_manifest(ModelManifest(kind.__name__.lower(), simple_class_path=path))
    MODEL_REGISTRY_V2.register_manifest(ModelManifest("chatting", chat_class_path=f"{module.__name__}.Chatting"))


@pytest.fixture
def ask(refcoco_folder, checkpoint, tmp_path) -> Callable[..., Run]:
    """Evaluate with a model of lmms-eval's: two tasks of ten questions each, which are the same."""

    def run(engine: str, **settings: object) -> Run:
        arguments = {"model": str(checkpoint), "data": str(refcoco_folder), "output": str(tmp_path / "out")}
        arguments |= {"engine": engine, "batch_size": 1, "box_frame": None if engine == "perpo" else "cropped"}
        path = evaluate(EvalArguments(**arguments | settings))  # type: ignore[arg-type]
        assert path is not None
        return read_run(path)

    return run


def engine_and_reading(**flags: object) -> tuple[EngineWanted, Reading]:
    """What an engine is loaded from, as these flags say it."""
    args = EvalArguments(**flags)  # type: ignore[arg-type]
    return args.engine_wanted, args.reading


def test_a_model_behind_a_server_is_not_taken_for_the_embedded_one(ask) -> None:
    """Without a checkpoint there is no digest, no family, and no journal that a later run could meet."""

    class Served(Scripted):
        def __init__(self, model: str, batch_size: int = 1) -> None:
            super().__init__("", batch_size)

    kind = type(sys)("served_module")
    kind.Served = Served  # type: ignore[attr-defined]
    sys.modules["served_module"] = kind
    MODEL_REGISTRY_V2.register_manifest(ModelManifest("served", simple_class_path="served_module.Served"))
    given = {"model": None, "model_args": "model=some-4o", "box_frame": None, "max_new_tokens": 64}
    info = ask("lmms:served", data="tiny", suite="pope", limit=2, **given).record.model
    assert (info.id, info.family, info.weights_sha256, info.revision) == ("some-4o", None, None, None)
    parts = engine_and_reading(engine="lmms:served", model_args="model=some-4o", suite="pope")
    assert load_engine(*parts).identity != load_engine(*parts).identity  # nobody knows where it is


class Remote(Scripted):
    """One behind an address, which answers yes; some of its requests may fail."""

    failing = False

    def __init__(self, model_version: str = "m-default", base_url: str = "", api_key: str = "", batch_size: int = 1):
        super().__init__("", batch_size)
        self.base_url, self.key = base_url, api_key

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Yes to each request, or the text that lmms-eval has for a server's 500."""
        self.asked.append(len(requests))
        gone = f"[LMMS_EVAL_REQUEST_FAILED after 1 retries] 500 for {self.key}"
        return [gone if self.failing else "yes" for _ in requests]


def test_a_servers_run_goes_on_under_its_name_and_its_key_is_nowhere(ask, tmp_path, monkeypatch) -> None:
    given = {"model": None, "box_frame": None, "data": "tiny", "suite": "pope", "limit": 10, "max_new_tokens": 64}
    words = "model_version=m-7b,base_url=http://me:word-of-mine@host/v1,api_key="
    monkeypatch.setattr(Remote, "failing", True)
    with pytest.raises(PerpoError, match="lmms:remote gives no answers") as caught:
        ask("lmms:remote", model_args=words + "key-of-yesterday", **given)
    assert caught.value.exit_code == 3
    assert Remote.asked == [4, 4, 4]  # three parts, not thirty questions
    journals = list(tmp_path.rglob("*.jsonl"))
    kept = "".join(path.read_text() for path in journals)
    Remote.asked.clear()
    monkeypatch.setattr(Remote, "failing", False)
    Remote.fails_at = 8
    real = Remote.generate_until

    def stops(self, requests: list[Any]) -> list[Any]:
        if sum(self.asked) >= self.fails_at:
            raise KeyboardInterrupt
        return real(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "generate_until", stops)
        with pytest.raises(KeyboardInterrupt):
            ask("lmms:remote", model_args=words + "key-of-yesterday", **given)
    run = ask("lmms:remote", model_args=words + "key-of-today", **given)
    assert Remote.asked == [4, 4, 4, 4, 2]  # the 18 questions that differ, none twice
    assert (run.record.model.id, run.record.status, run.record.hardware["device"]) == ("m-7b", "complete", None)
    kept += "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert not [word for word in ("key-of-yesterday", "key-of-today", "word-of-mine") if word in kept]
    assert "m-7b" in str(run.record.command)


def test_every_file_of_a_folder_that_a_model_is_given_counts(checkpoint, tmp_path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.bin").write_bytes(b"1")
    words = f"pretrained={checkpoint},tone={tmp_path / 'adapter'}"
    parts = engine_and_reading(engine="lmms:scripted", model_args=words, box_frame="cropped")
    before = load_engine(*parts).identity
    assert load_engine(*parts).identity == before
    (tmp_path / "adapter" / "weights.bin").write_bytes(b"2")
    assert load_engine(*parts).identity != before


@dataclasses.dataclass(frozen=True, kw_only=True)
class WantedAnew(EngineWanted):
    """As if a flag had been added, and nothing else done."""

    new: int = 0


@pytest.mark.parametrize("engine", ["perpo", "lmms:scripted"])
def test_an_identity_holds_every_flag_that_is_not_named_as_no_part_of_it(engine, checkpoint) -> None:
    wanted, reading = engine_and_reading(engine=engine, model=str(checkpoint), box_frame="cropped")
    known = vars(wanted)
    plain, one, other = (
        load_engine(each, reading).identity for each in (wanted, WantedAnew(**known), WantedAnew(**known, new=1))
    )
    assert (one, other) == (plain | {"new": 0}, plain | {"new": 1})
    unknown = EngineWanted(**known | {"batch_size": 3, "max_error_share": 0.5, "device": None})
    assert unknown.besides == wanted.besides == {}


@pytest.mark.parametrize("model", ["scripted", "chatting"])
def test_a_model_of_lmms_evals_is_asked_and_scored(model, ask, checkpoint, tmp_path) -> None:
    kind = {"scripted": Scripted, "chatting": Chatting}[model]
    run = ask(f"lmms:{model}", model_args="tone=!")
    info, rows = run.record.model, run.samples().to_pylist()
    assert run.record.hardware["device"] is None
    assert (info.id, info.engine, info.family) == (checkpoint.name, f"lmms:{model}", "llava")
    assert (info.dtype, info.attention, info.adapter, info.processor) == (None, None, None, None)
    assert len(rows) == 20
    for row in rows:
        assert row["response"] == f"[0.{row['image']['width']}, 0.10, 0.9, 0.{len(row['question'])}]!"
        assert row["tokens_out"] == (row["image"]["width"] if model == "chatting" else None)
        assert (row["prompt"], row["finish_reason"], row["latency_ms"]) == (None, None, None)  # not known, not 0
        assert row["prediction"] is not None
    assert kind.asked == [4, 4, 2]  # four batches at a time, and what two tasks ask alike once
    assert not (tmp_path / "out/.responses").exists()


@pytest.mark.parametrize("model", ["scripted", "chatting"])
def test_what_was_answered_before_a_failure_is_kept(model, ask) -> None:
    kind = {"scripted": Scripted, "chatting": Chatting}[model]
    kind.fails_at = 8
    with pytest.raises(ConnectionError, match="went away"):
        ask(f"lmms:{model}")
    kind.fails_at = 10**6
    run = ask(f"lmms:{model}")
    assert kind.asked == [4, 4, 2]
    assert run.samples().num_rows == 20


def test_other_arguments_and_engines_meet_no_old_answers(ask) -> None:
    Scripted.fails_at = Chatting.fails_at = 4
    for settings in ({"engine": "lmms:scripted"}, {"engine": "lmms:scripted", "model_args": "tone=?"}):
        with pytest.raises(ConnectionError):
            ask(**settings)
        Scripted.asked.clear()
    with pytest.raises(ConnectionError):
        ask("lmms:chatting")
    Scripted.fails_at = 10**6
    ask("lmms:scripted", model_args="tone=.")
    assert sum(Scripted.asked) == 10


def test_an_empty_answer_is_an_error_and_no_wrong_answer(ask, capsys, tmp_path) -> None:
    """The rate of ten right questions is that of the eight that were answered; what failed is asked again."""
    run = ask("lmms:silent")
    rows = run.samples().to_pylist()
    failed = [row for row in rows if row["image"]["width"] == 160]
    assert len(failed) == 4
    for row in failed:
        assert (row["response"], row["parse_ok"], row["prediction"]) == (None, None, None)
        assert "an empty answer" in row["error"]
        assert set(row["scores"].values()) == {None}
    assert [(task.n_scored, task.n_error, task.n_parse_fail) for task in run.record.tasks] == [(10, 2, 0)] * 2
    assert {metric.n for metric in run.record.tasks[0].metrics if ":" not in metric.name} == {8}
    assert run.record.status == "partial"  # a fifth, and one in a hundred is allowed
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line[:58] for line in said] == ["warning: 4 of 20 questions got no answer from lmms:silent "]
    assert show(run.path, JudgeFlags(), as_json=False) == 3
    assert "error: partial: 4 of 20 questions have no answer" in capsys.readouterr().err
    Silent.asked.clear()
    again = ask("lmms:silent", max_error_share=0.2)
    assert Silent.asked == [2]  # the two expressions of that picture
    assert again.record.status == "complete"
    assert again.record.generation["max_error_share"] == 0.2
    assert evaluate(EvalArguments(rescore=again.path, output=str(tmp_path / "again"))) is not None


FAILED = GenerationResult("", TokenCounts(output_tokens=0))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("yes", "yes"),
        (GenerationResult("yes", TokenCounts(output_tokens=1)), "yes"),
        (GenerationResult("", TokenCounts(output_tokens=1)), ""),  # an end token alone is an answer
        (GenerationResult(None, TokenCounts(output_tokens=9)), None),  # all of it thoughts, which the server keeps
        ("", None),
        ("  ", None),
        (FAILED, None),
        (GenerationResult(None, None), None),  # str(None) is no answer
        ("[LMMS_EVAL_REQUEST_FAILED after 5 retries] Error code: 500", None),
        (GenerationResult("[LMMS_EVAL_REQUEST_FAILED after 5 retries] boom", TokenCounts()), None),
        ("[LMMS_EVAL_BUDGET_EXCEEDED]", None),
        ("[GENERATION_FAILED] CUDA out of memory", None),
        ('Error: can only concatenate str (not "NoneType") to str', None),
        ("The sign reads [LMMS_EVAL_REQUEST_FAILED after", "The sign reads [LMMS_EVAL_REQUEST_FAILED after"),
    ],
)
def test_what_lmms_eval_makes_of_an_exception_is_no_answer(said, text) -> None:
    response = read_answer(said)
    assert (response.text, response.error is None) == ((text, True) if text is not None else ("", False))


def test_every_text_that_lmms_eval_makes_of_a_failed_request_is_known() -> None:
    """In the installed version: a text with a name of its own that a newer one brings shows here."""
    folder = Path(lmms_eval.__file__).parent / "models"
    marks = {mark for file in folder.rglob("*.py") for mark in re.findall(r'"(\[[A-Z_]{5,}\b[^"{]*)', file.read_text())}
    assert any(mark.startswith("[LMMS_EVAL_REQUEST_FAILED") for mark in marks)
    answered = {mark for mark in marks if read_answer(mark).error is None}
    assert {mark for mark in answered if "FAIL" in mark or "ERROR" in mark or "LMMS_EVAL" in mark} == set()


def test_a_secret_in_an_error_is_hidden() -> None:
    said = "[LMMS_EVAL_REQUEST_FAILED after 1 retries] wrong key: local-key-of-mine at http://me:word@host/v1"
    error = str(read_answer(said, {"local-key-of-mine"}).error)
    assert "local-key-of-mine" not in error
    assert "me:word" not in error


def test_a_model_that_loses_answers_is_refused(ask, tmp_path) -> None:
    with pytest.raises(PerpoError, match="lmms:short gave 3 answers to 4 questions") as caught:
        ask("lmms:short")
    assert caught.value.exit_code == 3
    assert list(tmp_path.glob("out/*/*/run.json")) == []


def test_llava_hf_reads_the_same_questions(ask, refcoco_folder, checkpoint, tmp_path, monkeypatch) -> None:
    """lmms-eval's own class for this family, from the same checkpoint."""
    decord: Any = ModuleType("decord")  # of videos; llava_hf imports it, and does not require it
    decord.VideoReader = decord.cpu = None
    monkeypatch.setitem(sys.modules, "decord", decord)
    theirs = ask("lmms:llava_hf", model_args="device=cpu,device_map=cpu", max_new_tokens=8, tasks=["refcoco_val"])
    ours = ask("perpo", max_new_tokens=8, tasks=["refcoco_val"], device="cpu")
    assert theirs.record.model.engine == "lmms:llava_hf"
    assert theirs.record.model.weights_sha256 == ours.record.model.weights_sha256
    columns = ["sample_key", "question", "target", "image", "cluster_id"]
    assert theirs.samples(columns).equals(ours.samples(columns))
    answers = theirs.samples(["response"])["response"].to_pylist()
    assert None not in answers
    assert any(answers)


def test_a_model_whose_library_is_absent_is_one_sentence(
    refcoco_folder, checkpoint, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    for kind in ("simple", "chat"):
        monkeypatch.delitem(sys.modules, f"lmms_eval.models.{kind}.llava_hf", raising=False)
    words = ["--engine", "lmms:llava_hf", "--model", str(checkpoint), "--data", str(refcoco_folder)]
    words += ["--box_frame", "cropped"]
    code = main([*words, "--output", str(tmp_path)])
    err = capsys.readouterr().err
    assert code == 2
    lines = [line for line in err.splitlines() if not line.startswith(("20", "note: "))]  # without lmms-eval's log
    error, *rest = lines
    assert error.startswith("error: lmms-eval's llava_hf cannot be imported: ")
    assert "decord" in error
    assert rest == ["hint: install the packages that it needs"]


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["--engine", "llava_hf"], "--engine is llava_hf; expected perpo or lmms:<model>", "such as lmms:llava_hf"),
        (["--engine", "lmms:"], "--engine is lmms:; expected", ""),
        (["--engine", "lmms:llava_hff"], "lmms-eval knows no model 'llava_hff'", "did you mean 'llava_hf'?"),
        (["--model_args", "device=cpu"], "--model_args is for --engine lmms:<model>", "--device"),
        (["--engine", "lmms:scripted", "--adapter", "x"], "--adapter is for --engine perpo", "perpo-train merge"),
        (["--engine", "lmms:scripted", "--temperature", "1"], "--temperature is for --engine perpo", ""),
        (
            ["--engine", "lmms:scripted", "--stop_on_repetition", "True"],
            "--stop_on_repetition is for --engine perpo",
            "loops are counted for any engine",
        ),
        (["--engine", "lmms:scripted", "--dtype", "bfloat16"], "--dtype and --device are for", "--model_args"),
        (["--engine", "lmms:scripted", "--device", "cpu"], "--dtype and --device are for", "--model_args"),
        (["--engine", "lmms:scripted", "--model_args", "pretrained=x"], "--model beside pretrained=", "one of the two"),
        (
            ["--engine", "lmms:scripted"],
            "it is not known to which frame its boxes refer",
            "--box_frame cropped for lmms:llava_hf",
        ),
        (
            ["--max_error_share", "0.5"],
            "--max_error_share is for --engine vllm, server and lmms:<model>",
            "ends the run",
        ),
        (["--engine", "lmms:scripted", "--max_error_share", "2"], "--max_error_share must be from 0 to 1, got 2.0", ""),
        (["--family", "llava"], "--family is for --engine lmms:<model>", "a checkpoint says its own"),
    ],
)
def test_wrong_engines_are_refused_at_once(words, said, hint, checkpoint, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(runner, "load_task", lambda *words: pytest.fail("rows were read"))
    monkeypatch.chdir(tmp_path)
    assert main(["--model", str(checkpoint), *words]) == 2
    out, err = capsys.readouterr()
    error, *hints = err.splitlines()
    assert (out, error[: len("error: ")]) == ("", "error: ")
    assert said in error
    assert hint in "".join(hints)
    assert list(tmp_path.iterdir()) == []


def test_boxes_of_a_family_that_nobody_knows_are_refused(ask, checkpoint, tmp_path, refcoco_folder) -> None:
    """A model by its hub id, say: the family is asked for, not guessed."""
    settings = {"engine": "lmms:scripted", "model": "some/model"}
    with pytest.raises(PerpoError, match="refcoco_val needs to know how this model writes boxes") as caught:
        ask(**settings)
    assert "--family" in caught.value.hint
    assert Scripted.asked == []
    run = ask(**settings, family="llava")
    assert (run.record.model.id, run.record.model.weights_sha256) == ("some/model", None)
    assert {row["box_frame"] for row in run.samples(["box_frame"]).to_pylist()} == {"cropped"}


def test_an_adapter_that_nobody_here_loads_is_refused(checkpoint, tmp_path) -> None:
    """transformers puts an adapter on its base as far as it fits, and goes on with the rest of the base."""
    (tmp_path / "adapter_config.json").write_text("{}")
    for key in ("peft", "pretrained"):
        parts = engine_and_reading(engine="lmms:scripted", model_args=f"{key}={tmp_path}", family="llava")
        with pytest.raises(
            PerpoError, match="is an adapter, but it could not be checked whether scripted loads"
        ) as caught:
            check_engine(*parts, EvalArguments().decoding_wanted)
        assert "perpo-train merge" in caught.value.hint
