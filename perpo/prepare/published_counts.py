"""The numbers of rows that the published benchmarks have, so that another count is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from perpo.errors import PerpoError

ReferSet = Literal["refcoco", "refcoco+", "refcocog"]
FoxLanguage = Literal["en", "cn"]

PARTITION: dict[ReferSet, str] = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
"""Whose splits the papers report: refs(<partition>).p of the refer layout."""

# Refs: the table in the description of TensorFlow Datasets' `ref_coco`. Expressions: RefCOCO's in FlagEval's page on
# the data set; the sums over the three sets' evaluation splits (21,586, 21,373 and 14,498) in the card of
# JierunChen/Ref-L4; RefCOCO+'s train share is what is left of its 141,564.
REFER_COUNTS: dict[ReferSet, dict[str, tuple[int, int]]] = {
    "refcoco": {"train": (42404, 120624), "val": (3811, 10834), "testA": (1975, 5657), "testB": (1810, 5095)},
    "refcoco+": {"train": (42278, 120191), "val": (3805, 10758), "testA": (1975, 5726), "testB": (1798, 4889)},
    "refcocog": {"train": (42226, 80512), "val": (2573, 4896), "test": (5023, 9602)},
}
"""(refs, expressions) of each split."""

# The card of JierunChen/Ref-L4. Others who counted RefCOCO+'s files found 5,198, so a few more or less are the same.
REVIEWED_WRONG: dict[ReferSet, int] = {"refcoco": 3054, "refcoco+": 5201, "refcocog": 675}
"""Expressions of the evaluation splits whose label the public review found wrong."""

REFER_SPLITS = ("train", "val", "testA", "testB", "test")

POPE_ROWS: dict[str, tuple[int, ...]] = {"random": (3000, 2910), "popular": (3000,), "adversarial": (3000,)}
POPE_IMAGES = 500

# ucaslcl/Fox, the benchmark of "Focus Anywhere for Fine-grained Multi-page Document Understanding" (arXiv:2405.14295).
FOX_PAGES: dict[FoxLanguage, int] = {"en": 112, "cn": 100}

# Pages in OmniDocBench.json of its releases (opendatalab/OmniDocBench).
OMNIDOCBENCH_PAGES = {981: "1.0", 1355: "1.5", 1651: "1.6"}
"""The version of OmniDocBench that has so many pages."""

# The same table as REFER_COUNTS.
GOOGLE_REFS: dict[ReferSet, dict[str, int]] = {"refcoco": {"val": 5000, "test": 5000}, "refcocog": {"val": 5000}}
"""Refs of the evaluation splits of the sets that Google split in another way, by objects: UNC's and UMD's train hold
their images too."""

# The newest commits of the data (RefCOCOplus: of its files) as the hub's pages of lmms-lab/RefCOCO, /RefCOCOplus,
# /RefCOCOg and /POPE showed them; the data sets moved to lmms-lab-encoder with their history in 2026. The authors'
# own repositories of the judged benchmarks have their published files at these commits.
HUB_REVISIONS = {
    "lmms-lab-encoder/RefCOCO": "a5dff0b3194715fda69b2d6a0d2aaafb41eaa407",
    "lmms-lab-encoder/RefCOCOplus": "6ff10a221309bc4791d1ff7d57f8bbcb509b9e9d",
    "lmms-lab-encoder/RefCOCOg": "93af55545967808285637a67431e4971a6f9fd49",
    "lmms-lab-encoder/POPE": "4db1276663dfa5eb8ad16a52d24c31a09e470896",
    "JierunChen/Ref-L4": "d62c4f4e5f3a639b34adab34e5c8ffeb39f168c1",
    "liuhaotian/llava-bench-in-the-wild": "9773b6fd2be88d4ced480dcd9bfd4ce76e47f79b",
    "Shengcao1006/MMHal-Bench": "f5f49a938f45ed99e235b8519ba28f76832a2add",
}
"""The commits that are read unless another is asked for."""

LLAVA_BENCH_QUESTIONS = 60
MMHAL_QUESTIONS = 96

# Rows of the hub's splits that are refs of Google's partition, beside those that the papers report.
HUB_GOOGLE_ROWS = {"refcoco_val": 5000, "refcocog_val": 5000}


def compare(where: str, counted: Mapping[str, int], known: Mapping[str, int], allow_other: bool) -> str:
    """Hold counts against the known ones.

    Args:
        where: What was counted, for the message.
        counted: The counts by name.
        known: The known ones, some or all of the names.
        allow_other: Whether another count is accepted.

    Returns:
        "as known", or what is other.

    Raises:
        PerpoError: A count is another one, and that is not accepted.
    """
    other = [f"{counted[name]} {name} instead of {count}" for name, count in known.items() if counted[name] != count]
    if not other:
        return "as known"
    if not allow_other:
        raise PerpoError(
            f"{where}: expected {_listed(known)}, found {_listed({name: counted[name] for name in known})}",
            "fetch the files again; if other numbers of rows are intended, give --allow_other_counts",
        )
    return "; ".join(other)


def _listed(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {name}" for name, count in counts.items())
