//! The two client programs that the seed prints run against the gateway, as they stand in `tests/seed/`: only the base URL,
//! the ids and the email are set. The first one never signs in, which the seed itself calls a mistake: it is told so.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tests::{TestWorld, promise, world::Options};
use tokio::process::Command;

/// Replaces each text, which must be there, and runs the program; the lines that it printed.
async fn run(source: &str, set: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut source = source.to_owned();
    for (from, to) in set {
        ensure!(source.contains(from), "the seed's program has no {from:?}");
        source = source.replace(from, to);
    }
    // Debian's, which has python3-requests
    let output = Command::new("/usr/bin/python3")
        .args(["-c", &source])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("python3 does not run")?;
    let (printed, errors) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "the program failed: {errors}");
    Ok(printed.lines().map(str::to_owned).collect())
}

#[test]
fn the_first_client_is_told_to_sign_in() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 500).await?);
        let get = format!("get_user({})", alice.id);
        let transfer = format!("transfer({}, {}, 100)", alice.id, bob.id);
        let set = [
            ("http://localhost:5000", world.gateway()),
            ("get_user(1)", get.as_str()),
            ("transfer(1, 2, 100)", transfer.as_str()),
        ];
        let printed = run(include_str!("../seed/bank_client.py"), &set).await?;
        ensure!(printed.len() == 3, "{printed:?}");
        ensure!(printed[0].contains("'error': 'Unauthorized'"), "{printed:?}");
        // a user can be created by anyone, and `{'id': 3}` is all that comes back
        let id = printed[1]
            .strip_prefix("{'id': ")
            .and_then(|rest| rest.strip_suffix('}'));
        let id: i64 = id.with_context(|| printed[1].clone())?.parse()?;
        ensure!(id > bob.id, "{printed:?}");
        ensure!(printed[2].contains("'error': 'Unauthorized'"), "{printed:?}");
        world.balances(&[(&alice, 1_000), (&bob, 500)]).await?;
        let charlie = alice.rest.get(&format!("/api/users/{id}")).await?.expect(200)?;
        ensure!(charlie["name"] == "Charlie", "{charlie}");
        Ok(())
    })
}

#[test]
fn the_second_client_signs_in_and_pays() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 500).await?);
        let get = format!("get_user({})", alice.id);
        let transfer = format!("transfer({}, {}, 100)", alice.id, bob.id);
        let set = [
            ("http://api.example.com", world.gateway()),
            ("alice@example.com", alice.email.as_str()),
            ("get_user(1)", get.as_str()),
            ("transfer(1, 2, 100)", transfer.as_str()),
        ];
        let printed = run(include_str!("../seed/scalable_bank_client.py"), &set).await?;
        ensure!(printed.len() == 2, "{printed:?}");
        let seen = format!(
            "'id': {}, 'name': 'Alice', 'email': '{}', 'balance': 1000",
            alice.id, alice.email
        );
        ensure!(printed[0].contains(&seen), "{seen} is not in {printed:?}");
        ensure!(printed[1].contains("'status': 'success'"), "{printed:?}");
        world.balances(&[(&alice, 900), (&bob, 600)]).await
    })
}
