"""What an operator has ordered, and what long runs say of themselves, in the database.

Both outlive the processes: an order is there for whoever comes next, and what a killed run
said of itself is told by its session, which is gone.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from terrain.fields import TimestampField


class PaceOrder(models.Model):
    """The orders in force, for every long run: one row, or none.

    Batches only read it, so nobody waits for anybody's lock on it.
    """

    #: The key of the row.
    ONE = 1

    id = models.SmallIntegerField(primary_key=True, default=ONE, editable=False)
    paused_at = TimestampField(null=True, blank=True)
    paused_by = models.CharField(max_length=200, blank=True, db_default="")
    percent = models.SmallIntegerField(
        null=True, blank=True, help_text="Of the time, at work; empty: all of it."
    )
    throttled_by = models.CharField(max_length=200, blank=True, db_default="")
    ignored = ArrayField(
        models.CharField(max_length=20),
        default=list,
        blank=True,
        help_text="What a run does not slow down for.",
    )

    class Meta:
        db_table = "terrain_pace_order"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(id=1), name="terrain_pace_order_is_one"
            ),
            models.CheckConstraint(
                condition=models.Q(percent=None) | models.Q(percent__range=(1, 99)),
                name="terrain_pace_order_percent",
            ),
        ]

    def __str__(self) -> str:
        return "orders in force"


class PaceState(models.Model):
    """A run that is not at full speed now, and why."""

    class State(models.TextChoices):
        PAUSED = "paused"
        WAITING = "waiting"
        SLOWED = "slowed"
        THROTTLED = "throttled"

    step = models.CharField(max_length=100)
    state = models.CharField(max_length=20, choices=State)
    why = models.TextField()
    since = TimestampField(default=timezone.now, db_default=Now())
    pid = models.IntegerField(help_text="The session of the run.")
    backend_start = models.DateTimeField(help_text="Tells it from a later one.")

    class Meta:
        db_table = "terrain_pace_state"
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.step}: {self.why}"
