"""The ledger of the move: what was run, how far it got, and the rows that need a person."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from terrain.fields import JSONField, TimestampField


class Run(models.Model):
    """One execution of a step: a table moved or copied, a backup, a verification."""

    class State(models.TextChoices):
        RUNNING = "running"
        PAUSED = "paused"
        DONE = "done"
        FAILED = "failed"

    step = models.CharField(max_length=100)
    state = models.CharField(
        max_length=20, choices=State, default=State.RUNNING, db_default=State.RUNNING
    )
    started_at = TimestampField(default=timezone.now, db_default=Now())
    finished_at = TimestampField(null=True, blank=True)
    rows = models.BigIntegerField(default=0, db_default=0)
    total = models.BigIntegerField(null=True, blank=True, help_text="Rows expected.")
    seconds = models.FloatField(default=0, db_default=0, help_text="Time at work.")
    detail = JSONField(
        default=dict, blank=True, db_default=models.Value({}, models.JSONField())
    )

    class Meta:
        db_table = "legacy_run"
        ordering = ["-started_at", "-id"]
        indexes = [models.Index(fields=["step", "-id"], name="legacy_run_step_idx")]
        permissions = [
            ("verify_migration", "Can start a verification"),
            ("steer_migration", "Can pause the migration and let it go on"),
        ]

    def __str__(self) -> str:
        return f"{self.step} ({self.state})"


class Batch(models.Model):
    """A range of keys copied in one transaction; the last one of a shard is its cursor."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="batches")
    shard = models.IntegerField(default=0)
    after = models.UUIDField(null=True, help_text="Keys above this …")
    upto = models.UUIDField(
        null=True, help_text="… and up to this, which is the cursor."
    )
    rows = models.IntegerField()
    seconds = models.FloatField()
    at = TimestampField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "legacy_batch"
        ordering = ["-id"]
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return f"{self.rows} rows up to {self.upto}"


class QuarantinedRow(models.Model):
    """What both the open and the closed entries of the quarantine say."""

    class Kind(models.TextChoices):
        HELD = "held"
        FLAGGED = "flagged"

    legacy_table = models.CharField(max_length=63)
    legacy_id = models.UUIDField()
    kind = models.CharField(max_length=10, choices=Kind)
    reason = models.CharField(max_length=63)
    detail = models.TextField(help_text="What is wrong, and what would put it right.")
    row = JSONField("legacy row", help_text="The row as it was when it was found.")
    parked = JSONField(
        null=True,
        blank=True,
        help_text="What only the new schema knew of it; comes back with the row.",
    )
    found_at = TimestampField(default=timezone.now, db_default=Now())

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.legacy_table} {self.legacy_id}: {self.reason}"


class Quarantine(QuarantinedRow):
    """A row that needs a person, now.

    Held: not in the new table, whole in its legacy one.  Flagged: migrated, and to be
    looked at.
    """

    decided_at = TimestampField(null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        help_text="Who decided that it may stay as it is.",
    )

    class Meta:
        db_table = "legacy_quarantine"
        verbose_name = "quarantined row"
        ordering = ["legacy_table", "reason", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["legacy_table", "legacy_id", "reason", "kind"],
                name="legacy_quarantine_key",
            ),
        ]


class Released(QuarantinedRow):
    """A row that was in quarantine and has been put right."""

    released_at = TimestampField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "legacy_released"
        verbose_name = "released row"
        ordering = ["-released_at", "-id"]
        indexes = [
            models.Index(
                fields=["legacy_table", "legacy_id"], name="legacy_released_row_idx"
            )
        ]
