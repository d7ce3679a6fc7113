//! Tokens of pages. To clients they are opaque; each is good for the list that it came from, with the same filters.

use uuid::Uuid;

/// The namespace of lists. With another one, the tokens of before are refused.
const LISTS: Uuid = Uuid::from_u128(0x6b6f_6e74_6f72_8f6c_a973_7473_2070_6731);

/// A list of one name, and what was asked of it.
pub struct List {
    asked: Vec<u8>,
}

impl List {
    /// A list of which nothing is asked.
    pub fn new(name: &str) -> Self {
        Self { asked: Vec::new() }.with(Some(name))
    }

    /// The same list with a filter, which may be absent.
    pub fn with(mut self, filter: Option<impl ToString>) -> Self {
        match filter.map(|filter| filter.to_string()) {
            None => self.asked.push(0),
            Some(text) => {
                self.asked.push(1);
                self.asked.extend_from_slice(&(text.len() as u64).to_be_bytes());
                self.asked.extend_from_slice(text.as_bytes());
            }
        }
        self
    }

    /// The token of a page that begins at these numbers.
    pub fn token<const N: usize>(&self, numbers: [i64; N]) -> String {
        let parts = numbers.map(|number| format!("-{number:x}"));
        self.print() + &parts.concat()
    }

    /// The numbers of a token, if it is one of this list.
    pub fn read<const N: usize>(&self, token: &str) -> Option<[i64; N]> {
        let mut parts = token.strip_prefix(&self.print())?.split('-').skip(1);
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = i64::from_str_radix(parts.next()?, 16).ok()?;
        }
        // in the one form that it is written in
        (parts.next().is_none() && self.token(numbers) == token).then_some(numbers)
    }

    /// Enough of a digest to tell lists apart; to forge a token wins nothing, for every page is checked as the first one is.
    fn print(&self) -> String {
        let digest = Uuid::new_v5(&LISTS, &self.asked).as_u128();
        format!("{:016x}", digest >> 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(account: i64, reference: Option<&str>) -> List {
        List::new("entries").with(Some(account)).with(reference)
    }

    #[test]
    fn a_token_is_good_for_its_list_only() {
        let token = list(7, Some("rent")).token([5, 0]);
        assert_eq!(list(7, Some("rent")).read(&token), Some([5, 0]));
        assert_eq!(list(8, Some("rent")).read::<2>(&token), None);
        assert_eq!(list(7, Some("ren")).read::<2>(&token), None);
        assert_eq!(list(7, None).read::<2>(&token), None);
        assert_eq!(List::new("entries").with(Some("7rent")).read::<2>(&token), None);
        assert_eq!(list(7, Some("rent")).read::<1>(&token), None);
        assert_eq!(list(7, Some("rent")).read::<3>(&token), None);
    }

    #[test]
    fn what_was_not_written_is_not_read() {
        let list = list(7, None);
        let token = list.token([10]);
        let before = token.strip_suffix('a').unwrap();
        assert_eq!(list.read(&token), Some([10]));
        for other in ["", "-", "+a", "0a", "A", "é", "a-", "-a", "10000000000000000"] {
            assert_eq!(list.read::<1>(&format!("{before}{other}")), None, "{other}");
        }
    }
}
