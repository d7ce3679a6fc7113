-- Events to publish, and events that were processed. The text is that of the crate events; a test compares.

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

-- Events that were processed: a row is written in the transaction of the event's effect, so that an event has its effect once.
CREATE TABLE inbox (
    consumer     text        NOT NULL,
    event_id     uuid        NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_pkey PRIMARY KEY (consumer, event_id)
);

-- for the removal of old rows
CREATE INDEX inbox_by_time ON inbox (processed_at);
