"""Secrets in text. Tokens are put together from pieces here, so that no scanner of this repository stumbles on them."""

import base64
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipekit import ROOT, secret_scan
from recipekit.content_scan import texts
from recipekit.segments import read_jsonl

LETTERS = "aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789" * 3
JWT = ".".join(base64.urlsafe_b64encode(json.dumps({"alg": part}).encode()).decode() for part in ("HS256", "me")) + ".x"
TOKENS = {
    "Hugging Face token": "hf_" + LETTERS[:34],
    "OpenAI or Anthropic key": "sk-" + "proj-" + LETTERS[:40],
    "GitHub token": "github_pat_" + LETTERS[:60],
    "GitHub Token": "ghp_" + LETTERS[:36],
    "AWS Access Key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "Slack token": "xoxb-" + LETTERS[:40],
    "Google API key": "AIza" + LETTERS[:35],
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "JSON Web Token": JWT,
    "password in a URL": "https://user:" + "pa55word@db.example.jp/x",
    "npm token": "/:" + "_authToken=npm_" + LETTERS[:36],
    "GitLab Token": "glpat-" + LETTERS[:20],
    "Stripe Access Key": "sk_live_" + LETTERS[:24],
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("text", ["{}", "鍵は{}です。", "KEY={}\n次の行", '"{}"', "（{}）"])
def test_a_token_is_found_in_japanese_text(name, text):
    (secret,) = secret_scan.find(text.format(TOKENS[name]))
    assert secret.name == name and secret.kind == "secret"
    assert text.format(TOKENS[name])[secret.start : secret.end].startswith(TOKENS[name][:10])


@pytest.mark.parametrize(
    "key", ["sk-" + LETTERS[:48], "sk-" + "ant-api03-" + LETTERS[:30], "sk-" + "or-v1-" + LETTERS[:30]]
)
def test_other_forms_of_keys(key):
    assert [secret.name for secret in secret_scan.find(f"鍵{key}")] == ["OpenAI or Anthropic key"]


@pytest.mark.parametrize(
    "text",
    [
        "詳しくはhttps://example.jpまで。12:30開演、問い合わせは@hallへ",
        "https://example.jp:8080/a@b と http://example.jp/?q=a:b@c",
        "APC00000012 APARTMENTHOUSE",
        "sk-learn と desk-organizer-2024 と hf_space",
        "192.0.2.1 と 203.0.113.7",
        "password: ひらけごま",
        "BEGIN PUBLIC KEY",
        "ｈｆ＿あいうえお",
        "eyJ だけでは何でもない",
    ],
)
def test_what_is_no_secret(text):
    assert list(secret_scan.find(text)) == []


@pytest.mark.parametrize("unit", ["a-", "a.", "a:", "://", "//x/", "eyJ", "eyJa.", "hf_", "-----BEGIN A ", "a@", "x"])
def test_no_text_takes_the_square_of_its_length(unit):
    find = "import sys; from recipekit import secret_scan; list(secret_scan.find(sys.argv[1] * 200_000))"
    command = [sys.executable, "-c", find, unit]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "tools")}, timeout=20, check=True)


def test_nothing_is_found_in_the_samples():
    for name in ("hawks_train", "person_dummy", "hawks_val"):
        for _, row in read_jsonl(ROOT / f"data/samples/hawks/{name}.jsonl"):
            assert list(secret_scan.find("\n".join(texts(row)))) == []


def test_the_own_token_is_told_from_others_even_inside_a_password():
    own = "hf_" + "Z" * 34
    text = f"https://user:{own}@example.jp/ と{own}、{TOKENS['GitHub Token']}"
    found = list(secret_scan.find(text, own))
    assert sorted(secret.kind for secret in found) == ["own_token", "own_token", "secret"]
    assert [text[s.start : s.end] for s in found if s.kind == "own_token"] == [own, own]
    assert [secret.kind for secret in secret_scan.find(f"語x{own[:-1]}Zy", own)] == ["own_token"]


def test_a_token_in_a_url_counts_once():
    text = f"https://user:{TOKENS['GitHub Token']}@example.jp/"
    assert [secret.name for secret in secret_scan.find(text)] == ["password in a URL"]


@given(
    st.text(),
    st.sampled_from(sorted(TOKENS)),
    st.text(alphabet=st.characters(min_codepoint=0x3041, max_codepoint=0x30FF)),
)
def test_findings_do_not_overlap_and_no_token_hides(before, name, after):
    text = f"{before}。{TOKENS[name]}{after}"
    found = sorted(secret_scan.find(text), key=lambda secret: secret.start)
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert any(s.start <= len(before) + 1 < s.end or s.start == len(before) + 1 for s in found)
