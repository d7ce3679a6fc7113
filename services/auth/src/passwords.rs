//! Argon2id, bounded: as many at once as there are cores, and a short line in front of them.
//!
//! The parameters are those that OWASP's cheat sheet on password storage recommends: 19 MiB, two passes, one lane. A hash
//! carries its own parameters, so that they can be raised; a sign-in with an older hash renews it.

mod memory;

use std::{sync::Arc, thread, time::Instant};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use memory::{Memories, Memory};
use opentelemetry::metrics::Histogram;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use crate::{
    app::{Error, Passwords, Verdict},
    domain::password::Password,
};

/// Passwords that wait for each one that is worked on: about one second of work.
const LINE_PER_CORE: usize = 64;

/// The hash that stands in for the one of an unknown email. Its digest is random: no password leads to it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Z7h8oT8tX3fpbvJp2GPKoQ$HjGnArSvJrI10eL9tObzo76kegu2eZmYXH/9oe088LU";

/// Argon2id with the current parameters.
pub struct Argon2id {
    params: Params,
    at_once: usize,
    working: Arc<Semaphore>,
    places: usize,
    line: Arc<Semaphore>,
    memories: Arc<Memories>,
    waited: Histogram<f64>,
}

impl Default for Argon2id {
    fn default() -> Self {
        Self::new()
    }
}

impl Argon2id {
    /// Works on as many passwords at once as the machine has cores.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with(Params::DEFAULT, cores, cores * LINE_PER_CORE)
    }

    /// Other parameters and limits.
    pub fn with(params: Params, at_once: usize, waiting: usize) -> Self {
        let waited = telemetry::metrics::latency(
            "kontor.auth.password.wait",
            "time in line before a password is hashed",
        );
        Self {
            params,
            at_once,
            working: Arc::new(Semaphore::new(at_once)),
            places: at_once + waiting,
            line: Arc::new(Semaphore::new(at_once + waiting)),
            memories: Arc::default(),
            waited,
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Params, &mut Memory) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let line = Arc::clone(&self.line);
        let place = Arc::clone(&line)
            .try_acquire_owned()
            .map_err(|_| Error::Overloaded)?;
        let start = Instant::now();
        let turn = Arc::clone(&self.working).acquire_owned().await;
        let turn = turn.map_err(|error| Error::Internal(error.into()))?;
        self.waited.record(start.elapsed().as_secs_f64(), &[]);
        // The permits go with the work: it runs to its end even when the caller gives up, and has to count until then.
        let permits: [OwnedSemaphorePermit; 2] = [place, turn];
        let (params, memories) = (self.params.clone(), Arc::clone(&self.memories));
        let (at_once, places) = (self.at_once, self.places);
        spawn_blocking(move || {
            let mut memory = memories.take(&params);
            let result = work(&params, &mut memory);
            memories.give(memory, places - line.available_permits() > at_once);
            drop(permits);
            result
        })
        .await
        .map_err(|error| Error::Internal(error.into()))?
    }
}

impl Passwords for Argon2id {
    async fn verify(&self, hash: Option<String>, password: Password) -> Result<Option<Verdict>, Error> {
        self.run(move |wanted, memory| {
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY)).map_err(internal)?;
            let right = is_right(&parsed, &password, memory)?;
            let Some(old) = hash.as_ref().filter(|_| right) else {
                return Ok(None);
            };
            if is_current(&parsed, wanted) {
                return Ok(Some(Verdict::Right));
            }
            let new = new_hash(wanted, &password, memory)?;
            Ok(Some(Verdict::Renewed {
                old: old.clone(),
                new,
            }))
        })
        .await
    }

    async fn hash(&self, password: Password) -> Result<String, Error> {
        self.run(move |params, memory| new_hash(params, &password, memory))
            .await
    }
}

/// Compares with the parameters of the hash, in constant time.
fn is_right(hash: &PasswordHash, password: &Password, memory: &mut Memory) -> Result<bool, Error> {
    let params = Params::try_from(hash).map_err(internal)?;
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(internal)?;
    let version = hash
        .version
        .map(Version::try_from)
        .transpose()
        .map_err(internal)?;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return Err(Error::Internal("a password hash without salt or digest".into()));
    };
    let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
    Ok(digest(&argon2, password, salt, memory)? == *expected)
}

fn new_hash(params: &Params, password: &Password, memory: &mut Memory) -> Result<String, Error> {
    let mut random = [0; argon2::RECOMMENDED_SALT_LEN];
    getrandom::fill(&mut random).map_err(|error| Error::Internal(error.into()))?;
    let salt = Salt::new(&random).map_err(internal)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let output = digest(&argon2, password, &salt, memory)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).map_err(internal)?,
        salt: Some(salt),
        hash: Some(output),
    };
    Ok(hash.to_string())
}

fn digest(
    argon2: &Argon2<'_>,
    password: &Password,
    salt: &Salt,
    memory: &mut Memory,
) -> Result<Output, Error> {
    let params = argon2.params();
    // an older hash may have asked for another amount
    memory.resize(params.block_count(), argon2::Block::new());
    let mut out = [0; Output::MAX_LENGTH];
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let out = out
        .get_mut(..length)
        .ok_or_else(|| Error::Internal("an overlong password hash".into()))?;
    let done = argon2.hash_password_into_with_memory(password.expose(), salt, out, memory);
    done.map_err(internal)?;
    Output::new(out).map_err(internal)
}

fn is_current(hash: &PasswordHash, wanted: &Params) -> bool {
    Params::try_from(hash).is_ok_and(|params| {
        let costs = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        hash.algorithm == Algorithm::Argon2id.ident() && costs(&params) == costs(wanted)
    })
}

fn internal(error: impl Into<argon2::password_hash::Error>) -> Error {
    Error::Internal(error.into().into())
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher as _, PasswordVerifier as _};

    use super::*;

    fn password(text: &str) -> Password {
        Password::presented(text.to_owned()).unwrap()
    }

    fn quick(at_once: usize, waiting: usize) -> Argon2id {
        Argon2id::with(Params::new(8, 1, 1, None).unwrap(), at_once, waiting)
    }

    #[tokio::test]
    async fn the_right_password_and_no_other() {
        let argon2 = Argon2id::new();
        let hash = argon2.hash(password("password123")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let verify = async |hash: Option<String>, text| argon2.verify(hash, password(text)).await.unwrap();
        assert_eq!(
            verify(Some(hash.clone()), "password123").await,
            Some(Verdict::Right)
        );
        assert_eq!(verify(Some(hash), "Password123").await, None);
        assert_eq!(verify(None, "password123").await, None);
        assert!(
            argon2
                .verify(Some("not a hash".into()), password("x"))
                .await
                .is_err(),
            "a broken hash is no wrong password"
        );
    }

    #[tokio::test]
    async fn hashes_are_those_of_everybody_else() {
        let hash = Argon2id::new().hash(password("password123")).await.unwrap();
        Argon2::default()
            .verify_password(b"password123", hash.as_str())
            .unwrap();
        let theirs = Argon2::default()
            .hash_password(b"password123")
            .unwrap()
            .to_string();
        let verdict = Argon2id::new()
            .verify(Some(theirs), password("password123"))
            .await
            .unwrap();
        assert_eq!(verdict, Some(Verdict::Right));
    }

    #[tokio::test]
    async fn an_old_hash_is_renewed_only_for_the_right_password() {
        let old = quick(1, 1).hash(password("password123")).await.unwrap();
        let argon2 = Argon2id::new();
        assert_eq!(
            argon2.verify(Some(old.clone()), password("wrong")).await.unwrap(),
            None
        );
        let Some(Verdict::Renewed { new, .. }) =
            argon2.verify(Some(old), password("password123")).await.unwrap()
        else {
            panic!("not renewed");
        };
        assert_eq!(
            argon2.verify(Some(new), password("password123")).await.unwrap(),
            Some(Verdict::Right)
        );
    }

    #[test]
    fn nobodys_hash_costs_what_others_cost() {
        let hash = PasswordHash::new(NOBODY).unwrap();
        assert!(is_current(&hash, &Params::DEFAULT));
        assert_eq!(hash.hash.unwrap().as_bytes().len(), Params::DEFAULT_OUTPUT_LEN);
        assert_eq!(hash.salt.unwrap().as_ref().len(), argon2::RECOMMENDED_SALT_LEN);
    }

    #[tokio::test]
    async fn whoever_finds_the_line_full_hears_it_at_once() {
        let argon2 = quick(1, 1);
        let turn = Arc::clone(&argon2.working).acquire_owned().await.unwrap();
        let place = Arc::clone(&argon2.line).acquire_owned().await.unwrap();
        let waiting = argon2.hash(password("waits"));
        tokio::pin!(waiting);
        let soon = tokio::time::timeout(std::time::Duration::from_millis(20), &mut waiting).await;
        assert!(soon.is_err(), "one waits");
        assert!(matches!(
            argon2.hash(password("refused")).await,
            Err(Error::Overloaded)
        ));
        drop((turn, place));
        waiting.await.unwrap();
        argon2.hash(password("later")).await.unwrap();
        assert_eq!(argon2.memories.kept(), 0, "nobody waits, so no memory is kept");
    }
}
