"""6.10 Speech recognition: from sound waves to text with CTC
语音识别：用 CTC 把声波变成文字

You will be able to answer
    1. What does a network see of a sound?       show_mel       tones
    2. How do you learn words without times?     show_ctc       paths, same-gradient
    3. How do you read words off probabilities?  show_decoding  misled, exhaustive
    4. Which words does it hear, and who spoke?  show_net       heart, hears, words, voices
    5. Can a net learn from sound without text?  show_contrast  contrast
Predict   error: what share of the words in new synthesised recordings does the net get wrong?
Run       python phase06_rnn/10-speech-recognition.py              about half a minute
Needs     -
Reference F.ctc_loss
Notation  B batch  T frames or steps  S words of an utterance  V words and the blank
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.speech import RATE, SpeechSet, cut_pieces, load_speech, pad_utterances, word_error
from common.figures import new_figure, save_figure
from common.training import fit

WINDOW, HOP, MELS = 256, 80, 32  # 32 ms of sound, every 10 ms, in 32 bands
BLANK = 0  # the class that names no word
LOG_ZERO = -1e30  # stands for log 0: the gradients of a real -inf are no numbers
STRIDE = 4  # the net answers at every fourth frame: every 40 ms
AHEAD = 6  # frames, 60 ms: no sound of a guessed frame was heard


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("tones", "data set", choices=("tones", "fsdd"))
    steps: int = param(200, "training steps, in whole passes over the data", tiny=4)
    wav: Path | None = param(None, "a recording of your own to hear: mono, 16 bits, 8,000 Hz")


def mel_filters() -> Tensor:
    """(129, MELS): triangles with edges evenly spaced in mel, 2595 · log10(1 + hertz / 700)."""
    # practice: The mel filters
    highest = 2595 * torch.log10(torch.tensor(1 + RATE / 2 / 700))
    edges = torch.linspace(0, 1, MELS + 2) * highest
    edges = 700 * (10 ** (edges / 2595) - 1)  # back in hertz

    # Triangle m rises from edge m to 1 at edge m + 1, and falls to 0 at edge m + 2.
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)
    # end practice


def log_mel(audio: Tensor) -> Tensor:
    """(samples,) -> (T, MELS): energy by frame and band, as a log: the ear compares by ratios."""
    frames = audio.unfold(0, WINDOW, HOP)  # (T, 256)

    # Cut off sharply, a frame would seem to hold frequencies that the sound does not have.
    frames = frames * torch.hann_window(WINDOW)
    power = torch.fft.rfft(frames).abs().square()  # (T, 129): 0 to 4,000 Hz
    mels = torch.log(power @ mel_filters() + 1e-4)
    # A loud and a quiet recording of one word are to look alike.
    return (mels - mels.mean()) / mels.std()


def show_mel(cfg: Config) -> None:
    print("\n[1] What a net is given: the energy in bands that the ear tells apart")
    seconds = torch.arange(RATE // 4) / RATE
    loudest = []
    for hertz in (200, 300, 3200, 3300):
        tone = torch.sin(2 * math.pi * hertz * seconds)
        loudest.append(log_mel(tone).mean(dim=0).argmax().item())
    text = f"tones of 200, 300, 3,200 and 3,300 Hz are loudest in the bands {loudest}"
    check_close("tones", text, loudest, [3, 5, 29, 29])


def collapse(path: Sequence[int]) -> tuple[int, ...]:
    """What a path says: merge what repeats, then drop the blanks. 1 1 0 1 2 2 -> 1 1 2."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK)


def ctc_loss(log_probs: Tensor, steps: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """-log of the probability of all paths that collapse to the target (Graves et al. 2006).

    log_probs: (B, T, V), of which steps (B,) count; targets: (B, S), of which lengths (B,) count.
    A path visits `states` (B, 2S + 1) in order, _ a _ b _, with the log probabilities `emitted`
    (B, T, 2S + 1). Into those where `may_skip` (B, 2S + 1) it may come from two states earlier.
    """
    samples, longest, _ = log_probs.shape
    # practice: The states of CTC
    states = torch.full((samples, 2 * targets.size(1) + 1), BLANK)
    states[:, 1::2] = targets
    emitted = log_probs.gather(2, states[:, None].expand(-1, longest, -1))  # (B, T, 2S + 1)

    # Between two equal words the blank has to stay: without it they would merge.
    may_skip = torch.zeros_like(states, dtype=torch.bool)
    may_skip[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    # end practice

    # practice: The CTC forward algorithm
    # alpha[b, s]: log probability of all beginnings that are in state s now
    alpha = torch.full_like(emitted[:, 0], LOG_ZERO)
    alpha[:, :2] = emitted[:, 0, :2]
    for t in range(1, longest):
        from_last = F.pad(alpha[:, :-1], (1, 0), value=LOG_ZERO)
        over_blank = F.pad(alpha[:, :-2], (2, 0), value=LOG_ZERO)
        over_blank = over_blank.masked_fill(~may_skip, LOG_ZERO)
        arrived = torch.stack([alpha, from_last, over_blank]).logsumexp(dim=0) + emitted[:, t]

        # A shorter utterance has ended, and keeps what it had.
        alpha = torch.where((t < steps)[:, None], arrived, alpha)

    last = torch.stack([2 * lengths - 1, 2 * lengths], dim=1)  # the last word, or a blank after it
    return -alpha.gather(1, last).logsumexp(dim=1)
    # end practice


def show_ctc(cfg: Config) -> None:
    print("\n[2] CTC: add up all ways to stretch the words over the steps")
    probs = torch.randn(5, 3, dtype=torch.float64).softmax(dim=1)
    paths = [path for path in itertools.product(range(3), repeat=5) if collapse(path) == (1, 1)]
    by_hand = sum(probs[range(5), path].prod().item() for path in paths)
    text = f"of 243 paths of five steps, {len(paths)} say 1 1 (a blank between): CTC is their sum"
    check_close("paths", text, ctc_probability(probs, (1, 1)), by_hand)

    scores = torch.randn(4, 12, 6, dtype=torch.float64, requires_grad=True)
    log_probs = scores.log_softmax(dim=2)
    steps = torch.tensor([12, 9, 3, 7])
    targets = torch.tensor([[1, 2, 1], [2, 3, 0], [4, 0, 0], [5, 5, 5]])
    lengths = torch.tensor([3, 2, 1, 3])
    ours = ctc_loss(log_probs, steps, targets, lengths)
    theirs = F.ctc_loss(log_probs.transpose(0, 1), targets, steps, lengths, reduction="none")

    ours = torch.autograd.grad(ours.sum(), scores, retain_graph=True)[0]
    theirs = torch.autograd.grad(theirs.sum(), scores)[0]
    text = "the gradient, of four utterances of different lengths, is torch's"
    check_close("same-gradient", text, ours, theirs)


def greedy(probs: Tensor) -> tuple[int, ...]:
    """What the most probable path says. probs: (T, V)."""
    return collapse(probs.argmax(dim=1).tolist())


def beam_search(probs: Tensor, width: int) -> dict[tuple[int, ...], float]:
    """The most probable sentences, best first, with their probabilities. probs: (T, V)."""
    # practice: Prefix beam search
    # All paths that say the same are one prefix: those that end in a blank, and those in a word.
    beams = {(): (1.0, 0.0)}
    for frame in probs.tolist():
        in_blank = defaultdict(float)
        in_word = defaultdict(float)
        for prefix, (blank, word) in beams.items():
            in_blank[prefix] += (blank + word) * frame[BLANK]
            for symbol in range(1, len(frame)):
                longer = (*prefix, symbol)
                if prefix and symbol == prefix[-1]:
                    # In the next frame it is still the same word; after a blank, a second one.
                    in_word[prefix] += word * frame[symbol]
                    in_word[longer] += blank * frame[symbol]
                else:
                    in_word[longer] += (blank + word) * frame[symbol]

        total = {prefix: in_blank[prefix] + in_word[prefix] for prefix in in_blank | in_word}
        best = sorted(total, key=total.get, reverse=True)[:width]
        beams = {prefix: (in_blank[prefix], in_word[prefix]) for prefix in best}
    return {prefix: blank + word for prefix, (blank, word) in beams.items()}
    # end practice


def show_decoding(cfg: Config) -> None:
    print("\n[3] The best path is not the best sentence")
    probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]], dtype=torch.float64)
    found = beam_search(probs, width=2)
    text = f"blank 0.6, word 0.4, twice: greedy hears {greedy(probs)}, a beam finds {found}"
    check("misled", text, [greedy(probs), *found] == [(), (1,), ()])

    probs = torch.randn(5, 3, dtype=torch.float64).softmax(dim=1)
    found = beam_search(probs, width=100)
    text = "a beam wide enough gives 1 1 the probability of CTC, and all sentences add up to 1"
    ours = [found.get((1, 1), 0), sum(found.values())]
    check_close("exhaustive", text, ours, [ctc_probability(probs, (1, 1)), 1])


class Recognizer(nn.Module):
    """Deep Speech in small: a convolution over time, a GRU (6.5) in both directions (6.6)."""

    def __init__(self, hidden_dim: int = 64):
        super().__init__()
        self.conv = nn.Conv1d(MELS, hidden_dim, kernel_size=11, stride=STRIDE, padding=5)
        self.gru = nn.GRU(hidden_dim, hidden_dim, bidirectional=True)
        self.word = nn.Linear(2 * hidden_dim, 10 + 1)
        self.speaker = nn.Linear(2 * hidden_dim, 6)

    def forward(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, MELS), (B,) -> log probabilities (B, T / 4, V), steps (B,), speakers (B, 6)."""
        x = self.conv(mels.mT).relu().mT  # over time: (B, T / 4, hidden)
        steps = (frames - 1) // STRIDE + 1

        # Packed: the GRU never reads the padding behind a short utterance.
        packed = pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)

        # A voice is heard all the time: the mean over all steps is enough.
        mean = hidden.sum(dim=1) / steps[:, None]
        return self.word(hidden).log_softmax(dim=2), steps, self.speaker(mean)


def both_losses(model: nn.Module, batch: tuple) -> Tensor:
    mels, frames, targets, lengths, speakers = batch
    log_probs, steps, logits = model(mels, frames)
    words = ctc_loss(log_probs, steps, targets, lengths).mean()
    return words + F.cross_entropy(logits, speakers)


def show_net(cfg: Config, data: SpeechSet) -> tuple[nn.Module, dict[str, float]]:
    print("\n[4] A small net recognises words and speakers")
    few = pad_utterances(shortest_of_each_speaker(data.train), log_mel)
    model = Recognizer()
    adam = torch.optim.Adam(model.parameters(), lr=0.015)
    text = "six utterances are learned by heart: the loss falls to {}"
    overfits("heart", text, model, few, both_losses, adam, steps=60, below=0.5)
    _, speakers = listen(model, few)
    depends_on_input("hears", "the speaker it names depends on the sound", speakers, few[4])

    model = Recognizer()
    train_for(cfg, model, pad_utterances(data.train, log_mel), both_losses, lr=3e-3)

    test = pad_utterances(data.test(), log_mel)
    said = [tuple(words[words > 0].tolist()) for words in test[2]]
    probs, speakers = listen(model, test)
    scores = {
        "another_recording": word_error(said, said[1:] + said[:1]),
        "greedy": word_error(said, [greedy(row) for row in probs]),
        "error": word_error(said, [next(iter(beam_search(row, 8))) for row in probs]),
        "voices": (speakers == test[4]).float().mean().item(),
    }
    print("  " + "   ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    text = "a share of {} of the words in new recordings is wrong"
    expect("words", text, scores["error"], at_most=0.10)
    text = "the speaker is recognised in a share of {}; by chance it is 0.17"
    expect("voices", text, scores["voices"], at_least=0.4)
    if data.own is not None:
        sentence = greedy(listen(model, pad_utterances([data.own], log_mel))[0][0])
        print(f"  {cfg.wav}: it hears", *[data.words[symbol - 1] for symbol in sentence])
    return model, scores


def choices(model: nn.Sequential, pieces: Tensor) -> Tensor:
    """Logits (B · 8, 8): which of a piece's 8 futures belongs to each of its 8 moments?"""
    gru, out = model  # taken apart, because a GRU returns its last state, too
    # The eight moments: frames 7, 15, … 63. The future of each stands AHEAD frames later.
    heard, _ = gru(pieces)  # (B, 64 + AHEAD, 64): at each frame a summary of those up to it
    guesses = out(heard[:, 7::8])  # (B, 8, MELS)
    futures = pieces[:, 7 + AHEAD :: 8]
    # Divided by the root of the width, products of long vectors stay near 1 (lesson 7.1).
    alike = guesses @ futures.mT / MELS**0.5
    return alike.flatten(0, 1)


def contrastive_loss(model: nn.Module, batch: tuple) -> Tensor:
    """wav2vec's idea (2019): no text is needed, for the right answer is what really followed."""
    return F.cross_entropy(choices(model, batch[0]), torch.arange(8).repeat(len(batch[0])))


def show_contrast(cfg: Config, data: SpeechSet) -> dict[str, float]:
    print("\n[5] Without any text: which of eight futures follows what was heard?")
    train, val = (cut_pieces(part, log_mel, 64 + AHEAD) for part in (data.train, data.val))
    model = nn.Sequential(nn.GRU(MELS, 64, batch_first=True), nn.Linear(64, MELS))
    train_for(cfg, model, (train,), contrastive_loss, lr=0.01)

    right = torch.arange(8).repeat(len(val))
    ours = (choices(model, val).argmax(dim=1) == right).float().mean().item()
    nearest = torch.cdist(val[:, 7::8], val[:, 7 + AHEAD :: 8]).argmin(dim=2)
    theirs = (nearest.flatten() == right).float().mean().item()
    text = f"a share of {{}} is picked rightly; the frame most like the present: {theirs:.2f}"
    expect("contrast", text, ours, above=theirs + 0.05)
    return {"picked": ours, "most_alike": theirs}


# Pictures and helpers: skip on a first reading


def ctc_probability(probs: Tensor, words: tuple[int, ...]) -> float:
    """What CTC gives one sentence. probs: (T, V)."""
    steps, lengths = torch.tensor([len(probs)]), torch.tensor([len(words)])
    return math.exp(-ctc_loss(probs.log()[None], steps, torch.tensor([words]), lengths))


def shortest_of_each_speaker(utterances: list) -> list:
    longest_first = sorted(utterances, key=lambda each: len(each.audio), reverse=True)
    shortest = {utterance.speaker: utterance for utterance in longest_first}  # the last one stays
    return list(shortest.values())


def train_for(cfg: Config, model: nn.Module, data: tuple, loss: Callable, lr: float) -> None:
    batches = Batches(*data, batch_size=32, shuffle=True, seed=cfg.seed)
    epochs = math.ceil(cfg.steps / len(batches))
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    fit(model, batches, adam, loss, epochs=epochs, grad_clip=5.0)


@torch.no_grad()
def listen(model: nn.Module, batch: tuple) -> tuple[list[Tensor], Tensor]:
    """The probabilities for each utterance (its steps, V), and the speakers (B,)."""
    log_probs, steps, logits = model(*batch[:2])
    return [row[:count].exp() for row, count in zip(log_probs, steps)], logits.argmax(dim=1)


def draw_hearing(cfg: Config, data: SpeechSet, model: nn.Module) -> None:
    longest = max(data.val[:20], key=lambda each: len(each.audio))
    said = ", ".join(data.words[word] for word in longest.words)
    batch = pad_utterances([longest], log_mel)
    probs = listen(model, batch)[0][0].numpy()
    shown = sorted({BLANK, *batch[2][0].tolist()})
    figure, (top, bottom) = new_figure(2, 1, size=(10, 6))
    top.imshow(batch[0][0].T.numpy(), aspect="auto", origin="lower", zorder=1)
    top.set(title=f"Given: {said}", xlabel="frame (10 ms)", ylabel="mel band")
    bottom.plot(probs[:, shown], "o-", label=[("blank", *data.words)[symbol] for symbol in shown])
    bottom.set(title="Answered: words and blanks", xlabel="step (40 ms)", ylabel="probability")
    bottom.set_xlim(-0.5 / STRIDE, (batch[0].shape[1] - 0.5) / STRIDE)  # each step below its frame
    bottom.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, cfg.out / "hearing")


def run(cfg: Config) -> dict[str, float]:
    data = load_speech(cfg, passes=2)
    show_mel(cfg)
    show_ctc(cfg)
    show_decoding(cfg)
    model, scores = show_net(cfg, data)
    draw_hearing(cfg, data, model)
    return scores | show_contrast(cfg, data)


if __name__ == "__main__":
    main(run, Config, __doc__)
