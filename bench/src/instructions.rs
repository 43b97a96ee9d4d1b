//! What one warm invocation costs in instructions, which come out the same on a busy machine: whether a change has helped
//! can be seen here long before a table of times shows it.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Fallible, Servers,
    callgrind::Counted,
    calls::{Call, VARIANTS, Work},
    failed,
    measure::{Bench, expect_success, is_hit},
    scale::Scale,
};

/// So many are counted.
const TIMES: usize = 100;
/// A function under valgrind is so slow at first that it leaves Redis alone for a while; so often it may.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_secs(3);

/// Prints what an invocation of each reading call takes, with the empty function's first.
pub(crate) async fn run(servers: &Servers, scale: Scale) -> Fallible<()> {
    let bench = Bench::on(servers, scale).await?;
    line("| call | thousands of instructions |\n|---|---|");
    let calls = bench.facts.calls()?;
    let mut reads = calls.iter().filter(|call| matches!(call.work, Work::Read(_))).peekable();
    if let Some(first) = reads.peek() {
        let empty = Counted::start(&bench.programs.join("empty"), &[]).await?;
        line(&format!("| an empty function | {} |", count(&bench, first, empty).await?));
    }
    for call in reads {
        let mut counted =
            Counted::start(&bench.programs.join(call.function), &bench.environment(call, &bench.url)).await?;
        warm_up(&bench, call, &mut counted).await?;
        line(&format!("| `{}` | {} |", call.title(), count(&bench, call, counted).await?));
    }
    Ok(())
}

/// Until everything has been done that is done only once, and the cache has what it should have.
async fn warm_up(bench: &Bench, call: &Call, counted: &mut Counted) -> Fallible<()> {
    for _ in 0..ATTEMPTS {
        let mut hits = 0;
        for turn in 0..2 * VARIANTS {
            let answer = counted.function.invoke(&bench.facts.next(call, turn)?.0).await?;
            expect_success(call, &answer.payload)?;
            hits += usize::from(is_hit(&answer.payload));
        }
        if !call.cached || hits >= VARIANTS {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(failed(format!("{} is not answered by the cache", call.title())))
}

async fn count(bench: &Bench, call: &Call, mut counted: Counted) -> Fallible<u64> {
    counted.begin_anew().await?;
    for turn in 0..TIMES {
        counted.function.invoke(&bench.facts.next(call, turn)?.0).await?;
    }
    Ok(counted.stop().await? / TIMES as u64 / 1_000)
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn line(text: &str) {
    println!("{text}");
}
