"""Time of one layer's attention, forward and backward, within shared prefixes: three ways over the same lists.

    dense   SDPA with a mask over prefix and all candidates
    cached  the prefix first, then the candidates as a batch behind a copy of its keys and values
    split   ours (`perpo.models.attention`): the prefix, answers on prefix and each candidate with itself, joined

`hidden` are the entries of a list's mask that nothing may look at; `hidden / visible` is their share. The last column
is what `splitting_pays` chooses. All ways have to agree. CPU, fp32.
Run: python benchmarks/attention.py
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace

from perpo.common.program import quiet_libraries

quiet_libraries()  # before torch is imported: its threads' way of waiting is set then

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from perpo.models.attention import attention_forward, splitting_pays
from perpo.models.prefix import attention_mask

# Lists, tokens of the prefix, candidates, tokens of each
SHAPES = [
    (2, 90, 4, 12),
    (2, 90, 20, 12),
    (2, 200, 20, 12),
    (1, 320, 4, 20),
    (2, 320, 8, 20),
    (1, 636, 4, 20),
    (1, 636, 20, 20),
    (1, 2940, 2, 20),
    (1, 2940, 20, 20),
    (1, 2940, 5, 1000),
]
LAYER = SimpleNamespace(num_key_value_groups=1, is_causal=True, training=True)


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head_dim", type=int, default=64)
    parser.add_argument("--longest", type=int, default=10**6, help="leave out lists of more tokens")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {args.heads} heads of {args.head_dim}, milliseconds")
    print(f"{'lists':>5}{'prefix':>8}{'N':>4}{'answer':>8}{'hidden':>10}{'/visible':>9}", end="")
    print(f"{'dense':>9}{'cached':>9}{'split':>9}  split pays")
    for shape in SHAPES:
        if shape[1] + shape[2] * shape[3] <= args.longest:
            _measure(*shape, args.heads, args.head_dim)


def _measure(lists: int, prefix: int, candidates: int, answer: int, heads: int, width: int) -> None:
    owner = torch.cat([torch.zeros(prefix), torch.arange(1, candidates + 1).repeat_interleave(answer)]).long()
    segments, length = owner.expand(lists, -1).contiguous(), len(owner)
    torch.manual_seed(0)
    states = [torch.randn(lists, heads, length, width, requires_grad=True) for _ in range(3)]
    weights = torch.randn(lists, length, heads, width)
    mask = attention_mask(segments, torch.float32)
    ways = {
        "dense": lambda: attention_forward(LAYER, *states, mask)[0],
        "cached": lambda: _cached(states, prefix, candidates),
        "split": lambda: attention_forward(LAYER, *states, segments[:, None, None])[0],
    }
    best = dict.fromkeys(ways, float("inf"))
    results: dict[str, list[Tensor]] = {}
    for _ in range(2 if length > 5000 else 5):
        for name, way in ways.items():
            start = time.perf_counter()
            result = way()
            results[name] = [result, *torch.autograd.grad(result, states, weights)]
            best[name] = min(best[name], 1000 * (time.perf_counter() - start))
    for parts in results.values():
        for one, other in zip(parts, results["dense"], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    visible = prefix**2 / 2 + candidates * (prefix * answer + answer**2 / 2)
    hidden = length**2 - visible
    print(f"{lists:5}{prefix:8}{candidates:4}{answer:8}{hidden:10.0f}{hidden / visible:9.2f}", end="")
    print("".join(f"{each:9.2f}" for each in best.values()), f" {splitting_pays(segments)}", flush=True)


def _cached(states: list[Tensor], prefix: int, candidates: int) -> Tensor:
    lists, answer = len(states[0]), (states[0].shape[2] - prefix) // candidates
    shared = [part[:, :, :prefix] for part in states]
    first = scaled_dot_product_attention(*shared, is_causal=True)
    query, *cache = [part[:, :, prefix:].unflatten(2, (candidates, answer)).transpose(1, 2) for part in states]
    key, value = (
        torch.cat([one.unsqueeze(1).expand(-1, candidates, -1, -1, -1), other], dim=3).flatten(0, 1)
        for one, other in zip(shared[1:], cache, strict=True)
    )
    visible = torch.ones(answer, prefix + answer, dtype=torch.bool).tril(prefix)
    rest = scaled_dot_product_attention(query.flatten(0, 1), key, value, attn_mask=visible)
    rest = rest.unflatten(0, (lists, candidates)).transpose(1, 2).flatten(2, 3)
    return torch.cat([first, rest], dim=2).transpose(1, 2)


if __name__ == "__main__":
    main()
