"""The table that feeds every policy through the conformance suite: a row a policy, its arguments as typed."""

from adaptivefreeze import (
    AutoFreeze,
    AutoRGN,
    BottomUp,
    Budget,
    Egeria,
    FreezeOut,
    GeometricSchedule,
    GradES,
    GradualUnfreezing,
    HeadOnly,
    Interleaved,
    LayerOut,
    LinearSchedule,
    Lisa,
    Modules,
    Nothing,
    Policy,
    RandomPrefix,
    SmartFRZ,
    TopDown,
    ValidationDriven,
)
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
    ValidationDriven: [
        ValidationDriven(),
        ValidationDriven("eval_macro_f1", mode="max", threshold=0.1, threshold_mode="rel", step=2, reversals=1),
        ValidationDriven(direction="thaw", patience=1, cooldown=0, keep_optimizer_state=False),
    ],
    RandomPrefix: [RandomPrefix(), RandomPrefix(0.3, deepest=2, seed=5), RandomPrefix(0)],
    LinearSchedule: [LinearSchedule(), LinearSchedule(start_at=0.5, level=0.5), LinearSchedule(1.0)],
    GeometricSchedule: [GeometricSchedule(), GeometricSchedule(alpha=1.0, every=0.3)],
    GradualUnfreezing: [GradualUnfreezing(), GradualUnfreezing(every=0.25, step=3)],
    LayerOut: [LayerOut(), LayerOut(0.9, every=0.5, seed=3)],
    Lisa: [Lisa(steps=5), Lisa(blocks=40)],
    FreezeOut: [FreezeOut(), FreezeOut(t0=0.2, cubic=False, scaled=False)],
    GradES: [GradES(every=3), GradES(tau=0.9, alpha=0.0, every=5, stop=False)],
    AutoRGN: [AutoRGN(), AutoRGN(intervals=2, freeze=0.4)],
    Egeria: [Egeria(tolerance=1.0, window=2), Egeria(tolerance=0.5, renew=2, bootstrap=10)],
    SmartFRZ: [SmartFRZ(), SmartFRZ(0.2, intervals=4, window=2, prefix=True), SmartFRZ(0.9, window=1)],
    # The first is the one that trains twice to the same end: by the clock no two runs are quite alike.
    Budget: [
        Budget(clock=False, shorten=False),
        Budget(0.8, clock=False),
        Budget(),
        Budget(0.3),
        Budget(0.3, shorten=False),
        Budget(0.8, decisions=7),
    ],
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
    Ceiling(LinearSchedule(), 1),
]
