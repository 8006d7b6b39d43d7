//! What must be true after every round, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::plan::{Fault, Mode, Plan};
use super::script::{CODE, Reading, Script};
use super::world::World;
use crate::process::run;
use crate::wait::until;

/// What may be shown and not recorded when the proxy is killed: a slice of its spool, or what comes in the time that
/// one takes, with something for a busy machine.
const SLICE: Allowed = Allowed { bytes: 512 * 1024, lines: 30 };
/// The same where the auth service has to acknowledge: 256 KiB or 2 s.
const WINDOW: Allowed = Allowed { bytes: 256 * 1024, lines: 60 };
/// Part of what a client reads when its streamed recording is not taken.
const NOT_ACKNOWLEDGED: &str = "has not acknowledged the recording of this session";
/// Part of what a client reads whose recording is mandatory and cannot be written.
const MANDATORY: &str = "its recording is mandatory";

struct Allowed {
    bytes: usize,
    lines: u64,
}

/// A session that has ended.
pub(super) struct Ended {
    pub(super) script: Script,
    pub(super) client: &'static str,
    pub(super) strict: bool,
    pub(super) code: i32,
    pub(super) capture: Vec<u8>,
}

/// How the sessions of a round ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Went to their end, and are recorded to the byte.
    pub whole: usize,
    /// Went to their end on a full disk: with a named gap in the recording, or truncated.
    pub gaps: usize,
    /// Were ended for the sake of their recording, and said so.
    pub ended: usize,
    /// Were cut off with the proxy.
    pub cut: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { whole, gaps, ended, cut } = self;
        let counts = [(whole, "whole"), (gaps, "with a gap"), (ended, "ended"), (cut, "cut off")];
        let said = counts.iter().filter(|(count, _)| **count > 0);
        let words: Vec<_> = said.map(|(count, word)| format!("{count} {word}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// What there is of a session on our side.
struct Recorded {
    sid: String,
    state: String,
    play: Vec<u8>,
}

impl World {
    /// Checks everything, and says how the sessions ended.
    pub(super) fn check(&mut self, plan: &Plan, sessions: &[Ended]) -> Result<Tally> {
        let recorded = self.recorded(sessions.len())?;
        let mut wrong = String::new();
        let mut tally = Tally::default();
        let mut unused: Vec<&Recorded> = recorded.iter().collect();
        for session in sessions {
            let of = |recorded: &&Recorded| session.script.read(&recorded.play).lines > 0;
            // Of one that had just begun, there may be nothing.
            let place = unused.iter().position(of);
            let Some(at) = place.or_else(|| unused.iter().position(|one| one.play.is_empty()))
            else {
                let tail = tail(&session.capture);
                writeln!(wrong, "{}: it has no recording; it showed {tail:?}", session.client)?;
                continue;
            };
            let recorded = unused.swap_remove(at);
            if let Err(error) = self.judge(plan, session, recorded, &mut tally) {
                writeln!(wrong, "{} ({}): {error:#}", session.client, recorded.sid)?;
            }
        }
        if !wrong.is_empty() {
            for Recorded { sid, state, play } in &unused {
                let head = String::from_utf8_lossy(play.get(..play.len().min(300)).unwrap_or(play));
                writeln!(wrong, "{sid}, {state}, is no session's: {} bytes, {head:?}", play.len())?;
            }
        }
        self.known.extend(recorded.into_iter().map(|recorded| recorded.sid));
        ensure!(wrong.is_empty(), "{}", wrong.trim_end());
        Ok(tally)
    }

    /// Waits until each session of the round has a named end, and fetches what was recorded.
    fn recorded(&self, count: usize) -> Result<Vec<Recorded>> {
        let cluster = &self.stage.cluster;
        let column = |sql: &str| -> Result<Vec<String>> {
            let rows = cluster.query(sql)?.into_iter().filter_map(|row| row.into_iter().next());
            Ok(rows.filter(|sid| !self.known.contains(sid)).collect())
        };
        let starts = until("a session.start of each session", 60, || {
            column("select sid from session_start").ok().filter(|sids| sids.len() >= count)
        })?;
        let sids: BTreeSet<&String> = starts.iter().collect();
        ensure!(starts.len() == count && sids.len() == count, "session.start: {starts:?}");
        let mut states = BTreeMap::new();
        let waited = until("a named end of each session", 90, || {
            states = self.states().ok()?;
            let named = |sid: &&String| {
                states.get(*sid).is_some_and(|state| state != "uploading" && !state.is_empty())
            };
            sids.iter().all(named).then_some(())
        });
        if waited.is_err() {
            let open: Vec<_> = sids.iter().map(|sid| (sid, states.get(*sid))).collect();
            bail!("not every session has a named end after 90 s: {open:?}");
        }
        let failed = |sid: &String| states.get(sid).is_some_and(|state| state == "failed");
        let stored: BTreeSet<&String> = sids.iter().copied().filter(|sid| !failed(sid)).collect();
        for (table, wanted) in [("session_end", &sids), ("session_upload", &stored)] {
            let mut found = column(&format!("select sid from {table}"))?;
            found.sort();
            ensure!(found.iter().eq(wanted.iter().copied()), "{table}: {found:?} of {wanted:?}");
        }
        self.verify(&stored, &states)?;
        let recorded = |sid: &&String| {
            let play = match failed(sid) {
                true => Vec::new(),
                false => self.stage.joe.run(["play", "--format=text", sid])?.ok().stdout,
            };
            let state = states.get(*sid).cloned().unwrap_or_default();
            Ok(Recorded { sid: (*sid).clone(), state, play })
        };
        sids.iter().map(recorded).collect()
    }

    /// The state of each recording.
    fn states(&self) -> Result<BTreeMap<String, String>> {
        let args = ["recordings", "ls", "--limit=1000", "--format=json"];
        let outcome = run(self.stage.cluster.tctl().args(args), "", 60)?;
        let ends: Vec<Value> = serde_json::from_slice(&outcome.stdout)?;
        let text = |end: &Value, key: &str| end[key].as_str().unwrap_or_default().to_owned();
        Ok(ends.iter().map(|end| (text(end, "sid"), text(end, "recording_state"))).collect())
    }

    /// Each recording verifies as what its state says.
    fn verify(&self, sids: &BTreeSet<&String>, states: &BTreeMap<String, String>) -> Result<()> {
        let mut tctl = self.stage.cluster.tctl();
        tctl.args(["recordings", "verify", "--format=json"]).args(sids);
        let outcome = run(&mut tctl, "", 60)?;
        let items: Vec<Value> = serde_json::from_slice(&outcome.stdout)
            .with_context(|| format!("verify: {}", outcome.stderr))?;
        ensure!(items.len() == sids.len(), "verify names {} recordings", items.len());
        for item in &items {
            let sid = item["session"].as_str().unwrap_or_default();
            let state = states.get(sid).map_or("", String::as_str);
            let wanted = if state == "complete" { "intact" } else { state };
            ensure!(item["verdict"] == wanted, "{sid} is {state}, and verifies as {item}");
        }
        Ok(())
    }

    fn judge(
        &self,
        plan: &Plan,
        session: &Ended,
        recorded: &Recorded,
        tally: &mut Tally,
    ) -> Result<()> {
        let shown = session.script.read(&session.capture);
        let kept = session.script.read(&recorded.play);
        let said = String::from_utf8_lossy(&session.capture);
        let tail = tail(&session.capture);
        let say = || format!("{} {shown:?}, {} {kept:?}, {tail:?}", session.code, recorded.state);
        let whole = session.code == CODE && shown.over;
        if whole && recorded.state == "complete" && kept == (Reading { rest: 0, ..shown }) {
            tally.whole += 1;
            return ensure_that(!plan.fault.kills_the_proxy(), "outlived the proxy", say);
        }
        let disk_full = plan.fault == Fault::DiskFull && plan.mode == Mode::Proxy;
        if whole {
            ensure_that(disk_full, "its recording is not what was shown", say)?;
            tally.gaps += 1;
            if recorded.state == "failed" {
                return ensure_that(!session.strict, "a strict session is not recorded", say);
            }
            if recorded.state == "truncated" {
                // It ended while there was no room, and none came in time.
                ensure_that(plan.end_meanwhile && kept.rest == 0, "its end is lost", say)?;
                let little = within(plan.mode, &session.script, shown, kept);
                return if session.strict { little.with_context(say) } else { Ok(()) };
            }
            ensure_that(!session.strict, "a strict session has a gap", say)?;
            return self.gap(session, recorded, shown).with_context(say);
        }
        if plan.fault.kills_the_proxy() {
            tally.cut += 1;
            ensure_that(session.code == 255, "ended in another way than its proxy", say)?;
            ensure_that(recorded.state == "truncated", "its end is lost without a name", say)?;
            return within(plan.mode, &session.script, shown, kept).with_context(say);
        }
        tally.ended += 1;
        if disk_full {
            ensure_that(session.strict && said.contains(MANDATORY), "ended without need", say)?;
            ensure_that(recorded.state == "truncated", "its end is lost without a name", say)?;
            return within(plan.mode, &session.script, shown, kept).with_context(say);
        }
        let streamed = plan.mode == Mode::ProxySync && plan.fault.parts_proxy_and_auth();
        ensure_that(streamed && said.contains(NOT_ACKNOWLEDGED), "ended without need", say)?;
        // What it has shown is brought when auth is back.
        ensure_that(recorded.state == "complete", "its recording has no end", say)?;
        ensure_that(kept.rest == 0 && kept.bytes >= shown.bytes, "something shown is lost", say)
    }

    /// What is not in the recording is in gaps that have names and sizes.
    fn gap(&self, session: &Ended, recorded: &Recorded, shown: Reading) -> Result<()> {
        ensure!(recorded.state == "complete", "the recording has no end");
        let json = self.stage.joe.run(["play", "--format=json", &recorded.sid])?.ok();
        let events: Vec<Value> = serde_json::from_slice(&json.stdout)?;
        let mut missing = 0;
        for event in events.iter().filter(|e| e["unknown_event"] == "session.output.gap") {
            let gap: Value = serde_json::from_str(event["data"].as_str().unwrap_or_default())?;
            missing += usize::try_from(gap["bytes"].as_u64().context("size of a gap")?)?;
        }
        let lines = recorded.play.iter().filter(|byte| **byte == b'\r').count();
        // A terminal's lines end with two bytes.
        let ends = if lines > 0 { session.script.line_ends(shown) } else { 0 };
        let all = shown.bytes + ends;
        let kept = recorded.play.len();
        ensure!(
            missing > 0 && kept + missing == all,
            "{kept} recorded, {missing} named, {all} shown"
        );
        Ok(())
    }
}

fn tail(capture: &[u8]) -> String {
    let from = capture.len().saturating_sub(300);
    String::from_utf8_lossy(capture.get(from..).unwrap_or_default()).into_owned()
}

fn ensure_that(holds: bool, what: &str, say: impl Fn() -> String) -> Result<()> {
    ensure!(holds, "{what}: {}", say());
    Ok(())
}

/// Little of what was shown is missing, and nothing else is in the recording.
fn within(mode: Mode, script: &Script, shown: Reading, kept: Reading) -> Result<()> {
    let allowed = if mode == Mode::Proxy { &SLICE } else { &WINDOW };
    let lost = shown.bytes.saturating_sub(kept.bytes);
    ensure!(lost <= allowed.bytes, "{lost} bytes are lost");
    let lines = shown.lines.saturating_sub(kept.lines);
    ensure!(script.writes_much() || lines <= allowed.lines, "{lines} lines are lost");
    ensure!(kept.rest == 0, "the recording is something else than was shown");
    Ok(())
}
