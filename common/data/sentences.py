"""Pairs of sentences as tensors: what surrounds a tokenizer, a search, BLEU and a prompt."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from common.data.sequences import END, PAD
from common.data.translation import Pair
from common.errors import LessonError

if TYPE_CHECKING:
    from torch import Tensor

    Row = tuple[Tensor, Tensor]  # a sentence's numbers, and its translation's with END

SPECIAL = ("[PAD]", "[START]", "[END]", "[UNKNOWN]")
UNKNOWN = 3  # the number of each character that training does not have
BLANK = "▁"


def split_text(text: str) -> list[str]:
    """Words and signs, each with the blank before it as ▁: joined, they are the text again.

    Only where blanks stand side by side, or at an end, some are lost.
    """
    text = BLANK + BLANK.join(text.replace(BLANK, " ").split())
    return re.findall(rf"{BLANK}?(?:[^\W_]+|[^\w{BLANK}]|_)", text)


def count_words(pairs: Iterable[Pair]) -> tuple[Counter, list[str]]:
    """How often each word stands on either side, and all characters in alphabetical order."""
    words = Counter()
    for pair in pairs:
        for text in pair:
            words.update(split_text(text))
    return words, sorted({sign for word in words for sign in word} | {BLANK})


class Subwords:
    """Texts to numbers and back: 0 to 3 are special, then come characters, then merged symbols.

    cut(word, merges) -> the symbols of a word.
    """

    def __init__(self, characters: Sequence[str], merges: Sequence, cut: Callable):
        self.characters = list(characters)
        self.merges = [tuple(pair) for pair in merges]
        self.cut = cut
        merged = [first + second for first, second in self.merges]
        self.names = [*SPECIAL, *dict.fromkeys([*self.characters, *merged])]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self._known: dict[str, list[int]] = {}  # words that were cut before

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str) -> list[int]:
        numbers = []
        for word in split_text(text):
            if word not in self._known:
                symbols = self.cut(word, self.merges)
                self._known[word] = [self.numbers.get(each, UNKNOWN) for each in symbols]
            numbers += self._known[word]
        return numbers

    def decode(self, numbers: Iterable[int]) -> str:
        """Up to the first END; special symbols give nothing."""
        names = []
        for number in numbers:
            if number == END:
                break
            if number >= len(SPECIAL):
                names.append(self.names[number])
        return "".join(names).replace(BLANK, " ").strip()

    def names_of(self, numbers: "Iterable[int]") -> list[str]:
        return [self.names[int(number)] for number in numbers]

    def encode_one(self, text: str, longest: int) -> list[int]:
        """What somebody typed. Raises LessonError where a model could only guess."""
        if not text.strip():
            raise LessonError("there is nothing to translate: write a sentence.")
        if strange := self.strange(text):
            signs = " ".join(strange)
            raise LessonError(f"write it without what training never had: {signs}")
        numbers = self.encode(text)
        if len(numbers) > longest:
            raise LessonError(
                f"the sentence has {len(numbers)} tokens, and the model has read {longest} at "
                "most. Write a shorter one, or several."
            )
        return numbers

    def strange(self, text: str) -> list[str]:
        """The characters of a text that have no number, in the order of the alphabet."""
        return sorted({sign for word in split_text(text) for sign in word} - {*self.characters})


def encode_pairs(tokenizer: Subwords, pairs: Sequence[Pair], longest: int) -> "list[Row]":
    """The pairs whose two sides have 1 to `longest` tokens each, END counted."""
    import torch

    rows = []
    for source, target in pairs:
        row = (tokenizer.encode(source), [*tokenizer.encode(target), END])
        if row[0] and max(map(len, row)) <= longest:
            rows.append(tuple(torch.tensor(side) for side in row))
    if len(rows) < 8:
        raise LessonError(f"only {len(rows)} pairs have at most --longest {longest} tokens.")
    return rows


def fill_up(texts: "Sequence[Tensor]") -> "Tensor":
    """Texts of many lengths as one tensor (B, T), PAD behind the shorter ones."""
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(texts, batch_first=True, padding_value=PAD)


def pad(rows: "Sequence[Row]") -> "Row":
    """Sources (B, S) and targets (B, T)."""
    sources, targets = zip(*rows)
    return fill_up(sources), fill_up(targets)


def one_of_each(rows: "list[Row]") -> "list[Row]":
    """The first row of each source: with two translations to one source, none can be certain."""
    found = {}
    for source, target in rows:
        found.setdefault(tuple(source.tolist()), (source, target))
    return list(found.values())


class PairBatches:
    """Rows in batches, grouped anew in every pass; its state is for `Checkpoint`.

    group(lengths, generator, most): which rows share a batch, whose longest times its size is at
    most `most`; a row's length is that of its longer side.
    Of the same lengths it must make equally many batches.
    """

    def __init__(self, rows: "list[Row]", group: Callable, most: int, seed: int):
        import torch

        self.rows = rows
        self.group = partial(group, most=most)
        self.lengths = torch.tensor([max(len(source), len(target)) for source, target in rows])
        self.generator = torch.Generator().manual_seed(seed)
        self.count = len(self.group(self.lengths, torch.Generator()))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> "Iterator[Row]":
        for chosen in self.group(self.lengths, self.generator):
            yield pad([self.rows[number] for number in chosen])

    def state_dict(self) -> "dict[str, Tensor]":
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: "dict[str, Tensor]") -> None:
        self.generator.set_state(state["generator"])


def share_of_padding(batches: "Iterable[Row]") -> float:
    """How many of all positions, of both sides, hold PAD."""
    filled = 0
    positions = 0
    for batch in batches:
        for side in batch:
            filled += int((side == PAD).sum())
            positions += side.numel()
    return filled / positions


def until_end(tokens: "Tensor") -> list[int]:
    """(T,) -> the numbers up to END, and with it."""
    numbers = tokens.tolist()
    return numbers[: numbers.index(END) + 1] if END in numbers else numbers


def bleu_words(text: str) -> list[str]:
    """As the program mteval-v13a cuts, which sacrebleu follows; Chinese, character by character.

    sacrebleu's "zh" differs in one thing: it leaves the point of “3.” at the end of a text.
    """
    text = re.sub(r"([\u2001-\u2a6d\u2e80-\u9fbb\uf900-\uffef])", r" \1 ", text)
    text = re.sub(r"([{-~[-` -&(-+:-@/])", r" \1 ", f" {text} ")
    # points and commas stay within numbers; a hyphen leaves a number that it follows
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])(-)", r"\1 \2 ", text).split()


def same_words(one: str, other: str) -> bool:
    return bleu_words(one) == bleu_words(other)


def good_and_bad(pairs: Sequence[Pair]) -> list[tuple[list[str], list[str]]]:
    """Sets of translations with their references, for a test of BLEU: right ones and all kinds
    of wrong ones, with numbers and signs, and with nothing at all.
    """
    sources = [source for source, _ in pairs]
    references = [target for _, target in pairs]
    shorter = [" ".join(text.split()[1:]) for text in references]
    backwards = [" ".join(reversed(text.split())) for text in references]
    doubled = [f"{text} {text}" for text in references]
    cases = [(each, references) for each in (references, sources, shorter, backwards, doubled)]
    signs = ["1,000.5 e.g. A-b 3-4 (x/y) don’t “so”; 我们3.5天。", "a b c d e f", "", "x"]
    others = ["1,000.5 e.g. A-B 3-4 (x/y) don't “so”, 我们3.5天。", "a c b f g h i", "a", "x"]
    cases += [(signs, others), (signs[1:], others[1:]), (["x y"], ["x y z"]), ([""], ["a"])]
    return cases


def every_text(symbols: int, length: int) -> "tuple[Tensor, Tensor]":
    """All texts of so many symbols (V^length, length), and True up to the first END of each."""
    import torch

    texts = torch.cartesian_prod(*[torch.arange(symbols)] * length)
    is_end = texts == END
    return texts, is_end.cumsum(dim=1) - is_end.long() == 0


def talk(answer: Callable[[str], str]) -> None:
    """A prompt: what is typed and what `answer` makes of it, until Ctrl-C or Ctrl-D."""
    print("  Write a sentence, press Enter. Ctrl-C ends it.")
    while True:
        try:
            print(answer(input("> ")))
        except LessonError as error:
            print(f"  {error}")
        except (EOFError, KeyboardInterrupt):
            print()
            return
