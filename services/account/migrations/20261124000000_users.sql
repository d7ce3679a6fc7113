-- Users, and the outbox that tells the other services of them.
-- A row is created `pending` before the credential and the bank account exist, and becomes `active` with the last of them;
-- the sweeper finds what a crash left in between by the partial index.

CREATE TABLE users (
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    request_id   uuid        NOT NULL,
    name         text        NOT NULL,
    email        text        NOT NULL,
    has_password boolean     NOT NULL,
    status       text        NOT NULL DEFAULT 'pending',
    leased_until timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_request_id_unique UNIQUE (request_id),
    CONSTRAINT users_name_length CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT users_email_length CHECK (octet_length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_status_known CHECK (status IN ('pending', 'active', 'frozen', 'closed'))
);

-- Two spellings of one address, such as Alice@example.com and alice@example.com, are one user.
CREATE UNIQUE INDEX users_email_unique ON users (lower(email));

CREATE INDEX users_pending ON users (created_at) WHERE status = 'pending';

-- Events wait here until Kafka has acknowledged them. A row is written in the transaction of its effect, and deleted by the relay.
CREATE TABLE outbox (
    -- taken while the row lock of the key's owner is held, so that id order is the order of events within a key
    id         bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT outbox_pkey PRIMARY KEY,
    event_id   uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_type text        NOT NULL,
    topic      text        NOT NULL,
    key        text        NOT NULL,
    payload    bytea       NOT NULL CONSTRAINT outbox_payload_size CHECK (octet_length(payload) <= 131072),
    -- W3C trace context of the writer: {"traceparent": "..."}
    headers    jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    -- a queue: every row dies soon, so it is vacuumed by count and not by the share of a table that is nearly empty
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0
);
