"""Lesson 7.12: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import pytest
import torch
from torch import nn

from common.data import tasks
from common.data.sequences import END, FIRST, PAD, START
from common.errors import ClaimFailed
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/12-t5")
full = load_lesson("phase07_transformer/06-transformer-full")
CONFIG = lesson.Config(tiny=True, device="cpu")


def small(**options):
    torch.manual_seed(0)
    sizes = {"dim": 24, "n_heads": 4, "hidden_dim": 40, "n_layers": 2, "dropout": 0.0} | options
    return lesson.T5(50, **sizes).double().eval()


def theirs_of(ours, **options):
    """Hugging Face's model with the same weights, its norms as they are."""
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 50, "d_model": 24, "d_kv": 6, "num_heads": 4, "d_ff": 40, "num_layers": 2}
    config = transformers.T5Config(**size, attn_implementation="eager", **options)
    theirs = transformers.T5ForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for weight, our_weight in zip(theirs.parameters(), lesson.in_their_order(ours)):
            weight.copy_(our_weight)
    return theirs


def test_the_defaults_are_t5_small():
    with torch.device("meta"):
        model = lesson.T5()
        base = lesson.T5(dim=768, n_heads=12, hidden_dim=3072, n_layers=12)
    assert sum(weight.numel() for weight in model.parameters()) == 60_506_624
    assert sum(weight.numel() for weight in base.parameters()) == 222_903_552
    assert not any("bias" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_are_hugging_faces(both_ways):
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(-400, 401)
    wanted = modeling.T5Attention._relative_position_bucket(offsets, bidirectional=both_ways)
    assert torch.equal(lesson.bucket(offsets, both_ways), wanted)


def test_its_float32_norms_differ_by_rounding_only():
    ours = small()
    theirs = theirs_of(ours)
    source = torch.randint(FIRST, 50, (2, 40))
    inputs = torch.randint(FIRST, 50, (2, 30))
    wanted = theirs(source, torch.ones_like(source), inputs).logits
    torch.testing.assert_close(ours(source, inputs), wanted, rtol=1e-5, atol=1e-5)


def test_the_stacks_are_t5_models_and_greedy_decoding_is_theirs():
    ours = small()
    theirs = theirs_of(ours)
    source = torch.randint(FIRST, 50, (3, 12))
    source[1, 7:] = PAD
    memory, _ = ours.encode(source)
    wanted = theirs.model.encoder(source, source != PAD) if hasattr(theirs, "model") else None
    if wanted is None:
        wanted = theirs.encoder(source, source != PAD)
    is_token = source != PAD
    wanted = wanted.last_hidden_state[is_token]
    torch.testing.assert_close(memory[is_token], wanted, rtol=1e-5, atol=1e-5)

    written = full.greedy(ours, source, 6, start=START, end=END)
    options = {"decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
    found = theirs.generate(
        source, attention_mask=is_token.long(), max_new_tokens=6, do_sample=False, **options
    )
    found = nn.functional.pad(found[:, 1:], (0, 7 - found.shape[1]), value=PAD)
    assert torch.equal(written, found)


def test_scores_are_not_divided_and_a_mask_is_added():
    layer = lesson.BiasedAttention(8, 2, 0.0).double()
    x = torch.randn(1, 3, 8).double()
    bias = torch.randn(1, 2, 3, 3).double()
    bias[..., 2] = -math.inf
    query, key, value = (layer.split(part(x)) for part in (layer.query, layer.key, layer.value))
    weights = (query @ key.mT + bias).softmax(dim=-1)
    wanted = layer.out(layer.join(weights @ value))
    torch.testing.assert_close(layer(x, mask=bias), wanted)
    torch.testing.assert_close(layer(x), layer(x, mask=torch.zeros(3, 3).double()))


def test_the_norm_of_the_note():
    stack = nn.Sequential(nn.LayerNorm(4))
    lesson.replace_parts(stack)
    found = stack(torch.tensor([1.0, 7, 5, 5]))
    torch.testing.assert_close(found, torch.tensor([0.2, 1.4, 1, 1]))


def test_all_parts_are_replaced():
    model = small(dropout=0.3)
    kinds = [type(part) for part in model.modules()]
    assert nn.LayerNorm not in kinds and lesson.MultiHeadAttention not in kinds
    assert kinds.count(nn.RMSNorm) == 2 * 2 + 2 * 3 + 2
    attentions = [part for part in model.modules() if isinstance(part, lesson.BiasedAttention)]
    assert len(attentions) == 2 + 4
    assert all(part.dropout.p == 0.3 and part.n_heads == 4 for part in attentions)


def test_the_bias_depends_on_the_offset_only():
    table = torch.randn(lesson.BUCKETS, 3)
    for both_ways in (True, False):
        bias = lesson.relative_bias(table, 300, both_ways)
        assert bias.shape == (3, 300, 300)
        assert torch.equal(bias[:, 200:, 200:], bias[:, :100, :100])
    # the column answers: in the decoder, what comes later is in group 0
    assert torch.equal(bias[:, 0, 1:], bias[:, :1, 0].expand(3, 299))
    assert torch.equal(bias[:, 5, 3], table[2])


def test_without_its_bias_the_encoder_sees_a_set():
    model = small()
    source = torch.randint(FIRST, 50, (1, 9))
    order = torch.randperm(9)
    assert not torch.allclose(model.encode(source[:, order])[0], model.encode(source)[0][:, order])
    nn.init.zeros_(model.encoder_table)
    torch.testing.assert_close(model.encode(source[:, order])[0], model.encode(source)[0][:, order])


def test_first_weights():
    torch.manual_seed(0)
    layer = lesson.BiasedAttention(256, 4, 0.0)
    assert layer.query.weight.std().item() == pytest.approx(1 / 128, rel=0.02)
    for part in (layer.key, layer.value, layer.out):
        assert part.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    model = small()
    assert model.target_embedding.weight.std().item() == pytest.approx(1, rel=0.1)
    for table in (model.encoder_table, model.decoder_table):
        assert table.std().item() == pytest.approx(0.1, rel=0.25)


def test_the_first_scores_of_t5_have_variance_1():
    """The answer to exercise 2, with Hugging Face's first weights."""
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 50, "d_model": 256, "d_kv": 64, "num_heads": 4, "d_ff": 8}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**size, num_layers=1))
    layer = next(part for part in model.modules() if hasattr(part, "relative_attention_bias"))
    x = torch.randn(1000, 256)
    query, key = (part(x).unflatten(1, (4, 64)).transpose(0, 1) for part in (layer.q, layer.k))
    assert (query @ key.mT).var().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("share, span", [(0.15, 3.0), (0.5, 2.0), (0.2, 1.0), (0.3, 10.0)])
def test_corruption(share, span):
    generator = torch.Generator().manual_seed(0)
    for length in (40, 100, 333):
        text = torch.randint(FIRST, 900, (length,), generator=generator)
        source, target = lesson.corrupt(text, 1000, generator, share, span)
        gaps = round(round(share * length) / span)
        assert source[-1] == target[-1] == END
        for row in (source, target):
            assert row[row >= 900].tolist() == [999 - n for n in range(gaps)]
        assert len(target) == round(share * length) + gaps + 1
        assert torch.equal(lesson.rebuild(source, target, 1000), text)


def test_gaps_lie_anywhere_and_have_all_lengths():
    generator = torch.Generator().manual_seed(0)
    counts = torch.stack([tasks.random_parts(5, 3, generator) for _ in range(3000)])
    assert (counts.sum(dim=1) == 5).all() and counts.min() == 1 and counts.max() == 3
    _, frequencies = counts.unique(dim=0, return_counts=True)
    assert len(frequencies) == 6
    assert ((frequencies - 500).abs() < 5 * math.sqrt(500)).all()
    assert tasks.random_parts(4, 1, generator).tolist() == [4]
    assert tasks.random_parts(4, 4, generator).tolist() == [1, 1, 1, 1]


def test_tasks_are_answered_rightly():
    source, target = tasks.four_tasks(CONFIG, 400, seed=5)
    assert source.shape == target.shape == (400, 7)
    lengths = set()
    for n, (row, answer) in enumerate(zip(source, target)):
        name, *letters = tasks.to_text(row).split()
        assert name == tasks.TASKS[n % 4]
        assert len(set(letters)) == len(letters)
        lengths.add(len(letters))
        wanted = {
            "sort:": sorted(letters),
            "reverse:": letters[::-1],
            "last:": letters[-1:],
            "has-a:": ["yes" if "a" in letters else "no"],
        }[name]
        assert tasks.to_text(answer).split() == wanted
        assert answer[len(wanted)] == END and (answer[len(wanted) + 1 :] == PAD).all()
    assert lengths == {3, 4, 5, 6}


def test_rows_follow_from_their_seeds_and_the_first_word_can_be_hidden():
    first, target = tasks.four_tasks(CONFIG, 40, seed=5)
    again, _ = tasks.four_tasks(CONFIG, 40, seed=5)
    other, _ = tasks.four_tasks(CONFIG, 40, seed=6)
    assert torch.equal(first, again) and not torch.equal(first, other)
    hidden, hidden_target = tasks.four_tasks(CONFIG, 40, seed=5, named=False)
    assert torch.equal(hidden[:, 1:], first[:, 1:]) and torch.equal(hidden_target, target)
    assert (hidden[:, 0] == FIRST).all()


def test_who_does_not_read_the_first_word_is_seldom_right():
    """The baselines of the generated set: the best one task for all, and the commonest answers."""
    source, target = tasks.four_tasks(CONFIG, 4000, seed=5)
    texts = [tasks.to_text(row) for row in target]
    commonest = max(texts.count("no"), texts.count("yes")) / len(texts)
    assert commonest < 0.16
    ordered = [" ".join(sorted(tasks.to_text(row).split()[1:])) for row in source]
    assert sum(a == b for a, b in zip(texts, ordered)) / len(texts) < 0.27


def test_right_counts_each_task_apart():
    class Echo(nn.Module):
        """Writes the whole answer of rows 0 and 1 of 4, and nothing right in the others."""

        pad = PAD

        def encode(self, source):
            return source, None

        def decode(self, inputs, memory, mask):
            answers = torch.where(torch.arange(len(memory))[:, None] % 4 < 2, target, START)
            chosen = answers[:, : inputs.shape[1]]
            return nn.functional.one_hot(chosen, 60).double()

    source, target = tasks.four_tasks(CONFIG, 40, seed=5)
    assert lesson.right(Echo(), source, target).tolist() == [1, 1, 0, 0]


def test_padding_changes_no_logits():
    model = small()
    source = torch.randint(FIRST, 50, (2, 9))
    source[0, 6:] = PAD
    inputs = torch.randint(FIRST, 50, (2, 5))
    longer = nn.functional.pad(source, (0, 30), value=PAD)
    torch.testing.assert_close(model(longer, inputs), model(source, inputs))


def test_spans_that_are_not_random_are_noticed(monkeypatch):
    """Such a solution has the right lengths, and gives back every text."""

    def always_the_same(total, parts, generator):
        return torch.tensor([1] * (parts - 1) + [total - parts + 1])

    monkeypatch.setattr(lesson, "random_parts", always_the_same)
    with pytest.raises(ClaimFailed, match="random"):
        lesson.show_spans(CONFIG)


def test_the_commonest_answers_of_the_run():
    """The baseline row: its share of each task's 500 texts, counted in another way."""
    _, target = tasks.four_tasks(CONFIG, 2000, seed=1)
    shares = []
    for n in range(4):
        answers = [tasks.to_text(row) for row in target[n::4]]
        shares.append(max(answers.count(answer) for answer in set(answers)) / 500)
    assert 0.5 < shares[3] < 0.62 and shares[2] < 0.16 and max(shares[:2]) < 0.02


def test_the_last_sentinel_is_one_too():
    """The smallest of the hundred stands for the hundredth gap."""
    last = 1000 - lesson.SENTINELS
    source = torch.tensor([5, last, 6, lesson.END])
    target = torch.tensor([last, 7, last - 1, lesson.END])
    assert lesson.rebuild(source, target, 1000).tolist() == [5, 7, last - 1, 6]
