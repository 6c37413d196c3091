"""How a tokenizer copes with a data set: pieces a word, words it cannot spell, words that are cut off."""

from dataclasses import dataclass

from .corpus import Kind

# Above these, a result says more about the tokenizer than about freezing. BERT's English vocabulary leaves
# under 0.1 % of English words unknown and makes 1.2 pieces of one.
_UNKNOWN_SHARE = 0.10
_PIECES_PER_WORD = 4.0
_CUT_SHARE = 0.01


@dataclass(frozen=True)
class Coverage:
    """Counts over the examples that a task uses, all splits together; add two to have the counts of both.

    A word is one of the data set's for NER, and what stands between white space for classification.

    - ``words``, ``pieces``: all of them, cut or not, special tokens left out
    - ``unknown_words``: words that hold the unknown token, or of which the tokenizer makes nothing at all
    - ``cut_words``: words wholly beyond ``max_length``: never trained on, never scored
    - ``cut_examples``: examples that lost at least one piece
    """

    examples: int = 0
    cut_examples: int = 0
    words: int = 0
    cut_words: int = 0
    pieces: int = 0
    unknown_words: int = 0

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(
            self.examples + other.examples,
            self.cut_examples + other.cut_examples,
            self.words + other.words,
            self.cut_words + other.cut_words,
            self.pieces + other.pieces,
            self.unknown_words + other.unknown_words,
        )

    @property
    def pieces_per_word(self) -> float:
        return self.pieces / max(self.words, 1)

    @property
    def unknown_word_share(self) -> float:
        return self.unknown_words / max(self.words, 1)

    @property
    def cut_word_share(self) -> float:
        return self.cut_words / max(self.words, 1)

    @property
    def cut_example_share(self) -> float:
        return self.cut_examples / max(self.examples, 1)

    def warnings(self, kind: Kind, max_length: int) -> tuple[str, ...]:
        """Sentences on what a reader of the results must know; none where the tokenizer copes."""
        found = []
        if self.unknown_word_share > _UNKNOWN_SHARE:
            found.append(
                f"The tokenizer cannot read this language: {self.unknown_word_share:.0%} of the words contain the "
                f"unknown token ({self.pieces_per_word:.1f} pieces a word); "
                "take a model whose vocabulary covers it, or read the results as those of a blinded model."
            )
        # White space divides words in too few scripts to judge by it alone.
        elif kind == "ner" and self.pieces_per_word > _PIECES_PER_WORD:
            found.append(
                f"The tokenizer spells this language out: {self.pieces_per_word:.1f} pieces a word; "
                "take a model whose vocabulary covers it."
            )
        if self.cut_word_share > _CUT_SHARE:
            found.append(
                f"{self.cut_word_share:.1%} of the words ({self.cut_words:,}) lie beyond {max_length} pieces and are "
                "neither trained on nor scored; a greater max length would keep them."
            )
        return tuple(found)
