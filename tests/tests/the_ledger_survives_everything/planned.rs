//! Transfers that are planned for the next seconds: each happens once, or is refused once, or is cancelled before.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use proto::transfer::v1::{
    CancelScheduleRequest, CreateScheduleRequest, GetScheduleRequest, Schedule, ScheduleState,
    schedule_service_client::ScheduleServiceClient,
};
use rand::{RngExt as _, rngs::StdRng};
use tests::{eventually, random};
use uuid::Uuid;

use super::{
    client::{Answer, Doors, Record, micros},
    order::{By, Hold, Order, What, moment, now},
    parties::Parties,
};

/// So long behind the end of the chaos an occurrence may be on its way: a replica that died with it had claimed it for
/// half a minute, and what failed is tried again behind longer and longer pauses.
const PATIENCE: Duration = Duration::from_secs(150);

/// A transfer that was to be planned. The order's id is the schedule's.
struct Plan {
    order: Order,
    first_at: i64,
    planned: bool,
    cancelled: bool,
}

/// Plans transfers.
pub struct Planner<'a> {
    doors: Doors<'a>,
    parties: &'a Parties,
    choices: StdRng,
    plans: Vec<Plan>,
}

impl<'a> Planner<'a> {
    pub fn new(doors: Doors<'a>, parties: &'a Parties) -> Self {
        Self {
            doors,
            parties,
            choices: random::choices(2_000_001),
            plans: Vec::new(),
        }
    }

    /// Plans one after another until a moment.
    pub async fn work(mut self, until: Instant) -> Result<Self> {
        while Instant::now() < until {
            let mut plan = self.plan();
            let answer = self.create(&plan).await?;
            self.doors.tally.known("schedule", &answer);
            plan.planned = answer.is_done();
            ensure!(
                plan.planned || plan.first_at <= now() && answer.reason() == "INVALID_ARGUMENT",
                "{:?} was {answer:?}",
                plan.order
            );
            if plan.planned && self.choices.random_range(0..5) == 0 {
                let schedule = self.cancel(&plan).await?;
                plan.cancelled = schedule.state() == ScheduleState::Cancelled;
                self.doors.tally.known(
                    "cancelled schedule",
                    &Answer::Done {
                        at: 0,
                        replayed: false,
                    },
                );
            }
            self.plans.push(plan);
            self.wait_until(now() + 500_000).await?;
        }
        Ok(self)
    }

    async fn wait_until(&self, micros: i64) -> Result<()> {
        eventually("the time comes", Duration::from_secs(10), async || {
            ensure!(now() >= micros);
            Ok(())
        })
        .await
    }

    fn plan(&mut self) -> Plan {
        let choices = &mut self.choices;
        let from = self.parties.any(choices);
        let to = self.parties.payee_of(from, choices);
        let what = What::Move {
            from,
            to: vec![(to, choices.random_range(1..400))],
            hold: Hold::No,
            note: format!("planned {}", choices.random_range(0..1_000_000)),
        };
        Plan {
            order: Order::new(By::User(from.user), what),
            first_at: now() + choices.random_range(500_000..3_000_000),
            planned: false,
            cancelled: false,
        }
    }

    async fn create(&mut self, plan: &Plan) -> Result<Answer> {
        let (doors, caller) = (&self.doors, plan.order.by.caller());
        doors
            .until_answered("schedule", &mut self.choices, async |at, patience| {
                let message = CreateScheduleRequest {
                    transfer: Some(plan.order.transfer()),
                    first_at: Some(moment(plan.first_at).into()),
                    recurrence: None,
                    schedule_id: plan.order.id.to_string(),
                    dry_run: false,
                };
                let request = doors.request(&caller, message, patience)?;
                let mut service = ScheduleServiceClient::new(doors.channel(at));
                service.create_schedule(request).await?;
                Ok(Answer::Done {
                    at: 0,
                    replayed: false,
                })
            })
            .await
    }

    async fn cancel(&mut self, plan: &Plan) -> Result<Schedule> {
        let (doors, caller, found) = (&self.doors, plan.order.by.caller(), RefCell::new(None));
        let answer = doors
            .until_answered("cancelling", &mut self.choices, async |at, patience| {
                let message = CancelScheduleRequest {
                    schedule_id: plan.order.id.to_string(),
                };
                let request = doors.request(&caller, message, patience)?;
                let mut service = ScheduleServiceClient::new(doors.channel(at));
                *found.borrow_mut() = service.cancel_schedule(request).await?.into_inner().schedule;
                Ok(Answer::Done {
                    at: 0,
                    replayed: false,
                })
            })
            .await?;
        ensure!(
            answer.is_done(),
            "{:?} could not be cancelled: {answer:?}",
            plan.order
        );
        found.into_inner().context("an answer without a schedule")
    }

    /// What became of the plans, as if each transfer had been asked for by itself. Waits until all have ended.
    pub async fn ended(self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for plan in &self.plans {
            let found = eventually("a planned transfer has ended", PATIENCE, async || {
                self.find(plan).await
            })
            .await?;
            let Some(schedule) = found else {
                ensure!(!plan.planned, "{:?} was planned and is gone", plan.order);
                continue;
            };
            ensure!(plan.planned, "{:?} was refused and is planned", plan.order);
            let cancelled = schedule.state() == ScheduleState::Cancelled;
            ensure!(
                cancelled == plan.cancelled,
                "{schedule:?} was cancelled: {}",
                plan.cancelled
            );
            ensure!(
                schedule.occurred == i64::try_from(schedule.latest.len())? && schedule.occurred <= 1,
                "{schedule:?}"
            );
            ensure!(cancelled || schedule.occurred == 1, "{schedule:?}");
            for occurrence in &schedule.latest {
                let due = occurrence.due_at.map(|at| micros(at.seconds, at.nanos));
                ensure!(
                    due == Some(plan.first_at),
                    "{occurrence:?} was due at {}",
                    plan.first_at
                );
                let answer = match &occurrence.error {
                    None => Answer::Done {
                        at: 0,
                        replayed: false,
                    },
                    Some(error) => Answer::Refused {
                        code: tonic::Code::from_i32(error.code),
                        reason: error.reason.clone(),
                    },
                };
                self.doors.tally.known("planned transfer", &answer);
                let mut order = plan.order.clone();
                order.id = Uuid::parse_str(&occurrence.transfer_id)?;
                records.push(Record {
                    order,
                    answer,
                    unknown: 0,
                    chain: None,
                });
            }
        }
        Ok(records)
    }

    /// A schedule that has ended; none when there is none.
    async fn find(&self, plan: &Plan) -> Result<Option<Schedule>> {
        let message = GetScheduleRequest {
            schedule_id: plan.order.id.to_string(),
        };
        let request = self
            .doors
            .request(&plan.order.by.caller(), message, Duration::from_secs(3))?;
        let found = ScheduleServiceClient::new(self.doors.channel(0))
            .get_schedule(request)
            .await;
        match found {
            Ok(found) => {
                let schedule = found
                    .into_inner()
                    .schedule
                    .context("an answer without a schedule")?;
                ensure!(
                    schedule.state() != ScheduleState::Active,
                    "it is active: {schedule:?}"
                );
                Ok(Some(schedule))
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => bail!("{status}"),
        }
    }
}
