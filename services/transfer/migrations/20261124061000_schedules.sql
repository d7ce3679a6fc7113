-- Transfers that happen later: what is planned, how far each plan has come, and what became of each occurrence. One row is
-- claimed by one replica at a time, for a while, so that nobody holds a lock while the ledger works; that an occurrence
-- happens once is due to its transfer's id, which every replica makes alike.

CREATE TABLE schedules (
    id              uuid        NOT NULL,
    -- the order of creation, for paging
    ordinal         bigint      GENERATED ALWAYS AS IDENTITY,
    -- who planned it; as an operator, with the authority of the bank
    owner_id        bigint      NOT NULL,
    by_bank         boolean     NOT NULL,
    created_at      timestamptz NOT NULL,
    -- the transfer
    from_user       bigint,
    from_account    bigint,
    payee_users     bigint[]    NOT NULL,
    payee_accounts  bigint[]    NOT NULL,
    payee_amounts   bigint[]    NOT NULL,
    currency        text,
    pending         boolean     NOT NULL,
    reference       text,
    description     text,
    metadata        jsonb,
    -- when
    first_at        timestamptz NOT NULL,
    unit            text,
    every           integer,
    occurrences     integer,
    until_at        timestamptz,
    -- how far it has come
    state           text        NOT NULL DEFAULT 'active',
    next_number     bigint      NOT NULL DEFAULT 1,
    next_at         timestamptz,
    -- the replica that works on the next occurrence; until when it, or a pause, keeps others away; how often the occurrence
    -- was begun, so that above 0 its transfer may have been made
    claim           uuid,
    free_at         timestamptz,
    tries           integer     NOT NULL DEFAULT 0,
    CONSTRAINT schedules_pkey PRIMARY KEY (id),
    CONSTRAINT schedules_owner_positive CHECK (owner_id > 0),
    CONSTRAINT schedules_one_payer CHECK (num_nonnulls(from_user, from_account) = 1),
    CONSTRAINT schedules_payees_complete CHECK (
        cardinality(payee_amounts) >= 1
        AND cardinality(payee_users) = cardinality(payee_amounts)
        AND cardinality(payee_accounts) = cardinality(payee_amounts)
    ),
    CONSTRAINT schedules_unit_known CHECK (unit IN ('second', 'day', 'week', 'month')),
    CONSTRAINT schedules_step_with_unit CHECK ((unit IS NULL) = (every IS NULL)),
    CONSTRAINT schedules_repeats_with_unit CHECK (unit IS NOT NULL OR (occurrences IS NULL AND until_at IS NULL)),
    CONSTRAINT schedules_state_known CHECK (state IN ('active', 'finished', 'cancelled')),
    CONSTRAINT schedules_next_while_active CHECK ((state = 'active') = (next_at IS NOT NULL)),
    CONSTRAINT schedules_number_positive CHECK (next_number >= 1 AND tries >= 0)
);

-- what is due; and what was under way when it was cancelled
CREATE INDEX schedules_due ON schedules (next_at) WHERE state = 'active';
CREATE INDEX schedules_unsettled ON schedules (id) WHERE state = 'cancelled' AND tries > 0;
-- the pages of a user; how many of them are active
CREATE UNIQUE INDEX schedules_owner ON schedules (owner_id, ordinal);
CREATE INDEX schedules_owner_active ON schedules (owner_id) WHERE state = 'active';

CREATE TABLE schedule_runs (
    schedule_id   uuid        NOT NULL,
    number        bigint      NOT NULL,
    due_at        timestamptz NOT NULL,
    transfer_id   uuid        NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    -- why the rules refused the transfer, and the field that it is about; null when it was made
    refused       text,
    refused_field text,
    CONSTRAINT schedule_runs_pkey PRIMARY KEY (schedule_id, number),
    CONSTRAINT schedule_runs_schedule_fkey FOREIGN KEY (schedule_id) REFERENCES schedules (id),
    CONSTRAINT schedule_runs_number_positive CHECK (number >= 1)
);

CREATE TRIGGER schedule_runs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON schedule_runs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_the_journal();
