"""A model that is ready to run: its prompt, and the tokens of an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from PIL import Image

from perpo.data.images import pad_to_square, short_name
from perpo.data.placeholders import without_image
from perpo.errors import PerpoError
from perpo.models.control_tokens import control_tokens, decoded, pattern_of
from perpo.models.families import Family

DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        model: The Hugging Face model, or the PeftModel around it; in eval mode, on its device.
        processor: Its processor; the tokenizer pads on the left.
        family: What is known of the model's family (prompt, box format, module names).
        name: The model as the user named it.
        weights_sha256: SHA-256 of the base's weights (see `perpo.models.checkpoints.weights_digest`).
        adapter_sha256: SHA-256 of the adapter's safetensors file, or None without an adapter.
    """

    model: Any
    processor: Any
    family: Family
    name: str
    weights_sha256: str
    adapter_sha256: str | None = None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def context_length(self) -> int:
        """The longest sequence that the language model takes, image tokens included."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def end_ids(self) -> set[int]:
        """The tokens that end an answer, as `generate` has them."""
        ends = self.model.generation_config.eos_token_id
        return {self.end_id, *(ends if isinstance(ends, list) else [] if ends is None else [ends])}

    @property
    def end_id(self) -> int:
        """The token that is written at the end of an answer."""
        token = self.family.end_token
        return self.tokenizer.eos_token_id if token is None else self.tokenizer.convert_tokens_to_ids(token)

    @cached_property
    def control_tokens(self) -> dict[int, str]:
        """The tokens that are no part of what is asked or answered, by their ids; see `perpo.models.control_tokens`."""
        return control_tokens(self.tokenizer, _rendered(self, ""), () if self.model is None else self.end_ids)

    @cached_property
    def _marks(self) -> set[int]:
        return set(self.tokenizer.added_tokens_decoder) - set(self.control_tokens)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return pattern_of(self.control_tokens.values())

    def answer_text(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens: end, pad, turns and pictures left out, all other special tokens kept.

        So the marks that a model puts around names and boxes stay, and the text gives its tokens back.
        """
        said = [number for number in ids if number not in self.control_tokens]
        return decoded(self.tokenizer, said, self._marks)

    def without_control_tokens(self, text: str) -> str:
        """Return a text without what spells a control token, which an answer can hold letter by letter."""
        return self._control_pattern.sub("", text)

    def check_plain(self, text: str, what: str) -> None:
        """Refuse a text that spells a control token, which the tokenizer would make of it.

        Args:
            text: A question or an answer.
            what: What it is, for the message.

        Raises:
            PerpoError: It does.
        """
        match = self._control_pattern.search(text)
        if match is not None:
            raise PerpoError(
                f"{what} holds {match[0]}, which controls {self.name} and is not text: {text!r:.80}",
                "remove it: the marks around a turn, and the picture, are added automatically",
            )

    def image_tokens(self, size: tuple[int, int]) -> int:
        """Return how many tokens an image of (width, height) becomes, asked of the processor with a blank one."""
        prompt = render_prompt(self, "")
        with_image = self.encode([prompt], [Image.new("RGB", size)]).input_ids.shape[1]
        return with_image - len(self.token_ids([prompt])[0]) + 1

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of rendered prompts; a first token that the chat template wrote does not come twice."""
        return self.tokenizer(list(texts), add_special_tokens=self._adds_special_tokens(texts[0])).input_ids

    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> Any:
        """Return what the model takes for prompts with an image each, padded on the left (tensors, on the CPU).

        Images become RGB and, where the family wants it, squares padded with the processor's mean colour.
        """
        pictures = [self.shown(image) for image in images]
        texts = list(prompts)
        if self.family.prompt is not None:  # the processor writes these two itself
            texts = [text.replace(self.tokenizer.bos_token, "", 1).removesuffix("\n") for text in texts]
        try:
            inputs = self._processed(pictures, texts, prompts[0])
        except (ValueError, ZeroDivisionError, RuntimeError) as error:
            for image, picture, text in zip(images, pictures, texts, strict=True):
                self._check_taken(image, picture, text, prompts[0])
            raise PerpoError(f"the processor of {self.name} refuses its input: {error}", "see its prompts") from error
        inputs.pop("labels", None)  # PaliGemma's processor gives them, for a loss of its own
        return inputs

    def shown(self, image: Image.Image) -> Image.Image:
        """Return an image as the processor gets it: RGB and, where the family wants it, padded to a square."""
        picture = image.convert("RGB")
        if not self.family.pads_images:
            return picture
        red, green, blue = (int(share * 255) for share in self.processor.image_processor.image_mean)
        return pad_to_square(picture, (red, green, blue))

    def without_model(self) -> LoadedModel:
        """Return what `encode` and the tokenizer need, small enough to be handed to other processes."""
        return replace(self, model=None)

    def _processed(self, pictures: Sequence[Image.Image], texts: Sequence[str], prompt: str) -> Any:
        return self.processor(
            images=[[picture] for picture in pictures],
            text=list(texts),
            padding=True,
            return_tensors="pt",
            add_special_tokens=self._adds_special_tokens(prompt),
        )

    def _check_taken(self, image: Image.Image, picture: Image.Image, text: str, prompt: str) -> None:
        """Raise a PerpoError that names the image if the processor refuses it alone too."""
        try:
            self._processed([picture], [text], prompt)
        except (ValueError, ZeroDivisionError, RuntimeError) as error:
            raise PerpoError(
                f"the processor of {self.name} refuses the picture {short_name(getattr(image, 'filename', ''))} of "
                f"{image.width} x {image.height} pixels: {error}",
                "crop or pad the picture, or leave it out",
            ) from error

    def _adds_special_tokens(self, prompt: str) -> bool:
        return self.family.prompt is None and not prompt.startswith(self.tokenizer.bos_token or "\0")


def render_prompt(loaded: LoadedModel, question: str) -> str:
    """Return the text that the model reads before its answer, with one placeholder for the image.

    Args:
        loaded: The model.
        question: The user's turn; a mark of the picture that data put into it (`perpo.data.placeholders`) is taken out.

    Raises:
        PerpoError: The question holds marks of several pictures, or spells one of the model's control tokens.
    """
    question = without_image(question)
    loaded.check_plain(question, "a question")
    return _rendered(loaded, question)


def _rendered(loaded: LoadedModel, question: str) -> str:
    template = loaded.family.prompt
    if template is not None:
        parts = {"image": loaded.processor.image_token, "bos": loaded.tokenizer.bos_token, "question": question}
        return template.format(**parts)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def answers_token_ids(loaded: LoadedModel, prompt: str, answers: Sequence[str], *, end: bool = True) -> list[list[int]]:
    """Return the tokens of several answers to one prompt: the family's separator, the answer, the end token.

    An empty answer is the end token alone.

    Args:
        loaded: The model.
        prompt: What `render_prompt` gave.
        answers: The answers' texts.
        end: Whether the end token is appended; not for an answer that was cut at the token limit.

    Raises:
        PerpoError: The tokens of prompt and answer do not begin with the prompt's own, so that no
            split between the two is right; or an answer spells one of the model's control tokens.
    """
    for answer in answers:
        loaded.check_plain(answer, "an answer")
    separator = "" if prompt[-1:].isspace() else loaded.family.answer_separator
    texts = [prompt, *(prompt + separator + answer if answer else prompt for answer in answers)]
    prompt_ids, *whole = loaded.token_ids(texts)
    ids = []
    for answer, answered in zip(answers, whole, strict=True):
        if answered[: len(prompt_ids)] != prompt_ids:
            raise PerpoError(
                f"the tokenizer of {loaded.name} joins the end of the prompt with the start of {answer!r}",
                "the answer separator of this family does not suit this tokenizer",
            )
        ids.append(answered[len(prompt_ids) :] + [loaded.end_id] * end)
    return ids
