"""Choose the pages that stay: each is there once, and all of a document are for training or all for evaluation."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

FEW_DIGITS = 0.05
"""Share of a page's letters up to which digits are dates and running numbers."""


@dataclass(frozen=True)
class KeptPage:
    """A page that stays: its number in the document, its picture's file name, its text, how many letters of the
    text layer are not in that, and how many columns stand side by side.
    """

    number: int
    image: str
    text: str
    lost: int
    columns: int


@dataclass
class ReadDocument:
    """A document that was read, or left out.

    Attributes:
        name: Its path from the folder of documents.
        sha256: Of its bytes; "" if they can't be read.
        reason: Why it is left out; "" if it is not.
        detail: What was found.
        pages: Those that stay.
        left_out: Of each page that is left out its number, reason and detail.
        alike: Digests of documents that hold some of its pages.
        evaluation: Whether its pages are for evaluation.
    """

    name: str
    sha256: str
    reason: str = ""
    detail: str = ""
    pages: list[KeptPage] = field(default_factory=list)
    left_out: list[tuple[int, str, str]] = field(default_factory=list)
    alike: set[str] = field(default_factory=set)
    evaluation: bool = False


def choose_pages(documents: Sequence[tuple[str, str, dict[str, Any]]]) -> list[ReadDocument]:
    """Return the documents with the pages that stay: of pages with one text or one picture the first.

    Texts are one by `text_key`: forms and running numbers do not make another page.

    Args:
        documents: Of each its name, its digest, and what was found (`read_document`), in the order that decides which
            page comes first.
    """
    texts: dict[str, tuple[str, str]] = {}
    pictures: dict[str, tuple[str, str]] = {}
    chosen = []
    for name, sha256, pages in documents:
        document = ReadDocument(name, sha256, pages.get("reason", ""), pages.get("detail", ""))
        chosen.append(document)
        for page in pages.get("pages", ()):
            number = page["page"]
            if "reason" in page:
                document.left_out.append((number, page["reason"], page["detail"]))
                continue
            same = [("same_text", texts, text_key(page["text"])), ("same_picture", pictures, page["pixels"])]
            earlier = next(((reason, known[key]) for reason, known, key in same if key in known), None)
            if earlier is not None:
                reason, (where, owner) = earlier
                document.left_out.append((number, reason, where))
                document.alike.add(owner)
                continue
            for _, known, key in same:
                known[key] = f"{name}, page {number}", sha256
            document.pages.append(KeptPage(number, page["image"], page["text"], page["lost"], page["columns"]))
    return chosen


def text_key(text: str) -> str:
    """Return a digest that texts share which differ only in spaces, capitals, and digits if those are few."""
    letters = "".join(text.casefold().split())
    digits = {one for one in letters if unicodedata.category(one) == "Nd"}
    if sum(map(letters.count, digits)) <= FEW_DIGITS * len(letters):  # else they are what a table says
        letters = letters.translate(dict.fromkeys(map(ord, digits)))
    return hashlib.sha256(letters.encode()).hexdigest()


def split_documents(documents: Sequence[ReadDocument], share: float, seed: int) -> None:
    """Say of each document whether it is for evaluation: a digest of its bytes and the seed decides.

    So a document stays where it is when others are added, until one comes that has pages in common with it: such
    documents go together.
    """
    leader = {document.sha256: document.sha256 for document in documents}

    def first(sha256: str) -> str:
        while leader[sha256] != sha256:
            leader[sha256] = sha256 = leader[leader[sha256]]
        return sha256

    for document in documents:
        for other in document.alike:
            one, two = sorted((first(document.sha256), first(other)))
            leader[two] = one
    for document in documents:
        digest = hashlib.sha256(f"{seed}:{first(document.sha256)}".encode()).digest()
        document.evaluation = int.from_bytes(digest[:8], "big") < share * 2**64
