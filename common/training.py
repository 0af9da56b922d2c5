"""The training loop that the whole course shares.

phase03_pytorch/09-training-loop derives it line by line, and a test holds the two equal. How a
batch becomes a loss is the lesson's own `loss_fn(model, batch) -> scalar`, so nothing here knows
the task. A lesson that changes the loop itself (GAN, mixed precision, accumulation) writes its own.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.checkpoint import Checkpoint

LossFn = Callable[[nn.Module, Any], Tensor]


def fit(
    model: nn.Module,
    loader: Iterable,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFn,
    *,
    epochs: int = 1,
    scheduler: Any = None,
    grad_clip: float | None = None,
    evaluate_fn: Callable[[nn.Module], dict[str, float]] | None = None,
    checkpoint: Checkpoint | None = None,
    quiet: bool = False,
) -> list[dict[str, float]]:
    """Train for `epochs`; return a row of numbers for each, and print about ten of them.

    scheduler: steps once a batch. evaluate_fn(model): its numbers join the row. checkpoint: every
    epoch is saved, and one made with resume=True goes on where the last run stopped, to the same
    weights bit for bit.
    """
    device = next(model.parameters()).device
    history: list[dict[str, float]] = checkpoint.restore() if checkpoint else []
    for epoch in range(len(history) + 1, epochs + 1):
        model.train()
        # Summed on the device: an .item() in every step would make a GPU wait for Python.
        total = torch.zeros((), device=device)
        seen = 0
        for batch in _with_progress_bar(loader, f"  epoch {epoch}/{epochs}", quiet):
            batch = to_device(batch, device)
            loss = loss_fn(model, batch)

            optimizer.zero_grad()
            loss.backward()
            if grad_clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()

            # The last batch may be short, so that losses are weighted by their samples.
            samples = batch_size(batch)
            total += loss.detach() * samples
            seen += samples

        row = {"epoch": epoch, "train_loss": (total / max(seen, 1)).item()}
        if evaluate_fn is not None:
            row |= {name: float(value) for name, value in evaluate_fn(model).items()}
        history.append(row)
        if not quiet and (epoch % max(1, epochs // 10) == 0 or epoch in (1, epochs)):
            print(
                "  " + "  ".join(f"{name} {value:<6.4g}" for name, value in row.items()), flush=True
            )
        if checkpoint:
            checkpoint.save(history)
    return history


def _with_progress_bar(loader: Iterable, name: str, quiet: bool) -> Iterable:
    """On a terminal, and only for an epoch that lasts longer than a second."""
    return tqdm(loader, name, leave=False, delay=1, disable=True if quiet else None)


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Iterable, score_fn: Callable[[nn.Module, Any], dict[str, Tensor]]
) -> dict[str, float]:
    """Mean over samples of what `score_fn(model, batch)` gives as means over the batch.

    In evaluation mode and without gradients; the model's mode is restored afterwards.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    seen = 0
    for batch in loader:
        batch = to_device(batch, device)
        for name, value in score_fn(model, batch).items():
            sums[name] = sums.get(name, 0) + value * batch_size(batch)
        seen += batch_size(batch)
    model.train(was_training)
    return {name: (value / max(seen, 1)).item() for name, value in sums.items()}


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a tensor, or every tensor of a list, tuple or dict."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def batch_size(batch: Any) -> int:
    """The length of its first member: (x, y), {"input_ids": …} or a list of pictures."""
    if isinstance(batch, dict):
        return len(next(iter(batch.values())))
    return len(batch[0]) if isinstance(batch, (list, tuple)) else len(batch)
