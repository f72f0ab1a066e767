"""perpo.engines.vllm without a vLLM: what is refused, and what is made of what it says. The real one: test_vllm.py."""

from __future__ import annotations

import _thread
import json
import multiprocessing
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from perpo.cli.sample import main as sample_main
from perpo.common.locks import only_process
from perpo.engines.base import Decoding, EngineInfo, NoAnswer, Query, first_seed
from perpo.engines.choice import load_engine
from perpo.engines.vllm import VllmEngine
from perpo.engines.vllm_flags import VllmWanted, check_vllm, vllm_wanted
from perpo.engines.vllm_loading import lora_rank
from perpo.errors import PerpoError
from perpo.models import merging
from perpo.models.families import FAMILIES
from perpo.models.loading import load_processor
from perpo.sample.arguments import SampleArguments
from perpo.sample.run import _provenance
from perpo_eval.cli.eval import main as eval_main


@pytest.mark.parametrize(
    "run",
    [
        lambda folder: sample_main(["--engine", "vllm", "--output", f"{folder}/o.jsonl"]),
        lambda folder: sample_main(["--engine", "vllm", "--output", f"{folder}/o.jsonl", "--processes", "2"]),
        lambda folder: eval_main(["--engine", "vllm", "--output", str(folder), "--limit", "1"]),
    ],
)
def test_without_vllm_nothing_is_begun(run, tmp_path, capsys) -> None:
    assert run(tmp_path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == "error: --engine vllm needs vLLM, which is not installed beside perpo"
    assert "pip install 'perpo[vllm]'" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "hf", "--vllm_args", "max_model_len=5"], "--vllm_args is for --engine vllm"),
        (["--engine", "vllm", "--vllm_args", "max_model_len"], "--vllm_args expects name=value, got 'max_model_len'"),
        (["--engine", "vllm", "--vllm_args", "max_modellen=5"], "--vllm_args knows no 'max_modellen'"),
        (["--engine", "vllm", "--vllm_args", "seed=5"], "--vllm_args knows no 'seed'"),
        (["--engine", "vllm", "--vllm_args", "max_num_seqs=5", "max_num_seqs=6"], "--vllm_args has max_num_seqs twice"),
        (["--engine", "vllm", "--vllm_args", "tensor_parallel_size=x"], "expects a number of GPUs, got 'x'"),
        (["--engine", "vllm", "--device", "cuda:1"], "--device is not for --engine vllm"),
        (["--engine", "vllm", "--stop_on_repetition", "True"], "--stop_on_repetition is not for --engine vllm"),
        (["--engine", "vllm", "--base_url", "http://127.0.0.1:1/v1"], "--base_url is for --engine server"),
    ],
)
def test_flags_that_have_no_use_are_refused(words, said, tmp_path, capsys) -> None:
    for main, output in ((sample_main, f"{tmp_path}/o.jsonl"), (eval_main, str(tmp_path))):
        given = ["perpo" if word == "hf" and main is eval_main else word for word in words]
        assert main([*given, "--output", output]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_vllm_that_cannot_be_imported_is_said(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "vllm.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(os.environ)
    assert sample_main(["--engine", "vllm", "--output", f"{tmp_path}/o.jsonl", "--limit", "1"]) == 2
    assert "vLLM is installed, but cannot be imported: ImportError: libcudart.so.13" in capsys.readouterr().err
    assert dict(os.environ) == before


def test_values_are_read_and_only_those_that_change_numbers_are_kept_in_records() -> None:
    wanted = vllm_wanted(["gpu_memory_utilization=0.8", "enforce_eager=true", "quantization=fp8", "max_model_len=5"])
    assert wanted.settings == {
        "gpu_memory_utilization": 0.8,
        "enforce_eager": True,
        "quantization": "fp8",
        "max_model_len": 5,
    }
    assert wanted.told == {"quantization": "fp8"}
    check_vllm("vllm", SimpleNamespace(vllm_args=["max_model_len=5"]), {}, runs=False)  # type: ignore[arg-type]
    assert SampleArguments(output="o.jsonl", engine="vllm", estimate="H100").engine == "vllm"


def adapter(folder: Path, names: list[str], **settings) -> str:
    folder.mkdir()
    save_file({name: torch.zeros(2, 2) for name in names}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 100, "bias": "none"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def test_adapters_that_vllm_takes_and_those_that_are_merged(tmp_path) -> None:
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    other = "base_model.model.model.multi_modal_projector.linear_1.lora_A.weight"
    llava = FAMILIES["llava"]
    assert lora_rank(adapter(tmp_path / "a", [name]), llava) == 128
    assert lora_rank(adapter(tmp_path / "b", [name], r=8, rank_pattern={"q_proj": 9}), llava) == 16
    assert lora_rank(adapter(tmp_path / "c", [name], r=513), llava) is None
    assert lora_rank(adapter(tmp_path / "d", [name, other]), llava) is None
    assert lora_rank(adapter(tmp_path / "e", [name], modules_to_save=["multi_modal_projector"]), llava) is None
    assert lora_rank(adapter(tmp_path / "f", [name], use_dora=True), llava) is None
    assert lora_rank(adapter(tmp_path / "g", [name], init_lora_weights="pissa"), llava) is None
    assert lora_rank(str(tmp_path / "a"), FAMILIES["llava_onevision"]) is None


class Stub:
    """What `vllm.LLM` is to the engine; it reads and answers as it is told."""

    def __init__(self, read, ends=("stop", "length"), error: Exception | None = None) -> None:
        self.read, self.ends, self.error = read, ends, error
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=200))
        self.asked: list[tuple] = []

    def generate(self, requests, params, **more):
        self.asked.append((requests, params))
        if self.error is not None:
            raise self.error
        outputs = [SimpleNamespace(index=k, token_ids=[5, 6], finish_reason=end) for k, end in enumerate(self.ends)]
        reads = [self.read(each["prompt_token_ids"]) for each in requests]
        return [SimpleNamespace(prompt_token_ids=ids, outputs=outputs[::-1]) for ids in reads]


@pytest.fixture
def engine(monkeypatch):
    module = ModuleType("vllm")
    module.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    loaded = load_processor("tiny")
    info = EngineInfo(name="vllm", model="tiny", by_batch=False, served={"software": "vllm", "version": "0.32.0"})
    image = loaded.tokenizer.convert_tokens_to_ids(loaded.processor.image_token)
    query = Query("Where is the ring?", Image.new("RGB", (64, 48), "red"), draw=3)

    def made(ids):
        count = loaded.encode([loaded.processor.image_token], [query.image])["input_ids"].shape[1]
        return [each for token in ids for each in ([image] * count if token == image else [token])]

    return SimpleNamespace(engine=VllmEngine(loaded, Stub(made), info), query=query, made=made, image=image)


DECODING = Decoding(max_new_tokens=7, num_candidates=2, temperature=0.5, top_p=0.75, seed=9, logps=False)


def test_every_setting_is_given_and_answers_come_in_order(engine) -> None:
    (answers,) = engine.engine.answers([engine.query], DECODING)
    assert [(answer.truncated, answer.tokens, answer.logp) for answer in answers] == [(False, 2, None), (True, 2, None)]
    ((requests, params),) = engine.engine.llm.asked
    assert vars(params[0]) == {
        "n": 2,
        "seed": first_seed(DECODING, 3),
        "temperature": 0.5,
        "top_p": 0.75,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "max_tokens": 7,
        "min_tokens": 0,
        "stop_token_ids": sorted(engine.engine.loaded.end_ids),
        "ignore_eos": False,
        "skip_special_tokens": False,
        "detokenize": False,
    }
    assert requests[0]["prompt_token_ids"].count(engine.image) == 1
    shown = requests[0]["multi_modal_data"]["image"]
    assert shown.size == (64, 64)  # padded, as this family is shown pictures
    (name,) = requests[0]["multi_modal_uuids"]["image"]
    other = replace(engine.query, image=Image.new("RGB", (64, 48), "blue"))
    engine.engine.answers([engine.query, other, engine.query], DECODING)
    names = [each["multi_modal_uuids"]["image"][0] for each in engine.engine.llm.asked[1][0]]
    assert names[0] == names[2] == name != names[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids: ids[:-1], "vLLM reads another prompt"),
        (lambda ids: [ids[0], *ids], "vLLM reads another prompt"),
        (None, "tokens of a picture, and this model"),
    ],
)
def test_another_prompt_is_an_error(engine, change, said) -> None:
    more = lambda ids: [e for t in ids for e in ([t, t] if t == engine.image else [t])]  # noqa: E731
    engine.engine.llm.read = lambda ids: (change or more)(engine.made(ids))
    with pytest.raises(PerpoError, match=said):
        engine.engine.answers([engine.query], DECODING)


def test_what_does_not_fit_is_refused_and_not_cut(engine) -> None:
    length = len(engine.engine._ours(engine.query))
    fits = replace(DECODING, max_new_tokens=200 - length)
    engine.engine.answers([engine.query], fits)
    with pytest.raises(PerpoError, match="exceed the 200 tokens that vLLM takes"):
        engine.engine.answers([engine.query], replace(fits, max_new_tokens=201 - length))


def test_failures_are_missing_answers_or_end_the_run(engine) -> None:
    engine.engine.llm.ends = ("stop", "abort")
    (missing,) = engine.engine.answers([engine.query], DECODING)
    assert isinstance(missing, NoAnswer)
    assert missing.why == "vLLM gave 2 answers, which ended with: abort, stop"
    engine.engine.llm.ends = ("stop",)  # one too few
    assert isinstance(engine.engine.answers([engine.query], DECODING)[0], NoAnswer)
    for error, code in ((ValueError("too long"), 2), (RuntimeError("EngineCore encountered an issue."), 3)):
        engine.engine.llm.error = error
        with pytest.raises(PerpoError, match=str(error)) as raised:
            engine.engine.answers([engine.query], DECODING)
        assert raised.value.exit_code == code


@pytest.fixture
def process():
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), name="EngineCore")
    process.start()
    yield process
    process.kill()
    process.join()


def test_where_its_process_is_killed_nothing_is_waited_for(engine, process) -> None:
    engine.engine.processes = [process]
    stuck = threading.Event()

    def generate(*given, **more):
        process.kill()
        stuck.wait()

    engine.engine.llm.generate = generate
    begun = time.monotonic()
    with pytest.raises(PerpoError, match="its process EngineCore ended with SIGKILL") as raised:
        engine.engine.answers([engine.query], DECODING)
    stuck.set()
    assert time.monotonic() - begun < 10
    assert raised.value.exit_code == 3
    assert "what is finished is kept, and the same command goes on" in raised.value.hint


def test_what_it_answered_before_it_ended_counts(engine, process) -> None:
    engine.engine.processes = [process]
    whole = engine.engine.llm.generate

    def generate(*given, **more):
        process.kill()
        process.join()
        time.sleep(0.5)  # it is seen to have ended before
        return whole(*given, **more)

    engine.engine.llm.generate = generate
    (answers,) = engine.engine.answers([engine.query], DECODING)
    assert len(answers) == 2


def test_ctrl_c_is_heard_while_it_answers(engine, process) -> None:
    engine.engine.processes = [process]
    stuck = threading.Event()

    def generate(*given, **more):
        _thread.interrupt_main()
        stuck.wait()

    engine.engine.llm.generate = generate
    with pytest.raises(KeyboardInterrupt):
        engine.engine.answers([engine.query], DECODING)
    stuck.set()


def test_records_name_the_engine_and_its_version(engine) -> None:
    told = _provenance(DECODING, engine.engine.info)
    assert (told["engine"], told["served"]) == ("vllm", {"software": "vllm", "version": "0.32.0"})


def test_the_folder_of_original_checkpoints_is_refused_before_anything_is_loaded(tmp_path, monkeypatch) -> None:
    module = SimpleNamespace(__version__="0.32.0", LLM=pytest.fail)
    platform = SimpleNamespace(is_cpu=lambda: True, device_type="cpu")
    monkeypatch.setattr("perpo.engines.vllm_loading._imported", lambda: (module, platform))
    monkeypatch.setattr("perpo.engines.vllm_loading.is_original_at", lambda folder: True)
    with pytest.raises(PerpoError, match="vLLM does not know the layout of LLaVA's own code"):
        load_engine("tiny", vllm=VllmWanted({}))


def test_an_adapter_is_merged_once_and_not_where_the_disk_is_full(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = adapter(tmp_path / "a", ["x"])
    written: list[str] = []

    def write(model, adapter, folder, dtype) -> None:
        folder.mkdir()
        written.append(dtype)

    monkeypatch.setattr(merging, "write_merged", write)
    usage = SimpleNamespace(free=10)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda place: usage)
        with pytest.raises(PerpoError, match=r"the merged model takes 0.0 GB, and .* has 0.0 GB left") as raised:
            merging.merged_once("tiny", folder, "float32")
    assert raised.value.exit_code == 3
    assert written == []
    first = merging.merged_once("tiny", folder, "float32")
    assert first == merging.merged_once("tiny", folder, "float32")
    assert merging.merged_once("tiny", folder, "bfloat16") != first
    assert written == ["float32", "bfloat16"]


def test_a_process_waits_for_the_one_that_merges(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = adapter(tmp_path / "a", ["x"])
    monkeypatch.setattr(merging, "write_merged", lambda *given: given[2].mkdir())
    output = merging.merged_once("tiny", folder, "float32")
    output.rmdir()
    monkeypatch.setattr(merging, "write_merged", pytest.fail)
    with only_process(output, "merge", beside=True):
        monkeypatch.setattr(merging.time, "sleep", lambda s: output.mkdir())  # the other one is done
        assert merging.merged_once("tiny", folder, "float32") == output
    assert "waiting for another process that merges this adapter" in capsys.readouterr().err
