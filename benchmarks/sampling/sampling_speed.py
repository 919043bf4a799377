"""Speed of coderl.sampling.generate beside transformers' `generate`: same random weights, prompts and decoding, one process.

    OMP_NUM_THREADS=1 python benchmarks/sampling/sampling_speed.py

Prints useful tokens (up to and with the end token) per CPU second of both, and the ratio. Random weights give no end token
by themselves, so the end token's logit is lifted until programs are about as long as the mini run's (mean 42, spread wide).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from coderl.config import DecodingConfig
from coderl.sampling import Request, generate

VOCABULARY, PAD, END = 800, 0, 2


class Tokenizer:
    """What `generate` asks of a tokenizer."""

    bos_token_id, eos_token_id, pad_token_id = 1, END, PAD

    @staticmethod
    def decode(ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def make_model(kind: str, width: int, layers: int) -> Any:
    """A random model that ends programs after 42 tokens on average."""
    torch.manual_seed(0)
    shared = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": END}
    if kind == "t5":
        model: Any = T5ForConditionalGeneration(
            T5Config(
                d_model=width, d_ff=4 * width, d_kv=width // 4, num_heads=4, num_layers=layers, num_decoder_layers=layers,
                dropout_rate=0.0, decoder_start_token_id=PAD, **shared,
            )
        )  # fmt: skip
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=width, intermediate_size=4 * width, num_attention_heads=4, num_hidden_layers=2 * layers,
                max_position_embeddings=1024, **shared,
            )
        )  # fmt: skip
    head, bias = model.lm_head, torch.zeros(VOCABULARY)
    bias[END] = torch.log(torch.tensor(VOCABULARY / 42.0))
    model.lm_head = torch.nn.Linear(width, VOCABULARY)
    with torch.no_grad():
        model.lm_head.weight.copy_(head.weight * 0.05)
        model.lm_head.bias.copy_(bias)
    return model.eval()


def useful(rows: list[list[int]]) -> int:
    """Tokens up to and with the end token."""
    return sum(row.index(END) + 1 if END in row else len(row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["t5", "llama"], default="t5")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    model = make_model(arguments.model, arguments.width, arguments.layers)
    prompts = [torch.randint(5, VOCABULARY, (50 + 2 * number,)).tolist() for number in range(arguments.problems)]
    decoding = DecodingConfig(temperature=arguments.temperature, top_p=arguments.top_p)

    def ours(repeat: int) -> int:
        seeds = [[repeat * 10**6 + row * 1000 + number for number in range(arguments.samples)] for row in range(len(prompts))]
        requests = [Request(prompt, row) for prompt, row in zip(prompts, seeds, strict=True)]
        programs = generate(model, Tokenizer(), requests, decoding=decoding, max_target_tokens=arguments.max_tokens)
        return sum(program.n_tokens for program in programs)

    def theirs(repeat: int) -> int:
        torch.manual_seed(repeat)
        width = max(map(len, prompts))
        left = not model.config.is_encoder_decoder
        padded = [[PAD] * (width - len(row)) + row if left else row + [PAD] * (width - len(row)) for row in prompts]
        ids = torch.tensor(padded)
        output = model.generate(
            input_ids=ids, attention_mask=(ids != PAD).long(), do_sample=True, temperature=arguments.temperature, top_k=0,
            top_p=arguments.top_p, num_return_sequences=arguments.samples, max_new_tokens=arguments.max_tokens,
            eos_token_id=END, pad_token_id=PAD,
        )  # fmt: skip
        return useful([row[width if left else 1 :] for row in output.tolist()])

    rates: dict[str, list[float]] = {"coderl": [], "transformers": []}
    for repeat in range(arguments.repeats + 1):  # interleaved, so that a busy machine slows both; the first is a warm-up
        for name, run in (("coderl", ours), ("transformers", theirs)):
            start = time.process_time()
            tokens = run(repeat)
            if repeat:
                rates[name].append(tokens / (time.process_time() - start))
    medians = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:14} {medians[name]:8.0f} useful tokens per CPU second ({min(values):.0f} to {max(values):.0f})")
    print(f"ratio          {medians['coderl'] / medians['transformers']:8.2f}")


if __name__ == "__main__":
    main()
