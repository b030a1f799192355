"""Mixture of experts: the Transformer with top-k routed SwiGLU experts in place of its MLP.

Outrageously Large Neural Networks (arXiv:1701.06538) in the form of Mixtral (arXiv:2401.04088):
softmax over all experts, the k largest renormalised. Load balancing from Switch Transformers
(arXiv:2101.03961), router z-loss from ST-MoE (arXiv:2202.08906), an optional shared expert that
every token passes, as in DeepSeekMoE (arXiv:2401.06066).

Glossary: `n_experts` = N, `top_k` = k, `probs` = p(x), `gates` = the k renormalised probabilities;
f_i = share of the N x k assignments that go to expert i, P_i = mean router probability of i.

Deviations from Mixtral: gate and up projections are two tensors, not one; the balancing loss
divides the assignments by k, so that perfect balance gives 1 as in Switch (transformers gives k).
No capacity limit, so no token is dropped, and none depends on the others of its batch.

Shapes: B batch, T time, N = B T tokens, A = N k assignments, D width, E experts, F expert width.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from models.backbones.attention_layer import Attention
from models.backbones.branches import Losses, Run
from models.backbones.elementwise import swiglu
from models.backbones.linear import linear
from models.backbones.mlp import MLP, projection
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.backbones.transformer import Block, Decoder
from models.kernels.views import Array

# Prefixes of ours -> those of transformers' MixtralForCausalLM, whose experts hold
# `gate_up_proj` (E, 2F, D), our `gate_proj` and `up_proj` joined expert by expert, and `down_proj`
# (E, D, F).
CHECKPOINT_NAMES = {
    "embedding.": "model.embed_tokens.",
    "backbone.": "model.",
    "lm_head.": "lm_head.",
}


def load_balancing_loss(probs: Tensor, chosen: Tensor) -> Tensor:
    """E sum_i f_i P_i, eq. 4 of Switch with f over all k choices: 1 in balance, at most E / k.

    `probs` (N, E) router probabilities, `chosen` (N, k) expert numbers.
    """
    n_experts = probs.shape[1]
    counts = torch.bincount(chosen.flatten(), minlength=n_experts).to(probs.dtype)  # (E,)
    return n_experts * torch.dot(counts / chosen.numel(), probs.mean(0))


def router_z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-partition of the router's (N, E) logits, eq. 5 of ST-MoE."""
    return logits.logsumexp(-1).square().mean()


class Experts(nn.Module):
    """E SwiGLU networks; each runs once, on the tokens that chose it.

    Their weights lie below each other in one matrix a projection, (E F, D): an optimizer of
    matrices sees three of them and not 3 E. `down_proj` is stored transposed for that.
    """

    def __init__(
        self, *, d_model: int, d_expert: int, n_experts: int, residual_init: float
    ) -> None:
        super().__init__()
        self.n_experts, rows = n_experts, n_experts * d_expert
        self.gate_proj = nn.Parameter(torch.randn(rows, d_model) / math.sqrt(d_model))
        self.up_proj = nn.Parameter(torch.randn(rows, d_model) / math.sqrt(d_model))
        scale = residual_init / math.sqrt(d_expert)
        self.down_proj = nn.Parameter(torch.randn(rows, d_model) * scale)

    def each(self) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Gate, up and down weights of every expert, (F, D) each."""
        projections = (self.gate_proj, self.up_proj, self.down_proj)
        return zip(*(w.chunk(self.n_experts) for w in projections), strict=True)

    def forward(self, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        """sum_j gates_j expert_{chosen_j}(x): (N, D), (N, k), (N, k) -> (N, D)."""
        expert = chosen.flatten()  # (A,)
        # A stable sort keeps the order of tokens inside an expert, whatever the batch.
        order = expert.argsort(stable=True)  # (A,)
        counts = torch.bincount(expert, minlength=self.n_experts).tolist()
        token = order // chosen.shape[1]  # (A,)
        groups = x.index_select(0, token).split(counts)  # E times (A_e, D)
        out = torch.cat(
            [
                linear(swiglu(linear(group, gate), linear(group, up)), down.t())
                for group, (gate, up, down) in zip(groups, self.each(), strict=True)
                if len(group)
            ]
        )  # (A, D)
        out = out * gates.flatten().index_select(0, order).unsqueeze(1)
        return torch.zeros_like(x).index_add(0, token, out)  # (N, D)


class SparseMLP(nn.Module):
    """Router, experts and an optional shared expert."""

    def __init__(
        self,
        *,
        d_model: int,
        d_expert: int,
        n_experts: int,
        top_k: int,
        d_shared: int,
        residual_init: float,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k={top_k} must lie between 1 and n_experts={n_experts}")
        check_sizes(d_expert=d_expert)
        if d_shared < 0:
            raise ValueError(f"d_shared={d_shared} must be at least 0 (0: no shared expert)")
        self.top_k = top_k
        self.gate = projection(d_model, n_experts)
        self.experts = Experts(
            d_model=d_model, d_expert=d_expert, n_experts=n_experts, residual_init=residual_init
        )
        self.shared = (
            MLP(d_model=d_model, d_ff=d_shared, mlp="swiglu", residual_init=residual_init)
            if d_shared
            else None
        )

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits and probabilities (N, E), chosen experts and their gates (N, k)."""
        logits = self.gate(x).float() if x.dtype.itemsize < 4 else self.gate(x)  # (N, E)
        probs = logits.softmax(-1)
        gates, chosen = probs.topk(self.top_k, dim=-1)  # (N, k)
        return logits, probs, chosen, gates / gates.sum(-1, keepdim=True)

    def routed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), load-balancing loss, z-loss; both not yet weighted."""
        rows = x.flatten(0, -2)  # (N, D)
        logits, probs, chosen, gates = self.route(rows)
        y = self.experts(rows, chosen, gates.to(x.dtype)).view_as(x)  # (B, T, D)
        if self.shared is not None:
            y = y + self.shared(x)
        return y, load_balancing_loss(probs, chosen), router_z_loss(logits)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D) without the losses: prefill and step."""
        rows = x.flatten(0, -2) if x.dim() > 2 else x  # (N, D)
        _, _, chosen, gates = self.route(rows)
        y = self.experts(rows, chosen, gates.to(x.dtype)).view_as(x)
        return y if self.shared is None else y + self.shared(x)

    def outputs(self) -> tuple[Tensor, ...]:
        """The matrices onto the residual stream."""
        shared = () if self.shared is None else self.shared.outputs()
        return (self.experts.down_proj, *shared)

    def fuse(self, norm: RMSNorm) -> Callable[[Array], Array]:
        """x + experts(norm(x)) of one position by a kernel."""
        from models.kernels.mlp_step import FusedExperts

        experts = (self.experts.gate_proj, self.experts.up_proj, self.experts.down_proj)
        shared = () if self.shared is None else self.shared.weights()
        return FusedExperts(norm.weight, norm.eps, self.gate.weight, self.top_k, experts, shared)

    def inactive_parameters(self) -> int:
        """Weights of the experts that one token does not choose."""
        all_experts = sum(p.numel() for p in self.experts.parameters())
        return all_experts // self.experts.n_experts * (self.experts.n_experts - self.top_k)

    def flops(self, batch: int, length: int) -> int:
        """Router, k experts and the shared one."""
        active = sum(p.numel() for p in self.parameters()) - self.inactive_parameters()
        return 2 * batch * length * active


class SparseBlock(Block):
    """A block whose router says how it divided the tokens."""

    mlp: SparseMLP

    def routed(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), load-balancing loss, z-loss."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, balance, z = self.mlp.routed(self.post_attention_layernorm(x))
        return x + y, balance, z


class MoE(Decoder):
    """The sparse decoder; every block routes."""

    def __init__(
        self,
        *,
        d_model: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int,
        d_expert: int,
        n_experts: int,
        top_k: int,
        d_shared: int,
        balance_weight: float,
        z_weight: float,
        attention: str,
        causal: bool,
        qk_norm: bool,
        rope_theta: float,
        norm_eps: float,
        residual_init: float,
    ) -> None:
        check_sizes(n_layers=n_layers)
        layers = [
            SparseBlock(
                self_attn=Attention(
                    d_model=d_model,
                    n_heads=n_heads,
                    n_kv_heads=n_kv_heads,
                    attention=attention,
                    causal=causal,
                    qk_norm=qk_norm,
                    norm_eps=norm_eps,
                    residual_init=residual_init,
                ),
                mlp=SparseMLP(
                    d_model=d_model,
                    d_expert=d_expert,
                    n_experts=n_experts,
                    top_k=top_k,
                    d_shared=d_shared,
                    residual_init=residual_init,
                ),
                norm_eps=norm_eps,
            )
            for _ in range(n_layers)
        ]
        super().__init__(layers=layers, causal=causal, rope_theta=rope_theta, norm_eps=norm_eps)
        self.balance_weight, self.z_weight = balance_weight, z_weight

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> (B, T, D), and both router losses, mean over layers, weighted."""
        cos, sin = self.rope(0, x.shape[1])  # (T, 1, d)
        balance, z = x.new_zeros(()), x.new_zeros(())
        for block in cast(Iterable[SparseBlock], self.layers):
            x, layer_balance, layer_z = block.routed(x, cos, sin)
            balance, z = balance + layer_balance, z + layer_z
        return self.norm(x), self._weighted(balance, z)

    def _fed(self, block: Block) -> Run:
        def run(x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None, Losses]:
            y, balance, z = cast(SparseBlock, block).mlp.routed(x)
            return y, kept, self._weighted(balance, z)

        return run

    def _weighted(self, balance: Tensor, z: Tensor) -> dict[str, Tensor]:
        """What the routers add to the loss: their shares of the mean over layers."""
        n_layers = len(self.layers)
        return {
            "load_balancing": self.balance_weight / n_layers * balance,
            "router_z": self.z_weight / n_layers * z,
        }
