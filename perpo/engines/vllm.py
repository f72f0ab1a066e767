"""vLLM in this process as an engine: one `vllm.LLM` for each process, on a GPU of its own.

What it is given: our own prompt as tokens, each picture as the model is to see it, and every setting of sampling, so
that no default counts. What it read is held against our own tokens at every answer. Its log-probabilities are never
taken: its kernels round otherwise.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from PIL import Image

from perpo.common.processes import ending
from perpo.data import Question
from perpo.engines.base import Answer, Decoding, EngineInfo, NoAnswer, Query, first_seed
from perpo.engines.prompts import check_questions, check_read, prompt_lengths
from perpo.engines.replies import answer_of
from perpo.errors import PerpoError
from perpo.models.hub import first_line
from perpo.models.loaded import LoadedModel, render_prompt

_LOOK_EVERY_S = 0.2
_LAST_WORDS_S = 1.0
"""For what vLLM itself may still say, or have answered, when its process has ended."""


@dataclass
class VllmEngine:
    """A model in vLLM; see `perpo.engines.base.Engine`.

    Attributes:
        loaded: All of the model but its weights.
        llm: vLLM's own object.
        info: See `Engine`.
        lora: What adapts the model at each request, or None.
        processes: Those in which vLLM runs the model. All must live while it answers.
    """

    loaded: LoadedModel
    llm: Any
    info: EngineInfo
    lora: Any = None
    processes: Sequence[BaseProcess] = ()
    _pictures: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    @cached_property
    def most_tokens(self) -> int:
        """Return the longest sequence that is taken, image tokens included."""
        return min(int(self.llm.llm_engine.model_config.max_model_len), self.loaded.context_length)

    def check(self, questions: Sequence[Question], image_root: Path, decoding: Decoding) -> None:
        """See `Engine`; the longest is asked for a token, and what vLLM read of it compared."""
        longest = check_questions(self.loaded, questions, image_root, decoding)
        self._check_length([longest], decoding)
        self.answers([longest], replace(decoding, max_new_tokens=1, num_candidates=1))

    def prompt(self, question: str) -> str:
        """See `Engine`."""
        return render_prompt(self.loaded, question)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """See `Engine`; a picture counts one."""
        return prompt_lengths(self.loaded, prompts)

    def answers(self, queries: Sequence[Query], decoding: Decoding) -> list[list[Answer] | NoAnswer]:
        """See `Engine`; vLLM batches them as it likes."""
        ours = self._check_length(queries, decoding)
        outputs = self._generated(queries, decoding)
        for read, output in zip(ours, outputs, strict=True):
            check_read(
                self.loaded,
                output.prompt_token_ids or [],
                read,
                "vLLM",
                other="use --engine hf or --engine server for this model",
                picture="use --engine hf or --engine server for this model",
            )
        return [self._read(query, output, decoding) for query, output in zip(queries, outputs, strict=True)]

    def _check_length(self, queries: Sequence[Query], decoding: Decoding) -> list[list[int]]:
        """What the model is to read of each query, as tokens; vLLM would cut answers that do not fit without a word."""
        ours = [self._ours(query) for query in queries]
        longest = max(range(len(ours)), key=lambda place: len(ours[place]))
        length = len(ours[longest])
        if length + decoding.max_new_tokens > self.most_tokens:
            raise PerpoError(
                f"{length} tokens of image and prompt and {decoding.max_new_tokens} tokens of an answer exceed the "
                f"{self.most_tokens} tokens that vLLM takes. The question: {queries[longest].question!r:.80}",
                "give a larger --vllm_args max_model_len=N where the model has a longer context, or a smaller "
                "--max_new_tokens; nothing is cut without saying so",
            )
        return ours

    def _ours(self, query: Query) -> list[int]:
        """The tokens of image and prompt, as our own processor makes them; of pictures of one size once."""
        size = query.image.size
        if size not in self._pictures:
            self._pictures[size] = self._picture(size)
        ids = self.loaded.token_ids([self.prompt(query.question)])[0]
        place = ids.index(self._image_token)
        return [*ids[:place], *self._pictures[size], *ids[place + 1 :]]

    def _picture(self, size: tuple[int, int]) -> list[int]:
        """What stands in the place of a picture of (width, height) pixels."""
        prompt = self.prompt("")
        plain = self.loaded.token_ids([prompt])[0]
        whole = self.loaded.encode([prompt], [Image.new("RGB", size)])["input_ids"][0].tolist()
        place = plain.index(self._image_token)
        return whole[place : len(whole) - (len(plain) - place - 1)]

    @cached_property
    def _image_token(self) -> int:
        return int(self.loaded.tokenizer.convert_tokens_to_ids(self.loaded.processor.image_token))

    def _generated(self, queries: Sequence[Query], decoding: Decoding) -> list[Any]:
        """What vLLM gives for each query."""
        prompts = self.loaded.token_ids([self.prompt(query.question) for query in queries])
        shown = {id(query.image): self.loaded.shown(query.image) for query in queries}
        names = {key: _digest(picture) for key, picture in shown.items()}
        requests = [
            {
                "prompt_token_ids": ids,
                "multi_modal_data": {"image": shown[id(query.image)]},
                "multi_modal_uuids": {"image": [names[id(query.image)]]},
            }
            for query, ids in zip(queries, prompts, strict=True)
        ]
        params = [self._params(decoding, query.draw) for query in queries]
        try:
            return _while_alive(
                lambda: list(self.llm.generate(requests, params, use_tqdm=False, lora_request=self.lora)),
                self.processes,
            )
        except ValueError as error:
            raise PerpoError(f"vLLM refuses a question: {first_line(error)}", "see what it says above") from error
        except Exception as error:  # its engine is a process of its own, which has said why it ended
            raise PerpoError(
                f"vLLM has ended: {first_line(error)}",
                "see what it says above; what is finished is kept, and the same command goes on. Less memory: "
                "--vllm_args max_num_seqs=64 gpu_memory_utilization=0.8",
                exit_code=3,
            ) from error

    def _params(self, decoding: Decoding, draw: int) -> Any:
        """All that says how tokens are chosen: what is left out would be vLLM's default."""
        from vllm import SamplingParams

        return SamplingParams(
            n=decoding.num_candidates,
            seed=first_seed(decoding, draw),
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=0,
            min_p=0.0,
            repetition_penalty=1.0,
            frequency_penalty=0.0,
            presence_penalty=0.0,
            max_tokens=decoding.max_new_tokens,
            min_tokens=0,
            stop_token_ids=sorted(self.loaded.end_ids),
            ignore_eos=False,
            skip_special_tokens=False,
            detokenize=False,  # texts are made of the tokens, as our own engine makes them
        )

    def _read(self, query: Query, output: Any, decoding: Decoding) -> list[Answer] | NoAnswer:
        """A query's answers; none where one of them ended in no known way."""
        ends = {each.finish_reason for each in output.outputs}
        if len(output.outputs) != decoding.num_candidates or not ends <= {"stop", "length"}:
            told = ", ".join(sorted(map(str, ends)))
            return NoAnswer(f"vLLM gave {len(output.outputs)} answers, which ended with: {told}")
        prompt = self.prompt(query.question)
        return [
            answer_of(self.loaded, prompt, "", each.token_ids, truncated=each.finish_reason == "length")
            for each in sorted(output.outputs, key=lambda each: each.index)
        ]


def _digest(picture: Image.Image) -> str:
    """What names a picture in vLLM's caches, in place of a digest that it would make of each one."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()


def _while_alive(work: Callable[[], list[Any]], processes: Sequence[BaseProcess]) -> list[Any]:
    """What work gives that waits for processes, or an error as soon as one of them has ended.

    vLLM itself waits for ever where its process is killed. So the work is done in a thread that is left alone then.
    Nothing ends it after Ctrl-C either: vLLM ends its process when this program exits.
    """
    done: Future[list[Any]] = Future()
    threading.Thread(target=_settle, args=(done, work), name="vllm", daemon=True).start()
    while not wait([done], _LOOK_EVERY_S).done:
        ended = [process for process in processes if not process.is_alive()]
        if ended and not wait([done], _LAST_WORDS_S).done:
            raise ChildProcessError(f"its process {ended[0].name} ended with {ending(ended[0].exitcode)}")
    return done.result()


def _settle(done: Future[list[Any]], work: Callable[[], list[Any]]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # raised where it is waited for
        done.set_exception(error)
