-- From a moment to a position. The entries of an account have positions without a gap and in the order of time, so a moment is
-- found by halving: some 25 looks into the unique indexes for ten million entries, and no index by time to keep.

-- How many entries of an account are older than a moment, which is the position of the last of them.
CREATE FUNCTION entries_before(account bigint, moment timestamptz) RETURNS bigint
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    -- the plans of a function are kept: they must not be those that fit an empty journal
    SET enable_seqscan = off
AS $$
DECLARE
    -- entries up to `low` are older than the moment, those from `high` on are not
    low       bigint := 0;
    high      bigint;
    last      timestamptz;
    middle    bigint;
    middle_at timestamptz;
BEGIN
    SELECT position, last_at
      INTO high, last
      FROM accounts
     WHERE id = account;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- most ask up to now
    IF last < moment THEN
        RETURN high;
    END IF;
    WHILE low + 1 < high LOOP
        middle := (low + high) / 2;
        SELECT coalesce(
                   (SELECT created_at FROM journal WHERE debit_account = account AND debit_position = middle),
                   (SELECT created_at FROM journal WHERE credit_account = account AND credit_position = middle))
          INTO middle_at;
        IF middle_at < moment THEN
            low := middle;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
