"""Passwords that both applications accept: raw bcrypt, as the old one writes it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import BCryptPasswordHasher

#: bcrypt reads no further.  The library of the old application cuts silently, the
#: Python one raises ValueError from version 5 on.
BCRYPT_BYTES = 72


class LegacyBCryptPasswordHasher(BCryptPasswordHasher):
    """Django's bcrypt hasher, agreeing with the old application on every password.

    A password longer than 72 bytes is cut as bcrypt itself does (in bytes, even within
    a character).  A stored value that only looks like bcrypt never matches, and never
    raises: the legacy column holds whatever was put into it.
    """

    def encode(self, password: str, salt: bytes) -> str:  # type: ignore[override]
        bcrypt: Any = self._load_library()  # type: ignore[attr-defined]
        data = bcrypt.hashpw(password.encode()[:BCRYPT_BYTES], salt)
        return f"{self.algorithm}${data.decode('ascii')}"

    def verify(self, password: str, encoded: str) -> bool:
        try:
            return super().verify(password, encoded)
        except (ValueError, UnicodeEncodeError):
            return False

    def must_update(self, encoded: str) -> bool:
        """False, always: a sign-in here must not rewrite what the old application reads."""
        return False

    def harden_runtime(self, password: str, encoded: str) -> None:
        try:
            super().harden_runtime(password, encoded)
        except (ValueError, IndexError, UnicodeEncodeError):
            return

    def safe_summary(self, encoded: str) -> dict[Any, Any]:
        try:
            return super().safe_summary(encoded)
        except ValueError:
            return {"algorithm": self.algorithm, "hash": "unreadable"}
