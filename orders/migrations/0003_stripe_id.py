from django.db import migrations, models

import terrain.operations


class Migration(migrations.Migration):
    # Each operation can be run again after having been killed.
    atomic = False

    dependencies = [("orders", "0002_integrity")]

    operations = [
        terrain.operations.AddIndexOnline(
            model_name="order",
            index=models.Index(
                fields=["stripe_payment_id"], name="orders_stripe_id_idx"
            ),
        ),
    ]
