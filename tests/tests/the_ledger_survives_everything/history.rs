//! A random history of one client: one order after another, alone, in batches and in streams.

use std::time::Instant;

use anyhow::{Result, ensure};
use rand::{RngExt as _, rngs::StdRng};
use tests::random;
use tonic::Code;
use uuid::Uuid;

use super::{
    client::{Answer, Doors, Record},
    order::{Account, By, Hold, Order, What, now},
    parties::{Parties, Pending},
};

const MOST: i64 = 250;

/// A client and what it was told.
pub struct Client<'a> {
    pub doors: Doors<'a>,
    pub parties: &'a Parties,
    pub choices: StdRng,
    pub records: Vec<Record>,
    /// Ids of dry runs, which must leave nothing.
    pub dry: Vec<Uuid>,
}

impl<'a> Client<'a> {
    pub fn new(number: u64, doors: Doors<'a>, parties: &'a Parties) -> Self {
        Self {
            doors,
            parties,
            choices: random::choices(number),
            records: Vec::new(),
            dry: Vec::new(),
        }
    }

    /// Does one thing after another until a moment; what is begun then is brought to its end.
    pub async fn work(mut self, until: Instant) -> Result<Self> {
        while Instant::now() < until {
            match self.choices.random_range(0..100) {
                0..12 => self.several(false).await?,
                12..22 => self.several(true).await?,
                22..27 => self.dry_run().await?,
                _ => {
                    let order = self.order();
                    self.one(order).await?;
                }
            }
        }
        Ok(self)
    }

    /// An order by its own call.
    async fn one(&mut self, order: Order) -> Result<()> {
        let (answer, unknown) = self.doors.until_known(&order, false, &mut self.choices).await?;
        self.doors.tally.known(order.kind(), &answer);
        self.look_at(&order, &answer)?;
        if let Answer::Done { at, .. } = answer {
            self.parties.made(&order);
            match self.choices.random_range(0..12) {
                0 => self.repeat(&order, at).await?,
                1 => self.reuse(&order).await?,
                2 => self.read(&order).await?,
                _ => {}
            }
        }
        self.records.push(Record {
            order,
            answer,
            unknown,
            chain: None,
        });
        Ok(())
    }

    /// The same request again has the same answer, whatever has become of the accounts.
    async fn repeat(&mut self, order: &Order, first_at: i64) -> Result<()> {
        let (again, _) = self.doors.until_known(order, false, &mut self.choices).await?;
        let first = Answer::Done {
            at: first_at,
            replayed: true,
        };
        ensure!(again == first, "{order:?} was {first:?}, and again {again:?}");
        Ok(())
    }

    /// The id with other content is refused.
    async fn reuse(&mut self, order: &Order) -> Result<()> {
        let mut other = order.clone();
        match &mut other.what {
            What::Move { to, .. } => to[0].1 += 1,
            What::Deposit { amount, .. } | What::Withdraw { amount, .. } => *amount += 1,
            What::Post { .. } | What::Void { .. } | What::Reverse { .. } => return Ok(()),
        }
        let (answer, _) = self.doors.until_known(&other, false, &mut self.choices).await?;
        ensure!(
            answer.reason() == "TRANSFER_ID_REUSED",
            "{order:?} was made, and then {other:?} was {answer:?}"
        );
        Ok(())
    }

    /// What was done is seen at once, at every replica.
    async fn read(&mut self, order: &Order) -> Result<()> {
        let found = self.doors.read(order, &mut self.choices).await?;
        ensure!(
            found
                .as_ref()
                .is_ok_and(|found| found.transfer_id == order.id.to_string()),
            "{order:?} was made, and is read as {found:?}"
        );
        Ok(())
    }

    /// Says what would happen, and changes nothing.
    async fn dry_run(&mut self) -> Result<()> {
        if self.choices.random_range(0..3) == 0 {
            let orders = self.orders();
            let (answers, _) = self.doors.batch(&orders, true, &mut self.choices).await?;
            for ((order, _), answer) in orders.iter().zip(&answers) {
                self.doors.tally.known("dry run in a batch", answer);
                self.dry.push(order.id);
            }
            return Ok(());
        }
        let order = self.order();
        let (answer, _) = self.doors.until_known(&order, true, &mut self.choices).await?;
        self.doors.tally.known("dry run", &answer);
        self.dry.push(order.id);
        Ok(())
    }

    /// A batch, or a stream.
    async fn several(&mut self, stream: bool) -> Result<()> {
        let orders = self.orders();
        let (answers, unknown) = if stream {
            self.doors.stream(&orders, &mut self.choices).await?
        } else {
            self.doors.batch(&orders, false, &mut self.choices).await?
        };
        ensure!(answers.len() == orders.len(), "{} answers", answers.len());
        let mut chain = None;
        for ((order, linked), answer) in orders.into_iter().zip(answers) {
            if linked && chain.is_none() {
                chain = Some(Uuid::new_v4());
            }
            let kind = match (stream, chain.is_some()) {
                (false, false) => "in a batch",
                (false, true) => "in a batch, linked",
                (true, false) => "in a stream",
                (true, true) => "in a stream, linked",
            };
            self.doors.tally.known(kind, &answer);
            self.look_at(&order, &answer)?;
            if answer.is_done() {
                self.parties.made(&order);
            }
            self.records.push(Record {
                order,
                answer,
                unknown,
                chain,
            });
            if !linked {
                chain = None;
            }
        }
        Ok(())
    }

    /// No answer may be one that the order gives no reason for.
    fn look_at(&self, order: &Order, answer: &Answer) -> Result<()> {
        let Answer::Refused { code, reason } = answer else {
            return Ok(());
        };
        let good = match reason.as_str() {
            // its time was over before an attempt arrived
            "INVALID_ARGUMENT" => order.is_over(),
            "NOT_YOUR_ACCOUNT" | "TRANSFER_NOT_FOUND" => order.by != By::Operator,
            "CURRENCY_MISMATCH" => true,
            "ACCOUNT_FROZEN" | "MAXIMUM_EXCEEDED" => self.parties.has_account_service,
            "INSUFFICIENT_BALANCE"
            | "ALREADY_POSTED"
            | "ALREADY_VOIDED"
            | "PENDING_EXPIRED"
            | "EXCEEDS_PENDING"
            | "PART_OF_SPLIT"
            | "NOT_POSTED"
            | "ALREADY_REVERSED"
            | "LINKED_FAILED" => *code == Code::FailedPrecondition,
            _ => false,
        };
        ensure!(good, "{order:?} was {answer:?}");
        Ok(())
    }

    /// Up to 40 orders of one caller; each tells whether it is tied to the next.
    fn orders(&mut self) -> Vec<(Order, bool)> {
        let by = self.by();
        let mut orders: Vec<(Order, bool)> = Vec::new();
        for _ in 0..self.choices.random_range(1..=12) {
            // mostly short chains, of one above all
            let members = if self.choices.random_range(0..2) == 0 {
                1
            } else {
                self.choices.random_range(2..=5)
            };
            let first = orders.len();
            for _ in 0..members {
                let order = self.order_in_a_chain(by, &orders[first..]);
                orders.push((order, true));
            }
            if let Some(last) = orders.last_mut() {
                last.1 = false;
            }
        }
        orders
    }

    fn order_in_a_chain(&mut self, by: By, before: &[(Order, bool)]) -> Order {
        // what the same chain has begun can be ended by it
        if let Some((begun, _)) = before.last()
            && self.choices.random_range(0..2) == 0
            && let Some(what) = self.end_of(by, begun)
        {
            return Order::new(by, what);
        }
        let found = match self.choices.random_range(0..10) {
            0..3 => self.end(),
            3 => self.reversal(),
            _ => None,
        };
        match found {
            // now and then in the name of one who may not
            Some((may, what)) if may == by || self.choices.random_range(0..10) == 0 => Order::new(by, what),
            _ => self.transfer(by),
        }
    }

    /// The post of a pending transfer that was begun just before, or the reversal of another one.
    fn end_of(&mut self, by: By, begun: &Order) -> Option<What> {
        let What::Move { hold, to, .. } = &begun.what else {
            return None;
        };
        if *hold == Hold::No {
            let paid = by == By::Operator || to.iter().all(|(account, _)| by == By::User(account.user));
            return paid.then_some(What::Reverse { original: begun.id });
        }
        let part = to.len() == 1 && self.choices.random_range(0..2) == 0;
        let amount = if part {
            self.choices.random_range(1..=to[0].1)
        } else {
            0
        };
        Some(What::Post {
            pending: begun.id,
            amount,
        })
    }

    fn by(&mut self) -> By {
        match self.choices.random_range(0..8) {
            0 => By::Operator,
            _ => By::User(self.parties.any(&mut self.choices).user),
        }
    }

    fn order(&mut self) -> Order {
        let by = self.by();
        let what = match self.choices.random_range(0..100) {
            0..7 => Some((By::Operator, self.deposit())),
            7..10 => Some((By::Operator, self.withdrawal())),
            10..32 => self.end(),
            32..42 => self.reversal(),
            _ => None,
        };
        match what {
            Some((by, what)) => Order::new(by, what),
            None => self.transfer(by),
        }
    }

    fn deposit(&mut self) -> What {
        let to = self.parties.any(&mut self.choices);
        let amount = self.choices.random_range(1..MOST);
        What::Deposit { to, amount }
    }

    fn withdrawal(&mut self) -> What {
        let from = self.parties.any(&mut self.choices);
        let amount = self.choices.random_range(1..MOST);
        What::Withdraw { from, amount }
    }

    /// Money from an account of the caller, now and then of another user or in another currency, which is refused.
    fn transfer(&mut self, by: By) -> Order {
        let choices = &mut self.choices;
        let from = match choices.random_range(0..40) {
            0 => self.parties.any(choices),
            _ => self.parties.account_of(by, choices),
        };
        let mut to: Vec<(Account, i64)> = Vec::new();
        let payees = if choices.random_range(0..6) == 0 {
            choices.random_range(2..5)
        } else {
            1
        };
        for _ in 0..payees {
            let payee = match choices.random_range(0..60) {
                0 => self.parties.any(choices),
                _ => self.parties.payee_of(from, choices),
            };
            if payee.id != from.id && to.iter().all(|(other, _)| other.id != payee.id) {
                to.push((payee, choices.random_range(1..MOST)));
            }
        }
        if to.is_empty() {
            to.push((self.parties.payee_of(from, choices), 1));
        }
        let hold = match choices.random_range(0..20) {
            0 => Hold::Usual,
            // some end by themselves while much is broken
            1..5 => Hold::Until(now() + choices.random_range(400_000..6_000_000)),
            5 => Hold::Until(now() + 3_600_000_000),
            _ => Hold::No,
        };
        let note = match choices.random_range(0..4) {
            0 => format!("note {}", choices.random_range(0..1_000_000)),
            _ => String::new(),
        };
        Order::new(by, What::Move { from, to, hold, note })
    }

    /// The end of a pending transfer, by one who may do it, or sometimes by one who may not.
    fn end(&mut self) -> Option<(By, What)> {
        let pending = self.parties.pending(&mut self.choices)?;
        let by = self.party(&pending);
        let id = pending.id;
        let what = match self.choices.random_range(0..6) {
            0..3 => {
                self.parties.was_posted(&pending);
                What::Post {
                    pending: id,
                    amount: 0,
                }
            }
            3 => {
                let amount = self.choices.random_range(1..=pending.amount + 1);
                What::Post { pending: id, amount }
            }
            _ => What::Void { pending: id },
        };
        Some((by, what))
    }

    fn party(&mut self, pending: &Pending) -> By {
        match self.choices.random_range(0..10) {
            0 => By::Operator,
            1 => By::User(self.parties.any(&mut self.choices).user),
            2..5 => By::User(pending.payer),
            _ => By::User(pending.payees[0]),
        }
    }

    fn reversal(&mut self) -> Option<(By, What)> {
        let posted = self.parties.posted(&mut self.choices)?;
        let by = match self.choices.random_range(0..4) {
            0 => By::Operator,
            _ => By::User(posted.payees[0]),
        };
        Some((by, What::Reverse { original: posted.id }))
    }
}
