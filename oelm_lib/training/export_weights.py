"""Weights for other tools: safetensors with the experiment, or a GPT-2 of `transformers`."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oelm_lib.data.corpus import TOKENIZER_FILE
from oelm_lib.data.gpt2_vocabulary import read_gpt2_file
from oelm_lib.data.tokenizer import END_OF_TEXT
from oelm_lib.errors import UserError
from oelm_lib.files import as_user_error, write_json, write_text
from oelm_lib.model.additions import unfolded
from oelm_lib.model.gpt import Block
from oelm_lib.runs.schema import EXPORT_FORMS
from oelm_lib.training.trained import Trained


def export_model(trained: Trained, form: str, folder: Path) -> Path:
    """Write the model into a new folder, whole or not at all; return the folder.

    Args:
        form: safetensors (model.safetensors with the names of the state dict; config.json with
            experiment, seed and step), or huggingface (a GPT-2 of `transformers`, with tokenizer).

    Raises:
        UserError: Another form, the folder exists or cannot be written, or GPT-2 cannot express
            the arm.
    """
    if form not in EXPORT_FORMS:
        raise UserError(f"form = {form!r} is unknown; allowed: {', '.join(EXPORT_FORMS)}")
    if form == "huggingface":
        weights, config = gpt2_weights(trained), gpt2_config(trained)
    else:
        weights = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
        config = {"experiment": trained.config.to_dict()}
    config["oelm"] = {
        "run": trained.name,
        "seed": trained.seed,
        "step": trained.step,
        "corpus": trained.corpus.name,
    }
    if folder.exists():
        raise UserError(f"{folder}: exists already; delete it or name another with --output")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with as_user_error(folder, "cannot be written"):
            part.mkdir(parents=True)
            _write_weights(weights, config, part)
            _write_corpus_tokenizer(trained, form, part)
            os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_weights(weights: dict[str, Tensor], config: dict[str, Any], folder: Path) -> None:
    from safetensors.torch import save

    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    # `save_file` raises a SafetensorError without a number where the disk is full.
    (folder / "model.safetensors").write_bytes(save(contiguous, {"format": "pt"}))
    write_json(folder / "config.json", config)


def _write_corpus_tokenizer(trained: Trained, form: str, folder: Path) -> None:
    tokenizer = trained.corpus.path / TOKENIZER_FILE
    if form == "huggingface":
        source = tokenizer if tokenizer.is_file() else None
        write_tokenizer(source, trained.config.model.max_seq_len, folder)
    elif tokenizer.is_file():
        shutil.copy(tokenizer, folder)


def gpt2_weights(trained: Trained) -> dict[str, Tensor]:
    """Return the weights in GPT-2's names and layouts.

    Q, K and V are packed in c_attn, matrices are transposed, absent biases are 0. Additions that
    fold (`Addition.folds`) are folded into c_attn.

    Raises:
        UserError: GPT-2 has no such arithmetic.
    """
    cfg, model = trained.config.model, trained.model
    if trained.corpus.recall:
        raise UserError(
            f"{trained.name}: its ids are no text, so GPT-2 has no tokenizer for them; use"
            " --format safetensors"
        )
    if reasons := unfolded(cfg):
        raise UserError(
            f"{trained.name}: GPT-2 cannot express {'; '.join(reasons)}; use --format safetensors"
        )
    weights = {
        "transformer.wte.weight": model.token_embedding.weight,
        "transformer.wpe.weight": model.position_embedding.weight,
        "transformer.ln_f.weight": model.ln_out.weight,
        "transformer.ln_f.bias": model.ln_out.bias,
    }
    for layer, block in enumerate(model.blocks):
        for name, tensor in _gpt2_block(block).items():
            weights[f"transformer.h.{layer}.{name}"] = tensor
    return {name: tensor.detach() for name, tensor in weights.items()}


def _gpt2_block(block: Block) -> dict[str, Tensor]:
    """The tensors of one block by GPT-2's names; its Conv1D holds (inputs, outputs)."""
    attention = block.attention
    (query, query_bias), (key, key_bias) = attention.as_linear()
    value, output = attention.v_proj.weight, attention.o_proj.weight
    zero = torch.zeros(len(value))
    return {
        "ln_1.weight": block.ln1.weight,
        "ln_1.bias": block.ln1.bias,
        "attn.c_attn.weight": torch.cat([query, key, value]).T,
        "attn.c_attn.bias": torch.cat([query_bias, key_bias, zero]),
        "attn.c_proj.weight": output.T,
        "attn.c_proj.bias": zero,
        "ln_2.weight": block.ln2.weight,
        "ln_2.bias": block.ln2.bias,
        "mlp.c_fc.weight": block.fc_in.weight.T,
        "mlp.c_fc.bias": block.fc_in.bias,
        "mlp.c_proj.weight": block.fc_out.weight.T,
        "mlp.c_proj.bias": block.fc_out.bias,
    }


def gpt2_config(trained: Trained) -> dict[str, Any]:
    """Return the config.json of `transformers`."""
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
        "resid_pdrop": cfg.dropout,
        "embd_pdrop": cfg.dropout,
        "attn_pdrop": cfg.dropout,
        "bos_token_id": eot,
        "eos_token_id": eot,
    }


def write_tokenizer(source: Path | None, length: int, folder: Path) -> None:
    """Write tokenizer.json and its config for `transformers`, with end-of-text as special token.

    Args:
        source: tokenizer.json of the corpus; None: GPT-2's own vocabulary.
        length: Longest context in tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if source:
        tokenizer = Tokenizer.from_file(str(source))
    else:
        lines = read_gpt2_file("vocab.bpe").decode().splitlines()[1:]
        merges = [tuple(line.split()) for line in lines]
        tokenizer = Tokenizer(models.BPE(json.loads(read_gpt2_file("encoder.json")), merges))
        tokenizer.decoder = decoders.ByteLevel()
    # The workbook's own encoder splits words as GPT-2 does; a trained tokenizer.json says so too.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    config = {
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
    }
    write_json(folder / "tokenizer_config.json", config)
