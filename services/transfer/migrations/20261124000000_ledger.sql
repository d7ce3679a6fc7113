-- The ledger begins: accounts with their balances, transfers, and the postings that balances are made of.
-- Money is never deleted or rewritten, so transfers and postings are append-only, and the database itself refuses
-- anything else: loudly, also for a person with psql.

CREATE TABLE accounts (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    user_id    bigint,
    role       text        NOT NULL,
    currency   text        NOT NULL,
    posted     bigint      NOT NULL DEFAULT 0,
    held       bigint      NOT NULL DEFAULT 0,
    floor      bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_role_known CHECK (role IN ('main', 'treasury')),
    CONSTRAINT accounts_main_has_user CHECK ((role = 'main') = (user_id IS NOT NULL)),
    CONSTRAINT accounts_user_positive CHECK (user_id > 0),
    CONSTRAINT accounts_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT accounts_posted_exact CHECK (posted BETWEEN -9007199254740991 AND 9007199254740991),
    CONSTRAINT accounts_held_not_negative CHECK (held >= 0),
    -- the last line of defence: the rules in domain/ refuse this first, with a sentence
    CONSTRAINT accounts_not_overspent CHECK (posted - held >= floor)
);

-- A user has one main account, and the bank one treasury in each currency.
CREATE UNIQUE INDEX accounts_main_user_unique ON accounts (user_id) WHERE role = 'main';
CREATE UNIQUE INDEX accounts_treasury_currency_unique ON accounts (currency) WHERE role = 'treasury';

CREATE TABLE transfers (
    id             uuid        NOT NULL,
    debit_account  bigint      NOT NULL,
    credit_account bigint      NOT NULL,
    amount         bigint      NOT NULL,
    currency       text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT transfers_pkey PRIMARY KEY (id),
    CONSTRAINT transfers_debit_account_fkey FOREIGN KEY (debit_account) REFERENCES accounts (id),
    CONSTRAINT transfers_credit_account_fkey FOREIGN KEY (credit_account) REFERENCES accounts (id),
    CONSTRAINT transfers_between_two CHECK (debit_account <> credit_account),
    CONSTRAINT transfers_amount_positive CHECK (amount BETWEEN 1 AND 9007199254740991)
);

CREATE TABLE postings (
    transfer_id   uuid   NOT NULL,
    account_id    bigint NOT NULL,
    amount        bigint NOT NULL,
    balance_after bigint NOT NULL,
    CONSTRAINT postings_pkey PRIMARY KEY (transfer_id, account_id),
    CONSTRAINT postings_transfer_fkey FOREIGN KEY (transfer_id) REFERENCES transfers (id),
    CONSTRAINT postings_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id),
    CONSTRAINT postings_amount_not_zero CHECK (amount <> 0)
);

CREATE FUNCTION refuse_to_rewrite_the_journal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the journal is append-only: % on % refused', TG_OP, TG_TABLE_NAME;
END
$$;

CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_the_journal();
CREATE TRIGGER postings_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_the_journal();
