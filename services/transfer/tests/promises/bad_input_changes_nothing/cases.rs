//! Requests that are refused, and what each hears.

use prost_types::Timestamp;
use proto::transfer::v1::{CreateScheduleRequest, CreateTransferRequest, Recurrence, RecurrenceUnit, Split};
use tonic::{Code, Status};
use uuid::Uuid;

const TOO_MUCH: i64 = 1 << 53;
/// What one account has.
pub const BALANCE: i64 = 10_000;
const DAY: i64 = 86_400;

/// What a refused request hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub reason: String,
    pub fields: Vec<String>,
}

/// A request and its refusal.
pub struct Case<T> {
    pub what: &'static str,
    pub request: T,
    pub refusal: Refusal,
}

/// The accounts of the test: two of user 1, one of user 2, one in euros, the bank's.
pub struct Accounts {
    pub own: i64,
    pub theirs: i64,
    pub euros: i64,
    pub treasury: i64,
}

impl Refusal {
    pub fn of(status: &Status) -> Self {
        Self {
            code: status.code(),
            reason: rpc::error::reason(status).unwrap_or_default(),
            fields: rpc::error::violations(status)
                .into_iter()
                .map(|(field, _)| field)
                .collect(),
        }
    }
}

pub fn invalid(fields: &[&str]) -> Refusal {
    Refusal {
        code: Code::InvalidArgument,
        reason: "INVALID_ARGUMENT".to_owned(),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    }
}

pub fn refused(code: Code, reason: &str) -> Refusal {
    Refusal {
        code,
        reason: reason.to_owned(),
        fields: Vec::new(),
    }
}

pub fn id() -> String {
    Uuid::now_v7().to_string()
}

pub fn megabyte() -> String {
    "x".repeat(1 << 20)
}

pub fn from_now(seconds: i64) -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    Timestamp {
        seconds: now + seconds,
        nanos: 0,
    }
}

/// What is no UUID as the contract writes one.
pub fn bad_ids() -> Vec<String> {
    vec![
        String::new(),
        "x".to_owned(),
        Uuid::nil().to_string(),
        Uuid::now_v7().simple().to_string(),
        format!("{{{}}}", Uuid::now_v7()),
        format!("{}\0", &id()[..35]),
        megabyte(),
    ]
}

/// What is no amount.
pub const BAD_AMOUNTS: [i64; 5] = [-1, 0, TOO_MUCH, i64::MIN, i64::MAX];

/// What is no text of so many characters.
pub fn bad_texts(longest: usize) -> Vec<String> {
    vec![
        "a\0b".to_owned(),
        "two\nlines".to_owned(),
        "\u{85}".to_owned(),
        "ü".repeat(longest + 1),
        megabyte(),
    ]
}

/// A good transfer of user 1.
pub fn good() -> CreateTransferRequest {
    CreateTransferRequest {
        from_user_id: 1,
        to_user_id: 2,
        amount: 10,
        currency: "USD".to_owned(),
        transfer_id: id(),
        ..CreateTransferRequest::default()
    }
}

fn split(to_user_id: i64, amount: i64) -> Split {
    Split {
        to_user_id,
        to_account_id: 0,
        amount,
    }
}

pub struct List<T> {
    pub cases: Vec<Case<T>>,
    good: fn() -> T,
}

impl<T> List<T> {
    pub fn of(good: fn() -> T) -> Self {
        Self {
            cases: Vec::new(),
            good,
        }
    }

    pub fn add(&mut self, what: &'static str, refusal: Refusal, change: impl FnOnce(&mut T)) {
        let mut request = (self.good)();
        change(&mut request);
        self.cases.push(Case {
            what,
            request,
            refusal,
        });
    }
}

/// Transfers of user 1, as one call, an action of a batch, or of a stream.
pub fn transfers(accounts: &Accounts) -> Vec<Case<CreateTransferRequest>> {
    let mut list = List::of(good);
    fields(&mut list);
    sides(&mut list, accounts);
    splits(&mut list, accounts);
    holds(&mut list);
    list.cases
}

fn fields(list: &mut List<CreateTransferRequest>) {
    for amount in BAD_AMOUNTS {
        list.add("amount", invalid(&["amount"]), |request| request.amount = amount);
    }
    for currency in ["usd", "ZZZ", "US\0", "USDD", &megabyte()] {
        list.add("currency", invalid(&["currency"]), |request| {
            currency.clone_into(&mut request.currency);
        });
    }
    for id in bad_ids() {
        list.add("id", invalid(&["transfer_id"]), |request| {
            request.transfer_id = id;
        });
    }
    for text in bad_texts(64) {
        list.add("reference", invalid(&["reference"]), |request| {
            request.reference = text;
        });
    }
    for text in bad_texts(256) {
        list.add("description", invalid(&["description"]), |request| {
            request.description.clone_from(&text);
        });
        list.add("metadata value", invalid(&["metadata"]), |request| {
            request.metadata = [("key".to_owned(), text)].into();
        });
    }
    for text in bad_texts(40).into_iter().chain([String::new()]) {
        list.add("metadata key", invalid(&["metadata"]), |request| {
            request.metadata = [(text, "value".to_owned())].into();
        });
    }
    list.add("17 pairs", invalid(&["metadata"]), |request| {
        request.metadata = (0..17).map(|at| (at.to_string(), String::new())).collect();
    });
    let everything = [
        "from",
        "to",
        "amount",
        "currency",
        "transfer_id",
        "expires_at",
        "reference",
    ];
    list.add("everything", invalid(&everything), |request| {
        *request = CreateTransferRequest {
            amount: -1,
            currency: "?".to_owned(),
            expires_at: Some(from_now(60)),
            reference: "\0".to_owned(),
            ..CreateTransferRequest::default()
        };
    });
    let balance = refused(Code::FailedPrecondition, "INSUFFICIENT_BALANCE");
    list.add("more than there is", balance, |request| {
        request.amount = BALANCE + 1;
    });
    let mismatch = refused(Code::FailedPrecondition, "CURRENCY_MISMATCH");
    list.add("another currency", mismatch, |request| {
        "EUR".clone_into(&mut request.currency);
    });
}

fn sides(list: &mut List<CreateTransferRequest>, accounts: &Accounts) {
    let Accounts {
        own,
        theirs,
        euros,
        treasury,
    } = *accounts;
    for user in [0, -1, TOO_MUCH, i64::MIN, i64::MAX] {
        list.add("payer", invalid(&["from"]), |request| request.from_user_id = user);
        list.add("payee", invalid(&["to"]), |request| request.to_user_id = user);
    }
    for account in [-1, TOO_MUCH, i64::MIN] {
        list.add("paying account", invalid(&["from_account"]), |request| {
            (request.from_user_id, request.from_account_id) = (0, account);
        });
    }
    list.add("two payers", invalid(&["from"]), |request| {
        request.from_account_id = own;
    });
    list.add("two payees", invalid(&["to"]), |request| {
        request.to_account_id = theirs;
    });
    list.add("oneself", invalid(&["to"]), |request| request.to_user_id = 1);
    list.add("one's own account", invalid(&["to"]), |request| {
        (request.to_user_id, request.to_account_id) = (0, own);
    });
    list.add("the same account", invalid(&["to"]), |request| {
        (request.from_user_id, request.from_account_id) = (0, own);
        (request.to_user_id, request.to_account_id) = (0, own);
    });
    let not_yours = || refused(Code::PermissionDenied, "NOT_YOUR_ACCOUNT");
    list.add("somebody else pays", not_yours(), |request| {
        (request.from_user_id, request.to_user_id) = (2, 1);
    });
    list.add("somebody else's account pays", not_yours(), |request| {
        (request.from_user_id, request.from_account_id) = (0, theirs);
        request.to_user_id = 1;
    });
    let no_user = refused(Code::NotFound, "USER_NOT_FOUND");
    list.add("nobody is paid", no_user, |request| request.to_user_id = 99);
    let no_account = || refused(Code::NotFound, "ACCOUNT_NOT_FOUND");
    for account in [9_999, treasury] {
        list.add("an account that is not there is paid", no_account(), |request| {
            (request.to_user_id, request.to_account_id) = (0, account);
        });
        list.add("an account that is not there pays", no_account(), |request| {
            (request.from_user_id, request.from_account_id) = (0, account);
        });
    }
    let mismatch = refused(Code::FailedPrecondition, "CURRENCY_MISMATCH");
    list.add("an account in euros", mismatch, |request| {
        (request.to_user_id, request.to_account_id) = (0, euros);
    });
}

fn splits(list: &mut List<CreateTransferRequest>, accounts: &Accounts) {
    let theirs = accounts.theirs;
    let mut split_into = |what, refusal, amount, splits: Vec<Split>| {
        list.add(what, refusal, |request| {
            (request.to_user_id, request.amount, request.splits) = (0, amount, splits);
        });
    };
    let many = (2..103).map(|user| split(user, 1)).collect();
    split_into("101 payees", invalid(&["splits"]), 0, many);
    let bad: Vec<String> = (0..20)
        .map(|at| format!("splits[{}].{}", at / 2, ["to", "amount"][at % 2]))
        .collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    split_into("100 bad payees", invalid(&bad), 0, vec![split(-1, -1); 100]);
    split_into(
        "twice",
        invalid(&["splits[1].to"]),
        0,
        vec![split(2, 1), split(2, 2)],
    );
    let account = Split {
        to_account_id: theirs,
        ..split(0, 2)
    };
    split_into(
        "twice, once by account",
        invalid(&["splits"]),
        0,
        vec![split(2, 1), account],
    );
    split_into("the sum", invalid(&["amount"]), 4, vec![split(2, 1), split(3, 2)]);
    split_into(
        "a sum past all",
        invalid(&["amount"]),
        0,
        vec![split(2, TOO_MUCH - 1), split(3, 1)],
    );
    split_into("nothing", invalid(&["splits[0].amount"]), 0, vec![split(2, 0)]);
    split_into("oneself", invalid(&["to"]), 0, vec![split(2, 1), split(1, 1)]);
    split_into(
        "nobody",
        invalid(&["splits[1].to"]),
        0,
        vec![split(2, 1), split(0, 1)],
    );
    let balance = refused(Code::FailedPrecondition, "INSUFFICIENT_BALANCE");
    split_into(
        "more than there is",
        balance,
        0,
        vec![split(2, BALANCE), split(3, 1)],
    );
    list.add("a payee and splits", invalid(&["to"]), |request| {
        request.splits = vec![split(2, 10)];
    });
}

fn holds(list: &mut List<CreateTransferRequest>) {
    let mut until = |what, pending, expires_at| {
        list.add(what, invalid(&["expires_at"]), |request| {
            (request.pending, request.expires_at) = (pending, expires_at);
        });
    };
    until("an end without a hold", false, Some(from_now(60)));
    until("an end in the past", true, Some(from_now(-60)));
    until("an end too far away", true, Some(from_now(367 * DAY)));
    for (seconds, nanos) in [
        (from_now(60).seconds, -1),
        (from_now(60).seconds, 1_000_000_000),
        (from_now(60).seconds, i32::MAX),
        (-1, 0),
        (i64::MAX, 0),
        (i64::MIN, i32::MIN),
    ] {
        until("no moment", true, Some(Timestamp { seconds, nanos }));
    }
}

fn planned() -> CreateScheduleRequest {
    CreateScheduleRequest {
        transfer: Some(CreateTransferRequest {
            transfer_id: String::new(),
            ..good()
        }),
        first_at: Some(from_now(DAY)),
        recurrence: None,
        schedule_id: id(),
        dry_run: false,
    }
}

/// Schedules of user 1.
pub fn schedules(accounts: &Accounts) -> Vec<Case<CreateScheduleRequest>> {
    let mut list = List::of(planned);
    for case in transfers(accounts) {
        let by_the_rules = matches!(case.what, "more than there is");
        let of_the_schedule = case.request.expires_at.is_some() || case.what == "id";
        if by_the_rules || of_the_schedule {
            continue;
        }
        let mut refusal = case.refusal;
        // fields of the request are those of its transfer; what the accounts tell has the transfer's own
        if !matches!(
            case.what,
            "one's own account" | "twice, once by account" | "a sum past all"
        ) {
            refusal.fields = refusal
                .fields
                .iter()
                .map(|field| format!("transfer.{field}"))
                .collect();
        }
        list.add(case.what, refusal, |request| {
            request.transfer = Some(CreateTransferRequest {
                transfer_id: String::new(),
                ..case.request
            });
        });
    }
    let transfer = |request: &mut CreateScheduleRequest, change: fn(&mut CreateTransferRequest)| {
        change(request.transfer.as_mut().unwrap());
    };
    list.add("no transfer", invalid(&["transfer"]), |request| {
        request.transfer = None;
    });
    list.add("an id", invalid(&["transfer.transfer_id"]), |request| {
        transfer(request, |transfer| transfer.transfer_id = id());
    });
    list.add("a dry transfer", invalid(&["transfer.dry_run"]), |request| {
        transfer(request, |transfer| transfer.dry_run = true);
    });
    list.add("an end", invalid(&["transfer.expires_at"]), |request| {
        transfer(request, |transfer| {
            (transfer.pending, transfer.expires_at) = (true, Some(from_now(60)));
        });
    });
    for id in bad_ids() {
        list.add("id", invalid(&["schedule_id"]), |request| {
            request.schedule_id = id;
        });
    }
    for first_at in [
        None,
        Some(from_now(-60)),
        Some(from_now(3_660 * DAY)),
        Some(Timestamp {
            seconds: 0,
            nanos: -1,
        }),
        Some(Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
    ] {
        list.add("first_at", invalid(&["first_at"]), |request| {
            request.first_at = first_at;
        });
    }
    recurrences(&mut list);
    list.cases
}

fn recurrences(list: &mut List<CreateScheduleRequest>) {
    let mut repeat = |field: &'static str, change: &dyn Fn(&mut Recurrence)| {
        list.add(field, invalid(&[field]), |request| {
            let mut recurrence = Recurrence {
                unit: RecurrenceUnit::Day.into(),
                every: 1,
                count: 0,
                until: None,
            };
            change(&mut recurrence);
            request.recurrence = Some(recurrence);
        });
    };
    for unit in [0, 5, -1, i32::MAX] {
        repeat("recurrence.unit", &|recurrence| recurrence.unit = unit);
    }
    for every in [0, -1, 100_001, i32::MIN] {
        repeat("recurrence.every", &|recurrence| recurrence.every = every);
    }
    repeat("recurrence.every", &|recurrence| {
        (recurrence.unit, recurrence.every) = (RecurrenceUnit::Second.into(), 59);
    });
    for count in [-1, 1_000_001, i32::MIN] {
        repeat("recurrence.count", &|recurrence| recurrence.count = count);
    }
    for until in [
        Some(from_now(0)),
        Some(Timestamp {
            seconds: 0,
            nanos: -1,
        }),
    ] {
        repeat("recurrence.until", &|recurrence| recurrence.until = until);
    }
}
