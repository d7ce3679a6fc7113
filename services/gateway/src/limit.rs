//! The rate limit: a token bucket for each caller, in this process. A method's cost is taken from the bucket.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use lifecycle::Lifecycle;
use rpc::{Caller, error::DOMAIN};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How many seconds of its rate a caller may use at once.
const BURST_SECONDS: u32 = 2;
/// Buckets kept at most. A full bucket is dropped within a second, so this is the number of callers at work.
const MAX_BUCKETS: usize = 200_000;
/// Buckets that addresses without one of their own share when there are too many.
const SHARED_BUCKETS: u64 = 1_024;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    User(i64),
    Address(IpAddr),
    Shared(u64),
}

/// All buckets.
pub(crate) struct Limits {
    buckets: RateLimiter<Key, DefaultKeyedStateStore<Key>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    full: AtomicBool,
    hasher: RandomState,
}

/// What the bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub allowed: bool,
    /// The size of the bucket, in tokens.
    limit: u32,
    remaining: u32,
    /// Until the bucket is full again.
    reset_s: u32,
    /// Until this request would be allowed.
    wait: Duration,
}

impl Limits {
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            buckets: RateLimiter::keyed(quota).with_middleware(),
            clock: DefaultClock::default(),
            per_second,
            burst,
            full: AtomicBool::new(false),
            hasher: RandomState::new(),
        }
    }

    /// Takes `cost` tokens from the caller's bucket, all or none.
    pub fn take(&self, caller: &Caller, address: IpAddr, cost: u32) -> Decision {
        let key = self.key(caller, address);
        // a method may cost more than a small bucket holds: then it takes the whole of it
        let cost = NonZeroU32::new(cost).unwrap_or(NonZeroU32::MIN).min(self.burst);
        match self.buckets.check_key_n(&key, cost) {
            Ok(Ok(state)) => self.decision(state.remaining_burst_capacity(), None),
            Ok(Err(not_yet)) => self.decision(0, Some(not_yet.wait_time_from(self.clock.now()))),
            Err(_) => self.decision(0, Some(Duration::from_secs(1))),
        }
    }

    fn decision(&self, remaining: u32, wait: Option<Duration>) -> Decision {
        let limit = self.burst.get();
        let missing = limit.saturating_sub(remaining);
        Decision {
            allowed: wait.is_none(),
            limit,
            remaining,
            reset_s: missing.div_ceil(self.per_second.get()),
            wait: wait.unwrap_or_default(),
        }
    }

    fn key(&self, caller: &Caller, address: IpAddr) -> Key {
        if let Caller::User { user_id, .. } = caller {
            return Key::User(*user_id);
        }
        let network = network(address);
        if self.full.load(Ordering::Relaxed) {
            return Key::Shared(self.hasher.hash_one(network) % SHARED_BUCKETS);
        }
        Key::Address(network)
    }

    /// Drops buckets that are full again, until the process stops.
    pub async fn sweep(&self, lifecycle: Lifecycle) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_EVERY) => {}
                () = lifecycle.stopping() => return,
            }
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
            let full = self.buckets.len() > MAX_BUCKETS;
            if full != self.full.swap(full, Ordering::Relaxed) {
                tracing::warn!(
                    full,
                    "rate limit buckets: addresses share buckets while there are too many"
                );
            }
        }
    }
}

impl Decision {
    /// Tells the caller how its bucket stands.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset_s));
    }

    /// The refusal, which says when to come back.
    pub fn refusal(&self) -> Status {
        let mut details = ErrorDetails::with_error_info("RATE_LIMITED", DOMAIN, HashMap::new());
        details.set_retry_info(Some(self.wait));
        Status::with_error_details(Code::ResourceExhausted, "Too many requests; slow down", details)
    }
}

/// What one household or server of IPv6 has is a /64: it must not get a bucket for each of its addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn limits(per_second: u32) -> Limits {
        Limits::new(NonZeroU32::new(per_second).unwrap())
    }

    fn user(user_id: i64) -> Caller {
        Caller::User {
            user_id,
            operator: false,
            session: None,
        }
    }

    #[test]
    fn a_caller_spends_its_own_tokens_only() {
        let limits = limits(5);
        assert_eq!(limits.take(&user(1), HOME, 4).remaining, 6);
        assert!(limits.take(&user(1), HOME, 6).allowed);
        let refused = limits.take(&user(1), HOME, 2);
        assert!(
            !refused.allowed && refused.wait > Duration::from_millis(300),
            "{refused:?}"
        );
        assert!(limits.take(&user(2), HOME, 10).allowed);
        assert!(limits.take(&Caller::Anonymous, HOME, 10).allowed);
        assert!(!limits.take(&Caller::Anonymous, HOME, 1).allowed);
    }

    #[test]
    fn a_cost_above_the_bucket_takes_all_of_it() {
        let limits = limits(1);
        assert!(limits.take(&user(1), HOME, 10).allowed);
        assert!(!limits.take(&user(1), HOME, 1).allowed);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let limits = limits(1);
        limits.take(&user(1), HOME, 2);
        let refused = limits.take(&user(1), HOME, 1);
        let status = refused.refusal();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
        let mut headers = HeaderMap::new();
        refused.write(&mut headers);
        assert_eq!(
            (&headers[LIMIT], &headers[REMAINING], &headers[RESET]),
            (
                &"2".parse().unwrap(),
                &"0".parse().unwrap(),
                &"2".parse().unwrap()
            )
        );
    }

    #[test]
    fn addresses_of_one_network_share_a_bucket() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.7"), address("192.0.2.7"));
        assert_ne!(address("192.0.2.7"), address("192.0.2.8"));
    }

    #[test]
    fn with_too_many_buckets_addresses_share() {
        let limits = limits(5);
        limits.full.store(true, Ordering::Relaxed);
        assert!(matches!(limits.key(&Caller::Anonymous, HOME), Key::Shared(_)));
        assert_eq!(limits.key(&user(7), HOME), Key::User(7));
    }
}
