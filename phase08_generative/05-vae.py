"""8.5 The VAE: an autoencoder that can dream
VAE：能生成新样本的自编码器

You will be able to answer
    1. What does a VAE maximise?          show_loss         by-hand, loss, overfits, depends
    2. How do gradients pass a sample?    show_gradient     unbiased, spread, lower
    3. How far is the ELBO from ln p(x)?  show_bound        exact, gap, bound, better, labels
    4. What does it make? What is β?      show_generation   covers, far, copies, caught, beta, blur
    5. How do you ask for a digit?        show_conditional  asked, ahead
Predict   asked: we ask for 36 of each digit. What share is read by a classifier as that digit?
Run       python phase08_generative/05-vae.py                              about 30 s
Needs     phase08_generative/01-gan-basics, phase08_generative/02-dcgan,
          phase08_generative/04-autoencoder
Reference torch.distributions.Normal, torch.distributions.kl_divergence
Notation  B batch  P pixels  Z dimensions of z  C of the condition  S samples of z
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.optim.lr_scheduler import LinearLR

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.gaussians import gaussian_by_class, gaussian_like, gaussian_of
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import new_figure, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

gan = load_lesson("phase08_generative/01-gan-basics")
closer_to_training = load_lesson("phase08_generative/02-dcgan").closer_to_training
autoencoders = load_lesson("phase08_generative/04-autoencoder")

LATENT = 8
SHAPE = (-1, 1, 8, 8)
BETAS = (0.2, 1, 5)
SD = 0.4  # standard deviation of a pixel around the decoder's output


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    epochs: int = param(60, "passes over the pictures", tiny=1)
    judge_epochs: int = param(20, "passes of the judge", tiny=1)


def log_normal(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """ln of the density of N(mean, diag exp(log_var)) at x, summed over the last dimension."""
    # practice: The log density
    squares = (x - mean).square() / log_var.exp()
    each = -(squares + log_var + math.log(2 * math.pi)) / 2
    return each.sum(dim=-1)
    # end practice


def kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_var)) || N(0, I)), summed over the last dimension."""
    # practice: The KL divergence
    each = (mean.square() + log_var.exp() - 1 - log_var) / 2
    return each.sum(dim=-1)
    # end practice


def sample_latent(mean: Tensor, log_var: Tensor) -> Tensor:
    """A sample of N(mean, diag exp(log_var)) through which gradients pass."""
    # practice: The reparameterisation
    # The randomness comes from outside; mean and standard deviation only shift and scale it.
    noise = torch.randn_like(mean)
    return mean + (log_var / 2).exp() * noise
    # end practice


class VAE(nn.Module):
    """z ~ N(0, I), x ~ N(decoder(z), SD²); encoder: q(z | x). A condition x[:, :0] is none."""

    def __init__(self, pixels: int, latent: int = LATENT, conditions: int = 0):
        super().__init__()
        self.encoder = gan.mlp(pixels + conditions, 2 * latent, width=256)
        self.decoder = gan.mlp(latent + conditions, pixels, width=256)
        self.register_buffer("log_var", torch.tensor(2 * math.log(SD)))

    def encode(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P), (B, C) -> mean and log_var, both (B, Z)"""
        return self.encoder(torch.cat([x, condition], dim=1)).chunk(2, dim=1)

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """(…, B, Z), (B, C) -> (…, B, P)"""
        condition = condition.expand(*z.shape[:-1], -1)
        return self.decoder(torch.cat([z, condition], dim=-1))


def vae_loss(model: VAE, batch: tuple[Tensor, Tensor], beta: float = 1.0) -> Tensor:
    """-ELBO, mean over the batch, with `beta` times the KL. batch: pictures, conditions"""
    # practice: The loss
    x, condition = batch
    mean, log_var = model.encode(x, condition)

    # One sample for each picture is enough: the next epoch draws another.
    z = sample_latent(mean, log_var)
    log_likelihood = log_normal(x, model.decode(z, condition), model.log_var)
    return (beta * kl_to_standard(mean, log_var) - log_likelihood).mean()
    # end practice


def show_loss(cfg: Config, x: Tensor) -> None:
    print("\n[1] The loss: -ln p(x | z), plus how far q(z | x) is from N(0, I)")
    one = torch.ones(1).double()
    found = [log_normal(one, 0 * one, 0 * one), kl_to_standard(one, one * math.log(4))]
    text = "ln N(1; 0, 1) = -1.4189, and N(1, 2²) is 1.3069 nats from N(0, 1)"
    check_close("by-hand", text, found, [-1.4189, 1.3069], atol=5e-5)

    model = VAE(x.shape[1], conditions=2)
    batch = (x[:16], torch.randn(16, 2))
    torch.manual_seed(cfg.seed)
    loss = vae_loss(model, batch, beta=3.0)
    torch.manual_seed(cfg.seed)
    mean, log_var = model.encode(*batch)
    q = Normal(mean, (log_var / 2).exp())
    log_likelihood = Normal(model.decode(q.rsample(), batch[1]), SD).log_prob(x[:16])
    wanted = 3 * kl_divergence(q, Normal(0.0, 1.0)).sum() - log_likelihood.sum()
    check_close("loss", "with β = 3: as torch.distributions computes it", loss, wanted / 16)

    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "16 digits, without the KL: the loss falls to {}; every pixel exact would give 0.17"
    overfits("overfits", text, model, batch, partial(vae_loss, beta=0), adam, steps=120, below=0.5)
    rebuilt = model.decode(model.encode(*batch)[0], batch[1])
    nearest = torch.cdist(rebuilt, x[:16]).argmin(dim=1)
    depends_on_input("depends", "each is nearest to its original: {}", nearest, torch.arange(16))


def score_function(f, mean: Tensor, log_var: Tensor) -> Tensor:
    """A scalar. Its gradient estimates that of the mean of f, (S, Z) -> (S,), and needs no f'."""
    # practice: The score-function estimator
    z = sample_latent(mean, log_var).detach()  # a number: no gradient passes
    log_q = log_normal(z, mean, log_var)
    return (f(z) * log_q).mean()
    # end practice


def gradients_of(f, mean: Tensor, log_var: Tensor) -> list[Tensor]:
    """The gradient by the mean, estimated in both ways from each of S samples. Two of (S, Z)"""
    mean = mean.detach().clone().requires_grad_()  # a row for each sample: a gradient for each
    estimates = (f(sample_latent(mean, log_var)).mean(), score_function(f, mean, log_var))
    return [len(mean) * torch.autograd.grad(each, mean)[0] for each in estimates]


def show_gradient(cfg: Config, x: Tensor) -> float:
    print("\n[2] Two estimates of a gradient, sample by sample")
    q = (torch.ones(200_000, 1), torch.zeros(200_000, 1))
    gradients = torch.cat(gradients_of(lambda z: z.square().sum(dim=1), *q), dim=1)  # (S, 2)
    off = (gradients.mean(dim=0) - 2) / (gradients.std(dim=0) / 200_000**0.5)
    text = "z² under N(1, 1) has the gradient 2; both estimates are off by {} standard errors"
    check("unbiased", text, off.abs().max(), at_most=4)
    off = gradients.var(dim=0) / torch.tensor([4, 30]) - 1
    check("spread", "the variances are 4 and 30, up to a share of {}", off.abs().max(), at_most=0.1)

    model = VAE(x.shape[1])
    mean, log_var = (each.expand(1000, -1) for each in model.encode(x[:1], x[:1, :0]))
    pair = gradients_of(
        lambda z: log_normal(x[0], model.decode(z, x[:1, :0]), model.log_var), mean, log_var
    )
    ratio = (pair[1].var(dim=0).sum() / pair[0].var(dim=0).sum()).item()
    check("lower", "for a digit, the score function: {} times the variance", ratio, at_least=1000)
    return ratio


def log_weights(model: VAE, x: Tensor, condition: Tensor, samples: int) -> Tensor:
    """ln p(x, z) - ln q(z | x) for S samples z from q(z | x). (B, P), (B, C) -> (S, B)"""
    # practice: The log weights
    mean, log_var = model.encode(x, condition)
    mean = mean.expand(samples, *mean.shape)  # (S, B, Z)
    log_var = log_var.expand_as(mean)
    z = sample_latent(mean, log_var)

    zeros = torch.zeros_like(z)
    log_prior = log_normal(z, zeros, zeros)
    log_likelihood = log_normal(x, model.decode(z, condition), model.log_var)
    return log_prior + log_likelihood - log_normal(z, mean, log_var)
    # end practice


def importance_bound(log_w: Tensor) -> Tensor:
    """ln of the mean weight of each picture; the ELBO is the mean of the logs. (S, B) -> (B,)"""
    return log_w.logsumexp(dim=0) - math.log(len(log_w))


@torch.no_grad()
def show_bound(model: VAE, x: Tensor, labels: Tensor, new: Tensor) -> dict[str, float]:
    print("\n[3] ELBO and importance-weighted bound, below ln p(x)")
    line = VAE(1, latent=1).double()
    line.log_var.zero_()
    line.decoder = nn.Identity()  # x = z + noise, so that p(x) is N(0, 2)
    line.encoder = nn.Linear(1, 2).double()
    weights = torch.tensor([0.5, 0, 0, math.log(0.5)]).double()  # mean x / 2, variance 1 / 2
    nn.utils.vector_to_parameters(weights, line.encoder.parameters())
    one = torch.ones(1, 1).double()
    log_w = log_weights(line, one, one[:, :0], samples=1000)
    text = "x = z + noise, q the true posterior N(1/2, 1/2): each log weight is ln p(1) = -1.5155"
    check_close("exact", text, log_w, torch.full((1000, 1), -1.5155), atol=5e-5)

    nn.utils.vector_to_parameters(0 * weights, line.encoder.parameters())
    log_w = log_weights(line, one, one[:, :0], samples=100_000)
    found = [log_w.mean(), importance_bound(log_w)[0]]
    text = "q = N(0, 1): the ELBO is -1.9189, the bound of 100,000 samples -1.5155, up to {}"
    check_close("gap", text, found, [-1.9189, -1.5155], rtol=0, atol=0.0155)  # 4 s.e.

    log_w = log_weights(model, new, new[:, :0], samples=50).double()
    elbo = log_w.mean(dim=0)
    bound = importance_bound(log_w)
    text = f"{len(new)} new digits, 50 samples each: the bound is {{}} nats higher or more"
    check("bound", text, (bound - elbo).min(), at_least=0)
    gaussian = gaussian_of(x, SD**2).log_prob(new).mean().item()
    text = "the ELBO is {} nats above ln p under a Gaussian of the pixels"
    expect("better", text, elbo.mean() - gaussian, at_least=3)
    parts = [gaussian_of(x[labels == digit], SD**2).log_prob(new) for digit in range(10)]
    shares = labels.bincount() / len(labels)  # of each digit
    classes = (torch.stack(parts, dim=1) + shares.log()).logsumexp(dim=1).mean().item()
    expect("labels", "ten Gaussians, one a digit: {} nats more", classes - elbo.mean(), above=0)
    found = {"elbo": elbo.mean().item(), "bound": bound.mean().item()}
    return found | {"ln_gaussian": gaussian, "ln_by_class": classes}


def score(name: str, judge, rows: Tensor, x: Tensor, new: Tensor) -> tuple[dict, Tensor]:
    """Distance to x, digits found, share nearer to x than to new; and how each row is read."""
    features = (gan.features(judge, each.reshape(SHAPE)) for each in (rows, x))
    named = judge(gan.for_judge(rows.reshape(SHAPE))).argmax(dim=1)
    shares = named.bincount(minlength=10) / (len(rows) / 10)  # 1 would be fair
    found = {name: gan.frechet_distance(*features)}
    found[f"{name}_classes"] = (shares >= 1 / 4).sum().item()
    found[f"{name}_closer"] = closer_to_training(rows, x, new)
    print(f"  {name:<13}" + "".join(f"{number:8.2f}" for number in found.values()))
    return found, named


@torch.no_grad()
def show_generation(cfg: Config, judge, models: dict, x: Tensor, new: Tensor) -> tuple:
    print("\n[4] Distance to training digits; digits found; share nearer to training than to new")
    n = len(new)
    coder = models["autoencoder"]
    sets = {"new": new, "copies": x[torch.randint(len(x), (n,))] + 0.1 * torch.randn(new.shape)}
    sets |= {"gaussian": gaussian_like(x, n), "random_codes": coder.decoder(torch.randn(n, LATENT))}
    sets["fitted_codes"] = coder.decoder(gaussian_like(coder.encoder(x), n))
    found = {}
    for beta in BETAS:
        # The decoder's output is the mean of p(x | z), shown without the noise of the pixels.
        sets[f"vae_{beta}"] = models[beta].decode(torch.randn(n, LATENT), new[:, :0])
        mean, log_var = models[beta].encode(new, new[:, :0])
        difference = models[beta].decode(mean, new[:, :0]) - new
        found[f"kl_{beta}"] = kl_to_standard(mean, log_var).mean().item()
        found[f"error_{beta}"] = difference.square().sum(dim=1).mean().item()

    for name, rows in sets.items():
        found |= score(name, judge, rows, x, new)[0]
    expect("covers", "VAE: {} digits have 1/4 of a fair share", found["vae_1_classes"], at_least=9)
    ratio = found["vae_1"] / found["random_codes"]
    expect("far", "its distance is {} of the plain autoencoder's", ratio, at_most=0.7)
    expect("copies", "the VAE's share nearer to training: {}", found["vae_1_closer"], at_most=0.65)
    check("caught", "the share of planted copies: {}", found["copies_closer"], at_least=0.95)
    kl, error = (found[f"{kind}_5"] / found[f"{kind}_0.2"] for kind in ("kl", "error"))
    expect("beta", "with β = 5 the KL is {} of that with β = 0.2", kl, at_most=0.5)
    expect("blur", "and the error of rebuilt new digits {} times as large", error, at_least=1.5)
    return found, sets


@torch.no_grad()
def show_conditional(judge, model: VAE, train: tuple, new: Tensor, plain: float) -> dict:
    print("\n[5] Encoder and decoder are told the digit; then we ask for one")
    pictures, labels = train
    x = pictures.flatten(start_dim=1)
    asked = torch.arange(len(new)) % 10
    rows = model.decode(torch.randn(len(new), LATENT), torch.eye(10)[asked])
    found, named = score("conditional", judge, rows, x, new)
    right = (named == asked).double().mean().item()
    expect("asked", "the judge reads the digit asked for in a share of {}", right, at_least=0.9)
    share = found["conditional"] / plain
    expect("ahead", "its distance is {} of that of the VAE without labels", share, at_most=0.5)

    # The baseline with the same labels and no network.
    rows = gaussian_by_class(x, labels, len(new))
    by_class, _ = score("by_class", judge, rows, x, new)
    return found | by_class | {"asked": right}


# Pictures and helpers: skip on a first reading


def train_model(cfg: Config, model: nn.Module, loss_fn, x: Tensor, condition: Tensor) -> nn.Module:
    batches = Batches(x, condition, batch_size=64, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    falling = LinearLR(adam, 1, 0, total_iters=cfg.epochs * len(batches))
    fit(model, batches, adam, loss_fn, epochs=cfg.epochs, scheduler=falling, quiet=True)
    return model


def draw_rows(cfg: Config, rows: dict[str, Tensor], name: str) -> None:
    figure, axes = new_figure(len(rows), 1, size=(10, 1.25 * len(rows)))
    ten = [each[:10].clamp(-1, 1).reshape(10, *SHAPE[2:]) for each in rows.values()]
    strips = [nn.functional.pad(each, (1, 1), value=-1).movedim(0, 1).flatten(1) for each in ten]
    plot_images(axes, strips, list(rows))
    save_figure(figure, cfg.out / name)


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, split_seed=cfg.seed)
    train = to_tensors(data.x_train, data.y_train, data.brightest)
    test = to_tensors(*data.test(), data.brightest)
    x, new = (pictures.flatten(start_dim=1) for pictures in (train[0], test[0]))
    judge, accuracy = gan.train_judge(train, test, cfg.judge_epochs, cfg.seed)

    show_loss(cfg, x)
    ratio = show_gradient(cfg, x)

    models = {}
    for beta in BETAS:
        models[beta] = train_model(cfg, VAE(x.shape[1]), partial(vae_loss, beta=beta), x, x[:, :0])
    model = autoencoders.deep_autoencoder(x.shape[1], LATENT, width=256)
    models["autoencoder"] = train_model(cfg, model, autoencoders.reconstruction_loss, x, x)

    metrics = show_bound(models[1], x, train[1], new)
    found, sets = show_generation(cfg, judge, models, x, new)
    names = ["real test digits", "training digits with noise", "Gaussian of the pixels"]
    names += ["autoencoder, random codes from N(0, I)", "autoencoder, codes from a fitted Gaussian"]
    names += [f"VAE, β = {beta}" for beta in BETAS]
    titles = [f"{name}: distance {found[key]:.1f}" for name, key in zip(names, sets)]
    draw_rows(cfg, dict(zip(titles, sets.values())), "generated")

    labels = torch.eye(10)[train[1]]
    model = train_model(cfg, VAE(x.shape[1], conditions=10), vae_loss, x, labels)
    found |= show_conditional(judge, model, train, new, found["vae_1"])

    z = torch.randn(5, 1, LATENT).expand(-1, 10, -1)  # each z with ten conditions
    pictures = model.decode(z, torch.eye(10)).detach()
    titles = [f"random z number {row}, asked for 0, 1, 2, …, 9" for row in range(1, 6)]
    draw_rows(cfg, dict(zip(titles, pictures)), "asked")
    return {**metrics, **found, "variance_ratio": ratio, "judge": accuracy}


if __name__ == "__main__":
    main(run, Config, __doc__)
