"""models.py: loading, logits and states of both kinds of model, and the outcome critic's definition."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import save_tiny, tiny_llama, tiny_t5, tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from coderl.config import TrainCriticConfig, TrainingConfig
from coderl.models import (
    CriticSettings,
    OutcomeCritic,
    collate_pairs,
    load_actor,
    load_tokenizer,
    program_logits,
    program_states,
)
from coderl.objectives import token_log_probabilities
from coderl.records import DataError

torch.set_num_threads(1)

POOLINGS = ["max_hidden", "max_logits", "mean_hidden", "last"]
PROMPTS = [[1, 10, 11, 12, 2], [1, 20, 2], [1, 30, 31, 32, 33, 34, 2]]
PROGRAMS = [[1, 40, 41, 42, 43, 2], [1, 50, 51, 2], [1, 60, 2]]


def config(**changes: object) -> TrainCriticConfig:
    return TrainCriticConfig(training=TrainingConfig(steps=1, batch_size=1), **changes)


def make_critic(kind: str = "t5", classes: int = 4, **changes: object) -> OutcomeCritic:
    torch.manual_seed(5)
    critic = OutcomeCritic(tiny_t5() if kind == "t5" else tiny_llama(), CriticSettings.from_config(config(**changes), classes))
    for parameter in critic.head.parameters():
        torch.nn.init.normal_(parameter)
    return critic.eval()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------- batches and logits


def test_collate_pads_prompts_with_a_mask_and_programs_with_minus_100() -> None:
    batch = collate_pairs([[7, 8], [9]], [[1], [2, 3]], pad_id=5)
    assert batch["prompt_ids"].tolist() == [[7, 8], [9, 5]]
    assert batch["prompt_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["program_ids"].tolist() == [[1, -100], [2, 3]]


@pytest.mark.parametrize(("prompts", "programs"), [([], []), ([[1]], []), ([[1]], [[]]), ([[]], [[1]])])
def test_collate_refuses_what_has_no_state(prompts: list[list[int]], programs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"empty|as many"):
        collate_pairs(prompts, programs, 0)


def test_encoder_decoder_logits_equal_those_of_the_stock_model_with_labels() -> None:
    model = tiny_t5()
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    stock = model(input_ids=batch["prompt_ids"], attention_mask=batch["prompt_mask"], labels=batch["program_ids"])
    logits = program_logits(model, **batch)
    close(logits, stock.logits)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["program_ids"].flatten(), ignore_index=-100)
    close(loss, stock.loss)


@pytest.mark.parametrize("tied", [True, False])
def test_causal_logits_equal_those_of_each_row_alone_unpadded(tied: bool) -> None:
    model = tiny_llama(tied=tied)
    logits = program_logits(model, **collate_pairs(PROMPTS, PROGRAMS, 0))
    for row, (prompt, program) in enumerate(zip(PROMPTS, PROGRAMS, strict=True)):
        alone = model(input_ids=torch.tensor([prompt + program])).logits[0, len(prompt) - 1 : -1]
        close(logits[row, : len(program)], alone)


def test_states_give_the_logits_through_the_output_layer() -> None:
    """So T5's states carry the factor d_model ** -0.5, and 'before' is the state that predicts the token."""
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    present = batch["program_ids"] != -100
    for model in (tiny_t5(), tiny_llama(tied=False)):
        before = program_states(model, **batch, after=False)
        close(model.get_output_embeddings()(before)[present], program_logits(model, **batch)[present])
        after = program_states(model, **batch, after=True)
        close(after[:, :-1][present[:, 1:]], before[:, 1:][present[:, 1:]])


# ------------------------------------------------------------------------------------------- the critic's definition


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("alignment", ["paper", "code"])
def test_value_of_a_token_depends_on_the_tokens_up_to_it(kind: str, alignment: str) -> None:
    """paper: tokens <= t; code: tokens < t (spec 5.2)."""
    critic = make_critic(kind, alignment=alignment)
    program = [1, 40, 41, 42, 43, 2]
    base = critic(**collate_pairs([PROMPTS[0]], [program], 0))
    for changed in range(len(program)):
        other = [*program[:changed], 99, *program[changed + 1 :]]
        moved = critic(**collate_pairs([PROMPTS[0]], [other], 0))
        differs = (moved.token_logits - base.token_logits).abs().amax(-1)[0] > 1e-6
        first = changed if alignment == "paper" else changed + 1
        assert not differs[:first].any()
        assert differs[first : first + 1].all()


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_pooled_logits_are_the_last_prefix_and_a_prefix_is_the_program_cut_there(kind: str, pooling: str, head: str) -> None:
    critic = make_critic(kind, pooling=pooling, head=head)
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    whole = critic(**batch)
    last = batch["program_ids"].ne(-100).sum(1) - 1
    close(whole.prefix_logits[torch.arange(3), last], whole.logits)
    for t in range(1, len(PROGRAMS[0]) + 1):
        cut = critic(**collate_pairs([PROMPTS[0]], [PROGRAMS[0][:t]], 0))
        close(cut.logits[0], whole.prefix_logits[0, t - 1])
    assert critic(**batch, prefixes=False).prefix_logits is None


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_critic_with_the_likelihood_values_prefixes_as_programs_and_ignores_pads(kind: str, pooling: str) -> None:
    critic = make_critic(kind, pooling=pooling, likelihood=True)
    whole = critic(**collate_pairs(PROMPTS, PROGRAMS, 0))
    for row, program in enumerate(PROGRAMS):
        for t in range(1, len(program) + 1):
            cut = critic(**collate_pairs([PROMPTS[row]], [program[:t]], 0))
            close(cut.logits[0], whole.prefix_logits[row, t - 1])
            close(cut.token_logits[0, -1], whole.token_logits[row, t - 1])


def test_the_likelihood_adds_its_sum_and_its_least_to_the_logit_of_passed() -> None:
    critic = make_critic(likelihood=True)
    batch = collate_pairs([PROMPTS[0]], [PROGRAMS[0]], 0)
    log_p = token_log_probabilities(program_logits(critic.backbone, **batch), batch["program_ids"])
    with torch.no_grad():
        before = critic(**batch).logits
        critic.likelihood.factors.zero_()  # type: ignore[union-attr]
        after = critic(**batch).logits
    close(before[:, :-1], after[:, :-1])
    close(before[:, -1] - after[:, -1], 0.5 * log_p.sum(1) + 0.5 * log_p.amin(1))


def test_a_critic_with_the_likelihood_is_the_same_after_saving(tmp_path: Path) -> None:
    critic = make_critic(likelihood=True)
    with torch.no_grad():
        critic.likelihood.factors.add_(1.0)  # type: ignore[union-attr]
    critic.save(tmp_path)
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    close(OutcomeCritic.load(tmp_path)(**batch).logits, critic(**batch).logits)


def test_a_critic_of_an_earlier_version_has_no_likelihood(tmp_path: Path) -> None:
    critic = make_critic()
    critic.save(tmp_path)
    settings_ = json.loads((tmp_path / "critic.json").read_text())
    del settings_["likelihood"]
    (tmp_path / "critic.json").write_text(json.dumps(settings_))
    assert OutcomeCritic.load(tmp_path).settings == critic.settings


def test_paper_head_is_linear_on_max_pooled_states() -> None:
    critic = make_critic(pooling="max_hidden", head="linear")
    batch = collate_pairs([PROMPTS[0]], [PROGRAMS[0]], 0)
    states = program_states(critic.backbone, **batch, after=True)
    output = critic(**batch)
    close(output.logits, critic.head(states.max(1).values))
    close(output.token_logits, critic.head(states))


def test_code_head_is_the_maximum_over_positions_of_mlp_logits() -> None:
    critic = make_critic(pooling="max_logits", head="mlp", alignment="code", hidden_size=7)
    batch = collate_pairs([PROMPTS[0]], [PROGRAMS[0]], 0)
    states = program_states(critic.backbone, **batch, after=False)
    first, second = critic.head[0], critic.head[2]
    assert first.weight.shape == (7, 16)
    errors = torch.relu(states @ first.weight.T + first.bias) @ second.weight.T + second.bias
    output = critic(**batch)
    close(output.token_logits, errors)
    close(output.logits, errors.max(1).values)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["t5", "llama"]),
    pooling=st.sampled_from(POOLINGS),
    head=st.sampled_from(["linear", "mlp"]),
    alignment=st.sampled_from(["paper", "code"]),
    prompt=st.lists(st.integers(5, 200), min_size=1, max_size=8),
    program=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    prompt_pads=st.integers(0, 5),
    program_pads=st.integers(0, 9),
)
def test_appending_pads_changes_nothing(
    kind: str, pooling: str, head: str, alignment: str, prompt: list[int], program: list[int], prompt_pads: int, program_pads: int
) -> None:
    """Spec 12: the released critic violates this."""
    critic = make_critic(kind, pooling=pooling, head=head, alignment=alignment)
    alone = critic(**collate_pairs([prompt], [program], 0))
    longer_prompt, longer_program = [7] * (len(prompt) + prompt_pads), [8] * (len(program) + program_pads)
    padded = critic(**collate_pairs([prompt, longer_prompt], [program, longer_program], 0))
    size = len(program)
    close(padded.logits[:1], alone.logits)
    close(padded.token_logits[:1, :size], alone.token_logits)
    close(padded.prefix_logits[:1, :size], alone.prefix_logits)
    assert padded.mask[0].tolist() == [True] * size + [False] * program_pads
    assert not padded.token_logits[0, size:].any()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pads_give_no_gradient(pooling: str) -> None:
    gradients = []
    for programs in ([PROGRAMS[0]], [PROGRAMS[0], [1] * 12]):
        critic = make_critic(pooling=pooling)
        critic(**collate_pairs([PROMPTS[0]] * len(programs), programs, 0)).logits[0].square().sum().backward()
        gradients.append(critic.backbone.get_input_embeddings().weight.grad)
    close(gradients[0], gradients[1])
    assert gradients[0].abs().sum() > 0


def test_float32_on_the_cpu_is_deterministic() -> None:
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    results = []
    for _ in range(2):
        critic = make_critic()
        output = critic(**batch)
        output.logits.square().sum().backward()
        results.append((output.prefix_logits, critic.head.weight.grad, critic.backbone.get_input_embeddings().weight.grad))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


# ------------------------------------------------------------------------------------------- folders


def test_from_backbone_starts_from_the_language_model_and_a_seeded_head(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "actor", tiny_t5(seed=3))
    before = torch.get_rng_state()
    critics = [OutcomeCritic.from_backbone(folder, 2, config(), seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    weights = [critic.head.weight for critic in critics]
    assert weights[0].shape == (2, 16)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(critics[0].backbone.shared.weight, tiny_t5(seed=3).shared.weight)


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_saved_critic_gives_equal_logits_and_plain_from_pretrained_opens_its_backbone(kind: str, head: str, tmp_path: Path) -> None:
    critic = make_critic(kind, classes=2, head=head, pooling="mean_hidden", alignment="code")
    critic.save(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = OutcomeCritic.load(tmp_path)
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    assert torch.equal(loaded(**batch).prefix_logits, critic(**batch).prefix_logits)
    assert loaded.settings == critic.settings
    assert not loaded.training
    plain = (AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM).from_pretrained(tmp_path).eval()
    close(program_logits(plain, **batch), program_logits(critic.backbone, **batch))
    assert AutoTokenizer.from_pretrained(tmp_path).encode("a") == tiny_tokenizer().encode("a")
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_state_dict_holds_shared_weights_once_and_loads_again() -> None:
    """The Trainer writes it with safetensors, which refuses shared memory."""
    critic = make_critic()
    state = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    assert len({tensor.data_ptr() for tensor in critic.state_dict().values()}) == len(state)
    other = OutcomeCritic(tiny_t5(seed=9), critic.settings).eval()
    missing = other.load_state_dict(state, strict=False)
    other.tie_weights()
    assert set(missing.missing_keys) == set(other._keys_to_ignore_on_save)
    batch = collate_pairs(PROMPTS, PROGRAMS, 0)
    assert torch.equal(other(**batch).logits, critic(**batch).logits)


def test_unused_output_layer_is_frozen_and_a_tied_one_is_not() -> None:
    settings_ = CriticSettings.from_config(config(), 4)
    untied = OutcomeCritic(tiny_llama(tied=False), settings_)
    assert not untied.backbone.lm_head.weight.requires_grad
    assert OutcomeCritic(tiny_llama(tied=True), settings_).backbone.lm_head.weight.requires_grad
    untied(**collate_pairs(PROMPTS, PROGRAMS, 0)).logits.sum().backward()
    assert [name for name, p in untied.named_parameters() if p.requires_grad and p.grad is None] == []


def test_loading_gives_float32_evaluation_mode_and_no_clean_up_of_text(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "actor", tiny_t5().to(torch.bfloat16))
    model = load_actor(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
    tokenizer = load_tokenizer(folder)
    text = "print('a . b') , x !"
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


@pytest.mark.parametrize("load", [load_actor, load_tokenizer, OutcomeCritic.load])
def test_a_missing_folder_is_named_with_the_next_step(load: object, tmp_path: Path) -> None:
    missing = tmp_path / "models" / "actor"
    with pytest.raises(DataError, match=re.escape(str(missing))) as caught:
        load(missing)  # type: ignore[operator]
    assert "make it first" in str(caught.value)


@pytest.mark.parametrize("load", [load_actor, load_tokenizer])
def test_an_unreachable_hub_id_says_how_to_download_it_beforehand(load: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True, raising=False)
    with pytest.raises(DataError, match=r"hf download nobody/no-such-model.*HF_HUB_OFFLINE"):
        load("nobody/no-such-model")  # type: ignore[operator]


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no model can be read"):
        load_actor(empty)
    with pytest.raises(DataError, match="no tokenizer can be read"):
        load_tokenizer(empty)
    folder = save_tiny(tmp_path / "actor", tiny_t5())
    with pytest.raises(DataError, match="found a file"):
        load_actor(folder / "config.json")
    with pytest.raises(DataError, match=r"no critic\.json"):
        OutcomeCritic.load(folder)
    make_critic().save(folder)
    row = json.loads((folder / "critic.json").read_text())
    (folder / "critic.json").write_text(json.dumps({**row, "classes": 3}))
    with pytest.raises(DataError, match="not the head of this critic"):
        OutcomeCritic.load(folder)
    (folder / "critic.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        OutcomeCritic.load(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="no model can be read"):
        load_actor(folder)


def test_a_folder_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    """transformers makes a tokenizer without vocabulary for it, and everything would be an unknown word."""
    tiny_t5().save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"no tokenizer can be read.*tokenizer\.json"):
        load_tokenizer(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="no tokenizer can be read"):
        load_tokenizer(tmp_path)


def test_weights_that_do_not_fill_the_model_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path, tiny_t5())
    weights = load_file(folder / "model.safetensors")
    dropped = next(name for name in weights if "SelfAttention.q" in name)
    save_file(
        {name: tensor for name, tensor in weights.items() if name != dropped}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(DataError, match=re.escape(dropped)):
        load_actor(folder)
