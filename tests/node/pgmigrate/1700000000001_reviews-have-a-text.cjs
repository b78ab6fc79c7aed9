exports.up = (pgm) => {
  pgm.addColumn("reviews", { body: { type: "text" } });
  pgm.createIndex("reviews", "asset_id");
};

exports.down = (pgm) => pgm.dropColumn("reviews", "body");
