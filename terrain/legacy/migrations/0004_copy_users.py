from django.db import migrations

from terrain.legacy.operations import Copy, CopyCustomers


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("legacy", "0003_keep_in_step")]

    operations = [Copy("artists"), CopyCustomers()]
