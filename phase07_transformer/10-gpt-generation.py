"""7.10 Generating with GPT: sampling, beams, and the KV cache
GPT 生成：采样、束搜索与 KV 缓存

You will be able to answer
    1. Which tokens may be drawn?       show_sampling  same, outside, frequencies
    2. What is computed only once?      show_cache     exact, numbers, products, faster, tokens
    3. What does a beam find?           show_beam      beams
    4. Which choice repeats itself?     show_texts     drawn, loops
    5. What do examples tell a model?   show_examples  overfits, depends, zero, seven, known
Predict   faster: how many times faster are 512 tokens written if keys and values are kept?
Run       python phase07_transformer/10-gpt-generation.py                  about 50 s
Needs     phase06_rnn/project-text-generation, phase07_transformer/09-gpt-architecture
Reference transformers.GPT2LMHeadModel
Notation  B batch  T tokens of a text  V tokens of the vocabulary  D width  L layers  K beams
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.checks import check, check_close, depends_on_input, expect, overfits, timed
from common.config import main, param
from common.data.text import load_text
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

text_project = load_lesson("phase06_rnn/project-text-generation")
gpt = load_lesson("phase07_transformer/09-gpt-architecture")
Choose = Callable[[Tensor], Tensor]  # logits (B, V) -> tokens (B, 1)
LETTERS = 4  # and as many digits
SHOTS = 7  # examples in front of the question


@dataclass
class Config(gpt.Config):
    length: int = param(512, "tokens that are written to compare times", tiny=40)
    steps: int = param(500, "training steps of [4], each of 16 windows", tiny=5)
    prompt_steps: int = param(200, "training steps of [5], each of 32 prompts", tiny=5)


def filtered(logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits (B, V) divided by the temperature; -inf for tokens that may not be drawn.

    The top_k most probable stay (0: all); of those as few as have top_p together, at least one.
    """
    # practice: What may be drawn
    logits = logits / temperature
    if top_k > 0:
        last_kept = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < last_kept, -torch.inf)

    # A token goes if those before it, the more probable ones, already have top_p.
    ordered, order = logits.sort(dim=1, descending=True)
    p = ordered.softmax(dim=1)
    gone = p.cumsum(dim=1) - p >= top_p
    gone[:, 0] = False
    return logits.masked_fill(gone.gather(1, order.argsort(dim=1)), -torch.inf)
    # end practice


def greedy(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1, keepdim=True)


def sampler(seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Choose:
    """A function that draws a token for each row of logits."""
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> Tensor:
        p = filtered(logits, temperature, top_k, top_p).softmax(dim=1)
        return p.cpu().multinomial(1, generator=generator).to(logits.device)

    return choose


class Remembering(nn.Module):
    """A linear layer that also returns its earlier outputs: x (B, T, D) -> (B, before + T, D)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear
        self.kept = None

    def forward(self, x: Tensor) -> Tensor:
        # practice: Remember
        new = self.linear(x)
        if self.kept is not None:
            new = torch.cat([self.kept, new], dim=1)
        self.kept = new
        return new
        # end practice


@contextmanager
def kv_cache(model: nn.Module) -> Iterator[list[Remembering]]:
    """Inside `with kv_cache(model) as kept:` the model wants only the tokens it has not yet read.

    Keys and values of the others are kept: nothing that follows could change them.
    """
    attentions = [layer.attention for layer in model.encoder.layers]
    for attention in attentions:
        attention.key = Remembering(attention.key)
        attention.value = Remembering(attention.value)
    try:
        yield [part for each in attentions for part in (each.key, each.value)]
    finally:
        for attention in attentions:
            attention.key = attention.key.linear
            attention.value = attention.value.linear


@torch.no_grad()
def generate(model: nn.Module, prompt: Tensor, length: int, choose: Choose) -> Tensor:
    """`length` tokens more, one after the other: prompt (B, T) -> (B, T + length)."""
    # practice: Write with a cache
    texts = prompt
    new = prompt
    with kv_cache(model):
        for _ in range(length):
            logits = model(new, start=texts.shape[1] - new.shape[1])  # (B, T of new, V)
            new = choose(logits[:, -1])  # (B, 1)
            texts = torch.cat([texts, new], dim=1)
    return texts
    # end practice


@torch.no_grad()
def generate_anew(model: nn.Module, prompt: Tensor, length: int, choose: Choose) -> Tensor:
    """The same without a cache: all of the text is read again for each token."""
    texts = prompt
    for _ in range(length):
        texts = torch.cat([texts, choose(model(texts)[:, -1])], dim=1)
    return texts


def show_sampling(cfg: Config) -> None:
    print("\n[1] Temperature, top-k and top-p on the logits of a whole batch")
    logits = 2 * torch.randn(6, 12, dtype=torch.float64)
    ours = []
    theirs = []
    for sampling in ((1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.7), (1.5, 5, 0.8)):
        ours.append(filtered(logits, *sampling).softmax(dim=1))
        theirs.append(torch.stack([text_project.narrowed(row, *sampling) for row in logits]))
    text = "five settings: the probabilities of phase 6's text project, row by row"
    check_close("same", text, torch.stack(ours), torch.stack(theirs))

    model = random_model(20, context=8).double()
    prompts = torch.tensor([[3, 1, 4]]).expand(20_000, -1)
    drawn = generate(model, prompts, 1, sampler(cfg.seed, 1.2, top_k=12, top_p=0.9))[:, -1]
    counts = drawn.bincount(minlength=20)
    wanted = text_project.narrowed(model(prompts[:1])[0, -1].detach(), 1.2, 12, 0.9)
    allowed = wanted > 0
    check("outside", "of 20,000 draws {} are others", counts[~allowed].sum(), at_most=0)
    p = chisquare(counts[allowed], 20_000 * wanted[allowed]).pvalue
    check("frequencies", "the counts fit the probabilities: chi-square's p is {}", p, above=0.001)


@torch.no_grad()
def show_cache(cfg: Config) -> float:
    print("\n[2] Keys and values of the tokens read so far are kept")
    model = random_model(30, context=16).double()
    texts = torch.randint(30, (2, 12))
    logits = []
    with kv_cache(model) as kept:
        for start, end in ((0, 5), (5, 6), (6, 7), (7, 10), (10, 12)):
            logits.append(model(texts[:, start:end], start=start))
        numbers = sum(layer.kept.numel() for layer in kept)
    text = "12 tokens read in five pieces: the logits of one pass"
    check_close("exact", text, torch.cat(logits, dim=1), model(texts))
    text = "keys and values of 2 layers for 2 texts of 12 tokens, width 16: 1,536 numbers"
    check_close("numbers", text, numbers, 2 * 2 * 2 * 12 * 16)

    n = cfg.length
    model = random_model(50, context=n + 8, dim=192, layers=2)
    prompt = torch.randint(50, (1, 8))
    products = []
    for way in (generate_anew, generate):
        with FlopCounterMode(display=False) as counter:
            way(model, prompt[:, :1], 16, greedy)
        products.append(counter.get_total_flops())
    ratio = products[0] / products[1]
    check("products", "16 tokens, no cache: {} times the products", ratio, above=8.5, below=11)

    texts = {}

    def write(way: Callable) -> None:
        texts[way] = way(model, prompt, n, sampler(0))

    pair = partial(write, generate_anew), partial(write, generate)
    faster = timed("faster", f"{n} tokens: {{}} times as fast", *pair, at_least=8, repeats=1)
    check_close("tokens", "and the same tokens", texts[generate], texts[generate_anew])
    return faster


@torch.no_grad()
def beam_search(model: nn.Module, prompt: Tensor, width: int, length: int) -> tuple[Tensor, Tensor]:
    """prompt (1, T) -> the K best texts found (K, T + length) and their log p (K,), best first."""
    # practice: Beams with a cache
    texts = prompt
    new = prompt
    scores = torch.zeros(1, device=prompt.device)
    with kv_cache(model) as kept:
        for _ in range(length):
            logits = model(new, start=texts.shape[1] - new.shape[1])[:, -1]  # (beams, V)
            totals = scores[:, None] + logits.log_softmax(dim=1)
            scores, best = totals.flatten().topk(min(width, totals.numel()))
            # Each of the best continues one of the beams: with its text, and what was kept.
            rows = best // totals.shape[1]
            new = (best % totals.shape[1])[:, None]
            texts = torch.cat([texts[rows], new], dim=1)
            for layer in kept:
                layer.kept = layer.kept[rows]
    return texts, scores
    # end practice


def show_beam(cfg: Config) -> None:
    print("\n[3] Beams: the cache of a beam goes where its text goes")
    import transformers

    size = {"vocab_size": 50, "n_positions": 32, "n_embd": 24, "n_layer": 3, "n_head": 4}
    config = transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=None, use_cache=False)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.2)
    model = gpt.GPT(50, 32, 24, 3, 4).double().eval()
    gpt.load_gpt2(model, theirs.state_dict())

    prompt = torch.randint(1, 50, (1, 6))
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    found = theirs.generate(prompt, num_beams=4, num_return_sequences=4, **options)
    ours, _ = beam_search(model, prompt, 4, 20)
    check_close("beams", "4 beams: the texts that Hugging Face's generate finds", ours, found)


def show_texts(cfg: Config) -> dict[str, float]:
    corpus = load_text(cfg)
    print("\n[4] A model trained as in lesson 7.9 continues pieces of unseen text")
    train = gpt.encode(cfg, corpus, corpus.train)
    model = gpt.make_model(cfg, len(corpus.vocabulary))
    gpt.train(model, gpt.windows(train, cfg.context, cfg.steps, seed=1 + cfg.seed))

    people = torch.cat(gpt.windows(gpt.encode(cfg, corpus, corpus.val), 31, 2, seed=2))
    prompts = people[: 2 if cfg.tiny else 32, :8]  # of (32, 32)
    ways = {"people": people, "greedy": generate(model, prompts, 24, greedy)}
    ways["beams"] = torch.cat([beam_search(model, each[None], 8, 24)[0][:1] for each in prompts])
    ways["drawn"] = generate(model, prompts, 24, sampler(cfg.seed))
    new = {name: share_new(texts[:, 8:]) for name, texts in ways.items()}
    for name, texts in ways.items():
        written = corpus.vocabulary.decode(texts[0, 8:].tolist())
        print(f"  {name:<8}{new[name]:.3f} of the pieces of four are new: {written!r}")
    expect("drawn", "{} of the drawn pieces are new", new["drawn"], at_least=0.85)
    expect("loops", "the beams have {} fewer new pieces", new["drawn"] - new["beams"], at_least=0.2)
    return {f"new_{name}": each for name, each in new.items()}


def show_examples(cfg: Config) -> tuple[dict[str, float], dict[str, list[float]]]:
    print("\n[5] Prompts, each with a rule of its own: which digit belongs to which letter")
    model = prompt_model(cfg)
    batch = prompts(cfg, 16, new=False, seed=0)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    overfits("overfits", "16 prompts: loss {}", model, batch, gpt.next_token_loss, adam, below=0.2)
    depends_on_input("depends", "its answers: {} right", answers(model, batch)[:, 7], batch[:, 15])

    model = prompt_model(cfg)
    steps = range(cfg.prompt_steps)
    gpt.train(model, [prompts(cfg, 32, new=False, seed=100 + step) for step in steps])
    curves = {}
    for name, new in (("known", False), ("new", True)):
        tests = prompts(cfg, 2000, new, seed=1)
        curves[name] = (answers(model, tests) == tests[:, 1::2]).double().mean(dim=0).tolist()
    expect("zero", "new rules: without an example {} right", curves["new"][0], at_most=0.32)
    expect("seven", "with 7 examples {}; at best 0.9", curves["new"][7], at_least=0.85)
    expect("known", "and with rules of the training {}", curves["known"][7], at_least=0.85)
    return {"zero": curves["new"][0], "seven": curves["new"][7]}, curves


# Pictures and helpers: skip on a first reading


def random_model(vocab: int, context: int, dim: int = 16, layers: int = 2) -> nn.Module:
    """Not trained, but with such weights that its probabilities differ."""
    model = gpt.GPT(vocab, context, dim, layers, n_heads=4).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


def share_new(texts: Tensor) -> float:
    """How many pieces of four characters did not come before in the same text."""
    pieces = texts.unfold(1, 4, 1)  # (B, T - 3, 4)
    return sum(len(row.unique(dim=0)) for row in pieces) / pieces[..., 0].numel()


def prompts(cfg: Config, n: int, new: bool, seed: int) -> Tensor:
    """n prompts (n, 16): letter, answer, letter, answer, … new: by rules not in the training."""
    generator = torch.Generator().manual_seed(10**6 * cfg.seed + seed)
    rules = torch.cartesian_prod(*[torch.arange(LETTERS)] * LETTERS)  # (256, 4), a digit for each
    rules = rules[(rules.sum(dim=1) % 5 == 0) == new]  # 51 are new, 205 are not
    rule = rules[torch.randint(len(rules), (n,), generator=generator)]
    letters = torch.randint(LETTERS, (n, SHOTS + 1), generator=generator)
    # One token for letter and digit: a is 0, its answers a0 to a3 are 4 to 7.
    pairs = LETTERS + LETTERS * letters + rule.gather(1, letters)
    return torch.stack([letters, pairs], dim=2).flatten(start_dim=1).to(cfg.torch_device())


def prompt_model(cfg: Config) -> nn.Module:
    torch.manual_seed(cfg.seed)
    model = gpt.GPT(LETTERS + LETTERS**2, 2 * SHOTS + 2, 32, 1, n_heads=4, dropout=0)
    for weight in model.parameters():
        # GPT-2's initial weights are for a width of 768. With 32 they are too small: slow to learn.
        weight.data *= 6 if weight.ndim == 2 else 1
    return model.to(cfg.torch_device())


@torch.no_grad()
def answers(model: nn.Module, prompts: Tensor) -> Tensor:
    """The most probable answer after 0, 1, … 7 examples: (B, 16) -> (B, 8)"""
    return model(prompts[:, :-1]).argmax(dim=2)[:, ::2]


def draw_examples(cfg: Config, curves: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    axis.plot([1 - 0.75 ** (n + 1) for n in range(8)], color=GREY, linewidth=8, label="at best")
    axis.plot(curves["known"], color=BLUE, label="GPT, rules of the training")
    axis.plot(curves["new"], "o", color=ORANGE, markersize=9, label="GPT, new rules")
    axis.set(xlabel="examples in the prompt", ylabel="accuracy", ylim=(0, 1))
    axis.set_title("Examples in the prompt define a rule that no weight has learned")
    axis.legend()
    save_figure(figure, cfg.out / "examples")


def run(cfg: Config) -> dict:
    show_sampling(cfg)
    faster = show_cache(cfg)
    show_beam(cfg)
    scores = show_texts(cfg)
    shots, curves = show_examples(cfg)
    draw_examples(cfg, curves)
    return {"faster": faster} | scores | shots


if __name__ == "__main__":
    main(run, Config, __doc__)
