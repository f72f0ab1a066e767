"""Check the two runs of a regression report before they are compared: whole, of one truth, of one code. No torch."""

from __future__ import annotations

import numpy as np

from perpo.errors import PerpoError
from perpo.records.run_record import ModelInfo
from perpo.records.store import Run
from perpo.results.compare import other_versions
from perpo.results.samples import Scores


def check_complete(run: Run) -> None:
    """Refuse numbers without samples, and (exit code 3) a run that is not finished."""
    if run.record.source != "measured":
        raise PerpoError(f"{run.path} holds {run.record.source} numbers, but no samples", "give measured runs")
    if run.record.status != "complete":
        judging = run.record.status == "awaiting judge" or run.record.judge is not None
        hint = "score it with perpo-eval judge RUN" if judging else "run the same perpo-eval command again to finish it"
        raise PerpoError(f"the run {run.path} is {run.record.status}", hint, exit_code=3)


def check_targets(candidate: Run, baseline: Run, shared: Scores) -> None:
    """Refuse samples whose truth has changed: their key does not hold it."""
    targets = []
    for run in (candidate, baseline):
        table = run.samples(["sample_key", "target"])
        told = dict(zip(table["sample_key"].to_pylist(), table["target"].to_pylist(), strict=True))
        targets.append([told[key] for key in shared.keys.tolist()])
    if changed := sum(new != old for new, old in zip(*targets, strict=True)):
        raise PerpoError(f"{changed} samples of both runs have different truths", "evaluate both runs on the same data")


def other_code(candidate: Run, baseline: Run, strict: bool) -> list[str]:
    """Say that two runs were scored by other code; with `strict`, refuse them."""
    names = f"{candidate.record.name} and {baseline.record.name}"
    new, old = (run.record.suite.get("sha256") for run in (candidate, baseline))
    if versions := other_versions(candidate.record, baseline.record):
        more = f" and {len(versions) - 3} more" if len(versions) > 3 else ""
        said = (
            f"the scores of {names} have different versions, so their numbers may differ "
            f"({'; '.join(versions[:3])}{more})"
        )
    elif new != old and None not in (new, old):
        said = f"{names} were scored by different code of the same versions ({new:.8} and {old:.8})"
    else:
        return []
    if strict:
        raise PerpoError(said, "score both with perpo-eval --rescore RUN, or leave --strict out")
    return [f"{said}: perpo-eval --rescore RUN scores both with the same code."]


def other_engine(candidate: Run, baseline: Run) -> list[str]:
    """Say that two runs were answered by different engines, or by another version of a server."""
    new, old = (run.record.model for run in (candidate, baseline))
    if (new.engine, new.served) == (old.engine, old.served):
        return []
    told = [_engine(model) for model in (new, old)]
    return [
        f"{candidate.record.name} was answered by {told[0]}, {baseline.record.name} by {told[1]}: where two tokens are "
        "nearly equal, engines can choose differently."
    ]


def _engine(model: ModelInfo) -> str:
    served = model.served or {}
    of = " ".join(str(served[name]) for name in ("software", "version") if served.get(name))
    return f"{model.engine}{f' ({of})' if of else ''}"


def alike(baseline: Run, candidate: Run, shared: Scores) -> set[str]:
    """Return the tasks of whose shared samples every response is the same in both runs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = pa.array(shared.keys.tolist(), pa.string())
    told = []
    for run in (baseline, candidate):
        table = run.samples(["sample_key", "response"])
        told.append(table.filter(pc.is_in(table["sample_key"], value_set=keys)).sort_by("sample_key")["response"])
    same = pc.fill_null(pc.equal(*(part.combine_chunks() for part in told)), False)  # no answer is like no other
    other = ~same.to_numpy(zero_copy_only=False)
    return set(np.unique(shared.tasks).tolist()) - set(np.unique(shared.tasks[other]).tolist())
