// A pool held open, told what to do: a line of JSON in, a line of JSON out.
//
//     {"sql": …, "params": […], "name": …, "times": 4}    the same at once so many times
//     → [{"rows": […], "count": 1, "pid": 123}, …]        or {"error": …, "code": …}

import { createInterface } from "node:readline";
import { connection, load, pooled } from "./shop.mjs";

const SIZE = 4;
const pg = await load("pg");
const pool = new pg.Pool({
  ...connection,
  max: SIZE,
  idleTimeoutMillis: 0, // nothing is closed, however long nobody asks
  application_name: "shop",
});
const lost = [];
let made = 0;
pool.on("error", (error) => lost.push(String(error)));
pool.on("connect", () => { made += 1; });

async function run({ sql, params, name }) {
  // By name the statement stays prepared in its connection; this pgbouncer knows no such thing.
  const query = { text: sql, values: params ?? [], ...(pooled || !name ? {} : { name }) };
  const client = await pool.connect();
  try {
    const { rows, rowCount } = await client.query(query);
    return { rows, count: rowCount, pid: client.processID };
  } catch (error) {
    return { error: error.message, code: error.code };
  } finally {
    client.release();
  }
}

/** All clients are taken before any is given back. */
async function together(command) {
  return Promise.all(Array.from({ length: command.times ?? 1 }, () => run(command)));
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const answer = command.ask === "connections" ? { made, lost } : await together(command);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await pool.end();
