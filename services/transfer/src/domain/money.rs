//! Amounts and currencies.

/// The largest amount and balance, in minor units: 2^53 - 1, the last integer that every JSON reader keeps exact.
pub const MAX_MINOR: i64 = (1 << 53) - 1;

/// A positive amount in minor units (cents), at most [`MAX_MINOR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(i64);

impl Amount {
    /// An amount of so many minor units; none when that is not 1 to [`MAX_MINOR`].
    pub fn new(minor: i64) -> Option<Self> {
        (1..=MAX_MINOR).contains(&minor).then_some(Self(minor))
    }

    /// In minor units.
    pub fn minor(self) -> i64 {
        self.0
    }
}

/// A currency of ISO 4217.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// The currency of a code in capitals, such as `USD`.
    pub fn from_code(code: &str) -> Option<Self> {
        iso_currency::Currency::from_code(code).map(Self)
    }

    /// The code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_positive_and_exact_in_json() {
        assert!(Amount::new(0).is_none());
        assert!(Amount::new(-1).is_none());
        assert!(Amount::new(i64::MIN).is_none());
        assert!(Amount::new(MAX_MINOR + 1).is_none());
        assert_eq!(
            Amount::new(MAX_MINOR).map(Amount::minor),
            Some(9_007_199_254_740_991)
        );
    }

    #[test]
    fn a_currency_is_one_of_iso_4217() {
        assert_eq!(Currency::from_code("USD").map(Currency::code), Some("USD"));
        assert!(Currency::from_code("usd").is_none());
        assert!(Currency::from_code("ZZZ").is_none());
        assert!(Currency::from_code("").is_none());
    }
}
