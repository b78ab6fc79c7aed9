"""The people of the shop, in the admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.contrib.auth.hashers import identify_hasher
from django.contrib.messages import ERROR
from django.core.exceptions import ValidationError
from django.db import DatabaseError, models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html

from terrain.models import User
from terrain.pages import RecordAdmin, refusals
from terrain.pages.belonging import counted
from terrain.pages.forms import RecordForm
from terrain.pages.search import same_address
from terrain.pages.shown import many, rows_link

#: What refers to an account: the name there is for it here, and the column there.
BELONGINGS = (
    ("orders", "user"),
    ("tables", "user"),
    ("models", "artist"),
    ("assets", "artist"),
    ("asset_sets", "owner"),
    ("sold_items", "artist"),
    ("payments", "artist"),
)

#: What only a superuser gives, and takes away.
POWERS = ("role", "is_superuser", "groups", "user_permissions")


class UserForm(RecordForm):
    """An account, by itself and with what depends on its role."""

    class Meta:
        model = User
        fields = "__all__"

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if (self.cleaned_data or {}).get("role") == User.Role.CUSTOMER:
            owned = [word for rows, word in _an_artists(self.instance) if rows.exists()]
            if owned:
                raise ValidationError(
                    f"{self.instance} has {' and '.join(owned)}, so the account stays an"
                    " artist's. Suspend it instead, or give those to another artist first.",
                    "owns",
                )
        return cleaned


def _an_artists(user: User) -> Iterable[tuple[models.QuerySet[Any], str]]:
    """What only an artist can have."""
    yield user.models.all(), "models"
    yield user.tables.filter(kind="example"), "example tables"
    yield user.payments.all(), "payments"


class NewUserForm(AdminUserCreationForm):  # type: ignore[type-arg]
    """A new account, with a password or none."""

    refusal: DatabaseError | None = None

    class Meta:
        model = User
        fields = ("email", "role")

    def full_clean(self) -> None:
        super().full_clean()
        if self.refusal is not None and self.is_bound:
            self.add_error(None, refusals.as_form_error(self.refusal))


@admin.register(User)
class UserAdmin(RecordAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    """Accounts; passwords are changed on a page of their own and never shown."""

    found_first = 10
    belongings = BELONGINGS
    form = UserForm
    add_form = NewUserForm
    list_display = ("email", "display_name", "role", "status", "created_at")
    list_filter = ("role", "status", "is_superuser")
    words = ("display_name__icontains", "email__icontains", "stripe_account_id")
    # Artists are few and have an index of their own; customers are found by address.
    words_among = ~models.Q(role=User.Role.CUSTOMER)
    search_help_text = (
        "A whole e-mail address or id; of artists also part of the name or address."
    )
    filter_horizontal = ("groups", "user_permissions")
    readonly_fields = ("sign_in", "has", "last_login", "created_at", "updated_at")
    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "fields": (
                    "email",
                    "role",
                    "usable_password",
                    "password1",
                    "password2",
                ),
            },
        ),
    )
    fieldsets: ClassVar[Any] = (
        (
            None,
            {"fields": ("email", "display_name", "role", "status", "sign_in", "has")},
        ),
        ("Profile", {"fields": ("bio", "profile_image_url", "banner_image_url")}),
        (
            "As an artist",
            {
                "fields": (
                    "commission_rate",
                    "stripe_account_id",
                    "stripe_onboarding_complete",
                    "invite_code",
                )
            },
        ),
        (
            "In this admin",
            {
                "classes": ("collapse",),
                "fields": ("is_superuser", "groups", "user_permissions"),
            },
        ),
        ("Dates", {"fields": ("last_login", "created_at", "updated_at")}),
    )

    def key_conditions(self, term: str) -> Iterable[Any]:
        yield from super().key_conditions(term)
        if "@" in term:
            yield same_address("email", term)
        if term.startswith("acct_"):  # of artists alone, who are few
            yield self.words_among & models.Q(stripe_account_id=term)

    def formfield_for_manytomany(
        self, db_field: Any, request: Any, **kwargs: Any
    ) -> Any:
        """Each permission is named with its content type."""
        if db_field.name == "user_permissions":
            rows = db_field.remote_field.model.objects
            kwargs["queryset"] = rows.select_related("content_type")
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def also_readonly(self, request: HttpRequest, obj: Any = None) -> Iterable[str]:
        powers = () if request.user.is_superuser else POWERS
        return [*super().also_readonly(request, obj), *powers]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody sets the password of somebody who may do more."""
        allowed = super().has_change_permission(request, obj)
        above = obj is not None and obj.is_superuser
        return allowed and (not above or request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        above = obj is not None and obj.is_superuser
        return allowed and (not above or request.user.is_superuser)

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        try:
            with self._writing():
                return super().user_change_password(request, id, form_url)
        except DatabaseError as error:
            if not refusals.is_expected(error):
                raise
            self.message_user(request, refusals.sentence(error), ERROR)
            return HttpResponseRedirect(request.get_full_path())

    @admin.display(description="Signs in")
    def sign_in(self, user: User) -> str:
        """Whether with a password, and where to set one.  The hash is nobody's business."""
        return format_html(
            '{} <a href="{}">Set another password</a>',
            _password_state(user),
            reverse("admin:auth_user_password_change", args=[user.pk]),
        )

    @admin.display(description="Has")
    def has(self, user: User) -> str:
        """What belongs to the account, linked to the lists of it."""
        numbers = counted(user, BELONGINGS)
        return many(
            rows_link(
                getattr(user, name).model,
                numbers[name],
                {f"{column}__id__exact": user.pk},
            )
            for name, column in BELONGINGS
            if numbers[name]
        )


def _password_state(user: User) -> str:
    if not user.has_usable_password():
        return "Not with a password: none is set."
    try:
        name = identify_hasher(user.password).algorithm
    except ValueError:
        return "Not with a password: what is stored is none that can be read."
    return f"With a password ({name})."
