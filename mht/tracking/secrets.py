"""What a tracking address holds for MLflow alone: passwords and tokens are never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"
ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_S3_ENDPOINT_URL")
SECRETS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DATABRICKS_TOKEN",
)
IN_AUTHORITY = re.compile(r"(://)[^\s'\"]+@")  # greedy: a password may hold / or @
IN_QUERY = re.compile(
    r"(?i)([?&;][\w.-]*(?:pass|pwd|token|secret|key|auth|sig|cred)[\w.-]*=)[^&;\s'\"]+"
)
SHORTEST = 4  # letters; a shorter secret would mask ordinary words


def redacted(text: str) -> str:
    """The text without the credentials of this process's tracking address, or of any other."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return IN_QUERY.sub(rf"\1{MASK}", IN_AUTHORITY.sub(rf"\1{MASK}@", text))


def one_line(error: BaseException) -> str:
    """The error's kind and the first line of its message that says why; no credentials."""
    lines = [line for line in str(error).strip().splitlines() if "autoflush" not in line] or [""]
    return f"{type(error).__name__}: {redacted(lines[0])[:300]}".removesuffix(": ")


def _secrets() -> Iterator[str]:
    """The values themselves, which a library's message may quote alone."""
    found = [os.environ.get(name, "") for name in SECRETS]
    for address in filter(None, map(os.environ.get, ADDRESSES)):
        user = address.partition("://")[2].rpartition("@")[0]
        name, _, password = user.partition(":")
        found += [user, password or name]  # a name alone is a token
        found += re.split(r"[/?#@]", password)  # where one of these was not escaped
        asks = parse_qsl(urlsplit(address).query)
        found += [value for key, value in asks if IN_QUERY.search(f"?{key}={value}")]
    for secret in found:
        if len(secret) >= SHORTEST:
            yield from {secret, unquote(secret)}
