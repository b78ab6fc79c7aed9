import django.db.models.constraints
from django.db import migrations, models

import terrain.addresses
import terrain.constraints
import terrain.operations


class Migration(migrations.Migration):
    # Each operation can be run again after having been killed.
    atomic = False

    dependencies = [
        ("catalogue", "0001_initial"),
        ("orders", "0001_initial"),
    ]

    operations = [
        terrain.operations.AddConstraintOnline(
            model_name="order",
            constraint=models.UniqueConstraint(
                fields=("order_number",), name="orders_number_key"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="order",
            index=models.Index(fields=["user"], name="orders_user_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="order",
            index=models.Index(
                fields=["status", "created_at"], name="orders_by_status_idx"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="order",
            index=models.Index(fields=["created_at"], name="orders_created_at_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="order",
            index=models.Index(
                terrain.addresses.NormalAddress("customer_email"),
                name="orders_address_idx",
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="orderitem",
            index=models.Index(fields=["model"], name="order_items_model_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="orderitem",
            index=models.Index(fields=["artist"], name="order_items_artist_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="payment",
            index=models.Index(fields=["order"], name="payments_order_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="payment",
            index=models.Index(fields=["artist"], name="payments_artist_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="payment",
            index=models.Index(
                fields=["stripe_transfer_id"], name="payments_transfer_id_idx"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="payment",
            index=models.Index(fields=["created_at"], name="payments_created_at_idx"),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="order",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="user",
                name="orders_user_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="orderitem",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="order", name="order_items_order_id_fkey", on_delete="CASCADE"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="orderitem",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="model", name="order_items_model_id_fkey", on_delete="SET NULL"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="orderitem",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="artist", name="order_items_artist_id_fkey", on_delete="SET NULL"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="payment",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="order",
                name="payments_order_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="payment",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="artist",
                name="payments_artist_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
    ]
