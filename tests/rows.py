"""Segments rows for tests, and a tokenizer for them that needs no file."""

import json

from tokenizers import AddedToken

from recipekit import segments


class Characters:
    """A tokenizer of characters, with the special tokens as one token each."""

    bos_token, eos_token, bos_token_id, eos_token_id, unk_token_id = "<s>", "</s>", 1, 2, None
    added_tokens_decoder = {1: AddedToken("<s>", special=True), 2: AddedToken("</s>", special=True)}

    def __call__(self, texts, **_):
        single = isinstance(texts, str)
        ids = [self._ids(text) for text in ([texts] if single else texts)]
        return {"input_ids": ids[0] if single else ids}

    def _ids(self, text):
        for special, token in (("<s>", "\x01"), ("</s>", "\x02")):
            text = text.replace(special, token)
        return [ord(character) for character in text]

    def decode(self, ids, **_):
        return "".join({1: "<s>", 2: "</s>"}.get(i, chr(i)) for i in ids)

    def convert_ids_to_tokens(self, ids):
        return [self.decode([i]) for i in ids]


def row(task, body, *names):
    return segments.build(task, body, {"persons": [{"name": name} for name in names]})


def write(task, name, rows):
    path = task.segments_path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def invert(r):
    for segment in r["segments"]:
        segment["label"] = not segment["label"]
