"""Validation during training: greedy answers to held-out questions, their rewards, and the best adapter kept."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback

from perpo.boxes import PARTS
from perpo.common.files import recover_folder, replace_folder
from perpo.common.redact import without_secrets
from perpo.data import PreferenceRecord, Question, data_sha256, image_root_of, read_questions
from perpo.engines.base import Decoding, Engine, NoAnswer, ask
from perpo.errors import PerpoError
from perpo.models.checkpoints import digests_of, grounding_prompt
from perpo.records.training_record import Score, ValidationInfo, write_record
from perpo.rewards import score
from perpo.rewards.asked import QuestionSet, read_asked
from perpo.rewards.table import REWARDS, named
from perpo.train.arguments import TrainArguments
from perpo.train.outputs.card import write_card
from perpo.train.resuming import BEST, best_step, step_of
from perpo.train.watching.policy_engine import in_step

if TYPE_CHECKING:
    from perpo.train.trainer import PreferenceTrainer

_ACCURATE = 0.5


def read_held_out(args: TrainArguments, records: Sequence[Question]) -> QuestionSet | None:
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
    data, said = args.eval_data, {part: getattr(args, f"eval_box_{part}") for part in PARTS}
    return read_asked(
        args.model,
        name,
        lambda: (
            read_questions(data, grounding_prompt=grounding_prompt(args.model)),
            Path(args.eval_image_root or image_root_of(data)),
        ),
        answer_parts=said if any(said.values()) else _said_by(records),
        truth_parts={part: getattr(args, f"eval_truth_{part}") for part in PARTS},
    )


def _said_by(records: Sequence[Question]) -> dict[str, Any]:
    """How the answers of the training data write boxes, if all their records say the same; else nothing."""
    forms = {tuple(getattr(record, f"box_{part}") for part in PARTS) for record in records}
    form = dict(zip(PARTS, forms.pop(), strict=True)) if len(forms) == 1 else {}
    return form if form.get("scale") is not None else {}


def _reward_of(records: Sequence[Question]) -> str:
    names = {record.reward_name if isinstance(record, PreferenceRecord) else None for record in records}
    if len(names) == 1 and (name := names.pop()) in REWARDS:
        return name
    raise PerpoError(
        "the training data do not say what reward the held-out answers are to be given",
        f"give --eval_reward {named()}",
    )


class Validation(TrainerCallback):
    """Rewards greedy answers before training, every `eval_steps` steps and after the last; keeps the best adapter.

    The processes share the questions. With ZeRO-3, whose processes have to run every layer together,
    they all answer all of them in step.

    Args:
        args: The run's arguments.
        held_out: The questions.
        engine: Answers them with the policy.
        trainer: Knows the model; logs and saves.
        record: The run's record, which the scores go into.
        checkpoint: What the run goes on from, or None.
    """

    def __init__(
        self,
        args: TrainArguments,
        held_out: QuestionSet,
        engine: Engine,
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
        self.in_step = in_step(trainer)
        self.model = trainer.policy.model
        self.engine = engine
        self.decoding = Decoding(max_new_tokens=args.eval_max_new_tokens)  # greedy
        self.engine.check(held_out.questions, held_out.image_root, self.decoding)
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
        """Take a continued run's earlier scores from the checkpoint's log."""
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
        count, row = len(rows), REWARDS.get(self.held_out.reward_name)
        accurate = sum(reward >= _ACCURATE for reward in rewards) / count
        return {
            "reward": sum(rewards) / count,
            "acc_50": accurate if row is not None and row.acc_50 else None,
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
            numbered = [(number, each.question) for number, each in batch]
            answers = ask(self.engine, numbered, self.held_out.image_root, self.decoding)
            for (_, each), given in zip(batch, answers, strict=True):
                if isinstance(given, NoAnswer):
                    raise given.ends or PerpoError(f"validation got no answer: {given.why}", "see above")
                (answer,) = given
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
