"""The benchmarks as the hub offers them, at a pinned commit, in our columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from perpo.benchmarks.pope import POPE_SPLITS
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.prepare.hub.columns import grounding_rows, pope_row
from perpo.prepare.parquet import RowFile, Written, check_outputs, say, write_rows
from perpo.prepare.published_counts import (
    HUB_GOOGLE_ROWS,
    HUB_REVISIONS,
    PARTITION,
    POPE_IMAGES,
    POPE_ROWS,
    REFER_COUNTS,
    ReferSet,
    compare,
)
from perpo.prepare.refer.google_split import tell_apart
from perpo.prepare.refer.layout import Annotations, Ref, count, read_annotations, read_refs

if TYPE_CHECKING:
    from datasets import Dataset

    from perpo.prepare.arguments import HubArguments

_REPOSITORIES: dict[str, str] = {
    "refcoco": "lmms-lab-encoder/RefCOCO",
    "refcoco+": "lmms-lab-encoder/RefCOCOplus",
    "refcocog": "lmms-lab-encoder/RefCOCOg",
    "coco_pope": "lmms-lab-encoder/POPE",
}
_COMMIT = re.compile("[0-9a-f]{40}")
_GROUNDING_COLUMNS = ("question_id", "image", "question", "answer", "bbox", "iscrowd", "file_name")
_YESNO_COLUMNS = ("id", "question_id", "question", "answer", "image_source", "image")


@dataclass(frozen=True)
class HubTask:
    """A split on the hub.

    Attributes:
        name: As the task is called here, such as refcoco_val.
        benchmark: The part of the name before the split.
        split: Name of the split, there and here.
    """

    name: str
    benchmark: str
    split: str

    @property
    def repository(self) -> str:
        """The data set's id."""
        return _REPOSITORIES[self.benchmark]

    @property
    def config(self) -> str | None:
        """Its configuration there, where there are several."""
        return "Full" if self.is_pope else None

    @property
    def mixture(self) -> str | None:
        """Return a sentence on the two data sets that its rows there are of, or None."""
        google = HUB_GOOGLE_ROWS.get(self.name)
        if google is None:
            return None
        dataset: ReferSet = "refcoco" if self.benchmark == "refcoco" else "refcocog"
        refs, _ = REFER_COUNTS[dataset][self.split]
        return f"{refs} rows of {PARTITION[dataset].upper()}'s partition, which papers use, and {google} of Google's"

    @property
    def is_pope(self) -> bool:
        """Return whether the rows are yes/no questions."""
        return self.benchmark == "coco_pope"


@dataclass(frozen=True)
class _Paper:
    """The refs that the papers report, to be found among the hub's rows."""

    refs: list[Ref]
    annotations: Annotations


def hub_tasks() -> dict[str, HubTask]:
    """Return what can be fetched, by name: the papers' eight columns and POPE's three."""
    pairs = [(dataset, split) for dataset in get_args(ReferSet) for split in REFER_COUNTS[dataset] if split != "train"]
    pairs += [("coco_pope", split) for split in POPE_SPLITS]
    return {f"{benchmark}_{split}": HubTask(f"{benchmark}_{split}", benchmark, split) for benchmark, split in pairs}


def build(args: HubArguments) -> list[Written]:
    """Fetch splits and write <task>.parquet for each.

    Raises:
        PerpoError: The hub can't be reached (exit code 3), or its rows are not as known.
    """
    tasks = _selected(args)
    check_outputs([args.output / f"{task.name}.parquet" for task in tasks], args.overwrite)
    papers = _papers(args, tasks)
    commits: dict[str, str] = {}  # the splits of a repository are of one commit, whatever happens there meanwhile
    written = []
    for task in tasks:
        say(f"fetching {task.name} from {task.repository} ...")
        revision = commits.get(task.repository, args.revision)
        data, commit = hub_rows(task.repository, task.config, task.split, revision)
        commits[task.repository] = commit
        data = _our_columns(task, data)
        if task.is_pope:
            written.append(_write_pope(args, task, commit, data))
        else:
            written.append(_write_grounding(args, task, commit, data, papers.get(task.name)))
    return written


def _selected(args: HubArguments) -> list[HubTask]:
    known = hub_tasks()
    for name in args.tasks:
        if name not in known:
            raise PerpoError(f"--tasks: there is no task '{name}'", did_you_mean(name, known))
    tasks = [known[name] for name in dict.fromkeys(args.tasks)] or list(known.values())
    repositories = {task.repository for task in tasks}
    if args.revision is not None and len(repositories) > 1:
        raise PerpoError(
            f"--revision belongs to one repository, but the tasks are in {len(repositories)} repositories",
            "fetch the tasks of one repository at a time",
        )
    if args.refer_root is not None and not any(task.name in HUB_GOOGLE_ROWS for task in tasks):
        raise PerpoError("--refer_root can be used only for refcoco_val and refcocog_val", "leave it out")
    return tasks


def _papers(args: HubArguments, tasks: Sequence[HubTask]) -> dict[str, _Paper]:
    """The papers' refs of the mixed splits, by task; none without --refer_root."""
    papers: dict[str, _Paper] = {}
    for task in tasks:
        if args.refer_root is None or task.name not in HUB_GOOGLE_ROWS:
            continue
        dataset: ReferSet = "refcoco" if task.benchmark == "refcoco" else "refcocog"
        refs = [ref for ref in read_refs(args.refer_root, dataset, PARTITION[dataset]) if ref.split == task.split]
        known = dict(zip(("refs", "expressions"), REFER_COUNTS[dataset][task.split], strict=True))
        compare(f"{dataset} {task.split} of --refer_root", count(refs), known, args.allow_other_counts)
        papers[task.name] = _Paper(refs, read_annotations(args.refer_root, dataset, refs))
    return papers


def hub_rows(repository: str, config: str | None, split: str, revision: str | None = None) -> tuple[Dataset, str]:
    """Return the rows of a split, and the commit they are of, so that it can be recorded.

    A tag or branch is looked up; a full commit (all 40 digits, as the pinned ones) needs no look-up, so that
    rows that were fetched before are found without a network.

    Args:
        repository: The data set's id on the hub.
        config: Its configuration, if it has several.
        split: Name of the split.
        revision: A commit, tag or branch; by default the pinned commit (`known.HUB_REVISIONS`).

    Raises:
        PerpoError: They can't be fetched, or those at hand are of another commit (exit code 3).
    """
    import datasets
    from huggingface_hub import HfApi

    revision = revision or HUB_REVISIONS.get(repository)
    try:
        commit = revision if revision is not None and _COMMIT.fullmatch(revision) else None
        if commit is None:
            commit = str(HfApi().dataset_info(repository, revision=revision).sha)
        data = datasets.load_dataset(repository, config, revision=commit, split=split)
    except Exception as error:  # of many kinds: no network, no such commit, a file that was cut
        raise _unreachable(repository, revision, error) from error
    _check_commit(data, repository, commit)
    return data, commit


def hub_folder(repository: str, patterns: Sequence[str], revision: str | None = None) -> tuple[Path, str]:
    """Return a data set's files as its repository holds them at a commit, and that commit.

    Args:
        repository, revision: As for `hub_rows`.
        patterns: Which files, such as "images/*".

    Raises:
        PerpoError: They can't be fetched, and are not at hand either (exit code 3).
    """
    from huggingface_hub import HfApi, snapshot_download

    named = revision or HUB_REVISIONS.get(repository, "main")
    try:
        commit = named if _COMMIT.fullmatch(named) else str(HfApi().dataset_info(repository, revision=named).sha)
        folder = snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=list(patterns))
    except Exception as error:  # of many kinds: no network, no such commit, a file that was cut
        raise _unreachable(repository, named, error) from error
    return Path(folder), commit


def _check_commit(data: Dataset, repository: str, commit: str) -> None:
    """Without a network `datasets` takes what it fetched last, whatever the commit: its cache's folder tells."""
    for file in data.cache_files:
        cached_commit = Path(file["filename"]).parent.name
        if cached_commit != commit and _COMMIT.fullmatch(cached_commit):
            raise PerpoError(
                f"{repository} cannot be fetched from the hub, and the copy in the cache is of commit {cached_commit}, "
                f"not {commit}",
                "run the command once with a network connection",
                exit_code=3,
            )


def _unreachable(repository: str, revision: str | None, error: Exception) -> PerpoError:
    text = " ".join(str(error.__cause__ or error).split())
    return PerpoError(
        f"{repository} cannot be fetched from the hub: {type(error).__name__}: {text}",
        f"check the network, and check that the repository has the revision {revision or 'main'}; perpo-data "
        "refer and perpo-data pope need no hub",
        exit_code=3,
    )


def _our_columns(task: HubTask, data: Dataset) -> Dataset:
    """The columns that are used, images as they are stored."""
    from datasets import Image

    wanted = _YESNO_COLUMNS if task.is_pope else _GROUNDING_COLUMNS
    if missing := sorted(set(wanted) - set(data.column_names)):
        raise PerpoError(f"{task.name} of {task.repository} lacks {', '.join(missing)}", "give an older --revision")
    return data.select_columns(list(wanted)).cast_column("image", Image(decode=False))


def _write_pope(args: HubArguments, task: HubTask, commit: str, data: Dataset) -> Written:
    sources = data["image_source"][:]
    if bad := [answer for answer in data["answer"] if answer not in ("yes", "no")]:
        raise PerpoError(
            f"{task.name}: {len(bad)} answers are neither yes nor no, such as {bad[0]!r:.40}",
            "give an older --revision, or leave --revision out to use the pinned one",
        )
    counts = {"rows": len(data), "images": len(set(sources))}
    known = {"rows": POPE_ROWS[task.split][0], "images": POPE_IMAGES}
    verdict = compare(task.name, counts, known, args.allow_other_counts)
    file = _row_file(args, task, commit, counts, verdict, {})
    return write_rows(file, (pope_row(row, task.split) for row in data))


def _write_grounding(args: HubArguments, task: HubTask, commit: str, data: Dataset, paper: _Paper | None) -> Written:
    dataset: ReferSet = next(name for name in get_args(ReferSet) if name == task.benchmark)
    refs, expressions = REFER_COUNTS[dataset][task.split]
    google = HUB_GOOGLE_ROWS.get(task.name, 0)
    texts = list(data.select_columns(["file_name", "bbox", "answer"]))
    verdict = compare(task.name, {"rows": len(texts)}, {"rows": refs + google}, args.allow_other_counts)
    more: dict[str, Any] = {}
    chosen: dict[int, Ref] = {}
    if paper is not None:
        chosen, other = tell_apart(texts, paper.refs, paper.annotations)
        say(f"{task.name}: {len(chosen)} of {len(texts)} rows are the papers'; {other} of them have other expressions")
        expected, counted = ({"rows of the papers": len(some)} for some in (paper.refs, chosen))
        paper_verdict = compare(task.name, counted, expected, args.allow_other_counts)
        if not chosen:
            raise PerpoError(f"{task.name}: --refer_root has none of its rows", "give the refs of the same data set")
        left_out = len(texts) - len(chosen)
        data = data.select(sorted(chosen))
        texts = [texts[number] for number in sorted(chosen)]
        more = {"rows_left_out": left_out, "rows_with_other_expressions": other}
        verdict = "; ".join(dict.fromkeys([verdict, paper_verdict, f"{left_out} other rows left out"]))
    elif google:
        more = {"mixture": task.mixture}
        say(f"{task.name} is a mixture: {task.mixture}; --refer_root separates them")
        verdict += "; a mixture"
    counts = {
        "rows": len(texts),
        "images": len({row["file_name"] for row in texts}),
        "expressions": sum(len(row["answer"]) for row in texts),
    }
    if (chosen or not google) and counts["expressions"] != expressions:
        say(f"{task.name} has {counts['expressions']} expressions instead of the known {expressions}")
    file = _row_file(args, task, commit, counts, verdict, more)
    return write_rows(file, grounding_rows(data, [chosen[number] for number in sorted(chosen)]))


def _row_file(
    args: HubArguments, task: HubTask, commit: str, counts: dict[str, int], verdict: str, more: dict[str, Any]
) -> RowFile:
    return RowFile(
        path=args.output / f"{task.name}.parquet",
        kind="yesno" if task.is_pope else "grounding",
        source=f"hub:{task.repository}",
        split=task.split,
        command=args.command(),
        counts=counts,
        verdict=verdict,
        more={"revision": commit, **more},
    )
