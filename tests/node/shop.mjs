// Where the packages are (SHOP_NODE_MODULES) and where the database is (SHOP, as JSON).

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(dirname(process.env.SHOP_NODE_MODULES), "package.json"));

/** A package from that folder; ES modules do not look there by themselves. */
export async function load(name) {
  const found = await import(pathToFileURL(require.resolve(name)));
  return found.default ?? found;
}

/** { host, port, user, database, pooled }: `host` is the folder of a socket. */
const { pooled: behind, ...where } = JSON.parse(process.env.SHOP);
export const connection = where;
/** Behind a pool in transaction mode: nothing may be kept in a session. */
export const pooled = Boolean(behind);
