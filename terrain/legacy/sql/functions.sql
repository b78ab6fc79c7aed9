-- The functions and triggers that keep both schemas in step, as templates: sync.py and
-- to_new.py fill {names in braces} from the declaration.  Each begins with a line "-- name:".
--
-- Where the tables are is filled in when a statement is run (place.py): @legacy.<table> is a
-- legacy table, @new.<table> one of the new schema, @path the path that a function pins.
--
-- Conventions.  In a function the legacy row is the variable l, as in the declaration.
-- Rows are compared with *<>, which looks at the stored value: 2.0 and 2 are equal to
-- <> and are two different texts to the old application.
--
-- terrain.echo is the loop guard.  It names the row whose change is being carried over,
-- with the trigger depth at which it was set: "users:<id>@<depth>".  The triggers of the
-- other side let exactly that write pass.  What a trigger of the shop's own does beneath
-- it, be it to the same row, has another depth and is carried over as usual.

-- name: schema
CREATE SCHEMA IF NOT EXISTS rebuilt;
COMMENT ON SCHEMA rebuilt IS
    'Views that rebuild the legacy tables from the new ones, and what keeps both in step.';

-- name: queue
-- What settle has to look at.  Only ever inserted into by the triggers, so that no client
-- waits for another here.  A late row is one whose legacy row could not be carried over when
-- it was written; why says what was in the way.  The key of all zeros stands for every row.
CREATE TABLE IF NOT EXISTS rebuilt.queue (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    legacy_table text NOT NULL,
    key          uuid NOT NULL,
    queued_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    late         boolean NOT NULL DEFAULT false,
    moved_to     uuid,
    why          text,
    UNIQUE (legacy_table, key, id)
);

-- name: used
-- Who has written to a legacy table, and when, to the minute: cleanup asks whether the old
-- application is really gone.  Inserted into and nothing else, like the queue.
CREATE TABLE IF NOT EXISTS rebuilt.used (
    -- A publication FOR ALL TABLES refuses deletions from a table without a key.
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    legacy_table text NOT NULL,
    role         name NOT NULL,
    application  text NOT NULL,
    at           timestamptz NOT NULL
);

-- name: late
-- Leave a row of the old application's for settle, rather than let its client wait or fail.
-- Whoever had to wait once in a transaction does not wait so long again.  What is left here
-- must not fail for the caller's time-out, or the client's statement would.
CREATE OR REPLACE FUNCTION rebuilt.late(_table text, _key uuid, _moved_to uuid, _why text)
RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path SET lock_timeout = '0' AS $body$
BEGIN
    INSERT INTO rebuilt.queue (legacy_table, key, late, moved_to, why)
    VALUES (_table, _key, true, _moved_to, _why);
    PERFORM set_config('terrain.late', 'on', true);
END $body$;

-- name: to_settle
-- The same for what settle has to do anyway: a client's statement must not fail of it.
CREATE OR REPLACE FUNCTION rebuilt.to_settle(_table text, _key uuid)
RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path SET lock_timeout = '0' AS $body$
BEGIN
    INSERT INTO rebuilt.queue (legacy_table, key) VALUES (_table, _key);
END $body$;

-- name: not_beside_a_batch
-- A batch inserts what it has read; a row that goes meanwhile would come back to life.  So
-- the batch holds the lock of its worker, and who takes rows away shares all of them: settle
-- by waiting for the batch, a trigger only if it need not wait (else its row is late).
-- Returns true, so that it can be assigned, which needs no query.
CREATE OR REPLACE FUNCTION rebuilt.not_beside_a_batch() RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
BEGIN
    IF pg_trigger_depth() = 0 THEN
        PERFORM {waits};
    ELSIF NOT ({tries}) THEN
        RAISE EXCEPTION 'a batch is being copied' USING ERRCODE = 'lock_not_available';
    END IF;
    RETURN true;
END $body$;

-- name: not_unseen
-- A row that is not there may have been made since the snapshot of a transaction that has
-- but one; then it cannot be taken away, and is late.
CREATE OR REPLACE FUNCTION rebuilt.not_unseen() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the new row may be newer than this transaction'
            USING ERRCODE = 'serialization_failure';
    END IF;
END $body$;

-- name: hold
-- Put a row into quarantine, or bring its entry up to date.  When is remembered for held_since.
CREATE OR REPLACE FUNCTION rebuilt.hold(
    _table text, _id uuid, _reason text, _detail text, _row jsonb, _parked jsonb
) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = @path AS $body$
    SELECT set_config('terrain.held', concat_ws(' ', right(current_setting('terrain.held', true), 2000),
               set_config('terrain.carried', (coalesce(nullif(current_setting('terrain.carried', true), ''),
                                                       '0')::bigint + 1)::text, true)
               || '@' || _table || ':' || _id), true);
    WITH former AS (
        DELETE FROM @new.legacy_quarantine q
         WHERE q.legacy_table = _table AND q.legacy_id = _id
           AND q.kind = 'held' AND q.reason <> _reason
        RETURNING q.parked
    )
    INSERT INTO @new.legacy_quarantine AS q
           (legacy_table, legacy_id, kind, reason, detail, "row", parked)
    VALUES (_table, _id, 'held', _reason, _detail, _row,
            coalesce(_parked, (SELECT f.parked FROM former f WHERE f.parked IS NOT NULL LIMIT 1)))
    ON CONFLICT (legacy_table, legacy_id, reason, kind) DO UPDATE
       SET detail = excluded.detail, "row" = excluded."row",
           parked = coalesce(excluded.parked, q.parked)
     WHERE q."row" IS DISTINCT FROM excluded."row" OR excluded.parked IS NOT NULL
$body$;

-- name: held_since
-- Whether a row has been put into quarantine by a trigger beneath the one that asks: by when a
-- row was carried over that was not yet when _carried was asked for.
CREATE OR REPLACE FUNCTION rebuilt.held_since(_table text, _id uuid, _carried text)
RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    each text;
BEGIN
    FOREACH each IN ARRAY string_to_array(current_setting('terrain.held', true), ' ') LOOP
        IF split_part(each, '@', 2) = _table || ':' || _id
           AND coalesce(nullif(split_part(each, '@', 1), '')::bigint, 0)
               > coalesce(nullif(_carried, '')::bigint, 0) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $body$;

-- name: release
-- Take a row out of quarantine; gives back what was parked with it.
CREATE OR REPLACE FUNCTION rebuilt.release(_table text, _id uuid) RETURNS jsonb LANGUAGE sql
SECURITY DEFINER SET search_path = @path AS $body$
    WITH gone AS (
        DELETE FROM @new.legacy_quarantine q
         WHERE q.legacy_table = _table AND q.legacy_id = _id AND q.kind = 'held'
        RETURNING q.*
    ), kept AS (
        INSERT INTO @new.legacy_released
               (legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at)
        SELECT legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at FROM gone
    )
    SELECT g.parked FROM gone g WHERE g.parked IS NOT NULL LIMIT 1
$body$;

-- name: flag
-- Make the flags of a row, among those in _known, exactly _reasons.
CREATE OR REPLACE FUNCTION rebuilt.flag(
    _table text, _id uuid, _known text[], _reasons text[], _details text[], _row jsonb
) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = @path AS $body$
    WITH gone AS (
        DELETE FROM @new.legacy_quarantine q
         WHERE q.legacy_table = _table AND q.legacy_id = _id AND q.kind = 'flagged'
           AND q.reason = ANY (_known) AND q.reason <> ALL (_reasons)
        RETURNING q.*
    ), kept AS (
        INSERT INTO @new.legacy_released
               (legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at)
        SELECT legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at FROM gone
    )
    INSERT INTO @new.legacy_quarantine
           (legacy_table, legacy_id, kind, reason, detail, "row")
    SELECT _table, _id, 'flagged', f.reason, f.detail, _row
      FROM unnest(_reasons, _details) AS f (reason, detail)
    ON CONFLICT (legacy_table, legacy_id, reason, kind) DO NOTHING
$body$;

-- name: user_references
-- Every column that refers to an account: those declared, which have no foreign key while
-- the copies run, and those the catalog knows (Django's own tables, and other people's).
CREATE OR REPLACE FUNCTION rebuilt.user_references()
RETURNS TABLE (relation regclass, attribute name) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = @path AS $body$
    SELECT to_regclass(d.t), d.c::name
      FROM (VALUES {user_references}) AS d (t, c)
    UNION
    SELECT k.conrelid::regclass, a.attname
      FROM pg_constraint k
      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
     WHERE k.contype = 'f' AND k.confrelid = to_regclass('@new.users')
$body$;

-- name: user_is_needed
-- Whether an account has anything that would be lost with it: orders, saved tables, sets …
-- What legacy rows of its own say (models, examples, payments) goes by its own triggers.
CREATE OR REPLACE FUNCTION rebuilt.user_is_needed(_key uuid) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    r record;
    found_one boolean;
BEGIN
    FOR r IN SELECT * FROM rebuilt.user_references() u
              WHERE u.relation <> ALL ({mirrored}) LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s x WHERE x.%I = $1%s)',
                       r.relation, r.attribute,
                       CASE WHEN r.relation = '@new.tables'::regclass
                            THEN ' AND x.kind = ''user''' ELSE '' END)
           INTO found_one USING _key;
        IF found_one THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $body$;

-- name: has_foreign_key
-- Whether one table refers to another: not yet while the copies run.
CREATE OR REPLACE FUNCTION rebuilt.has_foreign_key(_from regclass, _to regclass) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = @path AS $body$
    SELECT EXISTS (SELECT FROM pg_constraint k
                    WHERE k.contype = 'f' AND k.conrelid = _from AND k.confrelid = _to)
$body$;

-- name: repoint_user
-- Let everything that refers to one account refer to another.
CREATE OR REPLACE FUNCTION rebuilt.repoint_user(_old uuid, _new uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT * FROM rebuilt.user_references() LOOP
        BEGIN
            EXECUTE format('UPDATE %s SET %2$I = $2 WHERE %2$I = $1', r.relation, r.attribute)
              USING _old, _new;
        EXCEPTION WHEN unique_violation THEN
            -- Both are in the same group: one membership is enough.
            EXECUTE format('DELETE FROM %s WHERE %I = $1', r.relation, r.attribute) USING _old;
        END;
    END LOOP;
END $body$;

-- name: to_customer
-- An account that is no artist any more, and has things of its own, becomes a customer.
-- Is there a customer with its address already, the two become one.
CREATE OR REPLACE FUNCTION rebuilt.to_customer(_key uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    n @new.users;
    other uuid;
    address text;
BEGIN
    SELECT * INTO n FROM @new.users u WHERE u.id = _key;
    address := CASE WHEN {is_address} THEN {normal_address} ELSE n.email END;
    LOOP
        SELECT u.id INTO other FROM @new.users u
         WHERE u.email = address AND u.role = 'customer' AND u.id <> _key;
        IF FOUND THEN
            PERFORM rebuilt.repoint_user(_key, other);
            DELETE FROM @new.users u WHERE u.id = _key;
            RETURN;
        END IF;
        BEGIN
            UPDATE @new.users u SET role = 'customer', email = address WHERE u.id = _key;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            -- Somebody has made that customer just now: then it is found.
            IF current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END $body$;

-- name: would_take_along
-- Rows of the shop's that a deletion in the new schema would take along.
CREATE OR REPLACE FUNCTION rebuilt.would_take_along(_table regclass, _key uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    r record;
    found_one boolean;
BEGIN
    FOR r IN SELECT k.conrelid::regclass AS relation, a.attname AS attribute
               FROM pg_constraint k
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
              WHERE k.contype = 'f' AND k.confrelid = _table LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I = $1)', r.relation, r.attribute)
           INTO found_one USING _key;
        IF found_one THEN
            RETURN r.relation::text;
        END IF;
    END LOOP;
    RETURN NULL;
END $body$;

-- name: gone
-- A legacy row is no longer there, or no longer fit: its new row goes too.  Returns a value so
-- that it can be assigned, which needs no query.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_gone(_key uuid) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    echo text := current_setting('terrain.echo', true);
    echoing text;
    alone boolean := rebuilt.not_beside_a_batch();
    there boolean;
    with_children boolean;
    child uuid;
BEGIN
    SELECT EXISTS (SELECT FROM @new.{new} n WHERE n.id = _key AND {own}), {has_children}
      INTO there, with_children;
    IF NOT there THEN
        PERFORM rebuilt.not_unseen();
        RETURN false;
    END IF;
    {nothing_left}
    echoing := set_config('terrain.echo', '{new}:' || _key || '@' || pg_trigger_depth(), true);
    {delete_children}
    DELETE FROM @new.{new} n WHERE n.id = _key;
    echoing := set_config('terrain.echo', coalesce(echo, ''), true);
    RETURN true;
END $body$;

-- name: delete_children
    -- Until there is a foreign key.  A deletion of nothing would fire the triggers of statements.
    IF with_children THEN
        {deletions}
    END IF;

-- name: gone_user
-- A deletion is never widened: who bought something, or has rows that only the new schema
-- knows, stays as a customer.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_gone(_key uuid) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    echo text := current_setting('terrain.echo', true);
    child uuid;
BEGIN
    PERFORM rebuilt.not_beside_a_batch();
    -- Also where the account is seen: what has come to refer to it since might not be.
    PERFORM rebuilt.not_unseen();
    IF NOT EXISTS (SELECT FROM @new.users n WHERE n.id = _key AND {own}) THEN
        RETURN false;
    END IF;
    PERFORM set_config('terrain.echo', 'users:' || _key || '@' || pg_trigger_depth(), true);
    -- Whoever refers to it in a commit under way has it locked; after that it can be seen.
    PERFORM FROM @new.users n WHERE n.id = _key FOR UPDATE;
    IF rebuilt.user_is_needed(_key) THEN
        PERFORM rebuilt.to_customer(_key);
    ELSE
        {nothing_left}
        DELETE FROM @new.users n WHERE n.id = _key;
    END IF;
    PERFORM set_config('terrain.echo', coalesce(echo, ''), true);
    RETURN true;
END $body$;

-- name: nothing_left
    -- What referred to it on the other side went before or with it, and has its trigger still
    -- to come, or is late.  It goes first, or the foreign key, looked at by the commit, would
    -- make that fail.
    IF rebuilt.has_foreign_key('@new.{child_new}', '@new.{new}') THEN
        FOR child IN SELECT n.id FROM @new.{child_new} n WHERE n.{column} = _key AND {own} LOOP
            PERFORM rebuilt.{child}_put(child, NULL, false, true);
        END LOOP;
    END IF;

-- name: moved
-- The old application gave a row another key: the new row keeps what is only its own.  Its lines
-- follow by their foreign key, one level deeper than terrain.echo says; terrain.moving is for them.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_moved(_old uuid, _new uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    echo text := current_setting('terrain.echo', true);
BEGIN
    PERFORM rebuilt.not_beside_a_batch();
    IF NOT EXISTS (SELECT FROM @new.{new} n WHERE n.id = _old) THEN
        PERFORM rebuilt.not_unseen();
    END IF;
    IF EXISTS (SELECT FROM @legacy.{legacy} l WHERE l.id = _old)
       OR EXISTS (SELECT FROM @new.{new} n WHERE n.id = _new)
       OR NOT EXISTS (SELECT FROM @legacy.{legacy} l WHERE l.id = _new) THEN
        PERFORM rebuilt.{legacy}_to_new(_old);
    ELSE
        PERFORM set_config('terrain.echo', '{new}:' || _new || '@' || pg_trigger_depth(), true),
                set_config('terrain.moving', '{new}:' || _new, true);
        UPDATE @new.{new} n SET id = _new WHERE n.id = _old AND {own};
        {move_children}
        PERFORM set_config('terrain.echo', coalesce(echo, ''), true),
                set_config('terrain.moving', '', true);
    END IF;
    IF NOT EXISTS (SELECT FROM @legacy.{legacy} l WHERE l.id = _old) THEN
        -- Under its new key it may have been looked at already: by the lines' triggers.
        DELETE FROM @new.legacy_quarantine q
         WHERE q.legacy_table = '{legacy}' AND q.legacy_id = _old
           AND EXISTS (SELECT FROM @new.legacy_quarantine x
                        WHERE x.legacy_table = '{legacy}' AND x.legacy_id = _new
                          AND (x.reason, x.kind) = (q.reason, q.kind));
        UPDATE @new.legacy_quarantine q
           SET legacy_id = _new, detail = replace(q.detail, _old::text, _new::text),
               "row" = q."row" || jsonb_build_object('id', _new)
         WHERE q.legacy_table = '{legacy}' AND q.legacy_id = _old;
    END IF;
END $body$;

-- name: put
-- Carry one legacy row over: insert, update or delete its new row, whichever makes them
-- agree.  The row is read here, by its key, so that it does not matter which of several
-- events of a transaction calls this, nor in what order.
--
-- _fresh says that the row has just been inserted, so that no new one is looked for.
-- _part says whether what the part is made from has changed, and is NULL if that is not known:
-- true, it is written without a look; false, neither it nor what is judged by it is looked at.
-- _refers says whether what the row refers to may have changed.
--
-- It returns a value nobody looks at, and keeps one in echoing, because an assignment needs no
-- query and PERFORM is one (docs/decisions/0015-what-a-statement-pays.md).
--
-- What may have been written by a batch or by another session is looked at after the write
-- of the new row, which waits for them, and in a snapshot of its own.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_put(
    _key uuid, _part boolean, _fresh boolean, _refers boolean
)
RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    l @legacy.{legacy};
    newest @legacy.{legacy};
    carried text := current_setting('terrain.carried', true);
    given record;
    why text;
    parked jsonb;
    limits text;
    echo text := current_setting('terrain.echo', true);
    echoing text;
    reasons text[];
    details text[];
    noted boolean;
    wrote boolean;
    otherwise boolean;
    orphaned boolean;
    waits boolean;
    bounces text;
    {more_variables}
BEGIN
    IF echo <> '' THEN
        -- Beneath another write of the sync: see overtaken.
        carried := set_config('terrain.carried',
                              (coalesce(nullif(carried, ''), '0')::bigint + 1)::text, true);
    END IF;
    IF pg_trigger_depth() = 0 THEN
        SELECT * INTO l FROM @legacy.{legacy} t WHERE t.id = _key FOR NO KEY UPDATE;
    ELSE
        -- Whoever called the trigger has it locked.  A transaction that has but one snapshot may
        -- also see one of the same key that was deleted since, which has an xmax.
        SELECT * INTO l FROM @legacy.{legacy} t
         WHERE t.id = _key
           AND (t.xmax = '0' OR current_setting('transaction_isolation') = 'read committed');
    END IF;
    IF NOT FOUND THEN
        IF pg_trigger_depth() > 0 AND current_setting('transaction_isolation') <> 'read committed' THEN
            -- Or somebody has it locked.  This fails if it is the one that was deleted.
            SELECT * INTO l FROM @legacy.{legacy} t WHERE t.id = _key FOR NO KEY UPDATE;
        END IF;
        IF NOT FOUND THEN
            -- Its key may have been given to a new row meanwhile, which has a trigger of its own.
            PERFORM FROM @new.{new} n WHERE n.id = _key FOR UPDATE;
            IF NOT EXISTS (SELECT FROM @legacy.{legacy} t WHERE t.id = _key) THEN
                wrote := rebuilt.{legacy}_gone(_key);
                DELETE FROM @new.legacy_quarantine q
                 WHERE q.legacy_table = '{legacy}' AND q.legacy_id = _key;
            END IF;
            RETURN false;
        END IF;
    END IF;
    {judge}
    given := ROW({given});
    echoing := set_config('terrain.echo', '{new}:' || _key || '@' || pg_trigger_depth(), true);
    -- Mostly the row is there, or is known not to be.  An INSERT would do alone, but it checks
    -- every constraint before it finds a row in its way.  And an IF with a table in it, and a
    -- variable that answers it already, would be planned anew each time: so they are nested.
    IF _fresh THEN
        _part := true;
        -- Is one there all the same, this fails, and the trigger comes again without _fresh: to
        -- prepare for that takes longer.
        INSERT INTO @new.{new} AS n ({columns})
        VALUES ({values})
        RETURNING {otherwise}{waits} INTO otherwise{into_waits};
        wrote := FOUND;
    ELSE
        UPDATE @new.{new} n SET {updates}
         WHERE n.id = _key AND {same_kind} AND ROW({stored})::record *<> given
        RETURNING ROW({stored})::record *<> given{waits} INTO otherwise{into_waits};
        wrote := FOUND;
        IF NOT wrote THEN
            -- The copy may not have come by yet.
            IF NOT EXISTS (SELECT FROM @new.{new} n WHERE n.id = _key) THEN
                _part := true;
                _fresh := true;
                INSERT INTO @new.{new} AS n ({columns})
                VALUES ({values})
                ON CONFLICT (id) DO UPDATE
                   SET {assignments}
                 WHERE {same_kind} AND ROW({stored})::record *<> ROW({excluded})::record
                RETURNING {otherwise}{waits} INTO otherwise{into_waits};
                wrote := FOUND;
            END IF;
        END IF;
    END IF;
    {overtaken}
    {taken}
    {lock_parents}
    SELECT EXISTS (SELECT FROM @new.legacy_quarantine q
                    WHERE q.legacy_table = '{legacy}' AND q.legacy_id = _key), {orphaned}
      INTO noted, orphaned;
    {parents}
    {lines}
    {overtaken_by_lines}
    IF noted AND why IS NULL THEN
        parked := rebuilt.release('{legacy}', _key);
        {unpark}
    END IF;
    {queue}
    {flags}
    {watch_triggers}
    echoing := set_config('terrain.echo', coalesce(echo, ''), true);
    RETURN true;
END $body$;

-- name: judge_whole
    why := {held};
    {hold_whole}

-- name: taken
    IF NOT wrote THEN
        IF NOT EXISTS (SELECT FROM @new.{new} n WHERE n.id = _key AND {own}) THEN
            -- Somebody else has taken the id since it was looked at.
            why := {held};
            {hold_whole}
            RAISE EXCEPTION 'the id is being taken by another row'
                USING ERRCODE = 'lock_not_available';
        END IF;
    END IF;

-- name: lock_parents
    -- The commit asks for these locks, to see whether the foreign keys hold, and would wait
    -- for whoever has one of the rows for update.  Here that makes the row late.
    IF wrote AND (_refers OR _fresh) THEN
        {locks}
    END IF;

-- name: parents
    IF wrote AND orphaned THEN
        -- While the copies run there is no foreign key yet, and nothing to wait for.
        IF {refused} THEN
            RAISE EXCEPTION 'what it refers to is late' USING ERRCODE = 'lock_not_available';
        END IF;
    END IF;

-- name: overtaken
    -- A trigger of the shop's on what has just been written may have changed the legacy row, and then
    -- that has been carried over already, by a trigger beneath: it knows more than this one, which
    -- must neither release what that has held nor write lines that were true before.
    IF current_setting('terrain.carried', true) IS DISTINCT FROM carried THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'triggers beneath have changed rows' USING ERRCODE = 'serialization_failure';
        END IF;
        SELECT * INTO newest FROM @legacy.{legacy} t WHERE t.id = _key;
        IF NOT FOUND OR l *<> newest OR rebuilt.held_since('{legacy}', _key, carried) THEN
            echoing := set_config('terrain.echo', coalesce(echo, ''), true);
            RETURN true;
        END IF;
    END IF;

-- name: to_new
-- The same, whatever the new tables say to it: a value that is unique and still elsewhere is
-- taken from there first; a row that they refuse is held.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_to_new(_key uuid)
RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    l @legacy.{legacy};
    other uuid;
    displaced uuid[] := '{}';
    echo text := current_setting('terrain.echo', true);
BEGIN
    FOR attempt IN 1 .. 2 LOOP
        BEGIN
            PERFORM rebuilt.{legacy}_put(_key, NULL, false, true);
            EXIT;
        EXCEPTION
            WHEN unique_violation THEN
                SELECT * INTO l FROM @legacy.{legacy} t WHERE t.id = _key;
                IF attempt = 2 THEN
                    PERFORM rebuilt.hold('{legacy}', _key, 'refused', {refused}, to_jsonb(l), NULL);
                    EXIT;
                END IF;
                {displace}
            WHEN data_exception OR integrity_constraint_violation OR raise_exception
              OR SQLSTATE 'TB002' THEN
                SELECT * INTO l FROM @legacy.{legacy} t WHERE t.id = _key;
                PERFORM rebuilt.hold('{legacy}', _key, 'refused', {refused}, to_jsonb(l), NULL);
                EXIT;
        END;
    END LOOP;
    {carry_displaced}
    PERFORM set_config('terrain.echo', coalesce(echo, ''), true);
END $body$;

-- name: from_old
-- The same for the triggers on the legacy table, when it is not that simple: for a client that
-- is not to notice, whatever is in the way here.  Then its row is late.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_from_old(_key uuid, _former uuid)
RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path
SET lock_timeout = '{lock_timeout}' AS $body$
BEGIN
    IF current_setting('terrain.late', true) = 'on' THEN
        PERFORM set_config('lock_timeout', '{short_lock_timeout}', true);
    END IF;
    IF _former IS NOT NULL THEN
        PERFORM rebuilt.{legacy}_moved(_former, _key);
    END IF;
    PERFORM rebuilt.{legacy}_to_new(_key);
EXCEPTION WHEN OTHERS THEN
    PERFORM rebuilt.late('{legacy}', _former, _key, SQLSTATE || ' ' || SQLERRM)
      WHERE _former IS NOT NULL;
    PERFORM rebuilt.late('{legacy}', _key, NULL, SQLSTATE || ' ' || SQLERRM);
END $body$;

-- name: queue_for_settle
    IF waits THEN
        INSERT INTO rebuilt.queue (legacy_table, key) VALUES ('{legacy}', _key);
    END IF;

-- name: hold_whole
    IF why IS NOT NULL THEN
        PERFORM rebuilt.hold('{legacy}', _key, why, {held_detail}, to_jsonb(l), {park});
        PERFORM rebuilt.{legacy}_gone(_key);
        PERFORM set_config('terrain.echo', coalesce(echo, ''), true);
        RETURN false;
    END IF;

-- name: displace
-- The value is unique among legacy rows, so whoever has it here has lost it there, in a
-- change that is still to be carried over: it goes out of the way, and is carried over after
-- this one.  Not before: where several rows pass their values round, it may wait for this one.
                FOR other IN SELECT n.id FROM @new.{new} n
                  WHERE n.{column} = {value} AND {own} AND n.id <> _key
                    AND NOT EXISTS (SELECT FROM @legacy.{legacy} o
                                     WHERE o.id = n.id AND o.{legacy_column} = l.{legacy_column}) LOOP
                    PERFORM set_config('terrain.echo', '{new}:' || other || '@' || pg_trigger_depth(), true);
                    UPDATE @new.{new} n SET {column} = n.id::text WHERE n.id = other;
                    PERFORM set_config('terrain.echo', coalesce(echo, ''), true);
                    displaced := displaced || other;
                END LOOP;

-- name: flags
    {price}
    IF {noteworthy} THEN
        SELECT coalesce(array_agg(f.reason), '{}'), coalesce(array_agg(f.detail), '{}')
          INTO reasons, details
          FROM (VALUES {flag_rows}) AS f (reason, detail) WHERE f.reason IS NOT NULL;
        PERFORM rebuilt.flag('{legacy}', _key, {known}, reasons, details, to_jsonb(l));
    END IF;

-- name: price
    -- Whether the lines of an order add up to what it says they cost.  What is odd is asked once:
    -- to set up so long an expression takes longer than to answer it.
    odd := noted OR {any_flag};
    IF odd OR _part IS NOT FALSE THEN
        _subtotal := {subtotal};
        SELECT coalesce(sum(i.total_price), 0) INTO _sum
          FROM @new.{part} i WHERE i.{parent} = _key;
        price := CASE WHEN _subtotal IS NULL THEN 'subtotal_missing'
                      WHEN _sum <> _subtotal THEN 'prices_disagree' END;
    END IF;

-- name: watch_triggers
    -- A BEFORE trigger of somebody else's on the new table has stored something else than it
    -- was given, or may have: then the legacy row follows, a few times at most.
    IF otherwise THEN
        bounces := coalesce(current_setting('terrain.bounces', true), '');
        IF length(bounces) > 4 THEN
            PERFORM rebuilt.hold('{legacy}', _key, 'triggers_disagree',
                '{legacy} ' || _key || ' is changed back and forth by triggers on both tables.'
                ' Look at them, then retry.', to_jsonb(l), NULL);
        ELSE
            PERFORM set_config('terrain.bounces', bounces || 'x', true);
            PERFORM rebuilt.{legacy}_to_legacy(_key, {bounced}, NULL);
            PERFORM set_config('terrain.bounces', bounces, true);
        END IF;
    END IF;

-- name: lines
    IF noted OR _part IS NOT FALSE THEN
        _subtotal := {subtotal};
        IF {may_be_held} THEN
            why := {held};
        END IF;
        IF why IS NOT NULL THEN
            PERFORM rebuilt.hold('{legacy}', _key, why, {held_detail}, to_jsonb(l), {park});
            DELETE FROM @new.{part} i WHERE i.{parent} = _key;
            carried := current_setting('terrain.carried', true);
        ELSE
            IF noted THEN
                parked := rebuilt.release('{legacy}', _key);
                {unpark_lines}
            END IF;
            differs := _part;
            IF _part IS NOT TRUE THEN
                differs := (SELECT r.{part_column} FROM rebuilt.{legacy} r WHERE r.id = _key)::text
                           IS DISTINCT FROM l.{part_column}::text;
            END IF;
            IF differs THEN
                IF EXISTS (SELECT FROM @new.{part} i WHERE i.{parent} = _key) THEN
                    {write_lines}
                ELSE
                    {first_lines}
                END IF;
                IF otherwise IS NULL OR NOT (_fresh OR otherwise) THEN
                    otherwise := {watched};
                END IF;
            END IF;
        END IF;
    END IF;

-- name: to_legacy
-- Carry one new row over to the legacy table, changing only the columns that differ: a
-- trigger of the shop's on another column has no business firing.  What the legacy table
-- cannot hold is refused, with a sentence, and so is undone.
--
-- Nor are columns written that nobody has changed here: the old application may just have, in a
-- statement whose trigger is still to come.  _part is true if only the part may have changed,
-- false if only the row, NULL if both; and of the row the columns in _columns, or all if NULL.
CREATE OR REPLACE FUNCTION rebuilt.{legacy}_to_legacy(_key uuid, _part boolean, _columns text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path
SET lock_timeout = '{lock_timeout}' AS $body$
DECLARE
    l @legacy.{legacy};
    w @legacy.{legacy};
    wanted boolean;
    there boolean;
    held text;
    sets text := '';
    echo text := current_setting('terrain.echo', true);
    along text;
BEGIN
    IF pg_trigger_depth() > {deepest} THEN
        RAISE EXCEPTION '@legacy.{legacy} % is changed back and forth by triggers on both tables', _key
            USING ERRCODE = 'TB002',
                  HINT = 'Look at the triggers on @new.{new} and @legacy.{legacy}.';
    END IF;
    BEGIN
        SELECT * INTO l FROM @legacy.{legacy} t WHERE t.id = _key FOR NO KEY UPDATE;
        there := FOUND;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION '@legacy.{legacy} % is being changed by the old application', _key
            USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
    END;
    IF EXISTS (SELECT FROM rebuilt.queue q
                WHERE q.late AND q.legacy_table = '{legacy}'
                  AND q.key IN (_key, '{every_row}')) THEN
        -- What is there says more than the new row: not to be overwritten with it.
        RAISE EXCEPTION '@legacy.{legacy} % has changed and waits for settle', _key
            USING ERRCODE = 'lock_not_available', HINT = 'Run settle, then try again.';
    END IF;
    SELECT {in_order} INTO w FROM rebuilt.{legacy} r WHERE r.id = _key;
    wanted := FOUND;
    {keep_held}
    PERFORM set_config('terrain.echo', 'legacy.{legacy}:' || _key || '@' || pg_trigger_depth(), true);
    BEGIN
        IF NOT wanted AND there THEN
            along := rebuilt.would_take_along('@legacy.{legacy}', _key);
            IF along IS NOT NULL THEN
                RAISE EXCEPTION '@legacy.{legacy} % still has rows in %', _key, along
                    USING ERRCODE = 'foreign_key_violation';
            END IF;
            DELETE FROM @legacy.{legacy} t WHERE t.id = _key;
        ELSIF wanted AND NOT there THEN
            INSERT INTO @legacy.{legacy} ({legacy_columns}) VALUES ({w_columns});
        ELSIF wanted THEN
            {compare}
            IF sets <> '' THEN
                EXECUTE 'UPDATE @legacy.{legacy} t SET ' || substr(sets, 3) || ' WHERE t.id = ($1).id'
                  USING w;
            END IF;
        END IF;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
        RAISE EXCEPTION '@new.{new} % cannot be kept in step with @legacy.{legacy}: %', _key, SQLERRM
            USING ERRCODE = 'TB002',
                  HINT = 'The old application still uses that table. Change the row so that'
                         ' it fits there, or wait until cleanup_legacy.';
    END;
    PERFORM set_config('terrain.echo', coalesce(echo, ''), true);
    -- What triggers of the shop's made of it comes back.
    IF wanted <> there OR sets <> '' THEN
        PERFORM rebuilt.{legacy}_to_new(_key);
    END IF;
END $body$;

-- name: keep_held_whole
    IF wanted AND there AND EXISTS (SELECT FROM @new.legacy_quarantine q
                                     WHERE q.legacy_table = '{legacy}' AND q.legacy_id = _key
                                       AND q.kind = 'held') THEN
        RAISE EXCEPTION '@new.{new} % has the id of a row of @legacy.{legacy} that is held', _key
            USING ERRCODE = 'TB002',
                  HINT = 'Repair or delete that row in the old application, then run settle;'
                         ' or use another id.';
    END IF;
    IF wanted THEN
        DECLARE
            l CONSTANT @legacy.{legacy} := w;
        BEGIN
            held := {held};
        END;
        IF held IS NOT NULL THEN
            RAISE EXCEPTION '@new.{new} % cannot be kept in step with @legacy.{legacy}: it would be held there (%)', _key, held
                USING ERRCODE = 'TB002',
                      HINT = 'Change the row, or wait until cleanup_legacy.';
        END IF;
    END IF;

-- name: keep_held_part
    IF wanted AND there THEN
        held := {held};
        IF held IS NOT NULL AND _part
           AND EXISTS (SELECT FROM @new.{part} i WHERE i.{parent} = _key) THEN
            RAISE EXCEPTION 'The {part_column} of @legacy.{legacy} % are held (%) and have no lines to change', _key, held
                USING ERRCODE = 'TB002',
                      HINT = 'Correct them in the old application, then run settle.';
        ELSIF held IS NOT NULL THEN
            w.{part_column} := l.{part_column};
        END IF;
    END IF;

-- name: note_use
-- A client has written to a legacy table: once a minute for each session.
CREATE OR REPLACE FUNCTION rebuilt.note_use(_table text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path SET lock_timeout = '0' AS $body$
BEGIN
    INSERT INTO rebuilt.used (legacy_table, role, application, at)
    VALUES (_table, session_user, current_setting('application_name'), now());
    PERFORM set_config('terrain.used_' || _table,
                       (extract(epoch FROM now())::bigint / 60)::text, false);
END $body$;

-- name: notes_use
    -- A client's own statement: what is done beneath one of the new application's is not
    -- the old one's.
    IF pg_trigger_depth() = 1
       AND coalesce(current_setting('terrain.used_{legacy}', true), '')
           <> (extract(epoch FROM now())::bigint / 60)::text THEN
        PERFORM rebuilt.note_use('{legacy}');
    END IF;

-- name: on_legacy
-- What the old application's writes call.  It waits for a lock no longer than {lock_timeout} and
-- fails for nothing that is in the way here: then the row is late, and settle carries it over.
--
-- Every session keeps a plan for each expression here, as long as it lives: so there are few
-- (docs/decisions/0007-short-locks.md).
-- NEW is null in a deletion, and what an AFTER trigger returns is not looked at.
CREATE OR REPLACE FUNCTION rebuilt.on_legacy_{legacy}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path
SET lock_timeout = '{lock_timeout}' AS $body$
DECLARE
    _key uuid := coalesce(NEW.id, OLD.id);
    _former uuid;
    done boolean;
BEGIN
    -- Mostly there is no guard at all, and then its name need not be put together.
    IF current_setting('terrain.echo', true) <> '' THEN
        IF {carried_over} THEN
            RETURN NEW;
        END IF;
    END IF;
    {notes_use}
    BEGIN
        IF {unchanged} THEN
            RETURN NEW;
        END IF;
        IF current_setting('terrain.late', true) = 'on' THEN
            PERFORM set_config('lock_timeout', '{short_lock_timeout}', true);
        END IF;
        IF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            _former := OLD.id;
            PERFORM rebuilt.{legacy}_moved(_former, _key);
        END IF;
        done := rebuilt.{legacy}_put(_key, {part_changed}, TG_OP = 'INSERT', {refers});
    EXCEPTION
        WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN
            PERFORM rebuilt.{legacy}_from_old(_key, _former);
        WHEN OTHERS THEN
            PERFORM rebuilt.late('{legacy}', _former, _key, SQLSTATE || ' ' || SQLERRM)
              WHERE _former IS NOT NULL;
            PERFORM rebuilt.late('{legacy}', _key, NULL, SQLSTATE || ' ' || SQLERRM);
    END;
    {notify_settle}
    RETURN NEW;
END $body$;

-- name: notify_settle
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND {settled_by_changed} THEN
        PERFORM rebuilt.to_settle('{legacy}', NEW.id);
    END IF;

-- name: on_legacy_truncate
-- A truncation takes away also what has been committed since the snapshot of a transaction that
-- has but one, and whose new row cannot be seen from here: then every row is late.
CREATE OR REPLACE FUNCTION rebuilt.on_legacy_{legacy}_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path
SET lock_timeout = '{lock_timeout}' AS $body$
DECLARE
    _key uuid;
BEGIN
    {notes_use}
    FOR _key IN SELECT n.id FROM @new.{new} n WHERE {own} LOOP
        PERFORM rebuilt.{legacy}_from_old(_key, NULL);
    END LOOP;
    BEGIN
        PERFORM rebuilt.not_unseen();
        DELETE FROM @new.legacy_quarantine q WHERE q.legacy_table = '{legacy}';
    EXCEPTION WHEN OTHERS THEN
        PERFORM rebuilt.late('{legacy}', '{every_row}', NULL, SQLSTATE || ' ' || SQLERRM);
    END;
    RETURN NULL;
END $body$;

-- name: on_new
CREATE OR REPLACE FUNCTION rebuilt.on_new_{new}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
BEGIN
    IF {unchanged} THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
        RAISE EXCEPTION 'The id of @new.{new} % cannot be changed while the old application uses it', OLD.id
            USING ERRCODE = 'TB002', HINT = 'Wait until cleanup_legacy.';
    END IF;
    {carry_over}
    RETURN NEW;
END $body$;

-- name: carry_over
    IF TG_OP <> 'DELETE' AND {owns_new} OR TG_OP <> 'INSERT' AND {owns_old} THEN
        PERFORM rebuilt.{legacy}_to_legacy(
            CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END, false,
            CASE WHEN TG_OP = 'UPDATE' AND {owns_new} AND {owns_old} THEN {changed_columns} END);
        IF TG_OP <> 'DELETE' AND {settle_new} THEN
            INSERT INTO rebuilt.queue (legacy_table, key) VALUES ('{legacy}', NEW.id);
        END IF;
    END IF;

-- name: on_new_part
CREATE OR REPLACE FUNCTION rebuilt.on_new_{part}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
BEGIN
    -- A foreign key follows its row to another key: see moved.
    IF {unchanged} OR current_setting('terrain.moving', true)
                      = '{new}:' || coalesce(NEW.{parent}, OLD.{parent}) THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM rebuilt.{legacy}_to_legacy(OLD.{parent}, true, NULL);
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND OLD.{parent} <> NEW.{parent} THEN
        PERFORM rebuilt.{legacy}_to_legacy(NEW.{parent}, true, NULL);
        -- A price that only the new schema knows may make the order one to look at.
        PERFORM rebuilt.{legacy}_to_new(NEW.{parent});
    ELSIF TG_OP = 'UPDATE' AND OLD.total_price IS DISTINCT FROM NEW.total_price THEN
        PERFORM rebuilt.{legacy}_to_new(NEW.{parent});
    END IF;
    RETURN NULL;
END $body$;

-- name: yield_to_old
-- Both applications may lock the same rows in different orders; then one has to give up,
-- and it is the new one.  While a statement of its own runs, it waits for no lock longer
-- than {lock_timeout}.  What the triggers of the old application's tables write does not come here.
CREATE OR REPLACE FUNCTION rebuilt.on_new_begin() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path AS $body$
BEGIN
    IF current_setting('lock_timeout') <> '{lock_timeout}' THEN
        PERFORM set_config('terrain.lock_timeout', current_setting('lock_timeout'), true);
        PERFORM set_config('lock_timeout', '{lock_timeout}', true);
    END IF;
    RETURN NULL;
END $body$;

-- name: yielded_to_old
CREATE OR REPLACE FUNCTION rebuilt.on_new_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @path AS $body$
DECLARE
    before text := current_setting('terrain.lock_timeout', true);
BEGIN
    IF before <> '' THEN
        PERFORM set_config('lock_timeout', before, true);
        PERFORM set_config('terrain.lock_timeout', '', true);
    END IF;
    RETURN NULL;
END $body$;

-- name: on_new_truncate
CREATE OR REPLACE FUNCTION rebuilt.on_new_truncate() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = @path AS $body$
BEGIN
    RAISE EXCEPTION '%.% cannot be truncated while the old application uses its legacy table',
                    TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'TB002', HINT = 'Use DELETE, or wait until cleanup_legacy.';
END $body$;

-- name: closed
-- The new application may not write now: nothing would carry it over, or rows that are not
-- up to date would be.  What the sync itself writes has terrain.echo set; a migration that
-- puts right what is there has terrain.repair.
CREATE OR REPLACE FUNCTION legacy_parked.closed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF coalesce(current_setting('terrain.echo', true), '') = ''
       AND current_setting('terrain.repair', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION '%.% is closed while the shop is on its way between the old application and this one',
                        TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'TB003', HINT = 'It is opened at the end of: python manage.py migrate';
    END IF;
    RETURN NULL;
END $body$;

-- name: first_lines
-- There are none yet, so there is nothing to keep: a quarter of the work.
WITH line AS (
    SELECT _key AS order_id, e.position, e.item, _subtotal AS subtotal,
           NULL::text AS kept_source, NULL::numeric AS kept_unit, NULL::numeric AS kept_total,
           NULL::uuid AS kept_model, NULL::uuid AS kept_artist, NULL::text AS kept_name
      FROM jsonb_array_elements(l.items) WITH ORDINALITY AS e (item, position)
), {pricing}
INSERT INTO @new.order_items (id, order_id, position, {line_columns})
SELECT {line_id}, _key, e.position, {line_values}
  FROM priced e;

-- name: write_lines
-- The k-th line is the k-th element, and keeps its id and position.  What was derived once
-- (price, model, artist) goes with asset, quantity and own price to wherever they stand now.
WITH have AS (
    SELECT i.*, row_number() OVER (ORDER BY i.position) AS rank,
           row_number() OVER (PARTITION BY i.asset_ref, i.quantity, {line_price}
                              ORDER BY i.position) AS nth,
           ROW(i.asset_ref, i.quantity, {line_price})::text AS identity
      FROM @new.order_items i WHERE i.order_id = _key
), want AS (
    SELECT e.*, row_number() OVER (PARTITION BY e.asset_ref, e.quantity, e.own
                                   ORDER BY e.position) AS nth,
           ROW(e.asset_ref, e.quantity, e.own)::text AS identity
      FROM (SELECT e.item, e.position, {asset_ref} AS asset_ref, {quantity} AS quantity,
                   {own_price} AS own
              FROM jsonb_array_elements(l.items) WITH ORDINALITY AS e (item, position)) e
), line AS (
    SELECT _key AS order_id, w.position, w.item, _subtotal AS subtotal,
           k.price_source AS kept_source, k.unit_price AS kept_unit,
           k.total_price AS kept_total, k.model_id AS kept_model, k.artist_id AS kept_artist,
           k.model_name AS kept_name
      FROM want w LEFT JOIN have k ON k.identity = w.identity AND k.nth = w.nth
), {pricing}, final AS (
    SELECT e.position AS rank, {line_values} FROM priced e
), dropped AS (
    DELETE FROM @new.order_items i USING have h
     WHERE i.id = h.id AND h.rank > (SELECT count(*) FROM want)
), changed AS (
    UPDATE @new.order_items i SET {line_assignments}
      FROM final f JOIN have h ON h.rank = f.rank
     WHERE i.id = h.id AND ROW({line_stored})::record *<> ROW({line_final})::record
)
INSERT INTO @new.order_items AS i (id, order_id, position, {line_columns})
SELECT {line_id}, _key, f.position, {line_final}
  FROM (SELECT x.*, (x.rank + (SELECT coalesce(max(h.position), 0) - count(*) FROM have h)
                    )::integer AS position FROM final x) f
 WHERE f.rank > (SELECT count(*) FROM have);

-- name: line_id
-- Derived from order and position, as the copy does it, unless a line has it that was moved.
-- A subquery and not EXISTS, which the planner, expecting a hundred lines, would answer from a
-- hash table of all lines there are.
coalesce((SELECT gen_random_uuid() FROM @new.order_items x
           WHERE x.id = md5(_key || ':' || {row}.position)::uuid),
         md5(_key || ':' || {row}.position)::uuid)

-- name: pricing
-- What each line costs: the CTEs known, summed, weighed and priced, after one named line
-- (order_id, position, item, subtotal, kept_…).
--   1. What is kept from before, then the line's own price, stand in any case.
--   2. The others at today's catalogue price, if everything then adds up to the subtotal.
--   3. Else the rest of the subtotal is apportioned over them by catalogue value, or by
--      quantity where the value of one is unknown.  Each share is the difference of two
--      roundings of a running total, so the shares add up to the penny.
--   4. Without a usable subtotal, or when what stands is more than it: catalogue prices.
known AS (
    SELECT k.*, m.id AS model_id, m.artist_id, m.name AS model_name,
           CASE WHEN m.base_price >= 0 AND m.base_price <> 'NaN' THEN m.base_price END AS catalogue,
           k.kept_source IS NULL AND k.own IS NULL AS is_open
      FROM (SELECT e.*, {quantity} AS quantity, {own_price} AS own,
                   {asset_ref} AS asset_ref
              FROM line e
            -- Read each line's JSON once, not again for each use of what was read.
            OFFSET 0) k
      {find_model}
), summed AS (
    SELECT k.*,
           coalesce(sum(CASE WHEN k.kept_source IS NULL THEN k.own * k.quantity
                             ELSE k.kept_total END) OVER w, 0) AS standing,
           count(*) FILTER (WHERE k.is_open AND k.catalogue IS NULL) OVER w AS unknown_lines,
           count(*) FILTER (WHERE k.kept_source IS NOT NULL) OVER w AS kept_lines,
           sum(k.catalogue * k.quantity) FILTER (WHERE k.is_open) OVER w AS open_value
      FROM known k
    WINDOW w AS ({of_an_order})
), weighed AS (
    SELECT s.*,
           CASE WHEN s.unknown_lines = 0 AND s.open_value > 0
                THEN s.catalogue * s.quantity ELSE s.quantity END AS weight,
           s.is_open AND s.subtotal IS NOT NULL
           AND NOT (s.unknown_lines = 0 AND s.standing + s.open_value = s.subtotal)
           AND s.standing <= s.subtotal
           AND NOT (s.kept_lines > 0 AND s.standing = s.subtotal) AS is_share
      FROM summed s
), running AS (
    {running}
), shared AS (
    SELECT r.*,
           CASE WHEN r.is_share
                THEN round((r.subtotal - r.standing) * r.upto / r.whole, 2)
                   - round((r.subtotal - r.standing) * (r.upto - r.weight) / r.whole, 2)
            END AS share
      FROM running r
), priced AS (
    SELECT r.order_id, r.position, r.item, r.asset_ref, r.quantity, r.subtotal,
           CASE WHEN r.kept_source IS NULL THEN r.model_id ELSE r.kept_model END AS model_id,
           CASE WHEN r.kept_source IS NULL THEN r.artist_id ELSE r.kept_artist END AS artist_id,
           CASE WHEN r.kept_source IS NULL THEN r.model_name ELSE r.kept_name END AS model_name,
           CASE WHEN r.kept_source IS NOT NULL THEN r.kept_unit
                WHEN r.own IS NOT NULL THEN r.own
                WHEN r.is_share THEN round(r.share / r.quantity, 2)
                ELSE r.catalogue END AS unit_price,
           CASE WHEN r.kept_source IS NOT NULL THEN r.kept_total
                WHEN r.own IS NOT NULL THEN r.own * r.quantity
                WHEN r.is_share THEN r.share
                ELSE r.catalogue * r.quantity END AS total_price,
           CASE WHEN r.kept_source IS NOT NULL THEN r.kept_source
                WHEN r.own IS NOT NULL THEN 'own'
                WHEN r.is_share THEN 'apportioned'
                WHEN r.catalogue IS NOT NULL THEN 'catalogue'
                ELSE 'unknown' END AS price_source
      FROM shared r
)

-- name: model_of_many
-- For many lines at once, as the planner likes.
LEFT JOIN {models} m ON m.id = CASE WHEN {is_uuid} THEN k.asset_ref::uuid END

-- name: model_of_one
-- For the few lines of an order: by index, where the planner, which expects a hundred of them,
-- would rather read all models of a shop that has not many.
LEFT JOIN LATERAL (SELECT x.* FROM {models} x
                    WHERE x.id = CASE WHEN {is_uuid} THEN k.asset_ref::uuid END
                    LIMIT 1) m ON true

-- name: running_of_many
-- Most lines have no share, and need not be sorted for one.
SELECT g.*, NULL::numeric AS upto, NULL::numeric AS whole
  FROM weighed g WHERE g.is_share IS NOT TRUE
UNION ALL
SELECT g.*,
       sum(g.weight) OVER (PARTITION BY g.order_id ORDER BY g.position),
       sum(g.weight) OVER (PARTITION BY g.order_id)
  FROM weighed g WHERE g.is_share

-- name: running_of_one
SELECT g.*,
       sum(g.weight) FILTER (WHERE g.is_share) OVER (ORDER BY g.position) AS upto,
       sum(g.weight) FILTER (WHERE g.is_share) OVER () AS whole
  FROM weighed g
