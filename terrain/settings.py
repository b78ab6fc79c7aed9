"""Settings, from the environment (and from a file ``.env`` beside manage.py)."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from terrain import embedded, logs
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
            "USER": embedded.OWNER,
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

# On the project's own server there is no old application, so migrate cuts over by itself.
CUT_OVER_BY_ITSELF = not DATABASE_URL

# Without a database of one's own this is somebody having a look: show them what is wrong.
DEBUG = env.bool("DEBUG", default=not DATABASE_URL)
# Not a well-known default: whoever forgets it signs everybody out at each restart instead.
SECRET_KEY_GIVEN = bool(env.str("SECRET_KEY", default=""))
SECRET_KEY = env.str("SECRET_KEY", default="") or get_random_secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
# Where browsers get the shop's files; pictures are shown from there and from nowhere else.
FILES_URL = env.str("FILES_URL", default="")
if FILES_URL and not FILES_URL.endswith("/"):
    FILES_URL += "/"
BACKUP_DIR = Path(env.str("BACKUP_DIR", default="") or BASE_DIR / "backups")

# Another server to prove backups on: a URL, or "embedded".
PROVE_ON = env.str("PROVE_ON", default="")
# Hours after which /health/ready warns that the newest proven backup is old; 0: never.
BACKUP_MAX_AGE_HOURS = env.int("BACKUP_MAX_AGE_HOURS", default=0)

# --- the world in front ---------------------------------------------------------------------

# Reached through a proxy that speaks TLS: no cookie and no page without it.
HTTPS = env.bool("HTTPS", default=False)
# How many proxies of ours stand between a client and this process.  They are believed what
# they say of the client: see terrain/clients.py.
PROXY_COUNT = env.int("PROXY_COUNT", default=1 if HTTPS else 0)
# Seconds that browsers are to remember that.  It cannot be taken back.
HSTS_SECONDS = env.int("HSTS_SECONDS", default=365 * 86400 if HTTPS else 0)
# Whether that is meant for every host beneath this one too, of whomever it is.
HSTS_SUBDOMAINS = env.bool("HSTS_SUBDOMAINS", default=False)

if PROXY_COUNT:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = HTTPS
# Asked from nearby, over plain HTTP.
SECURE_REDIRECT_EXEMPT = [r"^metrics$", r"^health/"]
SECURE_HSTS_SECONDS = HSTS_SECONDS
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HSTS_SUBDOMAINS
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# What a page may load.  Everything is our own but for the shop's files, and no script or
# style stands in a page.
_files = urlsplit(FILES_URL)
IMAGE_HOSTS = [f"{_files.scheme}://{_files.netloc}"] if _files.netloc else []
SECURE_CSP = {
    "default-src": ["'self'"],
    "img-src": ["'self'", "data:", *IMAGE_HOSTS],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}
CONTENT_SECURITY_POLICY = {"DIRECTIVES": SECURE_CSP}
# From Django 6.0 on it is Django's own; until then a package does the same.
CSP_MIDDLEWARE = (
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if django.VERSION >= (6, 0)
    else "csp.middleware.CSPMiddleware"
)

# Who guesses passwords is made to wait: by name and address together, so that nobody can
# lock out somebody else.  nginx limits the requests of one address (deploy/nginx).
AXES_FAILURE_LIMIT = env.int("LOGIN_FAILURE_LIMIT", default=5)
AXES_COOLOFF_TIME = timedelta(minutes=env.int("LOGIN_COOLOFF_MINUTES", default=15))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
# The form's field; the account's is called email.
AXES_USERNAME_FORM_FIELD = "username"
AXES_USERNAME_CALLABLE = "terrain.attempts.name"
AXES_CLIENT_IP_CALLABLE = "terrain.clients.address_or_none"
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "terrain/locked_out.html"
AXES_HTTP_RESPONSE_CODE = 429
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]

# --- for those on call ----------------------------------------------------------------------

# Who may ask /metrics, and what is wrong at /health/ready: with neither, nobody.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")
METRICS_NETWORKS = env.list("METRICS_NETWORKS", default=[])
for _network in METRICS_NETWORKS:
    try:
        ipaddress.ip_network(_network)
    except ValueError as error:
        raise ImproperlyConfigured(
            f"METRICS_NETWORKS cannot be read: {error}. Write networks with commas between"
            " them: 127.0.0.1/32,10.0.0.0/8."
        ) from error

# json: one object a line, and a line for each request.  text: sentences.
LOG_FORMAT = env.str("LOG_FORMAT", default="text")
LOG_LEVEL = env.str("LOG_LEVEL", default="WARNING").upper()
if LOG_FORMAT not in ("json", "text"):
    raise ImproperlyConfigured(
        f"LOG_FORMAT is {LOG_FORMAT!r}. It is either json or text."
    )
LOGGING = logs.config(LOG_FORMAT, LOG_LEVEL)

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
    "axes",
]

MIDDLEWARE = [
    "terrain.logs.RequestLog",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    CSP_MIDDLEWARE,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "terrain.unready.UnreadyMiddleware",
    "axes.middleware.AxesMiddleware",
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
if not HSTS_SUBDOMAINS:  # that is for the owner of the domain to promise
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
# Where collectstatic puts files, under names that browsers may keep for good.  Unset: they
# are served from where they are, which is slower.
STATIC_ROOT = env.str("STATIC_ROOT", default="") or None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
WHITENOISE_MANIFEST_STRICT = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "whitenoise.storage.CompressedManifestStaticFilesStorage"
            if STATIC_ROOT
            else "django.contrib.staticfiles.storage.StaticFilesStorage"
        )
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
