-- A batch was prepared with accounts as a replica remembered them, and one is not so any more: the statement ends, and changes
-- nothing.
CREATE FUNCTION accounts_have_changed() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the accounts have changed' USING ERRCODE = 'KT001';
END
$$;
