"""8.8 Stable Diffusion in small: words become a picture
迷你 Stable Diffusion：文生图

You will be able to answer
    1. Why latents?         show_latents    sum, unit, sharper, judge, rebuilt, cheaper
    2. How do words enter?  show_attention  same, padding, order, bag
    3. How is it trained?   show_loss       known, denoised, dropped, overfits, moves, guided
    4. As asked, and new?   show_pictures   colour, both, unseen, chance, better, copies, caught
Predict   shape_plain: without guidance, what share has the shape asked for? Chance is 1 in 5.
Run       python phase08_generative/08-stable-diffusion-intro.py            about a minute
          … --preset long: 15 minutes, goes on with --resume; --prompt "a red circle" draws it
Needs     phase07_transformer/02-multi-head-attention, phase07_transformer/07-bert-architecture,
          phase08_generative/01-gan-basics, phase08_generative/02-dcgan,
          phase08_generative/04-autoencoder, phase08_generative/06-diffusion-theory,
          phase08_generative/07-diffusion-implementation
Reference nn.MultiheadAttention
Learns    overfits, moves
Notation  B batch  Z channels of a latent  H W its size  C channels  S tokens of a prompt  D width
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.checks import check, check_close, expect, overfits
from common.config import LessonConfig, main, param
from common.data import prompts
from common.data.prompts import EMPTY, LENGTH, PAD, Pictures, conv
from common.lessons import load_lesson

heads = load_lesson("phase07_transformer/02-multi-head-attention")
BERT = load_lesson("phase07_transformer/07-bert-architecture").BERT
gan = load_lesson("phase08_generative/01-gan-basics")
closer_to_training = load_lesson("phase08_generative/02-dcgan").closer_to_training
ae = load_lesson("phase08_generative/04-autoencoder")
theory = load_lesson("phase08_generative/06-diffusion-theory")
diffusion = load_lesson("phase08_generative/07-diffusion-implementation")

PATCH = 4  # pixels on each side that become one position of the latent
LATENT = 8  # channels Z
DIM = 64  # width D of a word vector


@dataclass
class Config(LessonConfig):
    threads = 1
    pictures: int = param(5000, "pictures to train with; as many for the judge", tiny=200, low=100)
    passes: int = param(2, "passes of judge and decoder over them", tiny=1, long=15)
    epochs: int = param(6, "passes of the U-Net", tiny=1, long=100)
    width: int = param(32, "channels of the U-Net", tiny=8, long=48, choices=(8, 16, 32, 48, 64))
    ddim_steps: int = param(20, "steps of the sampler", tiny=4, choices=(2, 4, 10, 20, 50, 100))
    guidance: float = param(3.0, "strength w of guidance; 1 is none", low=0)
    each: int = param(10, "pictures for each prompt", tiny=2, low=2)
    prompt: str | None = param(None, "draw this with the networks of an earlier run")


class PatchAutoencoder(nn.Module):
    """Encoder: PCA (8.4) of each patch. Decoder: PCA's, plus a network that corrects it."""

    def __init__(self, pictures: Tensor, width: int = 64):
        super().__init__()
        patches = to_patches(pictures).flatten(0, 2)  # (n, 48)
        self.pca = ae.pca_autoencoder(patches, LATENT).requires_grad_(False)
        self.register_buffer("sd", self.pca.encoder(patches).std(dim=0))
        layers = [conv(LATENT, width), nn.SiLU(), conv(width, width), nn.SiLU()]
        self.network = nn.Sequential(*layers, conv(width, patches.shape[1], bias=False))
        nn.init.zeros_(self.network[-1].weight)  # it starts as PCA

    def to_latents(self, x: Tensor) -> Tensor:
        """(B, 3, 4H, 4W) -> (B, Z, H, W)"""
        # practice: To the latents
        codes = self.pca.encoder(to_patches(x))  # (B, H, W, Z)

        # The schedules of 8.6 add noise of sd 1, so each channel is scaled to sd 1 as well.
        return (codes / self.sd).movedim(-1, 1)
        # end practice

    def to_pictures(self, latents: Tensor) -> Tensor:
        # practice: Back to pixels
        codes = latents.movedim(1, -1) * self.sd
        patches = self.pca.decoder(codes).movedim(-1, 1)  # (B, 48, H, W)

        # PCA decodes each patch by itself; the network sees the patches around it, too.
        patches = patches + self.network(latents)
        return F.pixel_shuffle(patches, PATCH)
        # end practice

    def forward(self, x: Tensor) -> Tensor:
        latents = self.to_latents(x)
        if self.training:
            # Sampled latents will be slightly off, so the decoder is trained with small errors.
            latents = latents + 0.1 * torch.randn_like(latents)
        return self.to_pictures(latents)


def show_latents(cfg: Config, real: Pictures, for_judge: Pictures, new: Pictures) -> tuple:
    print("\n[1] Latents: 24x24 pixels of 3 channels become 6x6 positions of 8")
    torch.manual_seed(cfg.seed)
    coder = PatchAutoencoder(new.x, width=8).eval()
    nn.init.normal_(coder.network[-1].weight)
    wanted = coder.pca(to_patches(new.x)).movedim(-1, 1) + coder.network(coder.to_latents(new.x))
    text = "decoded: PCA's patches plus the network's output"
    check_close("sum", text, coder(new.x), F.pixel_shuffle(wanted, PATCH))
    coder = PatchAutoencoder(real.x).eval()
    found = torch.cat(torch.std_mean(coder.to_latents(real.x), dim=(0, 2, 3)))  # (16,)
    check_close("unit", "each channel has sd 1 and mean 0", found, [1.0] * 8 + [0.0] * 8, atol=1e-4)

    by_pca = F.mse_loss(coder(new.x), new.x).item()
    prompts.train(cfg, "decoder", coder, (real.x, real.x), ae.reconstruction_loss, cfg.passes)
    ratio = F.mse_loss(coder(new.x), new.x).item() / by_pca
    expect("sharper", "with the network the squared error is {} of PCA's", ratio, at_most=0.8)
    judge = prompts.train_judge(cfg, for_judge, cfg.passes)
    found = judge.shares("real", new.x, new) | judge.shares("rebuilt", coder(new.x), new)
    expect("judge", "the judge is right on {} of new pictures", found["both_real"], at_least=0.98)
    expect("rebuilt", "and on {} after encoder and decoder", found["both_rebuilt"], at_least=0.95)

    cost = []  # multiplications and additions of one prediction
    for side in (24, 6):
        with FlopCounterMode(display=False) as counter:
            TextUNet(cfg.width)(torch.zeros(1, LATENT, side, side), torch.ones(1), new.tokens[:1])
        cost.append(counter.get_total_flops())
    check("cheaper", "24x24 positions cost {} times as much", cost[0] / cost[1], above=8, below=16)
    return coder, judge, found


class CrossAttentionBlock(nn.Module):
    """8.7's block, then 7.2's attention from positions to words. (B, C, H, W) -> the same shape"""

    def __init__(self, block: nn.Module):
        super().__init__()
        channels = block.conv2.out_channels
        self.block = block
        self.norm = nn.GroupNorm(8, channels)
        self.attention = heads.MultiHeadAttention(channels, n_heads=4)
        self.attention.key = nn.Linear(DIM, channels)  # word vectors have a width of their own
        self.attention.value = nn.Linear(DIM, channels)

    def forward(self, x: Tensor, context: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        # practice: Cross-attention
        shift, words, is_word = context
        x = self.block(x, shift)
        positions = self.norm(x).flatten(start_dim=2).mT  # (B, HW, C)
        attended = self.attention(positions, words, is_word)  # (B, HW, C)
        return x + attended.mT.unflatten(2, x.shape[2:])
        # end practice


class TextUNet(diffusion.UNet):
    """8.7's U-Net and its forward. Latents (B, Z, H, W), angles (B,), tokens (B, S) -> v."""

    def __init__(self, width: int):
        super().__init__(width)
        self.text = BERT(len(prompts.WORDS), LENGTH, DIM, n_layers=1, n_heads=4, dropout=0)
        self.enter = conv(LATENT, width)
        self.exit = conv(width, LATENT, bias=False)
        nn.init.zeros_(self.exit.weight)
        for name in ("fine", "coarse1", "coarse2", "merge"):
            setattr(self, name, CrossAttentionBlock(getattr(self, name)))  # around 8.7's blocks

    def context(self, angle: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each block gets: how much noise there is, the words, which of them are padding."""
        # practice: The context
        # 8.7's label is left out: what to draw comes from the words alone.
        shift = super().context(angle, torch.full_like(tokens[:, 0], diffusion.NO_LABEL))
        words, _ = self.text(tokens)  # (B, S, D)
        return shift, words, (tokens != PAD)[:, None, None]  # for all heads and positions
        # end practice


def show_attention(cfg: Config) -> None:
    print("\n[2] Cross-attention: queries from the latent, keys and values from the words")
    layer = CrossAttentionBlock(diffusion.Block(8, DIM, 5)).double()
    theirs = nn.MultiheadAttention(DIM, 4, batch_first=True).double()
    heads.load_torch(layer.attention, theirs)
    x = torch.randn(3, 8, 2, 4).double()
    shift = torch.ones(3, 5).double()
    words = torch.randn(3, LENGTH, DIM).double()
    is_word = torch.arange(LENGTH) < torch.tensor([[1], [3], [5]])
    found = layer(x, (shift, words, is_word[:, None, None]))
    y = layer.block(x, shift)
    query = layer.norm(y).flatten(start_dim=2).mT
    attended, _ = theirs(query, words, words, key_padding_mask=~is_word)
    y = y + attended.mT.reshape(y.shape)
    check_close("same", "8.7's block plus nn.MultiheadAttention with the same weights", found, y)

    model = TextUNet(8).double()
    nn.init.normal_(model.exit.weight)
    tokens = torch.tensor([prompts.encode("a red circle"), prompts.encode("circle red a")])
    x = torch.randn(1, LATENT, 4, 6).double().expand(2, -1, -1, -1)
    angle = torch.tensor([0.8, 0.8]).double()
    v = model(x, angle, tokens)
    check_close("padding", "prompts without padding: the same v", v, model(x, angle, tokens[:, :3]))
    moved = (v[0] - v[1]).abs().mean().item()
    check("order", "the words in another order: v differs by {}", moved, above=0.001)
    nn.init.zeros_(model.text.positions.table.weight)
    check_close("bag", "without position embeddings it does not", *model(x, angle, tokens))


def velocity_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """v-prediction: squared error of v = a ε - b x_0. batch: x_0 (B, Z, H, W), tokens (B, S)."""
    # practice: The loss
    x_0, tokens = batch
    alpha_bar = theory.cosine_schedule(100).float()
    t = torch.randint(1, len(alpha_bar), (len(x_0), 1, 1, 1))
    a, b = theory.amounts(t, alpha_bar)
    noise = torch.randn_like(x_0)
    x = theory.diffuse(x_0, t, alpha_bar, noise)

    # One prompt in ten becomes empty: guidance needs the prediction without a prompt, too.
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
        # It replaces all tokens by NO_LABEL, which is the number of EMPTY.
        v = diffusion.guided_noise(model, x, angle, tokens, w)

        # Unlike (x - b ε) / a, this does not magnify the error of the prediction.
        return a * x - b * v
        # end practice

    return denoise


def show_loss(cfg: Config, latents: Tensor, tokens: Tensor) -> None:
    print("\n[3] The network predicts v, with a prompt and without")
    alpha_bar = theory.cosine_schedule(100).float()
    x_0, noise = torch.randn(2, 7, LATENT, 4, 6)

    def knowing(x: Tensor, angle: Tensor, tokens: Tensor) -> Tensor:
        angle = angle[:, None, None, None]
        return (angle.cos() * x - x_0) / angle.sin()  # x_0 = a x - b v, solved for v

    loss = velocity_loss(knowing, (x_0, tokens[:7]))
    check_close("known", "a model that knows x_0 has the loss 0", loss, 0 * loss, atol=1e-6)
    a, b = theory.amounts(60, alpha_bar)
    found = make_denoiser(knowing, tokens[:7], 1)(a * x_0 + b * noise, a, b)
    check_close("denoised", "from its v the denoiser computes x_0", found, x_0, atol=1e-4)

    def counting(x: Tensor, angle: Tensor, tokens: Tensor) -> Tensor:
        return (tokens == EMPTY).sum(dim=1)[:, None, None, None].expand_as(x).float()

    batch = (torch.zeros(20_000, 1, 1, 1), torch.full((20_000, LENGTH), 3))
    loss = velocity_loss(counting, batch) - alpha_bar[1:].mean()  # x_0 is 0, so v is a ε
    text = "a model that outputs the number of EMPTY tokens: 0.1 · 5² = 2.5 more loss, here {}"
    check("dropped", text, loss, above=2.2, below=2.8)
    denoisers = [make_denoiser(counting, batch[1][:1], w) for w in (0, 1, 3)]
    zero, one = torch.tensor([0.0, 1.0])  # a and b of pure noise
    found = [denoise(batch[0][:1], zero, one).item() for denoise in denoisers]
    check_close("guided", "w = 0, 1, 3: x_0 = -v is -5, 0, 10", found, [-5.0, 0.0, 10.0])

    def again(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        torch.manual_seed(cfg.seed)  # the same steps and noise each time
        return velocity_loss(model, batch)

    model = TextUNet(8)
    batch = (latents[:8], tokens[:8])
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    overfits("overfits", "8 pictures by heart: loss {}", model, batch, again, adam, below=0.2)
    found = make_denoiser(model, tokens[:8], 1)(latents[:1].expand(8, -1, -1, -1), a, b)
    check("moves", "one latent, 8 prompts: x_0 has the sd {}", found.std(dim=0).mean(), above=0.01)


def generate(cfg: Config, coder: nn.Module, model: nn.Module, tokens: Tensor, w: float) -> list:
    """From noise to a picture for each row of tokens (n, S): a list of pictures (n, 3, 24, 24)."""
    noise = torch.randn(len(tokens), LATENT, prompts.SIDE // PATCH, prompts.SIDE // PATCH)
    alpha_bar = theory.cosine_schedule(100).float()
    path = diffusion.ddim(noise, make_denoiser(model, tokens, w), alpha_bar, cfg.ddim_steps)
    return [coder.to_pictures(latents).detach().clamp(-1, 1) for latents in path]


def show_pictures(cfg: Config, networks: tuple, real: Pictures, new: Pictures) -> dict:
    print(f"\n[4] {cfg.each} pictures for each of 30 prompts; 6 pairs were never trained on")
    coder, judge, model = networks
    asked = prompts.all_prompts(cfg.each)
    plain = generate(cfg, coder, model, asked.tokens, w=1)[-1]
    path = generate(cfg, coder, model, asked.tokens, cfg.guidance)
    found = judge.shares("plain", plain, asked) | judge.shares("guided", path[-1], asked)
    unseen = prompts.is_unseen(asked)
    found |= judge.shares("unseen", path[-1][unseen], asked.only(unseen))
    found |= judge.shares("shuffled", path[-1], asked.only(torch.randperm(len(asked))))
    sets = {"noise": path[0], "plain": plain, "guided": path[-1], "new": new.x[: len(asked)]}
    for name, x in sets.items():
        found[f"distance_{name}"] = gan.frechet_distance(judge.features(x), judge.features(real.x))
        print(f"  {name:<8} distance to the training pictures {found[f'distance_{name}']:.2f}")

    is_long = cfg.preset == "long"
    expect("colour", "guided: {} have the colour asked for", found["colour_guided"], at_least=0.9)
    expect("both", "{} have both", found["both_guided"], at_least=0.8 if is_long else 0.6)
    least = 0.8 if is_long else 0.5
    expect("unseen", "{} of pairs never trained on", found["both_unseen"], at_least=least)
    expect("chance", "only {} fit the prompt of another", found["both_shuffled"], at_most=0.1)
    gain = found["both_guided"] - found["both_plain"]
    expect("better", "guidance brings {} more than w = 1", gain, above=-0.05 if is_long else 0.0)
    seen, held_out = path[-1][~unseen], new.only(~prompts.is_unseen(new)).x
    found["closer"] = closer_to_training(seen, real.x, held_out)
    expect("copies", "nearer to training than to new: {}", found["closer"], at_most=0.75)
    planted = closer_to_training(real.x + 0.1 * torch.randn_like(real.x), real.x, held_out)
    check("caught", "of planted copies it is {}", planted, at_least=0.95)
    prompts.draw_prompts(cfg.out / "prompts", path, plain, real)
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
    path = generate(cfg, coder, model, tokens, cfg.guidance)
    prompts.draw_rows(cfg.out / "prompt", {cfg.prompt: path[-1]})


def run(cfg: Config) -> dict[str, float] | None:
    if cfg.prompt is not None:
        return answer(cfg)
    real, for_judge, new = prompts.load_prompts(cfg, cfg.pictures, tests=60 if cfg.tiny else 600)
    coder, judge, found = show_latents(cfg, real, for_judge, new)
    latents = coder.to_latents(real.x)
    show_attention(cfg)
    show_loss(cfg, latents, real.tokens)

    torch.manual_seed(cfg.seed)
    model = TextUNet(cfg.width)
    prompts.train(cfg, "unet", model, (latents, real.tokens), velocity_loss, cfg.epochs)
    return found | show_pictures(cfg, (coder, judge, model), real, new)


if __name__ == "__main__":
    main(run, Config, __doc__)
