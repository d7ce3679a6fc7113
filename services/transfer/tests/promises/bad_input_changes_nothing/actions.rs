//! What is done to transfers, and what the bank and the calendar do.

use proto::transfer::v1::{
    CreateScheduleResponse, DepositRequest, DepositResponse, PostTransferRequest, PostTransferResponse,
    ReverseTransferRequest, ReverseTransferResponse, Split, VoidTransferRequest, VoidTransferResponse,
    WithdrawRequest, WithdrawResponse,
};
use tonic::Code;

use super::{
    super::server::{operator, user},
    Bank,
    cases::{self, BAD_AMOUNTS, BALANCE, List, Refusal, bad_ids, bad_texts, id, invalid, megabyte, refused},
};

const POST: &str = "/kontor.transfer.v1.TransferService/PostTransfer";
const VOID: &str = "/kontor.transfer.v1.TransferService/VoidTransfer";
const REVERSE: &str = "/kontor.transfer.v1.TransferService/ReverseTransfer";
const DEPOSIT: &str = "/kontor.transfer.v1.TransferService/Deposit";
const WITHDRAW: &str = "/kontor.transfer.v1.TransferService/Withdraw";
const SCHEDULE: &str = "/kontor.transfer.v1.ScheduleService/CreateSchedule";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_is_done_to_transfers() {
    let bank = Bank::open().await;
    let pending = bank.create(|request| request.pending = true).await;
    let split = bank
        .create(|request| {
            let split = |to_user_id| Split {
                to_user_id,
                to_account_id: 0,
                amount: 5,
            };
            (request.to_user_id, request.amount, request.pending) = (0, 0, true);
            request.splits = vec![split(2), split(3)];
        })
        .await;
    let posted = bank.create(|_| {}).await;
    let before = bank.tables().await;
    posts(&bank, &pending, &split, &posted).await;
    voids(&bank, &pending, &posted).await;
    reversals(&bank, &pending, &posted).await;
    assert_eq!(bank.tables().await, before);
}

async fn posts(bank: &Bank, pending: &str, split: &str, posted: &str) {
    let mut list = List::of(|| PostTransferRequest {
        transfer_id: id(),
        ..PostTransferRequest::default()
    });
    let mut post = |what, refusal, change: &dyn Fn(&mut PostTransferRequest)| {
        list.add(what, refusal, |request| {
            pending.clone_into(&mut request.pending_id);
            change(request);
        });
    };
    for id in bad_ids() {
        post("id", invalid(&["transfer_id"]), &|request| {
            request.transfer_id.clone_from(&id);
        });
        post("pending id", invalid(&["pending_id"]), &|request| {
            request.pending_id.clone_from(&id);
        });
    }
    for amount in BAD_AMOUNTS.into_iter().filter(|amount| *amount != 0) {
        post("amount", invalid(&["amount"]), &|request| request.amount = amount);
    }
    let failed = |reason| refused(Code::FailedPrecondition, reason);
    post("too much", failed("EXCEEDS_PENDING"), &|request| {
        request.amount = 11;
    });
    post("never pending", failed("NOT_PENDING"), &|request| {
        posted.clone_into(&mut request.pending_id);
    });
    post("a part of a split", failed("PART_OF_SPLIT"), &|request| {
        (request.pending_id, request.amount) = (split.to_owned(), 1);
    });
    let unknown = refused(Code::NotFound, "TRANSFER_NOT_FOUND");
    post("unknown", unknown.clone(), &|request| request.pending_id = id());
    let reused = Refusal {
        fields: vec!["transfer_id".to_owned()],
        ..refused(Code::AlreadyExists, "TRANSFER_ID_REUSED")
    };
    post("the id of the transfer", reused, &|request| {
        pending.clone_into(&mut request.transfer_id);
    });
    bank.refuses::<_, PostTransferResponse>(&user(2), POST, list.cases)
        .await;
    let mut list = List::of(|| PostTransferRequest {
        transfer_id: id(),
        ..PostTransferRequest::default()
    });
    list.add("a stranger", unknown, |request| {
        pending.clone_into(&mut request.pending_id);
    });
    bank.refuses::<_, PostTransferResponse>(&user(3), POST, list.cases)
        .await;
}

async fn voids(bank: &Bank, pending: &str, posted: &str) {
    let empty = || VoidTransferRequest {
        transfer_id: id(),
        ..VoidTransferRequest::default()
    };
    let mut list = List::of(empty);
    for bad in bad_ids() {
        list.add("id", invalid(&["transfer_id"]), |request| {
            (request.pending_id, request.transfer_id) = (pending.to_owned(), bad.clone());
        });
        list.add("pending id", invalid(&["pending_id"]), |request| {
            request.pending_id = bad;
        });
    }
    list.add(
        "unknown",
        refused(Code::NotFound, "TRANSFER_NOT_FOUND"),
        |request| request.pending_id = id(),
    );
    list.add(
        "never pending",
        refused(Code::FailedPrecondition, "NOT_PENDING"),
        |request| {
            posted.clone_into(&mut request.pending_id);
        },
    );
    bank.refuses::<_, VoidTransferResponse>(&user(2), VOID, list.cases)
        .await;
    for (by, refusal) in [
        (user(1), refused(Code::PermissionDenied, "NOT_YOUR_ACCOUNT")),
        (user(3), refused(Code::NotFound, "TRANSFER_NOT_FOUND")),
    ] {
        let mut list = List::of(empty);
        list.add("somebody else", refusal, |request| {
            pending.clone_into(&mut request.pending_id);
        });
        bank.refuses::<_, VoidTransferResponse>(&by, VOID, list.cases)
            .await;
    }
}

async fn reversals(bank: &Bank, pending: &str, posted: &str) {
    let empty = || ReverseTransferRequest {
        transfer_id: id(),
        ..ReverseTransferRequest::default()
    };
    let mut list = List::of(empty);
    for bad in bad_ids() {
        list.add("id", invalid(&["transfer_id"]), |request| {
            (request.original_id, request.transfer_id) = (posted.to_owned(), bad.clone());
        });
        list.add("original id", invalid(&["original_id"]), |request| {
            request.original_id = bad;
        });
    }
    for text in bad_texts(256) {
        list.add("description", invalid(&["description"]), |request| {
            (request.original_id, request.description) = (posted.to_owned(), text);
        });
    }
    list.add(
        "pending",
        refused(Code::FailedPrecondition, "NOT_POSTED"),
        |request| {
            pending.clone_into(&mut request.original_id);
        },
    );
    list.add(
        "unknown",
        refused(Code::NotFound, "TRANSFER_NOT_FOUND"),
        |request| request.original_id = id(),
    );
    bank.refuses::<_, ReverseTransferResponse>(&user(2), REVERSE, list.cases)
        .await;
    for (by, refusal) in [
        (user(1), refused(Code::PermissionDenied, "NOT_YOUR_ACCOUNT")),
        (user(3), refused(Code::NotFound, "TRANSFER_NOT_FOUND")),
    ] {
        let mut list = List::of(empty);
        list.add("somebody else", refusal, |request| {
            posted.clone_into(&mut request.original_id);
        });
        bank.refuses::<_, ReverseTransferResponse>(&by, REVERSE, list.cases)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_the_bank_does() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    bank.refuses::<_, DepositResponse>(&operator(), DEPOSIT, deposits(&bank))
        .await;
    bank.refuses::<_, WithdrawResponse>(&operator(), WITHDRAW, withdrawals(&bank))
        .await;
    let denied = || refused(Code::PermissionDenied, "PERMISSION_DENIED");
    let mut list = List::of(deposit);
    list.add("a user pays in", denied(), |_| {});
    bank.refuses::<_, DepositResponse>(&user(1), DEPOSIT, list.cases)
        .await;
    let mut list = List::of(withdrawal);
    list.add("a user pays out", denied(), |_| {});
    bank.refuses::<_, WithdrawResponse>(&user(1), WITHDRAW, list.cases)
        .await;
    assert_eq!(bank.tables().await, before);
}

fn deposit() -> DepositRequest {
    DepositRequest {
        to_user_id: 1,
        amount: 10,
        transfer_id: id(),
        ..DepositRequest::default()
    }
}

fn deposits(bank: &Bank) -> Vec<cases::Case<DepositRequest>> {
    let mut list = List::of(deposit);
    for amount in BAD_AMOUNTS {
        list.add("amount", invalid(&["amount"]), |request| request.amount = amount);
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
            request.description = text;
        });
    }
    for currency in ["usd".to_owned(), megabyte()] {
        list.add("currency", invalid(&["currency"]), |request| {
            request.currency = currency;
        });
    }
    list.add("nobody", invalid(&["to"]), |request| request.to_user_id = 0);
    list.add("two", invalid(&["to"]), |request| {
        request.to_account_id = bank.accounts.own;
    });
    let unknown = refused(Code::NotFound, "USER_NOT_FOUND");
    list.add("unknown", unknown, |request| request.to_user_id = 99);
    let account = refused(Code::NotFound, "ACCOUNT_NOT_FOUND");
    list.add("an unknown account", account, |request| {
        (request.to_user_id, request.to_account_id) = (0, 9_999);
    });
    list.add("the treasury itself", invalid(&["to"]), |request| {
        (request.to_user_id, request.to_account_id) = (0, bank.accounts.treasury);
    });
    let mismatch = refused(Code::FailedPrecondition, "CURRENCY_MISMATCH");
    list.add("another currency", mismatch, |request| {
        "EUR".clone_into(&mut request.currency);
    });
    list.cases
}

fn withdrawal() -> WithdrawRequest {
    WithdrawRequest {
        from_user_id: 1,
        amount: 10,
        transfer_id: id(),
        ..WithdrawRequest::default()
    }
}

fn withdrawals(bank: &Bank) -> Vec<cases::Case<WithdrawRequest>> {
    let mut list = List::of(withdrawal);
    for amount in BAD_AMOUNTS {
        list.add("amount", invalid(&["amount"]), |request| request.amount = amount);
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
            request.description = text;
        });
    }
    list.add("currency", invalid(&["currency"]), |request| {
        "?".clone_into(&mut request.currency);
    });
    list.add("nobody", invalid(&["from"]), |request| request.from_user_id = 0);
    list.add("two", invalid(&["from"]), |request| {
        request.from_account_id = bank.accounts.own;
    });
    let unknown = refused(Code::NotFound, "USER_NOT_FOUND");
    list.add("unknown", unknown, |request| request.from_user_id = 99);
    let balance = refused(Code::FailedPrecondition, "INSUFFICIENT_BALANCE");
    list.add("more than there is", balance, |request| {
        request.amount = BALANCE + 1;
    });
    list.cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_is_planned() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    bank.refuses::<_, CreateScheduleResponse>(&user(1), SCHEDULE, cases::schedules(&bank.accounts))
        .await;
    assert_eq!(bank.tables().await, before);
}
