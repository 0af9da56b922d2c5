"""7.4 The Transformer encoder: attention, then a network for each position
Transformer 编码器：先交换信息，再逐个处理

You will be able to answer
    1. What does a layer compute?  show_layer    by-hand
    2. Is it torch's encoder?      show_torch    post, pre, dropped
    3. Does padding matter?        show_padding  inert
    4. What is each part for?      show_facts    overfits, depends, network, attention, both, wide
    5. Post-norm or pre-norm?      show_depth    kept, lost, post-deep, warm, slow, pre-deep
Predict   attention: 2,304 random facts, no feed-forward network. What share does a layer learn?
Run       python phase07_transformer/04-transformer-encoder.py             about half a minute
Needs     phase07_transformer/01-self-attention, phase07_transformer/02-multi-head-attention
Reference nn.TransformerEncoderLayer, nn.TransformerEncoder
Notation  B batch  T positions  D width  N heads
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.sequences import PAD, facts
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
multi_head = load_lesson("phase07_transformer/02-multi-head-attention")
MultiHeadAttention = multi_head.MultiHeadAttention

WIDTH = 16  # so narrow that one layer cannot hold all facts


@dataclass
class Config(LessonConfig):
    threads = 1
    names: int = param(48, "subjects, relations and objects", tiny=8)
    steps: int = param(300, "training steps, each with all facts", tiny=4)
    deep_steps: int = param(100, "training steps of twelve layers, with 128 facts", tiny=2)


class FeedForward(nn.Module):
    """Two linear layers, the same for each position: (B, T, D) -> (B, T, D).

    activation: "relu" (Vaswani et al. 2017), "gelu" (BERT) or "gelu_tanh", close to it (GPT-2).
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0, activation: str = "relu"):
        super().__init__()
        functions = {"relu": nn.ReLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU("tanh")}
        if activation not in functions:
            raise ValueError(f"no activation “{activation}”, only {', '.join(functions)}.")
        self.inner = nn.Linear(dim, hidden_dim)
        self.outer = nn.Linear(hidden_dim, dim)
        self.activation = functions[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        # practice: The feed-forward network
        hidden = self.activation(self.inner(x))  # (B, T, hidden)
        return self.outer(self.dropout(hidden))
        # end practice


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network; what each computes is added to its input.

    norm_first=False, post-norm (Vaswani et al. 2017, BERT): the sums are normalised.
    norm_first=True, pre-norm (GPT-2): what enters attention and network is normalised.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        hidden_dim: int,
        dropout: float = 0.1,
        norm_first: bool = False,
        activation: str = "relu",
        eps: float = 1e-5,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(dim, n_heads, dropout)
        self.feed_forward = FeedForward(dim, hidden_dim, dropout, activation)
        self.attention_norm = nn.LayerNorm(dim, eps)  # lesson 4.7
        self.feed_forward_norm = nn.LayerNorm(dim, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, D) -> (B, T, D). mask: broadcasts to (B, N, T, T), True: may attend."""
        # practice: An encoder layer
        if self.norm_first:
            # The norms stand beside the path from x to the result, which only adds.
            normed = self.attention_norm(x)
            x = x + self.dropout(self.attention(normed, mask=mask))
            normed = self.feed_forward_norm(x)
            x = x + self.dropout(self.feed_forward(normed))
        else:
            update = self.attention(x, mask=mask)
            x = self.attention_norm(x + self.dropout(update))
            update = self.feed_forward(x)
            x = self.feed_forward_norm(x + self.dropout(update))
        return x
        # end practice


def show_layer(cfg: Config) -> None:
    print("\n[1] A layer: positions exchange vectors; then each one passes through a small network")
    found = []
    for norm_first in (False, True):
        layer = EncoderLayer(4, 1, 1, norm_first=norm_first, eps=0.0).double().eval()
        switch_off(layer.attention.out)
        # One hidden unit, the last column minus the first; it is added twice to two columns.
        values = ([[-1, 0, 0, 1]], [0], [[2], [2], [0], [0]], [0, 0, 0, 0])
        for weight, value in zip(layer.feed_forward.parameters(), values):
            weight.data.copy_(torch.tensor(value))
        x = torch.tensor([[[2, 2, 6, 6]]], dtype=torch.float64)
        found.append(layer(x)[0, 0])
    text = "(2, 2, 6, 6), attention off: post-norm gives (1, 1, -1, -1), pre-norm (6, 6, 6, 6)"
    check_close("by-hand", text, torch.stack(found), [[1.0, 1, -1, -1], [6, 6, 6, 6]])


class Encoder(nn.Module):
    """n_layers encoder layers: (B, T, D) -> (B, T, D). final_norm: by default as norm_first."""

    layer_class = EncoderLayer  # lesson 7.5's decoder is built in the same way, of other layers

    def __init__(
        self,
        n_layers: int,
        dim: int,
        n_heads: int,
        hidden_dim: int,
        dropout: float = 0.1,
        norm_first: bool = False,
        activation: str = "relu",
        eps: float = 1e-5,
        final_norm: bool | None = None,
    ):
        super().__init__()
        options = (dim, n_heads, hidden_dim, dropout, norm_first, activation, eps)
        self.layers = nn.ModuleList([self.layer_class(*options) for _ in range(n_layers)])
        if final_norm is None:
            final_norm = norm_first  # with pre-norm the sums grow from layer to layer
        self.norm = nn.LayerNorm(dim, eps) if final_norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


def show_torch(cfg: Config) -> None:
    print("\n[2] Two layers of torch's encoder, with copied weights and a mask")
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    # Each position attends to itself at least: of a row without any, torch makes nan.
    mask = torch.rand(5, 5).fill_diagonal_(0) < 0.6
    dropped = []
    for name, norm_first, activation in (("post", False, "relu"), ("pre", True, "gelu")):
        options = {"norm_first": norm_first, "activation": activation}
        layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, **options)
        theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(12), enable_nested_tensor=False)
        theirs = theirs.double().eval()
        randomize(theirs)
        ours = Encoder(2, 12, 3, 20, **options, final_norm=True).double().eval()
        for our_layer, their_layer in zip(ours.layers, theirs.layers):
            load_torch(our_layer, their_layer)
        ours.norm.load_state_dict(theirs.norm.state_dict())
        row = with_gradients(ours(x, mask), x)
        text = f"{name}-norm, {activation}: the same outputs and gradients"
        check_close(name, text, row, with_gradients(theirs(x, mask=~mask), x))
        for model in (ours, theirs):
            torch.manual_seed(cfg.seed)
            dropped.append(model.train()(x[:1]))  # of two, torch draws in another order
    text = "in training, both orders: with the same seed, the same dropout"
    check_close("dropped", text, torch.stack(dropped[::2]), torch.stack(dropped[1::2]))


def padding_mask(tokens: Tensor, pad: int = PAD) -> Tensor:
    """tokens (B, S) -> (B, 1, 1, S), False at padding: no position attends to it."""
    # practice: The padding mask
    is_token = tokens != pad  # (B, S)
    return is_token[:, None, None]  # one row for all heads and all queries
    # end practice


def show_padding(cfg: Config) -> None:
    print("\n[3] Texts of 3 and 7 positions in one batch: padding behind the shorter one")
    tokens = torch.tensor([[5, 1, 4, PAD, PAD, PAD, PAD], [2, 7, 1, 8, 2, 8, 1]])
    vectors = torch.randn(2, 7, 12, dtype=torch.float64)
    encoder = Encoder(3, 12, 3, 20).double().eval()
    outputs = encoder(vectors, padding_mask(tokens))
    text = "the short text in the batch: the outputs that it has alone"
    check_close("inert", text, outputs[0, :3], encoder(vectors[:1, :3])[0])


class Recall(nn.Module):
    """A subject and a relation side by side, x (B, 2) -> logits of the object (B, names)."""

    def __init__(self, cfg: Config, n_layers: int = 1, hidden_dim: int = 64, norm_first=False):
        super().__init__()
        self.subject = nn.Embedding(cfg.names, WIDTH)
        self.relation = nn.Embedding(cfg.names, WIDTH)
        self.encoder = Encoder(n_layers, WIDTH, 4, hidden_dim, 0.0, norm_first)
        self.head = nn.Linear(WIDTH, cfg.names)

    def forward(self, x: Tensor) -> Tensor:
        # practice: From two names to the third
        subjects, relations = x.unbind(dim=1)
        vectors = torch.stack([self.subject(subjects), self.relation(relations)], dim=1)
        # Read at the relation's position: what it knows of the subject came through attention.
        return self.head(self.encoder(vectors)[:, 1])
        # end practice


def show_facts(cfg: Config) -> dict[str, float]:
    x, y = facts(cfg, cfg.names)
    print(f"\n[4] {len(x):,} facts: subject and relation, and a random object; one layer")
    model = make_model(cfg)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = (x[::5][:16], y[::5][:16])
    overfits("overfits", "16 facts: the loss falls to {}", model, batch, cross_entropy, adam)
    predicted = model(batch[0]).argmax(dim=1)
    depends_on_input("depends", "answers depend on the names: {} right", predicted, batch[1])
    scores = {}
    for name, hidden_dim in (("network", 64), ("attention", 64), ("both", 64), ("wide", 256)):
        model = make_model(cfg, hidden_dim=hidden_dim)
        layer = model.encoder.layers[0]
        last = {"network": layer.attention.out, "attention": layer.feed_forward.outer}
        if name in last:
            switch_off(last[name])
        train(model, (x, y), cfg.steps, lr=1e-2)
        scores[name] = (model(x).argmax(dim=1) == y).double().mean().item()

    counts = F.one_hot(y, cfg.names).unflatten(0, (cfg.names, cfg.names)).sum(dim=0)
    best = counts.amax(dim=1).sum().item() / len(y)  # each relation's most frequent object
    text = f"attention off: {{}} are learned; without the subject, {best:.3f} at best"
    expect("network", text, scores["network"], at_least=0.85 * best, at_most=best)
    expect("attention", "network off: {}", scores["attention"], above=0.25, below=0.5)
    expect("both", "a network of 64 hidden units: {}", scores["both"], above=0.55, below=0.85)
    expect("wide", "of 256 hidden units: {}", scores["wide"], at_least=0.95)
    return scores


def show_depth(cfg: Config) -> dict[str, list[float]]:
    print("\n[5] Twelve layers with Xavier's weights, as the paper's; 128 facts, rate 0.01")
    x, y = facts(cfg, cfg.names)
    batch = (x[::5][:128], y[::5][:128])
    kept = {}
    losses = {}
    options = {"post": (1e-2, 1), "pre": (1e-2, 1), "warm": (1e-2, 50), "slow": (1e-3, 1)}
    for name, (rate, warmup) in options.items():
        model = make_model(cfg, n_layers=12, norm_first=name == "pre")
        xavier(model)
        vectors = torch.randn(64, 2, WIDTH, device=x.device)
        kept[name] = F.cosine_similarity(model.encoder(vectors), vectors, dim=2).mean().item()
        losses[name] = train(model, batch, cfg.deep_steps, rate, warmup)
    print("  the cosine of an untrained stack's output and its input:")
    check("kept", "pre-norm: {}, predicted 0.28", kept["pre"], above=0.15, below=0.4)
    check("lost", "post-norm: {}, predicted 0.008", kept["post"], above=-0.12, below=0.12)
    # The least loss of a constant answer: the entropy of the objects.
    shares = F.one_hot(batch[1]).double().mean(dim=0)
    equal = -shares.xlogy(shares).sum().item()
    text = f"post-norm ends at the loss {{}}; the same answer to all facts has {equal:.2f}"
    expect("post-deep", text, losses["post"][-1], above=0.85 * equal)
    expect("warm", "post-norm, the rate rising for 50 steps: {}", losses["warm"][-1], below=0.5)
    expect("slow", "post-norm at the rate 0.001: {}", losses["slow"][-1], below=2.0)
    expect("pre-deep", "pre-norm at the full rate: {}", losses["pre"][-1], below=0.1)
    return losses | {"constant": [equal] * cfg.deep_steps}


# Pictures and helpers: skip on a first reading


@torch.no_grad()
def switch_off(layer: nn.Linear) -> None:
    """Its outputs are 0, and stay 0 in training."""
    for weight in layer.parameters():
        weight.zero_()
        weight.requires_grad_(False)


def xavier(model: nn.Module) -> None:
    """Xavier's weights (lesson 4.9) and biases of 0 in all linear layers."""
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


def randomize(model: nn.Module) -> None:
    """Norms and biases, too: fresh ones are 1 and 0, behind which faults hide."""
    for weight in model.parameters():
        nn.init.normal_(weight)


def load_torch(ours: EncoderLayer, theirs: nn.Module) -> None:
    """Copy the weights of nn.TransformerEncoderLayer."""
    multi_head.load_torch(ours.attention, theirs.self_attn)
    ours.feed_forward.inner.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.outer.load_state_dict(theirs.linear2.state_dict())
    ours.attention_norm.load_state_dict(theirs.norm1.state_dict())
    ours.feed_forward_norm.load_state_dict(theirs.norm2.state_dict())


def make_model(cfg: Config, **options) -> Recall:
    torch.manual_seed(cfg.seed)
    return Recall(cfg, **options).to(cfg.torch_device())


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(model: nn.Module, batch: tuple, steps: int, lr: float, warmup: int = 1) -> list[float]:
    """The loss of every step, each with the whole batch. The rate rises for `warmup` steps."""
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    rate = torch.optim.lr_scheduler.LinearLR(adam, 1 / warmup, total_iters=warmup)
    rows = fit(model, [batch], adam, cross_entropy, epochs=steps, scheduler=rate, quiet=True)
    return [row["train_loss"] for row in rows]


def draw_depth(cfg: Config, losses: dict[str, list[float]]) -> None:
    labels = ("post-norm", "pre-norm", "post-norm, 50 steps of warm-up", "post-norm, rate 0.001")
    colours = (ORANGE, BLUE, GREEN, PURPLE, GREY)
    figure, axis = new_figure(size=(8, 4.6))
    for values, label, colour in zip(losses.values(), (*labels, "one answer to all"), colours):
        axis.plot(values, ":" if colour == GREY else "-", color=colour, label=label)
    axis.set(xlabel="step", ylabel="loss", ylim=(0, 6))
    axis.set_title("Twelve layers, rate 0.01: post-norm needs a warm-up or a smaller rate")
    axis.legend(ncols=2, loc="upper right")
    save_figure(figure, cfg.out / "depth")


def run(cfg: Config) -> dict[str, float]:
    show_layer(cfg)
    show_torch(cfg)
    show_padding(cfg)
    results = show_facts(cfg)
    losses = show_depth(cfg)
    draw_depth(cfg, losses)
    return results | {f"loss_{name}": values[-1] for name, values in losses.items()}


if __name__ == "__main__":
    main(run, Config, __doc__)
