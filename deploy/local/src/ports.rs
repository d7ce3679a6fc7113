//! TCP ports on the loopback interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, bail};
use rand::RngExt;

/// Below the range that Linux takes for outgoing connections: nobody takes such a port by chance before its server binds it,
/// or while a killed server is away.
const RANGE: std::ops::Range<u16> = 10_240..32_000;

/// A port that is free now, and that this process has not given out before.
pub fn free() -> Result<u16> {
    free_row(&[0])
}

/// The first of some ports at these distances from it, below a thousand, all of which are free now and were not given out before.
pub fn free_row(distances: &[u16]) -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1_000 {
        let first = rand::rng().random_range(RANGE.start..RANGE.end - 1_000);
        let row = || distances.iter().map(|distance| first + distance);
        if row().all(|port| is_free(port) && !given.contains(&port)) {
            given.extend(row());
            return Ok(first);
        }
    }
    bail!("no free TCP port found between {} and {}", RANGE.start, RANGE.end);
}

/// Whether a server could listen on this port of the loopback interface now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// One sentence for the first port that is taken, or wanted twice. Each port comes with who wants it and the option that changes it.
pub fn demand_free<'a>(wanted: impl IntoIterator<Item = (u16, &'a str, &'a str)>) -> Result<()> {
    let mut wanted_by = BTreeMap::new();
    for (port, purpose, option) in wanted {
        if let Some(other) = wanted_by.insert(port, purpose) {
            bail!("Port {port} is wanted for {other} and for {purpose}: choose another port with {option}.");
        }
        if !is_free(port) {
            bail!(
                "Port {port}, wanted for {purpose}, is taken by another program: stop it, or choose another port with {option}."
            );
        }
    }
    Ok(())
}

/// `127.0.0.1:PORT`.
pub(crate) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn a_row_is_free_as_a_whole_and_given_out_once() {
        let rows: Vec<u16> = (0..50).map(|_| free_row(&[0, 1, 100]).unwrap()).collect();
        let ports: BTreeSet<u16> = rows
            .iter()
            .flat_map(|first| [0, 1, 100].map(|distance| first + distance))
            .collect();
        assert_eq!(ports.len(), 150);
    }

    #[test]
    fn a_port_that_two_want_is_one_sentence() {
        let port = free().unwrap();
        let wanted = [(port, "account", "--inner-port"), (port, "the gateway", "--port")];
        assert_eq!(
            demand_free(wanted).unwrap_err().to_string(),
            format!(
                "Port {port} is wanted for account and for the gateway: choose another port with --port."
            )
        );
    }

    #[test]
    fn a_taken_port_is_one_sentence() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free().unwrap())).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = demand_free([(port, "the gateway", "--port")])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!(
                "Port {port}, wanted for the gateway, is taken by another program: stop it, or choose another port with --port."
            )
        );
    }
}
