"""Print the table of docs/families.md: `python -m perpo.models.families_table`."""

from __future__ import annotations

from perpo.models.families import FAMILIES, Family

_PREFIX_RULES = {
    "causal": "shared; positions go on behind the prefix",
    "mrope": "shared; the model's `get_rope_index` places the prefix, candidates go on behind its largest position",
    "both_ways": "shared; the prefix sees itself both ways, positions count from 1",
}
_RECURRENT = "sampled: read once, its state is copied for each candidate; trained: repeated for each candidate"


def table() -> str:
    """Return the table of docs/families.md."""
    heads = ["model type", "such as", "grounding prompt", "boxes", "vision part", "projector", "prefix", "tests"]
    rows = [heads, ["---"] * len(heads)] + [
        [
            f"`{family.model_type}`",
            family.example,
            f"`{family.grounding_prompt}`".replace("\n", r"\n"),
            _boxes_in_words(family),
            f"`{family.vision_tower}`",
            f"`{family.projector}`".replace("|", r"\|"),
            _RECURRENT if family.recurrent else _PREFIX_RULES[family.prefix],
            f"`tests/families -k {family.model_type}`",
        ]
        for family in FAMILIES.values()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _boxes_in_words(family: Family) -> str:
    boxes = family.box_format
    words = [boxes.scale, *(["y before x"] if boxes.order == "yxyx" else []), f"of the {boxes.frame} picture"]
    words += [f"(could also be {' or '.join(family.other_frames)})"] if family.other_frames else []
    return " ".join(words)


if __name__ == "__main__":
    print(table(), end="")
