"""Time and peak memory of a PerPO step on shared prefixes, beside the same step on repeated ones.

A step is the reference's forward, the policy's forward and backward, with LoRA on the language model.
Both ways run the same model (LLaVA-1.5's token geometry, small widths, random weights) on the same
tokens in one process, and have to agree: in fp32, log-probabilities within 1e-4 and gradients within
1e-3. Repeated means what it means elsewhere: image and prompt once more for every candidate.
Run: python benchmarks/shared_prefix.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace

from perpo.cli.common import quiet_libraries

quiet_libraries()  # before torch is imported: its threads' way of waiting is set then

import torch
from measure import Cost, cost
from torch import Tensor

from perpo.logps import candidate_logps, repeated_logps
from perpo.losses import perpo_loss
from perpo.policy import Policy, load_policy
from perpo.prefix import pack
from perpo.tiny.model import LLAVA15_GEOMETRY, save_random_model
from perpo.train_arguments import TrainArguments

PAD = 3


def main() -> None:
    """Print one line for each way, best of `--repeats`, and the ratios."""
    args = _arguments()
    policy = _policy(args)
    logps, tokens = _ways(policy, args)
    steps = {name: _step(policy, way, args.candidates) for name, way in logps.items()}
    found = {name: step() for name, step in steps.items()}  # warm-up too: the first call also loads kernels
    _check(*found.values())
    print(
        f"{policy.loaded.model.config.image_seq_length} image, {args.prompt_tokens} prompt and {args.answer_tokens} "
        f"answer tokens, {args.candidates} candidates, checkpointing {args.gradient_checkpointing}, "
        f"{torch.get_num_threads()} threads; log-probabilities and gradients agree"
    )
    costs = {name: _report(name, tokens[name], step, args.repeats) for name, step in steps.items()}
    ours, theirs = costs["shared"], costs["repeated"]
    ratio = tokens["repeated"] / tokens["shared"]
    print(
        f"{'ratio':<10} {ratio:7.1f} x {theirs.seconds / ours.seconds:7.1f} x {theirs.peak_mib / ours.peak_mib:8.1f} x"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--prompt_tokens", type=int, default=60)
    parser.add_argument("--answer_tokens", type=int, default=20)
    parser.add_argument("--width", type=int, default=256, help="hidden size of the language model")
    parser.add_argument("--layers", type=int, default=4, help="layers of the language model")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


def _policy(args: argparse.Namespace) -> Policy:
    shape = replace(LLAVA15_GEOMETRY, text_width=args.width, text_layers=args.layers)
    with tempfile.TemporaryDirectory() as directory:
        save_random_model(directory, shape)
        policy = load_policy(
            TrainArguments(
                model=directory,
                data="",
                output_dir="",
                lora_r=16,
                lora_alpha=32,
                gradient_checkpointing=args.gradient_checkpointing,
            )
        )
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide gradients
            torch.nn.init.normal_(parameter, std=0.02)
    return policy


def _ways(policy: Policy, args: argparse.Namespace) -> tuple[dict[str, Callable[[], Tensor]], dict[str, int]]:
    """Both ways to get the log-probabilities of one list, and the tokens that each runs over."""
    generator = torch.Generator().manual_seed(0)

    def text(length: int) -> list[int]:
        return torch.randint(10, 300, (length,), generator=generator).tolist()

    image = [policy.loaded.processor.image_token_id] * policy.loaded.model.config.image_seq_length
    prefix = [*image, *text(args.prompt_tokens)]
    answers = [text(args.answer_tokens) for _ in range(args.candidates)]
    pixels = [{"pixel_values": torch.randn(1, 3, 336, 336, generator=generator)}]
    packed = pack([prefix], [answers], PAD)
    return {
        "shared": lambda: candidate_logps(policy.model, packed, pixels, candidates=args.candidates),
        "repeated": lambda: repeated_logps(policy.model, [prefix], [answers], pixels, pad_id=PAD),
    }, {
        "shared": len(prefix) + args.candidates * args.answer_tokens,
        "repeated": args.candidates * (len(prefix) + args.answer_tokens),
    }


def _step(policy: Policy, logps: Callable[[], Tensor], candidates: int) -> Callable[[], tuple[Tensor, Tensor]]:
    rewards = torch.linspace(0, 1, candidates)[None]

    def step() -> tuple[Tensor, Tensor]:
        policy.model.train()
        policy.model.zero_grad()
        with policy.encode_images_once():
            with torch.no_grad(), policy.as_reference():
                reference = logps()
            found = logps()
        perpo_loss(found, reference, rewards).sum().backward()
        gradients = [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
        return found.detach(), torch.cat(gradients)

    return step


def _check(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-4, rtol=0)
    difference = (ours[1] - theirs[1]).norm() / theirs[1].norm()
    if difference > 1e-3:
        raise SystemExit(f"the gradients differ by {difference:.1e}")


def _report(name: str, tokens: int, step: Callable[[], object], repeats: int) -> Cost:
    costs = [cost(step) for _ in range(repeats)]
    best = Cost(min(each.seconds for each in costs), max(each.peak_mib for each in costs))
    print(f"{name:<10} {tokens:7} tokens {best.seconds:7.2f} s {best.peak_mib:8.0f} MiB", flush=True)
    return best


if __name__ == "__main__":
    main()
