"""The two places that say how a question is asked say the same."""

from perpo.benchmarks.prompts import asking_of
from perpo.models.families import FAMILIES
from perpo_eval.benchmarks.table import BENCHMARKS


def test_questions_without_boxes_are_asked_alike_by_all_programs() -> None:
    """perpo-eval asks by the name of the file, lmms-eval's own command line by the benchmark."""
    asked = [
        (spec.name, asking_of(spec.name), benchmark.prompt(FAMILIES["llava"], "paper"), benchmark.default_query)
        for benchmark in BENCHMARKS.values()
        if not benchmark.has_boxes
        for spec in benchmark.tasks
    ]
    assert len(asked) > 10
    differing = [
        f"{name}: {asking.template!r}, {asking.usual!r} against {template!r}, {usual!r}"
        for name, asking, template, usual in asked
        if (asking.template, asking.usual) != (template, usual)
    ]
    assert not differing, "\n".join(differing)
