exports.up = (knex) =>
  knex.schema.createTable("coupons", (table) => {
    table.increments("id");
    table.string("code", 40).notNullable().unique();
    table.uuid("order_id");
    table.timestamps(true, true);
  });

exports.down = (knex) => knex.schema.dropTable("coupons");
