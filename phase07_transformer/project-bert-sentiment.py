"""Project 7 BERT sentiment: what bag-of-words cannot see
BERT 情感分析：词袋模型看不见的东西

You will be able to answer
    1. How sure is an accuracy, group by group?   show_groups       wilson, groups
    2. Is one of two models really better?        show_comparison   sign-test, false-alarms
    3. Are a model's probabilities calibrated?    show_calibration  ece, best, near
    4. Which words decide?                        show_words        occluded, alone
    5. What does BERT see?  show_results  apart, overfits, depends, contrast, sign, better, deciding
Predict   known_tfidf_but: what accuracy has TF-IDF on reviews with "but", if it knows all words?
Run       python phase07_transformer/project-bert-sentiment.py       about a minute
          … --interactive        judges what you write; --ask "plot is not bad" does it once
          … --data sst2          sentences of film reviews; --data imdb: whole ones
          … --model minilm       a published BERT instead of the small one; or a name of the hub
Needs     phase07_transformer/07-bert-architecture, phase07_transformer/08-bert-finetuning
Reference scipy.stats.binomtest
Notation  B batch  T tokens of a text
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import checkpoint
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data import published, reviews
from common.data.reviews import Reviews, ReviewSet
from common.data.sentences import talk
from common.data.words import CLS, MASK, SEP, Words
from common.errors import LessonError
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

pre_training = load_lesson("phase07_transformer/07-bert-architecture")
tuning = load_lesson("phase07_transformer/08-bert-finetuning")

# Learning rate of pooler and head, and its factor for each part below.
RATES = {"small": (2e-3, 0.3), "published": (2e-4, 0.8)}


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("generated", "reviews", choices=("generated", "sst2", "imdb"))
    model: str | None = param(
        None, "small, minilm or a name of the hub; by default minilm for real reviews, if installed"
    )
    labels: int = param(1000, "labelled reviews to train on", tiny=40, low=20)
    tests: int = param(10_000, "reviews of each test at most", low=20)
    epochs: int | None = param(None, "passes over them, by default 20, published models 2", tiny=1)
    steps: int = param(1500, "steps of pre-training, each of 64 reviews", tiny=2, low=11)
    dim: int = param(32, "width of the small BERT", tiny=16, choices=(16, 32, 64, 128))
    layers: int = param(2, "layers of the small BERT")
    longest: int = param(128, "pieces of words that a published model reads at most", low=8)
    ask: str | None = param(None, "the trained model judges this text, once")
    interactive: bool = param(False, "write texts that the trained model judges")


# 1. Groups


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (1927) of an accuracy, if `right` of n answers are; z = 1.96 for 95 %.

    All p with |right / n - p| <= z sqrt(p (1 - p) / n): between the roots of a quadratic in p.
    """
    # practice: Wilson's interval
    seen = right / n
    middle = (seen + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(seen * (1 - seen) / n + z**2 / (4 * n**2))
    return middle - half, middle + half
    # end practice


def by_group(right: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, tuple]:
    """right (n,): is the answer to a text right? groups: which texts (n,) are in each.

    Returns of each group that has a text: accuracy, Wilson's lower and upper end, number of texts.
    """
    # practice: Group by group
    table = {}
    for name, is_in in groups.items():
        n = int(is_in.sum())
        if n > 0:
            count = int(right[is_in].sum())
            table[name] = (count / n, *wilson(count, n), n)
    return table
    # end practice


def show_groups(cfg: Config) -> None:
    print("\n[1] An accuracy is a sample: 9 of 10 right leaves open what 900 of 1,000 do not")
    from scipy.stats import binomtest

    cases = [(9, 10), (0, 7), (900, 1000), (5, 5), (1, 40)]
    theirs = [binomtest(*case).proportion_ci(method="wilson") for case in cases]
    z = 1.959963984540054
    text = "from 0.596 to 0.982, and from 0.880 to 0.917: as SciPy's, also for 0 of 7 and 5 of 5"
    check_close("wilson", text, [wilson(*case, z) for case in cases], np.array(theirs))

    right = np.array([True, True, False, True, False, True])
    is_long = np.array([True, False, False, True, True, False])
    groups = {"all": right | True, "long": is_long, "none": right & False, "short": ~is_long}
    found = by_group(right, groups)
    wanted = [(4 / 6, *wilson(4, 6), 6), (2 / 3, *wilson(2, 3), 3), (2 / 3, *wilson(2, 3), 3)]
    text = "4 of 6 right: 2 of 3 long ones, 2 of 3 short ones; a group without texts is left out"
    check_close("groups", text, list(found.values()), wanted)


# 2. One model beside another


def sign_test(ours: np.ndarray, theirs: np.ndarray) -> float:
    """p of McNemar's exact test: two models that are equally good, and still differ so much.

    ours, theirs (n,): is each model's answer right? Only texts on which just one of them is right
    count. If both are equally good, either is right on such a text with probability 1/2.
    """
    # practice: The sign test
    ours_alone = int((ours & ~theirs).sum())
    theirs_alone = int((theirs & ~ours).sum())
    n = ours_alone + theirs_alone

    # As uneven as seen or more, on this side; the other side is as likely.
    one_side = sum(math.comb(n, k) for k in range(min(ours_alone, theirs_alone) + 1)) / 2**n
    return min(1.0, 2 * one_side)
    # end practice


def show_comparison(cfg: Config) -> None:
    print("\n[2] Two models on the same texts: count those on which just one of them is right")
    from scipy.stats import binomtest

    found = []
    wanted = []
    for ours_alone, theirs_alone in ((8, 2), (2, 8), (5, 5), (0, 0), (40, 15)):
        alone = ours_alone + theirs_alone
        ours = np.array([True] * 20 + [True] * ours_alone + [False] * theirs_alone + [False] * 9)
        theirs = np.array([True] * 20 + [False] * ours_alone + [True] * theirs_alone + [False] * 9)
        found.append(sign_test(ours, theirs))
        wanted.append(binomtest(ours_alone, alone).pvalue if alone else 1.0)
    text = "8 texts against 2 have p = 0.109; 40 against 15, 5 against 5, none: as SciPy's"
    check_close("sign-test", text, found, wanted)

    # The error of a rule that says "better" at p < 0.05, where both models are equally good.
    rng = cfg.rng()
    pairs = rng.random((400, 2, 60)) < 0.8
    share = np.mean([sign_test(ours, theirs) < 0.05 for ours, theirs in pairs])
    text = "of 400 pairs of equally good models {} are called different at p < 0.05"
    check("false-alarms", text, share, at_most=0.05 + 4 * math.sqrt(0.05 * 0.95 / 400))


# 3. Probabilities


def calibration_error(p: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017), for p (n,) of label 1 and labels (n,).

    The confidence is the probability of the predicted class, 0.5 to 1, cut into bins of equal
    width. In each: how far is the mean confidence from the share of right answers? The mean of
    that over all texts.
    """
    # practice: Calibration
    confidence = torch.maximum(p, 1 - p)
    right = ((p > 0.5) == (labels == 1)).double()
    number = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)

    total = 0.0
    for each in number.unique():
        is_in = number == each
        gap = confidence[is_in].mean() - right[is_in].mean()
        total += abs(gap.item()) * is_in.double().mean().item()
    return total
    # end practice


def temperature(logits: Tensor, labels: Tensor) -> float:
    """By what to divide logits (n, classes) so that the cross-entropy with labels (n,) is least.

    With b = 1 / temperature its derivative is the mean of E_p[z] - z_label, where p = softmax(b z).
    It rises with b, so that bisection finds its zero, between the temperatures 0.05 and 20.
    """
    # practice: Temperature
    low = 1 / 20
    high = 1 / 0.05
    wanted = logits.gather(1, labels[:, None])[:, 0]
    for _ in range(60):
        middle = (low + high) / 2
        expected = ((middle * logits).softmax(dim=1) * logits).sum(dim=1)
        if (expected - wanted).mean() > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)
    # end practice


def show_calibration(cfg: Config) -> None:
    print("\n[3] Of the answers given with a confidence of 0.9, nine of ten should be right")
    p = torch.tensor([0.96, 1.0, 0.96, 0.04, 0.62, 0.36], dtype=torch.float64)
    labels = torch.tensor([1, 0, 1, 0, 1, 1])
    by_hand = (4 * abs(0.97 - 3 / 4) + 2 * abs(0.63 - 1 / 2)) / 6
    text = "four of mean confidence 0.97, 3 right; two of 0.63, 1 right: the error is 0.19"
    check_close("ece", text, calibration_error(p, labels), by_hand)

    # Labels drawn with the probabilities of z / 3: logits three times too large.
    generator = torch.Generator().manual_seed(cfg.seed)
    logits = 6 * torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / 3).softmax(dim=1), 1, generator=generator)[:, 0]
    found = temperature(logits, labels)
    grid = torch.linspace(0.5, 6, 1101, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits / each, labels) for each in grid])
    text = "logits three times too large: of 1,101 temperatures, that of the least loss"
    check_close("best", text, found, grid[losses.argmin()], atol=0.005, rtol=0)
    check("near", "it is {}", found, above=2.7, below=3.3)


# 4. Words


@torch.no_grad()
def occlude(model: nn.Module, tokens: Tensor, mask: int) -> Tensor:
    """By how much each token of a text (T,) raises the log odds of label 1, (T,).

    The log odds of the text minus those with this token replaced by `mask`. [CLS] and [SEP], the
    first and the last token, are left alone: 0.
    """
    # practice: Which words decide
    copies = tokens.repeat(len(tokens), 1)  # (T, T)
    for position in range(1, len(tokens) - 1):
        copies[position, position] = mask

    logits = model(torch.cat([tokens[None], copies]))  # (1 + T, 2), the text itself first
    log_odds = logits[:, 1] - logits[:, 0]
    return log_odds[0] - log_odds[1:]
    # end practice


class AdditiveModel(nn.Module):
    """Its log odds are known: a sum of the tokens' weights, and 4 more where a 6 follows a 5."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([0, 0, 0.3, 0.2, 0.5, 1.0, -2.0, 0.25], dtype=torch.float64)
        self.register_buffer("weights", weights)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.weights[tokens].sum(dim=1)
        pairs = (tokens[:, :-1] == 5) & (tokens[:, 1:] == 6)
        found = found + 4 * pairs.sum(dim=1)
        return torch.stack([torch.ones_like(found), found], dim=1)


def show_words(cfg: Config) -> None:
    print("\n[4] Replace a word by [MASK]: by how much do the log odds of “good” change?")
    found = occlude(AdditiveModel(), torch.tensor([CLS, 7, 6, 5, SEP]), MASK)
    text = "weights 0.25, -2 and 1, that of [MASK] is 0.5: the effects are -0.25, -2.5 and 0.5"
    check_close("occluded", text, found, [0, -0.25, -2.5, 0.5, 0])
    found = occlude(AdditiveModel(), torch.tensor([CLS, 5, 6, SEP]), MASK)
    text = "two words that count 4 more together: these 4 are in the effect of each"
    check_close("alone", text, found, [0, 4.5, 1.5, 0])


# 5. Results


class Sentiment(tuning.Classifier):
    """Lesson 7.8's classifier, without the positions that are padding in all rows of a batch."""

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        length = int((tokens != 0).sum(dim=1).max())
        return super().forward(tokens[:, :length], segments)


class Tokenizer:
    """How texts become numbers for a model: words of ours, or the pieces of a published one."""

    def __init__(self, cfg: Config, words: Words | None, folder: str | None):
        self.words = words
        self.folder = folder
        self.longest = cfg.longest if folder else reviews.LENGTH
        self.mask = 103 if folder else MASK  # as in all English vocabularies of BERT

    def encode(self, texts: Sequence[str]) -> Tensor:
        if self.folder:
            return published.pieces(self.folder, texts, self.longest)
        return reviews.encode(self.words, texts)

    def names(self, tokens: Tensor) -> list[str]:
        if self.folder:
            return published.names_of_pieces(self.folder, tokens.tolist())
        return [self.words.names[number] for number in tokens]

    def encode_one(self, text: str) -> Tensor:
        """What somebody typed, (T,). Raises LessonError where a model could only guess."""
        if not text.strip():
            raise LessonError("there is nothing to judge: write a review, or a sentence of one.")
        if self.folder:
            length, strange = published.count_pieces(self.folder, text)
        else:
            length, strange = reviews.count_words(self.words, text)
        # For the model all unknown words are one token.
        if strange:
            unknown = " ".join(strange[:8])
            raise LessonError(f"write it without what the model has never read: {unknown}")
        if length > self.longest:
            raise LessonError(
                f"the text has {length} tokens, and the model reads {self.longest} at most. "
                "Ask about a part of it."
            )
        return self.encode([text])[0]


def is_published(cfg: Config) -> bool:
    return cfg.model != "small"


def make_model(cfg: Config, data: ReviewSet) -> tuple[Sentiment, Tokenizer]:
    """A pre-trained BERT, by others or by ourselves, with a new head."""
    if not is_published(cfg):
        bert = tuning.pre_train(cfg, data)
        return Sentiment(bert).to(cfg.torch_device()), Tokenizer(cfg, data.words, None)
    theirs, weights, folder = published.load_named(cfg.model)
    torch.manual_seed(cfg.seed)
    bert = tuning.BERT(*published.shape_of(theirs))
    tuning.load_published(bert, weights)
    return Sentiment(bert).to(cfg.torch_device()), Tokenizer(cfg, None, folder)


def train(cfg: Config, model: Sentiment, tokens: Tensor, labels: np.ndarray) -> None:
    rate, factor = RATES["published" if is_published(cfg) else "small"]
    # Frozen embeddings, as in lesson 7.8: unlabelled words stay near known ones of their sentiment.
    tuning.freeze(model, 1)
    groups = tuning.parameter_groups(model, rate, factor, decay=0.01)
    epochs = cfg.epochs or (2 if is_published(cfg) else 20)
    tuning.fine_tune(model, groups, (tokens, torch.from_numpy(labels)), epochs, cfg.seed)


@torch.no_grad()
def logits_of(model: Sentiment, tokens: Tensor) -> Tensor:
    """(n, T) -> (n, 2), in float64 on the CPU."""
    model.eval()
    device = model.head.weight.device
    parts = [model(part.to(device)) for part in tokens.split(100)]
    return torch.cat(parts).double().cpu()


def show_results(cfg: Config) -> dict[str, float]:
    data = reviews.load_reviews(cfg, reviews.HARDER, reviews.HARDER_UNLABELLED)
    train_set = data.train.some(cfg.labels, cfg.seed)
    print(f"\n[5] {len(train_set)} labelled reviews; then the tests, once")
    no_leak("apart", "no review is in two of the sets", *data.fingerprints())

    model, tokenizer = make_model(cfg, data)
    few = train_set.some(16, cfg.seed)
    batch = (reviews.encode(data.words, few.texts), torch.from_numpy(few.labels))
    # A new small model shows that the labels can be learned; the other one stays as it is.
    fresh = tuning.make_bert(replace(cfg, dim=32, layers=1), data, cfg.seed)
    fresh = Sentiment(fresh).to(cfg.torch_device())
    batch = tuple(each.to(cfg.torch_device()) for each in batch)
    adam = torch.optim.Adam(fresh.parameters(), lr=5e-3)
    overfits(
        "overfits", "16 reviews are overfitted: loss {}", fresh, batch, tuning.cross_entropy, adam
    )
    predicted = fresh.eval()(batch[0]).argmax(dim=1)
    depends_on_input("depends", "answers depend on the review: {} right", predicted, batch[1])

    train(cfg, model, tokenizer.encode(train_set.texts), train_set.labels)
    baselines = {
        "tfidf": reviews.bag_of_words(train_set),
        "lsa": tuning.lsa(cfg, data, train_set),  # reads the unlabelled reviews, too
    }
    # Chosen on validation, and never below 1: a model that is right on all of it, where no word
    # is new, has no reason to be more confident elsewhere.
    on_val = logits_of(model, tokenizer.encode(data.val.texts))
    temp = max(1.0, temperature(on_val, torch.from_numpy(data.val.labels)))
    save(cfg, data, model, tokenizer, temp)

    metrics = {"temperature": temp}
    tables = {}
    for kind, part in data.test().items():
        part = part.some(cfg.tests, cfg.seed)
        tokens = tokenizer.encode(part.texts)
        logits = logits_of(model, tokens)
        numbers, tables[kind] = report(kind, part, train_set, logits, temp, baselines)
        metrics |= numbers
    draw_groups(cfg, tables)

    rows = tokens[:200].to(cfg.torch_device())  # the last part: new reviews
    effects = [occlude(model, row[row != 0], tokenizer.mask).cpu() for row in rows]
    draw_words(cfg, tokenizer, tokens, effects, part, logits)
    judge(cfg, metrics)
    if cfg.data == "generated" and not is_published(cfg):
        share = reviews.adjectives_first(part.texts, effects)
        chance = reviews.adjectives_first(part.texts, [torch.rand(len(each)) for each in effects])
        text = "in {} of 200 new reviews an adjective, “not” or “but” has the largest effect"
        text += f"; in {chance:.2f} if a word is drawn at random"
        expect("deciding", text, share, at_least=chance + 0.15)
    return metrics


def report(
    kind: str,
    part: Reviews,
    train_set: Reviews,
    logits: Tensor,
    temp: float,
    baselines: dict[str, "tuning.Pipeline"],
) -> tuple[dict[str, float], dict[str, dict]]:
    """Print where each model fails, and BERT's calibration; returns numbers and `by_group`s."""
    labels = torch.from_numpy(part.labels)
    p = (logits / temp).softmax(dim=1)[:, 1]
    right = {"bert": (p > 0.5).numpy() == part.labels}
    for name, baseline in baselines.items():
        right[name] = baseline.predict(part.texts) == part.labels

    groups = reviews.groups(part.texts, train_set.texts)
    if groups["unseen"].all():
        del groups["unseen"]  # the same as all
    print(f"  {kind}: accuracy (95 % interval)    BERT                  TF-IDF                LSA")
    tables = {name: by_group(each, groups) for name, each in right.items()}
    for group, (*_, n) in tables["bert"].items():
        cells = ["{:.3f} ({:.3f}-{:.3f})".format(*table[group]) for table in tables.values()]
        print(f"    {group:<9}{n:>6} reviews   " + "   ".join(cells))

    numbers = {f"p_{name}": sign_test(right["bert"], right[name]) for name in baselines}
    for name, table in tables.items():
        numbers[name] = table["all"][0]
        numbers |= {f"{name}_{group}": row[0] for group, row in table.items() if group != "all"}
    before = logits.softmax(dim=1)[:, 1]
    numbers |= {"ece_raw": calibration_error(before, labels), "ece": calibration_error(p, labels)}
    print("    sign test: TF-IDF p = {p_tfidf:.2g}, LSA p = {p_lsa:.2g}".format(**numbers))
    print(f"    calibration error {numbers['ece_raw']:.3f}; ", end="")
    print(f"with temperature {temp:.2f} it is {numbers['ece']:.3f}")

    # Wrong labels and shortcuts are often among the most confident errors.
    predicted = (p > 0.5).numpy()
    false_good = int((predicted & (part.labels == 0)).sum())
    false_bad = int((~predicted & (part.labels == 1)).sum())
    print(f"    {false_good} bad predicted good, {false_bad} good predicted bad")
    confidence = torch.maximum(p, 1 - p).numpy()
    wrong = np.nonzero(~right["bert"])[0]
    for number in wrong[np.argsort(-confidence[wrong], kind="stable")][:3]:
        names = ("bad", "good")
        truth = names[part.labels[number]]
        print(f"      {confidence[number]:.2f}, but {truth}: {part.texts[number][:80]}")
    return {f"{kind}_{name}": value for name, value in numbers.items()}, tables


def judge(cfg: Config, metrics: dict[str, float]) -> None:
    """On real reviews only a published BERT has to be better: ours has read too little."""
    text = "if both were equally good, so large a difference from TF-IDF had probability {}"
    if cfg.data == "generated":
        gain = metrics["known_bert_but"] - metrics["known_tfidf_but"]
        what = "known adjectives and “but”: BERT's accuracy is {} higher than TF-IDF's"
        expect("contrast", what, gain, at_least=0.08)
        expect("sign", text, metrics["known_p_tfidf"], below=0.01)
        gain = metrics["new_bert"] - metrics["new_lsa"]
        expect("better", "new adjectives: {} higher than LSA's", gain, at_least=0.15)
    elif is_published(cfg):
        gain = metrics["new_bert"] - metrics["new_tfidf"]
        what = "real reviews: BERT's accuracy is {} higher than TF-IDF's"
        expect("contrast", what, gain, at_least=0.02)
        expect("sign", text, metrics["new_p_tfidf"], below=0.01)


# Pictures and helpers: skip on a first reading


def save(cfg: Config, data: ReviewSet, model: Sentiment, tokenizer: Tokenizer, temp: float) -> None:
    """Before anything is judged: a run that misses its target keeps its model."""
    state = {"about": f"{cfg.model} BERT, tuned on {cfg.data} reviews", "model": cfg.model}
    state |= {"dim": cfg.dim, "layers": cfg.layers, "longest": cfg.longest, "temperature": temp}
    state |= {"words": list(data.words.names[5:]), "weights": model.state_dict()}
    checkpoint.save(cfg.out / "model.pt", state)


def restore(cfg: Config) -> tuple[Sentiment, Tokenizer, float]:
    """The last run's model; cfg gets its settings."""
    path = cfg.out / "model.pt"
    train_it = "Train it: leave --ask and --interactive out."
    if not path.exists():
        raise LessonError(f"{path.parent} holds no model yet. {train_it}")
    state = checkpoint.load(path)
    try:
        for name in ("model", "dim", "layers", "longest"):
            setattr(cfg, name, state[name])
        words = Words(state["words"])
        if is_published(cfg):
            theirs, _, folder = published.load_named(cfg.model)
            bert = tuning.BERT(*published.shape_of(theirs))
            tokenizer = Tokenizer(cfg, None, folder)
        else:
            bert = tuning.BERT(len(words), reviews.LENGTH, cfg.dim, cfg.layers, 4, dropout=0.0)
            tokenizer = Tokenizer(cfg, words, None)
        # Weights of another size, or under other names, raise a RuntimeError.
        model = Sentiment(bert).to(cfg.torch_device()).eval()
        model.load_state_dict(state["weights"])
        print(f"  {state['about']}")
        return model, tokenizer, float(state["temperature"])
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        raise LessonError(f"{path} holds another model. {train_it}") from None


def answer(cfg: Config) -> None:
    """--ask: one text; --interactive: one after the other. By the last run's model."""
    model, tokenizer, temp = restore(cfg)

    def one(text: str) -> str:
        tokens = tokenizer.encode_one(text).to(cfg.torch_device())
        p = (logits_of(model, tokens[None]) / temp).softmax(dim=1)[0, 1].item()
        effects = occlude(model, tokens, tokenizer.mask).tolist()
        named = "good" if p > 0.5 else "bad"
        rows = zip(tokenizer.names(tokens)[1:-1], effects[1:-1])
        words = "  ".join(f"{name} {effect:+.1f}" for name, effect in rows)
        return f"  {named}, {max(p, 1 - p):.2f}\n  log odds of good by word: {words}"

    if cfg.ask is None:
        talk(one)
    else:
        print(one(cfg.ask))


def draw_groups(cfg: Config, tables: dict[str, dict[str, dict]]) -> None:
    figure, axes = new_figure(1, len(tables), size=(11, 4.6), squeeze=False, sharey=True)
    styles = {"bert": ("BERT", BLUE), "tfidf": ("TF-IDF", ORANGE), "lsa": ("LSA", GREY)}
    for axis, (kind, table_of) in zip(axes[0], tables.items()):
        for number, (name, (label, colour)) in enumerate(styles.items()):
            rows = np.array(list(table_of[name].values()))
            x = np.arange(len(rows)) + 0.27 * (number - 1)
            errors = [rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]
            axis.bar(x, rows[:, 0], 0.25, yerr=errors, capsize=3, color=colour, label=label)
        axis.axhline(0.5, color="black", linestyle="--", label="guessing")
        names = [f"{name}\n{row[3]}" for name, row in table_of["bert"].items()]
        axis.set_xticks(range(len(names)), names)
        axis.set(ylim=(0, 1.15), title=f"{kind} adjectives", xlabel="group, number of reviews")
    axes[0, 0].set_ylabel("accuracy, 95 % interval")
    axes[0, 0].legend(ncols=4, loc="upper center", fontsize=9)
    save_figure(figure, cfg.out / "groups")


def draw_words(
    cfg: Config,
    tokenizer: Tokenizer,
    tokens: Tensor,
    effects: list[Tensor],
    part: Reviews,
    logits: Tensor,
) -> None:
    figure, axis = new_figure(size=(9, 4.8))
    predicted = logits.argmax(dim=1).numpy()
    short = [number for number, effect in enumerate(effects) if len(effect) <= 14]
    # Six reviews, one a row; up to two errors at the end.
    wrong = [number for number in short if predicted[number] != part.labels[number]][:2]
    half = (6 - len(wrong)) // 2
    chosen = [number for number in short if predicted[number] == part.labels[number] == 0][:half]
    chosen += [number for number in short if predicted[number] == part.labels[number] == 1][:half]
    for row, number in enumerate(chosen + wrong):
        names = tokenizer.names(tokens[number][: len(effects[number])])
        most = effects[number].abs().max().item() or 1.0
        for column, (name, effect) in enumerate(zip(names[1:-1], effects[number][1:-1].tolist())):
            colour = BLUE if effect > 0 else ORANGE
            box = {"facecolor": colour, "alpha": min(1.0, abs(effect) / most) * 0.8, "pad": 3}
            axis.text(column, -row, name, bbox=box, ha="center", fontsize=10)
        words = ("bad", "good")
        verdict = f"{words[predicted[number]]}\n({words[part.labels[number]]})"
        axis.text(-1.4, -row, verdict, ha="center", va="center", fontsize=9)
    axis.set(xlim=(-2, 12), ylim=(-5.6, 0.8))
    axis.set_axis_off()
    axis.set_title("Effect of each word: blue for good, orange for bad (left: predicted, label)")
    save_figure(figure, cfg.out / "words")


def settle(cfg: Config) -> None:
    """Which model, if no flag says it."""
    if cfg.model is None:
        real = cfg.data != "generated" and not cfg.tiny and published.has_minilm()
        cfg.model = "minilm" if real else "small"


def run(cfg: Config) -> dict | None:
    if cfg.interactive or cfg.ask is not None:
        return answer(cfg)

    settle(cfg)
    show_groups(cfg)
    show_comparison(cfg)
    show_calibration(cfg)
    show_words(cfg)
    return show_results(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
