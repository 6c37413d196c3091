"""The table that feeds every policy through the conformance suite: a row a policy, its arguments as people give them."""

from adaptivefreeze import BottomUp, HeadOnly, Interleaved, Modules, Nothing, Policy, TopDown

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
}
