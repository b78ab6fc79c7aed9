exports.up = (pgm) => {
  pgm.createTable("reviews", {
    id: "id",
    asset_id: { type: "uuid", notNull: true },
    stars: { type: "integer", notNull: true, check: "stars BETWEEN 1 AND 5" },
  });
};

exports.down = (pgm) => pgm.dropTable("reviews");
