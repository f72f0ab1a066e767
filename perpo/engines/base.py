"""What every engine answers with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One sampled answer as text.

    Attributes:
        text: Without control tokens (`perpo.models.control_tokens`) and the space around it.
        truncated: Whether the token limit cut it.
        logp: Sum of the log-probabilities (nats, at temperature 1) of its tokens, with the end token
            unless truncated; None where `perpo.models.loaded.answers_token_ids` of the text gives other
            tokens than were sampled, as training could not use it then.
        opened: The mark of a thought that the prompt ended with, so that the text begins within it; else empty.
    """

    text: str
    truncated: bool
    logp: float | None
    opened: str = ""

    @property
    def said(self) -> str:
        """What rewards read: the text with the mark, without which a thought that was cut would look like an answer."""
        return self.opened + self.text
