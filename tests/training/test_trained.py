"""Trained models read from run folders: text, exports, and one line for what is wrong."""

import json
import re
import shutil

import pytest
import torch
from click.testing import CliRunner

from oelm_lib import training
from oelm_lib.cli import main
from oelm_lib.errors import UserError
from tests.full_disk import file_size_limit

SAME = 1e-4


@pytest.fixture
def trained(tiny_run, monkeypatch):
    """A function that trains a tiny run and opens it."""
    from oelm_lib.training import open_trained

    def make(exp="DEMO-02", **changes):
        run = tiny_run(exp, train__max_steps=6, **changes)
        training.train(run)
        monkeypatch.setenv("OELM_OUTPUTS", str(run.path.parents[1]))
        return open_trained(run)

    return make


def oelm(*arguments):
    return CliRunner().invoke(main, arguments)


def test_generate_prints_the_prompt_and_what_follows_the_same_for_a_seed(trained):
    name = trained().name
    arguments = ("generate", name, "--prompt", "The owl", "--tokens", "5", "--samples", "2")
    first, again, other = oelm(*arguments), oelm(*arguments), oelm(*arguments, "--seed", "1")
    assert first.exit_code == 0, first.output
    assert first.output.count("The owl") == 2
    assert first.output == again.output != other.output
    greedy = oelm(
        "generate",
        name,
        "--temperature",
        "0",
        "--top-k",
        "3",
        "--top-p",
        "0.5",
        "--checkpoint",
        "best",
    )
    assert greedy.exit_code == 0, greedy.output


def test_continuations_are_those_of_seed_0_unless_another_is_given(trained):
    model = trained()
    assert model.continued("The owl", 8) == model.continued("The owl", 8, seed=0)
    assert model.continued("The owl", 8) != model.continued("The owl", 8, seed=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", ""], "the prompt is empty; give at least one word"),
        (["--prompt", "owl " * 60], r"the context 16; leave out [0-9]+$"),
        (
            ["--checkpoint", "first"],
            "checkpoint 'first' is unknown; allowed: latest, best, latest.prev",
        ),
    ],
)
def test_a_bad_prompt_or_checkpoint_is_one_line(trained, arguments, words):
    done = oelm("generate", trained().name, *arguments)
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert re.search(words, done.output.strip())


def test_a_run_without_its_checkpoint_names_those_that_are_there(trained):
    from oelm_lib.training import open_trained

    model = trained()
    (model.path / "latest.pt").unlink()
    with pytest.raises(
        UserError, match=r"has no latest.pt; use --checkpoint best or .*oelm run DEMO-02 --seed 1"
    ):
        open_trained(model.path)
    with pytest.raises(UserError, match="no run is called 'DEMO-77'"):
        open_trained("DEMO-77")
    (model.path / "best.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="4 bytes that fail their checksum; use"):
        open_trained(model.path, "best")


def test_a_checkpoint_of_another_architecture_is_refused(trained):
    from oelm_lib.training import open_trained

    model, other = trained(), trained(model__d_model=32)
    shutil.copy(other.path / "latest.pt", model.path / "latest.pt")
    with pytest.raises(
        UserError,
        match=r"holds another architecture than config.yaml \(size mismatch for token_emb",
    ):
        open_trained(model.path)


def test_safetensors_hold_the_state_dict_and_the_experiment(trained):
    from safetensors.torch import load_file

    model = trained()
    done = oelm("export", model.name)
    assert done.exit_code == 0, done.output
    folder = model.path / "safetensors"
    state = model.model.state_dict()
    loaded = load_file(folder / "model.safetensors")
    assert {name: value.tolist() for name, value in loaded.items()} == {
        n: v.tolist() for n, v in state.items()
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"] == model.config.to_dict()
    assert config["oelm"]["step"] == 6
    assert "exists already" in oelm("export", model.name).output


FOLDED = {
    "qk_bias": True,
    "qk_gain": True,
    "head_temperature": True,
    "qk_core": True,
    "delta_rank": 2,
}


def gpt2_logits(weights, heads, tokens):
    """Logits of GPT-2 as its paper and code define it, from weights in its names."""
    f = torch.nn.functional

    def norm(x, name):
        return f.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["transformer.wte.weight"][tokens]
    x = x + weights["transformer.wpe.weight"][: tokens.shape[1]]
    for layer in range(sum(name.endswith(".ln_1.weight") for name in weights)):
        block = f"transformer.h.{layer}"
        qkv = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in qkv)
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(y, f"{block}.attn.c_proj")
        hidden = f.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x = x + linear(hidden, f"{block}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ weights["transformer.wte.weight"].T


@torch.no_grad()
def move(model):
    """Move every parameter from its start."""
    for weight in model.parameters():
        weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("changes", [{}, FOLDED], ids=["plain", "folded"])
def test_weights_in_gpt2s_names_give_the_same_logits(trained, changes):
    from oelm_lib.training.export_weights import gpt2_weights

    model = trained(**{f"model__{key}": value for key, value in changes.items()})
    tokens = model.encode("The owl asked Lily")
    move(model.model)
    with torch.no_grad():
        found = gpt2_logits(gpt2_weights(model), model.config.model.num_heads, tokens)
        torch.testing.assert_close(found, model.model(tokens)[0], rtol=SAME, atol=SAME)


def test_an_export_for_transformers_has_the_tokenizer_of_its_corpus(trained, tmp_path):
    from tokenizers import Tokenizer

    from oelm_lib.training import export_model

    model, text = trained(), "The owl asked Lily, who had 3 cakes."
    folder = export_model(model, "huggingface", tmp_path / "gpt2")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text).ids == model.tokenizer.encode_documents([text])[0].tolist()


def test_an_unknown_form_of_export_is_refused(trained, tmp_path):
    from oelm_lib.training import export_model

    with pytest.raises(UserError, match="form = 'gpt2' is unknown; allowed: safetensors, hugging"):
        export_model(trained(), "gpt2", tmp_path / "gpt2")
    assert not (tmp_path / "gpt2").exists()


@pytest.mark.parametrize("form", ["safetensors", "huggingface"])
def test_an_export_that_a_full_disk_ends_is_one_line_and_leaves_nothing(trained, tmp_path, form):
    from oelm_lib.training import export_model

    model, folder = trained(), tmp_path / "exports" / form
    message = f"{form}: cannot be written: File too large; raise"
    with file_size_limit(2000), pytest.raises(UserError, match=message):
        export_model(model, form, folder)
    assert not list(folder.parent.iterdir())
    assert export_model(model, form, folder) == folder
    assert [path.name for path in folder.parent.iterdir()] == [form]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, FOLDED, {"qk_tied": True}], ids=["plain", "folded", "tied"]
)
def test_transformers_gives_the_same_logits_and_greedy_text(trained, tmp_path, changes):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (extra: bench)"
    )
    from oelm_lib.training import export_model

    model = trained(**{f"model__{key}": value for key, value in changes.items()})
    move(model.model)
    folder = export_model(model, "huggingface", tmp_path / "gpt2")
    other = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "The owl asked Lily, who had 3 cakes: \"Is it far?\"  \n'No.'"
    tokens = tokenizer(text, return_tensors="pt").input_ids
    assert torch.equal(
        tokens, torch.tensor(model.tokenizer.encode_documents([text])[0].tolist())[None]
    )
    assert tokenizer.decode(tokens[0]) == text
    assert tokenizer.eos_token_id == model.corpus.eot
    tokens = tokens[:, : model.config.model.max_seq_len]
    with torch.no_grad():
        torch.testing.assert_close(
            other(tokens).logits, model.model(tokens)[0], rtol=SAME, atol=SAME
        )
    found = other.generate(tokens[:, :4], max_new_tokens=8, do_sample=False, eos_token_id=None)[
        0, 4:
    ]
    from oelm_lib.model.generation import generate

    assert torch.equal(
        found, generate(model.model, tokens[:, :4], 8, torch.Generator(), temperature=0.0)[0]
    )


@pytest.mark.slow
def test_transformers_reads_gpt2_tokens(tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (extra: bench)"
    )
    from oelm_lib.data.tokenizer import gpt2_tokenizer
    from oelm_lib.training.export_weights import write_tokenizer

    write_tokenizer(None, 64, tmp_path)
    text = "A naïve café, 1,000 €:\n\n\tit's  shut."
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(text).input_ids == gpt2_tokenizer().encode_documents([text])[0].tolist()
    assert tokenizer.eos_token_id == 50256


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key_conv": True}, "key_conv"),
        ({"key_shift": True}, "key_shift"),
        ({"qk_norm": True, "head_gate": 2}, "qk_norm; head_gate"),
        ({"forget_gate": True}, "forget_gate"),
        ({"position": "rope"}, "rope; use --format safetensors"),
    ],
)
def test_arms_that_gpt2_cannot_express_are_refused_with_the_reason(
    trained, tmp_path, changes, reason
):
    from oelm_lib.training import export_model

    model = trained(**{f"model__{key}": value for key, value in changes.items()})
    with pytest.raises(UserError, match=f"GPT-2 cannot express {reason}"):
        export_model(model, "huggingface", tmp_path / "gpt2")
    assert not (tmp_path / "gpt2").exists()
