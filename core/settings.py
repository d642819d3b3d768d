"""Settings that come from the environment, each named ``PADDOCK_…``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import AccessDeniedError, PersonMistake

CHECKOUT = Path(__file__).resolve().parent.parent
"""Folder that contains ``core``: a clone of the repository, or ``site-packages`` if installed."""
INSTALLED = CHECKOUT.name in ("site-packages", "dist-packages")
"""Whether this is the installed package, which has no app, instead of a clone."""


KIOSK_SENTENCE = (
    "This Paddock is a kiosk, where models are not downloaded, converted or deleted; use a model "
    "that is on this machine, or start without PADDOCK_KIOSK."
)

_YEAR_H = 366 * 24


class AuthMode(StrEnum):
    """When a person must be signed in."""

    AUTO = "auto"
    """Everywhere but on this machine itself."""
    REQUIRED = "required"
    """Always."""


class Registration(StrEnum):
    """Who may make an account for themselves."""

    OPEN = "open"
    """Whoever reaches the server."""
    INVITATION = "invitation"
    """Whoever has a code from an administrator."""
    CLOSED = "closed"
    """Nobody; the command line makes administrators all the same."""


class Settings(BaseSettings):
    """What a person may set before start; every field has a sound default."""

    model_config = SettingsConfigDict(env_prefix="PADDOCK_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(
        default=Path.home() / ".paddock" if INSTALLED else CHECKOUT / ".paddock",
        description="Where converted models, downloads and the run database live.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the run database; SQLite in the home folder by default.",
    )
    max_loaded_models: int = Field(
        default=4, ge=1, description="Models kept in memory at once before the oldest must go."
    )
    memory_reserve_mib: int = Field(
        default=512, ge=0, description="Memory in MiB that loading a model must leave free."
    )
    max_queue: int = Field(
        default=100, ge=1, description="Answers that may wait for one loaded model."
    )
    max_at_once: int = Field(
        default=8,
        ge=1,
        le=64,
        description="Answers that one loaded model gives at once, where its runtime batches them.",
    )
    generation_timeout_s: float = Field(
        default=1800.0, gt=0, description="Seconds after which an answer ends with 'timeout'."
    )

    answers_at_once: int = Field(
        default=4,
        ge=1,
        description="Answers that one person may have under way at once; further ones wait.",
    )
    answers_waiting: int = Field(
        default=28,
        ge=0,
        description="Further answers of one person that may wait for these; with them a program "
        "may ask for 32 at once.",
    )
    max_characters: int = Field(
        default=200_000,
        ge=1,
        le=200_000,
        description="Characters of an instruction and its context together.",
    )
    max_new_tokens: int = Field(
        default=1000, ge=1, le=1000, description="New tokens that may be asked for."
    )

    kiosk: bool = Field(
        default=False,
        description="For a stand at a trade fair: nothing is downloaded, converted or deleted, and "
        "a page that nobody has touched for two minutes starts afresh.",
    )

    remotes: str | None = Field(
        default=None,
        description="Servers elsewhere that speak OpenAI's protocol, as NAME=URL with spaces "
        "between them; the key of each in PADDOCK_REMOTE_KEY_NAME.",
    )
    remote_connect_s: float = Field(
        default=5.0, gt=0, le=60, description="Seconds in which a remote must take a connection."
    )
    remote_silence_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds for which a remote may send nothing, before its first token and "
        "between two.",
    )
    remote_at_once: int = Field(
        default=16, ge=1, le=256, description="Answers that one remote is asked for at once."
    )

    auth: AuthMode = Field(
        default=AuthMode.AUTO,
        description="'auto': guests may use this machine's own browser, everybody else signs in; "
        "'required': everybody signs in.",
    )
    registration: Registration = Field(
        default=Registration.INVITATION,
        description="Who may register: 'open' (anybody), 'invitation' (with a code) or 'closed'.",
    )
    session_idle_h: float = Field(
        default=7 * 24.0,
        gt=0,
        le=_YEAR_H,
        description="Hours without a visit after which a person is signed out.",
    )
    session_max_h: float = Field(
        default=30 * 24.0,
        gt=0,
        le=_YEAR_H,
        description="Hours after signing in at which a person is signed out whatever happens.",
    )
    invitation_h: float = Field(
        default=7 * 24.0,
        gt=0,
        le=_YEAR_H,
        description="Hours for which an invitation code holds unless told otherwise.",
    )
    failure_window_s: float = Field(
        default=900.0,
        ge=1,
        le=86_400,
        description="Seconds for which a failed attempt to sign in counts.",
    )
    failures_per_address: int = Field(
        default=20, ge=1, description="Failed attempts to sign in from one address in that time."
    )
    failures_per_account: int = Field(
        default=30,
        ge=1,
        le=100,
        description="Failed attempts on one name in that time, from unknown browsers anywhere.",
    )
    failures_per_device: int = Field(
        default=10,
        ge=1,
        description="Failed attempts on one name in that time from a browser that it is known in.",
    )
    registrations_per_address: int = Field(
        default=20, ge=1, description="Accounts that one address may try to make in that time."
    )
    max_hashings: int = Field(
        default=2, ge=1, description="Passwords checked at once, each with 64 MiB of memory."
    )

    @field_validator("auth", "registration", mode="before")
    @classmethod
    def _in_any_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    def check_not_kiosk(self) -> None:
        """
        Raises:
            AccessDeniedError: models may not be downloaded, converted or deleted.
        """
        if self.kiosk:
            raise AccessDeniedError(KIOSK_SENTENCE)

    @property
    def models_dir(self) -> Path:
        """Folder of the converted models, one folder per model and precision."""
        return self.home / "models"

    @property
    def npu_models_dir(self) -> Path:
        """Folder of INT4 models as an NPU takes them; see :mod:`core.store.for_device`."""
        return self.home / "npu-weights" / "models"

    @property
    def import_dir(self) -> Path:
        """Folder of model folders that people elsewhere than on this machine may name."""
        return self.home / "import"

    @property
    def genai_checks_file(self) -> Path:
        """What is known of architectures on OpenVINO GenAI; see :mod:`core.store.genai_check`."""
        return self.home / "genai-checks.json"

    @property
    def downloads_dir(self) -> Path:
        """Folder of checkpoints fetched from a hub."""
        return self.home / "downloads"

    @property
    def resolved_database_url(self) -> str:
        """SQLAlchemy URL of the run database."""
        return self.database_url or f"sqlite:///{(self.home / 'paddock.db').as_posix()}"


def load_settings() -> Settings:
    """Read the settings from the environment as it is now.

    Raises:
        PersonMistake: a variable holds a value that it cannot have; the text names it.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"PADDOCK_{wrong['loc'][0]}".upper()
        raise PersonMistake(
            f"The environment variable {name} is {wrong['input']!r}, but its "
            f"{wrong['msg'][0].lower()}{wrong['msg'][1:]}; correct or unset it."
        ) from error
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})
