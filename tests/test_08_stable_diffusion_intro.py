"""Lesson 8.8: what its claims cannot see in a short run, and the bad input that it refuses."""

import dataclasses

import pytest
import torch
from torch import nn

from common.config import execute
from common.data import prompts
from common.data.prompts import EMPTY, LENGTH, PAD
from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/08-stable-diffusion-intro")
diffusion = load_lesson("phase08_generative/07-diffusion-implementation")


def make_unet() -> nn.Module:
    torch.manual_seed(0)
    model = lesson.TextUNet(8).double()
    nn.init.normal_(model.exit.weight)
    return model


def tokens_of(*texts: str) -> torch.Tensor:
    return torch.tensor([prompts.encode(text) for text in texts])


def test_words_have_numbers_of_their_own():
    assert prompts.WORDS[PAD] == prompts.WORDS[EMPTY] == "" and EMPTY == diffusion.NO_LABEL
    words = [word for word in prompts.WORDS if word]
    assert len(words) == len(set(words)) == 12
    assert prompts.encode("A Red  star")[3:] == [PAD] * (LENGTH - 3)
    numbers = [prompts.encode(word)[0] for word in words]
    assert not {PAD, EMPTY} & set(numbers) and len(set(numbers)) == 12


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a red red red red star", "6 words"),
        ("a pink star", "pink"),
    ],
)
def test_a_prompt_that_cannot_be_drawn_is_refused(prompt, message):
    with pytest.raises(LessonError, match=message):
        prompts.encode(prompt)


def test_six_pairs_are_kept_out_one_of_each_colour_and_every_shape_once_at_least():
    asked = prompts.all_prompts(2)
    unseen = asked.only(prompts.is_unseen(asked))
    assert len(asked) == 60 and len(unseen) == 12
    assert unseen.colours[:6].unique().tolist() == list(range(6))
    assert unseen.kinds.unique().tolist() == list(range(5))
    assert torch.equal(asked.tokens[0], tokens_of("a red circle")[0])
    assert torch.equal(asked.tokens[29], tokens_of("a purple ring")[0])


def test_training_pictures_and_their_captions(tmp_path):
    cfg = lesson.Config(out=tmp_path)
    real, others, new = prompts.load_prompts(cfg, 100, 60)
    assert not prompts.is_unseen(real).any() and prompts.is_unseen(others).any()
    assert real.x.shape[1:] == (3, 24, 24) and real.x.min() >= -1 and real.x.max() <= 1
    texts = [prompts.prompt_of(k, c) for k, c in zip(new.kinds.tolist(), new.colours.tolist())]
    assert torch.equal(new.tokens, tokens_of(*texts))
    assert not torch.equal(others.x[:60], new.x)


def test_latents_go_back_to_pictures_if_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(lesson, "LATENT", 48)
    x = torch.rand(40, 3, 8, 12) * 2 - 1
    coder = lesson.PatchAutoencoder(x).eval()
    torch.testing.assert_close(coder(x), x, atol=1e-4, rtol=0)
    assert coder.to_latents(x).shape == (40, 48, 2, 3)
    assert not any(weight.requires_grad for weight in coder.pca.parameters())


def test_only_in_training_noise_is_added_to_latents():
    torch.manual_seed(0)
    x = torch.rand(40, 3, 8, 8) * 2 - 1
    coder = lesson.PatchAutoencoder(x)
    moved = coder.to_latents(coder(x)) - coder.eval().to_latents(coder(x))
    assert 0.05 < moved.std() < 0.15
    assert torch.equal(coder(x), coder(x))


def test_without_answers_it_is_the_unet_of_the_lesson_before():
    model = make_unet()
    plain = diffusion.UNet(8).double()
    for name, part in list(model.named_children()):
        if isinstance(part, lesson.CrossAttentionBlock):
            nn.init.zeros_(part.attention.out.weight)
            nn.init.zeros_(part.attention.out.bias)
        setattr(plain, name, getattr(part, "block", part))
    x = torch.randn(3, lesson.LATENT, 4, 6).double()
    angle = torch.tensor([0.2, 0.8, 1.4]).double()
    wanted = plain(x, angle, torch.full((3,), diffusion.NO_LABEL))
    torch.testing.assert_close(model(x, angle, prompts.all_prompts(1).tokens[:3]), wanted)


def test_untrained_it_says_0_and_its_size():
    model = lesson.TextUNet(48)
    x = torch.randn(2, lesson.LATENT, 6, 6)
    assert not model(x, torch.ones(2), tokens_of("a red star", "ring")).any()
    assert sum(weight.numel() for weight in model.parameters()) == 654_320


def test_each_latent_has_a_step_of_its_own_and_none_is_0():
    angles = []

    def model(x, angle, tokens):
        angles.append(angle)
        return x

    tokens = tokens_of("a red star").expand(3000, -1)
    lesson.velocity_loss(model, (torch.randn(3000, 1, 1, 1), tokens))
    alpha_bar = lesson.theory.cosine_schedule(100).float()
    wanted = torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())[1:].double().round(decimals=5)
    torch.testing.assert_close(angles[0].double().round(decimals=5).unique(), wanted)


def test_a_path_of_pictures_for_each_prompt():
    torch.manual_seed(0)
    cfg = dataclasses.replace(lesson.Config(), ddim_steps=3)
    coder = lesson.PatchAutoencoder(torch.rand(50, 3, 24, 24))
    model = lesson.TextUNet(8)
    path = lesson.generate(cfg, coder, model, tokens_of("a red star", "ring"), w=2)
    assert [tuple(pictures.shape) for pictures in path] == [(2, 3, 24, 24)] * 4
    assert path[0].abs().max() <= 1 and not torch.equal(path[0][0], path[0][1])
    assert not path[-1].requires_grad


def test_prompts_of_a_batch_do_not_meet():
    model = make_unet()
    x = torch.randn(3, lesson.LATENT, 4, 6).double()
    angle = torch.tensor([0.2, 0.8, 1.4]).double()
    tokens = tokens_of("a red star", "ring", "a blue square")
    one = model(x[1:2], angle[1:2], tokens[1:2])
    torch.testing.assert_close(model(x, angle, tokens)[1:2], one)


def test_v_is_the_derivative_by_the_angle_and_turns_back():
    """The derivation, the example and the first exercise."""
    x_0, noise = torch.randn(2, 50).double()
    angle = torch.rand(50).double().requires_grad_()
    x = angle.cos() * x_0 + angle.sin() * noise
    (v,) = torch.autograd.grad(x.sum(), angle)
    a, b = angle.detach().cos(), angle.detach().sin()
    torch.testing.assert_close(v, a * noise - b * x_0)
    torch.testing.assert_close(a * x.detach() - b * v, x_0)
    torch.testing.assert_close(b * x.detach() + a * v, noise)
    assert pytest.approx(1) == 0.8 * 2 - 0.6 * 1
    assert pytest.approx((0.2, 1.1)) == (0.6 - 0.8 * 0.5, 0.8 + 0.6 * 0.5)
    assert 512 * 512 * 3 / (64 * 64 * 4) == 48


def test_a_mask_without_its_two_axes_fails():
    """The note's failure."""
    model = make_unet()
    context = model.context

    def flat(angle, tokens):
        shift, words, is_word = context(angle, tokens)
        return shift, words, is_word[:, 0, 0]

    model.context = flat
    x = torch.randn(2, lesson.LATENT, 4, 6).double()
    with pytest.raises(RuntimeError, match=r"size of tensor a \(2\) must match the size .* \(24\)"):
        model(x, torch.ones(2).double(), tokens_of("a red star", "ring"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--prompt", ""], "prompt is empty"),
        (["--prompt", "a red circle"], "Train first"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(flags, message, tmp_path, capsys):
    flags = ["--tiny", "--out", str(tmp_path), *flags]
    assert execute(lesson.run, lesson.Config, lesson.__doc__, flags) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["--guidance -1", "--ddim-steps 101", "--width 12"])
def test_settings_out_of_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        execute(lesson.run, lesson.Config, lesson.__doc__, flags.split())
    assert flags.split()[0] in capsys.readouterr().err


def test_saved_networks_draw_a_prompt(tmp_path):
    cfg = dataclasses.replace(lesson.Config(), out=tmp_path, width=8, ddim_steps=2)
    torch.manual_seed(0)
    coder = lesson.PatchAutoencoder(torch.rand(50, 3, 24, 24))
    batch = (torch.rand(64, 3, 24, 24), torch.rand(64, 3, 24, 24))
    loss_fn = lesson.ae.reconstruction_loss
    prompts.train(cfg, "decoder", coder, batch, loss_fn, epochs=1)
    latents = coder.to_latents(batch[0])
    tokens = tokens_of("a red star").expand(64, -1)
    model = prompts.train(
        cfg, "unet", lesson.TextUNet(8), (latents, tokens), lesson.velocity_loss, epochs=1
    )
    saved = prompts.load_weights(tmp_path / "unet.pt")
    assert all(torch.equal(saved[name], weight) for name, weight in model.state_dict().items())
    lesson.answer(dataclasses.replace(cfg, prompt="a red circle"))
    assert (tmp_path / "prompt.png").stat().st_size > 1000


def test_a_prompt_of_one_token_is_read():
    model = lesson.TextUNet(8)
    nn.init.normal_(model.exit.weight)
    x = torch.randn(2, lesson.LATENT, 4, 4)
    v = model(x, torch.tensor([0.3, 0.9]), torch.tensor([[3], [4]]))
    assert v.shape == x.shape


def test_the_denoiser_gives_the_model_angles_of_the_latents_type():
    seen = []

    def model(x, angle, tokens):
        seen.append((angle.dtype, angle.shape))
        return x

    denoise = lesson.make_denoiser(model, torch.full((3, lesson.LENGTH), 3), 1)
    a, b = torch.tensor([0.6, 0.8], dtype=torch.float64)
    denoise(torch.zeros(3, 1, 1, 1), a, b)
    assert seen == [(torch.float32, (3,))]
