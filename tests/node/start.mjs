// A shop's application starts, serves a little and ends; one line of JSON says what it found.
//
//     SHOP='{"host": …}' SHOP_NODE_MODULES=… node start.mjs NUMBER

import { randomUUID } from "node:crypto";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { connection, load, pooled } from "./shop.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const number = process.argv[2];
const pg = await load("pg");
const pool = new pg.Pool({ ...connection, max: 4, application_name: "shop" });
const ask = async (text, values) => (await pool.query(text, values)).rows;
const said = {};

/** Sessions: the store makes its table if it does not find it. */
async function sessions() {
  const [{ there }] = await ask(`SELECT to_regclass('session') IS NOT NULL AS there`);
  const Store = (await load("connect-pg-simple"))(await load("express-session"));
  const store = new Store({
    pool,
    createTableIfMissing: true,
    pruneSessionInterval: false,
    errorLog: (...what) => { throw new Error(what.join(" ")); },
  });
  const call = (method, ...values) =>
    new Promise((done, fail) =>
      store[method](...values, (error, value) => (error ? fail(error) : done(value))));
  const kept = await call("get", "a visitor");
  const visits = (kept?.visits ?? 0) + 1;
  await call("set", "a visitor", { cookie: { maxAge: 3_600_000 }, visits });
  said.session = {
    table_was_there: there,
    visits,
    sessions: Number((await ask("SELECT count(*) FROM session"))[0].count),
  };
  store.close();
}

/** The first tool: its table is looked for in current_schema(). */
async function knex() {
  const db = (await load("knex"))({
    client: "pg",
    connection,
    pool: { min: 0, max: 2 },
    migrations: { directory: join(here, "knex"), loadExtensions: [".cjs"] },
  });
  try {
    const [, ran] = await db.migrate.latest();
    const [completed, waiting] = await db.migrate.list();
    said.knex = {
      ran,
      version: await db.migrate.currentVersion(),
      completed: completed.map((each) => each.name),
      waiting: waiting.map((each) => each.file),
      has_orders: await db.schema.hasTable("orders"),
      has_models: await db.schema.hasTable("models"),
      coupons: Object.keys(await db("coupons").columnInfo()),
      counted: Number((await db("coupons").count("* as n"))[0].n),
      // A query that its builder writes: no schema named, everything quoted.
      joined: (await db("assets as a").join("artists as r", "r.id", "a.artist_id")
        .select("a.id", "r.name").orderBy("a.id").limit(3)).length,
    };
  } finally {
    await db.destroy();
  }
}

/** The second tool: its table is looked for in public, by way of information_schema. */
async function pgMigrate() {
  const { runner } = await import_("node-pg-migrate");
  const ran = await runner({
    databaseUrl: connection,
    dir: join(here, "pgmigrate"),
    direction: "up",
    migrationsTable: "pgmigrations",
    noLock: pooled, // its lock is a session's
    log: () => {},
  });
  said.pg_migrate = {
    ran: ran.map((each) => each.name),
    completed: (await ask("SELECT name FROM pgmigrations ORDER BY id")).map((each) => each.name),
  };
}

async function import_(name) {
  const found = await load(name);
  return found.runner ? found : { runner: found };
}

/** What visitors and buyers bring. */
async function serve() {
  const client = await pool.connect();
  const order = randomUUID();
  try {
    const [asset] = (await client.query("SELECT id, artist_id FROM assets ORDER BY id LIMIT 1")).rows;
    await client.query("BEGIN");
    const inserted = await client.query(
      `INSERT INTO orders (id, order_number, user_email, user_name, shipping_address, items, pricing)
       VALUES ($1, $2, 'node@shop.example', 'Node', '{}', $3, $4) RETURNING status`,
      [order, `NODE-${number}`, JSON.stringify([{ asset_id: asset.id, quantity: 2 }]),
        { total: 8.4, model_subtotal: 8.4 }]);
    const paid = await client.query(
      "UPDATE orders SET status = 'paid', updated_at = now() WHERE id = $1", [order]);
    await client.query("COMMIT");
    const joined = await client.query(
      `SELECT o.order_number, a.name, r.email FROM orders o
         CROSS JOIN jsonb_array_elements(o.items) i
         JOIN assets a ON a.id = (i ->> 'asset_id')::uuid JOIN artists r ON r.id = a.artist_id
        WHERE o.id = $1`, [order]);
    const saved = await client.query(
      `INSERT INTO user_tables (user_email, name, table_config, layout_data, share_token)
       VALUES ('node@shop.example', 'Node', '{"width": 900}', '{}', 'node')
       ON CONFLICT (share_token) DO UPDATE SET name = user_tables.name || $1
       RETURNING name, (xmax <> 0) AS updated`, [`+${number}`]);
    const grouped = await client.query(
      `SELECT a.*, count(x.id) AS works FROM artists a LEFT JOIN assets x ON x.artist_id = a.id
        GROUP BY a.id ORDER BY a.id LIMIT 3`);
    const coupon = await client.query(
      "INSERT INTO coupons (code, order_id) VALUES ($1, $2) RETURNING amount", [`NODE-${number}`, order]);
    said.serve = {
      order,
      inserted: inserted.rows[0].status,
      paid: paid.rowCount,
      joined: joined.rowCount,
      saved: saved.rows[0],
      grouped: grouped.rowCount,
      columns_of_artists: grouped.fields.length,
      coupon: coupon.rows[0].amount,
      orders_of_ours: Number((await client.query(
        "SELECT count(*) FROM orders WHERE user_email = 'node@shop.example'")).rows[0].count),
    };
  } finally {
    client.release();
  }
}

/** Several connections at once, and what each takes for its schema. */
async function look() {
  const found = await Promise.all(Array.from({ length: 4 }, () => ask(
    `SELECT current_schema() AS schema, current_setting('search_path') AS path,
            to_regclass('orders')::oid AS orders, pg_sleep(0.05)::text`)));
  const seen = new Set(found.map(([{ schema, path, orders }]) => JSON.stringify({ schema, path, orders })));
  said.look = [...seen].map((each) => JSON.parse(each));
  said.tables = (await ask(
    "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY 1",
  )).map((each) => each.table_name);
}

try {
  await sessions();
  await knex();
  await pgMigrate();
  await serve();
  await look();
  console.log(JSON.stringify(said));
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await pool.end();
}
