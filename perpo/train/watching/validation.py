"""Validation during training: greedy answers to held-out questions, their rewards, and the best adapter kept."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback

from perpo.boxes import PARTS, declared
from perpo.common.files import recover_folder, replace_folder
from perpo.common.redact import without_secrets
from perpo.data import PreferenceRecord, Question, check_images, data_sha256, image_root_of, read_questions
from perpo.data.truths import check_formats
from perpo.engines.hf import HfSampler
from perpo.errors import PerpoError
from perpo.models.answer_format import answer_format, usual_resize
from perpo.models.checkpoints import digests_of, grounding_prompt, refused_pictures
from perpo.records.training_record import Score, ValidationInfo, write_record
from perpo.rewards import RewardFunction, check_truths, load_reward, score
from perpo.rewards.asked import Asked, asked_of
from perpo.train.arguments import TrainArguments
from perpo.train.outputs.card import write_card
from perpo.train.resuming import BEST, best_step, step_of

if TYPE_CHECKING:
    from perpo.train.trainer import PreferenceTrainer

_ACCURATE = 0.5


@dataclass(frozen=True)
class HeldOut:
    """The held-out questions, checked.

    Attributes:
        asked: The questions.
        image_root: Folder that their image paths start from.
        reward: What their answers are rewarded with.
        reward_name: Its name.
    """

    asked: list[Asked]
    image_root: Path
    reward: RewardFunction
    reward_name: str


def read_held_out(args: TrainArguments, records: Sequence[Question]) -> HeldOut | None:
    """Read and check what validation needs, all but the model; None where there is no `eval_data`.

    Args:
        args: The run's arguments.
        records: The training data, which say what reward they were made with.

    Raises:
        PerpoError: The questions, their images or truths, or the reward cannot be used.
    """
    if args.eval_data is None:
        return None
    name = args.eval_reward or _reward_of(records)
    given = {part: getattr(args, f"eval_truth_{part}") for part in PARTS}
    are_boxes = name == "iou" or any(given.values())
    said = {part: getattr(args, f"eval_box_{part}") for part in PARTS}
    answers = answer_format(args.model, **said if any(said.values()) else _said_by(records), are_boxes=are_boxes)
    truths = declared(answers, **given)
    reward = load_reward(name, answers, truths)
    questions = read_questions(args.eval_data, grounding_prompt=grounding_prompt(args.model))
    if truths is not None and are_boxes:
        check_formats(questions, truths, given, usual_resize(args.model))
    image_root = Path(args.eval_image_root or image_root_of(args.eval_data))
    check_images(questions, image_root, refused_pictures(args.model))
    asked = asked_of(questions, image_root)
    check_truths(reward, (each.sample for each in asked), truths if are_boxes else None, answers)
    return HeldOut(asked, image_root, reward, name)


def _said_by(records: Sequence[Question]) -> dict[str, Any]:
    """How the answers of the training data write boxes, if all their records say the same; else nothing."""
    found = {tuple(getattr(record, f"box_{part}") for part in PARTS) for record in records}
    one = dict(zip(PARTS, found.pop(), strict=True)) if len(found) == 1 else {}
    return one if one.get("scale") is not None else {}


def _reward_of(records: Sequence[Question]) -> str:
    names = {record.reward_name if isinstance(record, PreferenceRecord) else None for record in records}
    if len(names) == 1 and (name := names.pop()) in ("iou", "edit"):
        return name
    raise PerpoError(
        "the training data do not say what reward the held-out answers are to be given",
        "give --eval_reward iou, edit or module:function",
    )


class Validation(TrainerCallback):
    """Rewards greedy answers before training, every `eval_steps` steps and after the last; keeps the best adapter.

    The processes share the questions. With ZeRO-3, whose processes have to run every layer together,
    they all answer all of them in step.

    Args:
        args: The run's arguments.
        held_out: The questions.
        trainer: Knows the model; logs and saves.
        record: The run's record, which the scores go into.
        checkpoint: What the run goes on from, or None.
    """

    def __init__(
        self,
        args: TrainArguments,
        held_out: HeldOut,
        trainer: PreferenceTrainer,
        record: dict[str, Any],
        checkpoint: Path | None,
    ) -> None:
        assert args.eval_data is not None
        self.args = args
        self.held_out = held_out
        self.trainer = trainer
        self.record = record
        self.checkpoint = checkpoint
        self.in_step = trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
        self.model = trainer.policy.model
        self.sampler = HfSampler(
            loaded=dataclasses.replace(
                trainer.policy.loaded, model=_SameLogits(self.model) if self.in_step else self.model
            ),
            image_root=held_out.image_root,
            num_candidates=1,
            temperature=0.0,
            top_p=1.0,
            seed=0,
            max_new_tokens=args.eval_max_new_tokens,
        )
        self.sampler.check_context([each.question for each in held_out.asked])
        self.info: ValidationInfo = {
            "data": without_secrets(args.eval_data),
            "data_sha256": data_sha256(args.eval_data),
            "reward_name": held_out.reward_name,
            "questions": len(held_out.asked),
            "scores": [],
            "best": None,
        }
        record["validation"] = self.info

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that goes on has its earlier scores in the checkpoint's log."""
        if state.is_world_process_zero:
            recover_folder(self._best)
            if self.checkpoint is None:
                self._put_best_aside()
            elif not self._best.is_dir():
                self._bring_best(self.checkpoint)
        for entry in state.log_history:
            if "eval_reward" in entry:
                self._add(_score_of(entry))
        if state.global_step == 0:
            self._validate(state, control)

    def _put_best_aside(self) -> None:
        """Keep what a run without checkpoints left, for this one begins again and makes its own."""
        if steps := best_step(self._best.parent):
            aside = self._best.with_name(f"{BEST}-step-{steps}")
            replace_folder(self._best, aside)
            said = f"warning: there is no checkpoint to go on from; {BEST}/ is put aside as {aside.name}/"
            print(said, file=sys.stderr)

    def _bring_best(self, checkpoint: Path) -> None:
        """Take along the best/ of the run that a checkpoint is from, unless it is of a later step."""
        earlier = checkpoint.parent / BEST
        if earlier.is_dir() and best_step(checkpoint.parent) <= step_of(checkpoint):
            new = self._best.with_name(f".{BEST}.new")
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(earlier, new)
            replace_folder(new, self._best)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.args.eval_steps == 0 or state.global_step >= state.max_steps:
            self._validate(state, control)

    def _validate(self, state: Any, control: Any) -> None:
        values = self._mean_values()
        log_step = control.should_log
        self.trainer.log({f"eval_{name}": value for name, value in values.items() if value is not None})
        control.should_log = log_step  # logging has switched it off, and the step's own entry is still to come
        if self._add({"step": state.global_step, **values}):  # type: ignore[typeddict-item]
            self._keep()
        if state.is_world_process_zero:
            write_record(self.args.output_dir, self.record)

    def _add(self, score: Score) -> bool:
        """Take a score down; whether it is the best so far, of equals the first."""
        self.info["scores"].append(score)
        best = self.info["best"]
        if best is not None and score["reward"] <= best["reward"]:
            return False
        self.info["best"] = score
        return True

    def _mean_values(self) -> dict[str, float | None]:
        self.model.eval()
        rows = self._answered()
        rewards, readable, truncated = zip(*rows, strict=True)
        count = len(rows)
        accurate = sum(reward >= _ACCURATE for reward in rewards) / count
        return {
            "reward": sum(rewards) / count,
            "acc_50": accurate if self.held_out.reward_name == "iou" else None,
            "unreadable": readable.count(False) / count,
            "truncated": truncated.count(True) / count,
        }

    def _answered(self) -> list[tuple[float, bool, bool]]:
        """(reward, readable, truncated) of every question, on every process."""
        place, places = (0, 1) if self.in_step else (self.trainer.args.process_index, self.trainer.args.world_size)
        mine = list(enumerate(self.held_out.asked))[place::places]
        size = self.args.per_device_eval_batch_size
        rows = []
        for start in range(0, len(mine), size):
            batch = mine[start : start + size]
            found = self.sampler.answers([(number, each.question) for number, each in batch])
            for (_, each), (answer,) in zip(batch, found, strict=True):
                scored = score(self.held_out.reward, answer.said, each.question.answer, each.sample)
                rows.append((scored.reward, scored.readable, answer.truncated))
        # In the order of their values: a sum is then the same however many processes there are.
        return sorted(gather_object(rows) if places > 1 else rows)

    @property
    def _best(self) -> Path:
        return Path(self.args.output_dir, BEST)

    def _keep(self) -> None:
        """Put the adapter as it is now into best/, in one piece; all processes take part in saving."""
        new = self._best.with_name(f".{BEST}.new")
        first = self.trainer.is_world_process_zero()
        if first:
            shutil.rmtree(new, ignore_errors=True)
        PartialState().wait_for_everyone()
        self.trainer.save_model(str(new), _internal_call=True)
        if first:
            step = self.trainer.state.global_step
            write_record(new, self.record | {"steps": step, **digests_of(new)})
            write_card(new, self.record, step)
            replace_folder(new, self._best)
        PartialState().wait_for_everyone()


def _score_of(entry: dict[str, Any]) -> Score:
    return {
        "step": entry["step"],
        "reward": entry["eval_reward"],
        "acc_50": entry.get("eval_acc_50"),
        "unreadable": entry["eval_unreadable"],
        "truncated": entry["eval_truncated"],
    }


class _SameLogits:
    """A model whose logits are the first process's, so that all choose the same tokens and stop together."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **inputs: Any) -> Any:
        # What ZeRO-3 gathers for a layer is trained later, which inference mode would forbid.
        with torch.inference_mode(False), torch.no_grad():
            logits = self.model(**inputs).logits.contiguous()
            dist.broadcast(logits, 0)
        return SimpleNamespace(logits=logits)
