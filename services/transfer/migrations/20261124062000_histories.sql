-- A part of an account's history: the entries between two positions, each found by its number in a unique index. As a
-- function, because of its plans: one that was made while the journal was small must not be a pass over it when it has grown.

-- The entries behind `after` and up to `until`. With a reference only those that have it, so many at most, from the lowest
-- position on or from the highest.
CREATE FUNCTION entries_of(account bigint, after bigint, until bigint, named text, oldest_first boolean, most bigint)
    RETURNS SETOF journal
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET enable_seqscan = off
    SET enable_bitmapscan = off
AS $$
BEGIN
    IF named IS NULL THEN
        RETURN QUERY
            SELECT *
              FROM journal
             WHERE debit_account = account AND debit_position > after AND debit_position <= until
             UNION ALL
            SELECT *
              FROM journal
             WHERE credit_account = account AND credit_position > after AND credit_position <= until;
    ELSIF oldest_first THEN
        RETURN QUERY
           (SELECT *
              FROM journal
             WHERE debit_account = account AND reference = named AND debit_position > after AND debit_position <= until
             ORDER BY debit_position
             LIMIT most)
             UNION ALL
           (SELECT *
              FROM journal
             WHERE credit_account = account AND reference = named AND credit_position > after AND credit_position <= until
             ORDER BY credit_position
             LIMIT most);
    ELSE
        RETURN QUERY
           (SELECT *
              FROM journal
             WHERE debit_account = account AND reference = named AND debit_position > after AND debit_position <= until
             ORDER BY debit_position DESC
             LIMIT most)
             UNION ALL
           (SELECT *
              FROM journal
             WHERE credit_account = account AND reference = named AND credit_position > after AND credit_position <= until
             ORDER BY credit_position DESC
             LIMIT most);
    END IF;
END
$$;
