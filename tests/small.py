"""Small checkpoints and tokenizers that tests make with the libraries' own classes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "A state space model reads a text of bytes, the attention reads the same text. äöü — 語 "


def tokenizer(folder: Path, text: str = TEXT) -> None:
    """A byte-level BPE tokenizer, as GPT-2's and Llama-3's are, with <s> as its first symbol."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"],
                                    initial_alphabet=alphabet, show_progress=False),
    )  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="<s>")
    fast.save_pretrained(folder)


def llama(folder: Path, **changes: Any) -> LlamaForCausalLM:
    """A Llama whose every tensor is off its initial value, saved in `folder`."""
    torch.manual_seed(0)
    config = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 0,
        "eos_token_id": 0, "tie_word_embeddings": False, **changes,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    model.save_pretrained(folder)
    return model
