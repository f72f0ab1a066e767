"""Records are trained on by the model that sampled them, unless another is allowed."""

from __future__ import annotations

import pytest

from perpo.data import PreferenceRecord
from perpo.errors import PerpoError
from perpo.train.arguments import TrainArguments
from perpo.train.samplers import check_sampler

BASE = {"weights_sha256": "b" * 64, "adapter_sha256": None, "dtype": "float32"}
ADAPTER, OTHER_ADAPTER = (BASE | {"adapter_sha256": letter * 64} for letter in "ad")
OTHER_BASE = BASE | {"weights_sha256": "c" * 64, "model": "me/other"}
ANYBODYS = {"engine": "elsewhere"}


def check(sampled, start, **options):
    records = [
        PreferenceRecord(
            image_path="0.png",
            image_id=0,
            question="where?",
            answer="here",
            answers_gen=["a", "b"],
            rewards=[0.0, 1.0],
            reward_name="iou",
            reference_logps=[-1.0, -2.0],
            sampling=sampling,
        )
        for sampling in sampled
    ]
    adapter = {} if start["adapter_sha256"] is None else {"adapter": "runs/adapter"}
    args = TrainArguments(**({"data": "records.jsonl", "output_dir": "out"} | adapter | options))
    return check_sampler(args, records, start)


@pytest.mark.parametrize(
    ("sampled", "start", "said"),
    [
        (
            [OTHER_BASE, BASE],
            BASE,
            "1 of 2 records were sampled from the model me/other (weights cccccccccccc...), and",
        ),
        ([ADAPTER], BASE, "1 of 1 records were sampled from the adapter of SHA-256 aaaaaaaaaaaa..., and training"),
        ([BASE, BASE], ADAPTER, "from the model without an adapter, and training starts from runs/adapter, which"),
        ([OTHER_ADAPTER], ADAPTER, "SHA-256 dddddddddddd..., and training starts from runs/adapter, which is another"),
    ],
)
def test_another_models_records_are_refused_or_allowed_with_a_word(sampled, start, said):
    for method in ("perpo", "dpo", "rft"):
        with pytest.raises(PerpoError) as caught:
            check(sampled, start, method=method)
        assert said in caught.value.message
        assert "--allow_other_sampler True" in caught.value.hint
        assert "log-probabilities in the records are not the reference's" in caught.value.hint
        allowed = check(sampled, start, method=method, allow_other_sampler=True)
        assert "the reference is the latter, whatever log-probabilities they hold" in allowed
    assert check(sampled, start, method="sft") is None  # it learns the truths


def test_own_records_and_those_that_do_not_say_are_taken():
    for sampled, start in (([BASE], BASE), ([ADAPTER, ADAPTER], ADAPTER), ([None, ANYBODYS], ADAPTER)):
        assert check(sampled, start) is None


def test_rounds_that_were_put_together_go_on_from_the_last_adapter():
    """The first round has the base's answers; the reference is the adapter that training goes on from."""
    said = check([BASE, OTHER_ADAPTER, ADAPTER, None], ADAPTER)
    assert said.startswith("2 of 4 records were sampled from another model or adapter than training starts from")
    with pytest.raises(PerpoError, match="1 of 3 records were sampled from the model me/other"):
        check([BASE, OTHER_BASE, ADAPTER], ADAPTER)


def test_recorded_log_probabilities_are_nobody_elses():
    for sampled in ([BASE, OTHER_BASE], [ADAPTER], [None]):
        with pytest.raises(PerpoError, match="was not sampled from the model and adapter that training starts from"):
            check(sampled, BASE, reference="recorded")
    with pytest.raises(PerpoError, match="--allow_other_sampler has no effect with --reference recorded"):
        check([OTHER_BASE], BASE, reference="recorded", allow_other_sampler=True)
