"""Speech: the synthesised voices, FSDD in small, and recordings that no model could hear."""

import hashlib
import io
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from common import record
from common.config import LessonConfig
from common.data import sources, speech
from common.data.sources import Part, Source
from common.data.speech import (
    FSDD_SOURCE,
    PITCHES,
    RATE,
    Utterance,
    cut_pieces,
    edits,
    generate_tones,
    join_clips,
    load_speech,
    pad_utterances,
    read_wav,
    word_error,
)
from common.errors import LessonError

REAL = os.environ.get("COURSE_DATA")
SPEAKERS = ("ann", "bob", "cy", "dee", "eve", "flo")


def wav(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(samples.dtype.itemsize)
        target.setframerate(rate)
        target.writeframes(samples.tobytes())
    return file.getvalue()


def archive() -> bytes:
    """FSDD as its owner publishes it, each recording a constant of 3 to 12 samples."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("set-1.0/README.md", "a README")
        target.writestr("set-1.0/other/0_ann_0.wav", "no recording of the set")
        for digit in range(10):
            for number, speaker in enumerate(SPEAKERS):
                for index in range(50):
                    samples = np.full(3 + digit, 100 * number + index + 1, "<i2")
                    name = f"set-1.0/recordings/{digit}_{speaker}_{index}.wav"
                    target.writestr(name, wav(samples))
    return file.getvalue()


@pytest.fixture(scope="module")
def published() -> bytes:
    return archive()


@pytest.fixture
def fsdd(published, tmp_path, monkeypatch) -> Path:
    """The set is there to be downloaded; gives the place it will have in the cache."""
    for name in ("COURSE_DATA", "COURSE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "cache")
    file = tmp_path / "set.zip"
    file.write_bytes(published)
    digest = f"sha256:{hashlib.sha256(published).hexdigest()}"
    part = Part(file.name, digest, len(published), (file.as_uri(),))
    small = Source("fsdd", "fsdd.npz", (part,), FSDD_SOURCE.convert, "")
    monkeypatch.setattr(speech, "FSDD_SOURCE", small)
    record.start(tiny=False)
    return tmp_path / "cache" / "fsdd.npz"


def fsdd_config(**settings) -> LessonConfig:
    return LessonConfig(data="fsdd", **settings)


def test_fsdd_is_downloaded_converted_and_cut_by_index(fsdd, capsys) -> None:
    data = load_speech(fsdd_config())
    assert data.speakers == SPEAKERS and f"data: fsdd ({fsdd})" in capsys.readouterr().out
    parts = [data.train, data.val, data.test()]
    assert [sum(len(u.words) for u in part) for part in parts] == [2400, 300, 300]
    tiny = load_speech(fsdd_config(tiny=True))
    counts = [sum(len(u.words) for u in part) for part in (tiny.train, tiny.val, tiny.test())]
    assert counts == [480, 60, 60]

    with np.load(fsdd) as file:
        clip = file["audio"][file["offsets"][1234] : file["offsets"][1235]]
        digit, speaker, index = (int(file[name][1234]) for name in ("digit", "speaker", "index"))
        assert set(clip.tolist()) == {100 * speaker + index + 1} and len(clip) == 3 + digit
        assert (file["is_test"] == (file["index"] < 5)).all()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"sample_rate": np.array(16000)}, "rate is 16000"),
        ({"audio": np.zeros(5)}, "float64"),
        ({"offsets": np.arange(7)}, "offsets has shape"),
        ({"offsets": np.zeros(3001, int)}, "do not cut"),
        ({"digit": np.zeros(3000, int)}, "twice"),
        ({"speakers": np.array(["x"])}, "six voices"),
        ({"index": None}, "KeyError"),
    ],
)
def test_a_damaged_fsdd(fsdd, change, words) -> None:
    load_speech(fsdd_config(tiny=True))
    with np.load(fsdd) as file:
        arrays = {name: file[name] for name in file} | change
    np.savez(fsdd, **{name: value for name, value in arrays.items() if value is not None})
    record.start(tiny=False)
    with pytest.raises(LessonError) as caught:
        load_speech(fsdd_config())
    text = str(caught.value)
    assert words in text and "course data fsdd --again" in text and "\n" not in text, text
    assert record.current().data == []


@pytest.mark.parametrize("content", [b"", b"PK\3\4 half an archive", b"<html>"])
def test_a_file_that_is_no_npz(fsdd, content) -> None:
    load_speech(fsdd_config(tiny=True))
    fsdd.write_bytes(content)
    with pytest.raises(LessonError, match="is damaged"):
        load_speech(fsdd_config())


def test_real_fsdd_where_COURSE_DATA_holds_it() -> None:
    if REAL and (Path(REAL) / FSDD_SOURCE.file).exists():
        data = load_speech(fsdd_config(data_dir=Path(REAL)))
        assert data.speakers[0] == "george"
        assert sum(len(u.words) for u in data.test()) == 300


def test_tones_are_the_same_every_time_and_no_recording_is_in_two_parts() -> None:
    record.start(tiny=False)
    config = LessonConfig(data="tones", tiny=True)
    one, again = load_speech(config, passes=2), load_speech(config)
    assert record.current().test_reads == 0
    test, same = one.test(), again.test()
    assert record.current().test_reads == 2
    assert all((a.audio == b.audio).all() and a.words == b.words for a, b in zip(test, same))
    # a tiny run has one pass, whatever it asks for
    parts = (one.train, one.val, test)
    assert [sum(len(u.words) for u in part) for part in parts] == [120, 60, 120]
    everything = [*again.train, *one.val, *test]
    assert all(np.abs(u.audio).max() <= 1 and 1 <= len(u.words) <= 3 for u in everything)
    assert {word for u in everything for word in u.words} == set(range(10))
    clips = generate_tones(5, np.random.default_rng(0))
    assert np.bincount(clips.part).tolist() == [120, 60, 120]


def test_a_voice_has_its_pitch() -> None:
    clips = generate_tones(1, np.random.default_rng(1))
    assert all(0.25 <= len(audio) / RATE <= 0.45 for audio in clips.audio)
    for speaker, pitch in enumerate(PITCHES):
        likeness = []
        for audio in np.array(clips.audio, dtype=object)[clips.speaker == speaker]:
            part = audio[:1500].astype(float)
            same = np.correlate(part, part, "full")[len(part) - 1 :]
            lags = slice(int(0.9 * RATE / pitch), int(1.15 * RATE / pitch))
            likeness.append(same[lags].max() / same[0])
        assert np.median(likeness) > 0.4, (pitch, likeness)


def test_utterances_say_each_recording_of_a_part_once() -> None:
    clips = generate_tones(1, np.random.default_rng(0))
    clips.part[:30] = 2
    utterances = join_clips(clips, 2, np.random.default_rng(0))
    spoken = sorted((u.speaker, word) for u in utterances for word in u.words)
    assert spoken == sorted(zip(clips.speaker[:30].tolist(), clips.digit[:30].tolist()))


def test_padding_pieces_and_edits() -> None:
    utterances = [
        Utterance(np.arange(n, dtype=np.float32), words, 3) for n, words in ((4, (0, 0)), (2, (9,)))
    ]
    rows, frames, targets, lengths, speakers = pad_utterances(utterances, lambda x: x[:, None])
    assert rows[..., 0].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]] and frames.tolist() == [4, 2]
    assert targets.tolist() == [[1, 1], [10, 0]] and lengths.tolist() == [2, 1]
    assert speakers.tolist() == [3, 3]
    pieces = cut_pieces(utterances, lambda x: x[:, None], 5)
    assert pieces.shape == (1, 5, 1) and pieces.flatten().tolist() == [0, 1, 2, 3, 0]

    pairs = [("kitten", "sitting", 3), ("", "ab", 2), ("abc", "", 3), ("abc", "bc", 1), ("", "", 0)]
    assert [edits(a, b) for a, b, _ in pairs] == [count for *_, count in pairs]
    assert word_error(["abc", "d"], ["ab", "xy"]) == 3 / 4


GOOD = (8000 * np.sin(np.arange(4000))).astype("<i2")
NOT_HEARD = {
    "another rate": (wav(GOOD, rate=16000), "16000 Hz"),
    "stereo": (wav(GOOD, channels=2), "2 channel"),
    "8 bits": (wav(GOOD.astype(np.uint8)), "8 bits"),
    "empty": (b"", "no wav file"),
    "no samples": (wav(GOOD[:0]), "lasts 0.00 s"),
    "silent": (wav(GOOD // 1000), "silent"),
    "clipped": (wav((40_000 * np.sin(np.arange(4000))).clip(-32768, 32767).astype("<i2")), "clip"),
    "an mp3": (b"ID3\3" + bytes(500), "no wav file"),
    "cut off": (wav(GOOD)[:30], "no wav file"),
    "too long": (wav(np.tile(GOOD, 41)), "longer than 20 s"),
}


@pytest.mark.parametrize("content, words", NOT_HEARD.values(), ids=NOT_HEARD)
def test_a_recording_that_no_model_could_hear_gets_one_sentence(tmp_path, content, words) -> None:
    path = tmp_path / "own.wav"
    path.write_bytes(content)
    with pytest.raises(LessonError) as caught:
        read_wav(path)
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value
    assert path.read_bytes() == content


def test_a_recording_of_ones_own(tmp_path) -> None:
    with pytest.raises(LessonError, match="cannot be read"):
        read_wav(tmp_path / "none.wav")
    with pytest.raises(LessonError, match="cannot be read"):
        read_wav(tmp_path)
    path = tmp_path / "own.wav"
    path.write_bytes(wav(GOOD))
    audio = read_wav(path)
    assert audio.shape == (4000,) and audio.dtype == np.float32
    assert np.abs(audio).max() == pytest.approx(0.9)
    config = LessonConfig(data="tones", tiny=True)
    config.wav = path
    own = load_speech(config).own
    assert own is not None and (own.audio == audio).all()
