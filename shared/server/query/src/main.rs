//! `teleport-query`: reads one question as JSON from standard input, answers as JSON on standard output.

use std::io::{self, Read, Write};

use server_query::{Request, Response, answer, apply_limits};

/// The longest question.
const MAX_QUESTION: u64 = 1 << 20;

fn main() -> anyhow::Result<()> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version") {
        writeln!(io::stdout(), "teleport-query {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(());
    }
    let mut question = Vec::new();
    io::stdin().lock().take(MAX_QUESTION).read_to_end(&mut question)?;
    let request: Request = serde_json::from_slice(&question)?;
    apply_limits(&request)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let response = match runtime.block_on(answer(&request)) {
        Ok(reply) => Response::Reply(reply),
        Err(error) => Response::Error { error },
    };
    let code = i32::from(matches!(response, Response::Error { .. }));
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, &response)?;
    out.flush()?;
    // Without tearing down what the system takes back anyway.
    std::process::exit(code);
}
