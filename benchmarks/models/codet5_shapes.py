"""Memory and time of a training step and of sampling, for random models in CodeT5's shapes (spec 1.6), each in a process of its own.

    python benchmarks/models/codet5_shapes.py small base large
    python benchmarks/models/codet5_shapes.py large --batch 8 --source 600 --target 512 --precision bf16   # on a GPU

Prints one line per shape: parameters, resident memory (or the GPU's) after each phase, and seconds: of a step the median after the
first, of sampling new tokens per second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = {"small": (6, 512, 2048, 8), "base": (12, 768, 3072, 12), "large": (24, 1024, 4096, 16)}


def measure(arguments: argparse.Namespace) -> dict[str, float | str]:
    """One shape, in this process."""
    import torch
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    from coderl.config import DecodingConfig, TokenizerConfig, TrainingConfig
    from coderl.models import collate_pairs, default_device
    from coderl.objectives import IGNORED
    from coderl.pretraining import train_tokenizer
    from coderl.sampling import Request, generate
    from coderl.training import program_cross_entropy, train

    layers, d_model, d_ff, heads = SHAPES[arguments.shapes[0]]
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=32100, d_model=d_model, d_kv=64, d_ff=d_ff, num_layers=layers, num_heads=heads, decoder_start_token_id=0)
    )
    device = default_device()

    def memory() -> float:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    class Full:
        """Sequences as long as the limits."""

        def epoch(self, epoch: int) -> list[int]:
            return list(range(arguments.batch * arguments.steps))

        def lengths(self, item: int) -> tuple[int, int]:
            return arguments.source, arguments.target

        def collate(self, items: list[int]) -> dict[str, torch.Tensor]:
            random = torch.Generator().manual_seed(items[0])
            draw = lambda count: torch.randint(5, 32000, (count,), generator=random).tolist()  # noqa: E731
            batch = collate_pairs([draw(arguments.source) for _ in items], [draw(arguments.target) for _ in items], 0)
            batch["normaliser"] = (batch["program_ids"] != IGNORED).sum()
            return batch

    loaded = memory()
    times: list[float] = []
    cpu: list[float] = []

    def loss(net: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        times.append(time.perf_counter())
        cpu.append(time.process_time())
        return program_cross_entropy(net, batch)

    config = TrainingConfig(
        steps=arguments.steps, batch_size=arguments.batch, precision=arguments.precision, checkpoint_every=10_000,
        gradient_checkpointing=arguments.checkpointing, log_every=10_000,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        train(model, Full(), loss, config, settings="", seed=1, work=Path(work))
    times.append(time.perf_counter())
    cpu.append(time.process_time())
    trained = memory()
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(iter(["def f(x): return x\n"] * 9), TokenizerConfig(vocabulary_size=500))
    model.to(device)
    start, begun = time.perf_counter(), time.process_time()
    programs = generate(
        model, tokenizer, [Request(list(range(5, 5 + arguments.source)), range(arguments.rows))],
        decoding=DecodingConfig(temperature=1.0), max_target_tokens=arguments.new,
    )  # fmt: skip
    tokens = sum(program.n_tokens for program in programs)
    steps = [after - before for before, after in itertools.pairwise(times[1:])]
    cpu_steps = [after - before for before, after in itertools.pairwise(cpu[1:])]
    return {
        "shape": arguments.shapes[0],
        "parameters_millions": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "loaded_mb": round(loaded),
        "training_mb": round(trained),
        "step_seconds": round(statistics.median(steps), 2),
        "step_cpu_seconds": round(statistics.median(cpu_steps), 2),
        "sampled_tokens_per_second": round(tokens / (time.perf_counter() - start), 1),
        "sampled_tokens_per_cpu_second": round(tokens / (time.process_time() - begun), 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--source", type=int, default=600)
    parser.add_argument("--target", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8, help="programs sampled at once")
    parser.add_argument("--new", type=int, default=32, help="tokens of each")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments)))
        return
    rest = [word for word in sys.argv[1:] if word not in SHAPES]
    for shape in arguments.shapes:  # a process each: memory is a high-water mark
        subprocess.run([sys.executable, __file__, shape, *rest, "--here"], check=True)


if __name__ == "__main__":
    main()
