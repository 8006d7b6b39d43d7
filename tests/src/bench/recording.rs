//! What recording costs: the decoder beside zcat, and terminals in each mode beside no recording.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use shared_recording::{Decoder, Header, Limits, SessionRecorder, Slice};
use shared_testkit::{ClusterOptions, Scratch};
use shared_types::{HostId, SessionId};

use super::{Bench, Load, Way};
use crate::measure::{Table, median, target};

/// A proxy and its auth service are so far apart, in each direction.
const DISTANCE: Duration = Duration::from_micros(500);
/// Records in a slice, as the proxy cuts them at full speed.
const SLICE: usize = 512 * 1024;

/// Decodes a recording of so many MiB of output, and unpacks the same bytes with zcat.
pub fn decode(mib: u64, rounds: usize) -> Result<()> {
    let scratch = Scratch::new("decode")?;
    let (recording, packed) =
        (scratch.path().join("session.tar"), scratch.path().join("session.gz"));
    record(&recording, mib << 20)?;
    bodies(&recording, &packed)?;
    let size = std::fs::metadata(&recording)?.len() as f64 / f64::from(1 << 20);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        let output = decoded(&recording)?;
        ours.push(started.elapsed().as_secs_f64());
        ensure!(output == mib << 20, "{output} bytes of output");
        let started = Instant::now();
        let status = Command::new("zcat").arg(&packed).stdout(Stdio::null()).status()?;
        theirs.push(started.elapsed().as_secs_f64());
        ensure!(status.success(), "zcat ended with {status}");
    }
    let (ours, theirs) = (median(&ours), median(&theirs));
    let mut table = Table::new(&format!("decode {mib} MiB of output, stored in {size:.0} MiB, s"));
    table.row("zcat", format!("{theirs:.2}"), 1.0, String::new());
    table.row("decoder", format!("{ours:.2}"), ours / theirs, String::new());
    table.print("zcat");
    target("decode, time to zcat's", ours / theirs, 0.0..=1.2);
    Ok(())
}

/// Bytes of output that the decoder gives out.
fn decoded(path: &Path) -> Result<u64> {
    let mut decoder = Decoder::new(BufReader::new(File::open(path)?));
    let mut output = 0;
    while let Some(event) = decoder.next_event()? {
        if let shared_events::AuditEvent::SessionPrint(print) = event {
            output += print.data.len() as u64;
        }
    }
    Ok(output)
}

/// Records a listing of a folder without end: text with numbers that change.
fn record(path: &Path, bytes: u64) -> Result<()> {
    let header = Header {
        cluster: "example.test".parse()?,
        session: SessionId::random(),
        recorder: HostId::random(),
    };
    let mut recorder = SessionRecorder::new(header, Limits { raw: SLICE }, None);
    let mut file = std::io::BufWriter::new(File::create(path)?);
    let mut write = |slices: &mut Vec<Slice>| -> Result<()> {
        slices.drain(..).try_for_each(|slice| file.write_all(&slice.bytes))?;
        Ok(())
    };
    let (mut slices, mut left, mut line, mut number) = (Vec::new(), bytes, Vec::new(), 1_u64);
    let mut now: DateTime<Utc> = DateTime::UNIX_EPOCH;
    while left > 0 {
        line.clear();
        while line.len() < 16 * 1024 {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let size = number >> 40;
            writeln!(
                line,
                "drwxr-xr-x  2 root root {size:>9} Nov 21 09:15 folder-{}\r",
                size % 977
            )?;
        }
        line.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= line.len() as u64;
        now += TimeDelta::milliseconds(1);
        recorder.output(Bytes::copy_from_slice(&line), now, &mut slices)?;
        write(&mut slices)?;
    }
    recorder.finish(now, &mut slices)?;
    write(&mut slices)?;
    file.flush()?;
    Ok(())
}

/// The bodies of the parts alone: what zcat reads.
fn bodies(recording: &Path, packed: &Path) -> Result<()> {
    let mut from = BufReader::new(File::open(recording)?);
    let mut to = std::io::BufWriter::new(File::create(packed)?);
    let mut header = [0; shared_recording::format::HEADER];
    while from.read_exact(&mut header).is_ok() {
        let number = |at: usize| -> Result<u64> {
            let bytes = header.get(at..at + 8).context("header of a part")?;
            Ok(u64::from_be_bytes(bytes.try_into()?))
        };
        let (size, padding) = (number(8)?, number(16)?);
        std::io::copy(&mut (&mut from).take(size), &mut to)?;
        from.seek(SeekFrom::Current(i64::try_from(padding)?))?;
    }
    to.flush()?;
    Ok(())
}

/// Output of a terminal at full speed in each mode, with auth at a distance.
pub fn modes(mib: u64, rounds: usize) -> Result<()> {
    let modes = [("off", 1.0), ("proxy", 0.9), ("proxy-sync", 0.85)];
    let start = |mode: &str| {
        Bench::start(&ClusterOptions {
            recording: Some(mode.to_owned()),
            two_processes: true,
            link: Some(DISTANCE),
            ..ClusterOptions::default()
        })
    };
    let benches = modes.iter().map(|(mode, _)| start(mode)).collect::<Result<Vec<_>>>()?;
    let load = Load::terminal(mib);
    for (way, name) in [(Way::Proxy, "ssh"), (Way::Tsh, "tsh")] {
        let mut speeds = vec![Vec::new(); modes.len()];
        for _ in 0..rounds {
            for (bench, speeds) in benches.iter().zip(&mut speeds) {
                speeds.push(bench.transfer(way, &load)?);
            }
        }
        let base = median(&speeds[0]);
        let title = format!(
            "terminal at full speed, {name}, {mib} MiB, round trip to auth {:?}, MiB/s",
            2 * DISTANCE
        );
        let mut table = Table::new(&title);
        for ((mode, _), speeds) in modes.iter().zip(&speeds) {
            let speed = median(speeds);
            table.row(mode, format!("{speed:.0}"), speed / base, String::new());
        }
        table.print("off");
        for ((mode, wanted), speeds) in modes.iter().zip(&speeds).skip(1) {
            target(
                &format!("{mode}, speed to off's"),
                median(speeds) / base,
                *wanted..=f64::INFINITY,
            );
        }
    }
    Ok(())
}
