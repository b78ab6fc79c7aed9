"""Questions about the server, the role and the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog
from terrain.legacy.findings import Finding, Severity, passed
from terrain.legacy.preflight.asking import Question, Situation

#: New bytes for each legacy byte, indexes included: 1.4 for the copies, the rest for the
#: catalogue that copy_models_to_assets makes.  See docs/benchmarks.md.
GROWTH = 1.7


def server(situation: Situation) -> Iterator[Finding]:
    """Whether this server will do."""
    connection = situation.connection
    connection.ensure_connection()
    number = connection.connection.info.server_version
    version = situation.value("SHOW server_version")
    if number < situation.oldest:
        yield Finding(
            "server",
            Severity.BLOCKS,
            f"The server is PostgreSQL {version}; {situation.oldest // 10000} is the oldest"
            " that will do.",
            "Upgrade the server, or restore a backup on a newer one.",
        )
    elif situation.value("SELECT pg_is_in_recovery()"):
        yield Finding(
            "server",
            Severity.BLOCKS,
            "The server is a standby, which cannot be written to.",
            "Connect to the primary.",
        )
    elif situation.value(
        "SELECT setting = 'on' AND source <> 'client' FROM pg_settings"
        " WHERE name = 'default_transaction_read_only'"
    ):
        yield Finding(
            "server",
            Severity.BLOCKS,
            "The database, or this role in it, is set to be read only.",
            "Unset it: ALTER DATABASE … RESET default_transaction_read_only; or the same"
            " with ALTER ROLE.",
        )
    elif situation.value("SHOW server_encoding") != "UTF8":
        yield Finding(
            "server",
            Severity.BLOCKS,
            "The database is not encoded in UTF-8, which Django needs.",
            "Dump it and restore it into a database made with ENCODING 'UTF8'.",
        )
    else:
        yield passed("server", f"PostgreSQL {version} will do.")


def privileges(situation: Situation) -> Iterator[Finding]:
    """Whether this role may do it."""
    role = situation.value("SELECT current_user")
    missing = []
    if not situation.value(
        "SELECT has_database_privilege(current_database(), 'CREATE')"
    ):
        missing.append("CREATE on the database")
    owners = set()
    for table, schema in situation.tables.items():
        owner = catalog.owner(situation.connection, schema, table)
        owners.add(owner)
        if not situation.value(
            "SELECT pg_has_role(current_user, %s, 'USAGE')", [owner]
        ):
            missing.append(f"ownership of {schema}.{table} (it belongs to {owner})")
    if missing:
        yield Finding(
            "privileges",
            Severity.BLOCKS,
            f"The role {role} lacks {'; '.join(missing)}.",
            "Connect as the owner of the database and of its tables, or grant that role.",
        )
    elif len(owners) > 1:
        yield Finding(
            "privileges",
            Severity.BLOCKS,
            f"The legacy tables belong to several roles: {', '.join(sorted(owners))}.",
            "Give them one owner with ALTER TABLE … OWNER TO.",
        )
    else:
        yield passed("privileges", f"The role {role} has the privileges that it takes.")


def public_create(situation: Situation) -> Iterator[Finding]:
    """Whether anybody may put functions where ours would find them."""
    if not situation.tables:
        return
    if situation.value(
        "SELECT EXISTS (SELECT FROM pg_namespace s"
        " CROSS JOIN LATERAL aclexplode(coalesce(s.nspacl, acldefault('n', s.nspowner))) a"
        " WHERE s.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE')"
    ):
        yield Finding(
            "public-create",
            Severity.BLOCKS,
            "Every role may create objects in the schema public, and so could have the"
            " triggers that keep both sides in step run code of its own as the owner.",
            "Run: REVOKE CREATE ON SCHEMA public FROM PUBLIC; or accept the risk with"
            " PREFLIGHT_ACCEPT=public-create.",
        )


def disk(situation: Situation) -> Iterator[Finding]:
    """Whether there is room for the copies."""
    if not situation.tables:
        return
    needed = int(legacy_bytes(situation) * GROWTH)
    folder = situation.value(
        "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
    )
    free = situation.free
    if (
        free is None
        and folder
        and _is_local(situation.connection)
        and os.access(folder, os.R_OK)
    ):
        free = shutil.disk_usage(folder).free
    if free is None:
        yield Finding(
            "disk",
            Severity.TELLS,
            f"The copies need about {_megabytes(needed)} on the server's disk; its free space"
            " cannot be seen from here.",
        )
    elif free < needed:
        yield Finding(
            "disk",
            Severity.BLOCKS,
            f"The copies need about {_megabytes(needed)}, and the server's disk has"
            f" {_megabytes(free)} left.",
            "Make room, or accept with PREFLIGHT_ACCEPT=disk.",
        )
    else:
        yield passed(
            "disk",
            f"The copies need about {_megabytes(needed)} of the {_megabytes(free)} free.",
        )


def _is_local(connection: BaseDatabaseWrapper) -> bool:
    return bool(
        catalog.value(
            connection,
            "SELECT inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr()",
        )
    )


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.0f} MB"


def legacy_bytes(situation: Situation) -> int:
    return int(
        situation.value(
            "SELECT coalesce(sum(pg_total_relation_size(to_regclass(t))), 0)"
            " FROM unnest(%s::text[]) t",
            [list(situation.qualified.values())],
        )
    )


SERVER_QUESTIONS: tuple[Question, ...] = (server, privileges, public_create, disk)
