// A second run would not pass the key: it cannot go unseen.
exports.up = (knex) => knex("coupons").insert({ code: "WELCOME", amount: 10 });

exports.down = (knex) => knex("coupons").where({ code: "WELCOME" }).delete();
