"""Print the Hub's token from AWS Secrets Manager, inside a job: no job definition may hold it."""

import json
from typing import Annotated

import typer

from recipekit.aws import Aws
from recipekit.console import main
from recipekit.errors import UserError


def secret(arn: Annotated[str, typer.Argument(help="of the secret: the token, or JSON with the key HF_TOKEN")]) -> None:
    """Print the secret."""
    parts = arn.split(":")
    if len(parts) < 7:
        raise UserError("HF_SECRET_ARN: expected arn:aws:secretsmanager:<region>:<account>:secret:<name>")
    print(read(Aws(parts[3]), arn))


def read(aws: Aws, arn: str) -> str:
    """Fetch a secret.

    Raises:
        UserError: It is not there, may not be read, or holds no token.
    """
    with aws.explained("the secret of HF_SECRET_ARN"):
        text = aws.client("secretsmanager").get_secret_value(SecretId=arn).get("SecretString", "")
    token = text.strip()
    if token.startswith("{"):
        try:
            token = str(json.loads(token).get("HF_TOKEN", ""))
        except ValueError:
            token = ""
    if not token or any(character.isspace() for character in token):
        raise UserError("the secret of HF_SECRET_ARN: expected the token, or JSON with the key HF_TOKEN")
    return token


if __name__ == "__main__":
    main(secret)
