-- The ledger gets one journal: each row moves or holds one amount between two accounts, so that a row which does not
-- balance cannot even be written. What a transfer was, what became of a pending one, and every balance of the past is read
-- from it. Rows are signed and chained by batch. Accounts get limits on both sides, a state, and a number for each entry.

ALTER TABLE accounts
    DROP CONSTRAINT accounts_role_known,
    DROP CONSTRAINT accounts_main_has_user,
    -- an operator may set a minimum above the balance; the rules in domain/ then refuse what would go further below
    DROP CONSTRAINT accounts_not_overspent,
    ADD COLUMN status     text        NOT NULL DEFAULT 'open',
    ADD COLUMN label      text        NOT NULL DEFAULT '',
    -- what pending transfers to the account may still bring
    ADD COLUMN incoming   bigint      NOT NULL DEFAULT 0,
    ADD COLUMN ceiling    bigint      NOT NULL DEFAULT 9007199254740991,
    -- how often state or limits were changed: with the position, what it takes to know an account again
    ADD COLUMN revision   bigint      NOT NULL DEFAULT 0,
    -- the number of the account's last entry, and its time
    ADD COLUMN position   bigint      NOT NULL DEFAULT 0,
    ADD COLUMN last_at    timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00+00',
    -- the client's id of the request that opened an additional account
    ADD COLUMN request_id uuid,
    ADD CONSTRAINT accounts_role_known CHECK (role IN ('main', 'additional', 'treasury', 'fees')),
    ADD CONSTRAINT accounts_users_have_user CHECK ((role IN ('main', 'additional')) = (user_id IS NOT NULL)),
    ADD CONSTRAINT accounts_status_known CHECK (status IN ('open', 'frozen', 'closed')),
    ADD CONSTRAINT accounts_label_short CHECK (char_length(label) <= 64),
    ADD CONSTRAINT accounts_incoming_not_negative CHECK (incoming >= 0),
    ADD CONSTRAINT accounts_limits_ordered CHECK (floor <= ceiling),
    ADD CONSTRAINT accounts_closed_is_empty CHECK (status <> 'closed' OR (posted = 0 AND held = 0 AND incoming = 0)),
    ADD CONSTRAINT accounts_request_unique UNIQUE (request_id),
    -- every batch updates most of a page's accounts: with room, the new versions stay on their page and need no index entry
    SET (fillfactor = 40);

CREATE INDEX accounts_user ON accounts (user_id) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX accounts_fees_currency_unique ON accounts (currency) WHERE role = 'fees';

-- No foreign keys: the accounts of a row are locked by the transaction that writes it, and accounts are never deleted; the
-- checks would cost more than all the rest of a row.
CREATE TABLE journal (
    lane            integer     NOT NULL,
    leg             smallint    NOT NULL,
    sequence        bigint      NOT NULL,
    id              uuid        NOT NULL,
    debit_account   bigint      NOT NULL,
    credit_account  bigint      NOT NULL,
    -- by how much posted money moves, and by how much what is held for it changes
    moved           bigint      NOT NULL,
    held            bigint      NOT NULL,
    -- the number of this entry within each account, and what each account has afterwards
    debit_position  bigint      NOT NULL,
    credit_position bigint      NOT NULL,
    debit_posted    bigint      NOT NULL,
    debit_held      bigint      NOT NULL,
    credit_posted   bigint      NOT NULL,
    credit_held     bigint      NOT NULL,
    created_at      timestamptz NOT NULL,
    -- the first 8 bytes of the row's signature; 0 in lane 0, which holds what was there before there were signatures
    signature       bigint      NOT NULL,
    kind            text        NOT NULL,
    currency        text        NOT NULL,
    -- the pending or reversed transfer
    original_id     uuid,
    expires_at      timestamptz,
    reference       text,
    description     text,
    metadata        jsonb,
    -- the client's id: kept for ever, so that a retry never posts twice
    CONSTRAINT journal_pkey PRIMARY KEY (id, leg),
    CONSTRAINT journal_between_two CHECK (debit_account <> credit_account),
    CONSTRAINT journal_amounts_fit_kind CHECK (
        CASE kind
            WHEN 'transfer' THEN moved > 0 AND held = 0 AND original_id IS NULL
            WHEN 'pending'  THEN moved = 0 AND held > 0 AND original_id IS NULL AND expires_at IS NOT NULL
            WHEN 'post'     THEN moved > 0 AND held < 0 AND moved <= -held AND original_id IS NOT NULL
            WHEN 'void'     THEN moved = 0 AND held < 0 AND original_id IS NOT NULL
            WHEN 'expire'   THEN moved = 0 AND held < 0 AND original_id IS NOT NULL
            WHEN 'reversal' THEN moved > 0 AND held = 0 AND original_id IS NOT NULL
            ELSE false
        END
    )
);

CREATE UNIQUE INDEX journal_sequence ON journal (lane, sequence);
CREATE UNIQUE INDEX journal_debit_position ON journal (debit_account, debit_position);
CREATE UNIQUE INDEX journal_credit_position ON journal (credit_account, credit_position);
-- a pending transfer ends once, a posted one is reversed once: whatever the program believes
CREATE UNIQUE INDEX journal_done_once ON journal (original_id, leg, (kind = 'reversal')) WHERE original_id IS NOT NULL;
CREATE INDEX journal_debit_reference ON journal (debit_account, reference, debit_position) WHERE reference IS NOT NULL;
CREATE INDEX journal_credit_reference ON journal (credit_account, reference, credit_position) WHERE reference IS NOT NULL;

-- One row for each commit: what it wrote, and a signature that depends on all batches of the lane before.
CREATE TABLE batches (
    lane           integer     NOT NULL,
    number         bigint      NOT NULL,
    first_sequence bigint      NOT NULL,
    row_count      integer     NOT NULL,
    created_at     timestamptz NOT NULL,
    hash           bytea       NOT NULL,
    CONSTRAINT batches_pkey PRIMARY KEY (lane, number),
    CONSTRAINT batches_not_empty CHECK (row_count > 0)
);

-- The pending transfers that have not ended: an index of the journal for the expiry, not a part of it.
CREATE TABLE holds (
    pending_id uuid        NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT holds_pkey PRIMARY KEY (pending_id)
);

CREATE INDEX holds_expires_at ON holds (expires_at);

-- What operators and owners did to accounts: the state and limits afterwards, and who it was.
CREATE TABLE account_changes (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    account_id bigint      NOT NULL,
    changed_by bigint,
    changed_at timestamptz NOT NULL DEFAULT now(),
    change     text        NOT NULL,
    status     text        NOT NULL,
    floor      bigint      NOT NULL,
    ceiling    bigint      NOT NULL,
    CONSTRAINT account_changes_pkey PRIMARY KEY (id),
    CONSTRAINT account_changes_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id),
    CONSTRAINT account_changes_known CHECK (change IN ('open', 'limits', 'freeze', 'unfreeze', 'close', 'reopen'))
);

CREATE INDEX account_changes_account ON account_changes (account_id, id);

-- How far each lane is published.
CREATE TABLE published (
    lane     integer NOT NULL,
    sequence bigint  NOT NULL,
    CONSTRAINT published_pkey PRIMARY KEY (lane)
);

-- What was posted before the journal becomes lane 0, in the order of time; balances are replayed in that order.
WITH ordered AS (
    SELECT *, row_number() OVER (ORDER BY created_at, id) AS sequence
      FROM transfers
), entry AS (
    SELECT sequence, debit_account AS account, -amount AS change FROM ordered
     UNION ALL
    SELECT sequence, credit_account, amount FROM ordered
), replayed AS (
    SELECT sequence, account, row_number() OVER account_order AS position, sum(change) OVER account_order AS posted
      FROM entry
    WINDOW account_order AS (PARTITION BY account ORDER BY sequence ROWS UNBOUNDED PRECEDING)
)
INSERT INTO journal (lane, leg, sequence, id, debit_account, credit_account, moved, held, debit_position, credit_position,
                     debit_posted, debit_held, credit_posted, credit_held, created_at, signature, kind, currency)
SELECT 0, 0, o.sequence, o.id, o.debit_account, o.credit_account, o.amount, 0, d.position, c.position,
       d.posted, 0, c.posted, 0, o.created_at, 0, 'transfer', o.currency
  FROM ordered o
  JOIN replayed d ON d.sequence = o.sequence AND d.account = o.debit_account
  JOIN replayed c ON c.sequence = o.sequence AND c.account = o.credit_account;

UPDATE accounts
   SET position = last.position,
       last_at  = last.created_at
  FROM (SELECT account, max(position) AS position, max(created_at) AS created_at
          FROM (SELECT debit_account AS account, debit_position AS position, created_at FROM journal
                 UNION ALL
                SELECT credit_account, credit_position, created_at FROM journal) AS entry
         GROUP BY account) AS last
 WHERE accounts.id = last.account;

DROP TABLE postings;
DROP TABLE transfers;

CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_the_journal();
CREATE TRIGGER batches_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON batches
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_the_journal();
CREATE TRIGGER account_changes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON account_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_the_journal();
