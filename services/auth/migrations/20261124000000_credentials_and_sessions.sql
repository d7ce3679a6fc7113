-- Sign-in begins: who can sign in with what, and who is signed in.
-- No email and no session token is stored, only digests: whoever reads this database can neither write to the users nor act for them.

CREATE TABLE credentials (
    user_id       bigint      NOT NULL,
    -- SHA-256 of the normalised email
    login_key     bytea       NOT NULL,
    -- a PHC string with its own parameters, so that stronger ones can be introduced at any time; null: nobody can sign in
    password_hash text,
    role          text        NOT NULL DEFAULT 'user',
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credentials_pkey PRIMARY KEY (user_id),
    CONSTRAINT credentials_login_key_unique UNIQUE (login_key),
    CONSTRAINT credentials_user_positive CHECK (user_id > 0),
    CONSTRAINT credentials_login_key_digest CHECK (octet_length(login_key) = 32),
    CONSTRAINT credentials_role_known CHECK (role IN ('user', 'operator'))
);

CREATE TABLE sessions (
    -- SHA-256 of the token
    token_digest bytea       NOT NULL,
    user_id      bigint      NOT NULL,
    -- the role at sign-in, for as long as the session lasts
    role         text        NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (token_digest),
    CONSTRAINT sessions_user_fkey FOREIGN KEY (user_id) REFERENCES credentials (user_id) ON DELETE CASCADE,
    CONSTRAINT sessions_token_digest_digest CHECK (octet_length(token_digest) = 32),
    CONSTRAINT sessions_role_known CHECK (role IN ('user', 'operator')),
    CONSTRAINT sessions_end_after_start CHECK (expires_at > created_at)
);

-- for the sweeper, which removes what has expired
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
-- for all sessions of a user, and for the foreign key
CREATE INDEX sessions_by_user ON sessions (user_id);
