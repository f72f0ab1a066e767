"""The flags of perpo-eval and its judge, taken apart."""

import dataclasses
import shlex

from perpo.common.arguments import parse_arguments
from perpo_eval.arguments import EvalArguments, JudgeArguments
from perpo_eval.wanted import RunWanted

FLAGS = {"suite": "pope", "model": "m", "adapter": "a", "data": "d", "tasks": ["t", "u"], "limit": 3, "batch_size": 4}
FLAGS |= {"max_new_tokens": "pope=5", "temperature": 0.5, "top_p": 0.6, "seed": 7, "prompt_style": "lmms_eval"}
FLAGS |= {"stop_on_repetition": True}
FLAGS |= {"engine": "server", "model_args": "x=y,z=1=2", "max_error_share": 0.25, "dtype": "float16", "device": "cpu"}
FLAGS |= {"family": "f", "box_scale": "pixels", "box_order": "yxyx", "box_frame": "padded"}
FLAGS |= {"judge_model": "j", "judge_base_url": "http://j", "judge_votes": 8, "judge_swap": True, "judge_rps": 9.0}
FLAGS |= {"include_path": "i", "judge_concurrency": 10, "name": "n", "output": "o"}
SERVERS = {"base_url": ["http://s"], "served_model": "s", "concurrency": 11, "rps": 12.0, "timeout_s": 13.0}
FLAGS |= SERVERS
FLAGS |= {"vllm_args": ["max_model_len=5", "quantization=fp8"]}
AT_THE_HEAD = {"estimate", "questions", "responses", "rescore", "json", "judge", "reviewed_labels"}
"""What becomes of the answers is decided there; `judge` says whether one is asked at all."""


def test_every_flag_but_those_of_the_head_is_in_one_part() -> None:
    args = EvalArguments(**FLAGS)  # type: ignore[arg-type]
    boxes = dataclasses.asdict(args.reading)
    found = [(name if name in ("family", "prompt_style") else f"box_{name}", value) for name, value in boxes.items()]
    found += [(f"judge_{name}", value) for name, value in dataclasses.asdict(args.judge_wanted).items()]
    for part in (args.rows_wanted, args.engine_wanted, args.decoding_wanted, args.run_wanted):
        found += dataclasses.asdict(part).items()
    assert found.pop([name for name, _ in found].index("servers"))[1] == SERVERS
    found += SERVERS.items()
    assert found.pop([name for name, _ in found].index("vllm"))[1] is None  # as another engine answers
    found.append(("vllm_args", ["max_model_len=5", "quantization=fp8"]))
    wanted = dataclasses.replace(args, engine="vllm").engine_wanted
    assert wanted.servers is None
    assert wanted.vllm is not None
    assert wanted.vllm.settings == {"max_model_len": 5, "quantization": "fp8"}
    assert len(found) == len(dict(found))
    assert dict(found) == FLAGS | {"tasks": ("t", "u"), "command": args.run_wanted.command}
    assert set(FLAGS) | AT_THE_HEAD == {field.name for field in dataclasses.fields(args)}


def test_the_parts_know_the_judges_flags_that_are_given_and_what_is_given_to_a_model() -> None:
    args = EvalArguments(**FLAGS)  # type: ignore[arg-type]
    assert args.judge_wanted.given == [name for name in FLAGS if name.startswith("judge_")]
    assert EvalArguments().judge_wanted.given == []
    assert args.engine_wanted.given_to_model == {"x": "y", "z": "1=2"}


def test_a_runs_command_gives_its_flags_again() -> None:
    args = EvalArguments(**FLAGS)  # type: ignore[arg-type]
    program, *words = shlex.split(args.run_wanted.command)
    assert program == "perpo-eval"
    assert parse_arguments(EvalArguments, words, prog="perpo-eval", description="") == args
    judge = JudgeArguments(run="r", name="n", output="o", judge_votes=3)
    assert judge.run_wanted == RunWanted(name="n", output="o", command=judge.run_wanted.command)
    program, subcommand, *words = shlex.split(judge.run_wanted.command)
    assert (program, subcommand) == ("perpo-eval", "judge")
    assert parse_arguments(JudgeArguments, words, prog="perpo-eval judge", description="") == judge


def test_the_batch_and_the_checkpoint_that_are_meant_where_none_is_named() -> None:
    own, other = EvalArguments().engine_wanted, EvalArguments(engine="lmms:x").engine_wanted
    assert (own.own, own.embedded, own.checkpoint, own.questions_at_once) == (True, True, "tiny", 16)
    assert (other.own, other.embedded, other.questions_at_once) == (False, False, 1)
    assert EvalArguments(model="m", batch_size=2).engine_wanted.questions_at_once == 2
    assert not EvalArguments(model="m").engine_wanted.embedded
