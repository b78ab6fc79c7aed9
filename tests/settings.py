"""Settings of the test suite: a server of its own, durable only in name.

TEST_POSTGRES chooses its major version among those of the wheel (16, 18).
"""

import os

from terrain import embedded
from terrain.embedded import Cluster
from terrain.settings import *  # noqa: F403
from terrain.settings import BASE_DIR

POSTGRES = int(os.environ.get("TEST_POSTGRES", "18"))
CLUSTER = Cluster(
    BASE_DIR / f".postgres-test-{POSTGRES}",
    POSTGRES,
    {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "autovacuum": "off",
        "max_connections": "100",
        "max_prepared_transactions": "4",
    },
)
DATABASE_URL = ""
DATABASES = {
    "default": {
        "ENGINE": "terrain.postgresql",
        "NAME": "terrain_builder",
        "USER": embedded.OWNER,
        "HOST": str(CLUSTER.socket_dir),
        "OPTIONS": {"embedded": CLUSTER},
    }
}
# The tests say when.
CUT_OVER_BY_ITSELF = False
DEBUG = False
SECRET_KEY = "for tests only"
# bcrypt is slow on purpose; the tests of it ask for it.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.MD5PasswordHasher",
    "terrain.hashers.LegacyBCryptPasswordHasher",
]
# The embedded server is what is tested; a user's settings would be warned of it.
SILENCED_SYSTEM_CHECKS = [*SILENCED_SYSTEM_CHECKS, "terrain.W002"]
# Tests sign in without a request, and as often as they like; the tests of it turn it on.
AXES_ENABLED = False
