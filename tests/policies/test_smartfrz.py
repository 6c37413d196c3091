"""SmartFRZ: what a history holds, the rule with a predictor made by hand, and the one that is shipped."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from policies.test_conformance import stack_of

import adaptivefreeze
from adaptivefreeze import FreezeMask, RequestError, SmartFRZ, parse_policy
from adaptivefreeze.policies import Signals
from adaptivefreeze.policies.attention import FEATURES, AttentionPredictor, History, read_predictor


def by_last_step():
    """Says finished when the last step is less than e^-3 of the whole movement, and looks at nothing else."""
    one, width = np.zeros(len(FEATURES)), 2
    embed = np.zeros((len(FEATURES), width))
    embed[FEATURES.index("log last step"), 0] = 1
    mean = one.copy()
    mean[FEATURES.index("log last step")] = -3
    square = np.zeros((width, width))
    out = np.array([0.0, 0, -50, 0])
    return AttentionPredictor(mean, one + 1, embed, np.zeros(width), square, square, square, out, np.zeros(()), {})


@pytest.fixture
def predictor(tmp_path):
    path = tmp_path / "by_last_step.json"
    path.write_text(json.dumps(by_last_step().to_json()))
    return str(path)


class Run:
    """Asks a policy moment by moment; blocks named as `still` move a lot at first and then hardly."""

    def __init__(self, policy, depth=4):
        self.policy, self.moment = policy, 0
        self.mask = policy.initial_mask(stack_of(depth))
        self.at = {f"block {i}": np.zeros(3) for i in range(depth)}

    def go(self, still=(), moments=1):
        for _ in range(moments):
            self.moment += 1
            for name in self.at:
                self.at[name] = self.at[name] + (1e-3 if int(name[6:]) in still else 1.0)
            samples = {name: value.tolist() for name, value in self.at.items()}
            decision = self.policy.update(
                Signals(self.moment, 100, 25, self.moment / 25, self.mask, 1e-3, weight_samples=samples)
            )
            self.mask = decision.mask if decision else self.mask
        return decision


def test_a_row_tells_how_far_how_fast_and_whether_straight_on():
    history = History()
    history.add([3.0, 4.0], window=2)
    assert history.rows == [], "the first moment has nothing to be compared with"
    history.add([6.0, 8.0], window=2)
    assert history.rows[0] == pytest.approx([math.log(10 / math.sqrt(2)), math.log(0.5), 0.0, 1.0])
    history.add([2.0, 11.0], window=2)  # a step (-4, 3), across the last one and the movement so far
    assert history.rows[1] == pytest.approx([math.log(math.sqrt(125 / 2)), math.log(5 / math.sqrt(125)), 0.0, 0.0])
    history.add([2.0, 11.0], window=2)  # none at all
    assert len(history.rows) == 2
    assert history.rows[1][2:] == [0.0, 0.0]
    assert history.rows[1][1] < -10


def test_each_block_freezes_when_it_is_finished_and_the_last_never(predictor):
    run = Run(SmartFRZ(window=2, predictor=predictor))
    assert run.go() is None
    assert run.go() is None, "two rows take three moments"
    nothing = run.go()
    assert nothing.mask == FreezeMask(4)
    assert nothing.reason == "finished with probability [.00 .00 .00], threshold 0.5"
    middle = run.go(still={1, 3}, moments=1)
    assert middle.mask == FreezeMask(4, blocks=[1])
    assert middle.reason == "finished with probability [.00 1.00 .00], threshold 0.5"
    first = run.go(still={0, 1, 3})
    assert first.mask == FreezeMask(4, embeddings=True, blocks=[0, 1])
    assert first.reason == "finished with probability [1.00 – .00], threshold 0.5"
    assert run.go(still={0, 1, 2, 3}).mask == FreezeMask.first(4, 3)
    assert run.go(moments=3) is None, "what is frozen stays so, and there is nothing left to judge"


def test_with_prefix_a_block_waits_for_those_before_it(predictor):
    run = Run(SmartFRZ(window=2, prefix=True, predictor=predictor))
    run.go(moments=3)
    assert run.go(still={1, 2}).mask == FreezeMask(4)
    assert run.go(still={0, 1}).mask == FreezeMask.first(4, 2)
    assert run.go(still={2}).mask == FreezeMask.first(4, 3)


def test_a_block_that_a_wrapper_thaws_is_judged_by_a_new_history(predictor):
    run = Run(SmartFRZ(window=2, predictor=predictor))
    run.go(moments=3)
    assert run.go(still={0}).mask == FreezeMask.first(4, 1)
    run.go()
    run.mask = FreezeMask(4)
    assert run.go(still={0}, moments=2).mask == FreezeMask(4)
    assert run.go(still={0}).mask == FreezeMask.first(4, 1)


def test_a_history_without_numbers_freezes_nothing(predictor):
    run = Run(SmartFRZ(window=2, predictor=predictor))
    run.go(moments=3)
    run.at["block 0"] = run.at["block 0"] * math.nan
    assert run.go(still={0}).mask == FreezeMask(4)


def test_its_state_is_plain_json_and_goes_on_in_mid_history(predictor):
    whole, cut = (Run(SmartFRZ(window=3, predictor=predictor)) for _ in range(2))
    for run in (whole, cut):
        run.go(moments=3)
    state = json.loads(json.dumps(cut.policy.state_dict()))
    cut.policy = parse_policy(str(cut.policy))
    cut.policy.reset()
    cut.policy.load_state_dict(state)
    assert cut.policy.state_dict() == whole.policy.state_dict() == state
    assert [cut.go(still={0}), cut.go(still={0, 1})] == [whole.go(still={0}), whole.go(still={0, 1})]
    assert cut.mask == FreezeMask.first(4, 2)


def test_the_predictor_attends_to_what_its_key_matches():
    """Two rows, keys so far apart that all attention is on one of them: what is found is that row's value."""
    network = dataclasses.replace(
        by_last_step(),
        bias=np.array([0.0, 1.0]),
        query=np.array([[0.0, 0], [1e4, 0]]),
        key=np.array([[1.0, 0], [0, 0]]),
        value=np.array([[1.0, 0], [0, 0]]),
        out=np.array([1.0, 0, 0, 0]),
    )
    rows = [[0.0, -1.0, 0, 0], [0.0, -4.0, 0, 0]]  # the first token is tanh(2), the second tanh(-1)
    assert network.probability(rows) == pytest.approx(1 / (1 + math.exp(-math.tanh(2))))
    assert network.probability(rows[1:]) == pytest.approx(1 / (1 + math.exp(math.tanh(1))))


def test_the_shipped_predictor_is_small_and_says_where_it_comes_from():
    path = Path(adaptivefreeze.__file__).parent / "policies" / "data" / "smartfrz.json"
    assert path.stat().st_size < 10_000
    provenance = read_predictor().provenance
    defaults = SmartFRZ()
    assert (provenance["window"], provenance["moments_an_epoch"]) == (defaults.window, defaults.intervals)
    assert {"command", "model", "data", "versions", "training"} <= set(provenance)
    cards = path.parents[1].joinpath("README.md").read_text()
    card = " ".join(cards.partition("\n## `smartfrz`")[2].partition("\n## ")[0].split())
    for judged in provenance["held_out"].values():
        assert f"{100 * judged['accuracy']:.1f} % (base rate {100 * judged['base_rate']:.1f} %" in card


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("smartfrz:0", "smartfrz: threshold must be a number above 0 up to 1, not 0"),
        ("smartfrz:1.5", "smartfrz: threshold must be a number above 0 up to 1, not 1.5"),
        ("smartfrz:intervals=0", "smartfrz: intervals must be a number above 0, not 0"),
        ("smartfrz:window=0", "smartfrz: window must be a whole number of 1 or more, not 0"),
        ("smartfrz:prefix=3", "smartfrz: prefix must be true or false, not 3"),
        (
            "smartfrz:predictor=/nowhere.json",
            r"smartfrz: '/nowhere.json' is no predictor .*No such file.*: give a file",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_policy(spec)


@pytest.mark.parametrize("text", ["no json", "{}", "[1]", '{"mean": "x"}'])
def test_a_file_that_is_no_predictor_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RequestError, match="is no predictor that can be used"):
        SmartFRZ(predictor=str(path))
    wrong = {**by_last_step().to_json(), "query": [[1.0]]}
    path.write_text(json.dumps(wrong))
    with pytest.raises(RequestError, match=r"query must be finite numbers of shape \(2, 2\)"):
        SmartFRZ(predictor=str(path))
    with pytest.raises(RequestError, match="a path without a comma"):
        SmartFRZ(predictor="a,b.json")
