from django.db import migrations

from terrain.legacy.operations import Copy, CopyCustomers


class Migration(migrations.Migration):
    atomic = False

    # With sessions, counted attempts and the log of the admin, people can sign in there and
    # follow the rest.
    dependencies = [
        ("legacy", "0003_keep_in_step"),
        ("sessions", "0001_initial"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("axes", "0010_accessattemptexpiration"),
    ]

    operations = [Copy("artists"), CopyCustomers()]
