"""Random tokens and codes, of which only a hash is stored.

256 random bits cannot be guessed, so that a plain SHA-256 is as safe as a slow password hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

_CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's Base32, without characters that are easily confused."""
_MISREAD = str.maketrans("OIL", "011")
_CODE_LENGTH = 25
"""Characters of 5 bits: 125 random bits."""

_DEVICE = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")


def new_token() -> str:
    """Return a session token of 43 characters, all allowed in cookies.

    OWASP's Session Management Cheat Sheet requires 64 random bits; these are 256.
    """
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str | None:
    """Return the hash that is stored of a token, or None if the text is not a token."""
    return sha256(token) if _TOKEN.fullmatch(token) else None


def new_code() -> str:
    """Return an invitation code in readable groups, such as ``4T8QX-…``."""
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
    return "-".join(re.findall(".{5}", letters))


def code_hash(code: str) -> str | None:
    """Return the hash that is stored of a code, however it was typed; None if it is not a code."""
    plain = re.sub(r"[\s-]", "", code).upper().translate(_MISREAD)
    whole = len(plain) == _CODE_LENGTH and set(plain) <= set(_CODE_LETTERS)
    return sha256(plain) if whole else None


def new_device_key() -> str:
    """Return a new secret of an account, which signs the device cookies of its browsers."""
    return secrets.token_hex(32)


def new_device(account_id: str, device_key: str) -> str:
    """Return a device cookie, which identifies a browser where the account signed in before.

    It does not sign in: failed attempts with it are only counted separately (OWASP, "Slow Down
    Online Guessing Attacks with Device Cookies").
    """
    nonce = secrets.token_urlsafe(16)
    return f"{nonce}.{_signature(account_id, device_key, nonce)}"


def device_nonce(device: str | None, account_id: str, device_key: str) -> str | None:
    """Return the nonce of a device cookie, or None if it is not genuine for this account."""
    found = _DEVICE.fullmatch(device or "")
    if found is None:
        return None
    nonce, signature = found.groups()
    genuine = hmac.compare_digest(signature, _signature(account_id, device_key, nonce))
    return nonce if genuine else None


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _signature(account_id: str, device_key: str, nonce: str) -> str:
    message = f"{account_id}.{nonce}".encode()
    return hmac.new(bytes.fromhex(device_key), message, hashlib.sha256).hexdigest()
