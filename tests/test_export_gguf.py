"""GGUF files: every value within its type's rounding; llama.cpp reads the tokens of transformers and replies alike."""

import json
import shutil

import gguf
import numpy as np
import pytest

import export
from exporting import CHATML, chat_task, small_base, tiny_qwen2
from recipekit import gguf_proof, gguf_write
from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.gguf_tokenizer import read_tokenizer
from tiny import tiny_model, tiny_tokenizer


def sentencepiece(folder):
    """Save a Mistral whose tokenizer merges and puts a space before a text, as SentencePiece does."""
    text = 'おはよう今日は雨猫だねうん、。いい別の答えカレー海電車本話をしがき好さっ見た "{}:,[]<>_|abcdefgimnorst\n'
    tokenizer = tiny_tokenizer(folder, text, sentencepiece=True)
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    tokenizer.save_pretrained(folder)
    tiny_model(folder, max_position_embeddings=512)
    return folder


def merged(root, which):
    folder = root / "outputs" / "companion" / "merged"
    if which == "small":
        return small_base(root)
    if which == "sentencepiece":
        return sentencepiece(folder)
    return tiny_qwen2(folder, tied=which == "tied")


@pytest.fixture(scope="module", params=["small", "qwen2", "tied", "sentencepiece"])
def model(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return Exported.of(chat_task(root), merged(root, request.param))


@pytest.fixture
def small(tmp_path):
    return Exported.of(chat_task(tmp_path), small_base(tmp_path))


@pytest.mark.parametrize("kind", gguf_write.TYPES)
def test_every_value_is_within_its_types_rounding(model, kind, tmp_path):
    path = tmp_path / "x.gguf"
    tensors = gguf_write.write_gguf(path, model, kind)
    off = gguf_proof.check_tensors(path, model, tensors)
    assert off == 0 if kind == "f32" else off < 0.05
    wanted = gguf_write.TYPES[kind][0]
    assert {tensor.type for tensor in tensors} == {wanted, gguf.GGMLQuantizationType.F32}
    assert any(tensor.heads for tensor in tensors) == (model.config["model_type"] == "mistral")
    content = bytearray(path.read_bytes())
    content[gguf.GGUFReader(path).tensors[3].data_offset + 1] ^= 0x55  # one byte of one value or scale
    path.write_bytes(content)
    with pytest.raises(UserError, match="is off by"):
        gguf_proof.check_tensors(path, model, tensors)


def test_metadata_is_the_models(model, tmp_path):
    gguf_write.write_gguf(path := tmp_path / "x.gguf", model, "f16")
    found = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    arch = found["general.architecture"]
    assert arch == ("qwen2" if model.config["model_type"] == "qwen2" else "llama")
    assert found[f"{arch}.context_length"] == model.config["max_position_embeddings"]
    assert found["tokenizer.chat_template"] == model.tokenizer.chat_template
    assert found["tokenizer.ggml.eos_token_id"] == model.tokenizer.eos_token_id
    assert found["tokenizer.ggml.add_bos_token"] == (arch == "llama")
    assert len(found["tokenizer.ggml.tokens"]) == model.config["vocab_size"]
    assert found["tokenizer.ggml.pre"] == ("qwen2" if arch == "qwen2" else "default")


def test_llama_cpp_reads_the_tokens_and_gives_the_reply_of_transformers(model, tmp_path):
    pytest.importorskip("xllamacpp", reason="the binding of llama.cpp is not installed")
    gguf_write.write_gguf(path := tmp_path / "x.gguf", model, "f32")
    with gguf_proof.llama_cpp(path, 512) as ask:
        assert gguf_proof.check_tokens(path, model, ask) == 12
        assert gguf_proof.check_greedy(path, model, ask) > 0
        odd = " 二つ  の空白\t𠮷\n\n\nHello, it's 12345 <|im_end|> é😊 "
        if model.tokenizer.backend_tokenizer.pre_tokenizer and model.config["model_type"] == "mistral":
            odd = odd.strip()  # Metaspace puts no space before a space, llama.cpp does
        found = ask("/tokenize", content=odd, add_special=False, parse_special=True)["tokens"]
        assert found == model.tokenizer(odd, add_special_tokens=False)["input_ids"]


def test_llama_cpp_tells_a_wrong_file(small, tmp_path, monkeypatch):
    pytest.importorskip("xllamacpp", reason="the binding of llama.cpp is not installed")
    monkeypatch.setattr(gguf_write.Tensor, "stored", lambda self, values: gguf.quants.quantize(values, self.type))
    gguf_write.write_gguf(path := tmp_path / "x.gguf", small, "f32")  # heads are left as they are
    with gguf_proof.llama_cpp(path, 512) as ask, pytest.raises(UserError, match="likeliest reply"):
        gguf_proof.check_greedy(path, small, ask)
    monkeypatch.undo()
    monkeypatch.setattr("recipekit.gguf_tokenizer.SPACE", "¤")
    gguf_write.write_gguf(path, small, "f32")
    with gguf_proof.llama_cpp(path, 512) as ask, pytest.raises(UserError, match="reads other tokens"):
        gguf_proof.check_tokens(path, small, ask)


def change(folder, name, edit):
    spec = json.loads((folder / name).read_text(encoding="utf-8"))
    edit(spec)
    (folder / name).write_text(json.dumps(spec), encoding="utf-8")


TOKENIZERS = {
    "its model is WordPiece": lambda spec: spec["model"].update(type="WordPiece"),
    "expected 256": lambda spec: spec["model"]["vocab"].update({"<0xZZ>": spec["model"]["vocab"].pop("<0x41>")}),
    "takes for a space": lambda spec: spec["model"]["vocab"].update({"▁": spec["model"]["vocab"].pop("釘")}),
    "and leaves spaces": lambda spec: spec["model"].update(merges=[["a", "b"]]),
    "prepares text by Digits": lambda spec: spec.update(pre_tokenizer={"type": "Digits", "individual_digits": True}),
    "takes blanks in": lambda spec: spec["added_tokens"][3].update(lstrip=True),
    "no merge says so": lambda spec: spec["model"]["vocab"].update({"ab": spec["model"]["vocab"].pop("釘")}),
}


@pytest.mark.parametrize("why", TOKENIZERS)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(small, why):
    change(small.folder, "tokenizer.json", TOKENIZERS[why])
    with pytest.raises(UserError, match=why):
        read_tokenizer(small.folder, 2410)


BYTE_LEVEL = {
    "none of gpt-2": lambda spec: spec["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\d+"),
    "ignore_merges|none of": lambda spec: spec["model"].update(ignore_merges=True),
    "changes text by NFKC": lambda spec: spec.update(normalizer={"type": "NFKC"}),
    "expected ByteLevel": lambda spec: spec.update(pre_tokenizer=None),
    "tokens, the model": lambda spec: spec["model"]["vocab"].update({"あふれる": 9999}),
}


@pytest.mark.parametrize("why", BYTE_LEVEL)
def test_a_byte_level_bpe_that_llama_cpp_does_not_know_is_refused(tmp_path, why):
    folder = tiny_qwen2(tmp_path)
    change(folder, "tokenizer.json", BYTE_LEVEL[why])
    with pytest.raises(UserError, match=why):
        read_tokenizer(folder, 600)


CONFIGS = {
    "architectures: found GemmaForCausalLM": lambda config: config.update(architectures=["GemmaForCausalLM"]),
    "rope_type: found yarn": lambda config: config["rope_parameters"].update(rope_type="yarn"),
    "blk.4.attn_k.weight: missing": lambda config: config.update(num_hidden_layers=5),
    "model.layers.3.mlp.down_proj.weight: no tensor": lambda config: config.update(num_hidden_layers=3),
}


@pytest.mark.parametrize("why", CONFIGS)
def test_a_model_without_a_form_in_gguf_is_refused_and_nothing_is_left(small, why, tmp_path):
    change(small.folder, "config.json", CONFIGS[why])
    with pytest.raises(UserError, match=why):
        export.to_gguf(Exported(small.task, small.folder), tmp_path / "out", export.Kind.f16)
    assert not list((tmp_path / "out").iterdir())


def test_torn_weights_are_told(small, tmp_path):
    weights = small.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model.safetensors: torn"):
        gguf_write.write_gguf(tmp_path / "x.gguf", small, "f16")


def test_a_file_is_there_whole_or_not_at_all(small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(gguf_write.Tensor, "stored", stop)
        export.to_gguf(small, out, export.Kind.q8_0)
    with monkeypatch.context() as patched, pytest.raises(UserError):
        patched.setattr(
            gguf_write.Tensor, "stored", lambda self, values: gguf.quants.quantize(values * 1.01, self.type)
        )
        export.to_gguf(small, out, export.Kind.q8_0)
    assert not list(out.iterdir())
    export.to_gguf(small, out, export.Kind.q8_0)
    assert sorted(path.name for path in out.iterdir()) == ["companion-q8_0.gguf", "companion-q8_0.json"]
    assert "39 tensors" in capsys.readouterr().err


def test_ollama_takes_the_gguf_of_this_very_model(small, tmp_path):
    folder = small.task.outputs / "export" / "gguf"
    assert export.made_gguf(small, None) is None
    export.to_gguf(small, folder, export.Kind.q8_0)
    assert export.made_gguf(small, None) == folder / "companion-q8_0.gguf"
    assert export.made_gguf(small, export.Kind.f32) is None
    change(small.folder, "generation_config.json", lambda config: config.update(eos_token_id=[2, 3]))
    assert export.made_gguf(small, None) is None  # it was made of another model


def test_rows_of_queries_are_turned_and_turned_back():
    tensor = gguf_write.Tensor("q", "q", (8, 2), gguf.GGMLQuantizationType.F32, 2)
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    stored = tensor.stored(rows)
    assert stored[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]  # the halves of each head, by turns
    assert (tensor.values(stored) == rows).all()


def test_the_window_is_the_context(small):
    shutil.copy(small.folder / "config.json", small.folder / "before.json")
    change(small.folder, "config.json", lambda config: config.update(sliding_window=256))
    assert Exported(small.task, small.folder).context == 256
    change(small.folder, "config.json", lambda config: config.update(use_sliding_window=False))
    assert Exported(small.task, small.folder).num_ctx == 4096
