"""AWS for tools/sagemaker.py: a connection, and its errors in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recipekit.errors import UserError
from recipekit.hub import masked

GUIDE = "docs/cloud.md"
POLICIES = (
    "the user or role that you sign in as needs the policies AmazonSageMakerFullAccess and AmazonS3FullAccess, and "
    "iam:PassRole on SAGEMAKER_ROLE_ARN"
)
TRUST = (
    "the role of SAGEMAKER_ROLE_ARN must exist, carry the policies AmazonSageMakerFullAccess and AmazonS3FullAccess, "
    "and name sagemaker.amazonaws.com as a principal in its trust relationship"
)
SIGN_IN = "sign in anew: aws configure, or aws sso login; aws sts get-caller-identity shows as whom"
BUCKET = "look at SAGEMAKER_BUCKET in .env; make the bucket with: aws s3 mb s3://NAME --region REGION"
REGION = "the bucket is in another region than AWS_REGION in .env; training reads only from its own"
QUOTA = (
    "your account may not use that many of this machine; ask for more at Service Quotas, Amazon SageMaker, '<machine> "
    "for training job usage' (or '... for spot training job usage'), or name another --machine"
)
REMEDIES = {
    "AccessDenied": POLICIES,
    "AccessDeniedException": POLICIES,
    "403": POLICIES,
    "NoSuchBucket": BUCKET,
    "404": BUCKET,
    "InvalidBucketName": BUCKET,
    "301": REGION,
    "PermanentRedirect": REGION,
    "AuthorizationHeaderMalformed": REGION,
    "ResourceLimitExceeded": QUOTA,
    "ExpiredToken": SIGN_IN,
    "ExpiredTokenException": SIGN_IN,
    "InvalidAccessKeyId": SIGN_IN,
    "InvalidClientTokenId": SIGN_IN,
    "UnrecognizedClientException": SIGN_IN,
    "SignatureDoesNotMatch": SIGN_IN,
    "ThrottlingException": "too many requests; wait a minute and run the same command again",
}


class Aws:
    """A connection to AWS in one region.

    Attributes:
        s3: boto3's client.
        sagemaker: boto3's client.
    """

    def __init__(self, region: str) -> None:
        """Connect.

        Raises:
            UserError: boto3 is not installed, or there are no credentials.
        """
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise UserError("boto3 is not installed; install it with: uv sync --extra cloud") from None
        config = Config(connect_timeout=10, retries={"mode": "standard", "max_attempts": 3})
        self._secrets: list[str] = []
        with self.explained("connecting"):
            session = boto3.Session(region_name=region)
            credentials = session.get_credentials()
            if credentials is None:
                raise UserError(f"AWS: no credentials found; {SIGN_IN}; {GUIDE} has it step by step")
            frozen = credentials.get_frozen_credentials()
            self._secrets = [text for text in (frozen.access_key, frozen.secret_key, frozen.token) if text]
            self._session, self._config = session, config
            self.s3, self.sagemaker = self.client("s3"), self.client("sagemaker")

    def client(self, service: str) -> Any:
        """Open a service of AWS by its name."""
        return self._session.client(service, config=self._config)

    @contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn what boto3 raises into a UserError: what failed, why and what to do, without credentials."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code, text = error.response["Error"].get("Code", "?"), error.response["Error"].get("Message", "")
            raise UserError(f"{action}: {self.redacted(text)} ({code}); {_remedy(code, text)}") from None
        except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
            raise UserError(f"{action}: {self.redacted(str(error))}; {_client_remedy(error)}") from None

    def redacted(self, text: str) -> str:
        """Take credentials, and passwords of URLs, out of a text, and put it on one line."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(masked(word) if "://" in word else word for word in text.split())


def _remedy(code: str, text: str) -> str:
    lower = text.lower()
    if code == "ValidationException" and ("assume" in lower or ("role" in lower and "invalid" in lower)):
        return TRUST
    return f"{REMEDIES.get(code, 'mend what it names')}; see {GUIDE}"


def _client_remedy(error: Exception) -> str:
    name = type(error).__name__
    if "Credential" in name or "Token" in name or "SSO" in name or "Profile" in name:
        return SIGN_IN
    if "Connect" in name or "Endpoint" in name or "Timeout" in name:
        return "AWS cannot be reached; check the network, AWS_REGION, and AWS_ENDPOINT_URL where that is set"
    return f"mend what it names; see {GUIDE}"


def failure_remedy(reason: str) -> str:
    """Say what to do about the FailureReason of a job."""
    lower = reason.lower()
    if "capacityerror" in lower or "insufficient capacity" in lower:
        return "no such machine is free now: wait, name another --machine, or say --no-spot"
    if "out of memory" in lower or "outofmemory" in lower:
        return (
            "AUTO_OOM=1 before the command lets the job go on with less memory; or halve micro_batch_size and double "
            "gradient_accumulation_steps in the phase's YAML, or take a larger --machine"
        )
    if "accessdenied" in lower or "access denied" in lower or "not authorized" in lower or "permission" in lower:
        return TRUST
    if "image" in lower and ("pull" in lower or "not found" in lower or "ecr" in lower):
        return (
            "look at SAGEMAKER_IMAGE in .env: it must be in ECR, in AWS_REGION, and the role must be allowed to pull it"
        )
    return "mend what it names and run the same command again; training goes on from its last checkpoint"
