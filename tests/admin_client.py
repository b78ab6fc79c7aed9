"""What the tests of the admin have in common."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from tests import browser, factories

OURS = ("terrain", "catalogue", "orders", "sessions_app", "legacy")
MODELS = [model for model in admin.site._registry if model._meta.app_label in OURS]
#: Factories by the model they make.
FACTORIES = {
    made._meta.model: made
    for made in vars(factories).values()
    if isinstance(made, type)
    and issubclass(made, factories.DjangoModelFactory)
    and made is not factories.DjangoModelFactory
}


def url(model: Any, page: str, *args: Any) -> str:
    names = model._meta
    return reverse(f"admin:{names.app_label}_{names.model_name}_{page}", args=args)


def signed_in(*permissions: str, superuser: bool = False) -> Client:
    """Somebody of the shop's staff; ``permissions`` are ``app.codename``."""
    user = factories.UserFactory(admin=True, is_superuser=superuser)
    for name in permissions:
        app, codename = name.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    client = Client()
    client.force_login(user)
    return client


def said(response: Any) -> list[str]:
    """The messages a page shows, or the one it was redirected to will show."""
    return [str(each) for each in get_messages(response.wsgi_request)]


def errors(response: Any) -> list[str]:
    assert response.status_code == 200
    found = response.context["errors"]
    return [
        str(told)
        for each in found
        for told in ([each] if isinstance(each, str) else each)
    ]


def posted(client: Client, record: Any, **changes: Any) -> Any:
    """Change a record on its page, leaving everything else as it is shown."""
    where = url(type(record), "change", record.pk)
    data = browser.form(client.get(where).content, f"{record._meta.model_name}_form")
    for name, value in changes.items():
        data.pop(name, None)
        if value is not None:
            data[name] = value
    return client.post(where, data)
