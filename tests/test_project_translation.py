"""The translator as its user meets it, and its parts against slower ways to the same result."""

import builtins
import itertools
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from projects import run_project

from common import checkpoint
from common.data import sentences
from common.data.sequences import END, PAD
from common.errors import LessonError
from common.lessons import load_lesson

project = load_lesson("phase07_transformer/project-translation")
transformer = load_lesson("phase07_transformer/06-transformer-full")


def run(out: Path, *argv: str) -> int:
    return run_project(project, out, *argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("translation")
    assert run(out, "--tiny", "--no-recurrent") == 0
    return out


# ---- in the terminal


def test_a_prompt_is_translated_and_changes_no_file(trained: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    said = []
    for _ in range(2):
        assert run(trained, "--prompt", "The old dog sees the cat.") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "English to German, learned from generated" in said[0]
    after = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "prompt, words",
    [
        ("", "nothing to translate"),
        ("  \t ", "nothing to translate"),
        ("Wie geht's, 我?", "what training never had: ' ? 我"),
        ("the old dog " * 50, "tokens, and the model has read"),
    ],
)
def test_what_it_could_only_guess_is_refused(trained: Path, prompt, words, capsys) -> None:
    assert run(trained, "--prompt", prompt) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") <= 2


@pytest.mark.parametrize("ending", [EOFError, KeyboardInterrupt])
def test_interactive_goes_on_after_a_refusal(trained: Path, monkeypatch, ending, capsys) -> None:
    lines = iter(["The dog.", "", "§", "The cat."])

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise ending from None

    monkeypatch.setattr(builtins, "input", read)
    assert run(trained, "--interactive") == 0
    said = capsys.readouterr()
    assert "nothing to translate" in said.out and "never had: §" in said.out and not said.err


def test_without_a_model_or_with_another_one(trained: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path / "fresh", "--interactive") == 1
    assert "holds no model yet" in capsys.readouterr().err
    (tmp_path / "model.pt").write_bytes((trained / "model.pt").read_bytes()[:1000])
    assert run(tmp_path, "--prompt", "a") == 1
    assert "is damaged" in capsys.readouterr().err
    state = checkpoint.load(trained / "model.pt")
    others = [{"model": {}}, [1], state | {"dim": 48}, state | {"merges": []}, state | {"dim": "x"}]
    for other in [*others, state | {"characters": 3}]:
        checkpoint.save(tmp_path / "model.pt", other)
        assert run(tmp_path, "--prompt", "a") == 1
        said = capsys.readouterr().err
        assert "holds another model" in said and said.count("\n") <= 2


@pytest.mark.parametrize(
    "flag, value, words", [("--dim", "40", "multiple of 16"), ("--longest", "2", "pairs have")]
)
def test_settings_that_cannot_be(tmp_path: Path, flag, value, words, capsys) -> None:
    assert run(tmp_path, "--tiny", flag, value) == 1
    assert words in capsys.readouterr().err


# ---- training


def small(out: Path, epochs: int = 2, **changes):
    settings = {"merges": 20, "dim": 16, "layers": 1, "dropout": 0.1, "tokens": 100} | changes
    cfg = project.Config(tiny=True, device="cpu", out=out, epochs=epochs, warmup=5, **settings)
    pairs = [("the dog", "der Hund"), ("a cat", "eine Katze"), ("the cat", "die Katze")] * 6
    words, characters = sentences.count_words(pairs)
    merges = project.learn_merges(words, cfg.merges)
    tokenizer = sentences.Subwords(characters, merges, project.cut)
    return cfg, pairs, tokenizer


def train_small(out: Path, kind: str, stop_after: int | None = None, **changes):
    cfg, pairs, tokenizer = small(out, **changes)
    rows = sentences.encode_pairs(tokenizer, pairs, cfg.longest)
    model = project.make_model(cfg, len(tokenizer), kind)
    fit = project.fit
    if stop_after:
        project.fit = lambda *words, **named: fit(*words, **named | {"epochs": stop_after})
    try:
        history = project.train(cfg, model, rows, pairs[:3], tokenizer)
    finally:
        project.fit = fit
    return model, history


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, kind, capsys) -> None:
    whole, history = train_small(tmp_path / "whole", kind)
    train_small(tmp_path / "halves", kind, stop_after=1)
    halves, again = train_small(tmp_path / "halves", kind, resume=True)
    assert "resumed after epoch 1" in capsys.readouterr().out
    for one, two in zip(whole.parameters(), halves.parameters()):
        assert torch.equal(one, two)
    assert [row["train_loss"] for row in again] == [row["train_loss"] for row in history]
    assert all(row["seconds"] > 0 for row in history)
    with pytest.raises(LessonError, match="made with another --lr"):
        train_small(tmp_path / "halves", kind, resume=True, lr=0.1)


def test_the_recurrent_model_is_lesson_6_8s() -> None:
    cfg, _, tokenizer = small(Path())
    model = project.make_model(cfg, len(tokenizer), "recurrent").eval()
    source = torch.tensor([[5, 6, 7], [8, 9, PAD]])
    inputs = torch.tensor([[1, 5, 6, 7], [1, 9, 8, 7]])
    memory, state = model.encoder(source)
    logits, _, _ = model.decoder(inputs, state, memory, source != PAD)
    torch.testing.assert_close(model(source, inputs), logits)


def test_both_models_have_the_sizes_that_the_flags_name() -> None:
    cfg, _, tokenizer = small(Path())
    cfg.layers = 2
    model = project.make_model(cfg, len(tokenizer), "recurrent")
    assert model.decoder.gru.input_size == cfg.dim
    assert model.decoder.gru.hidden_size == 2 * model.encoder.gru.hidden_size == 2 * cfg.dim
    cfg.dim = 32
    model = project.make_model(cfg, len(tokenizer), "transformer")
    assert len(model.encoder.layers) == len(model.decoder.layers) == 2
    assert model.target_embedding.weight.shape == (len(tokenizer), 32)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        assert layer.feed_forward.inner.out_features == 4 * cfg.dim and layer.dropout.p == 0.1
    assert model.encoder.layers[0].attention.n_heads == 2
    assert model.decoder.layers[0].cross_attention.n_heads == 2


def test_every_recipe_says_the_same_things() -> None:
    for data, recipe in project.RECIPES.items():
        cfg = project.Config(device="cpu", data=data)
        project.settle(cfg)
        assert tuple(getattr(cfg, name) for name in project.SETTINGS) == recipe
    cfg = project.Config(device="cpu", data="multi30k", dropout=0.0, epochs=3)
    project.settle(cfg)
    assert cfg.dropout == 0.0 and cfg.epochs == 3 and cfg.dim == 128


# ---- tokens and batches


def slow_merges(words: Counter, most: int) -> list[tuple[str, str]]:
    """All pairs counted anew for each merge."""
    cut = {word: list(word) for word in words}
    merges = []
    while len(merges) < most:
        counts = Counter()
        for word, symbols in cut.items():
            for pair in itertools.pairwise(symbols):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            return merges
        merges.append(best)
        cut = {word: project.merge(symbols, best) for word, symbols in cut.items()}
    return merges


@pytest.mark.parametrize("seed", range(20))
def test_merges_are_those_of_counting_anew(seed: int) -> None:
    rng = random.Random(seed)
    letters = "ab" if seed % 2 else "abcd"
    words = Counter()
    for _ in range(30):
        words["".join(rng.choices(letters, k=rng.randint(1, 8)))] += rng.randint(1, 3)
    assert project.learn_merges(words, 25) == slow_merges(words, 25)


@pytest.mark.parametrize("seed", range(5))
def test_words_of_the_text_are_cut_as_learning_left_them(seed: int) -> None:
    rng = random.Random(seed)
    words = Counter("".join(rng.choices("abc", k=rng.randint(1, 7))) for _ in range(40))
    merges = project.learn_merges(words, 12)
    for word in words:
        symbols = list(word)
        for pair in merges:
            symbols = project.merge(symbols, pair)
        assert project.cut(word, merges) == symbols


def test_merging_goes_from_left_to_right() -> None:
    assert project.merge("ababa", ("a", "b")) == ["ab", "ab", "a"]
    assert project.merge("aaa", ("a", "a")) == ["aa", "a"]
    assert project.merge(["ab", "c"], ("a", "b")) == ["ab", "c"]
    assert project.merge("", ("a", "b")) == []
    # the exercise of the note
    words = Counter({"low": 5, "lower": 2, "newest": 6, "widest": 3})
    assert project.cut("lowest", project.learn_merges(words, 7)) == ["low", "est"]


@pytest.mark.parametrize("seed", range(10))
def test_batches_hold_each_sentence_once_and_keep_the_limit(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 40, (200,), generator=generator)
    batches = project.batches_by_length(lengths, generator, 120)
    assert sorted(torch.cat(batches).tolist()) == list(range(200))
    assert all(lengths[batch].max() * len(batch) <= 120 for batch in batches)
    firsts = [lengths[batch].min().item() for batch in batches]
    assert firsts != sorted(firsts)
    # as full as they can be: the next longer sentence would not have fitted
    batches.sort(key=lambda batch: (*lengths[batch].aminmax(), -len(batch)))
    for batch, following in itertools.pairwise(batches):
        assert (len(batch) + 1) * lengths[following].min() > 120
    again = project.batches_by_length(lengths, generator, 120)
    assert len(again) == len(batches)


def test_batches_follow_from_their_generator_alone() -> None:
    lengths = torch.randint(1, 40, (200,))
    drawn = []
    for _ in range(2):
        torch.rand(1)  # whatever else has drawn before
        drawn.append(project.batches_by_length(lengths, torch.Generator().manual_seed(5), 120))
    for one, two in zip(*drawn, strict=True):
        assert torch.equal(one, two)


def test_a_sentence_over_the_limit_is_a_batch_of_its_own() -> None:
    batches = project.batches_by_length(torch.tensor([50, 60]), torch.Generator(), 10)
    assert sorted(batch.tolist() for batch in batches) == [[0], [1]]


def test_words_of_one_character_have_no_pairs() -> None:
    assert project.learn_merges(Counter({"a": 5, "b": 3}), 4) == []


# ---- BLEU


def test_bleu_is_sacrebleus_on_nonsense() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = random.Random(0)
    for _ in range(60):
        texts = [" ".join(rng.choices("abcd,.", k=rng.randint(0, 9))) for _ in range(6)]
        score = sacrebleu.corpus_bleu(texts[:3], [texts[3:]]).score
        assert project.bleu(texts[:3], texts[3:]) == pytest.approx(score, abs=1e-9)


def test_words_are_cut_as_sacrebleu_does() -> None:
    plain = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    chinese = pytest.importorskip("sacrebleu.tokenizers.tokenizer_zh").TokenizerZh()
    for text in ("1,000.5 e.g. A-b 3-4.", "don't [x]{y}~@#$%^&*", "7-", ".5", ""):
        assert sentences.bleu_words(text) == plain(text).split()
    for text in ("“so”—well…", "我们3.5天,好。OK!", "“我”"):
        assert sentences.bleu_words(text) == chinese(text).split()


def test_the_exercises_of_the_note() -> None:
    half = project.bleu(["a b c d", ""], ["a b c d", "e f g h"])
    assert half == pytest.approx(100 * math.exp(-1)) and round(half, 1) == 36.8
    alpha = math.log(5 / 4) / math.log(3 / 2)
    scores = [-4 / project.length_penalty(7, alpha), -5 / project.length_penalty(13, alpha)]
    assert scores[0] == pytest.approx(scores[1]) and round(alpha, 2) == 0.55


# ---- beam search


def likes(seed: int):
    torch.manual_seed(seed)
    model = transformer.Transformer(7, 7, 16, 2, 32, 1, shared=True).double().eval()
    model.target_embedding.weight.data *= 3
    return model


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_wide_beam_finds_the_best_text_and_its_tokens(seed: int, alpha: float) -> None:
    model = likes(seed)
    source = torch.tensor([[4, 5, 6, 4], [6, 6, PAD, PAD]])
    found, scores = project.beam_search(model, source, 7**3, alpha, 3)
    texts, counted = sentences.every_text(7, 3)
    for row, tokens, score in zip(source, found, scores):
        log_p = model(row.expand(len(texts), -1), project.teacher_inputs(texts)).log_softmax(dim=2)
        sums = (log_p.gather(2, texts[:, :, None])[:, :, 0] * counted).sum(dim=1)
        wanted = sums / project.length_penalty(counted.sum(dim=1), alpha)
        torch.testing.assert_close(score, wanted.max(), rtol=1e-6, atol=1e-8)
        best = sentences.until_end(texts[wanted.argmax()])
        assert sentences.until_end(tokens) == best


class OneWord:
    """It ends with probability p; else it writes 3 to the limit of 6, where END is sure."""

    def __init__(self, p: float):
        self.p = p

    def encode(self, source):
        return torch.zeros(len(source), 1, 1), torch.ones(len(source), 1, 1, 1)

    def decode(self, written, memory, mask):
        p = torch.full((*written.shape, 5), 1e-30)
        chance = {1: self.p, 6: 1 - 1e-7}.get(written.shape[1], 1e-7)
        p[:, -1, END] = chance
        p[:, -1, 3] = 1 - chance
        return p.log()


def test_it_goes_on_as_long_as_a_longer_text_may_win() -> None:
    """Of 3 3 3 3 3 END log p is -0.71, as of the first 3; over the penalty 11/6 that is -0.39."""
    found, scores = project.beam_search(OneWord(0.51), torch.zeros(1, 1).long(), 2, 1.0, 6)
    assert found.tolist() == [[3, 3, 3, 3, 3, END]]
    assert scores.item() == pytest.approx(math.log(0.49) / (11 / 6), abs=1e-5)


def test_it_stops_as_soon_as_no_longer_text_can_win() -> None:
    """END scores -0.30, and 3 at most -1.35 / (11/6) = -0.74."""
    found, scores = project.beam_search(OneWord(0.741), torch.zeros(1, 1).long(), 2, 1.0, 6)
    assert found.tolist() == [[END]] and scores.item() == pytest.approx(math.log(0.741))


def test_a_sentence_is_translated_alike_alone_and_in_a_batch() -> None:
    model = likes(0)
    source = torch.tensor([[4, 5, 6, 4, 5], [6, 5, PAD, PAD, PAD], [5, PAD, PAD, PAD, PAD]])
    found, scores = project.beam_search(model, source, 3, 0.6, 6)
    for row, tokens, score in zip(source, found, scores):
        alone, wanted = project.beam_search(model, row[row != PAD][None], 3, 0.6, 6)
        assert sentences.until_end(tokens) == sentences.until_end(alone[0])
        torch.testing.assert_close(score, wanted[0])


def test_translations_come_in_the_order_of_the_texts(tmp_path) -> None:
    cfg, _, tokenizer = small(tmp_path)
    model = project.make_model(cfg, len(tokenizer), "transformer")
    texts = ["the dog the dog the dog", "a", "the cat", "a dog a"]
    together = project.translate(cfg, model, tokenizer, texts, 1)
    assert not model.training
    # beside longer ones a text may be written longer: this model does not end
    for text, found in zip(texts, together):
        assert found.startswith(project.translate(cfg, model, tokenizer, [text], 1)[0])
