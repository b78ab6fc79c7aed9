"""The people of the shop: customers, artists and administrators in one table."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import TextChoices
from django.db.models.functions import Now
from django.utils import timezone

from terrain.addresses import WHITE_SPACE, NormalAddress, normal
from terrain.fields import PasswordHashField, TimestampField
from terrain.pace.models import PaceOrder, PaceState
from terrain.tracking import TracksChanges

__all__ = ["PaceOrder", "PaceState", "Record", "User", "UserManager"]


class Record(TracksChanges):
    """A row with a UUID for a key, made by Python or, for other writers, by PostgreSQL."""

    id = models.UUIDField(
        primary_key=True, default=uuid.uuid4, db_default=RandomUUID(), editable=False
    )

    class Meta:
        abstract = True


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> User:
        """The account that signs in as ``username``.

        Addresses match ignoring case: the one spelled exactly so first, then the oldest.
        Raises ``User.DoesNotExist``.
        """
        address = (username or "").strip(WHITE_SPACE)
        exactly = models.Case(models.When(email=address, then=0), default=1)
        user = (
            self.annotate(address=NormalAddress("email"))
            .filter(address=NormalAddress(models.Value(address)))
            .order_by(exactly, "created_at", "id")
            .first()
        )
        if user is None:
            raise self.model.DoesNotExist(f"No account has the address {address!r}.")
        return user

    def create_user(
        self, email: str, password: str | None = None, **fields: Any
    ) -> User:
        """A customer, unless ``role`` says otherwise; without a password none will do."""
        fields.setdefault("role", User.Role.CUSTOMER)
        if fields["role"] == User.Role.CUSTOMER:
            email = normal(email)
        user = self.model(email=email, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(
        self, email: str, password: str | None = None, **fields: Any
    ) -> User:
        """An administrator who may do everything in the admin."""
        fields = {"role": User.Role.ADMIN, "is_superuser": True, **fields}
        return self.create_user(email, password, **fields)


class User(Record, AbstractBaseUser, PermissionsMixin):
    """An account.  ``role`` customer has no counterpart among the legacy artists."""

    class Role(TextChoices):
        CUSTOMER = "customer"
        ARTIST = "artist"
        ADMIN = "admin"

    class Status(TextChoices):
        INVITED = "invited"
        ACTIVE = "active"
        SUSPENDED = "suspended"

    email = models.CharField("e-mail address", max_length=255)
    password = PasswordHashField(
        max_length=255, db_column="password_hash", db_default=models.Value("!")
    )
    display_name = models.CharField(max_length=255, blank=True, db_default="")
    bio = models.TextField(null=True, blank=True)
    profile_image_url = models.TextField(null=True, blank=True)
    banner_image_url = models.TextField(null=True, blank=True)
    stripe_account_id = models.CharField(max_length=255, null=True, blank=True)
    stripe_onboarding_complete = models.BooleanField(default=False, db_default=False)
    invite_code = models.CharField(max_length=50, null=True, blank=True)
    status = models.CharField(
        max_length=20, choices=Status, default=Status.ACTIVE, db_default=Status.ACTIVE
    )
    role = models.CharField(
        max_length=20, choices=Role, default=Role.CUSTOMER, db_default=Role.CUSTOMER
    )
    commission_rate = models.DecimalField(
        max_digits=4,
        decimal_places=3,
        default=Decimal("0.800"),
        db_default=Decimal("0.800"),
        help_text="The artist's share, as a fraction.",
    )
    is_superuser = models.BooleanField(
        "superuser status",
        default=False,
        db_default=False,
        help_text="Has every permission without being given it.",
    )
    last_login = TimestampField(null=True, blank=True)
    created_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = TimestampField(default=timezone.now, db_default=Now(), editable=False)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    class Meta:
        db_table = "users"
        constraints = [
            # An artist may take an address that a customer still has; the two are merged
            # afterwards.  Until then neither may be in the other's way.
            models.UniqueConstraint(
                fields=["email"],
                condition=~models.Q(role="customer"),
                name="users_artist_email_key",
                violation_error_message="Another artist has this address.",
            ),
            models.UniqueConstraint(
                fields=["email"],
                condition=models.Q(role="customer"),
                name="users_customer_email_key",
                violation_error_message="Another customer has this address.",
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=["customer", "artist", "admin"]),
                name="users_role_check",
            ),
        ]
        indexes = [
            models.Index(NormalAddress("email"), name="users_address_idx"),
            models.Index(fields=["created_at"], name="users_created_at_idx"),
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def is_active(self) -> bool:  # type: ignore[override]
        return self.status == self.Status.ACTIVE

    @property
    def is_staff(self) -> bool:
        """Whether the admin lets them in; what they see there is a matter of permissions."""
        return self.role == self.Role.ADMIN

    def clean(self) -> None:
        """A customer's address is kept trimmed and in lower case, an artist's as typed."""
        if self.role == self.Role.CUSTOMER:
            self.email = normal(self.email)

    def get_full_name(self) -> str:
        return self.display_name or self.email

    def get_short_name(self) -> str:
        return self.get_full_name()
