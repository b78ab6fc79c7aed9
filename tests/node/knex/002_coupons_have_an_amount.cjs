exports.up = async (knex) => {
  await knex.schema.alterTable("coupons", (table) => {
    table.decimal("amount", 10, 2).notNullable().defaultTo(5);
  });
  if (!(await knex.schema.hasColumn("coupons", "amount"))) throw new Error("no column amount");
};

exports.down = (knex) =>
  knex.schema.alterTable("coupons", (table) => table.dropColumn("amount"));
