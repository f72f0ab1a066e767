"""The most memory that work with a model takes at once: sums of what is held, from sizes alone. Needs no torch.

Every term is told in docs/capacity.md. What a pass keeps for the backward pass was counted in the tensors that
autograd saves, on the CPU; `benchmarks/estimate_memory.py` holds the sums against measured memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perpo.models.costs import TrainingPlan

_CHUNK = 512
"""Places whose logits training holds at a time, as in `perpo.models.logps`."""

_ROOM = 1.5
"""How much room the cache of a sampling makes, as in `perpo.engines.growing_cache`."""


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of a model's parts.

    Attributes:
        layers: Of the language model.
        width: Of its hidden states.
        inner: Of its MLP's.
        attention: Of all heads together.
        kept: Of all heads of keys together, of which each may serve several of the above.
        words: Of the vocabulary.
        seeing_width: Of the vision tower.
        seeing_inner: Of its MLP.
        patch_values: Numbers of a patch, in its pixels.
    """

    layers: int
    width: int
    inner: int
    attention: int
    kept: int
    words: int
    seeing_width: int
    seeing_inner: int
    patch_values: int

    # A pass that keeps nothing for a backward pass. All results are bytes; `size` are those of a number.

    def seeing(self, patches: float, size: int) -> float:
        """Return what the vision tower holds at once, in its widest layer, and pixels."""
        pixels = self.patch_values * patches
        # The layer's input, what its norm gave, the residual, the states that are handed on; in the MLP, what the
        # activation reads, its gate and its result.
        return size * (pixels + patches * (4 * self.seeing_width + 3 * self.seeing_inner))

    def reading(self, tokens: float, patches: float, size: int) -> float:
        """Return what the language model holds at once as it reads a prompt, without its cache; and pixels."""
        pictures = (self.patch_values + 2 * self.seeing_width) * patches  # pixels, and what the tower made of them
        # Embeddings with pictures and without, features, the layer's input, the residual, what the norm gave; in the
        # MLP, both branches and their product.
        return size * (pictures + tokens * (6 * self.width + max(3 * self.inner, 6 * self.attention)))

    def cache(self, tokens: float, size: int) -> float:
        """Return what keys and values of tokens take."""
        return size * 2 * self.layers * self.kept * tokens

    def choosing(self, answers: float, size: int, *, drawn: bool, nucleus: bool) -> float:
        """Return what it takes to choose the next token of so many answers from their logits."""
        each = 4.0 if size == 4 else 4.0 + size  # the logits, once more in float32 if they are not
        if nucleus:
            each += 32  # probabilities twice, in order with their places, cumulated, masked; empty and filled again
        elif drawn:
            each += 20  # probabilities; in float64 and cumulated in it
        else:
            each += 8  # log-probabilities, and a copy
        return each * answers * self.words

    def sampling(
        self, rows: int, prefix: float, patches: float, candidates: int, longest: int, size: int, *, nucleus: bool
    ) -> float:
        """Return what candidates from one prefill of each of `rows` prompts take."""
        room = prefix + candidates
        while room < prefix + candidates * longest or room == prefix + candidates:
            room = room * _ROOM
        pixels = size * self.patch_values * rows * patches
        tokens = rows * (prefix + candidates * longest)
        choosing = self.choosing(rows * candidates, size, drawn=True, nucleus=nucleus)
        return max(
            self.seeing(rows * patches, size),
            self.reading(rows * prefix, rows * patches, size) + self.cache(rows * prefix, size),
            pixels + self.cache(rows * room, size) + max(choosing, self._repeated(tokens, size)),
        )

    def answering(self, rows: int, prefix: float, patches: float, longest: int, size: int) -> float:
        """Return what a greedy answer to each of `rows` prompts takes."""
        pixels = size * self.patch_values * rows * patches
        cache = self.cache(rows * (prefix + longest), size) * (1 + 1 / self.layers)  # a layer's is copied as it grows
        choosing = self.choosing(rows, size, drawn=False, nucleus=False)
        return max(
            self.seeing(rows * patches, size),
            self.reading(rows * prefix, rows * patches, size) + self.cache(rows * prefix, size),
            pixels + cache + max(choosing, self._repeated(rows * (prefix + longest), size)),
        )

    def _repeated(self, tokens: float, size: int) -> float:
        """Keys and values of a layer once for each head that they serve."""
        return 0.0 if self.attention == self.kept else 2 * size * self.attention * tokens

    # A training step.

    def saved_layer(self, tokens: float, plan: TrainingPlan) -> float:
        """Return what a layer of the language model keeps of tokens for the backward pass."""
        size = plan.size
        # The MLP: its gate before and after the activation, the other branch, their product.
        numbers = 4 * self.inner
        # Attention: queries, keys, values (each head's own), result.
        numbers += 4 * self.attention
        # What the linear layers read, for the gradient of LoRA or of the weights. In float32 those that read the same
        # share it; else it is cast for each. The product above is what the last one reads.
        numbers += 2 * self.width + self.attention if size == 4 else 5 * self.width + self.attention
        numbers += 0 if plan.whole else 7 * plan.r
        # What the two norms read, in float32; and what they multiply by their weights, if those train.
        return tokens * (size * numbers + 4 * (4 if plan.whole else 2) * self.width)

    def training(self, prefix: float, answers: float, patches: float, plan: TrainingPlan) -> float:
        """Return what a step holds at once beside weights and the optimizer's state.

        Args:
            prefix: Tokens of a list's picture and prompt.
            answers: Tokens of all its candidates.
            patches: Of its picture.
            plan: How it is trained.
        """
        tokens, size, rows = self._tokens(prefix, answers, plan), plan.size, plan.batch
        layer = self.saved_layer(tokens, plan)
        # The residual between layers is in the type of the embeddings, which are float32 where they train.
        between = tokens * self.width * (4 if plan.whole else size)
        saved = self.layers * (between if plan.again else layer) + 4 * tokens * self.width
        if plan.projector:  # features, and before and behind its activation
            saved += size * rows * prefix * (self.seeing_width + 2 * self.width)
        # Gradients of the MLP's two branches; in half precision what LoRA reads is cast to float32 besides.
        passing = tokens * (8 * self.inner if size == 4 else 6 * self.inner + 9 * self.width)
        passing += layer if plan.again else 0
        logits = 4 * self.words * min(_CHUNK, rows * answers)
        pixels = 4 * self.patch_values * rows * patches
        return max(
            self.seeing(rows * patches, size) + 2 * pixels,
            pixels + saved + 2 * pixels + max(0 if plan.again else passing, 3 * logits),  # the end of the forward pass
            pixels + saved + max(passing, 4 * logits),  # the start of the backward pass
        )

    def _tokens(self, prefix: float, answers: float, plan: TrainingPlan) -> float:
        tokens = plan.batch * (prefix + answers)
        return tokens if plan.most is None else min(tokens, float(plan.most))


def layer_sizes(config: Any) -> LayerSizes:
    """Return the sizes of a model by its configuration, as transformers reads it."""
    text, vision = config.get_text_config(), config.vision_config
    heads = text.num_attention_heads
    each = getattr(text, "head_dim", None) or text.hidden_size // heads
    side = side_of(getattr(vision, "patch_size", 14))
    width = getattr(vision, "hidden_size", 0)
    return LayerSizes(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=text.intermediate_size,
        attention=each * heads,
        kept=each * (getattr(text, "num_key_value_heads", None) or heads),
        words=text.vocab_size,
        seeing_width=width,
        seeing_inner=getattr(vision, "intermediate_size", None) or 4 * width,
        patch_values=3 * side * side * (getattr(vision, "temporal_patch_size", 1) or 1),
    )


def side_of(size: Any) -> int:
    """Return the longer of two sides, or the one that is given."""
    return int(max(size) if isinstance(size, list | tuple) else size or 0)


def fixed(total: int, quantised: int, trained: int, plan: TrainingPlan) -> float:
    """Return the bytes of weights and of the optimizer's two moments, which are there through all of a training.

    Args:
        total: Parameters of the model.
        quantised: Of these those of linear layers that `--bits 4` quantises.
        trained: Parameters that train.
        plan: How it is trained.
    """
    if plan.whole:
        return 4 * total + 8 * trained
    moments = (4 + 8) * trained  # what trains is a copy in float32
    if plan.bits == 4:
        scales = 1 / 64 + 4 / (64 * 256) if plan.double_quant else 4 / 64  # of 64 weights each
        return 4 * (total - quantised) + (0.5 + scales) * quantised + moments
    return plan.size * total + moments


def cast(trained: int, embedding: int, head: int, plan: TrainingPlan) -> int:
    """Return the bytes of what autocast makes of float32 weights that train, for a pass in half precision.

    An embedding is only looked up in. With gradient checkpointing a layer's copies go with the layer.
    """
    if plan.size == 4:
        return 0
    return 2 * ((head if plan.whole else 0) if plan.again else trained - (embedding if plan.whole else 0))


def stepping(trained: int) -> float:
    """Return the bytes of gradients, and of what AdamW makes of them all at once on a GPU: as many again."""
    return 8 * trained
