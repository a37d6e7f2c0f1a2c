"""Weights for other tools: safetensors with the experiment, or a GPT-2 folder that `transformers` loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oelm_lib.config import ModelConfig
from oelm_lib.data.corpus import TOKENIZER_FILE
from oelm_lib.data.gpt2_vocabulary import read_gpt2_file
from oelm_lib.data.tokenizer import END_OF_TEXT
from oelm_lib.errors import UserError
from oelm_lib.files import write_json, write_text
from oelm_lib.model.additions import unfolded
from oelm_lib.training.trained import Trained


def export(trained: Trained, form: str, folder: Path) -> Path:
    """Write the model into a new folder; returns it.

    safetensors: model.safetensors with the state dict's names, config.json with experiment, seed and step.
    huggingface: a GPT-2 of `transformers` with its tokenizer.

    Raises:
        UserError: The folder is there already, safetensors is not installed, or GPT-2 cannot express the arm.
    """
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise UserError(
            "export needs safetensors; install it: pip install -c constraints.txt -e '.[bench]'"
        ) from None
    if form == "huggingface":
        weights, config = gpt2_weights(trained), gpt2_config(trained)
    else:
        weights = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
        config = {"experiment": trained.config.to_dict()}
    if folder.exists():
        raise UserError(f"{folder}: is there already; delete it or name another with --output")
    folder.mkdir(parents=True)
    origin = {
        "run": trained.name,
        "seed": trained.seed,
        "step": trained.step,
        "corpus": trained.corpus.name,
    }
    whole = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", config | {"oelm": origin})
    if form == "huggingface":
        source = trained.corpus.path / TOKENIZER_FILE
        write_tokenizer(
            source if source.is_file() else None, trained.config.model.max_seq_len, folder
        )
    elif (trained.corpus.path / TOKENIZER_FILE).is_file():
        shutil.copy(trained.corpus.path / TOKENIZER_FILE, folder)
    return folder


def gpt2_weights(trained: Trained) -> dict[str, Tensor]:
    """GPT-2's names and layouts: Q, K, V packed in c_attn, matrices transposed, biases 0 where there are none.

    Biases, gains, temperatures, core and low-rank matrices of Q and K are folded into c_attn.

    Raises:
        UserError: GPT-2 has no such arithmetic.
    """
    cfg, model = trained.config.model, trained.model
    if trained.corpus.recall:
        raise UserError(
            f"{trained.name}: its ids are no text, so GPT-2 has no tokenizer for them; use --format safetensors"
        )
    if reasons := _beyond_gpt2(cfg):
        raise UserError(
            f"{trained.name}: GPT-2 cannot express {'; '.join(reasons)}; use --format safetensors"
        )
    weights = {
        "transformer.wte.weight": model.token_embedding.weight,
        "transformer.wpe.weight": model.position_embedding.weight,
        "transformer.ln_f.weight": model.ln_out.weight,
        "transformer.ln_f.bias": model.ln_out.bias,
    }
    for number, block in enumerate(model.blocks):
        attention, zero = block.attention, torch.zeros(cfg.d_model)
        (query, query_bias), (key, key_bias) = attention.as_linear()
        layers = {
            "attn.c_attn": (
                torch.cat([query, key, attention.v_proj.weight]),
                torch.cat([query_bias, key_bias, zero]),
            ),
            "attn.c_proj": (attention.o_proj.weight, zero),
            "mlp.c_fc": (block.fc_in.weight, block.fc_in.bias),
            "mlp.c_proj": (block.fc_out.weight, block.fc_out.bias),
        }
        for name, (weight, bias) in layers.items():  # GPT-2's Conv1D holds (inputs, outputs)
            weights |= {
                f"transformer.h.{number}.{name}.weight": weight.T,
                f"transformer.h.{number}.{name}.bias": bias,
            }
        for name, norm in (("ln_1", block.ln1), ("ln_2", block.ln2)):
            weights |= {
                f"transformer.h.{number}.{name}.{key}": value
                for key, value in norm.named_parameters()
            }
    return {name: tensor.detach() for name, tensor in weights.items()}


def gpt2_config(trained: Trained) -> dict[str, Any]:
    """config.json of `transformers`."""
    cfg, eot = trained.config.model, trained.corpus.eot
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.max_seq_len,
        "n_embd": cfg.d_model,
        "n_layer": cfg.num_layers,
        "n_head": cfg.num_heads,
        "n_inner": cfg.d_ff,
        "activation_function": "gelu",
        "layer_norm_epsilon": trained.model.ln_out.eps,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), cfg.dropout),
        **dict.fromkeys(("bos_token_id", "eos_token_id"), eot),
    }


def _beyond_gpt2(cfg: ModelConfig) -> list[str]:
    """Names of the additions to attention that GPT-2's weights cannot hold."""
    return unfolded(cfg)


def write_tokenizer(source: Path | None, length: int, folder: Path) -> None:
    """tokenizer.json for `transformers`, with end-of-text as its special token; source None: GPT-2's own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if source:
        library = Tokenizer.from_file(str(source))
    else:
        merges = [
            tuple(line.split()) for line in read_gpt2_file("vocab.bpe").decode().splitlines()[1:]
        ]
        library = Tokenizer(models.BPE(json.loads(read_gpt2_file("encoder.json")), merges))
        library.decoder = decoders.ByteLevel()
    # The workbook's own encoder splits words as GPT-2 does; a trained tokenizer.json says the same.
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    write_text(folder / "tokenizer.json", library.to_str())
    special = {f"{kind}_token": END_OF_TEXT for kind in ("bos", "eos", "unk")}
    write_json(
        folder / "tokenizer_config.json",
        special | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length},
    )
