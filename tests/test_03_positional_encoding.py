"""Lesson 7.3: what its claims cannot see in a short run."""

import math

import pytest
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/03-positional-encoding")
attention = load_lesson("phase07_transformer/01-self-attention").attention
MultiHeadAttention = load_lesson("phase07_transformer/02-multi-head-attention").MultiHeadAttention
CAUSAL = lesson.causal_mask(5)


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def layer() -> torch.nn.Module:
    torch.manual_seed(0)
    return lesson.PositionedAttention(12, n_heads=3).double()


def test_the_table_is_the_papers_entry_by_entry():
    table = lesson.sinusoidal(3000, 6)
    assert table.shape == (3000, 6) and table.dtype == torch.float32
    for position in (0, 7, 2999):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            wanted = torch.tensor([math.sin(angle), math.cos(angle)])
            found = table[position, 2 * pair : 2 * pair + 2]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_products_of_two_rows_depend_on_their_distance():
    """The note's example: the rows 0 and 3, and any other two that are 3 apart."""
    table = lesson.sinusoidal(50, 4)
    products = (table[:-3] * table[3:]).sum(dim=1)
    torch.testing.assert_close(products, torch.full((47,), math.cos(3) + math.cos(0.03)))


def test_rope_by_hand():
    """The note's example."""
    for place in (2, 7):
        query = lesson.rotate(torch.tensor([1.0, 0.0]), torch.tensor(place))
        key = lesson.rotate(torch.tensor([3.0, 1.0]), torch.tensor(place + 1))
        assert query @ key == pytest.approx(3 * math.cos(1) - math.sin(1), abs=1e-6)


def test_rope_is_a_product_of_complex_numbers():
    x = doubles(2, 3, 5, 8)
    positions = torch.tensor([0, 1, 4, 9, 1000])
    angle = positions[:, None].double() * 10_000 ** (-torch.arange(4).double() / 4)
    turn = torch.polar(torch.ones_like(angle), angle)
    wanted = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2))) * turn).flatten(-2)
    torch.testing.assert_close(lesson.rotate(x, positions), wanted)


def test_rope_that_turns_halves_is_the_same_with_other_columns():
    """Hugging Face's Llama pairs column i with column i + D/2."""
    x = doubles(5, 8)
    positions = torch.arange(5)
    angle = lesson.angles(positions.double(), 8).repeat(1, 2)
    halves = torch.cat([-x[:, 4:], x[:, :4]], dim=1)
    theirs = x * angle.cos() + halves * angle.sin()
    order = torch.arange(8).unflatten(0, (2, 4)).T.flatten()  # 0, 4, 1, 5, …
    torch.testing.assert_close(lesson.rotate(x[:, order], positions), theirs[:, order])


def test_texts_may_have_positions_of_their_own():
    x = doubles(2, 3, 5, 8)
    starts = torch.tensor([0, 40])
    positions = starts[:, None, None] + torch.arange(5)  # (B, 1, T)
    turned = lesson.rotate(x, positions)
    for row, start in enumerate(starts):
        torch.testing.assert_close(turned[row], lesson.rotate(x[row], start + torch.arange(5)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rope_keeps_the_type_and_the_length_of_a_vector(dtype):
    x = doubles(6, 8).to(dtype)
    turned = lesson.rotate(x, torch.arange(6))
    assert turned.dtype == dtype
    found, wanted = turned.double().norm(dim=1), x.double().norm(dim=1)
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0)


def test_a_learned_table_begins_where_it_is_told_and_ends():
    learned = lesson.LearnedPositions(8, 6)
    x = torch.randn(2, 8, 6)
    whole = learned(x)
    torch.testing.assert_close(whole - x, learned.table.weight.expand(2, 8, 6))
    torch.testing.assert_close(learned(x[:, 5:7], start=5), whole[:, 5:7])
    with pytest.raises(IndexError):
        learned(x, start=1)


def test_slopes_are_those_of_the_paper():
    bias = lesson.alibi_bias(8, 6)
    assert bias.shape == (8, 6, 6)
    assert bias[:, 5, 4].tolist() == [-(2.0**-head) for head in range(1, 9)]
    assert torch.equal(bias, bias.mT)
    assert bias[0, 5].tolist() == [-2.5, -2.0, -1.5, -1.0, -0.5, 0.0]


def test_alibi_weighs_alike_in_long_texts():
    """The note's 0.95: slope 1/4, twelve positions, whatever the length."""
    for length in (64, 512):
        weights = lesson.alibi_bias(4, length)[0, -1].softmax(dim=0)
        assert weights[-12:].sum() == pytest.approx(1 - math.exp(-3), abs=1e-5)


def test_without_positions_it_is_the_attention_of_lesson_two():
    ours = layer()
    theirs = MultiHeadAttention(12, 3).double()
    theirs.load_state_dict(ours.state_dict())
    x = doubles(2, 5, 12)
    torch.testing.assert_close(ours(x, CAUSAL, "none"), theirs(x, mask=CAUSAL))


def test_rope_turns_queries_and_keys_of_each_head_and_no_values():
    ours = layer()
    x = doubles(2, 5, 12)
    positions = torch.arange(5)
    query, key, value = (
        part(x).unflatten(-1, (3, 4)).transpose(1, 2) for part in (ours.query, ours.key, ours.value)
    )
    wanted, _ = attention(
        lesson.rotate(query, positions), lesson.rotate(key, positions), value, CAUSAL
    )
    wanted = ours.out(wanted.transpose(1, 2).flatten(start_dim=2))
    torch.testing.assert_close(ours(x, CAUSAL, "rope"), wanted)


def test_alibi_is_added_to_the_scores():
    ours = layer()
    x = doubles(2, 5, 12)
    query, key, value = (
        part(x).unflatten(-1, (3, 4)).transpose(1, 2) for part in (ours.query, ours.key, ours.value)
    )
    scores = query @ key.mT / 2 + lesson.alibi_bias(3, 5)
    weights = scores.masked_fill(~CAUSAL, float("-inf")).softmax(dim=-1)
    wanted = ours.out((weights @ value).transpose(1, 2).flatten(start_dim=2))
    torch.testing.assert_close(ours.double()(x, CAUSAL, "alibi"), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", lesson.KINDS)
def test_a_model_sees_the_window_and_no_future(kind):
    cfg = lesson.Config(tiny=True, dim=16, length=8)
    model = lesson.Model(cfg, kind)
    seen = {}
    model.embedding.register_forward_hook(lambda _, __, out: seen.update(x=out))
    for window, wanted in ((3, [4, 5, 6]), (10**6, list(range(7)))):
        logits = model(torch.arange(9)[None], window)
        (gradient,) = torch.autograd.grad(logits[0, 6].square().sum(), seen["x"])
        assert gradient[0].abs().sum(dim=1).nonzero().flatten().tolist() == wanted


def test_without_a_window_a_model_sees_all_that_came_before():
    model = lesson.Model(lesson.Config(dim=16, length=16), "rope")
    tokens = torch.arange(100)[None] % lesson.LETTERS
    torch.testing.assert_close(model(tokens), model(tokens, window=100))


def test_models_differ_in_their_positions_only():
    cfg = lesson.Config(dim=16, length=8)
    states = {kind: lesson.Model(cfg, kind).state_dict() for kind in lesson.KINDS}
    assert states["learned"].pop("learned.table.weight").shape == (64, 16)
    for state in states.values():
        assert state.keys() == states["none"].keys()
        assert all(torch.equal(state[name], states["none"][name]) for name in state)
    assert states["none"]["head.0.weight"].shape == (256, 16)
    assert states["none"]["head.2.weight"].shape == (12, 256)
    assert lesson.Model(cfg, "none").attention.n_heads == 4


def test_a_table_is_added_once_and_unscaled():
    cfg = lesson.Config(dim=16, length=8)
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    for kind in ("sinusoidal", "learned"):
        model = lesson.Model(cfg, kind)
        if kind == "sinusoidal":
            rows = lesson.sinusoidal(5, 16)
        else:
            rows = model.learned.table.weight[:5]
        x = model.embedding(tokens) + rows
        x = x + model.attention(x, CAUSAL, "none")
        torch.testing.assert_close(model(tokens), model.head(x))


def test_four_of_five_letters_follow_the_rule():
    cfg = lesson.Config(seed=3)
    texts = lesson.language(cfg, 400, 100, seed=5)
    table = {}
    for first, second, third in texts.unfold(1, 3, 1).reshape(-1, 3).tolist():
        table.setdefault((first, second), []).append(third)
    commonest = sum(max(map(thirds.count, set(thirds))) for thirds in table.values())
    assert commonest / (400 * 98) == pytest.approx(lesson.BEST, abs=0.01)
    assert not torch.equal(texts, lesson.language(cfg, 400, 100, seed=6))


def test_letters_are_judged_one_position_later():
    texts = torch.tensor([[1, 2, 3, 4], [1, 2, 5, 6]])

    def model(tokens, window):
        return torch.nn.functional.one_hot(tokens + 1, 12).float()

    assert lesson.letters_right(model, texts).tolist() == [1.0, 0.5, 1.0]
