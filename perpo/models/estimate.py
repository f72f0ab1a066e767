"""Estimates of what work with a model costs, from its small files and the data: tokens, FLOPs, memory, disk, hours.

Nothing is run and no weights are read. Counts of parameters and of tokens are exact, as the model is built without
memory and the processor is asked about blank pictures of the data's sizes. FLOPs count two for a multiplication with
its addition, in linear layers and attention. Hours are FLOPs and bytes over what a GPU's data sheet says, times shares
that are assumed (`COMPUTE_SHARE`, `BANDWIDTH_SHARE`): they were measured on no GPU. `perpo.models.memory` tells memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from perpo.errors import PerpoError
from perpo.models.checkpoints import resolve_model, small_files
from perpo.models.costs import BANDWIDTH_SHARE, COMPUTE_SHARE, Gpu, TrainingPlan, WorkCost
from perpo.models.families import FAMILIES
from perpo.models.hub import first_line
from perpo.models.loaded import LoadedModel, render_prompt
from perpo.models.loading import read_config, read_processor
from perpo.models.lora import projector_layers
from perpo.models.memory import LayerSizes, cast, fixed, layer_sizes, side_of, stepping
from perpo.models.unlisted import unlisted_family

_MEASURED = 64
"""So many of the data's pages are measured, evenly spaced."""


@dataclass(frozen=True)
class AskedSize:
    """One question of the data, as far as costs depend on it: its words, its picture's size, and a true answer."""

    question: str
    size: tuple[int, int]
    answer: str


@dataclass(frozen=True)
class Load:
    """The tokens and patches of questions: means over them.

    Attributes:
        questions: How many.
        patches: Of pictures, that the vision tower reads.
        prefix: Tokens of picture and prompt.
        answer: Tokens of a true answer.
        longest: Tokens of the longest true answer that was measured.
    """

    questions: int
    patches: float
    prefix: float
    answer: float
    longest: int

    def cut(self, most: int) -> Load:
        """Return the same with answers that are cut at so many tokens."""
        return Load(self.questions, self.patches, self.prefix, min(self.answer, most), min(self.longest, most))

    def of(self, questions: int) -> Load:
        """Return as many questions of the same kind."""
        return Load(questions, self.patches, self.prefix, self.answer, self.longest)


class Estimator:
    """A model without its weights."""

    def __init__(self, name: str, gpu: Gpu | None = None) -> None:
        """Build it without memory.

        Args:
            name: As for `perpo.models.loading.load_model`; a model of the hub is asked for its small files alone.
            gpu: What hours are told for.

        Raises:
            PerpoError: It is none, or its files are damaged.
        """
        self.name, self.gpu = name, gpu
        directory = small_files(resolve_model(name, weights=False))
        try:
            config = read_config(directory)
            with torch.device("meta"):
                model = AutoModelForImageTextToText.from_config(config)
            processor = read_processor(directory)
        except PerpoError:
            raise
        except Exception as error:  # the libraries raise many kinds for damaged files
            raise PerpoError(
                f"{name} cannot be estimated: {first_line(error)}", "check that its small files are complete"
            ) from error
        family = FAMILIES.get(config.model_type) or unlisted_family(model)
        self._loaded = LoadedModel(model, processor, family, name, "")

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Return how many there are: `vision`, `projector`, `language` (its layers and norms), `embedding`, `head`."""
        counts = dict.fromkeys(("vision", "projector", "language", "embedding", "head"), 0)
        family, model = self._loaded.family, self._loaded.model
        embedding = id(model.get_input_embeddings().weight)
        for name, parameter in model.named_parameters():
            part = "language"
            if id(parameter) == embedding:
                part = "embedding"
            elif name.startswith("lm_head"):
                part = "head"
            elif family.projector and re.search(family.projector, name):
                part = "projector"
            elif f"{family.vision_tower}." in name:
                part = "vision"
            counts[part] += parameter.numel()
        return counts

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    def adapter_parameters(self, r: int) -> int:
        """Return those of a LoRA adapter of rank `r` on the language model's linear layers, and the projector's."""
        return _ranks(self._adapted, r) + self.parameters["projector"]

    @cached_property
    def _adapted(self) -> list[torch.nn.Linear]:
        """The layers that LoRA is put on, and that are quantised."""
        pattern = re.compile(self._loaded.family.lora_targets)
        modules = self._loaded.model.named_modules()
        return [part for name, part in modules if isinstance(part, torch.nn.Linear) and pattern.fullmatch(name)]

    def load(self, asked: Sequence[AskedSize], questions: int | None = None) -> Load:
        """Return the load of questions, measured on some of them.

        Args:
            asked: Of these up to 64 are measured.
            questions: How many there are; by default as many.
        """
        step = max(1, len(asked) // _MEASURED)
        some = asked[::step][:_MEASURED]
        seen = {size: self._picture(size) for size in dict.fromkeys(each.size for each in some)}
        prompts = [self._words(each.question) for each in some]
        answers = [len(self._loaded.tokenizer(each.answer, add_special_tokens=False).input_ids) + 1 for each in some]
        mean = lambda values: sum(values) / len(some)  # noqa: E731
        return Load(
            len(asked) if questions is None else questions,
            mean([seen[each.size][1] for each in some]),
            mean([seen[each.size][0] + words for each, words in zip(some, prompts, strict=True)]),
            mean(answers),
            max(answers),
        )

    def _words(self, question: str) -> int:
        """Tokens of a prompt without its picture."""
        prompt = render_prompt(self._loaded, question)
        ids = self._loaded.token_ids([prompt])[0]
        image = self._loaded.tokenizer.convert_tokens_to_ids(self._loaded.processor.image_token)
        return sum(each != image for each in ids)

    def _picture(self, size: tuple[int, int]) -> tuple[int, float]:
        """Tokens and patches of a picture of (width, height) pixels."""
        prompt = render_prompt(self._loaded, "")
        inputs = self._loaded.encode([prompt], [Image.new("RGB", size)])
        words = self._words("")
        return int(inputs["attention_mask"].sum()) - words, inputs["pixel_values"].numel() / self.sizes.patch_values

    # Costs.

    def sampling(
        self, load: Load, candidates: int, batch: int, *, size: int = 2, nucleus: bool = False, adapter: int = 0
    ) -> WorkCost:
        """Return the cost of candidates from one prefill of each question.

        Args:
            load: The questions.
            candidates: Answers to each.
            batch: Questions at once.
            size: Bytes of a number; 2 in bfloat16.
            nucleus: Whether top-p sorts the words.
            adapter: Bytes of an adapter.
        """
        rows = min(batch, load.questions)
        held = self.sizes.sampling(rows, load.prefix, load.patches, candidates, load.longest, size, nucleus=nucleus)
        return self._writing(load, candidates, batch, size, size * self.total + adapter + held)

    def evaluating(self, load: Load, batch: int, *, size: int = 2, adapter: int = 0) -> WorkCost:
        """Return the cost of one greedy answer to each question; arguments as for `sampling`."""
        held = self.sizes.answering(min(batch, load.questions), load.prefix, load.patches, load.longest, size)
        return self._writing(load, 1, batch, size, size * self.total + adapter + held)

    def _writing(self, load: Load, candidates: int, batch: int, size: int, memory: float) -> WorkCost:
        written = candidates * load.answer
        flops = self._reading(load) + self._passes(load.prefix, load.answer, candidates, 1)
        # Each new token is held against the other candidates' too, which the mask then hides.
        text = self._loaded.model.config.get_text_config()
        flops += 2 * text.num_hidden_layers * self.sizes.attention * candidates * (candidates - 1) * load.answer**2
        tokens = load.prefix + written
        steps = -(-load.questions // batch) * load.longest
        reading = size * self._running + self.sizes.cache(batch * (load.prefix + candidates * load.answer / 2), size)
        disk = load.questions * (candidates + 1) * load.answer * 4  # about four bytes a token
        n = load.questions
        return WorkCost(n * tokens, n * flops, self._seconds(n * flops, steps * reading), memory, disk)

    def training(self, load: Load, candidates: int, plan: TrainingPlan) -> WorkCost:
        """Return the cost of a training on lists that share their prefix.

        Args:
            load: Its lists.
            candidates: Of each list; 1 for SFT.
            plan: How it is trained.
        """
        trained = self._trained(plan)
        # A backward pass tells the gradients of activations, and as much again where the weights themselves have some.
        passes = 1 + (2 if plan.whole else 1) + plan.again + plan.reference
        flops = self._reading(load) + passes * self._passes(load.prefix, load.answer, candidates, load.answer)
        n = load.questions * plan.epochs
        held = self.sizes.training(load.prefix, candidates * load.longest, load.patches, plan)
        copies = cast(trained, self.parameters["embedding"], self.parameters["head"], plan)
        memory = fixed(self.total, sum(each.weight.numel() for each in self._adapted), trained, plan) + plan.other
        memory += max(held + copies, stepping(trained))
        disk = (4 * self.total if plan.whole else 4 * trained) + plan.kept * 12 * trained
        tokens = load.prefix + candidates * load.answer
        return WorkCost(n * tokens, n * flops, self._seconds(n * flops, 0.0), memory, disk)

    def _trained(self, plan: TrainingPlan) -> int:
        """Parameters that train."""
        projector = self.parameters["projector"]
        if plan.projector_lora:
            model, names = self._loaded.model, projector_layers(self._loaded.model, self._loaded.family)
            projector = _ranks([model.get_submodule(name) for name in names], plan.r)
        if plan.whole:
            return self.total - self.parameters["vision"] - (0 if plan.projector else projector)
        return (_ranks(self._adapted, plan.r) if plan.language else 0) + (projector if plan.projector else 0)

    @cached_property
    def sizes(self) -> LayerSizes:
        """Sizes that memory depends on."""
        return layer_sizes(self._loaded.model.config)

    def _reading(self, load: Load) -> float:
        """FLOPs of the vision tower and the projector for a picture."""
        vision = self._loaded.model.config.vision_config
        layers = getattr(vision, "num_hidden_layers", None) or getattr(vision, "depth", 0)
        width = getattr(vision, "hidden_size", 0)
        tile = side_of(getattr(vision, "image_size", 0)) // side_of(getattr(vision, "patch_size", 14))
        within = min(tile**2 or load.patches, load.patches)
        attention = 4 * int(layers or 0) * width * load.patches * within
        linear = 2 * self._seeing * load.patches + 2 * self.parameters["projector"] * load.prefix
        return linear + attention

    def _passes(self, prefix: float, answer: float, candidates: int, logits: float) -> float:
        """FLOPs of the language model for a prefix that so many answers share; `logits` more places of it have some."""
        text = self._loaded.model.config.get_text_config()
        tokens = prefix + candidates * answer
        linear = 2 * self.parameters["language"] * tokens
        places = candidates * answer + logits
        head = 2 * text.hidden_size * text.vocab_size * places
        pairs = prefix**2 / 2 + candidates * (prefix * answer + answer**2 / 2)
        return linear + head + 4 * text.num_hidden_layers * self.sizes.attention * pairs

    @cached_property
    def _seeing(self) -> int:
        """Parameters of the vision tower that each patch goes through: not those of its places, nor a pooling head."""
        tower = self._loaded.family.vision_tower
        return sum(
            parameter.numel()
            for name, part in self._loaded.model.named_modules()
            if f"{tower}." in f"{name}." and ".head" not in name and not isinstance(part, torch.nn.Embedding)
            for parameter in part.parameters(recurse=False)
        )

    @property
    def _running(self) -> int:
        """Parameters that each step of an answer reads."""
        tied = self.parameters["head"] == 0
        return self.parameters["language"] + self.parameters["embedding" if tied else "head"]

    def _seconds(self, flops: float, reading: float) -> float | None:
        if self.gpu is None:
            return None
        computing = flops / (self.gpu.flops * COMPUTE_SHARE)
        return computing + reading / (self.gpu.bandwidth * BANDWIDTH_SHARE)


def _ranks(layers: Sequence[torch.nn.Linear], r: int) -> int:
    """Parameters of LoRA of rank `r` on linear layers."""
    return sum(r * (layer.in_features + layer.out_features) for layer in layers)
