import django.contrib.postgres.indexes
import django.db.models.constraints
from django.db import migrations, models

import terrain.constraints
import terrain.operations


class Migration(migrations.Migration):
    # Each operation can be run again after having been killed.
    atomic = False

    dependencies = [
        ("catalogue", "0001_initial"),
        ("sessions_app", "0001_initial"),
    ]

    operations = [
        terrain.operations.AddConstraintOnline(
            model_name="table",
            constraint=models.UniqueConstraint(
                fields=("share_code",), name="tables_share_code_key"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="model",
            index=models.Index(fields=["artist"], name="models_artist_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="model",
            index=models.Index(fields=["status"], name="models_status_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="model",
            index=models.Index(fields=["created_at"], name="models_created_at_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="model",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["tags"], name="models_tags_idx"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="asset",
            index=models.Index(fields=["artist"], name="assets_artist_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="asset",
            index=models.Index(
                fields=["status", "visibility"], name="assets_listing_idx"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="asset",
            index=models.Index(fields=["created_at"], name="assets_created_at_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="asset",
            index=models.Index(fields=["category"], name="assets_category_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="asset",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["tags"], name="assets_labels_idx"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="assetset",
            index=models.Index(fields=["owner"], name="asset_sets_owner_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="assetsetitem",
            index=models.Index(
                fields=["asset_set", "position"], name="asset_set_items_position_idx"
            ),
        ),
        terrain.operations.AddIndexOnline(
            model_name="assetsetitem",
            index=models.Index(fields=["asset"], name="asset_set_items_asset_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="table",
            index=models.Index(fields=["user"], name="tables_user_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="table",
            index=models.Index(fields=["session"], name="tables_session_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="table",
            index=models.Index(fields=["kind", "created_at"], name="tables_kind_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="table",
            index=models.Index(fields=["created_at"], name="tables_created_at_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="tableasset",
            index=models.Index(fields=["asset"], name="table_assets_asset_id_idx"),
        ),
        terrain.operations.AddIndexOnline(
            model_name="tableset",
            index=models.Index(
                fields=["asset_set"], name="table_sets_asset_set_id_idx"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="model",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="artist",
                name="models_artist_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="asset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="model", name="assets_model_id_fkey", on_delete="SET NULL"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="asset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="artist",
                name="assets_owner_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="assetset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="owner",
                name="asset_sets_owner_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="assetsetitem",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="asset_set",
                name="asset_set_items_set_id_fkey",
                on_delete="CASCADE",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="assetsetitem",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="asset", name="asset_set_items_asset_id_fkey", on_delete="CASCADE"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="table",
            constraint=terrain.constraints.ForeignKeyConstraint(
                deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                field="user",
                name="tables_user_id_fkey",
                on_delete="NO ACTION",
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="table",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="session", name="tables_session_id_fkey", on_delete="NO ACTION"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="tableasset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="table", name="table_assets_table_id_fkey", on_delete="CASCADE"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="tableasset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="asset", name="table_assets_asset_id_fkey", on_delete="CASCADE"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="tableset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="table", name="table_sets_table_id_fkey", on_delete="CASCADE"
            ),
        ),
        terrain.operations.AddConstraintOnline(
            model_name="tableset",
            constraint=terrain.constraints.ForeignKeyConstraint(
                field="asset_set", name="table_sets_set_id_fkey", on_delete="CASCADE"
            ),
        ),
    ]
