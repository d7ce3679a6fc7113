//! Many actions of one caller: what is bad in itself is answered in its place, the rest runs.

use std::{collections::HashSet, time::Instant};

use proto::transfer::v1::{TransferAction, TransferResult};
use tonic::Status;
use uuid::Uuid;

use super::{convert, status};
use crate::{
    app::{
        directory::Accounts,
        error::Error,
        ledger::{ItemError, Ledger},
        order::Item,
    },
    domain::command::{Authority, Refusal},
};

/// Runs actions in their order; the results are numbered from `first`.
pub(super) async fn run<A: Accounts>(
    ledger: &Ledger<A>,
    actions: Vec<TransferAction>,
    by: Authority,
    dry_run: bool,
    first: usize,
    deadline: Instant,
) -> Result<Vec<TransferResult>, Status> {
    let Prepared { places, items } = prepare(actions, by);
    let mut outcomes = ledger
        .run_all(items, dry_run, deadline)
        .await
        .map_err(status::from_error)?
        .into_iter();
    let result = |(at, place): (usize, Place)| {
        if let Some(status) = place.bad {
            convert::refused(at, place.id, &status)
        } else {
            let outcome = outcomes
                .next()
                .unwrap_or(Err(ItemError::Refused(Refusal::LinkedFailed)));
            convert::result(at, place.id, outcome)
        }
    };
    Ok((first..).zip(places).map(result).collect())
}

/// Where a result goes, and why there is no outcome for it.
pub(super) struct Place {
    id: String,
    pub bad: Option<Status>,
}

#[derive(Default)]
pub(super) struct Prepared {
    pub places: Vec<Place>,
    pub items: Vec<Item>,
}

pub(super) fn prepare(actions: Vec<TransferAction>, by: Authority) -> Prepared {
    let twice = ids_named_twice(&actions);
    let mut prepared = Prepared {
        places: Vec::with_capacity(actions.len()),
        items: Vec::with_capacity(actions.len()),
    };
    let mut chain = Vec::new();
    for action in actions {
        let linked = action.linked;
        let id = convert::named_id(&action).to_owned();
        let item = if Uuid::try_parse(&id).is_ok_and(|id| twice.contains(&id)) {
            Err(rpc::error::invalid([(
                "transfer_id",
                "must not occur twice in a batch",
            )]))
        } else {
            convert::item(action, by)
        };
        chain.push((id, item));
        if !linked {
            prepared.add(&mut chain);
        }
    }
    // the last action was linked, to nothing
    for (_, item) in &mut chain {
        *item = Err(rpc::error::invalid([(
            "linked",
            "must be false in the last action",
        )]));
    }
    prepared.add(&mut chain);
    prepared
}

impl Prepared {
    /// Adds a chain, perhaps of one. When a member is bad, none of it runs.
    fn add(&mut self, chain: &mut Vec<(String, Result<Item, Status>)>) {
        let whole = chain.iter().all(|(_, item)| item.is_ok());
        for (id, item) in chain.drain(..) {
            let bad = match item {
                Ok(item) if whole => {
                    self.items.push(item);
                    None
                }
                Ok(_) => Some(status::from_error(Error::Refused(Refusal::LinkedFailed))),
                Err(status) => Some(status),
            };
            self.places.push(Place { id, bad });
        }
    }
}

/// Of an id that occurs twice no action runs: which of them is meant is not known. Capitals make no other id.
fn ids_named_twice(actions: &[TransferAction]) -> HashSet<Uuid> {
    let mut seen = HashSet::with_capacity(actions.len());
    let ids = actions
        .iter()
        .filter_map(|action| Uuid::try_parse(convert::named_id(action)).ok());
    ids.filter(|id| !seen.insert(*id)).collect()
}

#[cfg(test)]
mod tests {
    use proto::transfer::v1::{VoidTransferRequest, transfer_action::Action};

    use super::*;

    fn void(id: &str, linked: bool) -> TransferAction {
        TransferAction {
            action: Some(Action::Void(VoidTransferRequest {
                pending_id: Uuid::from_u128(1).to_string(),
                transfer_id: id.to_owned(),
                dry_run: false,
            })),
            linked,
        }
    }

    fn reasons(actions: Vec<TransferAction>) -> (Vec<Option<String>>, usize) {
        let prepared = prepare(actions, Authority::Bank);
        let reasons = prepared
            .places
            .iter()
            .map(|place| place.bad.as_ref().and_then(rpc::error::reason))
            .collect();
        (reasons, prepared.items.len())
    }

    #[test]
    fn an_id_may_occur_once() {
        let ids: Vec<String> = (10..=11).map(|n| Uuid::from_u128(n).to_string()).collect();
        let (reasons, running) = reasons(vec![
            void(&ids[0], false),
            void(&ids[1], false),
            void(&ids[0].to_uppercase(), false),
        ]);
        let invalid = Some("INVALID_ARGUMENT".to_owned());
        assert_eq!(reasons, [invalid.clone(), None, invalid]);
        assert_eq!(running, 1);
    }

    #[test]
    fn a_chain_with_a_bad_member_does_not_run() {
        let ids: Vec<String> = (1..=3).map(|n| Uuid::from_u128(n).to_string()).collect();
        let (reasons, running) = reasons(vec![void(&ids[0], true), void("x", false), void(&ids[2], false)]);
        let some = |reason: &str| Some(reason.to_owned());
        assert_eq!(reasons, [some("LINKED_FAILED"), some("INVALID_ARGUMENT"), None]);
        assert_eq!(running, 1);
    }

    #[test]
    fn a_chain_has_an_end() {
        let ids: Vec<String> = (1..=2).map(|n| Uuid::from_u128(n).to_string()).collect();
        let (reasons, running) = reasons(vec![void(&ids[0], false), void(&ids[1], true)]);
        assert_eq!(reasons, [None, Some("INVALID_ARGUMENT".to_owned())]);
        assert_eq!(running, 1);
    }
}
