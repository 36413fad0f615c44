"""Tokens and passwords that no artifact may hold, as settings of the environment and of .env."""

ENVIRONMENT = {
    "HF_TOKEN": "hf_canaryInTheEnvironment0123456789",
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY0123",
    "AWS_SECRET_ACCESS_KEY": "canary/of+aws/0123456789",
    "MLFLOW_TRACKING_URI": "http://someone:canary-of-a-url@127.0.0.1:9",
}
DOT_ENV = {
    "HF_AUTH_TOKEN": "hf_canaryInDotEnv0123456789012345678",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow",
    "OPENAI_API_KEY": "sk-canary-0123456789012345",
}
CANARIES = [*ENVIRONMENT.values(), "canary-of-a-url", *DOT_ENV.values()]


def write_env(root):
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in DOT_ENV.items()))
    (root / ".env").chmod(0o600)


def holding(root, *texts):
    """Name the files below a folder, but .env, and the texts, that hold a canary."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    files |= {f"text {i}": text.encode() for i, text in enumerate(texts)}
    return {
        (name, canary)
        for name, data in files.items()
        for canary in CANARIES
        if name != ".env" and canary.encode() in data
    }
