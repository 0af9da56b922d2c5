"""Numbers in prose, in digits and in words: 10,000 is ten thousand is 1 万."""

import re

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {word: value for value, word in enumerate(SMALL.split())}
WORDS |= {word: 10 * value for value, word in enumerate(TENS.split(), 2)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
FRACTIONS = {"half": 0.5, "quarter": 0.25, "tenth": 0.1, "twice": 2, "once": 1}
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}
DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
UNITS = {"十": 10, "百": 100, "千": 1000}
MYRIADS = {"万": 10**4, "亿": 10**8}
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?![A-Za-z])", re.ASCII)


def numerals(text: str) -> list[str]:
    """Every number in digits, in one form: 10,000 and 1 万 are both 10000."""
    found = []
    for match in NUMBER.finditer(text):
        value = float(match[0].replace(",", ""))
        scale = re.match(r" ?([万亿]|million|billion|thousand)", text[match.end() :])
        if scale:
            value *= MYRIADS.get(scale[1]) or SCALES[scale[1]]
        found.append(_plain(value))
    return found


def spelled(text: str) -> list[str]:
    """Every number in words that the text may mean, and every part of it."""
    return _english(text.lower()) + _chinese(text)


def _plain(value: float) -> str:
    return f"{value:.12g}"


def _english(text: str) -> list[str]:
    found = []
    current = None
    for word in re.findall(r"[a-z]+", text):
        if word in WORDS:
            value = WORDS[word]
            # twenty-five
            current = current + value if current and value < 10 and current % 10 == 0 else value
            found.append(_plain(current))
        elif word in SCALES:
            current = (current or 1) * SCALES[word]
            found.append(_plain(current))
        else:
            current = None
            value = FRACTIONS.get(word) or ORDINALS.get(word)
            if value:
                found.append(_plain(value))
    return found


def _chinese(text: str) -> list[str]:
    found = []
    for run in re.findall("[零〇一二两三四五六七八九十百千万亿半]+", text):
        total = section = digit = 0
        for char in run:
            if char in DIGITS:
                digit = DIGITS[char]
            elif char in UNITS:
                section += (digit or 1) * UNITS[char]
                digit = 0
            elif char in MYRIADS:
                total += ((section + digit) or 1) * MYRIADS[char]
                section = digit = 0
            elif char == "半":
                found.append("0.5")
        found.append(_plain(total + section + digit))
    return found
