"""Settings, from the environment (and from a file ``.env`` beside manage.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from terrain.embedded import Cluster

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(BASE_DIR / ".env")


def database(url: str) -> dict[str, Any]:
    """Django's settings for a PostgreSQL URL, read as PostgreSQL itself reads it.

    An empty URL means the embedded server.  Raises ``ImproperlyConfigured``.
    """
    if not url:
        cluster = Cluster(BASE_DIR / ".postgres")
        return {
            "ENGINE": "terrain.postgresql",
            "NAME": "terrain_builder",
            "USER": "terrain",
            "HOST": str(cluster.socket_dir),
            "OPTIONS": {"embedded": cluster},
        }
    form = "It has the form postgresql://user:password@host:5432/terrain_builder."
    encoded = (
        "If the password has special characters, write @ as %40, / as %2F, # as %23 and"
        f" % as %25. {form}"
    )
    if not url.startswith(("postgres://", "postgresql://")):
        raise ImproperlyConfigured(
            f"DATABASE_URL is not the URL of a PostgreSQL database. {form}"
        )
    try:
        parts = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    except ProgrammingError as error:
        if "percent-encoded" in str(error):  # and what follows may be the password
            raise ImproperlyConfigured(
                f"DATABASE_URL cannot be read. {encoded}"
            ) from None
        raise ImproperlyConfigured(
            f"DATABASE_URL cannot be read: {str(error).strip()}. {form}"
        ) from error
    port = parts.get("port", "")
    if not port.replace(",", "").isdecimal() and port:
        raise ImproperlyConfigured(
            f"DATABASE_URL cannot be read: the port {port!r} is no number. {form}"
        )
    if parts.get("host", "").find("@") > 0:  # in front it names an abstract socket
        raise ImproperlyConfigured(f"DATABASE_URL has more than one @. {encoded}")
    if not parts.get("dbname"):
        raise ImproperlyConfigured(f"DATABASE_URL names no database. {form}")
    return {
        "ENGINE": "terrain.postgresql",
        "NAME": parts.pop("dbname"),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": parts.pop("port", ""),
        "OPTIONS": {"connect_timeout": "10", **parts},
    }


DATABASE_URL = env.str("DATABASE_URL", default="")
DATABASES = {"default": database(DATABASE_URL)}

# Without a database of one's own this is somebody having a look: show them what is wrong.
DEBUG = env.bool("DEBUG", default=not DATABASE_URL)
# Not a well-known default: whoever forgets it signs everybody out at each restart instead.
SECRET_KEY_GIVEN = bool(env.str("SECRET_KEY", default=""))
SECRET_KEY = env.str("SECRET_KEY", default="") or get_random_secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
# Reached through a proxy that speaks TLS: no cookie and no page without it.
HTTPS = env.bool("HTTPS", default=False)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 365 * 86400 if HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# Where browsers get the shop's files; pictures are shown from there and from nowhere else.
FILES_URL = env.str("FILES_URL", default="")
if FILES_URL and not FILES_URL.endswith("/"):
    FILES_URL += "/"
BACKUP_DIR = Path(env.str("BACKUP_DIR", default="") or BASE_DIR / "backups")

# Another server to prove backups on: a URL, or "embedded".
PROVE_ON = env.str("PROVE_ON", default="")

# Names of preflight's findings that block and are accepted all the same.
PREFLIGHT_ACCEPT = env.list("PREFLIGHT_ACCEPT", default=[])

INSTALLED_APPS = [
    "terrain",
    "sessions_app",
    "catalogue",
    "orders",
    # The move from the legacy schema: take this line out, and the folder, when it is history.
    "terrain.legacy",
    "terrain.apps.SiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    # Arrays and GIN indexes; Django 6.1 insists.
    "django.contrib.postgres",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "terrain.unready.UnreadyMiddleware",
]

ROOT_URLCONF = "terrain.urls"
WSGI_APPLICATION = "terrain.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_USER_MODEL = "terrain.User"
# An address is unique among artists and among customers, not across the two until they
# are merged, so no single constraint says so; UserManager decides who signs in.
SILENCED_SYSTEM_CHECKS = ["auth.E003", "auth.W004"]
# Whether other names beneath the shop's domain speak TLS too is not for this project to say.
SILENCED_SYSTEM_CHECKS += ["security.W005", "security.W021"]
PASSWORD_HASHERS = [
    "terrain.hashers.LegacyBCryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"
    },
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
# Times as people at work read them: 23:05, not 11:05 p.m.
FORMAT_MODULE_PATH = ["terrain.formats"]
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
