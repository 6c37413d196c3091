"""The table that feeds every policy through the conformance suite: a row a policy, its arguments as typed."""

from adaptivefreeze import AutoFreeze, BottomUp, HeadOnly, Interleaved, Modules, Nothing, Policy, TopDown
from adaptivefreeze.policies import After, Ceiling, Floor, Patience

SETTINGS: dict[type[Policy], list[Policy]] = {
    Nothing: [Nothing()],
    BottomUp: [BottomUp(0), BottomUp(1), BottomUp(0.5), BottomUp(1.0), BottomUp(1, embeddings=False)],
    TopDown: [TopDown(0), TopDown(1), TopDown(0.5), TopDown(1.0, embeddings=True)],
    Interleaved: [Interleaved(1), Interleaved(2), Interleaved(2, first=1), Interleaved(3, embeddings=True)],
    HeadOnly: [HeadOnly()],
    Modules: [
        Modules("attention"),
        Modules(r"layer\.\d+\.(output|intermediate)"),
        Modules("embeddings"),
        Modules("a,b=c|bias"),
    ],
    AutoFreeze: [AutoFreeze(), AutoFreeze(percentile=100), AutoFreeze(25.5, intervals=2)],
}

WRAPPED: list[Policy] = [
    Floor(AutoFreeze(), 1),
    Ceiling(AutoFreeze(percentile=80), 0.5),
    Patience(AutoFreeze(), 2),
    Patience(Ceiling(AutoFreeze(), 2), 0),
    After(AutoFreeze(), 0.3),
    After(BottomUp(2), 0.5),
    After(Modules("a+b|attention"), 0),
    Ceiling(Floor(Nothing(), 2), 2),
    Floor(After(TopDown(1), 0.25), 1),
]
