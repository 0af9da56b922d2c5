"""Lesson 7.6: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.data import sequences
from common.data.sequences import END, FIRST, PAD, START
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/06-transformer-full")
sinusoidal = load_lesson("phase07_transformer/03-positional-encoding").sinusoidal
CONFIG = lesson.Config(tiny=True, device="cpu", dim=32, steps=2)


def small(**options):
    options = {"dim": 12, "n_heads": 3, "hidden_dim": 20, "n_layers": 2, "dropout": 0.0} | options
    return lesson.Transformer(30, options.pop("target_symbols", 30), **options).double()


def count(model) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_defaults_are_the_base_model():
    with torch.device("meta"):
        model = lesson.Transformer(37_000, 37_000, shared=True)
        apart = lesson.Transformer(37_000, 37_000)
    assert len(model.encoder.layers) == len(model.decoder.layers) == 6
    assert model.dropout.p == model.encoder.layers[0].dropout.p == 0.1
    assert model.encoder.layers[0].attention.n_heads == 8
    assert count(apart) - count(model) == 37_000 * 512
    assert count(model) == 63_082_496


def test_a_shared_embedding_needs_as_many_symbols_on_both_sides():
    with pytest.raises(ValueError, match="30 and 40 symbols cannot share a table"):
        lesson.Transformer(30, 40, shared=True)
    model = small(target_symbols=40)
    logits = model(torch.randint(1, 30, (2, 5)), torch.randint(1, 40, (2, 3)))
    assert logits.shape == (2, 3, 40)


def test_a_shared_embedding_learns_from_the_last_layer():
    """Symbol 29 is not in the batch: a gradient if shared, none in an embedding of the source."""
    tokens = torch.randint(FIRST, 29, (4, 12))
    for shared in (True, False):
        model = small(shared=shared)
        lesson.loss(model, (tokens, tokens)).backward()
        assert model.source_embedding.weight.grad[29].any() == shared


def test_the_first_weights():
    torch.manual_seed(0)
    model = lesson.Transformer(1000, 1000, 256, 4, 512, 1)
    for embedding in (model.source_embedding, model.target_embedding):
        assert embedding.weight.var().item() == pytest.approx(1 / 256, rel=0.02)
    network = model.encoder.layers[0].feed_forward
    assert network.inner.weight.abs().max() <= math.sqrt(6 / 768)
    assert network.inner.weight.var().item() == pytest.approx(2 / 768, rel=0.02)
    assert (network.inner.bias == 0).all() and (network.outer.bias == 0).all()
    assert (model.decoder.layers[0].cross_attention.out.bias == 0).all()
    assert (model.encoder.layers[0].attention_norm.weight == 1).all()


def test_embedded_tokens_are_dropped_in_training():
    model = small(dropout=0.5)
    tokens = torch.randint(1, 30, (2, 5))
    vectors = model.embed(model.source_embedding, tokens)
    share = (vectors == 0).double().mean()
    assert 0.3 < share < 0.7
    model.eval()
    wanted = math.sqrt(12) * model.source_embedding.weight[tokens] + sinusoidal(5, 12).double()
    torch.testing.assert_close(model.embed(model.source_embedding, tokens), wanted)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_model_is_torchs(norm_first):
    theirs = nn.Transformer(12, 2, 2, 2, 20, batch_first=True, norm_first=norm_first)
    theirs = theirs.double().eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight)
    options = {"norm_first": norm_first, "final_norm": True, "n_heads": 2}
    ours = small(**options, target_symbols=40).eval()
    lesson.load_torch(ours, theirs)
    source, inputs = torch.randint(1, 30, (2, 5)), torch.randint(1, 40, (2, 4))
    source[0, 3:] = PAD
    is_pad = source == PAD
    vectors = theirs(
        ours.embed(ours.source_embedding, source),
        ours.embed(ours.target_embedding, inputs),
        tgt_mask=torch.ones(4, 4).triu(1).bool(),
        src_key_padding_mask=is_pad,
        memory_key_padding_mask=is_pad,
    )
    torch.testing.assert_close(ours(source, inputs), vectors @ ours.target_embedding.weight.T)


def test_padding_of_the_source_changes_nothing():
    model = small(shared=True).eval()
    source = torch.tensor([[5, 9, 4]])
    inputs = torch.tensor([[START, 7, 8]])
    longer = torch.tensor([[5, 9, 4, PAD, PAD]])
    torch.testing.assert_close(model(longer, inputs), model(source, inputs))
    model = small(shared=True, pad=6).eval()
    longer = torch.tensor([[5, 9, 4, 6, 6]])
    torch.testing.assert_close(model(longer, inputs), model(source, inputs))


def test_a_prediction_depends_on_what_stands_before_it_only():
    model = small().eval()
    source, inputs = torch.randint(1, 30, (2, 5)), torch.randint(1, 30, (2, 6))
    changed = inputs.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 30
    difference = (model(source, inputs) - model(source, changed)).abs().amax(dim=(0, 2))
    assert (difference[:3] == 0).all() and (difference[3:] > 0).all()


def test_encode_and_decode_make_forward():
    model = small(norm_first=True).eval()
    source = torch.tensor([[5, 9, PAD], [5, 9, 7]])
    inputs = torch.randint(1, 30, (2, 4))
    memory, mask = model.encode(source)
    assert memory.shape == (2, 3, 12) and mask[:, 0, 0].tolist() == [
        [True, True, False],
        [True] * 3,
    ]
    torch.testing.assert_close(model.decode(inputs, memory, mask), model(source, inputs))
    x = model.decoder(model.embed(model.target_embedding, inputs), memory, mask)
    wanted = F.linear(x, model.target_embedding.weight)
    torch.testing.assert_close(model(source, inputs), wanted)


@pytest.mark.parametrize("dim, warmup", [(4, 4), (512, 4000), (64, 100)])
def test_the_rate_is_highest_at_the_end_of_the_warm_up(dim, warmup):
    rates = [lesson.warmup_rate(step, dim, warmup) for step in range(1, 4 * warmup + 1)]
    assert max(rates) == rates[warmup - 1] == pytest.approx((dim * warmup) ** -0.5)
    assert rates[warmup // 2 - 1] == pytest.approx(rates[warmup - 1] / 2)
    assert rates[4 * warmup - 1] == pytest.approx(rates[warmup - 1] / 2)


def rates_of_the_run(monkeypatch) -> list[float]:
    """What the schedule of the normal run gives its optimizer, whose own rate is 1."""
    schedulers = []
    monkeypatch.setattr(lesson, "fit", lambda *_, scheduler, **__: schedulers.append(scheduler))
    monkeypatch.setattr(lesson, "sortings", lambda *_, **__: None)
    cfg = lesson.Config(device="cpu")
    lesson.train(cfg, nn.Linear(1, 1))
    rate = schedulers[0].lr_lambdas[0]
    return [rate(step) for step in range(cfg.steps)]


def test_the_largest_rates_in_the_note(monkeypatch):
    """Of the paper's base model and of this run, and with Adam's usual 0.001 on top."""
    assert max(lesson.warmup_rate(step, 512, 4000) for step in range(1, 20_001)) == pytest.approx(
        0.0007, rel=0.01
    )
    largest = max(rates_of_the_run(monkeypatch))
    assert largest == lesson.warmup_rate(200, 64, 200) == pytest.approx(0.0088, rel=0.01)
    assert round(0.001 * largest, 6) == 0.000009


def test_the_rate_goes_to_0_in_the_last_quarter(monkeypatch):
    rates = rates_of_the_run(monkeypatch)
    for step in (0, 199, 200, 599):
        assert rates[step] == lesson.warmup_rate(step + 1, 64, 200)
    assert rates[700] == pytest.approx(lesson.warmup_rate(701, 64, 200) / 2)
    assert 0 < rates[799] < rates[599] / 100


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("pad", [0, 4])
def test_smoothed_loss(smoothing, pad):
    logits = torch.randn(3, 5, 7, dtype=torch.float64)
    target = torch.randint(7, (3, 5))
    target[0, 2:] = pad
    options = {"label_smoothing": smoothing, "ignore_index": pad}
    wanted = F.cross_entropy(logits.flatten(0, 1), target.flatten(), **options)
    torch.testing.assert_close(lesson.smoothed_loss(logits, target, smoothing, pad), wanted)


def test_the_smoothed_loss_has_its_least_value_at_the_smoothed_target():
    """The entropy of the target, and the distance of the logits in the note."""
    for symbols, smoothing in ((4, 0.2), (23, 0.1)):
        q = torch.full((symbols,), smoothing / symbols, dtype=torch.float64)
        q[0] += 1 - smoothing
        target = torch.tensor([0])
        least = lesson.smoothed_loss(q.log()[None], target, smoothing, pad=99)
        torch.testing.assert_close(least, -(q * q.log()).sum())
        distance = math.log(1 + symbols * (1 - smoothing) / smoothing)
        assert (q[0] / q[1]).log().item() == pytest.approx(distance)
        for _ in range(20):
            logits = q.log()[None] + torch.randn(1, symbols, dtype=torch.float64)
            assert lesson.smoothed_loss(logits, target, smoothing, pad=99) > least


def test_greedy_writes_padding_behind_the_end(monkeypatch):
    """A model that counts upward from START, to END for the first row's 4 and the second's 6."""
    model = small(shared=True)
    calls = []

    def encode(source):
        calls.append(source)
        return source, None

    def decode(written, memory, memory_mask):
        following = written + 7
        following[written[:, -1] == START, -1] = memory[written[:, -1] == START, 0]
        following[written[:, -1] != START, -1] = END
        return F.one_hot(following, 30).double()

    monkeypatch.setattr(model, "encode", encode)
    monkeypatch.setattr(model, "decode", decode)
    written = lesson.greedy(model, torch.tensor([[9], [END]]), 4)
    assert written.tolist() == [[9, END, PAD, PAD], [END, PAD, PAD, PAD]]
    assert len(calls) == 1
    written = lesson.greedy(model, torch.tensor([[9], [5]]), 4, end=5)
    assert written.tolist() == [[9, END, END, END], [5, PAD, PAD, PAD]]


def test_greedy_takes_the_likeliest_of_the_last_position():
    model = small(shared=True).eval()
    source = torch.randint(3, 30, (4, 6))
    written = lesson.greedy(model, source, 5, start=7, end=29)
    inputs = torch.cat([torch.full((4, 1), 7), written[:, :-1]], dim=1)
    wanted = model(source, inputs).argmax(dim=2)
    ended = (written == 29).cumsum(dim=1) - (written == 29).long() > 0
    assert torch.equal(written[~ended], wanted[~ended])


def test_greedy_keeps_no_graph(monkeypatch):
    model = small(shared=True)
    decode = model.decode
    seen = []

    def watched(*arguments):
        logits = decode(*arguments)
        seen.append(logits.requires_grad)
        return logits

    monkeypatch.setattr(model, "decode", watched)
    lesson.greedy(model, torch.randint(3, 30, (2, 6)), 3)
    assert seen == [False] * 3


def test_another_symbol_as_the_end_changes_only_what_stands_behind_it():
    model = small(shared=True).eval()
    source = torch.randint(FIRST, 30, (8, 6))
    written = lesson.greedy(model, source, 7)
    for end in written.unique().tolist():
        is_end = written == end
        behind = is_end.cumsum(dim=1) - is_end.long() > 0
        shorter = lesson.greedy(model, source, 7, end=end)
        assert torch.equal(shorter, written.masked_fill(behind, PAD))


@pytest.mark.parametrize("seed", range(3))
def test_the_baseline_is_far_from_sorting(seed):
    cfg = lesson.Config(device="cpu", seed=seed)
    _, target = sequences.sortings(cfg, 1000, seed=1)
    symbols, whole = lesson.by_position(cfg, target)
    assert 0.25 < symbols < 0.3 and whole == 0


def test_the_baseline_counts_in_training_alone():
    batches = [sequences.sortings(CONFIG, 64, seed=100 + step)[1] for step in range(16)]
    commonest = torch.cat(batches)[:1000].mode(dim=0).values
    assert lesson.by_position(CONFIG, commonest[None]) == (1, 1)
    half = commonest.clone()
    half[:3] += 1
    assert lesson.by_position(CONFIG, torch.stack([commonest, half])) == (19 / 22, 0.5)


def test_sortings_keep_their_recipe():
    x, y = sequences.sortings(CONFIG, 300, seed=4)
    assert x.shape == (300, 10) and y.shape == (300, 11)
    assert x.min() == FIRST and x.max() == FIRST + 19
    for source, target in zip(x.tolist(), y.tolist()):
        assert target == [*sorted(source), END]
    x, y = sequences.sortings(CONFIG, 50, seed=4, symbols=5, length=3)
    assert x.shape == (50, 3) and set(x.unique().tolist()) == {3, 4, 5, 6, 7}
    first, again = (sequences.sortings(CONFIG, 50, seed=1)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sequences.sortings(CONFIG, 50, seed=2)[0])
