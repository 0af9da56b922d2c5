"""8.8 Stable Diffusion in small: words become a picture
迷你 Stable Diffusion：文生图

You will be able to answer
    1. Why not diffuse pixels?  show_latents    sum, unit, judge, rebuilt
    2. How do words get in?     show_attention  same, padding, order, bag
    3. What is it trained for?  show_loss       known, dropped, overfits, moves, guided
    4. Is it as asked and new?  show_pictures   colour, both, unseen, chance, all, near, own, caught
Predict   shape_plain: without guidance, what share has the shape asked for? Chance is 1 in 5.
Run       python phase08_generative/08-stable-diffusion-intro.py            about a minute
          … --preset long: 15 minutes, goes on with --resume; --prompt "a red circle" draws it
Needs     phase07_transformer/01-self-attention, phase07_transformer/02-multi-head-attention,
          phase07_transformer/07-bert-architecture, phase08_generative/01-gan-basics,
          phase08_generative/04-autoencoder, phase08_generative/05-vae,
          phase08_generative/06-diffusion-theory, phase08_generative/07-diffusion-implementation
Reference nn.MultiheadAttention
Learns    overfits, moves
Notation  B batch  Z channels of a latent  H W its size  C channels  S words of a prompt  D width
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, expect, overfits
from common.config import LessonConfig, main, param
from common.data import prompts
from common.data.prompts import EMPTY, LENGTH, PAD, Pictures, conv
from common.errors import LessonError
from common.lessons import load_lesson

with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
MultiHeadAttention = load_lesson("phase07_transformer/02-multi-head-attention").MultiHeadAttention
BERT = load_lesson("phase07_transformer/07-bert-architecture").BERT
gan = load_lesson("phase08_generative/01-gan-basics")
autoencoders = load_lesson("phase08_generative/04-autoencoder")
vae = load_lesson("phase08_generative/05-vae")
theory = load_lesson("phase08_generative/06-diffusion-theory")
diffusion = load_lesson("phase08_generative/07-diffusion-implementation")

PATCH = 4  # pixels on each side that become one position of the latent
LATENT = 8  # channels Z
DIM = 64  # width D of a word


@dataclass
class Config(LessonConfig):
    threads = 1
    pictures: int = param(5000, "pictures to train with; as many for the judge", tiny=200, low=100)
    passes: int = param(2, "passes of judge and decoder over them", tiny=1, long=15)
    epochs: int = param(7, "passes of the U-Net", tiny=1, long=100)
    width: int = param(32, "channels of the U-Net, a multiple of 8", tiny=8, long=48, low=8)
    jumps: int = param(20, "steps of the sampler, at most 100", tiny=4)
    guidance: float = param(3.0, "w, how many times the prompt counts", low=0)
    each: int = param(10, "pictures for each prompt", tiny=2, low=2)
    prompt: str | None = param(None, "draw this with the networks of an earlier run")


class PatchAutoencoder(nn.Module):
    """Encoder: 8.4's PCA, of patches. Decoder: PCA's, and what a network adds to that."""

    def __init__(self, pictures: Tensor, width: int = 64):
        super().__init__()
        patches = to_patches(pictures).flatten(0, 2)  # (n, 48)
        self.pca = autoencoders.pca_autoencoder(patches, LATENT).requires_grad_(False)
        self.register_buffer("sd", self.pca.encoder(patches).std(dim=0))
        layers = [conv(LATENT, width), nn.SiLU(), conv(width, width), nn.SiLU()]
        self.network = nn.Sequential(*layers, conv(width, patches.shape[1], bias=False))
        nn.init.zeros_(self.network[-1].weight)  # it starts as PCA

    def to_latents(self, x: Tensor) -> Tensor:
        """(B, 3, 4H, 4W) -> (B, Z, H, W)"""
        # practice: To the latents
        codes = self.pca.encoder(to_patches(x))  # (B, H, W, Z)

        # The schedules of 8.6 mix with noise of sd 1: so each channel gets that sd, too.
        return (codes / self.sd).movedim(-1, 1)
        # end practice

    def to_pictures(self, latents: Tensor) -> Tensor:
        # practice: Back to pixels
        codes = latents.movedim(1, -1) * self.sd
        patches = self.pca.decoder(codes).movedim(-1, 1)  # (B, 48, H, W)

        # A patch by itself cannot know where an edge goes on; the network sees its neighbours.
        patches = patches + self.network(latents)
        return F.pixel_shuffle(patches, PATCH)
        # end practice

    def forward(self, x: Tensor) -> Tensor:
        latents = self.to_latents(x)
        if self.training:
            # Diffusion will not hit a latent exactly: small errors must not spoil a picture.
            latents = latents + 0.1 * torch.randn_like(latents)
        return self.to_pictures(latents)


def show_latents(cfg: Config, real: Pictures, others: Pictures, new: Pictures) -> tuple:
    print("\n[1] Latents: 24x24 pixels with 3 numbers become 6x6 positions with 8")
    torch.manual_seed(cfg.seed)
    coder = PatchAutoencoder(new.x, width=8)
    nn.init.normal_(coder.network[-1].weight)
    wanted = coder.pca(to_patches(new.x)).movedim(-1, 1) + coder.network(coder.to_latents(new.x))
    wanted = F.pixel_shuffle(wanted, PATCH)
    check_close("sum", "PCA and network add up to the picture", coder.eval()(new.x), wanted)
    coder = PatchAutoencoder(real.x)
    found = torch.cat(torch.std_mean(coder.to_latents(real.x), dim=(0, 2, 3)))
    check_close("unit", "8 sds of 1, 8 means of 0", found, [1.0] * 8 + [0.0] * 8, atol=1e-4)
    loss_fn = autoencoders.reconstruction_loss
    prompts.train(cfg, "decoder", coder, (real.x, real.x), loss_fn, cfg.passes)
    judge = prompts.train_judge(cfg, others, cfg.passes)
    found = judge.shares("real", new.x, new) | judge.shares("rebuilt", coder(new.x), new)
    expect("judge", "real pictures: {} recognised", found["both_real"], at_least=0.98)
    expect("rebuilt", "decoded from latents: {}", found["both_rebuilt"], at_least=0.95)
    return coder, judge, found


class ReadingBlock(MultiHeadAttention):
    """8.7's block, then 7.2's attention: each position asks the words. (B, C, H, W) -> the same"""

    def __init__(self, block: nn.Module):
        channels = block.conv2.out_channels
        super().__init__(channels, n_heads=4)
        self.key = nn.Linear(DIM, channels)  # words are not as wide as what asks
        self.value = nn.Linear(DIM, channels)
        self.norm = nn.GroupNorm(8, channels)
        self.block = block

    def forward(self, x: Tensor, context: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        # practice: Cross-attention
        shift, words, is_word = context
        x = self.block(x, shift)
        asking = self.norm(x).flatten(start_dim=2).mT  # (B, HW, C)
        answers = super().forward(asking, words, is_word)  # (B, HW, C)
        return x + answers.mT.unflatten(2, x.shape[2:])
        # end practice


class TextUNet(diffusion.UNet):
    """8.7's U-Net with its forward. Latents (B, Z, H, W), angles (B,), tokens (B, S) -> v."""

    def __init__(self, width: int):
        super().__init__(width)
        self.text = BERT(len(prompts.WORDS), LENGTH, DIM, n_layers=1, n_heads=4, dropout=0)
        self.enter = conv(LATENT, width)
        self.exit = conv(width, LATENT, bias=False)
        nn.init.zeros_(self.exit.weight)
        for name in ("fine", "coarse1", "coarse2", "merge"):
            setattr(self, name, ReadingBlock(getattr(self, name)))

    def context(self, angle: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each block is told: how much noise there is, and the words."""
        # practice: The context
        # No label is left: what to draw comes from the words alone.
        shift = super().context(angle, torch.full_like(tokens[:, 0], EMPTY))  # (B, 4C)
        words, _ = self.text(tokens)  # (B, S, D)
        return shift, words, (tokens != PAD)[:, None, None]  # one mask for all that ask
        # end practice


def show_attention(cfg: Config) -> None:
    print("\n[2] Cross-attention: positions of the latent ask, words answer")
    layer = ReadingBlock(diffusion.Block(8, 24, 5)).double()
    theirs = nn.MultiheadAttention(24, 4, kdim=DIM, vdim=DIM, batch_first=True).double()
    parts = (layer.query, layer.key, layer.value)
    theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight = (p.weight for p in parts)
    theirs.in_proj_bias = nn.Parameter(torch.cat([part.bias for part in parts]).detach())
    theirs.out_proj = layer.out
    x = torch.randn(3, 8, 2, 4).double().requires_grad_()
    words = torch.randn(3, LENGTH, DIM).double().requires_grad_()
    is_word = torch.arange(LENGTH) < torch.tensor([[1], [3], [5]])
    y = layer.block(x, torch.ones(3, 5).double())
    asking = layer.norm(y).flatten(start_dim=2).mT
    wanted = y + theirs(asking, words, words, key_padding_mask=~is_word)[0].mT.reshape(y.shape)
    inputs = (x, words, *(part.weight for part in (*parts, layer.out)))
    found = layer(x, (torch.ones(3, 5).double(), words, is_word[:, None, None]))
    check_close("same", "torch's layer", *(with_gradients(y, *inputs) for y in (found, wanted)))

    model = TextUNet(8).double()
    nn.init.normal_(model.exit.weight)
    tokens = torch.tensor([prompts.encode("a red circle"), prompts.encode("circle red a")])
    x = torch.randn(1, LATENT, 4, 6).double().expand(2, -1, -1, -1)
    angle = torch.tensor([0.8, 0.8]).double()
    said = model(x, angle, tokens)
    check_close("padding", "padding changes nothing", said, model(x, angle, tokens[:, :3]))
    moved = (said[0] - said[1]).abs().mean().item()
    check("order", "the words in another order: the answers differ by {}", moved, above=0.001)
    nn.init.zeros_(model.text.positions.table.weight)
    check_close("bag", "without positions of words they do not", *model(x, angle, tokens))


def velocity_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error of v = a ε - b x_0. batch: latents x_0 (B, Z, H, W), tokens (B, S)."""
    # practice: The loss
    x_0, tokens = batch
    alpha_bar = theory.cosine_schedule(100).float()
    t = torch.randint(1, len(alpha_bar), (len(x_0), 1, 1, 1))
    a, b = theory.amounts(t, alpha_bar)
    noise = torch.randn_like(x_0)
    x = theory.diffuse(x_0, t, alpha_bar, noise)

    # Now and then an empty prompt: guidance will ask for that answer, too.
    is_empty = torch.rand(len(x_0), 1) < 0.1
    tokens = torch.where(is_empty, EMPTY, tokens)
    v = model(x, torch.atan2(b, a).flatten(), tokens)
    return F.mse_loss(v, a * noise - b * x_0)
    # end practice


def make_denoiser(model: nn.Module, tokens: Tensor, w: float) -> Callable:
    """A function denoise(x, a, b) that guesses x_0, as 8.6 and 8.7 want it."""

    @torch.no_grad()
    def denoise(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # practice: From v to the latent
        angle = torch.atan2(b, a).to(x).expand(len(x))
        v = diffusion.guided_noise(model, x, angle, tokens, w)

        # Unlike (x - b ε) / a, this magnifies no error.
        return a * x - b * v
        # end practice

    return denoise


def show_loss(cfg: Config, latents: Tensor, tokens: Tensor) -> None:
    print("\n[3] Trained to say v; asked with a prompt and without")
    alpha_bar = theory.cosine_schedule(100).float()
    x_0, noise = torch.randn(2, 7, LATENT, 4, 6)

    def knowing(x: Tensor, angle: Tensor, tokens: Tensor) -> Tensor:
        angle = angle[:, None, None, None]
        return (angle.cos() * x - x_0) / angle.sin()  # x_0 = a x - b v, solved for v

    loss = velocity_loss(knowing, (x_0, tokens[:7]))
    a, b = theory.amounts(60, alpha_bar)
    found = make_denoiser(knowing, tokens[:7], 1)(a * x_0 + b * noise, a, b)
    text = "a model that knows x_0 has the loss 0, and the denoiser finds x_0"
    check_close("known", text, found + loss, x_0, atol=1e-4)

    def counting(x: Tensor, angle: Tensor, tokens: Tensor) -> Tensor:
        return (tokens == EMPTY).sum(dim=1)[:, None, None, None].expand_as(x).float()

    batch = (torch.zeros(20_000, 1, 1, 1), torch.full((20_000, LENGTH), 3))
    loss = velocity_loss(counting, batch) - alpha_bar[1:].mean()
    check("dropped", "it counts EMPTY: 0.1 · 5² = 2.5, here {}", loss, above=2.2, below=2.8)

    def again(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        torch.manual_seed(cfg.seed)  # the same steps and noise each time
        return velocity_loss(model, batch)

    model = TextUNet(8)
    batch = (latents[:8], tokens[:8])
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    overfits("overfits", "8 by heart: loss {}", model, batch, again, adam, steps=60, below=0.2)
    x = latents[:1].expand(8, -1, -1, -1)
    a, b = torch.tensor([0.6, 0.8])
    empty, plain, guided = (make_denoiser(model, tokens[:8], w)(x, a, b) for w in (0, 1, 3))
    check("moves", "eight prompts move it by {}", plain.std(dim=0).mean(), above=0.01)
    nothing = make_denoiser(model, torch.full_like(tokens[:8], EMPTY), 1)(x, a, b)
    found = torch.stack([empty, nothing + (guided - nothing) / 3])
    text = "w = 0: as for an empty prompt; w = 3: three times as far from that as w = 1"
    check_close("guided", text, found, torch.stack([nothing, plain]), atol=1e-4)


def generate(cfg: Config, coder: nn.Module, model: nn.Module, tokens: Tensor, w: float) -> list:
    """From noise to a picture for each row of tokens (n, S): a list of pictures (n, 3, 24, 24)."""
    noise = torch.randn(len(tokens), LATENT, prompts.SIDE // PATCH, prompts.SIDE // PATCH)
    alpha_bar = theory.cosine_schedule(100).float()
    path = diffusion.ddim(noise, make_denoiser(model, tokens, w), alpha_bar, cfg.jumps)
    return [coder.to_pictures(latents).detach().clamp(-1, 1) for latents in path]


def show_pictures(cfg: Config, networks: tuple, real: Pictures, others: Pictures, new: Pictures):
    print(f"\n[4] {cfg.each} pictures for each of 30 prompts; 6 pairs were never trained on")
    coder, judge, model = networks
    asked = prompts.all_prompts(cfg.each)
    unseen = prompts.is_unseen(asked)
    plain = generate(cfg, coder, model, asked.tokens, w=1)[-1]
    path = generate(cfg, coder, model, asked.tokens, cfg.guidance)
    found = judge.shares("plain", plain, asked) | judge.shares("guided", path[-1], asked)
    found |= judge.shares("unseen", path[-1][unseen], asked.only(unseen))
    found |= judge.shares("shuffled", path[-1], asked.only(torch.randperm(len(asked))))
    right = judge.agrees(path[-1], asked)[2].reshape(cfg.each, prompts.PAIRS)
    found["covered"] = (right.double().mean(dim=0) >= 0.2).double().mean().item()

    sets = {"noise": path[0], "plain": plain, "guided": path[-1], "new": new.x[: len(asked)]}
    sets["copies"] = real.x[: len(asked)]
    rows = [part.only(~prompts.is_unseen(part)).x.flatten(start_dim=1) for part in (real, others)]
    for name, x in sets.items():
        distance = gan.frechet_distance(judge.features(x), judge.features(real.x))
        closer = vae.closer_to_training(x.flatten(start_dim=1), *rows)
        print(f"  {name:<8} distance {distance:7.2f}, nearest to a training picture {closer:.2f}")
        found |= {f"distance_{name}": distance, f"closer_{name}": closer}

    least, least_unseen = (0.8, 0.8) if cfg.preset == "long" else (0.5, 0.2)
    expect("colour", "colours as asked: {}", found["colour_guided"], at_least=0.9)
    expect("both", "shapes and colours: {}", found["both_guided"], at_least=least)
    expect("unseen", "of pairs never trained on: {}", found["both_unseen"], at_least=least_unseen)
    expect("chance", "of prompts shuffled: {}", found["both_shuffled"], at_most=0.1)
    expect("all", "{} of prompts succeed in a fifth", found["covered"], at_least=0.8)
    ratio = found["distance_guided"] / found["distance_noise"]
    expect("near", "{} as far from the data as decoded noise", ratio, at_most=0.5)
    expect("own", "nearest to a training picture: {}", found["closer_guided"], at_most=0.65)
    check("caught", "of planted copies: {}", found["closer_copies"], at_least=0.95)
    prompts.draw_prompts(cfg.out / "prompts", path)
    return found


def to_patches(pictures: Tensor) -> Tensor:
    """(n, 3, 4H, 4W) -> (n, H, W, 48)"""
    return F.pixel_unshuffle(pictures, PATCH).movedim(1, -1)


def answer(cfg: Config) -> None:
    """--prompt: eight pictures by the networks of an earlier run."""
    tokens = torch.tensor([prompts.encode(cfg.prompt)] * 8)
    coder = PatchAutoencoder(torch.randn(9, 3, 8, 8))  # of any pictures: all weights are replaced
    coder.load_state_dict(prompts.load_weights(cfg.out / "decoder.pt"))
    weights = prompts.load_weights(cfg.out / "unet.pt")
    model = TextUNet(width=len(weights["enter.weight"]))
    model.load_state_dict(weights)
    pictures = generate(cfg, coder, model, tokens, cfg.guidance)[-1]
    prompts.draw_rows(cfg.out / "prompt", {cfg.prompt: pictures})


def run(cfg: Config) -> dict[str, float] | None:
    if cfg.jumps > 100 or cfg.width % 8:
        raise LessonError("--jumps is at most 100, and --width a multiple of 8.")
    if cfg.prompt is not None:
        return answer(cfg)
    real, others, new = prompts.load_prompts(cfg, cfg.pictures, tests=60 if cfg.tiny else 600)
    coder, judge, found = show_latents(cfg, real, others, new)
    latents = coder.to_latents(real.x)
    show_attention(cfg)
    show_loss(cfg, latents, real.tokens)

    torch.manual_seed(cfg.seed)
    model = TextUNet(cfg.width)
    prompts.train(cfg, "unet", model, (latents, real.tokens), velocity_loss, cfg.epochs)
    return found | show_pictures(cfg, (coder, judge, model), real, others, new)


if __name__ == "__main__":
    main(run, Config, __doc__)
