//! Where a request comes from, when it may have passed proxies: they say so in `X-Forwarded-For`, and so can everybody else.

use std::{
    fmt::{self, Display},
    net::{IpAddr, SocketAddr},
    str::{self, FromStr},
};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Entries that are looked at: no chain of real proxies is longer.
const MAX_HOPS: usize = 16;
/// The bits before the IPv4 address in an IPv6 one (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

/// The networks of proxies whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The address of the client: the peer's, or, while that is a trusted proxy's, the one from which it had the request.
    ///
    /// Each proxy appends its peer, so the entries are read from the right. What stands left of the first address that is not
    /// trusted, or of an entry that is none, may be the client's invention.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut entries = lines
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
            .take(MAX_HOPS);
        let mut client = peer.to_canonical();
        while self.trust(client)
            && let Some(before) = entries.next().and_then(address)
        {
            client = before;
        }
        client
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let (mut networks, mut wrong) = (Vec::new(), Vec::new());
        for entry in entries {
            match network(entry) {
                Some(network) => networks.push(network),
                None => wrong.push(entry),
            }
        }
        if wrong.is_empty() {
            Ok(Self(networks))
        } else {
            Err(format!("neither network nor address: {}", wrong.join(", ")))
        }
    }
}

impl Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<String> = self.0.iter().map(IpNet::to_string).collect();
        f.write_str(&networks.join(","))
    }
}

/// A network, or the one of a single address. IPv4 that is written as IPv6 is IPv4, as in addresses.
fn network(entry: &str) -> Option<IpNet> {
    let network: IpNet = match entry.parse() {
        Ok(network) => network,
        Err(_) => IpNet::from(entry.parse::<IpAddr>().ok()?),
    };
    if let IpNet::V6(mapped) = network
        && let Some(address) = mapped.addr().to_ipv4_mapped()
        && let Some(bits) = mapped.prefix_len().checked_sub(MAPPED_PREFIX_BITS)
    {
        return Ipv4Net::new(address, bits).ok().map(IpNet::V4);
    }
    Some(network)
}

/// The address in an entry of the header: some proxies add the port, and brackets around IPv6.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = entry
        .strip_prefix('[')
        .and_then(|entry| entry.strip_suffix(']'))
        .unwrap_or(entry);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => entry.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PROXIES: &str = "10.0.0.0/8, 192.0.2.1, fd00::/8";
    const PROXY: &str = "10.0.0.1";

    /// The client's address, by the lines of the header.
    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies: TrustedProxies = PROXIES.parse().unwrap();
        let headers: HeaderMap = lines
            .iter()
            .map(|line| (FORWARDED_FOR, HeaderValue::from_str(line).unwrap()))
            .collect();
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        assert_eq!(client("203.0.113.9", &["198.51.100.7"]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &[PROXY]), "203.0.113.9");
        assert_eq!(client("192.0.2.2", &["198.51.100.7"]), "192.0.2.2");
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static("198.51.100.7"))]);
        let nobody = TrustedProxies::default();
        assert_eq!(nobody.client(PROXY.parse().unwrap(), &headers).to_string(), PROXY);
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_no_proxy() {
        assert_eq!(client(PROXY, &[]), PROXY);
        assert_eq!(client(PROXY, &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "198.51.100.7");
        // what stands before it is the client's own word
        assert_eq!(client(PROXY, &["192.0.2.77, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(PROXY, &["10.0.0.2, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client(PROXY, &["1.1.1.1,198.51.100.7, 10.0.0.3 ,fd00::2"]),
            "198.51.100.7"
        );
    }

    #[test]
    fn lines_are_one_list_in_their_order() {
        assert_eq!(
            client(PROXY, &["1.1.1.1", "198.51.100.7, 10.0.0.3", "10.0.0.2"]),
            "198.51.100.7"
        );
        assert_eq!(client(PROXY, &["198.51.100.7", "203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn among_proxies_only_the_first_is_the_client() {
        assert_eq!(client(PROXY, &["10.0.0.4, 10.0.0.3, 10.0.0.2"]), "10.0.0.4");
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_search() {
        for bad in [
            "unknown",
            "",
            "-",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:99999",
            "[1.2.3.4",
            "[2001:db8::1]x",
            "1.2.3.4 5.6.7.8",
            "fe80::1%eth0",
        ] {
            assert_eq!(client(PROXY, &[bad]), PROXY, "{bad}");
            let between = format!("198.51.100.7, {bad}, 10.0.0.2");
            assert_eq!(client(PROXY, &[&between]), "10.0.0.2", "{bad}");
            let before = format!("{bad}, 198.51.100.7");
            assert_eq!(client(PROXY, &[&before]), "198.51.100.7", "{bad}");
        }
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_bytes(b"\xff").unwrap())]);
        let proxies: TrustedProxies = PROXIES.parse().unwrap();
        assert_eq!(
            proxies.client(PROXY.parse().unwrap(), &headers).to_string(),
            PROXY
        );
    }

    #[test]
    fn all_that_proxies_write_is_understood() {
        for (entry, address) in [
            ("1.2.3.4", "1.2.3.4"),
            (" \t1.2.3.4 ", "1.2.3.4"),
            ("1.2.3.4:567", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:DB8:0::1]:567", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:102:304]:567", "1.2.3.4"),
        ] {
            assert_eq!(client(PROXY, &[entry]), address, "{entry}");
        }
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:203.0.113.9", &["198.51.100.7"]), "203.0.113.9");
        assert_eq!(client(PROXY, &["198.51.100.7, ::ffff:10.0.0.2"]), "198.51.100.7");
        let read = |text: &str| text.parse::<TrustedProxies>().map(|proxies| proxies.to_string());
        assert_eq!(
            read("::ffff:10.0.0.0/104, ::ffff:192.0.2.1").unwrap(),
            "10.0.0.0/8,192.0.2.1/32"
        );
    }

    #[test]
    fn a_long_list_is_not_read_to_its_end() {
        let chain = |proxies: usize| format!("198.51.100.7{}", ", 10.0.0.2".repeat(proxies));
        assert_eq!(client(PROXY, &[&chain(MAX_HOPS - 1)]), "198.51.100.7");
        assert_eq!(client(PROXY, &[&chain(MAX_HOPS)]), "10.0.0.2");
    }

    #[test]
    fn a_list_is_networks_and_addresses_and_all_others_are_named() {
        let read = |text: &str| text.parse::<TrustedProxies>().map(|proxies| proxies.to_string());
        assert_eq!(read(PROXIES).unwrap(), "10.0.0.0/8,192.0.2.1/32,fd00::/8");
        assert_eq!(read(" 192.0.2.1 ,,").unwrap(), "192.0.2.1/32");
        assert_eq!(read("").unwrap(), "");
        assert_eq!(
            read("10.0.0.0/33, 10.0.0.0/8, proxy.example, 10.0.0.1:80").unwrap_err(),
            "neither network nor address: 10.0.0.0/33, proxy.example, 10.0.0.1:80"
        );
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_changes_its_address(lines in prop::collection::vec("[0-9a-f:., \\[\\]]{0,60}", 0..4)) {
            let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client("203.0.113.9", &lines), "203.0.113.9");
            // a proxy appends to the last line, or adds one
            let appended = format!("{}, 203.0.113.9", lines.pop().unwrap_or_default());
            lines.push(&appended);
            prop_assert_eq!(client(PROXY, &lines), "203.0.113.9");
            lines.push("203.0.113.10, 10.0.0.2");
            prop_assert_eq!(client(PROXY, &lines), "203.0.113.10");
        }
    }
}
