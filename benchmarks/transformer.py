"""Transformer against transformers' Llama and a nanoGPT-style block: training step and decoding.

    python -m benchmarks.transformer [train] [decode] [norm]

B batch, T time, D width, V vocabulary. Every rival has the same embedding and read-out, and about
as many parameters.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.ab import THREADS, compare, train_step
from models.backbones.norm import RMSNorm
from models.backbones.transformer import Decoder, Transformer

LAYERS, D_MODEL, HEADS, LENGTH, BATCH, VOCAB = 4, 256, 4, 512, 4, 256
D_FF = 684  # 3 x 684 is 2 x 4 x 256 of the GELU MLP, less the room its norms' biases would take
SECONDS = 20.0
NEW_TOKENS, PROMPT = 128, 16


class Model(nn.Module):
    """Embedding, backbone, read-out."""

    def __init__(self, backbone: Decoder) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, D_MODEL)
        self.backbone = backbone
        self.lm_head = nn.Linear(D_MODEL, VOCAB, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        hidden, _ = self.backbone(self.embedding(tokens))
        return self.lm_head(hidden)

    @torch.no_grad()
    def generate(self, tokens: Tensor, count: int) -> Tensor:
        """Greedy continuation with the cache, (B, T) -> (B, T + count)."""
        weight = self.embedding.weight
        state = self.backbone.init_state(len(tokens), device=weight.device, dtype=weight.dtype)
        hidden, state = self.backbone.prefill(self.embedding(tokens), state)
        out = [tokens]
        token = self.lm_head(hidden[:, -1]).argmax(-1)  # (B,)
        for _ in range(count - 1):
            out.append(token.unsqueeze(1))
            hidden, state = self.backbone.step(self.embedding(token), state)
            token = self.lm_head(hidden).argmax(-1)
        return torch.cat([*out, token.unsqueeze(1)], 1)


class GPTBlock(nn.Module):
    """LayerNorm, fused qkv, sdpa, four times wider GELU MLP: the plain block of small GPTs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D_MODEL), nn.LayerNorm(D_MODEL)
        self.qkv = nn.Linear(D_MODEL, 3 * D_MODEL, bias=False)
        self.out = nn.Linear(D_MODEL, D_MODEL, bias=False)
        self.up = nn.Linear(D_MODEL, 4 * D_MODEL, bias=False)
        self.down = nn.Linear(4 * D_MODEL, D_MODEL, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        qkv = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in qkv)  # (B, H, T, d)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Token and position table, blocks, read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, D_MODEL)
        self.position = nn.Embedding(LENGTH, D_MODEL)
        self.blocks = nn.Sequential(*(GPTBlock() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(D_MODEL)
        self.lm_head = nn.Linear(D_MODEL, VOCAB, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return self.lm_head(self.norm(self.blocks(x)))


def ours(attention: str = "sdpa") -> Model:
    """Our model at the shared shape."""
    return Model(
        Transformer(
            d_model=D_MODEL,
            n_layers=LAYERS,
            n_heads=HEADS,
            n_kv_heads=HEADS,
            d_ff=D_FF,
            attention=attention,
            causal=True,
            qk_norm=False,
            mlp="swiglu",
            rope_theta=10000.0,
            norm_eps=1e-6,
            residual_init=1.0,
        )
    )


def llama() -> LlamaForCausalLM:
    """transformers' Llama at the shared shape."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=D_MODEL,
            intermediate_size=D_FF,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean nats per token."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def train() -> None:
    """A training step of both rivals."""
    tokens = torch.randint(VOCAB, (BATCH, LENGTH))
    labels = torch.randint(VOCAB, (BATCH, LENGTH))
    mine, hf, gpt = ours(), llama(), GPT()
    for model in (mine, hf, gpt):
        model.train()
        print(type(model).__name__, sum(p.numel() for p in model.parameters()), "parameters")
    step = train_step(lambda: cross_entropy(mine(tokens), labels), mine.parameters())
    for name, loss, rival in (
        ("Llama", lambda: cross_entropy(hf(tokens, use_cache=False).logits, labels), hf),
        ("nanoGPT-style", lambda: cross_entropy(gpt(tokens), labels), gpt),
    ):
        compare(
            f"transformer train step against {name}",
            step,
            train_step(loss, rival.parameters()),
            seconds=SECONDS,
            target=0.97,
        )


def decode() -> None:
    """Greedy decoding at batch 1, both with a cache."""
    mine, hf = ours().eval(), llama().eval()
    prompt = torch.randint(VOCAB, (1, PROMPT))
    mask = torch.ones_like(prompt)

    def run_ours() -> None:
        mine.generate(prompt, NEW_TOKENS)

    def theirs() -> None:
        with torch.no_grad():
            hf.generate(
                prompt,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                use_cache=True,
            )

    compare(
        f"transformer decode {NEW_TOKENS} tokens against generate",
        run_ours,
        theirs,
        seconds=SECONDS / 2,
        target=1.0,
    )


def norm() -> None:
    """Our RMSNorm against torch's, forward and backward, to keep the reason for it in sight."""
    layer = RMSNorm(D_MODEL, 1e-6)
    x = torch.randn(BATCH, LENGTH, D_MODEL, requires_grad=True)
    grad = torch.randn_like(x)

    def library() -> None:
        F.rms_norm(x, (D_MODEL,), layer.weight, 1e-6).backward(grad)

    compare("RMSNorm", lambda: layer(x).backward(grad), library, seconds=3.0, target=1.0)


def main() -> None:
    """Run the parts that are named, all of them by default."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    parts = {"train": train, "decode": decode, "norm": norm}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
