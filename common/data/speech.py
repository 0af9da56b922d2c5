"""Spoken digits: synthesised tones offline, real voices by --data fsdd; recordings of one's own.

Every set has three parts, cut by recording: no recording of one part stands in another. `test()`
counts its calls.
"""

import io
import wave
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find
from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    from torch import Tensor

RATE = 8000  # samples a second, of every set
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LONGEST = 20  # seconds of a recording of one's own
FULL = 32767  # the largest sample of 16 bits
CLIPPED = 0.005  # a share of samples at the limit from which a recording counts as clipped

# The two lowest resonances of five vowels, in Hz, and the two vowels that make each digit.
FORMANTS = {"i": (280, 2250), "e": (500, 1850), "a": (750, 1250), "o": (500, 900), "u": (320, 700)}
VOWELS = ("ie", "ia", "iu", "ei", "eo", "ai", "ao", "oe", "ua", "ui")
PITCHES = (95, 115, 140, 170, 205, 240)  # of the six voices, in Hz
TONE_NAMES = tuple(f"{pitch} Hz" for pitch in PITCHES)
COPIES, TINY_COPIES = 20, 5  # how often each voice says each digit


@dataclass(frozen=True)
class Utterance:
    """One voice says one to three digits. audio: (samples,) float32, within -1 and 1."""

    audio: np.ndarray
    words: tuple[int, ...]
    speaker: int


@dataclass
class SpeechSet:
    name: str
    words: tuple[str, ...]
    speakers: tuple[str, ...]
    train: list[Utterance]
    val: list[Utterance]
    _test: list[Utterance]
    own: Utterance | None = None  # a recording of the learner's, with no words and no speaker

    def test(self) -> list[Utterance]:
        """The test part. Read it once, at the end."""
        current().read_test(*(utterance.audio for utterance in self._test))
        return self._test


@dataclass(frozen=True)
class Clips:
    """Recordings of one digit each. part: 0 train, 1 val, 2 test."""

    audio: list[np.ndarray]
    digit: np.ndarray
    speaker: np.ndarray
    part: np.ndarray


def load_speech(cfg: LessonConfig, passes: int = 1) -> SpeechSet:
    """The set that cfg.data names, "tones" or "fsdd"; the same parts for every seed.

    A recording that cfg.wav names is read first, and comes along as `own`. Each other recording is
    said once in its part, in training `passes` times (tiny: once), in another company each time.
    """
    wav = getattr(cfg, "wav", None)
    own = None if wav is None else Utterance(read_wav(wav), (), 0)
    if cfg.data == "fsdd":
        clips, speakers = _read_fsdd(cfg)
    else:
        copies = TINY_COPIES if cfg.tiny else COPIES
        clips, speakers = generate_tones(copies, np.random.default_rng(0)), TONE_NAMES
        current().use_data("tones", "synthesised")
    parts = []
    for part in range(3):
        rng = np.random.default_rng([1, part])
        repeats = passes if part == 0 and not cfg.tiny else 1
        utterances = [u for _ in range(repeats) for u in join_clips(clips, part, rng)]
        parts.append(utterances)
    return SpeechSet(cfg.data, DIGITS, speakers, *parts, own)


def load_fsdd(cfg: LessonConfig) -> SpeechSet:
    return load_speech(replace(cfg, data="fsdd"))


def join_clips(clips: Clips, part: int, rng: np.random.Generator) -> list[Utterance]:
    """All recordings of a part, each once, as utterances of one to three digits by one voice.

    Before, between and after the digits there are pauses of 0 to 0.2 s, and over everything lies a
    faint noise (0.002; the loudest sample is 0.9).
    """
    utterances = []
    for speaker in range(int(clips.speaker.max()) + 1):
        members = np.flatnonzero((clips.part == part) & (clips.speaker == speaker))
        order = list(rng.permutation(members))
        while order:
            count = int(rng.integers(1, 4))
            chosen, order = order[:count], order[count:]
            pieces = [np.zeros(int(rng.integers(RATE // 5)))]
            for number in chosen:
                pieces += [clips.audio[number], np.zeros(int(rng.integers(RATE // 5)))]
            audio = np.concatenate(pieces)
            audio *= 0.9 / max(np.abs(audio).max(), 1e-9)
            audio += rng.normal(scale=0.002, size=len(audio))
            words = tuple(int(clips.digit[number]) for number in chosen)
            utterances.append(Utterance(audio.clip(-1, 1).astype(np.float32), words, speaker))
    return [utterances[i] for i in rng.permutation(len(utterances))]


def generate_tones(copies: int, rng: np.random.Generator) -> Clips:
    """Six voices say ten digits `copies` times; of each ten copies one is val and two are test.

    A digit is two vowels (VOWELS) that glide into each other in 0.25 to 0.45 s. A voice is a pitch:
    the sum of its harmonics, loud near the two resonances (FORMANTS) of the vowel. Pitch and
    resonances vary by 4 and 12 % (standard deviation) from one recording to the next, the moment of
    the glide from a third to two thirds, and noise of 40 % of the loudness lies over it.
    """
    audio, rows = [], []
    for copy in range(copies):
        for speaker, pitch in enumerate(PITCHES):
            for digit, vowels in enumerate(VOWELS):
                audio.append(_say(vowels, pitch, rng))
                rows.append((digit, speaker, {0: 1, 1: 2, 2: 2}.get(copy % 10, 0)))
    digit, speaker, part = np.array(rows).T
    return Clips(audio, digit, speaker, part)


def _say(vowels: str, pitch: float, rng: np.random.Generator) -> np.ndarray:
    n = int(rng.uniform(0.25, 0.45) * RATE)
    at = np.linspace(0, 1, n, dtype=np.float32)
    second = 1 / (1 + np.exp(-25 * (at - rng.uniform(1 / 3, 2 / 3))))  # 0 to 1: the other vowel
    falling = 1.05 - 0.1 * at  # the pitch falls by a tenth
    pitch = pitch * np.exp(0.04 * rng.normal()) * falling
    pitch = pitch.astype(np.float32)
    angle = 2 * np.pi * np.cumsum(pitch) / RATE
    harmonics = np.arange(1, int(0.95 * RATE / 2 / pitch.max()) + 1, dtype=np.float32)[:, None]
    spread = np.exp(0.12 * rng.normal(size=2))
    first_vowel, second_vowel = (np.array(FORMANTS[vowel]) * spread for vowel in vowels)
    loud = np.zeros((len(harmonics), n), np.float32)
    for low, high in zip(first_vowel.tolist(), second_vowel.tolist()):
        resonance = low + (high - low) * second
        loud += 1 / (1 + ((harmonics * pitch - resonance) / 90) ** 2)
    voice = (loud * np.sin(harmonics * angle)).sum(axis=0)
    voice *= np.minimum(1, 8 * np.minimum(at, 1 - at))  # no click at either end
    return voice + 0.4 * voice.std() * rng.normal(size=n)


def _read_fsdd(cfg: LessonConfig) -> tuple[Clips, tuple[str, ...]]:
    """3,000 recordings: index 0 to 4 of each voice and digit is the owner's test part, 5 to 9 val.

    In a tiny run every twelfth or so of them, of each part.
    """
    path = find(FSDD_SOURCE, cfg.data_dir)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("audio", "offsets", "digit", "speaker", "index", "speakers", "sample_rate")
            found = {name: file[name] for name in names}
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise damaged(FSDD_SOURCE, path, f"{type(error).__name__}: {error}") from None
    if why := _unlike_fsdd(found):
        raise damaged(FSDD_SOURCE, path, why)
    current().use_data("fsdd", path)

    bounds = found["offsets"]
    index = found["index"].astype(int)
    chosen = np.flatnonzero(index % 5 == 0) if cfg.tiny else np.arange(len(index))
    clips = Clips(
        [found["audio"][bounds[i] : bounds[i + 1]] / (FULL + 1) for i in chosen],
        found["digit"][chosen].astype(int),
        found["speaker"][chosen].astype(int),
        np.where(index < 5, 2, np.where(index < 10, 1, 0))[chosen],
    )
    return clips, tuple(str(name) for name in found["speakers"])


def _unlike_fsdd(found: dict[str, np.ndarray]) -> str:
    """Why these arrays are not the set; "" where nothing speaks against it."""
    audio, offsets = found["audio"], found["offsets"]
    if found["sample_rate"].shape != () or int(found["sample_rate"]) != RATE:
        return f"its rate is {found['sample_rate']}, not {RATE}"
    if audio.dtype != np.int16 or audio.ndim != 1:
        return f"audio holds {audio.dtype} of shape {audio.shape}, not one row of int16"
    if offsets.shape != (3001,) or offsets.dtype.kind not in "iu":
        return f"offsets has shape {offsets.shape} of {offsets.dtype}, not 3,001 whole numbers"
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(audio) or np.diff(offsets).min() < 1:
        return "the offsets do not cut the audio into 3,000 recordings"
    labels = [found[name] for name in ("speaker", "digit", "index")]
    if any(label.shape != (3000,) for label in labels) or found["speakers"].shape != (6,):
        return "it does not hold six voices and a label for each recording"
    if len(set(zip(*(label.tolist() for label in labels)))) != 3000:
        return "a recording stands there twice"
    wanted = [(0, 5), (0, 9), (0, 49)]
    if [(int(label.min()), int(label.max())) for label in labels] != wanted:
        return "it is not six voices that say ten digits fifty times"
    return ""


def pad_utterances(
    utterances: Sequence[Utterance], features: Callable[["Tensor"], "Tensor"]
) -> tuple["Tensor", ...]:
    """For CTC: features (B, T, F), frames (B,), targets (B, S), lengths (B,), speakers (B,).

    features: audio (samples,) -> (T, F). Padding is 0. Class 0 is the blank, so that word w has
    the class w + 1.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [features(torch.from_numpy(utterance.audio)) for utterance in utterances]
    words = [torch.tensor(utterance.words, dtype=torch.long) + 1 for utterance in utterances]
    return (
        pad_sequence(rows, batch_first=True),
        torch.tensor([len(row) for row in rows]),
        pad_sequence(words, batch_first=True),
        torch.tensor([len(sentence) for sentence in words]),
        torch.tensor([utterance.speaker for utterance in utterances]),
    )


def cut_pieces(
    utterances: Sequence[Utterance], features: Callable[["Tensor"], "Tensor"], length: int
) -> "Tensor":
    """All utterances on one tape, cut into pieces of `length` frames: (pieces, length, F)."""
    import torch

    tape = torch.cat([features(torch.from_numpy(utterance.audio)) for utterance in utterances])
    return tape.unfold(0, length, length).transpose(1, 2)


def edits(said: Sequence, heard: Sequence) -> int:
    """How many words are wrong, missing or too many, at the least (Levenshtein's distance)."""
    above = list(range(len(heard) + 1))  # nothing said: each word heard is one too many
    for number, word in enumerate(said, start=1):
        row = [number]
        for column, guess in enumerate(heard, start=1):
            row.append(min(above[column - 1] + (word != guess), above[column] + 1, row[-1] + 1))
        above = row
    return above[-1]


def word_error(said: Sequence[Sequence], heard: Sequence[Sequence]) -> float:
    """Edits for each word that was said, over all sentences. It can be more than 1."""
    return sum(map(edits, said, heard)) / sum(map(len, said))


def read_wav(path: Path, rate: int = RATE) -> np.ndarray:
    """A recording of one's own, mono, 16 bits: (samples,) float32, within -1 and 1.

    Raises LessonError, with one sentence, for anything that a model could make nothing of.
    """
    convert = f"Convert it: ffmpeg -i IN -ac 1 -ar {rate} -c:a pcm_s16le OUT.wav"
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise LessonError(f"{path} cannot be read ({reason}). Give a wav file.") from None
    try:
        with wave.open(io.BytesIO(content)) as file:
            kind = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            # no more than is needed to see that it is too long
            data = file.readframes((LONGEST + 1) * rate)
    except (wave.Error, EOFError, ValueError, ZeroDivisionError) as error:
        why = str(error) or "it ends too early"
        raise LessonError(f"{path} is no wav file of plain samples ({why}). {convert}") from None
    if kind != (1, 16, rate):
        channels, bits, found = kind
        raise LessonError(
            f"{path} has {channels} channel(s) of {bits} bits at {found} Hz, "
            f"and the model knows 1 of 16 bits at {rate} Hz. {convert}"
        )
    samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int64)
    loudest = int(np.abs(samples).max()) if len(samples) else 0
    if len(samples) < rate // 10:
        raise LessonError(f"{path} lasts {len(samples) / rate:.2f} s. Record 0.1 s or more.")
    if len(samples) > LONGEST * rate:
        raise LessonError(f"{path} is longer than {LONGEST} s. Cut it.")
    if loudest < 100:
        raise LessonError(f"{path} is silent (loudest sample {loudest} of {FULL}). Record anew.")
    at_limit = float((np.abs(samples) >= FULL).mean())
    if at_limit > CLIPPED:
        raise LessonError(
            f"{path} is clipped: {at_limit:.1%} of its samples stand at the limit. "
            "Record anew, with the microphone turned down."
        )
    return (samples * 0.9 / loudest).astype(np.float32)


def _convert_fsdd(parts: Sequence[Path], target: Path) -> None:
    """The owner's archive of 3,000 wav files, DIGIT_SPEAKER_INDEX.wav -> one npz."""
    clips = {}
    with zipfile.ZipFile(parts[0]) as archive:
        for name in archive.namelist():
            if "/recordings/" not in name or not name.endswith(".wav"):
                continue
            digit, speaker, index = name.rsplit("/", 1)[-1].removesuffix(".wav").split("_")
            with wave.open(io.BytesIO(archive.read(name))) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            clips[int(digit), speaker, int(index)] = samples.astype(np.int16)

    speakers = sorted({speaker for _, speaker, _ in clips})
    order = sorted(clips)
    arrays = {
        "audio": np.concatenate([clips[key] for key in order]),
        "offsets": np.cumsum([0] + [len(clips[key]) for key in order]),
        "digit": np.array([digit for digit, _, _ in order], np.uint8),
        "speaker": np.array([speakers.index(name) for _, name, _ in order], np.uint8),
        "index": np.array([index for *_, index in order], np.uint8),
        "speakers": np.array(speakers),
        "sample_rate": np.array(RATE),
        "is_test": np.array([index < 5 for *_, index in order]),
    }
    with open(target, "wb") as file:
        np.savez(file, **arrays)


FSDD_REPOSITORY = "Jakobovski/free-spoken-digit-dataset"
FSDD_SOURCE = Source(
    "fsdd",
    "fsdd.npz",
    (
        Part(
            "free-spoken-digit-dataset-1.0.10.zip",
            "sha256:c680098f5d2355ba7cc4bd8b0ca9e0a24c00ebe3b4c552208889a4d28d4fbc2b",
            16419872,
            (
                f"https://codeload.github.com/{FSDD_REPOSITORY}/zip/refs/tags/v1.0.10",
                f"https://github.com/{FSDD_REPOSITORY}/archive/refs/tags/v1.0.10.zip",
            ),
        ),
    ),
    _convert_fsdd,
    "3,000 recordings of English digits, six voices, 8 kHz",
)
